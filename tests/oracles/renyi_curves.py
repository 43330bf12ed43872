"""Rényi divergences by high-precision integrals and sums, straight from the definition.

R_a(P || Q) = log E_Q[(dP/dQ)^a] / (a - 1).
"""

import mpmath


def sampled_gaussian(rate, noise, order, *, add=False):
    """(1-q) N(0, s^2) + q N(1, s^2) against N(0, s^2), by quadrature with 40 digits."""
    with mpmath.workdps(40):
        q, s, a = mpmath.mpf(rate), mpmath.mpf(noise), mpmath.mpf(order)

        def ratio(x):
            return 1 - q + q * mpmath.exp((2 * x - 1) / (2 * s**2))

        power = 1 - a if add else a
        reach = a + 1 + 14 * s
        ends = mpmath.linspace(-reach, reach, 41)
        moment = mpmath.quadgl(
            lambda x: mpmath.npdf(x, 0, s) * ratio(x) ** power, list(ends)
        )
        return float(mpmath.log(moment) / (a - 1))


def laplace(scale, order, rate=1.0, *, add=False):
    """(1-q) Lap(0, b) + q Lap(1, b) against Lap(0, b), by quadrature."""
    with mpmath.workdps(40):
        q, b, a = mpmath.mpf(rate), mpmath.mpf(scale), mpmath.mpf(order)

        def density(x):
            return mpmath.exp(-abs(x) / b) / (2 * b)

        def integrand(x):
            p = (1 - q) * density(x) + q * density(x - 1)
            if add:
                return density(x) ** a * p ** (1 - a)
            return p**a * density(x) ** (1 - a)

        reach = 100 * b + 1
        ends = [-reach, -b, 0, mpmath.mpf(1) / 2, 1, 1 + b, reach]
        return float(mpmath.log(mpmath.quadgl(integrand, ends)) / (a - 1))


def finite(p, q, order):
    """Two lists of probabilities."""
    with mpmath.workdps(40):
        a = mpmath.mpf(order)
        total = mpmath.fsum(
            mpmath.mpf(x) ** a * mpmath.mpf(y) ** (1 - a)
            for x, y in zip(p, q, strict=True)
        )
        return float(mpmath.log(total) / (a - 1))


def bounded_range(epsilon, order, splits=4000):
    """The largest divergence of two points with losses t and t - epsilon, by a grid."""
    best = 0.0
    with mpmath.workdps(20):
        e, a = mpmath.mpf(epsilon), mpmath.mpf(order)
        for k in range(1, splits):
            t = e * k / splits
            p = (mpmath.exp(-t) - mpmath.exp(-e)) / (1 - mpmath.exp(-e))
            moment = p * mpmath.exp(a * t) + (1 - p) * mpmath.exp(a * (t - e))
            best = max(best, float(mpmath.log(moment) / (a - 1)))
    return best


def conversion(curve, delta, lowest=1.001, highest=1e4):
    """min over a of curve(a) + log(1 - 1/a) - log(delta a)/(a-1), by golden section."""
    with mpmath.workdps(30):

        def at(log_t):
            a = 1 + mpmath.exp(log_t)
            return curve(a) + mpmath.log(1 - 1 / a) - mpmath.log(delta * a) / (a - 1)

        low, high = mpmath.log(lowest - 1), mpmath.log(highest - 1)
        golden = (mpmath.sqrt(5) - 1) / 2
        for _ in range(150):
            left, right = high - golden * (high - low), low + golden * (high - low)
            if at(left) < at(right):
                high = right
            else:
                low = left
        return float(at((low + high) / 2))
