r"""Unsampled Gaussians compose to one Gaussian, whose profile is known in closed form.

    delta(eps) = Phi(m/2 - eps/m) - e^eps Phi(-m/2 - eps/m),   m^2 = sum of 1 / s_i^2,

in logarithms, so that it holds at any delta.

Reference: Balle & Wang, "Improving the Gaussian Mechanism for Differential Privacy",
2018, arXiv:1805.06530, Theorem 8.
"""

import math
from typing import Any

import dp_accounting as dp
from dp_accounting import DpEvent
from scipy import optimize, special

from dpkit.accountants.answers.relations import Relation, shift

_PAD = 1e-12
_UNIT = 4e-16
_TINY = 5e-324
_FAR = 1e150


def total_shift(
    releases: list[tuple[DpEvent, int]], relation: Relation
) -> tuple[float, list[tuple[DpEvent, int]]]:
    """The shift m of all unsampled Gaussians together, and the other releases."""
    noises, others = [], []
    for event, count in releases:
        if isinstance(event, dp.GaussianDpEvent):
            noises.append(count * (shift(relation) / event.noise_multiplier) ** 2)
        else:
            others.append((event, count))
    return math.sqrt(math.fsum(noises)), others


def log_delta(distance: float, epsilon: float) -> tuple[float, float]:
    """log delta(eps) of a pair so many deviations apart, below and above rounding."""
    if epsilon / distance - distance / 2 > _FAR:
        return -math.inf, -0.4 * _FAR  # exponents are squares of what is near this
    first = float(special.log_ndtr(distance / 2 - epsilon / distance))
    tail = float(special.log_ndtr(-distance / 2 - epsilon / distance))
    share = -math.expm1(min(epsilon + tail - first, 0.0))
    rounding = _UNIT * (2 + abs(first) + abs(tail) + epsilon)
    low = math.log(share - rounding) if share > rounding else -math.inf
    return first + low, first + math.log(share + rounding)


def epsilon(distance: float, delta: float) -> tuple[float, float]:
    """Lower and upper bound on epsilon, a rounding error apart."""
    if distance == 0:
        return 0.0, 0.0
    if math.isinf(distance):
        return math.inf, math.inf
    low, high = (_solve(distance, delta, side) for side in (0, 1))
    return low * (1 - _PAD), high * (1 + _PAD)


def _solve(distance: float, delta: float, side: int) -> float:
    """Where one side of the rounded profile meets delta."""

    def excess(value: float) -> float:
        return max(log_delta(distance, value)[side], -1e300) - math.log(delta)

    if excess(0.0) <= 0:
        return 0.0
    high = 1.0
    while excess(high) > 0:
        high *= 2
    while high > 1e-300 and excess(high / 2) <= 0:
        high /= 2
    if excess(high / 2) <= 0:  # closer to 0 than any root can be found
        return high if side else 0.0
    root: Any = optimize.brentq(excess, high / 2, high, xtol=1e-300)
    return float(root)


def delta(distance: float, epsilon: float) -> tuple[float, float]:
    """Lower and upper bound on delta, a rounding error apart."""
    if distance == 0:
        return 0.0, 0.0
    if math.isinf(distance):
        return 1.0, 1.0
    low, high = log_delta(distance, epsilon)
    upper = math.exp(high) * (1 + _PAD)
    return math.exp(low) * (1 - _PAD), min(1.0, max(upper, _TINY))
