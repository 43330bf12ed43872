"""Sixty-four random bits for every element of an array, from a key of 256 bits.

The block function of ChaCha20, a cipher: whoever lacks the key can't tell its words
from random ones by any method known. Straight-line integer code inside the compiled
program; nothing comes from the host. Element e of an array has words of the block whose
counter depends on e alone, so its bits are the same on any number of devices.

Keys are typed keys of JAX with an implementation of their own: `jax.random.fold_in` and
`jax.random.split` work on them and give 256-bit children, each by one block, and
jax_debug_key_reuse finds a key that serves twice. The third word of the nonce keeps the
uses of a key apart.

Source: Nir and Langley, "ChaCha20 and Poly1305 for IETF Protocols", 2018, RFC 8439.
"""

import functools
import math
from typing import Any, NoReturn

import jax
import jax.extend.random
import jax.numpy as jnp
import numpy as np

from dpkit.mechanisms._quantile import normal_of_words

_CONSTANTS = (0x61707865, 0x3320646E, 0x79622D32, 0x6B206574)
_COLUMNS = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15))
_DIAGONALS = ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))
_NOISE, _FOLD, _SPLIT, _WIDEN = range(4)
# A group of 64 blocks serves 512 elements, block j elements j, 64 + j, ..., 448 + j, so
# that whole vectors of neighbours are made at once. 64 groups fit in a core's cache.
_BLOCKS, _LANES, _GROUPS = 64, 8, 64
_GROUP = _BLOCKS * _LANES
_CHUNK = _GROUP * _GROUPS


def chacha20_block(key: Any, counter: Any, nonce: Any) -> tuple[jax.Array, ...]:
    """The block function: 20 rounds, and the input added at the end.

    Args:
      key: eight uint32 words.
      counter: one uint32 word.
      nonce: three uint32 words. Arrays of one shape may stand for any word.

    Returns:
      Sixteen uint32 words.

    Reference: RFC 8439, section 2.3.
    """
    words = (*_CONSTANTS, *key, counter, *nonce)
    start = jnp.broadcast_arrays(*(jnp.asarray(word, jnp.uint32) for word in words))
    # A loop over the double rounds: as one straight line a compiler takes minutes.
    end = jax.lax.fori_loop(0, 10, lambda _, state: _double_round(state), tuple(start))
    return tuple(a + b for a, b in zip(start, end, strict=True))


def _double_round(state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """Columns, then diagonals."""
    words = list(state)
    for i, j, k, m in _COLUMNS + _DIAGONALS:
        a, b, c, d = words[i], words[j], words[k], words[m]
        a = a + b
        d = _rotate_left(d ^ a, 16)
        c = c + d
        b = _rotate_left(b ^ c, 12)
        a = a + b
        d = _rotate_left(d ^ a, 8)
        c = c + d
        b = _rotate_left(b ^ c, 7)
        words[i], words[j], words[k], words[m] = a, b, c, d
    return tuple(words)


def _rotate_left(word: jax.Array, distance: int) -> jax.Array:
    """The 32-bit word turned left."""
    return (word << np.uint32(distance)) | (word >> np.uint32(32 - distance))


def _child(key: Any, counter: Any, number: Any, use: int) -> jax.Array:
    """A key of 256 bits: half of one block."""
    return jnp.stack(chacha20_block(key, counter, (number, 0, use))[:8])


def _split(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """As many children as the shape has places, by the counter."""
    numbers = jnp.arange(math.prod(shape), dtype=jnp.uint32)
    children = jax.vmap(lambda number: _child(key, number, 0, _SPLIT))(numbers)
    return children.reshape(*shape, 8)


def _refuse(*_: Any) -> NoReturn:
    """No seeds of 32 bits, and no other use than noise."""
    raise TypeError(
        "key=ChaCha20: made by chacha_key of 32 secret bytes, for gaussian_noise alone"
    )


CHACHA20 = jax.extend.random.define_prng_impl(
    key_shape=(8,),
    seed=_refuse,
    split=_split,
    random_bits=_refuse,
    fold_in=lambda key, data: _child(key, 0, data, _FOLD),
    name="chacha20",
    tag="chacha",
)


def widened(key: jax.Array) -> jax.Array:
    """A ChaCha20 key made of a Threefry key: 256 bits, 64 of them unknown."""
    words = jax.random.key_data(key)
    padded = (*words, *(np.uint32(0),) * 6)
    return jax.random.wrap_key_data(_child(padded, 0, 0, _WIDEN), impl=CHACHA20)


@functools.partial(jax.jit, static_argnames=("shape", "dtype"))
def chacha_normal(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Standard normal draws of one leaf; the key's whole counter space is used.

    A large leaf is made chunk by chunk, in its own memory and little more.

    Raises:
      ValueError: 2**32 elements or more; indices have 32 bits.
    """
    size = math.prod(shape)
    if size >= 2**32:
        raise ValueError(f"shape={shape}: needed fewer than 2**32 elements; split it")
    words = jax.random.key_data(key)
    if size <= _CHUNK:
        groups = -(-size // _GROUP)
        return _normals(words, 0, groups, dtype)[:size].reshape(shape)

    def fill(number: jax.Array, flat: jax.Array) -> jax.Array:
        # The last chunk ends with the array, and repeats some of the one before.
        start = jnp.minimum(number.astype(jnp.uint32) * _u32(_CHUNK), size - _CHUNK)
        first = start // _u32(_GROUP)
        drawn = _normals(words, first, _GROUPS + 1, dtype)
        offset = start - first * _u32(_GROUP)
        chunk = jax.lax.dynamic_slice(drawn, (offset,), (_CHUNK,))
        return jax.lax.dynamic_update_slice(flat, chunk, (start,))

    empty = jnp.zeros(size, dtype)
    return jax.lax.fori_loop(0, -(-size // _CHUNK), fill, empty).reshape(shape)


def _normals(words: Any, first: Any, groups: int, dtype: Any) -> jax.Array:
    """The draws of so many groups of elements, flat."""
    shape = (groups, _BLOCKS)
    group = jax.lax.broadcasted_iota(jnp.uint32, shape, 0) + first
    block = jax.lax.broadcasted_iota(jnp.uint32, shape, 1)
    counter = group * _u32(_BLOCKS) + block
    made = chacha20_block(words, counter, (0, 0, _NOISE))
    high, low = (jnp.stack(made[half], axis=1) for half in (slice(8), slice(8, 16)))
    return normal_of_words(high, low, dtype).reshape(-1)


def _u32(number: int) -> np.uint32:
    """The number as a 32-bit word."""
    return np.uint32(number)
