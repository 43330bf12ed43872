"""Exact (epsilon, delta) of compositions, without any discretisation of losses."""

import itertools
import math

import mpmath
import numpy as np


def gaussian_delta(shift, epsilon):
    """Phi(m/2 - e/m) - e^e Phi(-m/2 - e/m), with 60 digits (arXiv:1805.06530)."""
    with mpmath.workdps(60):
        m, e = mpmath.mpf(shift), mpmath.mpf(epsilon)
        return mpmath.ncdf(m / 2 - e / m) - mpmath.exp(e) * mpmath.ncdf(-m / 2 - e / m)


def pure_delta(epsilon_each, times, epsilon):
    """The optimal composition of pure releases (arXiv:1311.0776), by its binomial."""
    with mpmath.workdps(40):
        each, e = mpmath.mpf(epsilon_each), mpmath.mpf(epsilon)
        p = mpmath.exp(each) / (1 + mpmath.exp(each))
        total = mpmath.mpf(0)
        for k in range(times + 1):
            loss = (2 * k - times) * each
            if loss > e:
                weight = mpmath.binomial(times, k) * p**k * (1 - p) ** (times - k)
                total += weight * (1 - mpmath.exp(e - loss))
        return total


def finite_delta(p, q, times, epsilon):
    """sum (P - e^e Q)+ over all outcomes of `times` draws, grouped by their counts."""
    terms = []
    for counts in _counts(times, len(p)):
        ways = math.lgamma(times + 1) - sum(math.lgamma(c + 1) for c in counts)
        log_p = ways + sum(c * math.log(x) for c, x in zip(counts, p, strict=True))
        log_q = ways + sum(c * math.log(x) for c, x in zip(counts, q, strict=True))
        if log_p - log_q > epsilon:
            terms.append(math.exp(log_p) - math.exp(epsilon + log_q))
    return math.fsum(terms)


def _counts(total, kinds):
    """All ways to split `total` over some kinds."""
    for bars in itertools.combinations(range(total + kinds - 1), kinds - 1):
        edges = (-1, *bars, total + kinds - 1)
        yield [b - a - 1 for a, b in itertools.pairwise(edges)]


def poisson_gaussian_delta(noise, rate, steps, epsilon, *, add=False):
    """delta of sampled Gaussians by inverting their moment generating function.

    With K(z) = steps log E[e^(zL)], delta(e) is 1/pi times the integral over s > 0 of
    Re e^(K(t+is) - (t+is)e) / ((t+is)(1+t+is)), for any t > 0; trapezoid rule, which
    converges geometrically.
    """
    x = np.linspace(-25 * noise, 25 * noise + 30, 20_001)
    log_weight = np.log(x[1] - x[0]) - 0.5 * (x / noise) ** 2
    log_weight -= math.log(noise * math.sqrt(2 * math.pi))
    exponent = (2 * x - 1) / (2 * noise**2)
    loss = np.logaddexp(math.log1p(-rate), math.log(rate) + exponent)
    if add:
        loss = -loss
    else:
        log_weight += loss

    def log_moment(z):
        terms = z * loss + log_weight
        top = np.max(terms.real)
        return steps * (top + np.log(np.sum(np.exp(terms - top))))

    tilts = np.geomspace(0.05, 20, 60)
    t = min(tilts, key=lambda t: log_moment(t).real - t * epsilon)
    step, total, s = 0.05, 0.0, 0.0
    while True:
        z = t + 1j * s
        size = log_moment(z)
        value = (np.exp(size - z * epsilon) / (z * (1 + z))).real
        total += value * step * (0.5 if s == 0 else 1.0)
        s += step
        if size.real < log_moment(t).real - 40 or s > 400:
            return total / math.pi


def smallest_epsilon(delta_at, delta, highest=1000.0):
    """Where a falling delta(epsilon) reaches `delta`, by bisection."""
    low, high = 0.0, highest
    if delta_at(low) <= delta:
        return 0.0
    for _ in range(90):
        middle = 0.5 * (low + high)
        if delta_at(middle) > delta:
            low = middle
        else:
            high = middle
    return high
