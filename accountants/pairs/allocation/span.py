r"""Where a sum of m lognormals lives, and how fine a grid it needs.

None of this decides whether a bound is valid: whatever a grid cuts off is counted as
infinite loss. It only keeps that small and the grids short.
"""

import dataclasses
import functools
import math

import numpy as np
from scipy import special

from dpkit.accountants.pairs.allocation import lognormal
from dpkit.accountants.pairs.arrays import Array


@dataclasses.dataclass(frozen=True)
class Range:
    """Ranges and steps for the sum of `steps` lognormals and of its parts."""

    noise: float  # s of each W
    steps: int  # how many there are
    fineness: float  # the whole sum's step, in standard deviations of its logarithm
    tail: float  # what mean the grid may lose above, relative to the whole
    slack: float = 1.0  # widens the range, at both ends

    @property
    def low_tail(self) -> float:
        """What mass the grid may leave at zero."""
        return min(1e-20, 1e-4 * self.tail)

    def step(self, level: int) -> float:
        """The step for the parts that are `level` halvings below the whole.

        The relative variance that a level adds is (m / 6 v) h^2, so that each halving
        of m allows a step sqrt 2 longer; it doubles every other level.
        """
        spread = math.log1p(lognormal.variance(self.noise) / self.steps)
        first = self.fineness * min(1 / self.noise, math.sqrt(spread))
        longest = 2 * self.fineness / self.noise
        doublings = min(level // 2, max(0, math.floor(math.log2(longest / first))))
        return first * 2.0**doublings

    def stride(self, parts: int, step: float) -> int:
        """How much coarser one W may be where it joins a sum of `parts` - 1 others.

        Its grid adds (1 + v) H^2 / (6 m v) to the relative variance: little for large
        m, whatever the step of the sum.
        """
        wanted = min(4.0, max(1.0, math.sqrt(parts) / 3)) * self.fineness / self.noise
        return max(1, math.floor(wanted / step))

    def indices(self, parts: int, step: float) -> tuple[int, int]:
        """The first and last index of a grid for the sum of `parts` W."""
        low = math.floor(self._log_low(parts, step) / step)
        return low, max(math.ceil(self._log_high(parts) / step), low + 1)

    def _log_high(self, parts: int) -> float:
        """log of the upper end: one W alone is large, or all of them a little."""
        reach = float(-special.ndtri(self.tail)) * self.slack
        log_one = (1 / self.noise + reach) / self.noise - 0.5 / self.noise**2
        if log_one > 300:
            raise ArithmeticError(
                f"noise_multiplier={self.noise!r} is too small for the law of random "
                f"allocation at tail={self.tail:g}; use another accountant"
            )
        one = math.exp(log_one)
        spread = math.sqrt(parts * lognormal.variance(self.noise))
        excess = 1.05 * math.expm1(log_one) + 0.95 * reach * spread
        return math.log(min(parts * one, parts + excess))

    def _log_low(self, parts: int, step: float) -> float:
        """log of the lower end: a Chernoff point, or next to nothing in the whole."""
        log_tail = math.log(self.low_tail)
        own = _chernoff_point(self.noise, parts, log_tail * self.slack)
        whole = _chernoff_point(self.noise, self.steps, log_tail)
        share = 0.3 * step * parts / self.steps
        return math.log(max(own, whole * share / self.slack**8))


def _chernoff_point(noise: float, parts: int, log_tail: float) -> float:
    """An s with P[S < s] <= tail: max (log tail - m log phi(theta)) / theta."""
    log_theta, log_phi = _transform(noise)
    with np.errstate(over="ignore"):
        points = (log_tail - parts * log_phi) * np.exp(-log_theta)
    best = float(points.max())
    if best <= 0:
        raise ArithmeticError(f"a tail of e^{log_tail:g} is too small for a grid")
    return best


@functools.lru_cache(maxsize=16)
def _transform(noise: float) -> tuple[Array, Array]:
    """log E[e^(-theta W)] on a grid of log theta that spans thirty deviations."""
    lowest = -6 - 0.5 * math.log(lognormal.variance(noise))
    highest = math.log(30 * noise) + 30 / noise + 0.5 / noise**2
    log_theta = np.linspace(lowest, max(highest, lowest + 10), 500)
    return log_theta, lognormal.log_laplace(log_theta, noise)
