"""Rows of w = C^-1 z, one after the other, in little memory.

C w = z is solved forwards: from the last bands - 1 rows of w, from one running sum of w
for each buffer, or by drawing all earlier z again.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from dpkit.mechanisms.noise import wide
from dpkit.mechanisms.protocol import Key, PyTree
from dpkit.mechanisms.strategies import Banded, Buffered, SquareRoot, Strategy

Draw = Callable[[Key, PyTree], PyTree]
_KEY_WORDS = 8  # of the longest keys


def empty_memory(strategy: Strategy, steps: int, like: PyTree) -> PyTree:
    """What a stream remembers before its first row."""
    match strategy:
        case Banded():
            copies = min(len(strategy.bands), steps) - 1
        case Buffered():
            copies = len(strategy.decays)
        case SquareRoot():
            return jnp.zeros((steps, _KEY_WORDS), jnp.uint32)
    return jax.tree.map(
        lambda leaf: jnp.zeros((copies, *leaf.shape), wide(leaf.dtype)), like
    )


def next_row(
    strategy: Strategy,
    draw: Draw,
    key: Key,
    like: PyTree,
    number: jax.Array,
    memory: PyTree,
) -> tuple[PyTree, PyTree]:
    """Row `number` of w, and the memory after it; `draw` makes one row of z."""
    match strategy:
        case Banded():
            return _banded(strategy, draw(key, like), number, memory)
        case Buffered():
            return _buffered(strategy, draw(key, like), memory)
        case SquareRoot():
            return _root(strategy, draw, key, like, number, memory)


def _banded(
    strategy: Banded, z: PyTree, number: jax.Array, memory: PyTree
) -> tuple[PyTree, PyTree]:
    """w_t = z_t - sum_{j >= 1} c_j w_{t-j}, from a ring of the last rows."""
    rows = max((len(ring) for ring in jax.tree.leaves(memory)), default=0)
    if rows == 0:
        return z, memory
    bands = jnp.asarray(np.asarray(strategy.bands[1 : rows + 1], np.float32))
    # Row t is in place t mod rows: the row in place p is 1 + (t - 1 - p) mod rows old.
    weights = bands[jnp.mod(number - 1 - jnp.arange(rows, dtype=jnp.int32), rows)]
    w = jax.tree.map(lambda row, ring: row - _weighted(weights, ring), z, memory)
    place = jnp.mod(number, rows)

    def replace(ring: jax.Array, row: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_index_in_dim(ring, row, place, 0)

    return w, jax.tree.map(replace, memory, w)


def _buffered(strategy: Buffered, z: PyTree, memory: PyTree) -> tuple[PyTree, PyTree]:
    """w_t = z_t - sum_i w_i s_i, then s_i = d_i s_i + w_t."""
    weights = jnp.asarray(np.asarray(strategy.weights, np.float32))
    decays = np.asarray(strategy.decays, np.float32)
    w = jax.tree.map(lambda row, sums: row - _weighted(weights, sums), z, memory)

    def decayed(sums: jax.Array, row: jax.Array) -> jax.Array:
        factors = jnp.asarray(decays.reshape((-1,) + (1,) * row.ndim), row.dtype)
        return factors * sums + row[None]

    return w, jax.tree.map(decayed, memory, w)


def _root(
    strategy: SquareRoot,
    draw: Draw,
    key: Key,
    like: PyTree,
    number: jax.Array,
    memory: jax.Array,
) -> tuple[PyTree, PyTree]:
    """w_t = sum_{u <= t} inverse_{t-u} z_u; every z_u is drawn again from its key."""
    (key,) = jax.random.split(key, 1)
    impl, words = jax.random.key_impl(key), jax.random.key_data(key)
    memory = memory.at[number, : len(words)].set(words, mode="drop")
    inverse = jnp.asarray(strategy.inverse(len(memory)))

    def add(u: jax.Array, w: PyTree) -> PyTree:
        again = jax.random.wrap_key_data(memory[u, : len(words)], impl=impl)
        factor = inverse[number - u]
        z = draw(again, like)
        return jax.tree.map(lambda a, b: a + factor.astype(b.dtype) * b, w, z)

    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, wide(x.dtype)), like)
    return jax.lax.fori_loop(0, number + 1, add, zeros), memory


def _weighted(weights: jax.Array, rows: jax.Array) -> jax.Array:
    """Sum of rows, each times its weight."""
    # Not a matrix product: that rounds as a device likes, and in another order where
    # the rows are spread over a mesh.
    shape = (-1,) + (1,) * (rows.ndim - 1)
    return jnp.sum(weights.astype(rows.dtype).reshape(shape) * rows, axis=0)
