"""Mixtures of Gaussians with one standard deviation: cdf and exact hockey sticks.

D(P || Q)(epsilon) = sup_S P(S) - e^epsilon Q(S): the best S is where the density ratio
passes e^epsilon, a union of intervals whose ends are found by bisection, and whose
masses are differences of error functions.
"""

import dataclasses
import itertools
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class Mixture:
    """sum_i weights[i] N(means[i], stddev^2)."""

    means: tuple[float, ...]
    weights: tuple[float, ...]
    stddev: float

    def cdf(self, x: float) -> float:
        """P[X <= x]."""
        return self.mass(-math.inf, x)

    def mass(self, start: float, end: float) -> float:
        """P[start < X <= end], in whichever tail keeps its relative accuracy."""
        return math.fsum(
            weight * _interval((start - mean) / self.stddev, (end - mean) / self.stddev)
            for mean, weight in zip(self.means, self.weights, strict=True)
        )

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """Log density up to a constant that all mixtures of one stddev share."""
        z = (x[:, None] - np.array(self.means)) / self.stddev
        terms = -0.5 * z**2 + np.log(self.weights)
        top = terms.max(axis=1)
        return top + np.log(np.exp(terms - top[:, None]).sum(axis=1))


def gaussian(mean: float, stddev: float) -> Mixture:
    """N(mean, stddev^2)."""
    return Mixture((mean,), (1.0,), stddev)


def hockey_stick(first: Mixture, second: Mixture, epsilon: float) -> float:
    """sup over sets S of first(S) - e^epsilon second(S)."""

    def excess(x: np.ndarray) -> np.ndarray:
        return first.log_density(x) - second.log_density(x) - epsilon

    means = first.means + second.means
    reach = 40 * first.stddev
    grid = np.linspace(min(means) - reach, max(means) + reach, 20_001)
    signs = excess(grid) > 0
    flips = np.flatnonzero(signs[1:] != signs[:-1])
    ends = [_root(excess, grid[i], grid[i + 1]) for i in flips]
    edges = [-math.inf, *ends, math.inf]
    pieces = itertools.pairwise(edges)
    inside = [piece for i, piece in enumerate(pieces) if bool(signs[0]) ^ bool(i % 2)]
    weight = math.exp(epsilon)
    return math.fsum(first.mass(*p) - weight * second.mass(*p) for p in inside)


def _root(function, start: float, end: float) -> float:
    """A sign change between two points, by bisection."""
    sign = function(np.array([start]))[0] > 0
    for _ in range(60):
        middle = (start + end) / 2
        if (function(np.array([middle]))[0] > 0) == sign:
            start = middle
        else:
            end = middle
    return start


def _interval(start: float, end: float) -> float:
    """Standard normal mass of (start, end)."""
    if start > 0:
        start, end = -end, -start
    return 0.5 * (math.erfc(-end / math.sqrt(2)) - math.erfc(-start / math.sqrt(2)))
