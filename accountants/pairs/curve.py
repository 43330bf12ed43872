r"""Rényi divergences of single pairs of distributions, at any real order above 1.

With the likelihood ratio w = dP/dQ and l = log w, the divergence of order a is
R_a(P || Q) = log E_Q[w^a] / (a - 1). Since E_Q[w] = 1,

    E_Q[w^s] - 1 = E_Q[expm1(s l) - s expm1(l)],

a mean of non-negative terms, so that a tiny divergence keeps its relative precision
(q = 1e-9 is no zero). s = a gives R_a(P || Q); s = 1 - a gives R_a(Q || P). A small
relative pad covers quadrature and rounding, so that each value is an upper bound. What
is smaller than a float can hold comes out as a floor, not as 0: only a release that
shows nothing (`trivial`) has no divergence.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dpkit.accountants.pairs.arrays import Array, gauss_legendre
from dpkit.accountants.pairs.finite import rounding
from dpkit.accountants.pairs.points import OutOfReach, Points, sampled_loss

Curve = Callable[[Array], Array]

FLOOR = 1e-300  # of (order - 1) times a divergence that is not 0

_PAD = 1 + 1e-10
_POINTS_PAD = 1 + 2e-10
_MAX_POINTS = 60_000
_MAX_STEEPNESS = 300.0
_NODES = 400
_REMEMBERED = 256
_LEAST_ORDER = 1.001  # nearer to 1 differences round away; divergences grow with it


@dataclasses.dataclass(frozen=True)
class Table:
    """Values at some orders, read by chords of (a - 1) rho(a), which is convex.

    That function is 0 at a = 1, so chords start there; above the last order the answer
    is inf. Orders whose value is inf are left out.

    Example:
      >>> Table(np.array([2.0, 4.0]), np.array([0.1, 0.2]))(np.array([3.0, 5.0]))
      array([0.175,   inf])
    """

    orders: Array
    values: Array

    def __call__(self, orders: Array) -> Array:
        """The chord values at `orders`."""
        kept = np.isfinite(self.values)
        if not kept.any():
            return np.full(orders.shape, np.inf)
        knots = np.concatenate([[1.0], self.orders[kept]])
        heights = np.concatenate([[0.0], (self.orders[kept] - 1) * self.values[kept]])
        chords = np.interp(orders, knots, heights, right=np.inf)
        return chords / (orders - 1) * (1 + 1e-12)


class Remembered:
    """A curve that keeps its answers: many questions ask for the same orders.

    Args:
      curve: the curve.
      trivial: whether it may be 0.
    """

    def __init__(self, curve: Curve, trivial: bool):
        self._curve = curve
        self._floor = 0.0 if trivial else FLOOR
        self._known: dict[bytes, Array] = {}

    def __call__(self, orders: Array) -> Array:
        """The curve's values, none below the floor."""
        orders = np.maximum(orders, _LEAST_ORDER)
        key = orders.tobytes()
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            found = np.maximum(self._curve(orders), self._floor / (orders - 1))
            # A value that is no number claims nothing: compared, it would look like 0.
            self._known[key] = found = np.where(np.isnan(found), np.inf, found)
        return found


class OfPoints:
    """The curve of a pair that is read at points; inf where it needs too many.

    Args:
      points: of the pair.
      symmetric: whether both directions are equal; otherwise the worse counts.
    """

    def __init__(self, points: Points, *, symmetric: bool = False):
        self._points = functools.lru_cache(maxsize=2)(points)
        self._symmetric = symmetric

    def __call__(self, orders: Array) -> Array:
        """The values at `orders`, by points that serve up to a power of two."""
        return np.array([self._at(float(order)) for order in orders])

    def _at(self, order: float) -> float:
        """The value at one order."""
        try:
            loss, log_mass = self._points(2.0 ** math.ceil(math.log2(order)))
        except OutOfReach:
            return math.inf
        powers = (order,) if self._symmetric else (order, 1 - order)
        moments = [log_moment(loss, log_mass, power) for power in powers]
        return max(moments) / (order - 1) * _POINTS_PAD


