r"""Rényi divergences of single pairs of distributions, at any real order above 1.

With the likelihood ratio w = dP/dQ and l = log w, the divergence of order a is
R_a(P || Q) = log E_Q[w^a] / (a - 1). Since E_Q[w] = 1,

    E_Q[w^s] - 1 = E_Q[expm1(s l) - s expm1(l)],

a mean of non-negative terms, so that a tiny divergence keeps its relative precision
(q = 1e-9 is no zero). s = a gives R_a(P || Q); s = 1 - a gives R_a(Q || P). A small
relative pad covers quadrature and rounding, so that each value is an upper bound.
"""

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

Array = NDArray[Any]

_PAD = 1 + 1e-10
_MAX_POINTS = 60_000
_MAX_STEEPNESS = 300.0


def gaussian(orders: Array, noise_multiplier: float) -> Array:
    """N(1, s^2) against N(0, s^2): a / (2 s^2)."""
    return orders / (2 * noise_multiplier**2) * _PAD


def mixture(
    orders: Array,
    noise_multiplier: float,
    shifts: Array,
    probabilities: Array,
    *,
    add: bool = False,
) -> Array:
    """sum_i p_i N(c_i, s^2) against N(0, s^2), or the other way round with `add`.

    Trapezoid rule, spectrally exact: the integrand is analytic in a strip of half-width
    pi s^2 / (2 max c), and the step is an eighth of s or a sixteenth of that strip's
    scale. Orders whose tilted mass needs too long a grid come out as inf.
    """
    kept = probabilities > 0
    shifts, probabilities = shifts[kept], probabilities[kept]
    step = min(
        noise_multiplier / 8, noise_multiplier**2 / (4 * max(shifts.max(), 1e-9))
    )
    args = (noise_multiplier, shifts, np.log(probabilities), step, add)
    return np.array([_mixture_at(order, *args) for order in orders])


def _mixture_at(
    order: float, sd: float, shifts: Array, log_p: Array, step: float, add: bool
) -> float:
    """`mixture` at one order."""
    top = float(shifts.max())
    low, high = -12.0 * sd, order * top + 12.0 * sd
    if add:
        low, high = low - _add_reach(order - 1, sd, shifts, log_p), 12.0 * sd
    if (high - low) / step > _MAX_POINTS:
        return float("inf")
    x = np.arange(low, high + step, step)
    if len(shifts) == 2 and shifts.min() == 0:
        exponent = top * (2 * x - top) / (2 * sd**2)
        loss = sampled_loss(exponent, float(np.exp(log_p[np.argmax(shifts)])))
    else:
        exponents = np.outer(2 * x, shifts) - shifts**2
        loss = special.logsumexp(exponents / (2 * sd**2) + log_p, axis=1)
    log_density = -0.5 * (x / sd) ** 2 + np.log(step / (sd * np.sqrt(2 * np.pi)))
    power = 1 - order if add else order
    return log_moment(loss, log_density, power) / (order - 1) * _PAD


def replaced(orders: Array, noise_multiplier: float, rate: float) -> Array:
    """(1-q) N(0) + q N(1) against (1-q) N(0) + q N(-1): equal both ways.

    By the same quadrature as `mixture`; the mass of P^a Q^(1-a) lies between -1 and a.
    """
    sd = noise_multiplier
    step = min(sd / 8, sd**2 / 4)
    return np.array([_replaced_at(order, sd, rate, step) for order in orders])


def _replaced_at(order: float, sd: float, rate: float, step: float) -> float:
    """`replaced` at one order."""
    low, high = -1 - 12.0 * sd, order + 12.0 * sd
    if (high - low) / step > _MAX_POINTS:
        return float("inf")
    x = np.arange(low, high + step, step)
    ahead = sampled_loss((2 * x - 1) / (2 * sd**2), rate)
    behind = sampled_loss((-2 * x - 1) / (2 * sd**2), rate)
    log_density = -0.5 * (x / sd) ** 2 + np.log(step / (sd * np.sqrt(2 * np.pi)))
    return log_moment(ahead - behind, log_density + behind, order) / (order - 1) * _PAD


def sampled_loss(exponent: Array, rate: float | Array) -> Array:
    """log(1 - q + q e^z), precise where it is near 0 and finite where e^z is not."""
    small, large = np.minimum(exponent, 30.0), np.maximum(exponent, 30.0)
    far = large + np.log(rate) + np.log1p((1 - rate) / rate * np.exp(-large))
    with np.errstate(divide="ignore"):
        near = np.log1p(rate * np.expm1(small))
    return np.where(rate == 1, exponent, np.where(exponent < 30.0, near, far))


