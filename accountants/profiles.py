r"""Privacy profiles: D(e) = sup_S P(S) - e^e Q(S) of one release, in both directions.

`forward` is D(P || Q), with the record against without it (or with the null record);
`backward` is D(Q || P). Both are given for e >= 0, which says everything: for e < 0,
D(P || Q)(e) = 1 - e^e + e^e D(Q || P)(-e). Under replace_one neither side comes first,
so the two are equal there.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from dpkit.accountants.finite_pairs import FinitePair

Array = NDArray[Any]
Curve = Callable[[Array], Array]


@dataclasses.dataclass(frozen=True)
class Profile:
    """The two profiles of a dominating pair.

    Attributes:
      forward: e >= 0 (increasing) -> D(P || Q)(e).
      backward: the same for D(Q || P).
      lattice: a loss with mass of its own, which should lie on the grid, if any.
      compositions: how many releases a numerical composition inside went through.
    """

    forward: Curve
    backward: Curve
    lattice: float | None = None
    compositions: int = 1

    @property
    def symmetric(self) -> bool:
        """Whether both directions are the same function."""
        return self.forward is self.backward


NOTHING = Profile(np.zeros_like, np.zeros_like)
EVERYTHING = Profile(np.ones_like, np.ones_like)


def gaussian(noise: float) -> Profile:
    """N(1, s^2) against N(0, s^2)."""
    curve = _gaussian_curve(1 / noise)
    return Profile(curve, curve)


def laplace(scale: float) -> Profile:
    """Lap(1, b) against Lap(0, b)."""
    curve = _laplace_curve(1 / scale)
    return Profile(curve, curve, lattice=1 / scale)


def poisson_gaussian(noise: float, rate: float) -> Profile:
    """(1-q) N(0) + q N(1) against N(0)."""
    return _sampled(_gaussian_curve(1 / noise), rate)


def poisson_laplace(scale: float, rate: float) -> Profile:
    """(1-q) Lap(0) + q Lap(1) against Lap(0)."""
    return _sampled(_laplace_curve(1 / scale), rate)


def poisson_gaussian_replaced(noise: float, rate: float) -> Profile:
    """(1-q) N(0) + q N(1) against (1-q) N(0) + q N(-1); for q = 1 a shift of 2."""

    if rate == 1:
        return gaussian(noise / 2)

    def curve(e: Array) -> Array:
        log_side = math.log(2 * rate) - 0.5 / noise**2
        with np.errstate(divide="ignore"):
            log_gap = math.log1p(-rate) + _log_expm1(e)
        root = 0.5 * np.logaddexp(2 * log_gap, e + 2 * log_side)
        x = noise**2 * (np.logaddexp(log_gap, root) - log_side)
        rest = np.exp(log_gap + special.log_ndtr(-x / noise))
        near = rate * special.ndtr((1 - x) / noise)
        far = rate * np.exp(e + special.log_ndtr(-(1 + x) / noise))
        return np.maximum(near - far - rest, 0.0)

    return Profile(curve, curve)


def without_replacement(noise: float, rate: float) -> Profile:
    r"""A batch of fixed size, one record replaced; `noise` is the replaced sum's.

    D(e) = g D_b(log(1 + (e^e - 1) / g)) by advanced joint convexity (Balle, Barthe,
    Gaboardi 2018, arXiv:1807.01647), symmetric, and itself the profile of a pair.
    """
    base = _gaussian_curve(1 / noise)

    def curve(e: Array) -> Array:
        return rate * base(_widened(e, rate))

    return Profile(curve, curve)


def truncated_poisson_gaussian(
    noise: float,
    rate: float,
    dataset_size: int,
    max_batch_size: int,
    spare: float = 0.0,
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
    An overflow of probability at most `spare` counts as no privacy at all, which is as
    sound and shortens the losses.

    Reference: Ganesh et al., "Tighter Privacy Analysis for Truncated Poisson Sampling",
    2025, arXiv:2508.15089.
    """
    kept = gaussian(noise) if rate == 1 else poisson_gaussian(noise, rate)
    over = float(stats.binom.sf(max_batch_size - 1, dataset_size - 1, rate))
    if over == 0 or max_batch_size >= dataset_size:
        return kept
    pushed = EVERYTHING if over <= spare else _pushed_out(noise / 2, rate)

    def mixed(plain: Curve, out: Curve) -> Curve:
        return lambda e: over * out(e) + (1 - over) * plain(e)

    forward = mixed(kept.forward, pushed.forward)
    return Profile(forward, mixed(kept.backward, pushed.backward))


def _pushed_out(noise: float, rate: float) -> Profile:
    """The larger of the one-sided and the symmetric sampled pair, in each direction."""
    if rate == 1:
        return gaussian(noise / 2)
    one, two = poisson_gaussian(noise, rate), poisson_gaussian_replaced(noise, rate)

    def larger(first: Curve, second: Curve) -> Curve:
        return lambda e: np.maximum(first(e), second(e))

    return Profile(larger(one.forward, two.forward), larger(one.backward, two.backward))


