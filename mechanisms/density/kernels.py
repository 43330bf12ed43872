r"""Six kernels, k(x, x) = 1, and the random frequencies whose waves average to them.

By Bochner's theorem k(x - y) = E cos(w . (x - y) / h) for frequencies w of the law in
the table; those of 1 / (1 + z) are mixtures of those of exp(-z), as 1 / (1 + z) is the
integral of exp(-t) exp(-t z) over t > 0.

| name | k(x, y), r = ||x - y||_2 | w |
|---|---|---|
| `gaussian` | exp(-r^2 / h^2) | sqrt(2) g, g ~ N(0, I) |
| `exponential` | exp(-r / h) | g / abs(g0), g0 ~ N(0, 1) |
| `laplacian` | exp(-||x - y||_1 / h) | independent Cauchy |
| `cauchy` | 1 / (1 + r^2 / h^2) | sqrt(2 t) g, t ~ Exp(1) |
| `rational` | 1 / (1 + r / h) | t g / abs(g0) |
| `rational_l1` | 1 / (1 + ||x - y||_1 / h) | t times independent Cauchy |

Sources: Rahimi and Recht, "Random Features for Large-Scale Kernel Machines", 2007; Yu
et al., "Orthogonal Random Features", 2016, arXiv:1610.09072; the last three kernels:
Backurs, Lin, Mahabadi, Silwal, Tarnawski, "Efficiently Computing Similarities to
Private Datasets", 2024, arXiv:2403.08917.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.typing import ArrayLike

from dpkit.accountants.answers import checks

KERNELS = (
    "gaussian",
    "exponential",
    "laplacian",
    "cauchy",
    "rational",
    "rational_l1",
)
# Whether a kernel is a function of the l1 distance; and whether it is smooth at zero.
_BY_L1 = ("laplacian", "rational_l1")
_SMOOTH = ("gaussian", "cauchy")


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One of the six kernels, with its bandwidth.

    Args:
      name: see the table above.
      bandwidth: h > 0, in the unit of the points; public.

    Raises:
      ValueError: an unknown name; a bandwidth that is not positive and finite.

    Example:
      >>> Kernel("gaussian", 2.0).between([[0.0, 0.0]], [[2.0, 0.0]]).round(4)
      array([[0.3679]])
    """

    name: str
    bandwidth: float

    def __post_init__(self) -> None:
        """Refuses what is no kernel."""
        if self.name not in KERNELS:
            raise ValueError(f"kernel={self.name!r}: needed one of {KERNELS}")
        bandwidth = checks.positive(bandwidth=self.bandwidth)
        object.__setattr__(self, "bandwidth", bandwidth)

    @property
    def smooth(self) -> bool:
        """Whether it is smooth where x = y."""
        return self.name in _SMOOTH

    @property
    def turns(self) -> bool:
        """Whether it stays the same where space is turned."""
        return self.name not in _BY_L1

    @property
    def factors(self) -> bool:
        """Whether it is a product over coordinates."""
        return self.name in ("gaussian", "laplacian")

    def of(self, steps: Any, xp: Any = np) -> Any:
        """k by the difference of x and y in bandwidths, along the last axis."""
        if self.name in _BY_L1:
            distance = xp.abs(steps).sum(-1)
        else:
            distance = xp.square(steps).sum(-1)
        return self.by_distance(distance, xp)

    def by_distance(self, distance: Any, xp: Any = np) -> Any:
        """k by the l1 distance, or the squared l2 distance, in bandwidths."""
        if self.name in ("exponential", "rational"):
            distance = xp.sqrt(distance)
        if self.name in ("gaussian", "exponential", "laplacian"):
            return xp.exp(-distance)
        return 1.0 / (1.0 + distance)

    def between(self, first: ArrayLike, second: ArrayLike) -> np.ndarray:
        """k of every pair, (n, m), float64, by a loop over coordinates.

        Args:
          first, second: (n, d) and (m, d).
        """
        first, second = (np.asarray(x, np.float64) for x in (first, second))
        distance = np.zeros((len(first), len(second)))
        with np.errstate(over="ignore", under="ignore"):  # what is too far is at 0
            for a, b in zip(first.T, second.T, strict=True):
                step = np.subtract.outer(a, b) / self.bandwidth
                distance += np.abs(step) if self.name in _BY_L1 else np.square(step)
            return self.by_distance(distance)

    def rows(self, points: Any, centres: Any) -> Any:
        """k of each of some points in bandwidths to every centre, for the device.

        Differences are taken before they are squared, so that the relative error of a
        distance is (d + 2) 2^-24 wherever the points are.

        Args:
          points: (rows, d). centres: (m, d), in bandwidths too.

        Returns:
          (rows, m).
        """
        distance = jnp.zeros((len(points), len(centres)), points.dtype)
        for j in range(points.shape[1]):
            step = points[:, j, None] - centres[None, :, j]
            distance += jnp.abs(step) if self.name in _BY_L1 else jnp.square(step)
        return self.by_distance(distance, jnp)

    def frequencies(
        self, count: int, dimension: int, seed: int, *, orthogonal: bool = False
    ) -> np.ndarray:
        """Random frequencies; public, and independent of any data.

        Args:
          count: p. dimension: d.
          seed: public.
          orthogonal: whether directions are drawn at right angles, d at a time; the
            lengths have the same law. For kernels that stay the same when turned.

        Returns:
          (p, d), in radians a bandwidth.

        Raises:
          ValueError: orthogonal ones of a kernel that depends on the axes.

        Example:
          >>> Kernel("gaussian", 1.0).frequencies(3, 2, seed=0).shape
          (3, 2)
        """
        if orthogonal and not self.turns:
            raise ValueError(
                f"orthogonal=True with kernel={self.name!r}: needed a kernel of the "
                "l2 distance; leave it out"
            )
        generator = np.random.default_rng(checks.integer_at_least(0, seed=seed))
        shape = (count, dimension)
        if self.name in _BY_L1:
            found = generator.standard_cauchy(shape)
        else:
            found = generator.normal(size=shape)
        if self.name == "gaussian":
            found *= np.sqrt(2.0)
        elif self.name == "cauchy":
            found *= np.sqrt(2.0 * generator.exponential(size=(count, 1)))
        elif self.name in ("exponential", "rational"):
            found /= np.abs(generator.normal(size=(count, 1)))
        if self.name in ("rational", "rational_l1"):
            found *= generator.exponential(size=(count, 1))
        if orthogonal:
            lengths = np.linalg.norm(found, axis=1)
            return at_right_angles(lengths, dimension, generator)
        return found


