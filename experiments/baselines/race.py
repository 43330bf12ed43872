"""RACE: counters under locality-sensitive hashes, with Laplace noise.

Each of L rows has a hash: `power` functions floor((g x + b) / width), g ~ N(0, I), b
uniform on [0, width], hashed again to one of W counters. A record adds 1 to one counter
a row. The answer is the mean over rows of (W c - n) / (W - 1) with c the counter of the
query and n the mean sum of a noisy row: an estimate of the sum of the kernel
`collision(|x - y|)`, not of a Gaussian.

Reference: Coleman, Shrivastava, "A One-Pass Private Sketch for Most Machine Learning
Tasks", 2020, arXiv:2006.09352.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special

from experiments.baselines.release import Array, Release, laplace, records

_PRIME = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class RACE:
    """Sums of the collision probability of a Euclidean hash, any dimension.

    Privacy: pure epsilon for an added or removed record, which moves one counter a row
    by 1: `rows` in L1. Replacing one record costs 2 epsilon. All counters have noise,
    empty or not.

    Attributes:
      dim: of the points.
      rows: L.
      buckets: W >= 2.
      width: of a hash function's steps, in the unit of the points.
      power: hash functions a row.
      epsilon: inf is no noise.
      feature_seed: public.

    Example:
      >>> rng = np.random.default_rng(0)
      >>> sketch = RACE(2, 200, 64, 1.0, 1, math.inf, 3)
      >>> sketch.fit(np.ones((5, 2)), rng).query(np.ones((1, 2))).tolist()
      [5.0]
    """

    dim: int
    rows: int
    buckets: int
    width: float
    power: int
    epsilon: float
    feature_seed: int

    def fit(self, points: Array, rng: np.random.Generator) -> Release:
        """The noisy counters (rows, buckets).

        Args:
          points: (n, dim), private.
          rng: of the noise; never seeded like the public features.
        """
        buckets_of = self._hash()
        found = buckets_of(records(points, self.dim))
        counts = [np.bincount(row, minlength=self.buckets) for row in found.T]
        noise = laplace(rng, self.rows, self.epsilon, (self.rows, self.buckets))

        def answer(table: Array, queries: Array) -> Array:
            counter = table[np.arange(self.rows), buckets_of(queries)].mean(1)
            size = table.sum(1).mean()
            return (self.buckets * counter - size) / (self.buckets - 1)

        return Release(np.array(counts) + noise, answer)

    def _hash(self) -> Callable[[Array], Array]:
        """Points (n, dim) -> buckets (n, rows)."""
        public = np.random.default_rng(self.feature_seed)
        directions = public.normal(size=(self.dim, self.rows * self.power))
        shifts = public.uniform(0, self.width, self.rows * self.power)
        factors = public.integers(1, _PRIME, (self.rows, self.power))
        offsets = public.integers(0, _PRIME, self.rows)

        def buckets_of(some: Array) -> Array:
            steps = np.floor((some @ directions + shifts) / self.width).astype(int)
            codes = steps.reshape(len(some), self.rows, self.power) % _PRIME
            mixed = (codes * factors % _PRIME).sum(2) + offsets
            return mixed % _PRIME % self.buckets

        return buckets_of

    def collision(self, distance: Any) -> Array:
        """The kernel: the probability that two points share all of a row's steps."""
        r = np.maximum(np.asarray(distance, dtype=float), 1e-12) / self.width
        density = math.sqrt(2 / math.pi) * r * -np.expm1(-0.5 / r**2)
        return (1 - 2 * special.ndtr(-1 / r) - density) ** self.power
