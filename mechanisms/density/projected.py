r"""Sums of l2 distances, by l1 distances of projections.

||v||_2 = E abs(<u, v>) / c_d for u uniform on the sphere, with
c_d = Gamma(d / 2) / (sqrt(pi) Gamma((d + 1) / 2)): p public directions, at right angles
d at a time, turn points into p coordinates, whose l1 distances are released by
`CdfDistances` (Gaussian noise) or `HatDistances` (Laplace). In many dimensions hardly a
projection is longer than 3.5 B / sqrt(d), and they are cut there. With Gaussian noise
the error does not grow with p; the rest of it is that of a mean over p directions.

Source: derived here; the identity is classical, as in Johnson and Lindenstrauss, 1984.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np
from scipy import stats

from dpkit.accountants.answers import checks
from dpkit.mechanisms.density.cdf import CdfDistances
from dpkit.mechanisms.density.domains import checked_centre, shifted
from dpkit.mechanisms.density.grid_noise import Gaussian, Laplace, Noise, Reach
from dpkit.mechanisms.density.hats import HatDistances
from dpkit.mechanisms.density.kernels import at_right_angles
from dpkit.mechanisms.density.public_array import PublicArray
from dpkit.mechanisms.density.structure import Answers, Structure
from dpkit.mechanisms.protocol import static

_SPREAD = 3.5  # which a normal number passes with probability 5e-4


@static
@dataclasses.dataclass(frozen=True, kw_only=True)
class ProjectedDistances(Structure):
    r"""Noisy structures of projections; answers are sums over x of ||x - y||_2.

    Privacy: that of the l1 structure on the p projections, each of them clipped.

    Args:
      radius: B > 0, public, of the ball that points are meant to be in.
      directions: public, (p, d); `draw` draws them.
      centre: of the ball; left out, zero.
      cells: of `CdfDistances`. levels: of `HatDistances`.
      noise: `Gaussian` or `Laplace`.

    Raises:
      ValueError, TypeError: a field out of range.

    Example:
      >>> far = ProjectedDistances.draw(3, radius=2.0, count=8, noise=Gaussian(2.0))
      >>> far.dimension, far.event("add_remove")
      (3, GaussianDpEvent(noise_multiplier=2.0))
    """

    radius: float
    directions: PublicArray
    cells: int = 2**10
    levels: int = 12
    centre: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuses what doesn't fit together."""
        checks.positive(radius=self.radius)
        checks.integer_at_least(1, cells=self.cells)
        checks.integer_at_least(1, levels=self.levels)
        directions = PublicArray(self.directions, "directions")
        object.__setattr__(self, "directions", directions)
        centre = checked_centre(self.centre, self.dimension)
        object.__setattr__(self, "centre", centre)
        if not isinstance(self.noise, Gaussian | Laplace):
            raise TypeError(f"noise={self.noise!r}: needed Gaussian or Laplace noise")
        super().__post_init__()

    @classmethod
    def draw(
        cls,
        dimension: int,
        *,
        radius: float,
        noise: Noise,
        count: int = 512,
        feature_seed: int = 0,
        **options: Any,
    ) -> ProjectedDistances:
        """A structure with random directions.

        Args:
          dimension: d. count: p.
          feature_seed: public, a whole number; it has nothing to do with the noise.
          options: the other fields.
        """
        seed = checks.integer_at_least(0, feature_seed=feature_seed)
        generator = np.random.default_rng(seed)
        checks.integer_at_least(1, count=count)
        found = at_right_angles(np.ones(count), dimension, generator)
        return cls(radius=radius, directions=PublicArray(found), noise=noise, **options)

    @functools.cached_property
    def inner(self) -> CdfDistances | HatDistances:
        """The structure of the projections."""
        reach = self.radius * min(1.0, _SPREAD / math.sqrt(self.dimension))
        domain = ((-reach, reach),) * len(self.directions.array)
        if isinstance(self.noise, Gaussian):
            made: Any = functools.partial(CdfDistances, cells=self.cells)
        else:
            made = functools.partial(HatDistances, levels=self.levels)
        units = self.points_per_unit
        return made(domain=domain, noise=self.noise, points_per_unit=units)

    @property
    def dimension(self) -> int:
        """d: how many coordinates a point has."""
        return self.directions.array.shape[1]

    @property
    def size(self) -> int:
        """That of the projections' structure."""
        return self.inner.size

    @property
    def active(self) -> int:
        """That of the projections' structure."""
        return self.inner.active

    @property
    def peak(self) -> float:
        """That of the projections' structure."""
        return self.inner.peak

    def point_reach(self) -> Reach:
        """That of the projections' structure."""
        return self.inner.point_reach()

    def placed(self, points: Any) -> Any:
        """The projections, in the coordinates of their structure."""
        moved = shifted(points, self.centre)
        return self.inner.placed(moved @ self.directions.array.T.astype(points.dtype))

    def features(self, placed: Any, labels: Any) -> tuple[Any, tuple[Any, ...]]:
        """Those of the projections."""
        return self.inner.features(placed, labels)

    def batch_total(
        self, points: np.ndarray, weights: np.ndarray | None, labels: Any
    ) -> np.ndarray:
        """The sum of features, by the quick way of the projections' structure."""
        if isinstance(self.inner, HatDistances):
            return super().batch_total(points, weights, labels)
        placed, weights, _ = self.padded(points, weights, None)
        return self.inner.counted(placed, weights, self.max_weight)

    def answer(self, values: np.ndarray, queries: np.ndarray) -> Answers:
        """The mean over directions, and what it varies by; never below zero."""
        moved = shifted(queries, self.centre)
        if (np.linalg.norm(moved, axis=1) > self.radius * (1 + 1e-9)).any():
            raise ValueError(
                f"queries: needed points of the ball of radius={self.radius}, to which "
                "the records were limited too"
            )
        found, squares, bias = self.inner.by_axis(values, self.placed(queries))
        count, d = len(found), self.dimension
        noise = self.inner.stddev**2 * squares.sum(axis=0) / count**2
        if isinstance(self.inner, CdfDistances):
            half = self.inner.lengths.mean() / 2
            noise += (self.inner.stddev * half) ** 2 / self.inner.cells
        # Blocks at right angles are independent; single directions cancel in part.
        block = d if count // d >= 16 else 1
        groups = found[: count // block * block].reshape(-1, block, len(queries))
        own = groups.mean(axis=1).var(axis=0, ddof=min(1, len(groups) - 1))
        spread = np.maximum(own / len(groups), noise)
        unit = self._per_length
        # What projections are cut by on average, for two points at the edge.
        cut = 2 * (stats.norm.pdf(_SPREAD) - _SPREAD * stats.norm.sf(_SPREAD))
        cut *= 2 * self.radius / math.sqrt(d) * (_SPREAD**2 < d)
        records = max(self.count_answer(values).high[0], 0.0) / self.max_weight
        mean = np.maximum(found.mean(axis=0), 0.0)
        rest = bias.mean(axis=0) + cut * records
        return Answers(unit * mean, unit * np.sqrt(spread), unit * rest)

    @property
    def _per_length(self) -> float:
        """1 / c_d."""
        d = self.dimension
        logs = math.lgamma((d + 1) / 2) - math.lgamma(d / 2)
        return math.sqrt(math.pi) * math.exp(logs)

    def count_answer(self, values: np.ndarray) -> Answers:
        """How many points there are."""
        return self.inner.count_answer(values).times(self.max_weight)

    def expected_error(self, records: float) -> float:
        """The inner structure's noise, and that of a mean over directions."""
        count, unit = len(self.directions.array), self._per_length
        noise = self.inner.expected_error(records) / count * unit
        relative = max(unit**2 / self.dimension - 1, 0.0) / count
        own = records * self.radius * math.sqrt(relative)
        return self.max_weight * math.hypot(noise, own)

    def _floor(self) -> float:
        """Of one query: the noise times the largest distance."""
        return super()._floor() * 2 * self.radius
