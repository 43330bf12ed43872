r"""MWEM: a distribution over all combinations of values, corrected where it is worst.

Pure epsilon, and for small domains: it keeps a weight for every combination. Each round
chooses a cell of a pair's table by the exponential mechanism, measures it with Laplace
noise, and multiplies the weights of all measured cells' combinations, again and again,
which costs nothing. Rows are drawn from the average of the second half of the rounds.

Source: Hardt, Ligett, McSherry, "A simple and practical algorithm for differentially
private data release", 2012, arXiv:1012.4763.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from dp_accounting import DpEvent

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.relations import Relation
from dpkit.mechanisms.tables import PureMarginals, Selection
from dpkit.synthetic.budgets import apart, sums_and_scores
from dpkit.synthetic.recipe import (
    Fitted,
    OnProgress,
    Purse,
    measure,
    quiet,
    select,
)
from dpkit.synthetic.view import MOST_ROWS

if TYPE_CHECKING:
    from dpkit.data.codes import Codebook
    from dpkit.synthetic.counting import Source

_MOST = 10**7  # combinations
_TO_COUNT = 0.05  # of epsilon, for the number of records
_REPLAYS = 20  # of all measurements, a round
_FAR = 1.0  # exponent of a step, at most: twice what is possible without noise


@dataclasses.dataclass(frozen=True, kw_only=True)
class MWEM:
    """Multiplicative weights over the whole domain; pure epsilon.

    Args:
      epsilon: what everything may cost.
      delta: 0.
      rounds: how many cells are measured.
      rows: how many to make; None: as many as there are estimated to be, at most
        250,000.

    Example:
      >>> MWEM(epsilon=1.0).rounds
      30
    """

    epsilon: float
    delta: float = 0.0
    rounds: int = 30
    rows: int | None = None

    name: ClassVar[str] = "mwem"

    def __post_init__(self) -> None:
        """Refuses numbers out of range."""
        checks.positive(epsilon=self.epsilon)
        checks.half_open_probability(delta=self.delta)
        checks.integer_at_least(1, rounds=self.rounds)
        if self.rows is not None:
            checks.integer_at_least(1, rows=self.rows)

    def releases(
        self, codebook: Codebook, relation: Relation, reach: int
    ) -> Mapping[str, DpEvent]:
        """The number of records; of each round a choice and a cell."""
        sums_and_scores(relation, "MWEM")
        cells = math.prod(codebook.sizes)
        if cells > _MOST:
            raise ValueError(
                f"schema: {cells:,} combinations of values are above {_MOST:,} cells: "
                "take another mechanism, such as pairs"
            )
        if not _allowed(codebook).any():
            raise ValueError("schema: its rules leave no combination of values")
        found = {"records": self._count(reach, relation).event(relation)}
        for number in range(1, self.rounds + 1):
            found[f"choice {number}"] = self._choice(reach).event(relation)
            found[f"cell {number}"] = self._cell(reach, relation).event(relation)
        return found

    def fit(
        self,
        source: Source,
        purse: Purse,
        *,
        seed: int,
        on_progress: OnProgress | None = None,
    ) -> Fitted:
        """Rounds of a choice, a cell and a correction; then rows."""
        tell, book = on_progress or quiet, source.codebook
        sizes = tuple(book.sizes)
        pairs = itertools.combinations(range(len(sizes)), 2)
        families: list[tuple[int, ...]] = [*pairs] or [(0,)]
        counts = source.count(families)
        true = np.concatenate([table.ravel() for table in counts])
        whole = np.array([counts[0].sum()])
        counter = self._count(source.reach, purse.relation)
        told = measure(counter, whole, purse, "records")
        records = max(1.0, float(told[0]) * source.unit)
        allowed = _allowed(book)
        weights = allowed * (records / allowed.sum())
        average, known = np.zeros(sizes), []
        for number in range(1, self.rounds + 1):
            tell(number, self.rounds, "measuring")
            made = np.concatenate([_margin(weights, f).ravel() for f in families])
            scores = np.abs(made / source.unit - true)
            choice = self._choice(source.reach)
            (best,) = select(choice, scores, purse, f"choice {number}")
            cell = self._cell(source.reach, purse.relation)
            (value,) = measure(cell, true[best : best + 1], purse, f"cell {number}")
            place = _place(families, counts, best, len(sizes))
            known.append((place, float(value) * source.unit))
            weights = corrected(weights, _REPLAYS * known, records)
            if number > self.rounds // 2:
                average += weights
        count = self.rows or max(1, min(round(records), MOST_ROWS))
        rows = _rows(average, count, np.random.default_rng([seed, 0]))
        return Fitted((), (), rows, records)

    @property
    def _part(self) -> float:
        """Epsilon of a choice, and of a cell."""
        return self.epsilon * (1 - _TO_COUNT) / (2 * self.rounds)

    def _choice(self, reach: int) -> Selection:
        """Of the worst cell; a replaced unit moves no cell by more than another."""
        step = float(reach)
        return Selection(
            epsilon=self._part, sensitivity=step, replaced_sensitivity=step
        )

    def _cell(self, reach: int, relation: Relation) -> PureMarginals:
        """The other half of a round."""
        return _one(self._part, reach, relation)

    def _count(self, reach: int, relation: Relation) -> PureMarginals:
        """How many records there are."""
        return _one(self.epsilon * _TO_COUNT, reach, relation)


def _one(epsilon: float, reach: int, relation: Relation) -> PureMarginals:
    """One count."""
    scale = apart(relation) ** 2 * reach / epsilon * (1 + 1e-12)
    return PureMarginals(families=((0,),), sizes=(1,), scales=(scale,), reach=reach)


def _allowed(book: Codebook) -> np.ndarray:
    """Whether the rules let a combination be."""
    found = np.ones(book.sizes, bool)
    for rule in book.forbidden:
        shape = [s if n in rule.columns else 1 for n, s in enumerate(book.sizes)]
        found &= ~rule.mask.reshape(shape)
    return found


def corrected(
    weights: np.ndarray, known: list[tuple[Any, float]], records: float
) -> np.ndarray:
    """Weights after multiplicative steps; the given ones are changed.

    Args:
      weights: of all combinations; they sum to the number of records.
      known: of each step where the combinations are that were counted together, as an
        index, and their noisy count.
      records: the number.

    Example:
      >>> corrected(np.full(4, 2.5), [(slice(0, 2), 8.0)], 10.0).round(4)
      array([2.6871, 2.6871, 2.3129, 2.3129])
    """
    scale = 1.0  # what all weights are still to be multiplied by
    for place, wanted in known:
        held = scale * float(weights[place].sum())
        missing = (wanted - held) / (2 * records)
        grown = math.exp(min(max(missing, -_FAR), _FAR))
        weights[place] *= grown
        scale *= records / (records + held * (grown - 1))
    return weights * (records / weights.sum())


def _margin(weights: np.ndarray, family: tuple[int, ...]) -> np.ndarray:
    """The table of some columns."""
    rest = tuple(n for n in range(weights.ndim) if n not in family)
    return weights.sum(axis=rest)


def _place(
    families: list[tuple[int, ...]], counts: list[np.ndarray], cell: int, columns: int
) -> tuple[slice | int, ...]:
    """The combinations that fall into a cell, by its number among all tables."""
    ends = np.cumsum([table.size for table in counts])
    which = int(np.searchsorted(ends, cell, side="right"))
    table = counts[which]
    place = np.unravel_index(cell - (ends[which] - table.size), table.shape)
    where: list[slice | int] = [slice(None)] * columns
    for n, code in zip(families[which], place, strict=True):
        where[n] = int(code)
    return tuple(where)


def _rows(
    weights: np.ndarray, count: int, generator: np.random.Generator
) -> np.ndarray:
    """Rows drawn evenly spaced along the weights, in random order."""
    ends = np.cumsum(weights.ravel())
    places = (np.arange(count) + generator.random()) / count * ends[-1]
    cells = np.searchsorted(ends, places, side="right").clip(0, weights.size - 1)
    codes = np.stack(np.unravel_index(cells, weights.shape), axis=1)
    return codes[generator.permutation(count)].astype(np.int32)
