r"""The pairs of noise on real numbers: Gaussian and Laplace, sampled or not.

Each formula rounds, so each value of a profile is raised by what its logarithms and
differences can have lost: a relative 4e-15, times the size of the logarithms.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy import special, stats

from dpkit.accountants.pairs.arrays import Array
from dpkit.accountants.pairs.profiles import EVERYTHING, NOTHING, Profile, Side

_PAD = 4e-15


def gaussian(noise: float) -> Profile:
    """N(1, s^2) against N(0, s^2)."""
    side = _gaussian_side(1 / noise)
    return Profile(side, side)


def laplace(scale: float) -> Profile:
    """Lap(1, b) against Lap(0, b)."""
    side = _laplace_side(1 / scale)
    return Profile(side, side, lattice=1 / scale)


def poisson_gaussian(noise: float, rate: float) -> Profile:
    """(1-q) N(0) + q N(1) against N(0)."""
    return _sampled(_gaussian_side(1 / noise), rate)


def poisson_laplace(scale: float, rate: float) -> Profile:
    """(1-q) Lap(0) + q Lap(1) against Lap(0)."""
    return _sampled(_laplace_side(1 / scale), rate)


def poisson_gaussian_replaced(noise: float, rate: float) -> Profile:
    """(1-q) N(0) + q N(1) against (1-q) N(0) + q N(-1); for q = 1 a shift of 2.

    The loss grows with x: L > e is x > r, where with v = e^(r / s^2)
    q v e^(-1/2s^2) - (e^e - 1)(1-q) - e^e q e^(-1/2s^2) / v = 0.
    """
    if rate == 1:
        return gaussian(noise / 2)

    def threshold(e: Array) -> tuple[Array, Array]:
        log_side = math.log(2 * rate) - 0.5 / noise**2
        with np.errstate(divide="ignore"):
            log_gap = math.log1p(-rate) + _log_expm1(e)
        root = 0.5 * np.logaddexp(2 * log_gap, e + 2 * log_side)
        return noise**2 * (np.logaddexp(log_gap, root) - log_side), log_gap

    def above(e: Array) -> Array:
        x, log_gap = threshold(e)
        log_near = special.log_ndtr((1 - x) / noise)
        near = rate * np.exp(log_near)
        far = rate * np.exp(e + special.log_ndtr(-(1 + x) / noise))
        rest = np.exp(log_gap + special.log_ndtr(-x / noise))
        return _difference(near, far + rest, 1 + np.abs(log_near) + e)

    def tails(e: Array) -> tuple[Array, Array]:
        x, _ = threshold(e)
        still = (1 - rate) * special.ndtr(-x / noise)
        near, far = special.ndtr((1 - x) / noise), special.ndtr(-(1 + x) / noise)
        return still + rate * near, still + rate * far

    side = Side(above, tails)
    return Profile(side, side)


def without_replacement(noise: float, rate: float) -> Profile:
    r"""A batch of fixed size, one record replaced; `noise` is the replaced sum's.

    D(e) = g D_b(log(1 + (e^e - 1) / g)) by advanced joint convexity (Balle, Barthe,
    Gaboardi 2018, arXiv:1807.01647), symmetric, and itself the profile of a pair. The
    pair need not be attained, so nothing is bounded from below.
    """
    base = _gaussian_side(1 / noise)
    side = Side(lambda e: rate * base(_widened(e, rate)))
    return Profile(side, side)


def truncated_poisson_gaussian(
    noise_multiplier: float,
    sampling_rate: float,
    *,
    dataset_size: int,
    max_batch_size: int,
    free_delta: float = 0.0,
) -> Profile:
    """Poisson sampling cut to a random subset of at most B records, N at most.

    Take a data set without the record, K of its records drawn, and S the kept ones.
    Given K < B, the record joins with probability q: the plain sampled pair. Given
    K >= B it is drawn and kept with probability q B / (K + 1) <= q, and then another is
    pushed out of S, uniformly: a shift by two radii. Profiles are jointly convex and
    grow with q and with the shift, so with over = P[Binomial(N - 1, q) >= B]
    D <= (1 - over) D_1 + over D_2, both at rate q; and over grows with N, so this holds
    for every number of records up to N. (At the rate of being kept among exactly N, as
    in the reference, smaller data sets can leak more than the formula says.)

    D_2 is the larger of the pair just described and the symmetric one of the reference.
    An overflow of probability at most `free_delta` counts as no privacy at all: as
    sound, and losses are shorter.

    Reference: Ganesh et al., "Tighter Privacy Analysis for Truncated Poisson Sampling",
    2025, arXiv:2508.15089.
    """
    noise, rate = noise_multiplier, sampling_rate
    kept = gaussian(noise) if rate == 1 else poisson_gaussian(noise, rate)
    if max_batch_size >= dataset_size:
        return kept
    over = overflow_probability(dataset_size - 1, rate, max_batch_size - 1)
    pushed = EVERYTHING if over <= free_delta else _pushed_out(noise / 2, rate)

    def mixed(plain: Side, out: Side) -> Side:
        return Side(lambda e: over * out(e) + (1 - over) * plain(e))

    forward = mixed(kept.forward, pushed.forward)
    return Profile(forward, mixed(kept.backward, pushed.backward))


def overflow_probability(dataset_size: int, rate: float, max_batch_size: int) -> float:
    """P[Binomial(N, q) > B], rounded up.

    Example:
      >>> overflow_probability(2, 0.5, 1) >= 0.25
      True
    """
    if max_batch_size >= dataset_size:
        return 0.0
    records, limit = float(dataset_size), float(max_batch_size)
    if records < dataset_size:  # a float holds no such integer: the next worse one
        records = math.nextafter(records, math.inf)
    if limit > max_batch_size:
        limit = math.nextafter(limit, 0.0)
    over = stats.binom.sf(limit, records, rate)
    return min(1.0, float(over) * (1 + 1e-9) + 1e-300)


def _pushed_out(noise: float, rate: float) -> Profile:
    """The larger of the one-sided and the symmetric sampled pair, in each direction."""
    if rate == 1:
        return gaussian(noise / 2)
    one, two = poisson_gaussian(noise, rate), poisson_gaussian_replaced(noise, rate)

    def larger(first: Side, second: Side) -> Side:
        return Side(lambda e: np.maximum(first(e), second(e)))

    return Profile(larger(one.forward, two.forward), larger(one.backward, two.backward))


def mixture_gaussian(
    noise_multiplier: float, shifts: Sequence[float], probabilities: Sequence[float]
) -> Profile:
    """sum_i p_i N(c_i) against N(0): the loss grows with x, so sets are half-lines."""
    c = np.array(shifts, dtype=float) / noise_multiplier
    p = np.array(probabilities, dtype=float)
    moves = (p > 0) & (c > 0)
    if not moves.any():
        return NOTHING
    still, c, p = float(p[~moves].sum()), c[moves], p[moves]
    moved = float(p.sum())

    def right(e: Array) -> Array:
        with np.errstate(divide="ignore"):
            return _threshold(np.logaddexp(_log_expm1(e), math.log(moved)), c, p)

    def left(e: Array) -> tuple[Array, Array]:
        # e^-e - still, from its two sides: neither may lose what the other keeps.
        with np.errstate(divide="ignore"):
            near = np.log(np.maximum(moved + np.expm1(-np.minimum(e, 1.0)), 0.0))
            far = np.log(-np.expm1(np.minimum(e + np.log(still), 0.0))) - e
        log_rest = np.where(e < 1.0, near, far)
        return _threshold(log_rest, c, p), log_rest > -np.inf

    def mixed(x: Array, sign: float) -> Array:
        """The mixture's mass above x (sign 1) or below (sign -1), as a logarithm."""
        logs = np.log(p) + special.log_ndtr(sign * (c - x[:, None]))
        total = special.logsumexp(logs, axis=1)
        with np.errstate(divide="ignore"):
            return np.logaddexp(total, np.log(still) + special.log_ndtr(-sign * x))

    def above(e: Array) -> Array:
        x = right(e)
        log_kept = mixed(x, 1.0)
        lost = np.exp(np.minimum(e + special.log_ndtr(-x), 0.0))
        return _difference(np.exp(log_kept), lost, 1 + np.abs(log_kept) + e)

    def above_backward(e: Array) -> Array:
        x, some = left(e)
        log_below = special.log_ndtr(x)
        lost = np.exp(np.minimum(e + mixed(x, -1.0), 0.0))
        gained = _difference(np.exp(log_below), lost, 1 + np.abs(log_below) + e)
        return np.where(some, gained, 0.0)

    def tails(e: Array) -> tuple[Array, Array]:
        x = right(e)
        return np.exp(mixed(x, 1.0)), special.ndtr(-x)

    def tails_backward(e: Array) -> tuple[Array, Array]:
        x, some = left(e)
        return special.ndtr(x) * some, np.exp(mixed(x, -1.0)) * some

    return Profile(Side(above, tails), Side(above_backward, tails_backward))


