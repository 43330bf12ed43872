r"""Certified bounds on epsilon and delta from tilted losses that are nearly normal.

With P_t proportional to e^(tL) P and K(t) = log E_P[e^(tL)],

    delta(eps) = e^(K(t) - t eps) E_t[g(L - eps)],  g(y) = e^(-ty) (1 - e^-y) for y > 0.

g rises from 0 to G = (t / (1 + t))^t / (1 + t) and falls to 0 again, so its total
variation is 2 G. If the distribution function of L under P_t is nowhere farther than D
from the normal one, delta(eps) is within 2 D e^(K - t eps) G of the value for the
normal law, and always at most e^(K - t eps) G, which is the Rényi bound.

What quadrature and rounding can do to K, the mean and the variance enters D and a slack
on K (`Cumulants`); these allowances are argued and tested, not proven.
"""

import math
from typing import Any

import numpy as np
from scipy import special

from dpkit.accountants.composition.concentration import log_peak
from dpkit.accountants.composition.tilt import Cumulants
from dpkit.accountants.pairs.arrays import Array

_ROUNDING = 4e-15
_STEPS = 16
_LOG_ROOT = 0.5 * math.log(2 * math.pi)


class NormalBounds:
    """Certified bounds from several tilts at once."""

    def __init__(self, tilts: list[Cumulants]):
        usable = [tilt for tilt in tilts if tilt.tilt > 0]
        self._t = np.array([tilt.tilt for tilt in usable])
        self._k = np.array([tilt.log_moment for tilt in usable])
        self._m = np.array([tilt.mean for tilt in usable])
        self._v = np.sqrt([tilt.variance for tilt in usable]).clip(1e-100)
        self._distance = np.array([tilt.distance for tilt in usable])
        self._slack = np.array([tilt.slack for tilt in usable]) + 1e-13
        self._peak = log_peak(self._t)

    def log_deltas(self, epsilon: Any) -> tuple[Array, Array]:
        """Lower and upper bound on log delta, by each tilt; one epsilon for each."""
        share, rounding = self._shares(epsilon)
        fall = np.minimum(self._t * epsilon, 1e290)
        renyi = self._k - fall + self._peak
        slack = self._slack + 1e-15 * (np.abs(self._k) + np.abs(fall))
        width = 2 * self._distance + rounding
        with np.errstate(divide="ignore"):
            low = np.log(np.maximum(share - width, 0.0)) + renyi - slack
            high = np.log(np.minimum(share + width, 1.0)) + renyi + slack
        return low, high

    def epsilon_upper(self, log_delta: float) -> Array:
        """Where each tilt's upper bound reaches delta: it falls with epsilon.

        False position, halving the weight of an end that stays twice; the upper end
        always fits, so it is a bound however far the search has come.
        """
        slack = self._slack + 1e-15 * np.abs(self._k)
        highest = (self._k + self._peak + slack - log_delta) / self._t
        low, high = np.zeros_like(highest), np.maximum(highest * (1 + 1e-12), 0.0)
        over = np.maximum(self.log_deltas(low)[1] - log_delta, 0.0)
        under = (self.log_deltas(high)[1] - log_delta).clip(-1e3, -1e-300)
        high, before = np.where(over <= 0, 0.0, high), np.full(low.shape, 2)
        for _ in range(_STEPS):
            share = under / np.minimum(under - over, -1e-300)
            middle = high - (high - low) * share
            excess = self.log_deltas(middle)[1] - log_delta
            fits = excess <= 0
            low, high = np.where(fits, low, middle), np.where(fits, middle, high)
            halves = np.where(fits == before, 0.5, 1.0)
            over = np.where(fits, halves * over, excess)
            under = np.where(fits, excess.clip(-1e3, -1e-300), halves * under)
            before = fits
        return high

    def epsilon_lower(self, log_delta: float, upper: float) -> float:
        """The largest epsilon found at which some tilt's lower bound exceeds delta."""
        low, high = np.zeros_like(self._t), np.full_like(self._t, upper)
        for _ in range(_STEPS):
            middle = 0.5 * (low + high)
            above = self.log_deltas(middle)[0] > log_delta
            low, high = np.where(above, middle, low), np.where(above, high, middle)
        return float(np.max(low))

    def _shares(self, epsilon: Any) -> tuple[Array, Array]:
        """The normal law's E[g] as a share of max g, and its rounding.

        It is phi(b) (R(b + tv) - R(b + (t+1)v)) with b = (eps - m) / v and the ratio
        R(x) = Phi(-x) / phi(x).
        """
        b = ((epsilon - self._m) / self._v).clip(-1e150, 1e150)
        near, far = b + self._t * self._v, b + (self._t + 1) * self._v
        first, second = _log_ratio(near), _log_ratio(far)
        whole = np.exp(np.minimum(first - 0.5 * b * b - _LOG_ROOT - self._peak, 700.0))
        share = whole * -np.expm1(np.minimum(second - first, 0.0))
        square = b * b + np.minimum(near, 0.0) ** 2 + np.minimum(far, 0.0) ** 2
        return share, _ROUNDING * (4 + square) * whole


def _log_ratio(x: Array) -> Array:
    """log of Phi(-x) / phi(x)."""
    ahead = np.log(special.erfcx(np.maximum(x, 0.0) / math.sqrt(2)))
    ahead += 0.5 * math.log(math.pi / 2)
    behind = special.log_ndtr(-np.minimum(x, 0.0)) + 0.5 * np.minimum(x, 0.0) ** 2
    return np.where(x >= 0, ahead, behind + _LOG_ROOT)
