"""What samplers share: keys, 64-bit uniforms, and padded batches of the drawn.

Everything takes an array of keys at once, one row for each, and is the same on every
machine.
"""

import functools

import jax
import numpy as np

from dpkit.accountants.answers import checks as _numbers
from dpkit.mechanisms import _check
from dpkit.mechanisms._threefry import random_words


def checked(key: jax.Array, num_records: int, max_records: int) -> int:
    """The number of records, if it and the key are good for a draw on the host.

    Raises:
      TypeError: a legacy key, or a tracer.
      ValueError: more records than `max_records`.
    """
    _check.typed_key(key, batched=True)
    num_records = _numbers.integer_at_least(0, num_records=num_records)
    if num_records > max_records:
        raise ValueError(
            f"num_records={num_records}: needed at most max_records={max_records}; "
            "make a sampler with a larger bound"
        )
    if isinstance(key, jax.core.Tracer):
        raise TypeError("key=tracer: batches are drawn on the host; call outside")
    return num_records


def folded(keys: jax.Array, number: int) -> jax.Array:
    """The branch `number` of every key; TypeError for a legacy key."""
    _check.typed_key(keys, batched=True)
    if not keys.shape:
        return jax.random.fold_in(keys, number)
    branches = jax.vmap(jax.random.fold_in, (0, None))(keys.reshape(-1), number)
    return branches.reshape(keys.shape)


def uniforms(keys: jax.Array, num_records: int) -> np.ndarray:
    """A uint64 uniform for every key and record, shape (number of keys, records).

    A record's uniform depends on the key and on its number alone.
    """
    high, low = (np.asarray(words) for words in _words(keys, num_records))
    return high.astype(np.uint64) << np.uint64(32) | low


def keep_smallest(drawn: np.ndarray, order: np.ndarray, size: int) -> None:
    """Leave, in place, only the `size` drawn records of a row that come first."""
    candidates = np.flatnonzero(drawn)
    dropped = np.argpartition(order[candidates], size)[size:]
    drawn[candidates[dropped]] = False


def padded(drawn: np.ndarray, slots: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices and mask of the drawn (num_draws, num_records), at most `slots` a row."""
    counts = drawn.sum(axis=1)
    rows, records = np.nonzero(drawn)
    places = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    shape = (len(drawn), slots)
    indices, mask = np.zeros(shape, np.int32), np.zeros(shape, bool)
    indices[rows, places], mask[rows, places] = records, True
    return indices, mask


@functools.partial(jax.jit, static_argnames="num_records")
def _words(keys: jax.Array, num_records: int) -> tuple[jax.Array, jax.Array]:
    """Two random words for every key and record; marks the keys as used."""
    children = jax.vmap(lambda key: jax.random.split(key, 1)[0])(keys.reshape(-1))
    return jax.vmap(lambda key: random_words(key, (num_records,)))(children)
