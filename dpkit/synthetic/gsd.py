r"""Private-GSD: any statistics that are counts, and a genetic search for rows.

The columns are measured first. Then either all families at once, or in rounds the
families in which the rows have the worst cell, chosen by the exponential mechanism and
measured; after each round a genetic search goes on from the rows at hand. Families may
be tables of columns, of coarser codes, prefixes and half-spaces: nothing need be
differentiable.

Source: Liu, Tang, Vietri, Wu, "Generating Private Synthetic Data with Genetic
Algorithms", 2023, arXiv:2306.03257. Here a row is added or removed and the number of
rows is private; noisy answers keep their signs, and every cell counts.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from dp_accounting import DpEvent

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.relations import Relation
from dpkit.mechanisms.tables import Marginals, Selection
from dpkit.synthetic.budgets import only_add_remove, zcdp
from dpkit.synthetic.engine import Marginal, evolve
from dpkit.synthetic.recipe import (
    Fitted,
    Measurement,
    OnProgress,
    Purse,
    measure,
    quiet,
    select,
)
from dpkit.synthetic.view import View

if TYPE_CHECKING:
    from dpkit.data.codes import Codebook
    from dpkit.synthetic.counting import Source

_CHUNK = 2**16


@dataclasses.dataclass(frozen=True, kw_only=True)
class GSD:
    """Genetic search for any families of counts.

    Args:
      epsilon, delta: what everything may cost.
      rounds: of choices; None: all families at once.
      picks: families that are measured in a round.
      families: of `dpkit.synthetic.engine` (Marginal, Prefix, HalfSpace), made for the
        schema's codes; None: all pairs of columns.
      rows: how many to make.
      generations: of the search in all.
      candidates: in a generation.
      singles_share: of the budget for single columns, with which the search begins.

    Example:
      >>> GSD(epsilon=1.0, delta=1e-6).rows
      2000
    """

    epsilon: float
    delta: float
    rounds: int | None = None
    picks: int = 1
    families: Sequence[Any] | None = None
    rows: int = 2000
    generations: int = 100_000
    candidates: int = 50
    singles_share: float = 0.1

    name: ClassVar[str] = "gsd"

    def __post_init__(self) -> None:
        """Refuses numbers out of range."""
        checks.positive(epsilon=self.epsilon)
        checks.open_probability(delta=self.delta)
        for name in ("picks", "rows", "generations", "candidates"):
            checks.integer_at_least(1, **{name: getattr(self, name)})
        if self.rounds is not None:
            checks.integer_at_least(1, rounds=self.rounds)
        checks.half_open_probability(singles_share=self.singles_share)

    def scales(self, families: int) -> tuple[float, float]:
        """Noise of a table and epsilon of a choice, 0 without; in units of reach."""
        rho = zcdp(self.epsilon, self.delta) * (1 - self.singles_share)
        if self.rounds is None:
            return math.sqrt(families / (2 * rho)), 0.0
        half = rho / (2 * self.rounds)
        return (
            math.sqrt(self.picks / (2 * half)),
            math.sqrt(8 * half / self.picks),
        )

    def releases(
        self, codebook: Codebook, relation: Relation, reach: int
    ) -> Mapping[str, DpEvent]:
        """Columns; all families at once, or of each round choices and tables."""
        only_add_remove(relation, "GSD")
        families = self._families(codebook)
        found = {"columns": self._columns(codebook, reach).event(relation)}
        if not families:
            return found
        noise, epsilon = self.scales(len(families))
        if self.rounds is None:
            sums = _stacked([1] * len(families), noise, reach)
            return found | {"families": sums.event(relation)}
        if self.rounds * self.picks > len(families):
            raise ValueError(
                f"rounds={self.rounds} with picks={self.picks}: needed at most the "
                f"{len(families)} families together"
            )
        choice = Selection(epsilon=epsilon, sensitivity=float(reach), picks=self.picks)
        sums = _stacked([1] * self.picks, noise, reach)
        for number in range(1, self.rounds + 1):
            found[f"choice {number}"] = choice.event(relation)
            found[f"tables {number}"] = sums.event(relation)
        return found

    def fit(
        self,
        source: Source,
        purse: Purse,
        *,
        seed: int,
        on_progress: OnProgress | None = None,
    ) -> Fitted:
        """Measures and searches, once or in rounds."""
        tell, book = on_progress or quiet, source.codebook
        families = self._families(book)
        singles: list[tuple[int, ...]] = [(n,) for n in range(len(book.sizes))]
        counted = source.count(singles)
        true = _counts(source, families)
        sums = self._columns(book, source.reach)
        total = np.concatenate([table.ravel() for table in counted])
        tables = sums.split(measure(sums, total, purse, "columns"))
        released = [
            Measurement(family, table * source.unit, stddev * source.unit)
            for family, table, stddev in zip(singles, tables, sums.stddevs, strict=True)
        ]
        view = View.of(book, released)
        generator = np.random.default_rng([seed, 0])
        search = _Search(
            book, view.start(self.rows, generator), seed, self.candidates, view.records
        )
        for family, share in zip(singles, view.shares, strict=True):
            search.add(Marginal(family, book.sizes), share)
        noise, epsilon = self.scales(max(len(families), 1))
        left = list(range(len(families)))
        rounds = 1 if self.rounds is None else self.rounds
        for number in range(1, rounds + 1 if families else 1):
            tell(number - 1, rounds, "measuring and searching")
            chosen, name = left, "families"
            if self.rounds is not None:
                scores = np.array(
                    [search.worst(families[n], true[n] * source.unit) for n in left]
                )
                choice = Selection(
                    epsilon=epsilon,
                    sensitivity=source.reach * source.unit,
                    picks=self.picks,
                )
                picks = select(choice, scores, purse, f"choice {number}")
                chosen, name = [left[n] for n in picks], f"tables {number}"
            left = [n for n in left if n not in chosen]
            sums = _stacked([true[n].size for n in chosen], noise, source.reach)
            total = np.concatenate([true[n].ravel() for n in chosen])
            tables = sums.split(measure(sums, total, purse, name))
            stddev = noise * source.reach * source.unit
            for n, table in zip(chosen, tables, strict=True):
                values = table.reshape(families[n].shape) * source.unit
                search.add(families[n], values / view.records)
                if isinstance(families[n], Marginal) and families[n].maps is None:
                    columns = tuple(families[n].columns)
                    released.append(Measurement(columns, values, stddev))
            search.run(self.generations // rounds)
        tell(rounds, rounds, "measuring and searching")
        estimates = {
            one.columns: (one.values, np.full(one.values.shape, one.stddev))
            for one in released
        }
        return Fitted(tuple(released), (), search.rows, view.records, estimates)

    def _families(self, book: Codebook) -> list[Any]:
        """What is counted."""
        if self.families is not None:
            return list(self.families)
        wide = [n for n, size in enumerate(book.sizes) if size > 1]
        return [Marginal(p, book.sizes) for p in itertools.combinations(wide, 2)]

    def _columns(self, book: Codebook, reach: int) -> Marginals:
        """Single columns; all of the budget, if there are no families."""
        share = self.singles_share if self._families(book) else 1.0
        rho = zcdp(self.epsilon, self.delta) * (share or 1e-6)
        count = len(book.sizes)
        noise = math.sqrt(count / (2 * rho)) * reach
        return Marginals(
            families=tuple((n,) for n in range(count)),
            sizes=tuple(book.sizes),
            stddevs=(noise,) * count,
            reach=reach,
        )


class _Search:
    """Rows, and what they should agree with."""

    def __init__(
        self,
        book: Codebook,
        rows: np.ndarray,
        seed: int,
        candidates: int,
        records: float,
    ) -> None:
        self._book, self.rows, self._seed = book, rows, seed
        self._candidates, self._records = candidates, records
        self._families: list[Any] = []
        self._shares: list[np.ndarray] = []

    def add(self, family: Any, shares: np.ndarray) -> None:
        """One more family."""
        self._families.append(family)
        self._shares.append(shares)

    def worst(self, family: Any, true: np.ndarray) -> float:
        """The largest error of a cell, in rows: private."""
        cells = family.cells(self.rows)
        size = math.prod(family.shape)
        made = np.bincount(cells[cells >= 0], minlength=size) / len(self.rows)
        return float(np.abs(made * self._records - true.ravel()).max())

    def run(self, generations: int) -> None:
        """Goes on searching."""
        self._seed += 1
        self.rows = evolve(
            self.rows,
            self._book.sizes,
            self._families,
            self._shares,
            generations=generations,
            candidates=self._candidates,
            ordered=self._book.ordered,
            forbidden=self._book.forbidden,
            seed=self._seed,
        ).rows


def _stacked(sizes: list[int], noise: float, reach: int) -> Marginals:
    """Tables of any families: each is one column of cells."""
    return Marginals(
        families=tuple((n,) for n in range(len(sizes))),
        sizes=tuple(sizes),
        stddevs=(noise * reach,) * len(sizes),
        reach=reach,
    )


def _counts(source: Source, families: list[Any]) -> list[np.ndarray]:
    """Exact counts of families: private."""
    plain = all(isinstance(f, Marginal) and f.maps is None for f in families)
    if plain:
        return source.count([tuple(f.columns) for f in families])
    rows = source.rows()
    totals = [np.zeros(math.prod(f.shape), np.int64) for f in families]
    for begin in range(0, len(rows), _CHUNK):
        some = rows[begin : begin + _CHUNK]
        for family, total in zip(families, totals, strict=True):
            cells = family.cells(some)
            total += np.bincount(cells[cells >= 0], minlength=total.size)
    return totals
