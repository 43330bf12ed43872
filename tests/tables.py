"""Rows of the conformance list for mechanisms of tables, which draw on the host.

Records are codes, or what counting made of them. Noise differs from family to family,
so everything is measured in sizes of the noise. The worst pairs attain what the events
claim: where they are Gaussian, their exact curve is the event's.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from dpkit.accountants.answers.relations import Relation
from dpkit.mechanisms.density import Gaussian, Kernel, KernelSketch, Laplace
from dpkit.mechanisms.tables import (
    Deviations,
    Marginals,
    MeanEmbedding,
    PureMarginals,
    Selection,
    StableHistogram,
)
from tests.conformance import Pair, Row, Tree, _claimed_delta
from tests.oracles.mixture import gaussian
from tests.oracles.tables import successive_softmax
from tests.structures import HostRow, rows_of

SIZES, FAMILIES = (2, 3, 2), ((0, 1), (2,), (1, 2))
STDDEVS, SCALES = (2.0, 1.0, 3.0), (4.0, 2.0, 3.0)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class TableRow(HostRow):
    """Stacked histograms: every cell in sizes of its noise."""

    @property
    def spread(self) -> np.ndarray:
        """The size of each cell's noise."""
        own = self.mechanism
        return np.repeat(own.spreads, [part.stop - part.start for part in own.parts])

    @property
    def stddev(self) -> float:
        """Of a cell."""
        return 1.0 if isinstance(self.mechanism, Marginals) else 2**0.5

    def published(self, key: jax.Array, total: np.ndarray, draws: int) -> np.ndarray:
        """So many releases of one sum, in sizes of the noise."""
        return super().published(key, total, draws) / self.spread

    def lengths(self, message: Tree) -> list[tuple[float, float]]:
        """The L2 or L1 norm that the event is about."""
        own = self.mechanism
        moved = np.asarray(message) / self.spread
        if isinstance(own, Marginals):
            most = 1 / own.event("add_remove").noise_multiplier
            return [(float(np.linalg.norm(moved)), most * (1 + 1e-12))]
        most = own.event("add_remove").epsilon
        return [(float(np.abs(moved).sum()), most * (1 + 1e-12))]

    def noises(self, seed: int, draws: int) -> list[np.ndarray]:
        """The cells of releases of nothing."""
        nothing = np.zeros(self.mechanism.cells, np.int64)
        return list(self.published(jax.random.key(seed), nothing, draws).T)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class GivenRow(HostRow):
    """A mechanism whose private argument is counted elsewhere, here given as it is."""

    draw: Callable[[Any, jax.Array, Tree, int], np.ndarray] = lambda *_: np.zeros(0)

    def claim(self, epsilon: float) -> float:
        """The certified delta(epsilon), of events that have no hash too."""
        return _claimed_delta.__wrapped__(self.event(), float(epsilon), self.relation)

    def statistics(self, seed: int, records: Tree, draws: int) -> np.ndarray:
        """The statistic of independent releases."""
        drawn = self.draw(self.mechanism, jax.random.key(seed), records, draws)
        return np.asarray(self.statistic(drawn), np.float64)


def marginal_rows(name: str, mechanism: Any, relations: Any = Relation) -> list[Row]:
    """Stacked histograms with the rows that move them the furthest."""
    reach, null = mechanism.reach, [-1] * len(SIZES)

    def unit(codes: list[int]) -> np.ndarray:
        """As many rows as one has, all the same."""
        rows = np.array([[codes] * reach], np.int32)
        return rows if reach > 1 else rows[:, 0]

    one, other, none = unit([1, 2, 1]), unit([0, 0, 0]), unit(null)
    sides = {
        Relation.ADD_REMOVE: (one[:0], one),
        Relation.ZERO_OUT: (
            np.concatenate([other, none]),
            np.concatenate([other, one]),
        ),
        Relation.REPLACE_ONE: (other, one),
    }
    return [_marginal_row(name, mechanism, r, *sides[r]) for r in relations]


def _marginal_row(
    name: str, mechanism: Any, relation: Relation, small: Tree, large: Tree
) -> Row:
    """One row; its statistic is the likelihood ratio, up to a constant."""
    row = TableRow(
        name=f"{name}-{relation}",
        mechanism=mechanism,
        relation=relation,
        pairs=(),
        statistic=lambda values: values,
        radius=1.0,
    )
    sums = [mechanism.total(side) / row.spread for side in (small, large)]
    line = (sums[1] - sums[0]) / np.linalg.norm(sums[1] - sums[0])
    laws: Any = None
    if isinstance(mechanism, Marginals):
        laws = tuple(gaussian(float(at @ line), 1.0) for at in sums)
        statistic: Any = functools.partial(_along, line=line)
    else:
        statistic = functools.partial(_nearer, sums=sums)
    pairs = (Pair("worst", small, large, laws),)
    return dataclasses.replace(row, pairs=pairs, statistic=statistic)


def _along(values: np.ndarray, *, line: np.ndarray) -> Any:
    """On the direction in which the pair differs."""
    return values @ line


