r"""Truncated sampling, for accountants that only know the plain kind.

A batch of Poisson sampling, or of random allocation, that would hold more than B
records is cut to a random subset of B. By coupling, T truncated steps and T plain ones
differ with probability at most T Psi on each of two neighbours, Psi = P[Binomial(N, q)
> B], N the public upper bound on the number of records, q the chance that a record is
in the batch. So (eps, delta) of the plain sampling gives (eps, delta + T (1 + e^eps)
Psi) of the truncated one, whatever is released.
"""

import math
from collections.abc import Callable, Iterable

import dp_accounting as dp
from dp_accounting import DpEvent
from scipy import stats

from dpkit.accountants.events.allocation import TruncatedAllocationDpEvent, released

Releases = list[tuple[DpEvent, int]]


def overflow_probability(
    event: dp.TruncatedSubsampledGaussianDpEvent | TruncatedAllocationDpEvent,
) -> float:
    """Psi of one truncated step, rounded up."""
    if isinstance(event, TruncatedAllocationDpEvent):
        size, rate = event.max_batch_size, 1 / event.steps_per_epoch
    else:
        size, rate = event.truncated_batch_size, event.sampling_probability
    if size >= event.dataset_size:
        return 0.0
    over = stats.binom.sf(size, event.dataset_size, rate)
    return min(1.0, float(over) * (1 + 1e-9) + 1e-300)


def plain(releases: Iterable[tuple[DpEvent, int]]) -> tuple[Releases, float]:
    """The releases with plain sampling, and the sum of T Psi over them."""
    releases, slip = unlimited(releases)
    kept: Releases = []
    slips = [slip]
    for event, count in releases:
        if isinstance(event, dp.TruncatedSubsampledGaussianDpEvent):
            slips.append(count * overflow_probability(event))
            noise = dp.GaussianDpEvent(event.noise_multiplier)
            sampled = dp.PoissonSampledDpEvent(event.sampling_probability, noise)
            event = noise if event.sampling_probability == 1 else sampled
        kept.append((event, count))
    return kept, math.fsum(slips) * (1 + 4e-16)


def unlimited(releases: Iterable[tuple[DpEvent, int]]) -> tuple[Releases, float]:
    """The releases with plain random allocation, and the sum of T Psi over them.

    Truncated Poisson sampling stays: whoever asks here reads it as it is.
    """
    kept: Releases = []
    slips = []
    for event, count in releases:
        if not isinstance(event, TruncatedAllocationDpEvent):
            kept.append((event, count))
            continue
        slips.append(count * event.steps * overflow_probability(event))
        kept += [(release, count * times) for release, times in released(event.plain)]
    return kept, math.fsum(slips) * (1 + 4e-16)


def corrected_epsilon(
    epsilon_at: Callable[[float], float], delta: float, slip: float
) -> float:
    """The smallest epsilon with delta_plain(eps) + slip (1 + e^eps) <= delta.

    `epsilon_at` is the plain bound as a function of delta. Its fixed point is reached
    from below; the value returned has been put into the inequality once more.
    """
    if slip == 0:
        return epsilon_at(delta)
    epsilon = 0.0
    for _ in range(200):
        rest = delta - slip * (1 + math.exp(min(epsilon, 700.0))) * (1 + 4e-16)
        if rest <= 0:
            return math.inf
        needed = epsilon_at(rest)
        if needed <= epsilon:
            return epsilon
        epsilon = needed * (1 + 1e-12) + 1e-15
    return math.inf


def corrected_delta(delta: float, epsilon: float, slip: float) -> float:
    """delta + slip (1 + e^eps), at most 1."""
    if slip == 0:
        return delta
    return min(1.0, delta + slip * (1 + math.exp(min(epsilon, 700.0))) * (1 + 1e-15))
