"""Normal distribution functions, slowly: the error function of mpmath and bisection."""

import mpmath


def inverse_normal(high: int, low: int) -> float:
    """Phi^-1((high 2^32 + low + 1/2) / 2^64), by bisection with 40 digits."""
    with mpmath.workdps(40):
        p = (high * 2**32 + low + mpmath.mpf(1) / 2) / mpmath.mpf(2) ** 64
        below, above = mpmath.mpf(-12), mpmath.mpf(12)
        for _ in range(80):
            middle = (below + above) / 2
            if mpmath.ncdf(middle) < p:
                below = middle
            else:
                above = middle
        return float(below)
