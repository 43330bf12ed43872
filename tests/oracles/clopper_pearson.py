"""Exact one-sided bounds on a probability, by bisection on the binomial sum."""

import mpmath


def lower(successes: int, trials: int, error: float) -> float:
    """The p at which `successes` or more have probability `error`; 0 at none."""
    if successes == 0:
        return 0.0
    return _solve(lambda p: 1 - _cdf(successes - 1, trials, p) > error)


def upper(successes: int, trials: int, error: float) -> float:
    """The p at which `successes` or fewer have probability `error`; 1 at all."""
    if successes == trials:
        return 1.0
    return _solve(lambda p: _cdf(successes, trials, p) < error)


def _cdf(successes: int, trials: int, p: mpmath.mpf) -> mpmath.mpf:
    """P[Binomial(trials, p) <= successes]."""
    terms = (
        mpmath.binomial(trials, k) * p**k * (1 - p) ** (trials - k)
        for k in range(successes + 1)
    )
    return mpmath.fsum(terms)


def _solve(beyond) -> float:
    """The probability at which a monotone condition turns true."""
    with mpmath.workdps(30):
        start, end = mpmath.mpf(0), mpmath.mpf(1)
        for _ in range(60):
            middle = (start + end) / 2
            start, end = (start, middle) if beyond(middle) else (middle, end)
        return float(start)
