"""Rows of the conformance list for similarity structures, which draw on the host.

Each has a worst-case pair for its relation: points whose features are as long as any,
or that point as far apart as two can. Sums are whole steps of a grid, so a message is
measured in the structure's own unit, by both norms, and for landmarks in the metric of
their noise. The statistic is the likelihood ratio of the two sides, which is the best
there is: for Gaussian noise a projection, with an exact law.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from dpkit.accountants.answers.relations import Relation
from dpkit.mechanisms.density import (
    CdfDistances,
    ClassSums,
    Gaussian,
    HatDistances,
    Kernel,
    KernelSketch,
    LandmarkSketch,
    Laplace,
    ProjectedDistances,
    PublicArray,
    Radial,
    SplineGrid,
    SquaredDistances,
    Structure,
)
from tests.conformance import Pair, Row, Tree
from tests.oracles.mixture import gaussian

SOME = 50_000  # releases at a time
GAUSS = Kernel("gaussian", 1.0)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class HostRow(Row):
    """A structure: many releases are one call, and messages are whole steps."""

    def statistics(self, seed: int, records: Tree, draws: int) -> np.ndarray:
        """The statistic of independent releases of one sum."""
        total = self.mechanism.total(records)
        keys = jax.random.split(jax.random.key(seed), -(-draws // SOME))
        found = [
            self.statistic(self.published(key, total, min(SOME, draws))) for key in keys
        ]
        return np.concatenate(found)[:draws]

    def published(self, key: jax.Array, total: np.ndarray, draws: int) -> np.ndarray:
        """So many releases of one sum, in the metric of their noise."""
        tiled = np.broadcast_to(total, (draws, len(total)))
        return white(self.mechanism, self.mechanism.privatize(key, tiled))

    def lengths(self, message: Tree) -> list[tuple[float, float]]:
        """By L2 and by L1."""
        own, reach = self.mechanism, self.mechanism.reach
        moved = white(own, np.asarray(message, np.float64) * own.step)
        return [(norm(moved, 2), reach.l2), (norm(moved, 1), reach.l1)]

    def noises(self, seed: int, draws: int) -> list[np.ndarray]:
        """The entries of releases of nothing, one array each."""
        nothing = np.zeros(self.mechanism.size, np.int64)
        return list(self.published(jax.random.key(seed), nothing, draws).T)


def norm(moved: np.ndarray, order: int) -> float:
    """L1 or L2."""
    return float(np.linalg.norm(moved, order))


def white(structure: Structure, values: np.ndarray) -> np.ndarray:
    """Values where the noise is alike in every direction: for landmarks, L^-1 z."""
    if not isinstance(structure, LandmarkSketch):
        return values
    covariance = structure.kernel.between(*(structure.landmarks.array,) * 2)
    covariance[np.diag_indices(len(covariance))] = 1 + structure.jitter
    inverse = np.linalg.inv(np.linalg.cholesky(covariance))
    return np.concatenate([values[..., :-1] @ inverse.T, values[..., -1:]], axis=-1)


def host_row(
    name: str,
    mechanism: Structure,
    relation: Relation,
    small: Tree,
    large: Tree,
    *,
    tight: bool,
    allowed: tuple[tuple[str, Any], ...] = (),
) -> HostRow:
    """A row: its best statistic, and with Gaussian noise its laws."""
    sums = [
        white(mechanism, mechanism.total(side) * mechanism.step)
        for side in (small, large)
    ]
    laws, noise = None, mechanism.noise
    statistic: Any = None
    moved = sums[1] - sums[0]
    if isinstance(noise, Gaussian):
        line = moved / np.linalg.norm(moved)
        statistic = functools.partial(_projected, line=line)
        first, second = (gaussian(float(at @ line), mechanism.stddev) for at in sums)
        laws = (first, second)
    else:
        order = 2 if isinstance(noise, Radial) else 1
        statistic = functools.partial(_nearer, order=order, sums=sums)
    kind = type(noise).__name__.lower()
    return HostRow(
        name=f"{name}_{kind}-{relation}",
        mechanism=mechanism,
        relation=relation,
        pairs=(Pair("worst", small, large, laws),),
        statistic=statistic,
        radius=mechanism.reach.l2,
        tight=tight,
        allowed=allowed,
    )


def _projected(values: np.ndarray, *, line: np.ndarray) -> Any:
    """On the direction in which the pair differs."""
    return values @ line


def _nearer(values: np.ndarray, *, order: int, sums: list[np.ndarray]) -> Any:
    """How much nearer the second sum is than the first."""
    first, second = (np.linalg.norm(values - at, order, axis=-1) for at in sums)
    return first - second


def rows_of(
    name: str,
    make: Callable[[Any], Structure],
    noises: tuple[Any, ...],
    points: tuple[Any, Any],
    *,
    tight: tuple[bool, bool] = (True, True),
    labels: tuple[int, int] | None = None,
    allowed: tuple[tuple[str, Any], ...] = (),
) -> list[HostRow]:
    """A structure with some noises under all relations.

    Args:
      points: the one that moves a sum the furthest, and the furthest from it.
      tight: whether they attain the reach, alone, and replaced.
    """
    one, other = (np.array([point], np.float32) for point in points)
    null = np.full_like(one, math.nan)

    def side(*rows: tuple[np.ndarray, int]) -> Tree:
        some = np.concatenate([one[:0], *(row for row, _ in rows)])
        if labels is None:
            return some
        return {"points": some, "labels": np.array([n for _, n in rows], np.int32)}

    first, second = labels or (0, 0)
    sides = {
        Relation.ADD_REMOVE: (side(), side((one, first))),
        Relation.ZERO_OUT: (
            side((other, second), (null, first)),
            side((other, second), (one, first)),
        ),
        Relation.REPLACE_ONE: (side((other, second)), side((one, first))),
    }
    return [
        host_row(
            name,
            make(noise),
            relation,
            *sides[relation],
            # Only of the Gaussian is the law known.
            tight=tight[relation is Relation.REPLACE_ONE],
            allowed=allowed,
        )
        for noise in noises
        for relation in Relation
    ]


NORMAL, RADIAL, LAPLACE = Gaussian(1.25), Radial(1.0), Laplace(1.0)
ONE_WAVE = PublicArray([[math.pi]])  # turns by half a circle in a unit
TWO_WAVES = PublicArray([[math.pi, 0.0], [0.3, 0.7]])
SKETCH = KernelSketch(kernel=GAUSS, frequencies=ONE_WAVE, noise=NORMAL)
STRUCTURE_ROWS: list[Row] = [
    *rows_of(
        "sketch",
        lambda noise: KernelSketch(kernel=GAUSS, frequencies=ONE_WAVE, noise=noise),
        (NORMAL, RADIAL, LAPLACE),
        ([0.25], [1.25]),  # an eighth of a turn: as long by L1 as any
        allowed=(("reduction", None),),
    ),
    *rows_of(
        "landmarks",
        lambda noise: LandmarkSketch(
            kernel=GAUSS,
            landmarks=PublicArray([[0.0], [0.3], [5.0]]),
            landmarks_public=True,
            noise=noise,
        ),
        (NORMAL, RADIAL),
        ([0.0], [5.0]),
        tight=(True, False),  # kernels of landmarks are not opposite
        allowed=(("landmarks_public", True),),
    ),
    *rows_of(
        "spline",
        lambda noise: SplineGrid(
            kernel=GAUSS, domain=((0, 4),), spacing=0.5, degree=3, noise=noise
        ),
        (NORMAL, LAPLACE),
        ([1.0], [3.5]),  # on nodes, far apart
    ),
    *rows_of(
        "hats",
        lambda noise: HatDistances(domain=((0, 1),), levels=3, noise=noise),
        (NORMAL, LAPLACE),
        ([0.3125], [0.8125]),
        tight=(False, False),
    ),
    *rows_of(
        "cdf",
        lambda noise: CdfDistances(domain=((0, 1), (0, 3)), cells=4, noise=noise),
        (NORMAL,),
        ([5.0, 5.0], [-1.0, -1.0]),
    ),
    *rows_of(
        "projected",
        lambda noise: ProjectedDistances(
            radius=1.0,
            directions=PublicArray([[1.0, 0.0], [0.0, 1.0]]),
            cells=4,
            levels=2,
            noise=noise,
        ),
        (NORMAL, LAPLACE),
        ([9.0, 9.0], [-9.0, -9.0]),
        tight=(True, True),
    ),
    *rows_of(
        "moments",
        lambda noise: SquaredDistances(radius=2.0, dimension=2, noise=noise),
        (NORMAL, RADIAL, LAPLACE),
        ([3.0, 4.0], [-3.0, -4.0]),
    ),
    *rows_of(
        "classes",
        lambda noise: ClassSums(classes=2, dimension=2, noise=noise),
        (NORMAL, RADIAL),
        ([3.0, 4.0], [-3.0, -4.0]),
        labels=(1, 1),
        allowed=(("sketch", None), ("normalise", True)),
    ),
    *rows_of(
        "wave_classes",
        lambda noise: ClassSums(
            classes=2, dimension=1, sketch=SKETCH, normalise=False, noise=noise
        ),
        (NORMAL,),
        ([0.25], [0.25]),
        labels=(0, 1),
        tight=(True, False),  # the other class is nearer than the opposite point
        allowed=(("sketch", None), ("normalise", True)),
    ),
]