def _add_reach(t: float, sd: float, shifts: Array, log_p: Array) -> float:
    """How far below 0 the mass of N(0) w^(-t) moves: the root of x = -t m(x)."""
    low, high = -t * float(shifts.max()), 0.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        weights = log_p + shifts * (2 * middle - shifts) / (2 * sd**2)
        mean_shift = float(special.softmax(weights) @ shifts)
        if middle + t * mean_shift > 0:
            high = middle
        else:
            low = middle
    return -low


def laplace(orders: Array, scale: float) -> Array:
    """Lap(1, b) against Lap(0, b) (Mironov 2017, arXiv:1702.07476, Proposition 6)."""
    width = 1 / scale
    inner = (orders - 1) / (2 * orders - 1) * np.expm1((1 - 2 * orders) * width)
    value = width + np.log1p(inner) / (orders - 1)
    return np.maximum(value, 0.0) * _PAD + width * 4e-16 / (orders - 1)


def poisson_laplace(orders: Array, scale: float, rate: float) -> Array:
    """(1-q) Lap(0) + q Lap(1) against Lap(0), the worse of both directions.

    Outside [0, 1] the ratio is constant; inside, Gauss-Legendre. Where that is too
    steep the pure bound log(1 + q (e^(1/b) - 1)) stands in.
    """
    width = 1 / scale
    nodes, weights = _quadrature()
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
    return values * _PAD + np.where(loss.any(), pad, 0.0)


def _whole(p: Array) -> bool:
    """Whether probabilities sum to 1 but for rounding."""
    return bool(abs(p.sum() - 1) <= 4e-16 * (len(p) + 4))


def two_point(orders: Array, epsilon: float) -> Array:
    """Losses +eps and -eps: what any pure release is dominated by."""
    if epsilon == 0:
        return np.zeros(orders.shape)
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
    if epsilon == 0:
        return np.zeros(orders.shape)
    worst = np.array([_worst_split(order, epsilon) for order in orders])
    cap = np.minimum(orders * epsilon**2 / 8, epsilon)
    return np.minimum(worst * (1 + 1e-9), cap)


def _worst_split(order: float, epsilon: float) -> float:
    """The largest divergence over t; flat there, so a rounded t costs nothing."""
    rest = np.log(-np.expm1(-order * epsilon)) - np.log(
        -np.expm1((1 - order) * epsilon)
    )
    t = np.array([epsilon + np.log1p(-1 / order) + rest]).clip(0.0, epsilon)
    return float(_split_moment(order, epsilon, t)[0]) / (order - 1)


def _split_moment(order: float, epsilon: float, t: Array) -> Array:
    """log E_Q[w^order] for each split t."""
    denominator = -np.expm1(-epsilon)
    with np.errstate(divide="ignore"):
        upper = -t + np.log(-np.expm1(t - epsilon) / denominator)
        lower = np.log(-np.expm1(-t) / denominator)
    losses = np.stack([t, t - epsilon])
    return log_moment(losses, np.stack([upper, lower]), order, axis=0)


def log_moment(
    loss: Array, log_weights: Array, power: float, axis: int | None = None
) -> Any:
    """log E[e^(power * loss)] for losses with E[e^loss] = 1 under the weights."""
    size = max(abs(power), 1.0) * np.abs(loss)
    if np.max(size) > 600:
        exponent = power * loss + log_weights
        top = exponent.max(axis=axis)
        return top + np.log(np.exp(exponent - top).sum(axis=axis)) + 1e-13
    excess = np.exp(log_weights) * _excess(loss, power, size < 1e-2)
    return np.log1p(np.maximum(excess.sum(axis=axis), 0.0))


def _excess(loss: Array, power: float, tiny: NDArray[np.bool_]) -> Array:
    """expm1(s l) - s expm1(l), by its series where the two terms nearly cancel."""
    excess = np.expm1(power * loss) - power * np.expm1(loss)
    term = small = loss[tiny]
    series = np.zeros_like(small)
    for k in range(2, 8):
        term = term * small / k
        series += (power**k - power) * term
    excess[tiny] = series
    return excess


@functools.cache
def _quadrature() -> tuple[Array, Array]:
    """Nodes and weights of Gauss and Legendre; slow to make, so not on import."""
    return np.polynomial.legendre.leggauss(400)
