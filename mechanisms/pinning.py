"""Values that a compiler must compute once and keep.

Clipping reads a record twice: for its norm, and to scale it. A compiler may compute the
record anew for each reader and round it differently, for instance by contracting a
product and a sum into one operation. Where a record is a difference of nearly equal
numbers, such as a * b - c, one reader may then see zero and the other a residue of any
size, which passes unclipped. Pinned values are written to memory before anyone reads.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any


def pinned(tree: PyTree) -> PyTree:
    """The same values, in memory: all readers see the same bits.

    They come out of a loop whose number of rounds, one, is known at run time only. No
    part of a compiler moves computation across that, while barriers against
    optimisation are dropped by some backends before they fuse.

    Args:
      tree: arrays; may be traced, and batched by `vmap`.

    Returns:
      The same structure, shapes, dtypes and values.

    Example:
      >>> pinned(jnp.array([1.0, 2.0]))
      Array([1., 2.], dtype=float32)
    """
    if not any(leaf.size for leaf in jax.tree.leaves(tree)):
        return tree
    count = rounds(1, tree)

    def keep(carry: tuple[jax.Array, PyTree]) -> tuple[jax.Array, PyTree]:
        return carry[0] + 1, tree

    start = jnp.zeros_like(count), jax.tree.map(jnp.zeros_like, tree)
    return jax.lax.while_loop(lambda carry: carry[0] < count, keep, start)[1]


@jax.jit
def _one(array: jax.Array) -> jax.Array:
    """The number 1, in a way that depends on an array for all that a compiler knows."""
    entry = jax.lax.index_in_dim(array.reshape(-1), 0, keepdims=False)
    positive = (jnp.abs(entry) > 0).astype(jnp.uint32)
    return jnp.minimum(positive | 1, 1)


def kept(tree: PyTree, source: PyTree = None) -> PyTree:
    """As `pinned`, without a copy: the values stay where they were first written.

    They pass through a loop that has no round, which again is known at run time only.
    A loop's state is memory, so whatever reads the result reads that memory, and the
    state of a loop without rounds is never copied.

    Args:
      tree: arrays; may be traced.
      source: arrays to take the number of rounds from; the tree itself if left out.

    Returns:
      The same structure, shapes, dtypes and values.

    Example:
      >>> kept(jnp.array([1.0, 2.0]))
      Array([1., 2.], dtype=float32)
    """
    if not any(leaf.size for leaf in jax.tree.leaves(tree)):
        return tree
    count = rounds(0, tree if source is None else source)

    def change(carry: tuple[jax.Array, PyTree]) -> tuple[jax.Array, PyTree]:
        # Never run; state that a round left alone would be taken out of the loop.
        return carry[0] + 1, jax.tree.map(jnp.zeros_like, carry[1])

    start = jnp.zeros_like(count), tree
    return jax.lax.while_loop(lambda carry: carry[0] < count, change, start)[1]


def held_back(
    total: PyTree, key: jax.Array, source: PyTree = None
) -> tuple[PyTree, jax.Array]:
    """A sum, and a key that is there only when the sum is.

    Else a compiler may draw noise from the key early, and hold a second copy of the
    parameters while the backward pass needs the memory most.

    Args:
      total: arrays; may be traced.
      key: a typed key for the noise on them.
      source: as for `kept`.

    Returns:
      The same two values.

    Example:
      >>> total, key = held_back(jnp.ones(2), jax.random.key(0))
      >>> total, jax.random.key_data(key)
      (Array([1., 1.], dtype=float32), Array([0, 0], dtype=uint32))
    """
    leaves = jax.tree.leaves((total, key, source))
    if not any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        return total, key  # nothing is compiled together
    words = jax.random.key_data(key)
    total, words = kept((total, words), source)
    return total, jax.random.wrap_key_data(words, impl=jax.random.key_impl(key))


def hidden(numbers: Sequence[int], source: PyTree) -> list[jax.Array]:
    """Numbers that no compiler knows, though they are always the same.

    Pieces of a program that differ in such a number alone are compiled once.

    Args:
      numbers: from 0 to 2**32 - 2.
      source: as for `kept`.

    Returns:
      uint32 scalars.

    Example:
      >>> hidden([4, 7], jnp.zeros(3))
      [Array(4, dtype=uint32), Array(7, dtype=uint32)]
    """
    # Not from 0: state that starts as what a round would make of it isn't state.
    later = kept([jnp.uint32(number + 1) for number in numbers], source)
    return [number - jnp.uint32(1) for number in later]


def rounds(number: int, tree: PyTree) -> jax.Array:
    """A number of rounds that no compiler knows, though it is always the same.

    Args:
      number: it.
      tree: arrays of the program, at least one of them with entries.

    Returns:
      uint32, a scalar.

    Example:
      >>> rounds(2, jnp.zeros(3))
      Array(2, dtype=uint32)
    """
    leaf = next(leaf for leaf in jax.tree.leaves(tree) if leaf.size)
    return _one(leaf) + jnp.uint32(number) - jnp.uint32(1)
