r"""Epsilon and delta from cumulants of the tilted loss: a certified interval, a number.

For any t > 0, with P_t proportional to e^(tL) P,

    delta(eps) = e^(K(t) - t eps) E_t[g(L - eps)],  g(y) = e^(-ty) (1 - e^-y) for y > 0.

Certified. Every t gives valid bounds (normal.py); the best of all tried is
reported, at any delta.

Estimate. The same integral under the third-order Edgeworth density, at the saddle
K'(t) = eps + log(1 + 1/t). It is given only where, climbing from t = 0.001, every
tilted law on the way is nearly normal and changes slowly: for small sampling rates the
law flips at some t to the rare case that all are sampled, and the series fails there.

Reference: Wang, Gao, Zhang, Shen, Su, "Analytical Composition of Differential Privacy
via the Edgeworth Accountant", 2022, arXiv:2206.04236 (untilted); Alghamdi et al., "The
Saddle-Point Method in Differential Privacy", 2022, arXiv:2208.09595.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.polynomial.hermite_e import hermeval
from scipy import optimize

from dpkit.accountants.composition.concentration import log_peak
from dpkit.accountants.composition.normal import NormalBounds
from dpkit.accountants.composition.tilt import Cumulants
from dpkit.accountants.pairs.arrays import Array, gauss_legendre

At = Callable[[float], Cumulants | None]

_NODES = 160
_FIRST, _RATIO, _LAST = 1e-3, 1.35, 1e6
_LARGEST_RATIO = 0.25 / 0.56  # Lyapunov's, of a tilted law that is nearly normal


class Search(NamedTuple):
    """Every tilt tried, and the saddle of the estimate if one is accepted."""

    tilts: list[Cumulants]
    root: Cumulants | None


def epsilon(at: At, log_delta: float) -> tuple[float, float | None, float]:
    """Lower bound, estimate or None, and upper bound on epsilon in one direction.

    `at` gives the loss under P_t; delta is less the mass of infinite loss. The upper
    bound is inf where no tilt could be tried.

    Example:
      >>> def normal(t):
      ...     square = t * (t + 1) / 2
      ...     return Cumulants(tilt=t, log_moment=square, mean=t + 0.5, variance=1.0)
      >>> [round(value, 3) for value in epsilon(normal, math.log(1e-5))]
      [4.377, 4.377, 4.377]
    """

    def rest(tilt: Cumulants) -> float:
        return _log_estimate(tilt, _saddle(tilt)) - log_delta

    def going_on(tilt: Cumulants) -> bool:
        """Whether its Rényi bound on delta is still too large."""
        t = tilt.tilt
        return tilt.log_moment - t * _saddle(tilt) + float(log_peak(t)) > log_delta

    found = _search(at, rest, going_on)
    if not found.tilts:
        return 0.0, None, math.inf
    tilts, uppers = _refined(at, found, lambda near: near.epsilon_upper(log_delta))
    upper = float(np.min(uppers))
    if upper == 0:
        return 0.0, 0.0, 0.0
    estimate = None if found.root is None else _saddle(found.root)
    if estimate is not None and estimate <= 0:
        estimate = None
    lower = tilts.epsilon_lower(log_delta, upper)
    return min(lower, upper), estimate, upper


def log_delta(at: At, epsilon: float) -> tuple[float, float | None, float]:
    """Lower bound, estimate or None, and upper bound on log delta in one direction.

    `at` gives the loss under P_t; infinite loss is not in the answers.

    Example:
      >>> def normal(t):
      ...     square = t * (t + 1) / 2
      ...     return Cumulants(tilt=t, log_moment=square, mean=t + 0.5, variance=1.0)
      >>> [round(math.exp(x), 6) for x in log_delta(normal, 0.0)]
      [0.382925, 0.382925, 0.382925]
    """

    def rest(tilt: Cumulants) -> float:
        return epsilon - _saddle(tilt)

    found = _search(at, rest, lambda tilt: rest(tilt) > 0)
    if not found.tilts:
        return -math.inf, None, 0.0
    tilts, highs = _refined(at, found, lambda near: near.log_deltas(epsilon)[1])
    lows, _ = tilts.log_deltas(epsilon)
    value = math.nan if found.root is None else _log_estimate(found.root, epsilon)
    estimate = None if math.isnan(value) else value
    return float(np.max(lows)), estimate, min(float(np.min(highs)), 0.0)


def _search(
    at: At, rest: Callable[[Cumulants], float], going_on: Callable[[Cumulants], bool]
) -> Search:
    """Climb until `going_on` ends, and find where the falling `rest` crosses 0.

    The root counts only if every step up to it, and its own end, is steady.
    """
    tilts: list[Cumulants] = []
    steady, root, before = True, None, math.nan
    t = _FIRST
    while t <= _LAST and (tilt := at(t)) is not None:
        steady = steady and _steady(tilts[-1] if tilts else None, tilt)
        tilts.append(tilt)
        now = rest(tilt) if steady and root is None else math.nan
        if before > 0 >= now > -math.inf:
            tried, root = _solved(at, rest, t / _RATIO, t)
            tilts += tried
            steady = False
        if not going_on(tilt):
            break
        before, t = now, t * _RATIO
    return Search(tilts, root)


def _steady(before: Cumulants | None, tilt: Cumulants) -> bool:
    """Whether a tilted law is nearly normal, and not far from the one before."""
    if tilt.ratio > _LARGEST_RATIO:
        return False
    if before is None:
        return True
    old, new = math.sqrt(before.variance), math.sqrt(tilt.variance)
    moved = abs(tilt.mean - before.mean)
    return moved < 6 * min(old, new) and max(old, new) < 3 * min(old, new)


def _solved(
    at: At, rest: Callable[[Cumulants], float], low: float, high: float
) -> tuple[list[Cumulants], Cumulants | None]:
    """All tilts tried on the way to the root of `rest`, and the root if it is one."""
    tried: dict[float, Cumulants] = {}

    def value(log_t: float) -> float:
        tilt = at(math.exp(log_t))
        if tilt is None:
            return -1e300
        tried[log_t] = tilt
        found = rest(tilt)
        return found if found > -1e300 else -1e300  # also where there is no number

    ends = math.log(low), math.log(high)
    if not value(ends[0]) > 0 >= value(ends[1]):
        return list(tried.values()), None
    where: Any = optimize.brentq(value, *ends, xtol=1e-12)
    settled = abs(value(float(where))) <= 1e-6
    root = tried[float(where)] if settled else None
    if root is not None and root.ratio > _LARGEST_RATIO:
        root = None
    return list(tried.values()), root


def _refined(
    at: At, found: Search, score: Callable[[NormalBounds], Array]
) -> tuple[NormalBounds, Array]:
    """The bounds and uppers of all tilts, and without a root of more near the best."""
    tilts, uppers = list(found.tilts), score(NormalBounds(found.tilts))
    for power in () if found.root else (1.0, 0.25, 0.0625):
        best, reach = tilts[int(np.argmin(uppers))].tilt, _RATIO**power
        near = best * np.geomspace(1 / reach, reach, 9)
        more = [tilt for t in near if (tilt := at(float(t))) is not None]
        uppers = np.append(uppers, score(NormalBounds(more)))
        tilts += more
    return NormalBounds(tilts), uppers


def _saddle(tilt: Cumulants) -> float:
    """The epsilon whose Rényi bound is smallest at this t."""
    return tilt.mean - math.log1p(1 / tilt.tilt)


def _log_estimate(tilt: Cumulants, epsilon: float) -> float:
    """log of delta under the third-order Edgeworth density; nan if it is negative."""
    if tilt.variance < 1e-100:  # its fifth power is no float
        return math.nan
    v = math.sqrt(tilt.variance)
    far = min(40 / tilt.tilt, max(tilt.mean - epsilon, 0.0) + 14 * v)
    nodes, weights = gauss_legendre(_NODES)
    y = 0.5 * far * (nodes + 1)
    z = (y + epsilon - tilt.mean) / v
    density = hermeval(z, _coefficients(tilt)) * np.exp(-0.5 * z * z)
    values = np.exp(-tilt.tilt * y) * -np.expm1(-y) * density
    total = 0.5 * far / (v * math.sqrt(2 * math.pi)) * float(weights @ values)
    if not total > 0:
        return math.nan
    return tilt.log_moment - tilt.tilt * epsilon + math.log(total)


def _coefficients(tilt: Cumulants) -> list[float]:
    """Of He_0, He_1, ... in the third-order Edgeworth density over the normal one."""
    v = math.sqrt(tilt.variance)
    r3, r4, r5 = (tilt.higher[i] / v ** (i + 3) for i in range(3))
    he = [1.0, 0.0, 0.0, r3 / 6, r4 / 24, r5 / 120, r3**2 / 72, r3 * r4 / 144]
    return [*he, 0.0, r3**3 / 1296]