def _threshold(logs: Array, c: Array, p: Array) -> Array:
    """The x at which log sum_i p_i exp(c_i x - c_i^2 / 2) reaches each of `logs`.

    All shifts c_i are above 0. The sum is at least its largest term, so x is at most
    where the first of the terms gets there alone. From there Newton only comes down,
    never too far, since the logarithm of the sum is convex; it takes a few steps for
    each shift, however far apart they are. Beyond 50 deviations from every centre there
    is nothing to find.
    """
    log_p = np.log(p)
    x = ((logs[:, None] - log_p) / c + c / 2).min(axis=1)
    x = x.clip(-50.0, c.max() + 50.0)
    moving = np.arange(len(x))
    for _ in range(1000):
        here = x[moving]
        terms = log_p + c * (here[:, None] - c / 2)
        top = terms.max(axis=1)
        weights = np.exp(terms - top[:, None])
        total = weights.sum(axis=1)
        excess = np.maximum(top + np.log(total) - logs[moving], 0.0)
        lower = np.maximum(here - excess * total / (weights @ c), -50.0)
        x[moving] = lower
        moving = moving[here - lower > 1e-15 * np.maximum(1.0, np.abs(here))]
        if not len(moving):
            break
    return x


def _sampled(base: Side, rate: float) -> Profile:
    """Poisson sampling of a symmetric base pair, each direction exactly."""

    def above(e: Array) -> Array:
        return rate * base(_widened(e, rate))

    def above_backward(e: Array) -> Array:
        left = rate - (1 - rate) * np.expm1(np.minimum(e, 700.0))
        # The profile falls with e, so grows with `left`, which cancels near its zero.
        left = left + _PAD * (rate + np.minimum(e, 1.0)) * (left > -1e-3)
        inside = np.maximum(left, np.finfo(float).tiny)
        values = left * base(np.maximum(e + math.log(rate) - np.log(inside), 0.0))
        return np.where(left > 0, np.maximum(values, 0.0), 0.0)

    if base.tails is None:
        return Profile(Side(above), Side(above_backward))
    plain = base.tails

    def tails(e: Array) -> tuple[Array, Array]:
        p, q = plain(_widened(e, rate))
        return (1 - rate) * q + rate * p, q

    def tails_backward(e: Array) -> tuple[Array, Array]:
        # L < -e where the base's loss is below log(1 - (1 - e^-e) / q), if at all.
        ratio = 1 + np.expm1(-e) / rate
        p, q = plain(-np.log(np.maximum(ratio, np.finfo(float).tiny)))
        some = ratio > 0
        return p * some, ((1 - rate) * p + rate * q) * some

    return Profile(Side(above, tails), Side(above_backward, tails_backward))


