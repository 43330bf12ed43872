r"""Sums of squared distances from three moments, exactly.

sum ||x - y||^2 = n ||y||^2 - 2 <y, sum x> + sum ||x||^2 for points in a ball of radius
B. The features (1, sqrt(2) x / B, ||x||^2 / B^2) have length 1 + ||x||^2 / B^2 <= 2,
and an answer's coefficients B^2 (||y||^2 / B^2, -sqrt(2) y / B, 1) have length <= 2
B^2: so noise on an answer is at most noise_multiplier times 4 B^2, the largest distance
there is.

Source: derived here.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from dpkit.accountants.answers import checks
from dpkit.mechanisms.density.domains import checked_centre, shifted
from dpkit.mechanisms.density.grid_noise import Reach
from dpkit.mechanisms.density.structure import Answers, Structure
from dpkit.mechanisms.protocol import static


@static
@dataclasses.dataclass(frozen=True, kw_only=True)
class SquaredDistances(Structure):
    r"""Three noisy moments; answers are sums over x of ||x - y||_2^2.

    Privacy: a point moves the features by at most 2 in L2. Of two points, replaced,
    the counts cancel: the rest moves by sqrt(2 ||x - x'||^2 / B^2 + (difference of
    squared lengths)^2 / B^4), at most sqrt(8). Points outside the ball count at its
    edge.

    Args:
      radius: B > 0, public, of the ball.
      dimension: d; public.
      centre: of the ball; left out, zero.
      noise: `Gaussian` or `Radial`, or `Laplace`.

    Raises:
      ValueError, TypeError: a field out of range.

    Example:
      >>> from dpkit.mechanisms.density.grid_noise import Gaussian
      >>> moments = SquaredDistances(radius=3.0, dimension=2, noise=Gaussian(2.0))
      >>> moments.size, round(moments.floor, 1)
      (4, 72.0)
    """

    radius: float
    dimension: int  # type: ignore[assignment]
    centre: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuses what doesn't fit together."""
        checks.positive(radius=self.radius)
        checks.integer_at_least(1, dimension=self.dimension)
        centre = checked_centre(self.centre, self.dimension)
        object.__setattr__(self, "centre", centre)
        super().__post_init__()

    @property
    def size(self) -> int:
        """The count, the sum, and the sum of squares."""
        return self.dimension + 2

    @property
    def peak(self) -> float:
        """Of one coordinate."""
        return math.sqrt(2)

    def point_reach(self) -> Reach:
        """2; replaced, sqrt(8), where two points stand opposite on the sphere.

        ||x - x'||^2 <= 2 a + 2 b for a = ||x||^2, b = ||x'||^2 in units of B^2; so the
        square is at most 4 (a + b) + (a - b)^2, which is convex: its largest value, at
        a corner, is 8. Points of less weight don't exceed it, since the features of
        one of weight 0 are those of none, at distance 2.
        """
        l1 = 2 + math.sqrt(2 * self.dimension)
        return Reach(2.0, l1, math.sqrt(8.0), 2 * l1)

    def placed(self, points: Any) -> Any:
        """Points in radii, projected into the ball."""
        scaled = shifted(points, self.centre) / self.radius
        xp = np if isinstance(points, np.ndarray) else jnp
        # A large point is made small first, lest its square overflow.
        largest = xp.abs(scaled).max(axis=-1, keepdims=True)
        scaled = scaled / xp.maximum(largest, 1.0)
        norm = xp.sqrt((scaled**2).sum(axis=-1, keepdims=True))
        inside = xp.where(norm * xp.maximum(largest, 1.0) <= 1.0, 1.0, 0.0)
        shrunk = scaled / xp.maximum(norm, 1e-30)
        return xp.where(inside == 1.0, scaled, shrunk)

    def features(self, placed: Any, labels: Any) -> tuple[Any, tuple[Any, ...]]:
        """The count, the point, its squared length; of a length of 1 at most."""
        del labels
        square = jnp.minimum((placed**2).sum(axis=1, keepdims=True), 1.0)
        return None, (jnp.ones_like(square), math.sqrt(2) * placed, square)

    def answer(self, values: np.ndarray, queries: np.ndarray) -> Answers:
        """Quadratic in the query; never below zero."""
        y = shifted(queries, self.centre) / self.radius
        squares = (y**2).sum(axis=1)
        if (squares > 1 + 1e-9).any():
            row = int(np.flatnonzero(squares > 1 + 1e-9)[0])
            raise ValueError(
                f"queries[{row}]={queries[row]}: needed a point of the ball of "
                f"radius={self.radius}, to which the records were limited too"
            )
        answers = values[0] * squares - math.sqrt(2) * y @ values[1:-1] + values[-1]
        norms = np.sqrt(squares**2 + 2 * squares + 1)
        unit = self.radius**2
        # Points and squares in float32.
        records = abs(values[0]) + 2 * self.stddev
        rounding = np.full(len(y), records * (self.dimension + 4) * 2**-23)
        return Answers(
            unit * np.maximum(answers, 0.0), unit * self.bar * norms, unit * rounding
        )

    def count_answer(self, values: np.ndarray) -> Answers:
        """How many points there are."""
        stddev = np.array([self.bar])
        return Answers(values[:1], stddev, np.zeros(1)).times(self.max_weight)

    def expected_error(self, records: float) -> float:
        """The noise of a query at the middle of the ball's volume."""
        del records
        mean = self.dimension / (self.dimension + 2)
        return self.max_weight * self.radius**2 * self.stddev * (1 + mean)

    def _floor(self) -> float:
        """Of one query: the noise times the largest distance."""
        return super()._floor() * 4 * self.radius**2
