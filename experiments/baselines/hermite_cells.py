"""LSQ-FGT: the fast Gauss transform with Laplace noise on its moments.

Unit cells are centred at the whole numbers. With c the centre of the cell of x,

    exp(-(y - x)^2) = sum_j (x - c)^j / j! h_j(y - c),   h_j(t) = H_j(t) exp(-t^2)

(H_j the physicists' Hermite polynomials), in each coordinate; the first `order` terms
are kept, and cells with |y - c|^2 <= order. Published: for each cell the sums over its
records of the products of powers (x - c)^j, with Laplace noise.

Reference: Wagner, Naamad, Mishra, "Fast Private Kernel Density Estimation via Locality
Sensitive Quantization", 2023, arXiv:2307.01877.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math

import numpy as np

from experiments.baselines.release import Array, Release, laplace, records


@dataclasses.dataclass(frozen=True)
class LSQ_FGT:
    """Sums of the Gaussian kernel exp(-|x - y|^2) in a box [0, side]^dim, dim <= 3.

    Privacy: pure epsilon for an added or removed record: |x - c| <= 1/2 in each
    coordinate, so its powers sum to at most (2 (1 - 2^-order))^dim in L1. Replacing one
    record costs 2 epsilon. Every cell of the public box has noise, occupied or not:
    noise on occupied cells alone would publish which those are. Records outside are
    moved to the box, one by one; the authors' code adds them to other cells.

    Attributes:
      dim: of the points.
      side: of the box, a whole number of kernel widths.
      order: terms for each coordinate.
      epsilon: inf is no noise.

    Example:
      >>> rng = np.random.default_rng(0)
      >>> release = LSQ_FGT(1, 9, 10, math.inf).fit(np.array([[2.2], [4.0]]), rng)
      >>> release.query(np.array([[3.0]])).round(3).tolist()
      [0.895]
    """

    dim: int
    side: int
    order: int
    epsilon: float

    def fit(self, points: Array, rng: np.random.Generator) -> Release:
        """The noisy moments, ((side + 1)^dim cells, order^dim).

        Args:
          points: (n, dim), private.
          rng: of the noise.
        """
        points = np.clip(records(points, self.dim), 0, self.side)
        cells = np.rint(points).astype(int)
        shape = (self.side + 1,) * self.dim
        flat = np.ravel_multi_index(tuple(cells.T), shape)
        powers = (points - cells)[:, :, None] ** np.arange(self.order)
        moments = [
            np.bincount(flat, _product(powers, index), minlength=math.prod(shape))
            for index in itertools.product(range(self.order), repeat=self.dim)
        ]
        bound = (2 * (1 - 2.0**-self.order)) ** self.dim
        noise = laplace(rng, bound, self.epsilon, (len(moments), len(moments[0])))
        return Release((np.array(moments) + noise).T, self._answer)

    def _answer(self, moments: Array, queries: Array) -> Array:
        """Query by query: the Hermite functions of the near cells by their moments."""
        axes = np.meshgrid(*[np.arange(self.side + 1.0)] * self.dim, indexing="ij")
        centres = np.stack([axis.ravel() for axis in axes], axis=1)
        values = np.zeros(len(queries))
        for i, y in enumerate(queries):
            away = y - centres
            near = (away**2).sum(1) <= self.order
            series = hermite(away[near], self.order)
            basis = functools.reduce(_outer, np.moveaxis(series, 1, 0))
            values[i] = (basis * moments[near]).sum()
        return values


def hermite(t: Array, order: int) -> Array:
    """h_j(t) / j! for j < order, along a new last axis.

    Example:
      >>> hermite(np.array(1.0), 3).round(6).tolist()
      [0.367879, 0.735759, 0.367879]
    """
    terms = [np.exp(-(t**2)), 2 * t * np.exp(-(t**2))]
    for j in range(1, order - 1):
        terms.append((2 * t * terms[j] - 2 * terms[j - 1]) / (j + 1))
    return np.stack(terms[:order], axis=-1)


def _product(powers: Array, index: tuple[int, ...]) -> Array:
    """Of one power for each coordinate."""
    return np.multiply.reduce([powers[:, axis, j] for axis, j in enumerate(index)])


def _outer(a: Array, b: Array) -> Array:
    """All products of two rows, the last axis of b fastest."""
    return (a[:, :, None] * b[:, None, :]).reshape(len(a), a.shape[1] * b.shape[1])
