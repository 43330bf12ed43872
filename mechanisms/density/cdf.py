r"""Sums of l1 distances from noisy distribution functions, with Gaussian noise.

abs(x - v) is half the integral over t of 1 - sign(x - t) sign(v - t). With m cells on
every axis, the means s_j(u) of sign(u - t) over cell j are a record's features, and
S(v) = R / 2 (n - (1 / m) sum_j s_j(v) F_j), F_j being the sum of s_j over records. The
count n is a feature that all axes share.

With features F_j / sqrt(m), weighted by the root of each axis' length, and the count's
weight chosen for it, noise on an answer is noise_multiplier times the domain's l1
diameter: that of a single query, whatever m is. So m is large.

Source: derived here; see `hats` for the problem's.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from dpkit.accountants.answers import checks
from dpkit.mechanisms.density.domains import Domain, checked_domain
from dpkit.mechanisms.density.grid_noise import Gaussian, Reach
from dpkit.mechanisms.density.hats import refuse_outside
from dpkit.mechanisms.density.structure import Answers, Structure
from dpkit.mechanisms.protocol import static

_MOST_CELLS = 2**18


@static
@dataclasses.dataclass(frozen=True, kw_only=True)
class CdfDistances(Structure):
    r"""Noisy distribution functions; answers are sums over x of ||x - y||_1.

    Privacy: a point's features have length at most sqrt(2 m), with lengths of the axes
    as weights that sum to 1. A replaced point leaves the count, and moves each other
    feature by at most 2. Points outside the domain count at its edge.

    Args:
      domain: public; low and high of every axis.
      cells: m, from 1 to 262,144; each costs memory, none costs noise.
      noise: `Gaussian`.

    Raises:
      ValueError, TypeError: a field out of range.

    Example:
      >>> cdf = CdfDistances(domain=((0, 1), (0, 3)), noise=Gaussian(2.0), cells=64)
      >>> cdf.size, round(cdf.expected_error(1.0), 2)
      (129, 8.0)
    """

    domain: Domain
    cells: int = 2**14

    def __post_init__(self) -> None:
        """Refuses what doesn't fit together."""
        object.__setattr__(self, "domain", checked_domain(self.domain))
        if checks.integer_at_least(1, cells=self.cells) > _MOST_CELLS:
            raise ValueError(f"cells={self.cells}: needed at most {_MOST_CELLS}")
        super().__post_init__()
        if not isinstance(self.noise, Gaussian):
            raise TypeError(
                f"noise={self.noise!r}: needed Gaussian noise; for pure epsilon use "
                "HatDistances"
            )

    @property
    def dimension(self) -> int:
        """d: how many coordinates a point has."""
        return len(self.domain)

    @property
    def size(self) -> int:
        """The count, and all cells of all axes."""
        return 1 + self.dimension * self.cells

    @property
    def peak(self) -> float:
        """The count's weight."""
        return math.sqrt(self.cells)

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """R of every axis."""
        return np.array([high - low for low, high in self.domain])

    @functools.cached_property
    def weights(self) -> np.ndarray:
        """What each axis' features are multiplied with; their squares sum to 1."""
        return np.sqrt(self.lengths / self.lengths.sum())

    def point_reach(self) -> Reach:
        """sqrt(m) for the count, and as much for all axes."""
        l2, l1 = math.sqrt(2 * self.cells), float(self.weights.sum()) * self.cells
        far = 2 * math.sqrt(self.cells)
        return Reach(l2, l1 + math.sqrt(self.cells), far, 2 * l1)

    def placed(self, points: Any) -> Any:
        """u in [0, m] on every axis."""
        low = np.array([[a for a, _ in self.domain]], points.dtype)
        unit = (self.lengths / self.cells)[None].astype(points.dtype)
        return ((points - low) / unit).clip(0, self.cells)

    def features(self, placed: Any, labels: Any) -> tuple[Any, tuple[Any, ...]]:
        """The count, and s_j of every axis."""
        del labels
        edges = jnp.arange(self.cells, dtype=jnp.float32)
        parts = [jnp.full((len(placed), 1), math.sqrt(self.cells))]
        for axis, weight in enumerate(self.weights):
            signs = jnp.clip(2 * (placed[:, axis, None] - edges[None]) - 1, -1, 1)
            parts.append(signs * jnp.float32(weight))
        return None, tuple(parts)

    def batch_total(
        self, points: np.ndarray, weights: np.ndarray | None, labels: Any
    ) -> np.ndarray:
        """The same sum in time that doesn't grow with the cells."""
        del labels
        return self.counted(self.located(points), weights)

    def counted(
        self,
        placed: np.ndarray,
        weights: np.ndarray | None,
        max_weight: float | None = None,
    ) -> np.ndarray:
        """The sum of features, cell by cell: +w left of a point's own, -w right of it.

        Args:
          placed: float32 (rows, d), in cells; rows that are not finite count for none.
          max_weight: of the weights, if not the structure's own.
        """
        usable = np.isfinite(placed).all(axis=1)
        share = np.ones(len(placed), np.float32)
        if weights is not None:
            most = np.float32(self.max_weight if max_weight is None else max_weight)
            with np.errstate(all="ignore"):  # no warning may depend on a record
                weights = np.asarray(weights, np.float32)
                usable &= np.isfinite(weights)
                share = np.where(usable, weights / most, 0).clip(0, 1)
            share = share.astype(np.float32)
        placed, share = placed[usable], share[usable]
        scale = np.float32(1 / self.step)
        count = np.float32(math.sqrt(self.cells)) * share * scale
        total = [np.array([np.rint(count).astype(np.int64).sum()])]
        for axis, weight in enumerate(self.weights.astype(np.float32)):
            u = placed[:, axis]
            cell = np.minimum(u.astype(np.int64), self.cells - 1)
            inside = np.clip(2 * (u - cell.astype(np.float32)) - 1, -1, 1)
            whole = np.rint(weight * share * scale).astype(np.int64)
            own = np.rint(inside * weight * share * scale).astype(np.int64)
            at = _counted(cell, whole, self.cells)
            left = np.cumsum(at)
            # Cells before a point's own: above it in sign; those behind: below.
            signs = (left[-1] - left) - (left - at)
            total.append(signs + _counted(cell, own, self.cells))
        return np.concatenate(total)

    def answer(self, values: np.ndarray, queries: np.ndarray) -> Answers:
        """Half the domain a record, less where signs agree; never below zero."""
        refuse_outside(queries, self.domain)
        answers, squares, bias = self.by_axis(values, self.placed(queries))
        shared = (self.lengths.sum() / 2) ** 2 / self.cells
        stddev = self.stddev * np.sqrt(shared + squares.sum(axis=0))
        return Answers(np.maximum(answers.sum(axis=0), 0), stddev, bias.sum(axis=0))

    def by_axis(
        self, values: np.ndarray, placed: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Each axis' answers, squared coefficients (not the count's), bias; (d, q)."""
        m, n = self.cells, values[0] / math.sqrt(self.cells)
        found = np.zeros((3, self.dimension, len(placed)))
        records = max(n, 0.0) + 2 * self.stddev / math.sqrt(m)
        for axis, length in enumerate(self.lengths):
            weight = self.weights[axis]
            f = values[1 + axis * m : 1 + (axis + 1) * m] / weight
            before = np.concatenate([[0.0], np.cumsum(f)])
            cell = np.minimum(placed[:, axis].astype(int), m - 1)
            inside = 2 * (placed[:, axis] - cell) - 1
            signed = before[cell] - (before[-1] - before[cell + 1]) + inside * f[cell]
            found[0, axis] = length / 2 * (n - signed / m)
            found[1, axis] = (length / (2 * m * weight)) ** 2 * (m - 1 + inside**2)
            found[2, axis] = records * length / (2 * m) * (1 - inside**2)
        return found[0], found[1], found[2]

    def count_answer(self, values: np.ndarray) -> Answers:
        """How many points there are."""
        root = math.sqrt(self.cells)
        stddev = np.array([self.stddev / root])
        return Answers(values[:1] / root, stddev, np.zeros(1)).times(self.max_weight)

    def expected_error(self, records: float) -> float:
        """The noise of one query."""
        del records
        noise = self.stddev * float(self.lengths.sum()) / math.sqrt(2 * self.cells)
        return self.max_weight * noise

    def _floor(self) -> float:
        """Of one query: the noise times the largest distance."""
        return super()._floor() * float(self.lengths.sum())


def _counted(cell: np.ndarray, whole: np.ndarray, cells: int) -> np.ndarray:
    """Whole numbers summed by cell; exact, since they stay below 2^53."""
    counted = np.bincount(cell, weights=whole, minlength=cells)
    return counted.astype(np.int64)
