r"""Kernel sums by random waves: paired Fourier features, for any dimension.

phi(x) = (cos w_j.x, sin w_j.x) for p frequencies, of length sqrt(p) exactly for every
x, so nothing is clipped; <phi(x), phi(y)> / p averages cos w_j.(x - y), whose mean is
the kernel. A count of weight a stands beside them. Gaussian noise on the answer has the
standard deviation sqrt(1 + a^2) noise_multiplier, whatever p and d are: so take as many
frequencies as time allows. Pure noise grows with sqrt(p), and p is a compromise.

The waves are polynomials of the fraction of a turn, within 1e-6 of cosine and sine for
every float32 number: so the length is bounded by construction, by no library's promise.

Sources: Rahimi and Recht, "Random Features for Large-Scale Kernel Machines", 2007;
Wagner, Naamad, Mishra, "Fast Private Kernel Density Estimation via Locality Sensitive
Quantization", 2023, arXiv:2307.01877, for the same with phases and Laplace noise.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dpkit.accountants.answers import checks
from dpkit.mechanisms.density.grid_noise import Noise, Reach
from dpkit.mechanisms.density.kernels import Kernel, projection
from dpkit.mechanisms.density.public_array import PublicArray
from dpkit.mechanisms.density.structure import Answers, Structure
from dpkit.mechanisms.protocol import static

COUNT_WEIGHT = 0.1  # a: the count costs .5 % of noise
# Frequencies up to which right angles help, in all and by dimension.
_MOST_ORTHOGONAL, _BLOCKS = 1024, 64
_FEW = 8  # coordinates up to which a loop is no slower than a product of matrices


@functools.cache
def _polynomials() -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Cosine and sine / u of a quarter turn either way, as powers of u^2."""
    u = np.cos(np.pi * (np.arange(4000) + 0.5) / 4000) / 4
    powers = np.vander(u**2, 6, increasing=True)
    even = np.linalg.lstsq(powers, np.cos(2 * np.pi * u), rcond=None)[0]
    odd = np.linalg.lstsq(powers * u[:, None], np.sin(2 * np.pi * u), rcond=None)[0]
    return tuple(even.tolist()), tuple(odd.tolist())


