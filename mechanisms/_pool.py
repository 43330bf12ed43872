"""Many small arrays drawn as one: blocks of neighbours, each of one array alone."""

from __future__ import annotations

import dataclasses
import math

import jax
import numpy as np

from dpkit.mechanisms.pinning import hidden, kept


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

    def cut(self, blocks: jax.Array, source: jax.Array) -> tuple[jax.Array, ...]:
        """The arrays, out of all blocks, which come to lie in memory once.

        Where an array starts is a value that the compiler doesn't know: so what reads
        one array is the same program for all of its shape, and is compiled once.

        Args:
          blocks: (number of blocks or more, block).
          source: as for `kept`.
        """
        ends = np.cumsum(self.counts)
        flat = kept(blocks.reshape(-1), source)
        firsts = hidden([self.block * int(n) for n in ends - self.counts], source)
        return tuple(
            jax.lax.dynamic_slice(flat, (first,), (math.prod(shape),)).reshape(shape)
            for first, shape in zip(firsts, self.shapes, strict=True)
        )
