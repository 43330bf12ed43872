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

from dp_accounting import DpEvent

from dpkit.accountants.answers.relations import Relation
from dpkit.accountants.pairs.laws import law_of

Releases = list[tuple[DpEvent, int]]


def plain(
    releases: Iterable[tuple[DpEvent, int]], relation: Relation, view: str
) -> tuple[Releases, float]:
    """The releases, without limits where a view is lacking, and the sum of T Psi.

    Example:
      >>> from dp_accounting import TruncatedSubsampledGaussianDpEvent
      >>> step = TruncatedSubsampledGaussianDpEvent(100, 0.5, 100, 2.0)
      >>> plain([(step, 3)], Relation.ZERO_OUT, "curve")[0]
      [(PoissonSampledDpEvent(sampling_probability=0.5, event=...), 3)]
    """
    kept: Releases = []
    overflows = []
    for event, count in releases:
        law = law_of(event, relation)
        instead = law.unlimited() if law.lacks(view) else None
        if instead is None:
            kept.append((event, count))
            continue
        kept += [(release, count * times) for release, times in instead[0]]
        overflows.append(count * instead[1])
    return kept, math.fsum(overflows) * (1 + 4e-16)


def corrected_epsilon(
    epsilon_at: Callable[[float], float], delta: float, overflow: float
) -> float:
    """The smallest epsilon with delta_plain(eps) + overflow (1 + e^eps) <= delta.

    `epsilon_at` is the plain bound as a function of delta. Its fixed point is reached
    from below; the value returned has been put into the inequality once more.
    """
    if overflow == 0:
        return epsilon_at(delta)
    epsilon = 0.0
    for _ in range(200):
        rest = delta - overflow * (1 + math.exp(min(epsilon, 700.0))) * (1 + 4e-16)
        if rest <= 0:
            return math.inf
        needed = epsilon_at(rest)
        if needed <= epsilon:
            return epsilon
        epsilon = needed * (1 + 1e-12) + 1e-15
    return math.inf


def corrected_delta(delta: float, epsilon: float, overflow: float) -> float:
    """delta + overflow (1 + e^eps), at most 1."""
    if overflow == 0:
        return delta
    return min(
        1.0, delta + overflow * (1 + math.exp(min(epsilon, 700.0))) * (1 + 1e-15)
    )
