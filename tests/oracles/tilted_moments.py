"""Moments of a tilted loss by brute-force sums of the densities on a very fine grid."""

import numpy as np

_STEP = 2.0**-12  # so that whole numbers, where Laplace densities bend, are points
_POINTS = np.arange(-64.0, 64.0, _STEP)


def normal(mean, deviation):
    """The density of N(mean, deviation^2)."""
    z = (_POINTS - mean) / deviation
    return np.exp(-0.5 * z * z) / (deviation * np.sqrt(2 * np.pi))


def laplace(mean, scale):
    """The density of a Laplace law."""
    return np.exp(-np.abs(_POINTS - mean) / scale) / (2 * scale)


def mixed(weights, densities):
    """The density of a mixture."""
    return sum(w * d for w, d in zip(weights, densities, strict=True))


def moments(p, q, tilt):
    """log E_P[e^(tL)], mean, variance and third absolute central moment under P_t."""
    kept = (p > 1e-290) & (q > 1e-290)
    p, q = p[kept], q[kept]
    loss = np.log(p / q)
    weights = (p / p.sum()) * (p / q) ** tilt  # both sums err alike at the bends
    total = weights.sum()
    mean = (weights * loss).sum() / total
    centred = loss - mean
    variance = (weights * centred**2).sum() / total
    cube = (weights * np.abs(centred) ** 3).sum() / total
    return np.log(total), mean, variance, cube
