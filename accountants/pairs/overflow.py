"""How likely a batch is to hold more records than its limit."""

from scipy import stats


def overflow_probability(dataset_size: int, rate: float, max_batch_size: int) -> float:
    """P[Binomial(N, q) > B], rounded up.

    Example:
      >>> overflow_probability(2, 0.5, 1) >= 0.25
      True
    """
    if max_batch_size >= dataset_size:
        return 0.0
    over = stats.binom.sf(max_batch_size, dataset_size, rate)
    return min(1.0, float(over) * (1 + 1e-9) + 1e-300)