def sum_of(terms: list[tuple[Curve, int]]) -> Curve:
    """The weighted sum of curves, raised by what adding them may lose."""
    alone = [count for _, count in terms] == [1]
    pad = 1.0 if alone else 1 + (len(terms) + 3) * 2.0**-52

    @np.errstate(over="ignore")  # inf is right there
    def total(orders: Array) -> Array:
        values = np.zeros(orders.shape)
        for curve, count in terms:
            values = values + float(count) * curve(orders)
        return values * pad

    return total


def knots_of(terms: list[tuple[Curve, int]]) -> Array:
    """The orders of all tables among some curves."""
    tables = [curve.orders for curve, _ in terms if isinstance(curve, Table)]
    return np.unique(np.concatenate(tables)) if tables else np.empty(0)


def smaller(first: Curve, second: Curve) -> Curve:
    """Of two valid curves, what each order does better with."""
    return lambda orders: np.minimum(first(orders), second(orders))


def gaussian(orders: Array, noise_multiplier: float) -> Array:
    """N(1, s^2) against N(0, s^2): a / (2 s^2)."""
    return orders / (2 * noise_multiplier**2) * _PAD


def sampled_gaussian(orders: Array, noise: float, rate: float) -> Array:
    """(1-q) N(0, s^2) + q N(1, s^2) against N(0, s^2).

    Trapezoid rule, spectrally exact: the integrand is analytic in a strip of half-width
    pi s^2 / 2, and the step is an eighth of s or a sixteenth of that strip's scale.
    Orders whose tilted mass needs too long a grid come out as inf.
    """
    step = min(noise / 8, noise**2 / 4)
    return np.array([_sampled_at(order, noise, rate, step) for order in orders])


def _sampled_at(order: float, sd: float, rate: float, step: float) -> float:
    """`sampled_gaussian` at one order."""
    low, high = -12.0 * sd, order + 12.0 * sd
    if (high - low) / step > _MAX_POINTS:
        return math.inf
    x = np.arange(low, high + step, step)
    loss = sampled_loss((2 * x - 1) / (2 * sd**2), rate)
    log_density = -0.5 * (x / sd) ** 2 + np.log(step / (sd * np.sqrt(2 * np.pi)))
    return log_moment(loss, log_density, order) / (order - 1) * _PAD


def laplace(orders: Array, scale: float) -> Array:
    """Lap(1, b) against Lap(0, b) (Mironov 2017, arXiv:1702.07476, Proposition 6)."""
    width = 1 / scale
    inner = (orders - 1) / (2 * orders - 1) * np.expm1((1 - 2 * orders) * width)
    value = width + np.log1p(inner) / (orders - 1) + width * 2e-15
    # Where rounding takes more, any release of that pure epsilon is as good.
    return np.minimum(value, orders * width**2 / 2) * _PAD


def poisson_laplace(orders: Array, scale: float, rate: float) -> Array:
    """(1-q) Lap(0) + q Lap(1) against Lap(0), the worse of both directions.

    Outside [0, 1] the ratio is constant; inside, Gauss-Legendre. Where that is too
    steep the pure bound log(1 + q (e^(1/b) - 1)) stands in.
    """
    width = 1 / scale
    nodes, weights = gauss_legendre(_NODES)
    x = 0.5 * (nodes + 1)
    ratio = np.concatenate([[-width, width], width * (2 * x - 1)])
    inside = np.log(0.5 * weights) + np.log(width / 2) - width * x
    log_weights = np.concatenate([[np.log(0.5), np.log(0.5) - width], inside])
    loss = sampled_loss(ratio, rate)
    pure = float(loss[1])
    values = [
        pure
        if order * width > _MAX_STEEPNESS
        else min(pure, _worse_moment(loss, log_weights, order))
        for order in orders
    ]
    return np.array(values) * _PAD


def _worse_moment(loss: Array, log_weights: Array, order: float) -> float:
    """The larger of R_a(P || Q) and R_a(Q || P), from losses weighted by Q."""
    powers = (order, 1 - order)
    return max(log_moment(loss, log_weights, s) for s in powers) / (order - 1)


