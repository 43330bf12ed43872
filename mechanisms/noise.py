r"""Noise, from an explicit key.

Gaussian noise for the device, and one function that turns a key into a NumPy generator
for noise that must be float64 or integer on the host.

z = Phi^-1(u) with u uniform on 64 bits. Why not `jax.random.normal`: in float32 its
uniform has 23 bits, so |z| never passes 5.42. An output further than that from what
one data set can give proves the other data set, with probability about 6e-8 a
coordinate whatever the noise multiplier: a failure that no accountant's delta holds.
Here tails reach |z| = 9.15 (probability 5e-20).

Noise is floating point: it hides the sum, not the last bits of it (Mironov, "On
significance of the least significant bits for differential privacy", 2012).
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dpkit.mechanisms import _check
from dpkit.mechanisms._chacha import (
    CHACHA20,
    chacha_normal,
    chacha_normals,
    widened,
)
from dpkit.mechanisms._pool import Pool
from dpkit.mechanisms._quantile import normal_of_words
from dpkit.mechanisms._threefry import random_words, threefry_2x32, words_of
from dpkit.mechanisms.pinning import hidden, kept

GENERATORS = ("threefry", "chacha20")
# Elements of a leaf that is drawn together with others, and of all these together; and
# neighbours in one of them.
_SMALL, _POOL, _BLOCK = 2**18, 2**22, 2**8


def gaussian_noise(
    key: jax.Array, tree: Any, stddev: Any, *, generator: str = "threefry"
) -> Any:
    r"""Independent Gaussian noise for every element of every leaf.

    noise = stddev * z,  z = Phi^-1(u),  u = (a 2^32 + b + 1/2) / 2^64, where a, b are
    two random words, and u is folded to min(u, 1 - u) by its top bit before it becomes
    a float, so that both tails are equally fine.

    Privacy: none by itself; `GaussianSum` says what it buys. No element of the noise is
    used twice: each leaf has its own key, each element its own counter. The same key
    gives the same noise, on any number of devices, so a key must never serve two
    releases: take a fresh one by `jax.random.fold_in(root, step)`.

    "threefry" is statistically strong, and fast; its key holds 64 bits. "chacha20" is a
    cipher: telling its noise from true noise means breaking ChaCha20 with a 256-bit
    key, if `key` comes from `chacha_key`. A Threefry key is accepted too, and widened;
    then the noise is as strong as the 64 bits of that key, and no stronger.

    Args:
      key: a typed key of JAX, used for this call alone: a Threefry key, or for chacha20
        also one of `chacha_key` (or folded in, or split, from such a key).
      tree: arrays, or anything with a `shape` and a floating `dtype`; values unused.
      stddev: standard deviation >= 0 in the unit of the tree; a number, or a scalar
        array (then unchecked).
      generator: "threefry" or "chacha20" (on a CPU about twice the time). Large leaves
        are made where they are needed, on every device of a mesh its own part; leaves
        of up to 262,144 elements are made together, whole, so a mesh that splits them
        may exchange noise between devices. So may chacha20 where a leaf's last axis is
        split.

    Returns:
      The same structure and shapes; float64 for float64 leaves, else float32.

    Raises:
      TypeError: a legacy key, a key of another generator, or a leaf that is not
        floating.
      ValueError: stddev negative or not finite, or an unknown generator.

    Example:
      >>> tree = {"w": jnp.zeros((2, 3)), "b": jnp.zeros(3, jnp.bfloat16)}
      >>> noise = gaussian_noise(jax.random.key(0), tree, 0.5)
      >>> jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), noise)
      {'b': ((3,), 'float32'), 'w': ((2, 3), 'float32')}

    Reference: Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", 2011; Nir
    and Langley, "ChaCha20 and Poly1305 for IETF Protocols", 2018, RFC 8439.
    """
    checked_key(key, generator)
    _check.floating(tree=tree)
    stddev = _checked_stddev(stddev)
    leaves, treedef = jax.tree.flatten(tree)
    keys = _children(key, len(leaves))
    if generator == "chacha20" and not _is_chacha_key(key):
        keys = jax.vmap(widened)(keys)
    units = _standard_normals(keys, [_like(leaf) for leaf in leaves], generator)
    return jax.tree.unflatten(treedef, [unit * stddev for unit in units])


def chacha_key(secret: bytes) -> jax.Array:
    """A typed key of 256 bits for `gaussian_noise(..., generator="chacha20")`.

    Take one key for each release from it by `jax.random.fold_in(key, step)`; children
    have 256 bits too.

    Privacy: the noise hides what it should from everybody who lacks these bytes, as
    long as ChaCha20 is unbroken. Draw them by `secrets.token_bytes(32)`, and keep them
    as secret as the records.

    Args:
      secret: 32 bytes.

    Returns:
      A typed key of JAX. No other function of ours takes it.

    Raises:
      TypeError: not bytes.
      ValueError: not 32 of them.

    Example:
      >>> import secrets
      >>> root = chacha_key(secrets.token_bytes(32))
      >>> key = jax.random.fold_in(root, 0)
      >>> gaussian_noise(key, jnp.zeros(3), 1.0, generator="chacha20").shape
      (3,)

    Reference: Nir and Langley, "ChaCha20 and Poly1305 for IETF Protocols", 2018, RFC
    8439.
    """
    if not isinstance(secret, bytes):
        raise TypeError(
            f"secret={type(secret).__name__}: needed 32 bytes, as of "
            "secrets.token_bytes(32)"
        )
    if len(secret) != 32:
        raise ValueError(
            f"secret has {len(secret)} bytes: needed 32; draw them by "
            "secrets.token_bytes(32)"
        )
    words = np.frombuffer(secret, "<u4").astype(np.uint32)
    return jax.random.wrap_key_data(jnp.asarray(words), impl=CHACHA20)


def host_generator(key: jax.Array) -> np.random.Generator:
    """A counter-based NumPy generator (Philox, 128-bit key) drawn from a JAX key.

    For noise that must be float64 or integer on the host. The key counts as used.

    Args:
      key: a typed key of JAX, concrete (not under jit).

    Returns:
      A generator; the same key gives the same stream on every machine.

    Raises:
      TypeError: a legacy key, or a tracer.

    Example:
      >>> host_generator(jax.random.key(0)).integers(100, size=3)
      array([62, 63, 89])

    Reference: Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", 2011.
    """
    _check.typed_key(key)
    if isinstance(key, jax.core.Tracer):
        raise TypeError("key=tracer: host noise can't be drawn under jit; call outside")
    words = np.asarray(jax.random.bits(key, (4,), jnp.uint32))
    return np.random.Generator(np.random.Philox(key=words.view(np.uint64)))


def discrete_laplace(
    generator: np.random.Generator, scale: float, shape: tuple[int, ...]
) -> np.ndarray:
    """Discrete Laplace noise: whole numbers k, P(k) ~ exp(-abs(k) / scale).

    The difference of two geometric numbers, without a hole up to 44 scales (beyond:
    probability 1e-19). A continuous Laplace number by its logarithm has holes far out,
    where a neighbour's outputs would fall.

    Args:
      generator: of `host_generator`.
      scale: above 0; a number that moves by 1 costs 1 / scale.
      shape: of what is returned, int64.

    Example:
      >>> discrete_laplace(host_generator(jax.random.key(0)), 3.0, (4,)).shape
      (4,)

    Reference: Ghosh, Roughgarden, Sundararajan, "Universally Utility-Maximizing Privacy
    Mechanisms", 2009, arXiv:0811.2841.
    """
    success = -math.expm1(-1 / scale)
    first, second = (generator.geometric(success, size=shape) for _ in range(2))
    return first - second


@functools.partial(jax.jit, static_argnames=("shape", "dtype"))
def standard_normal(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Standard normal draws of one leaf; the key's whole counter space is used."""
    high, low = random_words(key, shape)
    return normal_of_words(high, low, dtype)


