r"""Random allocation from its definition, A = (W_1 + ... + W_t) / t.

Two steps by quadrature, moments by enumeration, compositions by one long convolution of
a tilted law: slow, and nothing shared with what they check.
"""

import itertools
import math

import mpmath
import numpy as np


def two_steps(noise, epsilon):
    """E[(A - e^eps)+] and E[(1 - e^eps A)+] for t = 2: a call or a put given W_1.

    Gauss and Legendre on panels that shrink towards the bend at W_1 = 2 e^eps.
    """

    def z_of(w):
        return noise * math.log(w) + 0.5 / noise

    def call(strike):
        if strike <= 0:
            return 1 - strike
        z = z_of(strike)
        return _cdf(1 / noise - z) - strike * _cdf(-z)

    def put(strike):
        z = z_of(strike) if strike > 0 else -math.inf
        return strike * _cdf(z) - _cdf(z - 1 / noise) if strike > 0 else 0.0

    def mean(payoff, total):
        bend = z_of(total)
        near = [bend + side * 4.0**-k for k in range(24) for side in (-1, 1)]
        ends = sorted(x for x in {*range(-16, 17), bend, *near} if -16 <= x <= 16)
        nodes, weights = np.polynomial.legendre.leggauss(24)
        terms = []
        for start, end in itertools.pairwise(ends):
            for node, weight in zip(nodes, weights, strict=True):
                z = start + (node + 1) / 2 * (end - start)
                density = math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
                w = math.exp(z / noise - 0.5 / noise**2)
                terms.append(weight / 2 * (end - start) * density * payoff(total - w))
        return math.fsum(terms)

    growth = math.exp(epsilon)
    return mean(call, 2 * growth) / 2, growth * mean(put, 2 / growth) / 2


def one_in_a_step(rate, noise, epsilon):
    """Both hockey sticks of 1 - q + q W, in closed form."""
    growth = mpmath.exp(epsilon)

    def tails(value):
        w = (value - 1 + rate) / rate
        if w <= 0:
            return mpmath.mpf(1), mpmath.mpf(1)
        z = noise * mpmath.log(w) + mpmath.mpf(0.5) / noise
        return mpmath.ncdf(-z), mpmath.ncdf(1 / mpmath.mpf(noise) - z)

    over, shifted = tails(growth)
    remove = (1 - rate) * over + rate * shifted - growth * over
    over, shifted = tails(1 / growth)
    add = (1 - over) - growth * ((1 - rate) * (1 - over) + rate * (1 - shifted))
    return float(remove), float(max(add, 0))


def moment(noise, steps, order):
    """E[A^order] for a small integer order, over all ways to deal it out."""
    total = mpmath.mpf(0)
    for dealt in itertools.product(range(order + 1), repeat=steps):
        if sum(dealt) == order:
            ways = math.factorial(order)
            for a in dealt:
                ways //= math.factorial(a)
            power = sum(a * (a - 1) for a in dealt)
            total += ways * mpmath.exp(mpmath.mpf(power) / (2 * mpmath.mpf(noise) ** 2))
    return total / mpmath.mpf(steps) ** order


def log_inverse_moment(noise, power):
    """log E[A^-power] for t = 2 by the trapezoid rule in two dimensions."""
    # Beyond 13 deviations from where the powers pull, there is nothing.
    z = np.arange(max(-100.0, -13 - power / noise), 13, 0.06)
    density = -0.5 * z**2 + math.log(0.06 / math.sqrt(2 * math.pi))
    log_w = z / noise - 0.5 / noise**2
    log_a = np.logaddexp(log_w[:, None], log_w) - math.log(2)
    exponent = density[:, None] + density - power * log_a
    top = exponent.max()
    return float(top + np.log(np.exp(exponent - top).sum()))


def composed(loss, mass, infinite, copies, tilt):
    """delta(epsilon) of `copies` independent sums of losses on an even grid."""
    step = (loss[-1] - loss[0]) / (len(loss) - 1)
    tilted = mass * np.exp(tilt * loss)
    size = copies * (len(loss) - 1) + 1
    spectrum = np.fft.rfft(tilted / tilted.sum(), size) ** copies
    law = np.maximum(np.fft.irfft(spectrum, size), 0.0)
    sums = copies * loss[0] + step * np.arange(size)
    scale = law * np.exp(copies * math.log(tilted.sum()) - tilt * sums)
    never = -math.expm1(copies * math.log1p(-infinite))

    def delta(epsilon):
        above = sums > epsilon
        return never - float(scale[above] @ np.expm1(epsilon - sums[above]))

    return delta


def root(decreasing, target, high=30.0):
    """Where a decreasing function meets a target."""
    low = 0.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if decreasing(middle) > target else (low, middle)
    return high


def _cdf(x):
    """Of the standard normal."""
    return 0.5 * math.erfc(-x / math.sqrt(2))
