r"""AIM: measure, where the rows are worst, again and again, on a budget of zCDP.

All columns first. Then each round chooses the pair (or column) whose table the rows
have worst, by the exponential mechanism; measures it; and searches for rows that agree
with everything measured. Where a measurement moved the rows less than its own noise,
noise is halved from then on. How much is measured, and how often, hangs on what came
out, so each release is charged to a ledger with a filter.

Source: McKenna, Mullins, Sheldon, Miklau, "AIM: An Adaptive and Iterative Mechanism for
Differentially Private Synthetic Data", 2022, arXiv:2201.12677. Their model is a
Markov random field; here it is rows, found by search. The factor 1/2 in the exponent of
a choice stays, for its scores are not monotone.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.relations import Relation
from dpkit.mechanisms.tables import Marginals, Selection
from dpkit.synthetic.budgets import only_add_remove, zcdp
from dpkit.synthetic.engine import search
from dpkit.synthetic.recipe import (
    Fitted,
    Measurement,
    OnProgress,
    Purse,
    measure,
    quiet,
    select,
)
from dpkit.synthetic.view import View, refuse_memory

if TYPE_CHECKING:
    from dpkit.data.codes import Codebook
    from dpkit.synthetic.counting import Source

_ROUNDS = 16  # a column, if noise were never halved
_TO_MEASURE = 0.9  # of a round's budget
_MODEL_ROWS = 10_000  # that stand for the table during the rounds
_SWEEPS, _WARM = 4, 2.0  # of each round's search; times the noise of a cell
_SAFE = 1 - 1e-7  # of rho, so that sums of rounded numbers stay below
_ABSOLUTE = math.sqrt(2 / math.pi)  # mean of a standard normal's absolute value


@dataclasses.dataclass(frozen=True, kw_only=True)
class AIM:
    """Adaptive choice of pairs.

    Args:
      epsilon, delta: what everything may cost.
      rows: how many to make; None: as many as there are estimated to be, at most
        250,000.
      sweeps, cooling: of the last search.

    Example:
      >>> [round(x, 6) for x in AIM(epsilon=1.0, delta=1e-6).schedule(14)]
      [71.480081, 0.009327]
    """

    epsilon: float
    delta: float
    rows: int | None = None
    sweeps: int = 8
    cooling: float = 0.7

    name: ClassVar[str] = "aim"

    def __post_init__(self) -> None:
        """Refuses numbers out of range."""
        checks.positive(epsilon=self.epsilon)
        checks.open_probability(delta=self.delta)
        checks.integer_at_least(1, sweeps=self.sweeps)
        checks.open_probability(cooling=self.cooling)
        if self.rows is not None:
            checks.integer_at_least(1, rows=self.rows)

    def schedule(self, columns: int) -> tuple[float, float]:
        """Noise of a table, in units of reach, and epsilon of a choice; at first."""
        return _split(zcdp(self.epsilon, self.delta) / (_ROUNDS * columns))

    def releases(self, codebook: Codebook, relation: Relation, reach: int) -> None:
        """None: they are chosen along the way."""
        del reach
        only_add_remove(relation, "AIM")
        columns = range(len(codebook.sizes))
        refuse_memory(codebook, list(itertools.combinations(columns, 2)))

    def fit(
        self,
        source: Source,
        purse: Purse,
        *,
        seed: int,
        on_progress: OnProgress | None = None,
    ) -> Fitted:
        """Rounds until the budget is used, then the search."""
        tell = on_progress or quiet
        tell(0, 1, "counting pairs")
        run = _Rounds(source, purse, seed)
        rho = purse.affordable(zcdp(self.epsilon, self.delta)) * _SAFE
        noise, epsilon = _split(rho / (_ROUNDS * len(source.codebook.sizes)))
        left = rho - run.columns(noise)
        number, last = 0, not run.pairs
        while not last:
            number += 1
            tell(round(1000 * (1 - left / rho)), 1000, "measuring")
            if left < 2 * _cost(noise, epsilon):
                noise, epsilon = _split(left)
                last = True
            left -= _cost(noise, epsilon)
            if run.round(number, noise, epsilon):
                noise, epsilon = noise / 2, epsilon * 2
        view = View.of(source.codebook, run.measured)
        return view.fitted(
            run.measured,
            price=0.0,
            rows=self.rows,
            sweeps=self.sweeps,
            cooling=self.cooling,
            seed=seed,
            tell=tell,
        )


class _Rounds:
    """The table, what was measured of it, and rows that agree."""

    def __init__(self, source: Source, purse: Purse, seed: int) -> None:
        self._source, self._purse, self._seed = source, purse, seed
        self._book: Codebook = source.codebook
        columns = range(len(self._book.sizes))
        wide = [n for n in columns if self._book.sizes[n] > 1]
        self.pairs = list(itertools.combinations(wide, 2))
        self._families: list[tuple[int, ...]] = [*((n,) for n in columns), *self.pairs]
        found = source.count(self._families)
        self._counts: dict[Any, np.ndarray] = dict(
            zip(self._families, found, strict=True)
        )
        self.measured: list[Measurement] = []
        self._rows = np.zeros((0, 0), np.int32)
        self._records = 1.0

    def columns(self, noise: float) -> float:
        """Measures all columns; what that costs, in rho."""
        singles = [family for family in self._families if len(family) == 1]
        self._measure(singles, noise, "columns")
        view = View.of(self._book, self.measured)
        self._records = view.records
        generator = np.random.default_rng([self._seed, 2])
        rows = max(1, min(round(view.records), _MODEL_ROWS))
        self._rows = view.start(rows, generator)
        return len(singles) / (2 * noise**2)

    def round(self, number: int, noise: float, epsilon: float) -> bool:
        """One choice, one table, one sweep; whether the rows moved less than noise."""
        made = self._made()
        weight = {f: self._weight(f) for f in self._families}
        scores = np.array(
            [
                weight[f] * (self._apart(f, made[f]) - self._bias(f, noise))
                for f in self._families
            ]
        )
        step = self._source.reach * self._source.unit
        choice = Selection(epsilon=epsilon, sensitivity=max(weight.values()) * step)
        (best,) = select(choice, scores, self._purse, f"choice {number}")
        family = self._families[best]
        self._measure([family], noise, f"table {number}")
        self._search(number)
        moved = np.abs(self._made([family])[family] - made[family]).sum()
        return float(moved) <= self._bias(family, noise)

    def _weight(self, family: tuple[int, ...]) -> float:
        """How many columns of all pairs it shares, over the pairs."""
        return float(sum(len({*family} & {*pair}) for pair in self.pairs))

    def _apart(self, family: tuple[int, ...], made: np.ndarray) -> float:
        """How far the rows are from the table, in rows: private."""
        true = self._counts[family] * self._source.unit
        return float(np.abs(true - made).sum())

    def _bias(self, family: tuple[int, ...], noise: float) -> float:
        """How far noise alone would be."""
        scale = noise * self._source.reach * self._source.unit
        return _ABSOLUTE * scale * self._counts[family].size

    def _measure(
        self, families: list[tuple[int, ...]], noise: float, name: str
    ) -> None:
        """Releases tables."""
        reach, unit = self._source.reach, self._source.unit
        sums = Marginals(
            families=tuple(families),
            sizes=tuple(self._book.sizes),
            stddevs=(noise * reach,) * len(families),
            reach=reach,
        )
        total = np.concatenate([self._counts[family].ravel() for family in families])
        tables = sums.split(measure(sums, total, self._purse, name))
        self.measured += [
            Measurement(family, table * unit, noise * reach * unit)
            for family, table in zip(families, tables, strict=True)
        ]

    def _search(self, number: int) -> None:
        """Rows that agree with everything measured so far."""
        view = View.of(self._book, self.measured)
        self._records = view.records
        self._rows = search(
            self._rows,
            self._book.sizes,
            view.targets(0.0, ()),
            seed=self._seed + number,
            sweeps=_SWEEPS,
            temperature=_WARM * view.noise / view.records,
            forbidden=self._book.forbidden,
        ).rows

    def _made(
        self, families: list[tuple[int, ...]] | None = None
    ) -> dict[tuple[int, ...], np.ndarray]:
        """Tables of the rows, scaled to the records."""
        found = {}
        rows, scale = self._rows, self._records / len(self._rows)
        for family in self._families if families is None else families:
            shape = tuple(self._book.sizes[n] for n in family)
            cells = np.ravel_multi_index([rows[:, n] for n in family], shape)
            counts = np.bincount(cells, minlength=math.prod(shape))
            found[family] = scale * counts.reshape(shape)
        return found


def _split(rho: float) -> tuple[float, float]:
    """Noise and epsilon of a round that costs so much."""
    return (
        math.sqrt(1 / (2 * _TO_MEASURE * rho)),
        math.sqrt(8 * (1 - _TO_MEASURE) * rho),
    )


def _cost(noise: float, epsilon: float) -> float:
    """What a round costs."""
    return 1 / (2 * noise**2) + epsilon**2 / 8