def _children(key: jax.Array, count: int) -> jax.Array:
    """`jax.random.split(key, count)`, whose j-th child is the fold-in of j."""
    # `split` marks the key as used, so that jax_debug_key_reuse finds a second use.
    marked = jax.random.split(key, count)
    if _is_chacha_key(key):
        return marked
    # The same words as straight-line code, which compiles in a fraction of the time.
    words = _child_words(jax.random.key_data(key), count)
    return jax.random.wrap_key_data(words, impl="threefry2x32")


@functools.partial(jax.jit, static_argnames="count")
def _child_words(words: jax.Array, count: int) -> jax.Array:
    """The words of a key's children, (count, 2)."""
    numbers = jnp.arange(count, dtype=jnp.uint32)
    pair = threefry_2x32((words[0], words[1]), (jnp.uint32(0), numbers))
    # In memory, or every program that reads one computes it again, and is larger.
    return kept(jnp.stack(pair, axis=1), words)


def _standard_normals(
    keys: jax.Array, likes: list[Any], generator: str
) -> list[jax.Array]:
    """Standard normal draws of all leaves, in few programs.

    One for every leaf would be most of a training step's compilation. So large leaves
    are drawn with all that have their shape, and all others together, some millions of
    elements at a time. What a leaf gets depends on its key and shape alone.
    """
    words = jax.random.key_data(keys)
    groups: dict[Any, list[int]] = {}
    pooled: dict[Any, int] = {}
    for j, (shape, kind) in enumerate(likes):
        size = math.prod(shape)
        large = size > _SMALL
        if not large:
            pooled[kind] = pooled.get(kind, 0) + size
        together = shape if large else pooled[kind] // _POOL
        groups.setdefault((large, together, kind), []).append(j)
    drawn: dict[int, jax.Array] = {}
    for (large, _, kind), members in groups.items():
        shapes = tuple(likes[j][0] for j in members)
        draw = _DRAWS[generator, large]
        units = draw(words[np.asarray(members)], shapes, kind)
        drawn.update(zip(members, units, strict=True))
    return [drawn[j] for j in range(len(likes))]


