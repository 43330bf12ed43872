"""LSQ-RFF: random Fourier features with a phase, and Laplace noise on their sum.

    phi_j(x) = sqrt(2/m) cos(w_j x + b_j),  w_j ~ N(0, 2 I),  b_j uniform on [0, 2 pi],

so that <phi(x), phi(y)> has the mean exp(-|x - y|^2). Published: the sum of phi over
the records with Laplace noise; answered: its inner product with phi(y).

Reference: Wagner, Naamad, Mishra, "Fast Private Kernel Density Estimation via Locality
Sensitive Quantization", 2023, arXiv:2307.01877.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from experiments.baselines.release import Array, Release, laplace, records

_ROWS = 4096


@dataclasses.dataclass(frozen=True)
class LSQ_RFF:
    """Sums of the Gaussian kernel exp(-|x - y|^2), any dimension.

    Privacy: pure epsilon for an added or removed record: a feature is at most
    sqrt(2/m), so a record moves the sum by at most sqrt(2 m) in L1. Replacing one
    record costs 2 epsilon. The authors' code divides by the true number of records and
    scales the noise by it: that is this sum over a public constant, and no more than
    2 epsilon where the number is public because records are replaced.

    Attributes:
      dim: of the points.
      features: m.
      epsilon: inf is no noise.
      feature_seed: public.

    Example:
      >>> rng = np.random.default_rng(0)
      >>> release = LSQ_RFF(2, 4096, math.inf, 1).fit(np.zeros((10, 2)), rng)
      >>> release.query(np.zeros((1, 2))).round().tolist()
      [10.0]
    """

    dim: int
    features: int
    epsilon: float
    feature_seed: int

    def fit(self, points: Array, rng: np.random.Generator) -> Release:
        """The noisy sum of features; its noise has the scale sqrt(2 m) / epsilon.

        Args:
          points: (n, dim), private.
          rng: of the noise; never seeded like the public features.
        """
        public = np.random.default_rng(self.feature_seed)
        frequencies = public.normal(scale=math.sqrt(2), size=(self.dim, self.features))
        phases = public.uniform(0, 2 * math.pi, self.features)

        def mapped(some: Array) -> Array:
            return np.cos(some @ frequencies + phases) * math.sqrt(2 / self.features)

        points = records(points, self.dim)
        chunks = range(0, len(points), _ROWS)
        total = sum(
            (mapped(points[i : i + _ROWS]).sum(0) for i in chunks),
            start=np.zeros(self.features),
        )
        bound = math.sqrt(2 * self.features)
        noise = laplace(rng, bound, self.epsilon, self.features)
        return Release(total + noise, lambda sums, queries: mapped(queries) @ sums)
