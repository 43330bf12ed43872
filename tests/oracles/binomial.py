"""Binomial tails, summed term by term with 50 digits."""

import mpmath


def upper_tail(trials, rate, above):
    """P[Binomial(trials, rate) > above]."""
    with mpmath.workdps(50):
        q = mpmath.mpf(rate)
        term = (
            mpmath.binomial(trials, above + 1)
            * q ** (above + 1)
            * (1 - q) ** (trials - above - 1)
        )
        total, k = mpmath.mpf(0), above + 1
        while k <= trials and term > total * mpmath.mpf(10) ** -40:
            total += term
            term *= (trials - k) * q / ((k + 1) * (1 - q))
            k += 1
        return float(total)