@functools.partial(jax.jit, static_argnames=("shapes", "dtype"))
def _stacked_normals(
    words: jax.Array, shapes: tuple[tuple[int, ...], ...], dtype: Any
) -> tuple[jax.Array, ...]:
    """Draws of large leaves, each where it is needed.

    Which key is whose is a value that the compiler doesn't know: so leaves of one shape
    have the same program, which is compiled once.
    """
    numbers = hidden(range(len(shapes)), words)
    return tuple(
        normal_of_words(*words_of(words[j], shape), dtype)
        for j, shape in zip(numbers, shapes, strict=True)
    )


@functools.partial(jax.jit, static_argnames=("shapes", "dtype"))
def _pooled_normals(
    words: jax.Array, shapes: tuple[tuple[int, ...], ...], dtype: Any
) -> tuple[jax.Array, ...]:
    """Draws of leaves of any shapes, each as whole blocks of one array."""
    pool = Pool(shapes, _BLOCK)
    own = words[pool.owners]
    firsts = jnp.asarray(pool.firsts)[:, None]
    index = firsts + jnp.arange(_BLOCK, dtype=jnp.uint32)[None]
    pair = threefry_2x32((own[:, :1], own[:, 1:]), (jnp.uint32(0), index))
    return pool.cut(normal_of_words(*pair, dtype), words)


def _large_chacha(
    words: jax.Array, shapes: tuple[tuple[int, ...], ...], dtype: Any
) -> list[jax.Array]:
    """Draws of large leaves, one by one."""
    pairs = zip(words, shapes, strict=True)
    return [chacha_normal(word, shape, dtype) for word, shape in pairs]


_DRAWS = {
    ("threefry", True): _stacked_normals,
    ("threefry", False): _pooled_normals,
    ("chacha20", True): _large_chacha,
    ("chacha20", False): chacha_normals,
}


def _like(leaf: Any) -> tuple[tuple[int, ...], Any]:
    """The shape of a leaf, and the dtype of its noise."""
    return leaf.shape, wide(leaf.dtype)


def wide(dtype: Any) -> Any:
    """The dtype that sums and noise are kept in: float32, or float64 for float64."""
    return np.float64 if dtype == np.float64 else np.float32


def checked_key(key: Any, generator: str) -> jax.Array:
    """The key, if it is one that this generator takes.

    Raises:
      TypeError: a legacy key, or a key of another generator.
      ValueError: an unknown generator.
    """
    if generator not in GENERATORS:
        raise ValueError(f"generator={generator!r}: needed one of {GENERATORS}")
    if generator == "chacha20" and _is_chacha_key(key):
        return key
    return _check.typed_key(key)


def _is_chacha_key(key: Any) -> bool:
    """Whether this is one key of `chacha_key`."""
    return (
        isinstance(key, jax.Array)
        and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
        and jax.random.key_impl(key) == CHACHA20
        and key.shape == ()
    )


def _checked_stddev(stddev: Any) -> Any:
    """A good number as a float; an array as it is, as it may be traced."""
    if isinstance(stddev, jax.Array):
        return stddev
    if isinstance(stddev, bool) or not isinstance(stddev, int | float | np.number):
        raise TypeError(f"stddev={stddev!r}: needed a number or a scalar array")
    if not (math.isfinite(stddev) and stddev >= 0):
        raise ValueError(f"stddev={stddev!r}: needed a finite number >= 0")
    return float(stddev)
