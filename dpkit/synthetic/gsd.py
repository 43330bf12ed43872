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
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from dp_accounting import DpEvent

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.relations import Relation
from dpkit.mechanisms.tables import Marginals, Selection
from dpkit.synthetic.budgets import apart, sums_and_scores, zcdp
from dpkit.synthetic.engine import Marginal, evolve
from dpkit.synthetic.queries import FAMILIES, families_of
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
      families: "pairs" or "triples" of columns; "ranges" of each ordered column, from
        the finest to halves, by each other one; `count` random "prefixes" or
        "halfspaces" of all ordered columns, by a random other one; or a list of such
        (`dpkit.synthetic.engine`: Marginal, Prefix, HalfSpace), made for the schema's
        codes and from nothing private.
      count: of random families.
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
    families: str | Sequence[Any] = "pairs"
    count: int = 1000
    rows: int = 2000
    generations: int = 100_000
    candidates: int = 50
    singles_share: float = 0.1

    name: ClassVar[str] = "gsd"

    def __post_init__(self) -> None:
        """Refuses numbers out of range."""
        checks.positive(epsilon=self.epsilon)
        checks.open_probability(delta=self.delta)
        for name in ("picks", "rows", "generations", "candidates", "count"):
            checks.integer_at_least(1, **{name: getattr(self, name)})
        if self.rounds is not None:
            checks.integer_at_least(1, rounds=self.rounds)
        checks.open_probability(singles_share=self.singles_share)
        if isinstance(self.families, str):
            checks.one_of(FAMILIES, families=self.families)

    def scales(
        self, families: int, relation: Relation = Relation.ADD_REMOVE
    ) -> tuple[float, float]:
        """Noise of a table and epsilon of a choice, 0 without; in units of reach.

        Example:
          >>> gsd = GSD(epsilon=1.0, delta=1e-6, rounds=50, singles_share=1e-9)
          >>> noise, epsilon = gsd.scales(91, Relation.REPLACE_ONE)
          >>> round(noise, 4), round(2 / epsilon, 4)  # as published
          (64.0763, 45.3088)
        """
        rho = zcdp(self.epsilon, self.delta) * (1 - self.singles_share)
        far = apart(relation)
        if self.rounds is None:
            return far * math.sqrt(families / (2 * rho)), 0.0
        half = rho / (2 * self.rounds)
        return (
            far * math.sqrt(self.picks / (2 * half)),
            math.sqrt(8 * half / self.picks),
        )

    def releases(
        self, codebook: Codebook, relation: Relation, reach: int
    ) -> Mapping[str, DpEvent]:
        """Columns; all families at once, or of each round choices and tables."""
        sums_and_scores(relation, "GSD")
        families = self._families(codebook)
        columns = self._columns(codebook, relation, reach)
        found = {"columns": columns.event(relation)}
        if not families:
            return found
        noise, epsilon = self.scales(len(families), relation)
        if self.rounds is None:
            sums = _stacked([1] * len(families), noise, reach)
            return found | {"families": sums.event(relation)}
        if self.rounds * self.picks > len(families):
            raise ValueError(
                f"rounds={self.rounds} with picks={self.picks}: needed at most the "
                f"{len(families)} families together"
            )
        choice = self._choice(epsilon, float(reach))
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
        self._rehearse(book, families)
        tell(0, 1, "counting")
        true, released = _counts(source, families), self._singles(source, purse)
        view = View.of(book, released)
        start = view.start(self.rows, np.random.default_rng([seed, 0]))
        search = _Search(book, start, seed, self.candidates, view.records)
        for one, share in zip(released, view.shares, strict=True):
            search.add(Marginal(one.columns, book.sizes), share)
        noise, epsilon = self.scales(max(len(families), 1), purse.relation)
        choice = self._choice(epsilon or 1.0, source.reach * source.unit)
        left, rounds = list(range(len(families))), self.rounds or 1
        for number in range(1, rounds + 1 if families else 1):
            tell(number - 1, rounds, "measuring and searching")
            chosen, name = left, "families"
            if self.rounds is not None:
                worst = [search.worst(families[n], true[n] * source.unit) for n in left]
                picks = select(choice, np.array(worst), purse, f"choice {number}")
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
                    released.append(Measurement(families[n].columns, values, stddev))
            search.run(self.generations // rounds)
        tell(rounds, rounds, "measuring and searching")
        estimates = {
            one.columns: (one.values, np.full(one.values.shape, one.stddev))
            for one in released
        }
        return Fitted(tuple(released), (), search.rows, view.records, estimates)

    def _rehearse(self, book: Codebook, families: list[Any]) -> None:
        """Refuses what the search can't hold, while nothing is paid."""
        start = np.zeros((self.rows, len(book.sizes)), np.int32)
        search = _Search(book, start, 0, self.candidates, 1.0)
        for family in families:
            search.add(family, np.zeros(family.shape))
        search.run(0)

    def _singles(self, source: Source, purse: Purse) -> list[Measurement]:
        """Single columns, released."""
        sums = self._columns(source.codebook, purse.relation, source.reach)
        counted = source.count(sums.families)
        total = np.concatenate([table.ravel() for table in counted])
        tables = sums.split(measure(sums, total, purse, "columns"))
        return [
            Measurement(columns, table * source.unit, stddev * source.unit)
            for columns, table, stddev in zip(
                sums.families, tables, sums.stddevs, strict=True
            )
        ]

    def _families(self, book: Codebook) -> list[Any]:
        """What is counted."""
        if isinstance(self.families, str):
            return families_of(self.families, book, self.count)
        return list(self.families)

    def _choice(self, epsilon: float, step: float) -> Selection:
        """Of families by their worst cell, which a unit moves by a step at most.

        A replaced one, too: no cell changes by more than its rows there.
        """
        return Selection(
            epsilon=epsilon,
            sensitivity=step,
            picks=self.picks,
            replaced_sensitivity=step,
        )

    def _columns(self, book: Codebook, relation: Relation, reach: int) -> Marginals:
        """Single columns; all of the budget, if there are no families."""
        share = self.singles_share if self._families(book) else 1.0
        rho, count = zcdp(self.epsilon, self.delta) * share, len(book.sizes)
        noise = apart(relation) * math.sqrt(count / (2 * rho)) * reach
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