def projection(dimension: int, kept: int, seed: int, kind: str = "srht") -> np.ndarray:
    """A random linear map to fewer dimensions that nearly keeps distances; public.

    A subsampled randomized Hadamard transform: signs, a Hadamard matrix, `kept` of its
    rows. It is independent of any data, so it changes nothing in privacy.

    Args:
      dimension: d. kept: k, at most the next power of two from d.
      seed: public.
      kind: "srht".

    Returns:
      (d, k): points @ map.

    Raises:
      ValueError: an unknown kind, or more dimensions than there are.

    Example:
      >>> projection(5, 3, seed=0).shape
      (5, 3)

    Reference: Ailon and Chazelle, "The fast Johnson-Lindenstrauss transform", 2009.
    """
    if kind != "srht":
        raise ValueError(f"projection={kind!r}: needed None or 'srht'")
    padded = 1 << (dimension - 1).bit_length()
    kept = checks.integer_at_least(1, kept=kept)
    if kept > padded:
        raise ValueError(f"kept={kept!r}: needed at most {padded} dimensions")
    generator = np.random.default_rng(seed)
    signs = generator.choice([-1.0, 1.0], dimension)
    rows = generator.choice(padded, kept, replace=False)
    hadamard = scipy.linalg.hadamard(padded)[:dimension, rows]
    return signs[:, None] * hadamard / np.sqrt(kept)


def at_right_angles(
    lengths: np.ndarray, dimension: int, generator: np.random.Generator
) -> np.ndarray:
    """Uniform directions of these lengths, (p, d); at right angles d at a time.

    Example:
      >>> found = at_right_angles(np.ones(2), 2, np.random.default_rng(0))
      >>> bool(abs(found[0] @ found[1]) < 1e-12)
      True
    """
    count = len(lengths)
    blocks = -(-count // dimension)
    drawn = generator.normal(size=(blocks, dimension, dimension))
    directions = np.linalg.qr(drawn)[0].transpose(0, 2, 1)
    directions *= generator.choice([-1.0, 1.0], (blocks, dimension, 1))
    return directions.reshape(-1, dimension)[:count] * lengths[:, None]
