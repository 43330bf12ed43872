"""Similarity structures, slowly: loops over records, solved systems, closed forms.

Nothing here knows of grids, batches or noise: features and answers of one record after
another, in float64. Source: the structures' own papers, as cited there.
"""

import itertools
import math
from typing import Any

import numpy as np
from scipy import optimize
from scipy.special import ndtr


def kernel(name: str, x, y, h: float = 1.0) -> float:
    """k(x, y) by its definition."""
    steps = [abs(a - b) / h for a, b in zip(x, y, strict=True)]
    l1, l2 = math.fsum(steps), math.sqrt(math.fsum(s * s for s in steps))
    return {
        "gaussian": math.exp(-(l2**2)),
        "exponential": math.exp(-l2),
        "laplacian": math.exp(-l1),
        "cauchy": 1 / (1 + l2**2),
        "rational": 1 / (1 + l2),
        "rational_l1": 1 / (1 + l1),
    }[name]


def kernel_sum(name: str, points, y, h: float = 1.0) -> float:
    """The exact sum over records."""
    return math.fsum(kernel(name, x, y, h) for x in points)


def distance_sum(points, y, power: float, norm: str) -> float:
    """Exact sums: "l2" of ||x - y||_2^power, "lp" of sum_j abs(x_j - y_j)^power."""
    total = []
    for x in points:
        steps = [abs(a - b) for a, b in zip(x, y, strict=True)]
        if norm == "l2":
            total.append(math.sqrt(math.fsum(s * s for s in steps)) ** power)
        else:
            total.extend(s**power for s in steps)
    return math.fsum(total)


def waves(x, frequencies) -> np.ndarray:
    """(cos w.x, sin w.x) over sqrt(p): of length 1."""
    turned = [math.fsum(a * b for a, b in zip(w, x, strict=True)) for w in frequencies]
    parts = [math.cos(t) for t in turned] + [math.sin(t) for t in turned]
    return np.array(parts) / math.sqrt(len(turned))


def landmark_features(x, landmarks, name: str, jitter: float) -> np.ndarray:
    """L^-1 k_U(x)."""
    gram = np.array([[kernel(name, u, v) for v in landmarks] for u in landmarks])
    lower = np.linalg.cholesky(gram + jitter * np.eye(len(gram)))
    return np.linalg.solve(lower, [kernel(name, u, x) for u in landmarks])


def hat_features(u: float, levels: int) -> np.ndarray:
    """(1 - u, u), then the hats of all levels, for u in [0, 1]."""
    found = [1 - u, u]
    for level in range(levels):
        cells = 2**level
        own = min(int(u * cells), cells - 1)
        for k in range(cells):
            found.append(1 - abs(2 * (u * cells - k) - 1) if k == own else 0.0)
    return np.array(found)


def hat_coefficients(v: float, levels: int, power: float = 1.0) -> np.ndarray:
    """What an answer at v multiplies these features with, for length 1."""

    def f(t):
        return abs(t - v) ** power

    found = [f(0), f(1)]
    for level in range(levels):
        edges = [k / 2**level for k in range(2**level + 1)]
        for a, b in itertools.pairwise(edges):
            found.append(f((a + b) / 2) - (f(a) + f(b)) / 2)
    return np.array(found)


def hat_scales(levels: int, epsilon: float = 1.0) -> np.ndarray:
    """b_lin, b_0, b_1, … for p = 1: 1 / b sums to epsilon, b_l ~ 2^(2 (l + 1) / 3)."""
    shape = np.array([1.0, *(4.0 ** ((level + 1) / 3) for level in range(levels))])
    return shape * (1 / shape).sum() / epsilon


def hat_stddev(v: float, scales: np.ndarray) -> float:
    """Of an answer at v, with Laplace noise of these scales."""
    levels = len(scales) - 1
    spread = [scales[0]] * 2
    for level, scale in enumerate(scales[1:]):
        spread += [scale] * 2**level
    return math.sqrt(2 * ((hat_coefficients(v, levels) * spread) ** 2).sum())


def sign_means(u: float, cells: int) -> np.ndarray:
    """Of sign(u - t) over each cell of [0, 1]."""
    return np.clip([2 * (u * cells - j) - 1 for j in range(cells)], -1, 1)


def b_spline(degree: int, t) -> np.ndarray:
    """The centred cardinal B-spline, by its truncated powers."""
    t = np.asarray(t, np.float64)
    total = np.zeros_like(t)
    for k in range(degree + 2):
        shifted = np.maximum(t + (degree + 1) / 2 - k, 0.0)
        if degree == 0:
            shifted = (t + 0.5 - k >= 0).astype(float)
        total += (-1) ** k * math.comb(degree + 1, k) * shifted**degree
    inside = np.abs(t) < (degree + 1) / 2
    return np.where(inside, total / math.factorial(degree), 0.0)


def spline_weights(points, nodes, unit: float, degree: int) -> np.ndarray:
    """Sums over records on a line of B((x - node) / unit)."""
    steps = (np.asarray(points)[:, None] - np.asarray(nodes)) / unit
    return b_spline(degree, steps).sum(axis=0)


def spline_coefficients(name, y, low, unit, first, count, degree) -> np.ndarray:
    """B-spline coefficients of k(., y) on a line: a system of equations, far around."""
    around = 60
    numbers = np.arange(first - around, first + count + around)
    matrix = b_spline(degree, numbers[:, None] - numbers)
    values = [kernel(name, [low + unit * i], [y]) for i in numbers]
    return np.linalg.solve(matrix, values)[around:-around]


def gaussian_delta(noise: float, epsilon: float) -> float:
    """Of one Gaussian release (Balle and Wang, 2018, arXiv:1805.06530, Theorem 8)."""
    a, b = 1 / (2 * noise), epsilon * noise
    return float(ndtr(a - b) - math.exp(epsilon) * ndtr(-a - b))


def gaussian_noise(epsilon: float, delta: float) -> float:
    """The least noise multiplier for a budget."""
    found: Any = optimize.brentq(
        lambda s: gaussian_delta(s, epsilon) - delta, 0.05, 1e4
    )
    return float(found)
