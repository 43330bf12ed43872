"""The Bernstein mechanism: polynomials from noisy kernel sums on a lattice.

On the box [0, side]^dim scaled to the unit cube, with f the kernel sum,

    B f(y) = sum_i f(i / K) prod_a C(K, i_a) y_a^i_a (1 - y_a)^(K - i_a),

and of order h, I - (I - B)^h. Published: f on the (K + 1)^dim lattice, with Laplace
noise.

Reference: Alda, Rubinstein, "The Bernstein Mechanism: Function Release under
Differential Privacy", 2017, AAAI-17.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import special

from experiments.baselines.release import (
    Array,
    Release,
    gaussian_sums,
    laplace,
    records,
)


@dataclasses.dataclass(frozen=True)
class Bernstein:
    """Sums of the Gaussian kernel exp(-|x - y|^2) at queries in a box [0, side]^dim.

    Privacy: pure epsilon for an added or removed record, which moves each value on the
    lattice by at most 1: (degree + 1)^dim in L1. Replacing one record costs the same:
    values are of one sign, so no value moves by more than 1. The box is public.

    Attributes:
      dim: of the points.
      side: of the box, in kernel widths.
      degree: K.
      order: h >= 1, of the iteration.
      epsilon: inf is no noise.

    Example:
      >>> rng = np.random.default_rng(0)
      >>> release = Bernstein(1, 2.0, 30, 5, np.inf).fit(np.ones((3, 1)), rng)
      >>> release.query(np.ones((1, 1))).round(3).tolist()
      [3.0]
    """

    dim: int
    side: float
    degree: int
    order: int
    epsilon: float

    def fit(self, points: Array, rng: np.random.Generator) -> Release:
        """The noisy values on the lattice, (degree + 1,) * dim.

        Args:
          points: (n, dim), private.
          rng: of the noise.
        """
        ticks = np.linspace(0, self.side, self.degree + 1)
        axes = np.meshgrid(*[ticks] * self.dim, indexing="ij")
        lattice = np.stack([axis.ravel() for axis in axes], axis=1)
        values = gaussian_sums(records(points, self.dim), lattice)
        noise = laplace(rng, len(values), self.epsilon, len(values))
        return Release((values + noise).reshape(axes[0].shape), self._answer)

    def _answer(self, values: Array, queries: Array) -> Array:
        """The iterated polynomial: B applied to the sum of (I - B)^i f, i < order."""
        at_ticks = self._basis(np.linspace(0, 1, self.degree + 1))
        coefficients = values
        for _ in range(self.order - 1):
            coefficients = values + coefficients - _everywhere(at_ticks, coefficients)
        first, *others = (self._basis(y) for y in queries.T / self.side)
        found = np.tensordot(first, coefficients, 1)
        for row in others:
            found = np.einsum("qi,qi...->q...", row, found)
        return found

    def _basis(self, t: Array) -> Array:
        """Bernstein's polynomials at t in [0, 1]: (len(t), degree + 1)."""
        i = np.arange(self.degree + 1)
        return (
            special.binom(self.degree, i)
            * t[:, None] ** i
            * (1 - t[:, None]) ** i[::-1]
        )


def _everywhere(matrix: Array, values: Array) -> Array:
    """A matrix along each axis in turn."""
    for axis in range(values.ndim):
        values = np.moveaxis(np.tensordot(matrix, values, (1, axis)), 0, axis)
    return values
