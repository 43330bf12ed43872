r"""Unsampled Gaussians compose to one Gaussian, whose profile is known in closed form.

    delta(eps) = Phi(m/2 - eps/m) - e^eps Phi(-m/2 - eps/m),   m^2 = sum of 1 / s_i^2,

in logarithms, so that it holds at any delta.

Reference: Balle & Wang, "Improving the Gaussian Mechanism for Differential Privacy",
2018, arXiv:1805.06530, Theorem 8.
"""

import math

import dp_accounting as dp
from dp_accounting import DpEvent
from scipy import optimize, special

from dpkit.accountants.relations import Relation, shift

_PAD = 1e-10


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


def log_delta(moved: float, epsilon: float) -> float:
    """log delta(eps) of a Gaussian pair that is `moved` standard deviations apart."""
    first = special.log_ndtr(moved / 2 - epsilon / moved)
    second = epsilon + special.log_ndtr(-moved / 2 - epsilon / moved)
    with_rounding = -math.expm1(min(float(second - first), 0.0))
    return float(first) + math.log(with_rounding) if with_rounding > 0 else -math.inf


def epsilon(moved: float, delta: float) -> tuple[float, float]:
    """Lower and upper bound on epsilon, a rounding error apart."""
    if moved == 0 or log_delta(moved, 0.0) <= math.log(delta):
        return 0.0, 0.0
    high = 1.0
    while log_delta(moved, high) > math.log(delta):
        high *= 2
        if math.isinf(high):
            return math.inf, math.inf
    value = optimize.brentq(
        lambda e: log_delta(moved, e) - math.log(delta), 0.0, high, xtol=1e-300
    )
    return value * (1 - _PAD), value * (1 + _PAD)


def delta(moved: float, epsilon: float) -> tuple[float, float]:
    """Lower and upper bound on delta, a rounding error apart."""
    value = math.exp(log_delta(moved, epsilon)) if moved > 0 else 0.0
    slack = 1e-14 * max(1.0, (epsilon / moved) ** 2 if moved > 0 else 0.0) + _PAD
    return value * max(0.0, 1 - slack), min(1.0, value * (1 + slack))
