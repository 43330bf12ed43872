r"""The lognormal W = exp(z / s - 1 / (2 s^2)), z standard normal, whose mean is 1.

It is the likelihood ratio of N(1, s^2) to N(0, s^2) under the latter. Everything here
is a sum of positive terms or a closed form, so that small masses keep their digits.
"""

import functools
import math

import numpy as np
from scipy import special

from dpkit.accountants.pairs.arrays import Array, gauss_legendre

UNIT = 2.0**-53
_NODES = 8
_TABLE = 200_000


def variance(noise: float) -> float:
    """Var W = e^(1/s^2) - 1."""
    return math.expm1(1 / noise**2)


def normal_point(log_x: float, noise: float) -> float:
    """The z at which log W is `log_x`."""
    return noise * log_x + 0.5 / noise


def below(log_x: float, noise: float) -> tuple[float, float]:
    """P[W < x] and E[W; W < x]."""
    point = normal_point(log_x, noise)
    return float(special.ndtr(point)), float(special.ndtr(point - 1 / noise))


def above(log_x: float, noise: float) -> tuple[float, float]:
    """P[W > x] and E[W; W > x]."""
    point = normal_point(log_x, noise)
    return float(special.ndtr(-point)), float(special.ndtr(1 / noise - point))


def cell_masses(edges: Array, step: float, noise: float) -> Array:
    """Masses by Gauss and Legendre in each cell of log W from an edge to edge + step.

    For n edges (n, 8), the share of each cell that stands at each node of `nodes()`.
    """
    places, weights = nodes()
    z = noise * (edges[:, None] + step * places) + 0.5 / noise
    return np.exp(-0.5 * z**2) * (weights * noise * step / math.sqrt(2 * math.pi))


def cell_rounding(low: float, high: float, noise: float) -> float:
    """A bound on the relative rounding error of cell masses from log x = low to high.

    z is right to a few units, so that exp(-z^2 / 2) is right to a few z^2.
    """
    z = max(abs(normal_point(low, noise)), abs(normal_point(high, noise)))
    return UNIT * (16 + 4 * z**2)


@functools.cache
def nodes() -> tuple[Array, Array]:
    """Nodes of Gauss and Legendre in (0, 1) and their weights."""
    places, weights = gauss_legendre(_NODES)
    return (places + 1) / 2, weights / 2


def log_laplace(log_theta: Array, noise: float) -> Array:
    """log E[e^(-theta W)], with all its digits, however near to 0 or far below it.

    The integrand over z is log-concave with curvature of at least 1, so that ten units
    to both sides of its mode hold it all; the mode is a Lambert function. For small
    theta it is E[1 - e^(-theta W)] that is summed. Both by the trapezoid rule, which
    converges exponentially here. `log_theta` is at most 650.
    """
    width = min(0.1, noise / 10)
    scaled = log_theta - 0.5 / noise**2
    found = np.empty(len(scaled))
    size = max(1, math.floor(_TABLE * width / (20 + 1 / noise)))
    for start in range(0, len(scaled), size):
        block = slice(start, start + size)
        small = log_theta[block] < -2
        found[block][small] = _near_one(scaled[block][small], noise, width)
        found[block][~small] = _around_mode(scaled[block][~small], noise, width)
    return np.minimum(found, 0.0)


def _near_one(scaled: Array, noise: float, width: float) -> Array:
    """log (1 - E[1 - e^(-theta W)])."""
    z = np.arange(-10.0, 10 + 1 / noise, width)
    weights = np.exp(-0.5 * z**2) * (width / math.sqrt(2 * math.pi))
    tilt = np.exp(np.minimum(scaled[:, None] + z / noise, 700.0))
    return np.log1p(np.expm1(-tilt) @ weights)


def _around_mode(scaled: Array, noise: float, width: float) -> Array:
    """log E[e^(-theta W)] from a window around the mode of the integrand."""
    mode = -noise * special.lambertw(np.exp(scaled) / noise**2).real
    offsets = np.arange(-math.ceil(10 / width), math.ceil(10 / width) + 1) * width
    z = mode[:, None] + offsets
    exponent = -0.5 * z**2 - np.exp(np.minimum(scaled[:, None] + z / noise, 700.0))
    top = exponent.max(axis=1)
    total = np.exp(exponent - top[:, None]).sum(axis=1)
    return top + np.log(total * (width / math.sqrt(2 * math.pi)))