def _nearer(values: np.ndarray, *, sums: list[np.ndarray]) -> Any:
    """How much nearer the second sum is, by L1."""
    first, second = (np.abs(values - at).sum(axis=-1) for at in sums)
    return first - second


def deviation_row(relation: Relation) -> Row:
    """Three scores that a unit of two rows moves the same way."""
    mechanism = Deviations(families=3, stddev=6.0, reach=2)
    steps = {Relation.REPLACE_ONE: 4}.get(relation, 2) * 1024
    low, high = np.full(3, 50 * 1024), np.full(3, 50 * 1024 + steps)
    means = [side.sum() / 1024 / 3**0.5 for side in (low, high)]
    return GivenRow(
        name=f"deviations-{relation}",
        mechanism=mechanism,
        relation=relation,
        pairs=(
            Pair(
                "worst", low, high, (gaussian(means[0], 6.0), gaussian(means[1], 6.0))
            ),
        ),
        statistic=lambda values: values.sum(axis=-1) / 3**0.5,
        radius=1.0,
        draw=_tiled,
    )


def selection_row(mechanism: Selection, relation: Relation) -> Row:
    """Scores that move in both directions, all the way."""
    far = {Relation.REPLACE_ONE: 2}.get(relation, 1) * mechanism.sensitivity
    small = np.array([far, 0.0, 0.0])
    large = np.array([0.0, far, far])
    scale = 2 * mechanism.sensitivity / mechanism.epsilon
    first, second = (
        successive_softmax(side / scale, mechanism.picks) for side in (small, large)
    )
    ratio = {picks: np.log(second[picks] / first[picks]) for picks in first}

    def statistic(picks: np.ndarray) -> Any:
        """The log-ratio of what was picked."""
        names, index = np.unique(picks, axis=0, return_inverse=True)
        return np.array([ratio[tuple(name)] for name in names.tolist()])[index]

    return GivenRow(
        name=f"selection_{mechanism.picks}-{relation}",
        mechanism=mechanism,
        relation=relation,
        pairs=(Pair("both ways", small, large),),
        statistic=statistic,
        radius=1.0,
        allowed=(("replaced_sensitivity", None),),
        draw=_tiled,
    )


def stable_row(noise: Any, relation: Relation) -> Row:
    """A value of one unit alone, or one more of many; with a delta that shows."""
    kind = type(noise).__name__.lower()
    small, large = ({"b": 0}, {"b": 1})
    return GivenRow(
        name=f"stable_{kind}-{relation}",
        mechanism=StableHistogram(noise=noise, delta=0.05),
        relation=relation,
        pairs=(
            Pair("alone", small, large),
            Pair("one more", {"b": 4}, {"b": 5}),
        ),
        statistic=lambda kept: kept,
        radius=1.0,
        draw=_values,
    )


def _tiled(
    mechanism: Any, key: jax.Array, records: np.ndarray, draws: int
) -> np.ndarray:
    """Releases of one total."""
    tiled = np.broadcast_to(records, (draws, len(records)))
    return mechanism.privatize(key, tiled)


def _values(
    mechanism: Any, key: jax.Array, records: dict[str, int], draws: int
) -> np.ndarray:
    """What becomes of so many values with this count; -1 where one is not kept.

    A count of 0 is that of a value that is not there.
    """
    (count,) = records.values()
    if count == 0:
        return np.full(draws, -1.0)
    found = mechanism.privatize(key, {f"{n:06d}": count for n in range(draws)})
    kept = np.full(draws, -1.0)
    kept[[int(name) for name in found]] = list(found.values())
    return kept


WAVES = KernelSketch(
    kernel=Kernel("gaussian", 1.0), frequencies=[[np.pi]], noise=Gaussian(1.25)
)
EMBEDDING_ROWS = rows_of(
    "embedding",
    lambda noise: MeanEmbedding(sketch=WAVES, categories=(3,), classes=2, noise=noise),
    (Gaussian(1.25), Laplace(1.0)),
    ([0.25, 0.0], [1.25, 2.0]),
    labels=(1, 1),
    allowed=(("sketch", None),),
)
PLAIN = Marginals(families=FAMILIES, sizes=SIZES, stddevs=STDDEVS)
PURE = PureMarginals(families=FAMILIES, sizes=SIZES, scales=SCALES)
MARGINAL_ROWS = [
    *marginal_rows("marginals", PLAIN),
    *marginal_rows("marginals_of_three", dataclasses.replace(PLAIN, reach=3)),
    *marginal_rows("pure_marginals", PURE),
]
GIVEN_ROWS = [
    *(deviation_row(relation) for relation in Relation),
    selection_row(Selection(epsilon=1.0, sensitivity=2.0), Relation.ADD_REMOVE),
    selection_row(Selection(epsilon=0.7, sensitivity=1.0), Relation.REPLACE_ONE),
    selection_row(Selection(epsilon=0.5, sensitivity=1.0, picks=2), Relation.ZERO_OUT),
    *(
        stable_row(noise, relation)
        for noise in (Laplace(1.0), Gaussian(1.5))
        for relation in (Relation.ADD_REMOVE, Relation.REPLACE_ONE)
    ),
]
