"""Histograms, distribution functions, quantiles, maps and samples of a released grid.

All of it is post-processing. Each node of the grid stands for the points around it, so
an edge is soft by about `grid.unit`; empty places have noise too, and so have bands.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import interpolate

from dpkit.accountants.answers import checks
from dpkit.density.released import Release, grid_of
from dpkit.mechanisms.density import Answers, SplineGrid
from dpkit.mechanisms.density.spline import along_axes, nodes_of

_MESH = 32  # of places between two nodes


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
    off = _off(release, limits, axis)
    return _linear(release, np.diff(below, axis=0), axis, off[1:] + off[:-1])


def cdf(release: Release, places: ArrayLike, *, axis: int = 0) -> Answers:
    """How many records are at or below places along an axis, (len(places),).

    Raises:
      TypeError: the release is no grid.
    """
    grid, at = grid_of(release), np.asarray(places, np.float64)
    if at.ndim != 1 or not np.isfinite(at).all():
        raise ValueError(f"places={at}: needed a list of finite numbers")
    return _linear(release, _below(grid, at, axis), axis, _off(release, at, axis))


def quantile(release: Release, fractions: ArrayLike, *, axis: int = 0) -> Answers:
    """Places below which fractions of the records are, with bands, (len(fractions),).

    Where the distribution function, made to ascend, reaches the fraction of the count,
    the place stands; the band holds all places at which it may, given its own band.

    Raises:
      TypeError: the release is no grid. ValueError: a fraction outside [0, 1].
    """
    parts = np.asarray(fractions, np.float64)
    if not ((parts >= 0) & (parts <= 1)).all():
        raise ValueError(f"fractions={parts}: needed numbers in [0, 1]")
    grid = grid_of(release)
    places = _line(grid, axis, 2049)
    below, off = _below(grid, places, axis), _off(release, places, axis)
    found = []
    for part in np.ravel(parts):
        excess = _linear(release, below - part, axis, off)
        noise = 2 * excess.stddev
        middle = places[np.argmax(np.append(excess.values[:-1] >= 0, True))]
        near = _span(places, excess.values, noise)
        far = _span(places, excess.values, noise + excess.bias_bound)
        reach = max(far[1] - middle, middle - far[0]) + places[1] - places[0]
        stddev = max(near[1] - near[0], 0.0) / 4
        found.append((middle, stddev, max(reach - 2 * stddev, 0.0)))
    return Answers(*np.array(found).T.reshape(3, *parts.shape))


def _span(
    places: np.ndarray, curve: np.ndarray, band: np.ndarray
) -> tuple[float, float]:
    """The first place at which a curve may be above 0, the last one at which below."""
    above, below = curve + band >= 0, curve - band <= 0
    first, last = np.argmax(np.append(above[:-1], True)), np.flatnonzero(below)
    return float(places[first]), float(places[last[-1] if len(last) else 0])


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
    factors = [np.ones((size * size, nodes)) for nodes in grid.shape]
    above = [np.zeros((size * size, nodes)) for nodes in grid.shape]
    for axis, place, which in zip(axes, places, (0, 1), strict=True):
        for parts, own in zip(
            (factors, above), _kernel_along(grid, place, axis), strict=True
        ):
            rows, columns = np.repeat(own, size, axis=0), np.tile(own, (size, 1))
            parts[axis] = columns if which else rows
    flat = _product(release, factors, grid.bias(release.values, factors, above))
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
    along, above = _kernel_along(grid, places, axis)
    factors = _along(grid, along, axis, 1.0)
    off = grid.bias(release.values, factors, _along(grid, above, axis, 0.0))
    found = _product(release, factors, off)
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
    grid, size = grid_of(release), checks.integer_at_least(0, size=size)
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
    _known(grid, axis)
    low, high = grid.domain[axis]
    return np.linspace(low, high, size)


def _known(grid: SplineGrid, axis: int) -> None:
    """Refuses an axis that the grid doesn't have."""
    if not 0 <= axis < grid.dimension:
        raise ValueError(f"axis={axis}: needed one from 0 to {grid.dimension - 1}")


