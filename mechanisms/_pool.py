"""Many small arrays drawn as one: blocks of neighbours, each of one array alone."""

from __future__ import annotations

import dataclasses
import math

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class Pool:
    """Which block of a pool belongs to which array, and where in it.

    Args:
      shapes: of the arrays.
      block: elements of a block.

    Example:
      >>> pool = Pool(((3,), (2, 4)), block=4)
      >>> pool.owners, pool.firsts
      (array([0, 1, 1]), array([0, 0, 4], dtype=uint32))
    """

    shapes: tuple[tuple[int, ...], ...]
    block: int

    @property
    def counts(self) -> list[int]:
        """Blocks of each array."""
        return [-(-math.prod(shape) // self.block) for shape in self.shapes]

    @property
    def owners(self) -> np.ndarray:
        """For each block, the number of its array."""
        return np.repeat(np.arange(len(self.shapes)), self.counts)

    @property
    def firsts(self) -> np.ndarray:
        """For each block, the index in its array of its first element."""
        indices = [self.block * np.arange(n, dtype=np.uint32) for n in self.counts]
        return np.concatenate(indices)

    def cut(self, blocks: jax.Array) -> tuple[jax.Array, ...]:
        """The arrays, out of all blocks (number of blocks or more, block)."""
        ends = np.cumsum(self.counts)
        return tuple(
            blocks[end - n : end].reshape(-1)[: math.prod(shape)].reshape(shape)
            for end, n, shape in zip(ends, self.counts, self.shapes, strict=True)
        )
