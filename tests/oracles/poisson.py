"""The law of a sum over a truncated Poisson batch, by listing every possible batch."""

import itertools
from collections import defaultdict

from tests.oracles.mixture import Mixture


def truncated_poisson_sum(
    values: tuple[float, ...], rate: float, size: int, stddev: float
) -> Mixture:
    """Sum of the sampled values plus N(0, stddev^2).

    Each value is sampled independently at `rate`; of more than `size`, a uniformly
    random subset of that size stays.
    """
    weights: dict[float, float] = defaultdict(float)
    for pattern in itertools.product((False, True), repeat=len(values)):
        drawn = [value for value, taken in zip(values, pattern, strict=True) if taken]
        chance = rate ** len(drawn) * (1 - rate) ** (len(values) - len(drawn))
        batches = list(itertools.combinations(drawn, min(size, len(drawn))))
        for batch in batches:
            weights[sum(batch)] += chance / len(batches)
    kept = {total: weight for total, weight in weights.items() if weight > 0}
    return Mixture(tuple(kept), tuple(kept.values()), stddev)