def _widened(e: Array, rate: float) -> Array:
    """log(1 + (e^e - 1) / q), without overflow."""
    small, large = np.minimum(e, 30.0), np.maximum(e, 30.0)
    far = large - math.log(rate) + np.log1p((rate - 1) * np.exp(-large))
    return np.where(e < 30.0, np.log1p(np.expm1(small) / rate), far)


def _gaussian_side(shift: float) -> Side:
    """N(m, 1) against N(0, 1) (Balle & Wang 2018)."""

    def above(e: Array) -> Array:
        middle = np.minimum(e / shift, 1e150)
        first = special.log_ndtr(shift / 2 - middle)
        second = special.log_ndtr(-shift / 2 - middle)
        rounding = _PAD * (2 + e - first - second)
        share = -np.expm1(np.minimum(e + second - first, 0.0))
        return np.exp(first) * np.minimum(share + rounding, 1.0)

    def tails(e: Array) -> tuple[Array, Array]:
        return special.ndtr(shift / 2 - e / shift), special.ndtr(-shift / 2 - e / shift)

    return Side(above, tails)


def _laplace_side(width: float) -> Side:
    """Lap(w, 1) against Lap(0, 1); beyond a loss of w there is nothing."""

    def above(e: Array) -> Array:
        # What e itself rounds is a part of the gap, which is small near the end.
        gap = np.maximum(width - e, 0.0)
        rounding = _PAD * (1 + width / np.maximum(gap, np.finfo(float).tiny))
        return -np.expm1(-gap / 2) * (1 + np.minimum(rounding, 1.0))

    def tails(e: Array) -> tuple[Array, Array]:
        inside = e < width
        p = 1 - 0.5 * np.exp((np.minimum(e, width) - width) / 2)
        q = 0.5 * np.exp(-(width + e) / 2)
        return np.where(inside, p, 0.0), np.where(inside, q, 0.0)

    return Side(above, tails)


def _difference(more: Array, less: Array, size: Array) -> Array:
    """more - less, or 0, raised by what both lost; `size` is their logarithms'."""
    return np.maximum(more - less, 0.0) + 2 * _PAD * size * more


def _log_expm1(e: Array) -> Array:
    """log(e^e - 1), -inf at 0."""
    return np.where(
        e < 30.0, np.log(np.expm1(np.minimum(e, 30.0))), e + np.log1p(-np.exp(-e))
    )
