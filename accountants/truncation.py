r"""Truncated Poisson sampling, for accountants that only know the plain kind.

A batch of Poisson sampling that would hold more than B records is cut to a random
subset of B. By coupling, T truncated steps and T plain ones differ with probability at
most T Psi on each of two neighbours, Psi = P[Binomial(N, q) > B], N the public upper
bound on the number of records. So (eps, delta) of the plain sampling gives
(eps, delta + T (1 + e^eps) Psi) of the truncated one, whatever is released.
"""

import math
from collections.abc import Callable, Iterable

import dp_accounting as dp
from dp_accounting import DpEvent
from scipy import stats

Releases = list[tuple[DpEvent, int]]


def overflow_probability(event: dp.TruncatedSubsampledGaussianDpEvent) -> float:
    """Psi of one truncated step, rounded up."""
    over = stats.binom.sf(
        event.truncated_batch_size, event.dataset_size, event.sampling_probability
    )
    if event.truncated_batch_size >= event.dataset_size:
        return 0.0
    return min(1.0, float(over) * (1 + 1e-9) + 1e-300)


def plain(releases: Iterable[tuple[DpEvent, int]]) -> tuple[Releases, float]:
    """The releases with plain Poisson sampling, and the sum of T Psi over them."""
    kept: Releases = []
    slips = []
    for event, count in releases:
        if isinstance(event, dp.TruncatedSubsampledGaussianDpEvent):
            slips.append(count * overflow_probability(event))
            noise = dp.GaussianDpEvent(event.noise_multiplier)
            sampled = dp.PoissonSampledDpEvent(event.sampling_probability, noise)
            event = noise if event.sampling_probability == 1 else sampled
        kept.append((event, count))
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
