"""Synthetic data for densities and distances: each draw is a function of its generator.

Everything here is public: an experiment says what stands for private records.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from experiments.baselines.release import Array

SIDE = 9
_WIDTH = 3.95  # about the root of half the median squared distance


def bumps(n: int, dim: int, rng: np.random.Generator) -> Array:
    """Half N(3, 0.7^2 I), half N(6, I), moved into the box [0, SIDE]^dim.

    Args:
      n: points, (n, dim).
      dim: of each.
      rng: what they are drawn from.

    Example:
      >>> bumps(1000, 2, np.random.default_rng(0)).mean(0).round().tolist()
      [4.0, 4.0]
    """
    first = rng.normal(3.0, 0.7, (n // 2, dim))
    second = rng.normal(6.0, 1.0, (n - n // 2, dim))
    return np.clip(np.concatenate([first, second]), 0, SIDE)


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Ten centres N(0, I), points N(centre, 0.5^2 I), all divided by 3.95.

    Private records, public landmarks and queries are draws of it with generators of
    their own.

    Attributes:
      centres: (10, dim).
    """

    centres: Array

    @classmethod
    def drawn(cls, dim: int, rng: np.random.Generator) -> Mixture:
        """New centres."""
        return cls(rng.normal(size=(10, dim)))

    def points(self, n: int, rng: np.random.Generator) -> Array:
        """Draws (n, dim), each of a random centre."""
        around = self.centres[rng.integers(len(self.centres), size=n)]
        return (around + rng.normal(0, 0.5, around.shape)) / _WIDTH


def skewed(n: int, dim: int, rng: np.random.Generator) -> Array:
    """Points for distances: coordinates in [0, 1] by Beta(2, 5).

    Args:
      n: points, (n, dim).
      dim: of each.
      rng: what they are drawn from.

    Example:
      >>> skewed(1000, 1, np.random.default_rng(0)).mean().round(1).item()
      0.3
    """
    return rng.beta(2.0, 5.0, (n, dim))


def embeddings(
    n: int, dim: int, rng: np.random.Generator, classes: int = 10
) -> tuple[Array, Array]:
    """Rows of norm 1 like those of an image encoder, and their classes.

    x ~ m + 0.6 mu_c + 3 z / sqrt(dim), with m and mu_c from N(0, I) / sqrt(dim).

    Args:
      n: rows.
      dim: of each.
      rng: what they are drawn from.
      classes: equally probable.

    Returns:
      (n, dim) float32, and (n,) integers.

    Example:
      >>> x, labels = embeddings(100, 512, np.random.default_rng(0))
      >>> x.shape, bool(np.allclose((x**2).sum(1), 1)), sorted(set(labels.tolist()))
      ((100, 512), True, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """
    common, *centres = rng.normal(size=(classes + 1, dim)) / np.sqrt(dim)
    labels = rng.integers(classes, size=n)
    noise = rng.normal(size=(n, dim)) * (3 / np.sqrt(dim))
    x = common + 0.6 * np.array(centres)[labels] + noise
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), labels
