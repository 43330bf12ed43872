"""Sixty-four random bits for every element of an array, from one key.

Threefry-2x32 with 20 rounds, counter = the element's index in the whole array: the
generator of JAX itself (`jax.random.bits` returns the exclusive or of our two words),
written as straight-line code. On a CPU the backend's own lowering is a rolled loop
that is about eight times slower, and gives half the bits. An element's bits depend on
its global index alone, so every device of a mesh makes exactly its own shard.

Source: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3",
2011. Statistically strong, not a cryptographic generator, and the key holds 64 bits.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)


@functools.partial(jax.jit, static_argnames="shape")
def random_words(key: jax.Array, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Two independent uint32 words, high and low, for every element of `shape`.

    Raises:
      ValueError: 2**32 elements or more, which one 32-bit counter can't tell apart.

    Example:
      >>> high, low = random_words(jax.random.key(0), (3,))
      >>> bool((high ^ low == jax.random.bits(jax.random.key(0), (3,))).all())
      True
    """
    return words_of(jax.random.key_data(key), shape)


def words_of(
    key_words: jax.Array, shape: tuple[int, ...]
) -> tuple[jax.Array, jax.Array]:
    """`random_words` of a key that is given as its two words."""
    if math.prod(shape) >= 2**32:
        raise ValueError(f"shape={shape}: needed fewer than 2**32 elements; split it")
    first, second = key_words
    return threefry_2x32((first, second), (jnp.uint32(0), _flat_index(shape)))


def threefry_2x32(
    key: tuple[jax.Array, jax.Array], counter: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """The block function: 20 rounds, the key injected before each group of four."""
    words = (key[0], key[1], key[0] ^ key[1] ^ _PARITY)
    left, right = counter[0] + words[0], counter[1] + words[1]
    for group in range(5):
        for distance in _ROTATIONS[group % 2]:
            left = left + right
            right = _rotate_left(right, distance) ^ left
        left = left + words[(group + 1) % 3]
        right = right + words[(group + 2) % 3] + np.uint32(group + 1)
    return left, right


def _rotate_left(word: jax.Array, distance: int) -> jax.Array:
    """The 32-bit word turned left."""
    return (word << np.uint32(distance)) | (word >> np.uint32(32 - distance))


def _flat_index(shape: tuple[int, ...]) -> jax.Array:
    """Row-major index of every element, as a sum of per-axis iotas (these shard)."""
    index = jnp.zeros(shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(len(shape))):
        iota = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
        index = index + iota * np.uint32(stride % 2**32)
        stride *= shape[axis]
    return index