def waves(turns: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine of so many turns, each within 1e-6 for turns in [-1/2, 1/2].

    Any finite number is reduced to its fraction first, in float32: of a large one only
    as much is left as float32 holds, but the pair is still on the circle to 1e-6.

    Example:
      >>> [round(float(x), 4) for x in waves(jnp.float32(0.125))]
      [0.7071, 0.7071]
    """
    half = jnp.rint(2 * turns)
    u = turns - 0.5 * half
    square = u * u
    even, odd = _polynomials()
    cosine, sine = (_horner(square, terms) for terms in (even, odd))
    flip = 1 - 2 * jnp.abs(half - 2 * jnp.rint(0.5 * half))
    return cosine * flip, sine * u * flip


def _horner(x: jax.Array, terms: tuple[float, ...]) -> jax.Array:
    """A polynomial, its terms from the lowest on."""
    value = jnp.full_like(x, terms[-1])
    for term in terms[-2::-1]:
        value = value * x + jnp.float32(term)
    return value


@static
@dataclasses.dataclass(frozen=True, kw_only=True)
class KernelSketch(Structure):
    r"""Noisy sums of paired Fourier features; answers are sums of k(x, y) over x.

    S(y) = (1/p) sum_j [cos(w_j.y) Z_j + sin(w_j.y) Z_(p+j)]

    Privacy: a point moves the features by sqrt(p (1 + a^2)) in L2, exactly; in L1 by
    p sqrt(2) + a sqrt(p). A replaced point moves them up to twice as far: unlike the
    kernel, features may point opposite ways.

    Args:
      kernel: which, and its bandwidth.
      frequencies: w_j, public, (p, d), in radians a bandwidth; `draw` draws them.
      reduction: public, (D, d): points are mapped to fewer dimensions first.
      block: frequencies of so many in a row were drawn at right angles.

    Raises:
      ValueError, TypeError: a field out of range, or of another shape.

    Example:
      >>> from dpkit.mechanisms.density.grid_noise import Gaussian
      >>> sketch = KernelSketch.draw(Kernel("gaussian", 1.0), 2, features=256,
      ...                            noise=Gaussian(4.0))
      >>> sketch.event("add_remove"), sketch.size
      (GaussianDpEvent(noise_multiplier=4.0), 257)
      >>> noisy = sketch(jax.random.key(0), np.zeros((1000, 2), np.float32))
      >>> sketch.answers(noisy, [[0.0, 0.0]]).values.round(-2)
      array([1000.])
    """

    kernel: Kernel
    frequencies: PublicArray
    reduction: PublicArray | None = None
    block: int = 1

    def __post_init__(self) -> None:
        """Refuses what doesn't fit together."""
        if not isinstance(self.kernel, Kernel):
            raise TypeError(f"kernel={self.kernel!r}: needed a Kernel")
        frequencies = PublicArray(self.frequencies, "frequencies")
        object.__setattr__(self, "frequencies", frequencies)
        if self.reduction is not None:
            reduction = PublicArray(self.reduction, "reduction")
            object.__setattr__(self, "reduction", reduction)
            if reduction.array.shape[1] != frequencies.array.shape[1]:
                raise ValueError(
                    f"reduction={reduction!r}: needed to end in the dimension of "
                    f"frequencies={frequencies!r}"
                )
        checks.integer_at_least(1, block=self.block)
        super().__post_init__()

    @classmethod
    def draw(
        cls,
        kernel: Kernel,
        dimension: int,
        *,
        features: int,
        noise: Noise,
        feature_seed: int = 0,
        orthogonal: bool | None = None,
        reduce_to: int | None = None,
        **options: Any,
    ) -> KernelSketch:
        """A sketch with random frequencies.

        Args:
          dimension: of the points.
          features: m = 2 p, even, at least 2.
          feature_seed: public, a whole number; it has nothing to do with the noise.
          orthogonal: frequencies at right angles; None: where they help, by kernels of
            the l2 distance, up to 2,048 features, or 128 for each dimension.
          reduce_to: map points to so many dimensions first; for d in the thousands.
          options: `max_weight`, `points_per_unit`.

        Raises:
          ValueError: an odd or too small number of features.
          TypeError: a secret key in the place of the public seed.
        """
        features = checks.integer_at_least(2, features=features)
        if features % 2:
            raise ValueError(f"features={features}: needed an even number, at least 2")
        dimension = checks.integer_at_least(1, dimension=dimension)
        count, reduction = features // 2, None
        if reduce_to is not None:
            found = projection(dimension, reduce_to, feature_seed)
            reduction, dimension = PublicArray(found), reduce_to
        if orthogonal is None:
            most = max(_MOST_ORTHOGONAL, _BLOCKS * dimension)
            orthogonal = kernel.turns and count <= most
        found = kernel.frequencies(
            count, dimension, feature_seed, orthogonal=orthogonal
        )
        return cls(
            kernel=kernel,
            frequencies=PublicArray(found),
            reduction=reduction,
            block=dimension if orthogonal else 1,
            noise=noise,
            **options,
        )

    @property
    def count(self) -> int:
        """p: how many frequencies there are."""
        return len(self.frequencies.array)

    @property
    def dimension(self) -> int:
        """d: how many coordinates a point has."""
        kept = self.frequencies if self.reduction is None else self.reduction
        return kept.array.shape[1 if self.reduction is None else 0]

    @property
    def size(self) -> int:
        """Two numbers a frequency, and the count."""
        return 2 * self.count + 1

    @property
    def peak(self) -> float:
        """A wave's, or the count's."""
        return max(1.0, COUNT_WEIGHT * math.sqrt(self.count))

    def point_reach(self) -> Reach:
        """The length sqrt(p (1 + a^2)); each pair is at most sqrt(2) in L1."""
        beside = COUNT_WEIGHT * math.sqrt(self.count)
        l2 = math.sqrt(self.count * (1 + COUNT_WEIGHT**2))
        l1 = math.sqrt(2) * self.count + beside
        # The count of a replaced point stays.
        return Reach(l2, l1, 2 * math.sqrt(self.count), 2 * math.sqrt(2) * self.count)

    def placed(self, points: Any) -> Any:
        """Points in bandwidths, in few dimensions."""
        scaled = points / self.kernel.bandwidth
        if self.reduction is None:
            return scaled
        return scaled @ self.reduction.array.astype(scaled.dtype)

    def features(self, placed: Any, labels: Any) -> tuple[Any, tuple[Any, ...]]:
        """Cosines, sines, and the count."""
        del labels
        cosine, sine = self._waves(placed)
        count = jnp.full((len(placed), 1), COUNT_WEIGHT * math.sqrt(self.count))
        return None, (cosine, sine, count)

    def _waves(self, placed: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Cosines and sines, (rows, p) each."""
        turns = np.asarray(self.frequencies.array.T / (2 * np.pi), np.float32)
        if len(turns) > _FEW:
            angles = placed @ turns
        else:
            # By coordinates, so a row's rounding is its own, however many there are.
            parts = (placed[:, j, None] * row[None] for j, row in enumerate(turns))
            angles = functools.reduce(jnp.add, parts)
        # Too far out for float32: any place on the circle will do, but not none.
        return waves(jnp.where(jnp.isfinite(angles), angles, 0.0))

    def answer(self, values: np.ndarray, queries: np.ndarray) -> Answers:
        """The mean over frequencies, and what it varies by."""
        placed = np.asarray(self.placed(queries), np.float32)
        rows = max(64, 1 << (len(placed) - 1).bit_length())  # a program for each
        padded = np.zeros((rows, placed.shape[1]), np.float32)
        padded[: len(placed)] = placed
        records = abs(values[-1]) / (COUNT_WEIGHT * math.sqrt(self.count))
        own = np.asarray(values[:-1], np.float32)
        mean, variance = _means(self, own, padded, np.float32(records))
        mean = np.asarray(mean, np.float64)[: len(placed)]
        variance = np.asarray(variance, np.float64)[: len(placed)]
        variance = np.maximum(variance, self.stddev**2 / self.count)
        # Waves of float32, and sums rounded to the grid, err by less than this share.
        rounding = np.full(len(placed), (records + self.stddev) * 2**-20)
        return Answers(mean, np.sqrt(variance), rounding)

    def count_answer(self, values: np.ndarray) -> Answers:
        """How many points there are."""
        weight = COUNT_WEIGHT * math.sqrt(self.count)
        value, stddev = values[-1:] / weight, np.array([self.bar / weight])
        return Answers(value, stddev, np.zeros(1)).times(self.max_weight)

    def expected_error(self, records: float) -> float:
        """Noise, and waves of points that the query is far from: n / sqrt(2 p)."""
        noise = self.stddev / math.sqrt(self.count)
        own = records / math.sqrt(2 * self.count)
        return self.max_weight * math.hypot(noise, own)


@functools.partial(jax.jit, static_argnums=0)
def _means(
    sketch: KernelSketch, values: jax.Array, placed: jax.Array, records: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The mean of what single frequencies say, and the variance of that mean.

    Blocks at right angles are alike and independent of each other, single frequencies
    within one are not: the variance is that of the blocks' means, if there are enough
    of them, times (g - 1) / (g - 3), the variance of Student's t with g - 1 degrees.
    """
    count, block = sketch.count, sketch.block
    cosine, sine = sketch._waves(placed)
    single = cosine * values[None, :count] + sine * values[None, count:]
    if count // block < 16:
        block = 1  # an upper bound: they are drawn to cancel
    groups = count // block
    if block < _FEW:
        mean = single.mean(axis=1)
        grouped = single[:, : groups * block].reshape(len(placed), groups, block)
        means = grouped.mean(axis=2)
    else:  # a product with a small matrix: all means in one pass over the waves
        average = np.full((count, groups + 1), 1 / count, np.float32)
        average[:, :groups] = np.arange(count)[:, None] // block == np.arange(groups)
        average[:, :groups] /= block
        found = jnp.dot(single, average, precision=jax.lax.Precision.HIGHEST)
        mean, means = found[:, -1], found[:, :-1]
    if groups < 5:  # too few to tell by: single ones are sums of waves, at most n
        own = records**2 + jnp.float32(sketch.stddev**2)
        return mean, jnp.full_like(mean, own / count)
    spread = jnp.var(means, axis=1, ddof=1) / groups
    return mean, spread * (groups - 1) / (groups - 3)
