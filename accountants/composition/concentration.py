r"""From concentration to (epsilon, delta), at the best of all real orders.

If every Rényi divergence is at most xi + rho a at order a > 1, then with t = a - 1

    epsilon = min over t > 0 of xi + rho (1 + t) - log(1 + 1/t)
                                + (log(1 / delta) - log(1 + t)) / t.

The derivative vanishes where rho t^2 + log(1 + t) = log(1 / delta), which has one root.
The other way round, the logarithm of delta at epsilon is the minimum over t of

    t (rho (1 + t) + xi - epsilon - log(1 + 1/t)) - log(1 + t),

whose derivative rho (1 + 2t) + xi - epsilon - log(1 + 1/t) has one root at most.

The classic form, epsilon = xi + rho + 2 sqrt(rho log(1 / delta)), is never smaller; it
bounds the loss itself, with probability 1 - delta.

Reference: Canonne, Kamath, Steinke, "The Discrete Gaussian for Differential Privacy",
2020, arXiv:2004.00010, Proposition 12; Bun & Steinke, "Concentrated Differential
Privacy", 2016, arXiv:1605.02658, Proposition 1.3 (the classic form).
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import optimize

_PAD = 1e-14
_TINY = 5e-324
_LOG_ORDERS = (-690.0, 230.0)


def log_peak(t: Any) -> Any:
    """log of the largest e^(-ty) (1 - e^-y) over y > 0: (t / (1 + t))^t / (1 + t).

    With it, a Rényi divergence rho of order 1 + t bounds log delta at epsilon by
    t (rho - epsilon) + log_peak(t).

    Example:
      >>> round(math.exp(log_peak(1.0)), 9)
      0.25
    """
    return -t * np.log1p(1 / t) - np.log1p(t)


def tight_epsilon(xi: float, rho: float, delta: float) -> float:
    """The smallest epsilon of a concentrated release at delta in (0, 1), rounded up.

    xi and rho are at least 0 and may be inf; then so is epsilon: nothing is claimed.

    Example:
      >>> round(tight_epsilon(0.0, 0.1, 1e-6), 9)
      2.141938928
    """
    if not xi + rho < math.inf:  # nor a number
        return math.inf
    # The total variation is at most sqrt(1 - e^-R_1), and R_1 at most xi + rho.
    if delta * delta >= -math.expm1(-(xi + rho)) * (1 + _PAD):
        return 0.0
    log_share = -math.log(delta)
    t = _crossing(lambda t: rho * t * t + math.log1p(t) - log_share)
    finite = xi, rho * (1 + t), -math.log1p(1 / t)
    return max(0.0, _sum_above((*finite, log_share / t, -math.log1p(t) / t)))


def tight_delta(xi: float, rho: float, epsilon: float) -> float:
    """The smallest delta of a concentrated release at a finite epsilon, rounded up.

    xi and rho as above; delta is 0 only if nothing was released, or epsilon is pure.

    Example:
      >>> tight_delta(0.0, 0.1, 2.141938929) <= 1e-6
      True
    """
    if not xi + rho < math.inf:
        return 1.0
    if rho == 0 and xi * (1 + _PAD) <= epsilon:
        return 0.0
    t = _crossing(lambda t: rho * (1 + 2 * t) + xi - epsilon - math.log1p(1 / t))
    slope = _sum_above((rho * (1 + t), xi, -epsilon, -math.log1p(1 / t)))
    power = math.exp(min(t * slope - math.log1p(t), 0.0))
    variation = math.sqrt(-math.expm1(-(xi + rho)))
    return min(1.0, max(min(power, variation) * (1 + 1e-12), _TINY))


def _crossing(excess: Callable[[float], float]) -> float:
    """Where an increasing function of t = a - 1 crosses 0: any order is valid."""
    low, high = _LOG_ORDERS

    def at(log_t: float) -> float:
        return max(-1e300, min(excess(math.exp(log_t)), 1e300))

    if at(low) >= 0 or at(high) <= 0:
        return math.exp(low if at(low) >= 0 else high)
    root: Any = optimize.brentq(at, low, high, xtol=1e-10)
    return math.exp(float(root))


def _sum_above(terms: tuple[float, ...]) -> float:
    """The sum of computed terms, raised by more than their rounding."""
    return math.fsum(terms) + _PAD * math.fsum(abs(term) for term in terms)
