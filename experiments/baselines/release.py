"""What every density baseline releases: noisy statistics, and answers from them.

These are other people's algorithms for experiments, not for release: noise is drawn in
floating point by a NumPy generator with a seed that the caller knows. Where a docstring
says "private", it says what the algorithm would be with exact, secret noise.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Release:
    """Statistics with their noise. Any number of queries may follow: they are free.

    Attributes:
      statistics: all that is published.
      answer: (statistics, queries (q, dim)) -> values (q,).
    """

    statistics: Array
    answer: Callable[[Array, Array], Array]

    def query(self, queries: Array) -> Array:
        """The sum over all records for each row of `queries`: a sum, not a mean.

        Args:
          queries: (q, dim), public.
        """
        return self.answer(self.statistics, np.asarray(queries, dtype=float))


def laplace(rng: np.random.Generator, sensitivity: float, epsilon: float, shape: Any):
    """Laplace noise of scale sensitivity / epsilon; none at epsilon=inf.

    Raises:
      ValueError: epsilon is not positive.
    """
    if not epsilon > 0:
        raise ValueError(f"epsilon={epsilon!r} must be positive; inf is no noise")
    return rng.laplace(size=shape) * (sensitivity / epsilon)


def records(points: Array, dim: int) -> Array:
    """Points as floats (n, dim), without those that are not finite: they count nothing.

    Raises:
      ValueError: another shape.
    """
    points = np.asarray(points, dtype=float)
    if points.ndim != 2 or points.shape[1] != dim:
        raise ValueError(f"points.shape={points.shape} must be (n, {dim})")
    return points[np.isfinite(points).all(1)]


def gaussian_sums(points: Array, queries: Array, rows: int = 4096) -> Array:
    """The truth: sum over x of exp(-|x - y|^2) for each query y.

    Args:
      points: (n, dim).
      queries: (q, dim).
      rows: of the points at a time.

    Example:
      >>> gaussian_sums(np.zeros((2, 3)), np.eye(3)[:1]).round(6).tolist()
      [0.735759]
    """
    total = np.zeros(len(queries))
    for start in range(0, len(points), rows):
        some = points[start : start + rows]
        squares = (some**2).sum(1)[:, None] + (queries**2).sum(1)
        total += np.exp(np.minimum(2 * some @ queries.T - squares, 0.0)).sum(0)
    return total


def l1_sums(points: Array, queries: Array) -> Array:
    """The truth: sum over x of |x - y|_1 for each query y, by sorted prefix sums.

    Args:
      points: (n, dim).
      queries: (q, dim).

    Example:
      >>> l1_sums(np.array([[0.0], [3.0]]), np.array([[1.0], [4.0]])).tolist()
      [3.0, 5.0]
    """
    total = np.zeros(len(queries))
    for x, y in zip(np.sort(points.T, axis=1), queries.T, strict=True):
        below = np.concatenate([[0.0], np.cumsum(x)])
        k = np.searchsorted(x, y)
        total += y * (2 * k - len(x)) + below[-1] - 2 * below[k]
    return total


def root_mean_square(errors: Array) -> float:
    """Over all entries."""
    return math.sqrt(np.mean(np.square(errors)))