def mixture_gaussian(
    noise: float, shifts: Sequence[float], probabilities: Sequence[float]
) -> Profile:
    """sum_i p_i N(c_i) against N(0): the loss grows with x, so sets are half-lines."""
    c, p = np.array(shifts, dtype=float) / noise, np.array(probabilities, dtype=float)
    moves = (p > 0) & (c > 0)
    if not moves.any():
        return NOTHING
    still, c, p = float(p[~moves].sum()), c[moves], p[moves]
    moved = float(p.sum())

    def forward(e: Array) -> Array:
        with np.errstate(divide="ignore"):
            log_rest = np.logaddexp(_log_expm1(e), math.log(moved))
        x = _threshold(log_rest, c, p)
        kept = still * special.ndtr(-x) + special.ndtr(c - x[:, None]) @ p
        lost = np.exp(np.minimum(e + special.log_ndtr(-x), 0.0))
        return np.maximum(kept - lost, 0.0)

    def backward(e: Array) -> Array:
        # e^-e - still, from its two sides: neither may lose what the other keeps.
        with np.errstate(divide="ignore"):
            near = np.log(np.maximum(moved + np.expm1(-np.minimum(e, 1.0)), 0.0))
            far = np.log(-np.expm1(np.minimum(e + np.log(still), 0.0))) - e
        log_rest = np.where(e < 1.0, near, far)
        x = _threshold(log_rest, c, p)
        below = special.log_ndtr(x)
        logs = np.log(p) + special.log_ndtr(x[:, None] - c)
        over = special.logsumexp(logs, axis=1)
        with np.errstate(divide="ignore"):
            over = np.logaddexp(over, np.log(still) + below)
        gained = np.exp(below) - np.exp(np.minimum(e + over, 0.0))
        return np.where(log_rest > -np.inf, np.maximum(gained, 0.0), 0.0)

    return Profile(forward, backward)


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
    for _ in range(1000):
        terms = log_p + c * (x[:, None] - c / 2)
        top = terms.max(axis=1)
        weights = np.exp(terms - top[:, None])
        total = weights.sum(axis=1)
        excess = np.maximum(top + np.log(total) - logs, 0.0)
        lower = np.maximum(x - excess * total / (weights @ c), -50.0)
        done = x - lower <= 1e-15 * np.maximum(1.0, np.abs(x))
        x = lower
        if done.all():
            break
    return x


def finite(pair: FinitePair, *, lattice: float | None = None) -> Profile:
    """A pair of finite distributions."""
    return Profile(pair.delta, pair.swapped().delta, lattice)


def worst(profiles: Sequence[Profile]) -> Profile:
    """The pointwise maximum: a profile again, which dominates each of them."""
    if len(profiles) == 1:
        return profiles[0]

    def highest(curves: list[Curve]) -> Curve:
        return lambda e: np.max([curve(e) for curve in curves], axis=0)

    forward = highest([profile.forward for profile in profiles])
    backward = forward
    if not all(profile.symmetric for profile in profiles):
        backward = highest([profile.backward for profile in profiles])
    depth = max(profile.compositions for profile in profiles)
    return Profile(forward, backward, compositions=depth)


def either_way(profile: Profile) -> Profile:
    """The maximum of both directions, for relations in which neither comes first."""

    def curve(e: Array) -> Array:
        return np.maximum(profile.forward(e), profile.backward(e))

    return Profile(curve, curve, profile.lattice, profile.compositions)


def _sampled(base: Curve, rate: float) -> Profile:
    """Poisson sampling of a symmetric base pair, each direction exactly."""

    def forward(e: Array) -> Array:
        return rate * base(_widened(e, rate))

    def backward(e: Array) -> Array:
        left = rate - (1 - rate) * np.expm1(np.minimum(e, 700.0))
        inside = np.maximum(left, np.finfo(float).tiny)
        values = left * base(e + math.log(rate) - np.log(inside))
        return np.where(left > 0, np.maximum(values, 0.0), 0.0)

    return Profile(forward, backward)


def _widened(e: Array, rate: float) -> Array:
    """log(1 + (e^e - 1) / q), without overflow."""
    small, large = np.minimum(e, 30.0), np.maximum(e, 30.0)
    far = large - math.log(rate) + np.log1p((rate - 1) * np.exp(-large))
    return np.where(e < 30.0, np.log1p(np.expm1(small) / rate), far)


def _gaussian_curve(shift: float) -> Curve:
    """D of N(m, 1) against N(0, 1), for e >= 0 (Balle & Wang 2018)."""

    def curve(e: Array) -> Array:
        first = special.log_ndtr(shift / 2 - e / shift)
        second = e + special.log_ndtr(-shift / 2 - e / shift)
        return np.exp(first) * -np.expm1(np.minimum(second - first, 0.0))

    return curve


def _laplace_curve(width: float) -> Curve:
    """D of Lap(w, 1) against Lap(0, 1), for e >= 0."""
    return lambda e: -np.expm1(np.minimum((e - width) / 2, 0.0))


def _log_expm1(e: Array) -> Array:
    """log(e^e - 1), -inf at 0."""
    return np.where(
        e < 30.0, np.log(np.expm1(np.minimum(e, 30.0))), e + np.log1p(-np.exp(-e))
    )
