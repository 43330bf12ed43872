"""Sums over examples whose rounding one example can't steer far.

In a chain of float32 additions every sum is rounded to its own size, so one example at
the front can move the rounding of all that follow it. Up to 32 examples are added that
way, in one product; eight such blocks by halves; and what is more by Kahan's sum, which
hands on what an addition rounds away.

With and without one example, a chain of m gradients of norm C, whose k-th sum has norm
k C at most, differs by 2 sum_k k 2^-24 C, that is m + 1 units of 2^-24 C an example,
beyond the example itself; every halving by 2 more, Kahan's sum by 4, the one over
chunks of a batch by 4 again, and the chain over D devices by D + 1. That is 49 of the
64 units, n 2^-18 C in all, that the noise of `GaussianSum` pays for, on one device, and
no more than these on up to 14. It holds where each gradient is one number an entry: of
rows that cancel within an example only the result counts as bounded by C, and the sums
on the way to it may be rounded more (docs/guarantees.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from dpkit.mechanisms.protocol import tree_sum

CHAIN, TREE = 32, 256


def summed(
    part: Callable[[Any], Sequence[jax.Array]], rows: Any, size: int
) -> list[jax.Array]:
    """What `part` makes of all rows, block by block.

    Args:
      part: from rows (b, ...) to sums over them.
      rows: a tree of arrays (size, ...).
      size: of the batch.

    Returns:
      The sums over all rows, of `part`'s shapes and dtypes.

    Example:
      >>> summed(lambda rows: [rows.sum(0)], jnp.ones((40, 2)), 40)
      [Array([40., 40.], dtype=float32)]
    """
    if size <= TREE:
        return _by_halves(part, rows, size)
    count = size // TREE

    def add(i: jax.Array, carry: Any) -> Any:
        total, lost = carry
        block = jax.tree.map(
            lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, i * TREE, TREE), rows
        )
        return compensated(total, lost, _by_halves(part, block, TREE))

    shapes = jax.eval_shape(part, _cut(rows, 0, CHAIN))
    zeros = [jnp.zeros(shape.shape, shape.dtype) for shape in shapes]
    total, lost = jax.lax.fori_loop(0, count, add, (zeros, zeros))
    rest = size - count * TREE
    if rest:
        tail = _by_halves(part, _cut(rows, size - rest, size), rest)
        total, _ = compensated(total, lost, tail)
    return total


def compensated(total: Any, lost: Any, part: Any) -> tuple[Any, Any]:
    """One addition of Kahan's sum: the total, and what was rounded away.

    Args:
      total: the sum so far, a tree.
      lost: what it has too much, from the addition before; zeros at first.
      part: what is added.

    Example:
      >>> total, lost = compensated([jnp.float32(2**24)], [jnp.float32(0)], [1.0])
      >>> float(total[0]), float(lost[0])
      (16777216.0, -1.0)
    """
    part = jax.tree.map(jnp.subtract, part, lost)
    rounded = jax.tree.map(jnp.add, total, part)
    lost = jax.tree.map(lambda r, t, p: (r - t) - p, rounded, total, part)
    return rounded, lost


def _by_halves(part: Any, rows: Any, size: int) -> list[jax.Array]:
    """The sum of some blocks."""
    count = size // CHAIN
    if count < 2:
        return list(part(rows)) if size <= CHAIN else _two(part, rows, CHAIN, size)
    whole = count * CHAIN
    if whole < size:
        return _two(part, rows, whole, size)
    blocks = jax.tree.map(
        lambda leaf: leaf.reshape(count, CHAIN, *leaf.shape[1:]), rows
    )
    return list(map(tree_sum, jax.vmap(part)(blocks)))


def _two(part: Any, rows: Any, middle: int, size: int) -> list[jax.Array]:
    """The sum of what comes before a row, and of the rest."""
    first = _by_halves(part, _cut(rows, 0, middle), middle)
    rest = _by_halves(part, _cut(rows, middle, size), size - middle)
    return list(map(jnp.add, first, rest))


def _cut(rows: Any, start: int, stop: int) -> Any:
    """Some of the rows."""
    return jax.tree.map(lambda leaf: leaf[start:stop], rows)
