"""Histograms, distribution functions, quantiles, maps and samples of a released grid.

All of it is post-processing. Each node of the grid stands for the points around it, so
an edge is soft by about `grid.unit`; empty places have noise too, and so have bands.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from dpkit.accountants.answers import checks
from dpkit.density.released import Release, grid_of
from dpkit.mechanisms.density import Answers, SplineGrid
from dpkit.mechanisms.density.spline import along_axes, nodes_of


class HeatMap(NamedTuple):
    """A map of two axes: the places along each, and sums with their errors.

    Attributes:
      x, y: places, (a,) and (b,).
      answers: values, stddev and bias_bound, (a, b) each.
    """

    x: np.ndarray
    y: np.ndarray
    answers: Answers


def histogram(release: Release, edges: ArrayLike, *, axis: int = 0) -> Answers:
    """How many records are between edges along an axis, (len(edges) - 1,).

    Args:
      edges: ascending, at least two.

    Raises:
      TypeError: the release is no grid. ValueError: edges that don't ascend.
    """
    limits = np.asarray(edges, np.float64)
    if limits.ndim != 1 or len(limits) < 2 or not (np.diff(limits) > 0).all():
        raise ValueError(f"edges={limits}: needed at least two, ascending")
    grid = grid_of(release)
    below = _below(grid, limits, axis)
    return _linear(release, np.diff(below, axis=0), axis)


def cdf(release: Release, places: ArrayLike, *, axis: int = 0) -> Answers:
    """How many records are at or below places along an axis, (len(places),).

    Raises:
      TypeError: the release is no grid.
    """
    grid = grid_of(release)
    return _linear(release, _below(grid, np.asarray(places, np.float64), axis), axis)


def quantile(release: Release, fractions: ArrayLike, *, axis: int = 0) -> Answers:
    """Places below which fractions of the records are, with bands, (len(fractions),).

    The distribution function is made to ascend; where it and its band cross the
    fraction, the place and its band stand. `stddev` is a quarter of the band's width.

    Raises:
      TypeError: the release is no grid. ValueError: a fraction outside [0, 1].
    """
    parts = np.asarray(fractions, np.float64)
    if not ((parts >= 0) & (parts <= 1)).all():
        raise ValueError(f"fractions={parts}: needed numbers in [0, 1]")
    grid = grid_of(release)
    low, high = grid.domain[axis]
    places = np.linspace(low, high, 2049)
    found, count = cdf(release, places, axis=axis), release.count.values[0]
    wanted = parts * max(float(count), 1.0)

    def crossing(curve: np.ndarray) -> np.ndarray:
        """The first place at which a curve is as large as wanted."""
        rising = np.maximum.accumulate(curve)
        return places[np.minimum(np.searchsorted(rising, wanted), len(places) - 1)]

    middle = crossing(found.values)
    width = crossing(found.values - 2 * found.stddev) - crossing(
        found.values + 2 * found.stddev
    )
    return Answers(middle, width / 4, np.full(len(middle), grid.unit))


def heat_map(
    release: Release, axes: tuple[int, int] = (0, 1), *, size: int = 64
) -> HeatMap:
    """Sums of the kernel over two axes, the others integrated out, (size, size).

    Args:
      axes: two of the grid's.
      size: places along each.

    Raises:
      TypeError: the release is no grid. ValueError: axes that it doesn't have.
    """
    grid = grid_of(release)
    if len(set(axes)) != 2 or not all(0 <= axis < grid.dimension for axis in axes):
        raise ValueError(f"axes={axes}: needed two different ones of {grid.dimension}")
    checks.integer_at_least(2, size=size)
    places = [_line(grid, axis, size) for axis in axes]
    first, second = (
        _kernel_along(grid, place, axis)
        for place, axis in zip(places, axes, strict=True)
    )
    rows, columns = np.repeat(first, size, axis=0), np.tile(second, (size, 1))
    factors: list[np.ndarray] = []
    for axis, nodes in enumerate(grid.shape):
        ones = np.ones((size * size, nodes))
        factors.append({axes[0]: rows, axes[1]: columns}.get(axis, ones))
    flat = _product(release, factors)
    return HeatMap(
        places[0], places[1], Answers(*(part.reshape(size, size) for part in flat))
    )


def curve(release: Release, *, axis: int = 0, size: int = 256) -> HeatMap:
    """Sums of the kernel along an axis, the others integrated out, (size, 1).

    Raises:
      TypeError: the release is no grid.
    """
    grid = grid_of(release)
    places = _line(grid, axis, checks.integer_at_least(2, size=size))
    found = _linear(release, _kernel_along(grid, places, axis), axis)
    return HeatMap(places, np.zeros(1), Answers(*(part[:, None] for part in found)))


def sample(release: Release, size: int, *, seed: int) -> np.ndarray:
    """Points drawn from the released density, (size, d); public, as often as wanted.

    A node is drawn by its weight where that is above its noise, and a place around it
    by the B-spline; places are kept within the domain.

    Args:
      seed: a whole number; it has nothing to do with privacy.

    Raises:
      TypeError: the release is no grid.
      ValueError: nothing stands above the noise.
    """
    grid = grid_of(release)
    generator = np.random.default_rng(checks.integer_at_least(0, seed=seed))
    weights = np.where(release.values > grid.stddev, release.values, 0.0)
    if not weights.sum() > 0:
        raise ValueError("nothing stands above the noise: there is nothing to draw")
    found = generator.choice(len(weights), size, p=weights / weights.sum())
    index = np.unravel_index(found, grid.shape)
    nodes = nodes_of(grid)
    places = np.stack([n[i] for n, i in zip(nodes, index, strict=True)], axis=1)
    around = generator.random((size, grid.dimension, grid.degree + 1)).sum(axis=2)
    places += (around - (grid.degree + 1) / 2) * grid.unit
    low, high = np.array(grid.domain).T
    return places.clip(low, high)


def _line(grid: SplineGrid, axis: int, size: int) -> np.ndarray:
    """Places from one end of an axis to the other."""
    low, high = grid.domain[axis]
    return np.linspace(low, high, size)


def _below(grid: SplineGrid, places: np.ndarray, axis: int) -> np.ndarray:
    """For each place, which share of each node along an axis is below it."""
    if not 0 <= axis < grid.dimension:
        raise ValueError(f"axis={axis}: needed one of {grid.dimension}")
    nodes = nodes_of(grid)[axis]
    share = (places[:, None] - nodes) / grid.unit + 0.5
    low, high = grid.domain[axis]
    share = share.clip(0.0, 1.0)
    # Every record is within the domain.
    share[places >= high], share[places < low] = 1.0, 0.0
    return share


def _kernel_along(grid: SplineGrid, places: np.ndarray, axis: int) -> np.ndarray:
    """Coefficients of the kernel along one axis alone, (places, nodes)."""
    if not grid.kernel.factors:
        raise TypeError(
            f"kernel={grid.kernel.name!r} is no product over axes: use query"
        )
    queries = np.repeat([[low for low, _ in grid.domain]], len(places), axis=0).astype(
        float
    )
    queries[:, axis] = places
    return grid.coefficients(queries)[axis]


def _linear(release: Release, along: np.ndarray, axis: int) -> Answers:
    """Linear functions of the nodes along an axis, over all others."""
    grid = grid_of(release)
    factors: list[np.ndarray] = [
        along if j == axis else np.ones((len(along), nodes))
        for j, nodes in enumerate(grid.shape)
    ]
    return _product(release, factors)


def _product(release: Release, factors: list[Any]) -> Answers:
    """Products of functions along axes, with the noise that they have."""
    grid = grid_of(release)
    values = along_axes(release.values.reshape(grid.shape), factors)
    norms = np.prod([np.linalg.norm(f, axis=1) for f in factors], axis=0)
    found = Answers(values, grid.stddev * norms, np.zeros(len(values)))
    return found.times(grid.max_weight)
