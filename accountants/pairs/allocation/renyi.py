r"""Rényi divergences of random allocation, in both directions, at integer orders.

With A = 1 - s/t + (W_1 + ... + W_s) / t as in law.py:

- remove: E[A^a] = a! [x^a] e^(x (t-s)/t) (sum_b x^b e^(b (b-1) / 2 s^2) / (b! t^b))^s,
  powers of a truncated series with positive terms, in logarithms.
- add: E[A^(1-a)] = int_0^inf u^(a-2) E[e^(-u A)] du / Gamma(a - 1), the trapezoid rule
  in log u on the transform of W.

Between integers, chords of (a - 1) R_a hold, which is convex. At every order a / 2 s^2
holds as well, the curve of a Gaussian release in a step that is known.

Reference: Feldman & Shenfeld, "Privacy amplification by random allocation", 2025,
arXiv:2502.08202.
"""

import functools
import math

import numpy as np
from scipy import special

from dpkit.accountants.pairs.allocation import lognormal
from dpkit.accountants.pairs.arrays import Array, power

_FEWEST, _MOST = 64, 512
_UNIT = lognormal.UNIT
_WIDTH = 0.02
_FROM, _TO = -32.0, 60.0
_REST = 45.0


def orders(noise: float, steps: int) -> Array:
    """The orders of the table: some way past where the record's step shows itself."""
    useful = 4 * noise**2 * math.log(steps + 1) + 16 * noise
    return np.arange(2.0, 1 + min(_MOST, max(_FEWEST, useful)))


@functools.lru_cache(maxsize=64)
def values(noise: float, steps: int, ran: int) -> Array:
    """Upper bounds at `orders`, the worse of both directions, if `ran` steps ran."""
    at = orders(noise, steps)
    cap = at / (2 * noise**2)
    if noise < 0.05:
        return cap
    worse = np.maximum(remove(noise, steps, ran, at), add(noise, steps, ran, at))
    return np.minimum(worse, cap)


def remove(noise: float, steps: int, ran: int, at: Array) -> Array:
    """R_a(P || Q) for a = 2, 3, ..., with what rounding may have taken added."""
    powers = np.arange(at[-1] + 1)
    log_factorial = special.gammaln(powers + 1)
    log_moment = powers * (powers - 1) / (2 * noise**2)
    scale = powers * math.log(steps)
    series = power(log_moment - log_factorial - scale, ran, _times)
    if ran < steps:
        rest = powers * math.log((steps - ran) / steps) - log_factorial
        series = _times(series, rest)
    size = log_moment + 2 * log_factorial + scale + 8
    rounding = 4 * _UNIT * (2 + math.log2(ran)) * size
    moments = series + log_factorial + rounding
    return moments[2:] / (at - 1)


def add(noise: float, steps: int, ran: int, at: Array) -> Array:
    """R_a(Q || P) for integer orders; inf where the integral leaves its window."""
    log_u = np.arange(_FROM, _TO, _WIDTH)
    log_w = lognormal.log_laplace(log_u - math.log(steps), noise)
    log_a = ran * log_w - np.exp(log_u) * (steps - ran) / steps
    found = [_negative_moment(log_u, log_a, order) for order in at - 1]
    return np.array(found) / (at - 1)


def _negative_moment(log_u: Array, log_a: Array, power: float) -> float:
    """log E[A^-power], with what lies before the window and rounding added."""
    exponent = power * log_u + log_a
    top = float(exponent.max())
    if exponent[-1] > top - _REST:
        return math.inf
    inside = math.log(float(np.exp(exponent - top).sum()) * _WIDTH) + top
    before = power * log_u[0] - math.log(power)
    rounding = 1e-12 + 4 * _UNIT * power * float(np.abs(log_u).max())
    return float(np.logaddexp(inside, before) - special.gammaln(power)) + rounding


def _times(first: Array, second: Array) -> Array:
    """The product of two truncated series, by logarithms of their coefficients."""
    size = len(first)
    padded = np.concatenate([np.full(size - 1, -np.inf), second])
    shifted = np.lib.stride_tricks.sliding_window_view(padded, size)[:, ::-1]
    terms = first + shifted
    top = terms.max(axis=1, keepdims=True)
    return np.log(np.exp(terms - top).sum(axis=1)) + top[:, 0]
