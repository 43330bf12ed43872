r"""Kernel sums at public landmarks: exact but for the noise where the query is one.

For public points U, K_UU + lambda I = L L^T, the record's features are
phi(x) = L^-1 k_U(x), of length at most 1 (a Schur complement of a kernel matrix). Since
that is linear, sums of k_U(x) are kept, and noise is L z: the same release. At a
landmark the answer is the sum itself, with noise sqrt(1 + lambda) noise_multiplier.
Elsewhere it is the best linear guess from the landmarks, off by at most
sqrt((1 - ||phi(x)||^2) (1 - ||phi(y)||^2)) a point.

The second factor is public; the first is judged from what was published, as kriging
does: by how well each landmark's sum is guessed from the others'.

Sources: Hall, Rinaldo, Wasserman, "Differential Privacy for Functions and Functional
Data", 2013, arXiv:1203.2570, for noise with the kernel's covariance; Rasmussen and
Williams, "Gaussian Processes for Machine Learning", 2006, for leaving one out.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
import scipy.linalg

from dpkit.accountants.answers import checks
from dpkit.mechanisms.density.grid_noise import Laplace, Reach
from dpkit.mechanisms.density.kernels import Kernel
from dpkit.mechanisms.density.public_array import PublicArray
from dpkit.mechanisms.density.structure import Answers, Structure
from dpkit.mechanisms.protocol import static

COUNT_WEIGHT = 0.1
MOST_LANDMARKS = 8192


@static
@dataclasses.dataclass(frozen=True, kw_only=True)
class LandmarkSketch(Structure):
    r"""Noisy kernel sums at public points; answers are sums of k(x, y) over x.

    Privacy: the features (phi(x), a) have length at most sqrt(1 + a^2); float32 kernel
    values, each within e of those of some point, and rounding stretch that by
    ||L^-1||_2 sqrt(m) e, which is added. A replaced point moves them by sqrt(2), since
    kernels are not negative, and rounding twice.

    Args:
      kernel: which, and its bandwidth.
      landmarks: public, (m, d). Not from the records: that would publish them.
      landmarks_public: True says so, aloud.
      jitter: lambda, from 1e-8 to 1, is added to the noise's covariance; more is more
        noise, less stretches the rounding.

    Raises:
      ValueError, TypeError: a field out of range, landmarks that aren't declared
        public, or the same one twice.

    Example:
      >>> from dpkit.mechanisms.density.grid_noise import Gaussian
      >>> sketch = LandmarkSketch(
      ...     kernel=Kernel("gaussian", 1.0), landmarks=[[0.0, 0.0], [3.0, 0.0]],
      ...     landmarks_public=True, noise=Gaussian(4.0))
      >>> sketch.reliability([[0.0, 0.0], [50.0, 0.0]]).round(2)
      array([0., 1.])
    """

    kernel: Kernel
    landmarks: PublicArray
    landmarks_public: bool = False
    jitter: float = 1e-4

    steps: ClassVar[int] = 2**22

    def __post_init__(self) -> None:
        """Refuses what doesn't fit together."""
        if not isinstance(self.kernel, Kernel):
            raise TypeError(f"kernel={self.kernel!r}: needed a Kernel")
        if self.landmarks_public is not True:
            raise ValueError(
                f"landmarks_public={self.landmarks_public!r}: needed True, since "
                "landmarks are published as they are; take a public sample, or the "
                "queries, never private records"
            )
        landmarks = PublicArray(self.landmarks, "landmarks")
        object.__setattr__(self, "landmarks", landmarks)
        count = len(landmarks.array)
        if count > MOST_LANDMARKS:
            raise ValueError(f"landmarks={count}: needed at most {MOST_LANDMARKS}")
        if not 1e-8 <= checks.positive(jitter=self.jitter) <= 1:
            raise ValueError(f"jitter={self.jitter}: needed a number in [1e-8, 1]")
        if len(np.unique(landmarks.array, axis=0)) < count:
            raise ValueError("landmarks: needed different ones; one is there twice")
        super().__post_init__()
        if isinstance(self.noise, Laplace):
            raise TypeError(
                f"noise={self.noise!r}: needed Gaussian or Radial noise, which can be "
                "given the kernel's covariance"
            )

    @property
    def dimension(self) -> int:
        """d: how many coordinates a point has."""
        return self.landmarks.array.shape[1]

    @property
    def count(self) -> int:
        """m: how many landmarks there are."""
        return len(self.landmarks.array)

    @property
    def size(self) -> int:
        """A sum a landmark, and the count."""
        return self.count + 1

    @functools.cached_property
    def factor(self) -> np.ndarray:
        """L, lower triangular, (m, m) float64."""
        covariance = self._line.between(self._centres, self._centres)
        covariance[np.diag_indices(self.count)] = 1 + self.jitter
        return np.asarray(scipy.linalg.cholesky(covariance, lower=True))

    def point_reach(self) -> Reach:
        """Of (phi(x), a), in L2; in L1 by the sizes of its entries."""
        # A float32 distance is right to (d + 3) u of itself, which moves no kernel by
        # more than 1 / e of that; exponential and quotients by 8 u. And half a step.
        error = ((self.dimension + 3) / math.e + 8) * 2**-24 + self.step / 2
        smallest = math.sqrt(max(self.jitter, self._least))
        stretched = math.sqrt(self.count) * error / smallest
        l2 = math.sqrt((1 + stretched) ** 2 + COUNT_WEIGHT**2)
        # Kernels are not negative, so two points are sqrt(2) apart at most, and their
        # projections too; of one point against none the count is there as well.
        far = math.sqrt(2) + 2 * stretched
        l1 = math.sqrt(self.size)
        return Reach(l2, l1 * l2, far, l1 * far)

    @functools.cached_property
    def _least(self) -> float:
        """The least eigenvalue of K_UU + lambda I, less what rounding may be."""
        gram = self.factor @ self.factor.T
        least: Any = scipy.linalg.eigvalsh(gram, subset_by_index=[0, 0])
        return float(least[0]) - 1e-12 * self.count

    @property
    def _line(self) -> Kernel:
        """The kernel of points in bandwidths."""
        return Kernel(self.kernel.name, 1.0)

    @functools.cached_property
    def _centres(self) -> np.ndarray:
        """The landmarks in bandwidths, as float32 has them."""
        return _single(self.landmarks.array / self.kernel.bandwidth)

    def placed(self, points: Any) -> Any:
        """Points in bandwidths."""
        return points / self.kernel.bandwidth

    def features(self, placed: Any, labels: Any) -> tuple[Any, tuple[Any, ...]]:
        """The kernel to every landmark, and the count."""
        del labels
        near = self.kernel.rows(placed, jnp.asarray(self._centres, jnp.float32))
        return None, (near, jnp.full((len(placed), 1), COUNT_WEIGHT))

    def shaped(self, noise: np.ndarray) -> np.ndarray:
        """L z at the landmarks; the count's as it is."""
        at_landmarks = noise[..., :-1] @ self.factor.T
        return np.concatenate([at_landmarks, noise[..., -1:]], axis=-1)

    def answer(self, values: np.ndarray, queries: np.ndarray) -> Answers:
        """The sum at a landmark; elsewhere the best guess from all of them."""
        weights, left = self._weights(queries)
        norms = np.linalg.norm(weights, axis=0)
        white = scipy.linalg.solve_triangular(self.factor, values[:-1], lower=True)
        own = self._scale(values) * np.sqrt(left)
        records = abs(values[-1]) / COUNT_WEIGHT + self.stddev / COUNT_WEIGHT
        rounding = np.full(len(queries), records * (self.dimension + 8) * 2**-24)
        return Answers(white @ weights, np.hypot(self.bar * norms, own), rounding)

    def _weights(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """L^-1 k_U(y), (m, q), and what it lacks to length 1, squared."""
        near = self._line.between(self._centres, _single(self.placed(queries)))
        same = near == 1.0
        near[same] += self.jitter  # what is there twice has its noise twice
        weights: Any = scipy.linalg.solve_triangular(self.factor, near, lower=True)
        left = 1 - (weights**2).sum(axis=0)
        return weights, np.where(same.any(axis=0), 0.0, np.clip(left, 0.0, 1.0))

    def _scale(self, values: np.ndarray) -> float:
        """How large the part is that landmarks don't see, for a query far away.

        alpha = K^-1 Z. Guessed from the others, landmark i is off by alpha_i / Q_i,
        Q = K^-1, where 1 / Q_i is what the query of a point there would be unreliable
        by; of the mean of alpha_i^2 / Q_i noise explains its variance.
        """
        inverse = self._inverse
        alpha = inverse @ values[:-1]
        mean = float(np.mean(alpha**2 / np.diag(inverse)))
        return math.sqrt(max(mean - self.stddev**2, 0.0))

    @functools.cached_property
    def _inverse(self) -> np.ndarray:
        """(K_UU + lambda I)^-1."""
        found = scipy.linalg.cho_solve((self.factor, True), np.eye(self.count))
        return np.asarray(found)

    def reliability(self, queries: Any) -> np.ndarray:
        """1 - ||phi(y)||^2 of queries: 0 at a landmark, 1 far from all; public."""
        return self._weights(self.checked(queries))[1]

    def count_answer(self, values: np.ndarray) -> Answers:
        """How many points there are."""
        stddev = np.array([self.bar / COUNT_WEIGHT])
        value = values[-1:] / COUNT_WEIGHT
        return Answers(value, stddev, np.zeros(1)).times(self.max_weight)

    def expected_error(self, records: float) -> float:
        """Noise; of queries that are landmarks, or near them."""
        del records
        return self.max_weight * self.stddev * math.sqrt(1 + self.jitter)


def _single(array: np.ndarray) -> np.ndarray:
    """Float64 numbers that float32 holds."""
    return array.astype(np.float32).astype(np.float64)
