"""Sixty-four random bits for every element of an array, from a key of 256 bits.

The block function of ChaCha20, a cipher: whoever lacks the key can't tell its words
from random ones by any method known. Integer code inside the compiled program; nothing
comes from the host. An element's bits depend on its place in the whole array alone, so
they are the same on any number of devices.

Keys are typed keys of JAX with an implementation of their own: `jax.random.fold_in` and
`jax.random.split` work on them and give 256-bit children, each by one block, and
jax_debug_key_reuse finds a key that serves twice. The third word of the nonce keeps the
uses of a key apart.

Source: Nir and Langley, "ChaCha20 and Poly1305 for IETF Protocols", 2018, RFC 8439.
"""

import functools
import math
from typing import Any, NamedTuple, NoReturn

import jax
import jax.extend.random
import jax.numpy as jnp
import numpy as np

from dpkit.mechanisms._pool import Pool
from dpkit.mechanisms._quantile import normal_of_words
from dpkit.mechanisms.pinning import rounds

_CONSTANTS = (0x61707865, 0x3320646E, 0x79622D32, 0x6B206574)
_COLUMNS = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15))
_DIAGONALS = ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))
_NOISE, _FOLD, _SPLIT, _WIDEN = range(4)
# Pairs of words in a block, and how many elements fit in a core's cache at once.
_LANES, _CHUNK = 8, 2**15
_HIGH, _LOW = slice(8), slice(8, 16)
# The most blocks that serve a group of neighbours together.
_WIDEST = 64


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


class _Layout(NamedTuple):
    """Where the elements of an array are among the blocks, a function of its shape.

    The last axis is cut into groups of 8 * blocks neighbours; the blocks of all groups
    are numbered row by row. So neither an axis before the last, nor the last between
    groups, holds more than one device's work in one place: each makes its own part.
    """

    grid: tuple[int, ...]
    """Axes before the last, and the groups of the last."""
    blocks: int
    """L: block j of a group serves elements j, L + j, ..., 7 L + j."""
    axis: int
    """The axis of the grid that is made piece by piece."""
    pieces: int
    """In how many pieces; piece i is every `pieces`-th place of the axis from i on."""


def _layout(shape: tuple[int, ...]) -> _Layout:
    """The layout of an array; axes of length 1 are dropped."""
    *rows, width = [n for n in shape if n != 1] or [1]
    # The widest groups that add less than an eighth of what the narrowest add.
    blocks = next(
        n
        for n in (_WIDEST, 32, 16, 8, 4, 2, 1)
        if n == 1 or -(-width // (_LANES * n)) * _LANES * n <= width + width // 8
    )
    groups = -(-width // (_LANES * blocks))
    if groups > 64:
        groups = -(-groups // 64) * 64
    grid = (*rows, groups)
    # A mesh of 2, 4, ... 64 devices may split what isn't taken piece by piece.
    free = [n // math.gcd(n, 64) for n in grid]
    axis = max(range(len(grid)), key=lambda number: free[number])
    wanted = math.prod(grid) * _LANES * blocks / _CHUNK
    divisors = [n for n in range(1, free[axis] + 1) if free[axis] % n == 0]
    nearest = min(divisors, key=lambda n: abs(math.log(n / max(wanted, 1.0))))
    return _Layout(grid, blocks, axis, nearest)


@functools.partial(jax.jit, static_argnames=("shape", "dtype"))
def chacha_normal(words: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Standard normal draws of one leaf, from the eight words of its key.

    A large leaf is made piece by piece, in its own memory and little more.

    Raises:
      ValueError: more elements than 32-bit counters tell apart.
    """
    layout = _layout(shape)
    grid, blocks, axis, pieces = layout
    if math.prod(grid) * blocks >= 2**32:
        raise ValueError(f"shape={shape}: needed fewer than 2**35 elements; split it")
    if not math.prod(shape):
        return jnp.zeros(shape, dtype)
    if pieces == 1:
        drawn = _piece(words, 0, layout, dtype)
    else:
        split = (*grid[:axis], grid[axis] // pieces, pieces, *grid[axis + 1 :])

        def fill(number: jax.Array, whole: jax.Array) -> jax.Array:
            piece = _piece(words, number.astype(jnp.uint32), layout, dtype)
            return jax.lax.dynamic_update_index_in_dim(whole, piece, number, axis + 1)

        drawn = jax.lax.fori_loop(
            0, pieces, fill, _room(words, (*split, _LANES * blocks), dtype)
        )
    drawn = drawn.reshape(*grid[:-1], grid[-1] * _LANES * blocks)
    width = math.prod(shape) // math.prod(grid[:-1])
    return drawn[..., :width].reshape(shape)


@functools.partial(jax.jit, static_argnames=("shapes", "dtype"))
def chacha_normals(
    words: jax.Array, shapes: tuple[tuple[int, ...], ...], dtype: Any
) -> tuple[jax.Array, ...]:
    """Standard normal draws of several leaves, in one program.

    A leaf is made of groups of 512 elements; block j of a group serves its elements j,
    64 + j, ..., 448 + j.

    Args:
      words: (number of leaves, 8), their keys.
      shapes: of the leaves, of fewer than 2**35 elements.
      dtype: of the draws.
    """
    pool = Pool(shapes, _LANES * _WIDEST)
    own, firsts = words[pool.owners], jnp.asarray(pool.firsts // _LANES)
    # In pieces that fit a core's cache, the last one filled up.
    some = max(min(_CHUNK // pool.block, len(firsts)), 1)
    spare = -len(firsts) % some
    own = jnp.pad(own, ((0, spare), (0, 0))).reshape(-1, some, 8)
    firsts = jnp.pad(firsts, (0, spare)).reshape(-1, some)

    def draw(i: jax.Array, drawn: jax.Array) -> jax.Array:
        key, first = own[i], firsts[i]
        counter = first[:, None] + jnp.arange(_WIDEST, dtype=jnp.uint32)[None]
        made = chacha20_block(key.T[:, :, None], counter, (0, 0, _NOISE))
        high, low = (jnp.stack(made[half], axis=1) for half in (_HIGH, _LOW))
        normals = normal_of_words(high, low, dtype).reshape(some, pool.block)
        return drawn.at[i].set(normals)

    room = _room(words, (len(own), some, pool.block), dtype)
    drawn = jax.lax.fori_loop(0, len(own), draw, room)
    return pool.cut(drawn.reshape(-1, pool.block), words)


def _room(words: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Zeros that a compiler can't make before the key is there, however idle."""
    zero = rounds(0, words).astype(dtype)
    return jnp.broadcast_to(zero, shape)


def _piece(words: Any, number: Any, layout: _Layout, dtype: Any) -> jax.Array:
    """The draws of one piece of the grid, (grid of the piece, elements of a group)."""
    grid, blocks, axis, pieces = layout
    part = list(grid)
    part[axis] //= pieces
    shape = (*part, blocks)
    counter = jax.lax.broadcasted_iota(jnp.uint32, shape, len(part))
    stride = blocks
    for i in reversed(range(len(part))):
        place = jax.lax.broadcasted_iota(jnp.uint32, shape, i)
        if i == axis:
            place = place * _u32(pieces) + number
        counter = counter + place * _u32(stride)
        stride *= grid[i]
    made = chacha20_block(words, counter, (0, 0, _NOISE))
    high, low = (jnp.stack(made[half], axis=-2) for half in (_HIGH, _LOW))
    return normal_of_words(high, low, dtype).reshape(*part, _LANES * blocks)


def _u32(number: int) -> np.uint32:
    """The number as a 32-bit word."""
    return np.uint32(number)
