r"""The mean embedding of a table: one sum of random features, with Gaussian noise.

Each row becomes features of length 1: of its codes, one-hot and joined with its label's
one-hot code, or waves of its numbers. The sum over rows, with noise, is all that a
generator needs to be trained towards.

Source: Harder, Adamczewski, Park, "DP-MERF: Differentially Private Mean Embeddings with
Random Features for Practical Privacy-Preserving Data Generation", 2021,
arXiv:2002.11603.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from dp_accounting import DpEvent, GaussianDpEvent

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.relations import Relation
from dpkit.mechanisms import _check
from dpkit.mechanisms.noise import host_generator
from dpkit.mechanisms.protocol import BoundedSum, Key, PyTree

STEPS = 2**18  # of the grid in a feature of length 1
_ROWS = 2**12


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeanEmbedding(BoundedSum):
    """The sum of random features of rows, and their number.

    Privacy: one row moves the sum by at most 1 in L2, and the count by 1; together by
    sqrt(2), rounding to the grid included. Another row in its place moves them by at
    most twice that.

    Args:
      sizes: codes of each column. A row is its codes, one-hot over sqrt(2 d), and the
        same through waves of length scale `bandwidth`.
      features: an even number of waves.
      bandwidth: public; never from the rows.
      noise_multiplier: of the noise, in units of what one row moves.
      seed: of the waves; public.

    Example:
      >>> sums = MeanEmbedding(sizes=(2, 3), features=8, bandwidth=1.0,
      ...                      noise_multiplier=2.0)
      >>> sums.size, sums.event("add_remove")
      (9, GaussianDpEvent(noise_multiplier=2.0))
    """

    sizes: tuple[int, ...]
    features: int
    bandwidth: float
    noise_multiplier: float
    seed: int = 0

    draws_on_host: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuses numbers out of range."""
        checks.positive(bandwidth=self.bandwidth)
        checks.positive(noise_multiplier=self.noise_multiplier)
        checks.integer_at_least(2, features=self.features)
        if self.features % 2:
            raise ValueError(f"features={self.features} must be even: waves are pairs")
        if not self.sizes or min(self.sizes) < 1:
            raise ValueError(f"sizes={self.sizes}: needed columns with codes")

    @property
    def size(self) -> int:
        """How many numbers are published: waves, and the count."""
        return self.features + 1

    @property
    def reach(self) -> float:
        """How far one row moves them, in L2, rounding included."""
        rounding = math.sqrt(self.features) / 2 / STEPS
        return math.hypot(1 + 2**-18 + rounding, 1.0)

    @functools.cached_property
    def _waves(self) -> np.ndarray:
        """(codes of all columns, features / 2) float32."""
        generator = np.random.default_rng([self.seed, 7])
        shape = (sum(self.sizes), self.features // 2)
        return generator.standard_normal(shape, np.float32) / np.float32(self.bandwidth)

    def event(self, relation: Relation | str) -> DpEvent:
        """A Gaussian; accountants double what a replaced row moves."""
        del relation
        return GaussianDpEvent(self.noise_multiplier)

    def embedded(self, weights: Any) -> jax.Array:
        """Features of rows given as one-hot codes, or soft ones, (n, sum of sizes)."""
        angles = jnp.asarray(weights, jnp.float32) @ jnp.asarray(self._waves)
        scale = math.sqrt(2 / self.features)
        return scale * jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)

    def one_hot(self, codes: Any) -> jax.Array:
        """Codes (n, d) as (n, sum of sizes); a code outside its column is none."""
        codes = jnp.asarray(codes)
        parts = [
            jax.nn.one_hot(codes[..., n], size) for n, size in enumerate(self.sizes)
        ]
        return jnp.concatenate(parts, axis=-1)

    def contribute(self, key: Key, record: PyTree) -> jax.Array:
        """One row's features and its one, in whole steps, (size,) int32."""
        del key
        features = self.embedded(self.one_hot(record)[None])[0]
        steps = jnp.rint(jnp.clip(features, -1, 1) * STEPS).astype(jnp.int32)
        return jnp.append(steps, jnp.int32(STEPS))

    def total(self, codes: Any) -> np.ndarray:
        """The sum over rows in whole steps, (size,) int64: private."""
        codes = np.asarray(codes)
        if codes.dtype.kind not in "iu":
            raise TypeError(f"codes={codes.dtype}: needed whole numbers")
        total = np.zeros(self.size, np.int64)
        for begin in range(0, len(codes), _ROWS):
            some = codes[begin : begin + _ROWS]
            # Always of one length: programs round by how many rows there are.
            batch = np.full((_ROWS, len(self.sizes)), -1, np.int32)
            batch[: len(some)] = some
            steps = np.asarray(_summed(self, batch))[: len(some)]
            total += steps.sum(axis=0, dtype=np.int64)
        return total

    def privatize(self, key: Key, total: Any) -> np.ndarray:
        """The sum with noise, float64 (..., size), in units of rows."""
        total = np.asarray(total)
        if total.dtype != np.int64:
            raise TypeError(f"total={total.dtype}: needed int64")
        scale = self.noise_multiplier * self.reach * STEPS
        noise = np.rint(host_generator(key).normal(scale=scale, size=total.shape))
        return (total + noise.astype(np.int64)) / STEPS

    def __call__(self, key: Key, records: PyTree) -> np.ndarray:
        """Release: features of all rows, and their number, with noise."""
        _check.typed_key(key)
        return self.privatize(jax.random.split(key)[1], self.total(records))


@functools.partial(jax.jit, static_argnums=0)
def _summed(sums: MeanEmbedding, codes: jax.Array) -> jax.Array:
    """Every row's features in whole steps."""
    return jax.vmap(lambda row: sums.contribute(None, row))(codes)
