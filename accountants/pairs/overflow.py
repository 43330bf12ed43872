"""How likely a batch is to hold more records than its limit."""

import math

from scipy import stats


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