def finite(orders: Array, p: Array, q: Array) -> Array:
    """Two distributions on a finite support, the worse of both directions."""
    p, q = p[(p > 0) | (q > 0)], q[(p > 0) | (q > 0)]
    if np.any(p == 0) or np.any(q == 0) or not (_whole(p) and _whole(q)):
        return np.full(orders.shape, np.inf)
    loss, log_q = np.log(p) - np.log(q), np.log(q)
    pad = 1e-15 * len(p) * orders / (orders - 1)
    values = np.array([_worse_moment(loss, log_q, order) for order in orders])
    return values * _PAD + np.where(np.any(p != q), pad, 0.0)


def _whole(p: Array) -> bool:
    """Whether probabilities sum to 1 but for rounding."""
    return abs(math.fsum(p) - 1) <= rounding(len(p))


def two_point(orders: Array, epsilon: float) -> Array:
    """Losses +eps and -eps: what any pure release is dominated by."""
    if epsilon == 0 or epsilon > 1e150:
        return np.full(orders.shape, epsilon)
    log_p = -np.log1p(np.exp(-epsilon))
    loss, log_q = np.array([epsilon, -epsilon]), np.array([log_p - epsilon, log_p])
    values = [log_moment(loss, log_q, order) / (order - 1) for order in orders]
    return np.minimum(np.array(values) * _PAD, epsilon)


def bounded_range(orders: Array, epsilon: float) -> Array:
    r"""The worst two-point pair with losses t and t - eps, over t in [0, eps].

    Q puts (e^-t - e^-eps) / (1 - e^-eps) on loss t. E_Q[w^a] is largest where

        e^t = (1 - 1/a) (1 - e^(-a eps)) / (e^-eps - e^(-a eps)).

    Capped by a eps^2 / 8 and by eps, which are proven bounds themselves.

    Reference: Dong, Durfee, Rogers 2020, arXiv:1909.13830.
    """
    if epsilon < 1e-150:
        return np.full(orders.shape, epsilon)
    cap = np.minimum(orders * epsilon**2 / 8 * _PAD, epsilon)
    if epsilon < 1e-8:
        return cap  # t is rounded to more than its own size
    worst = np.array([_worst_split(order, epsilon) for order in orders])
    return np.minimum(worst * (1 + 1e-9), cap)


def _worst_split(order: float, epsilon: float) -> float:
    """The largest divergence over t; flat there, so a rounded t costs nothing."""
    rest = np.log(-np.expm1(-order * epsilon))
    rest -= np.log(-np.expm1((1 - order) * epsilon))
    t = np.array([epsilon + np.log1p(-1 / order) + rest]).clip(0.0, epsilon)
    denominator = -np.expm1(-epsilon)
    with np.errstate(divide="ignore"):
        upper = -t + np.log(-np.expm1(t - epsilon) / denominator)
        lower = np.log(-np.expm1(-t) / denominator)
    losses, log_weights = np.append(t, t - epsilon), np.append(upper, lower)
    return float(log_moment(losses, log_weights, order)) / (order - 1)


def log_moment(loss: Array, log_weights: Array, power: float) -> Any:
    """log E[e^(power * loss)] for losses with E[e^loss] = 1 under the weights."""
    size = max(abs(power), 1.0) * np.abs(loss)
    if np.max(size) > 600:
        exponent = power * loss + log_weights
        top = exponent.max()
        return top + np.log(np.exp(exponent - top).sum()) + 1e-13
    excess = np.exp(log_weights) * _excess(loss, power, size < 1e-2)
    return np.log1p(np.maximum(excess.sum(), 0.0))


def _excess(loss: Array, power: float, tiny: Array) -> Array:
    """expm1(s l) - s expm1(l), by its series where the two terms nearly cancel."""
    excess = np.expm1(power * loss) - power * np.expm1(loss)
    term = small = loss[tiny]
    series = np.zeros_like(small)
    for k in range(2, 8):
        term = term * small / k
        series += (power**k - power) * term
    excess[tiny] = series
    return excess