def _below(grid: SplineGrid, places: np.ndarray, axis: int) -> np.ndarray:
    """For each place, which share of each node along an axis is below it."""
    _known(grid, axis)
    nodes = nodes_of(grid)[axis]
    share = (places[:, None] - nodes) / grid.unit + 0.5
    low, high = grid.domain[axis]
    share = share.clip(0.0, 1.0)
    # Every record is within the domain.
    share[places >= high], share[places < low] = 1.0, 0.0
    return share


def _off(release: Release, places: np.ndarray, axis: int) -> np.ndarray:
    """What the edge's softness may be off by at each place, from who is around."""
    grid = grid_of(release)
    steps = np.abs(places[:, None] - nodes_of(grid)[axis]) / grid.unit
    above = softness(grid.degree)
    at = (steps * _MESH).astype(int)
    share = np.where(at < len(above), above[np.minimum(at, len(above) - 1)], 0.0)
    low, high = grid.domain[axis]
    share[(places >= high) | (places < low)] = 0.0
    found = _linear(release, share, axis, np.zeros(len(places)))
    return np.maximum(found.values, 0.0) + 2 * found.stddev


@functools.lru_cache(maxsize=8)
def softness(degree: int) -> np.ndarray:
    """A function of the distance to an edge whose spline is above the edge's error.

    A point is below the edge or not; its spline tells the share of the nodes' steps
    that is. The worst such error at a distance, as far or further, is stretched until
    its spline is above the error, wherever point and edge are between nodes.

    Returns:
      (count,): at distances of 1/32 step; beyond, it is 0.
    """
    spline = interpolate.BSpline.basis_element(
        np.arange(degree + 2) - (degree + 1) / 2, extrapolate=False
    )
    last = degree // 2 + 2
    nodes = np.arange(-2 * last, 2 * last + 1)
    x = np.arange(-last * _MESH, last * _MESH + 1) / _MESH
    weights = np.nan_to_num(spline(x[:, None] - nodes))
    edges, count = np.arange(_MESH) / _MESH, last * _MESH
    shares = weights @ (edges - nodes[:, None] + 0.5).clip(0, 1)
    gap = x[:, None] - edges
    # At the edge itself, a point counts on either side.
    error = np.where(
        gap == 0, np.maximum(shares, 1 - shares), np.abs((gap < 0) - shares)
    )
    worst = np.zeros(count)
    at = (np.abs(gap) * _MESH).astype(int)
    np.maximum.at(worst, np.minimum(at, count - 1), error)
    worst = np.maximum.accumulate(worst[::-1])[::-1]
    away = (np.abs(nodes[:, None] - edges) * _MESH).astype(int)
    about = weights @ np.where(away < count, worst[np.minimum(away, count - 1)], 0.0)
    seen = error > 1e-9
    return 1.05 * worst * float((error[seen] / about[seen]).max())


def _kernel_along(
    grid: SplineGrid, places: np.ndarray, axis: int
) -> tuple[np.ndarray, np.ndarray]:
    """The kernel along one axis alone: coefficients, what is above their error."""
    if not grid.kernel.factors:
        raise TypeError(
            f"kernel={grid.kernel.name!r} is no product over axes: use query"
        )
    queries = np.repeat([[low for low, _ in grid.domain]], len(places), axis=0).astype(
        float
    )
    queries[:, axis] = places
    above = grid.above(grid.places(queries)[axis])
    return grid.coefficients(queries)[axis], above


def _linear(release: Release, along: np.ndarray, axis: int, off: np.ndarray) -> Answers:
    """Linear functions of the nodes along an axis, over all others."""
    return _product(release, _along(grid_of(release), along, axis, 1.0), off)


def _along(
    grid: SplineGrid, along: np.ndarray, axis: int, other: float
) -> list[np.ndarray]:
    """A function along an axis, with a constant along all others."""
    return [
        along if j == axis else np.full((len(along), nodes), other)
        for j, nodes in enumerate(grid.shape)
    ]


def _product(release: Release, factors: list[Any], off: np.ndarray) -> Answers:
    """Products of functions along axes, with their noise; off by at most `off`."""
    grid = grid_of(release)
    values = along_axes(release.values.reshape(grid.shape), factors)
    norms = np.prod([np.linalg.norm(f, axis=1) for f in factors], axis=0)
    found = Answers(values, grid.bar * norms, off)
    return found.times(grid.max_weight)
