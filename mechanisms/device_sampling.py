"""Poisson batches drawn inside a compiled program, the same as on the host.

For data that lives on the device: no transfer of indices, no wait for the host. Shapes
are static; the number of records may be traced.
"""

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from dpkit.mechanisms import _check
from dpkit.mechanisms._threefry import random_words
from dpkit.mechanisms.sampler import Batch
from dpkit.mechanisms.sampling import PoissonSampler


def device_draw(
    sampler: PoissonSampler, key: jax.Array, num_records: int | jax.Array
) -> Batch:
    """`PoissonSampler.draw` as a JAX function: the same batch, bit for bit.

    Record i is drawn iff i < num_records and its 64-bit uniform, two words, is below
    floor(q 2^64); of too many, those with the smallest uniforms stay.

    Privacy: as `PoissonSampler`. Where batches can be truncated, the branch that sorts
    runs only if one is, which takes longer; its probability is what
    `choose_max_batch_size` makes small.

    Args:
      sampler: static.
      key: one typed key of JAX, used for this draw alone; may be traced. For the batch
        of a step, fold the run's key with the step.
      num_records: how many records there are; may be traced, then unchecked, and more
        than `max_records` count as `max_records`.

    Returns:
      Indices int32 and mask bool, (max_batch_size,), ascending, padding behind.

    Raises:
      TypeError: a legacy key, or an array of keys (use `jax.vmap`).
      ValueError: a number of records that is above `max_records`, or negative.

    Example:
      >>> sampler = PoissonSampler(0.5, max_batch_size=8, max_records=8)
      >>> compiled = jax.jit(lambda key, n: device_draw(sampler, key, n))
      >>> batch = compiled(jax.random.key(0), 6)
      >>> host = sampler.draw(jax.random.key(0), 6)
      >>> bool((batch.indices == host.indices).all() & (batch.mask == host.mask).all())
      True

    Reference: Abadi et al., "Deep Learning with Differential Privacy", 2016,
    arXiv:1607.00133.
    """
    _check.typed_key(key)
    _check_number(num_records, sampler.max_records)
    child = jax.random.split(key, 1)[0]
    high, low = random_words(child, (sampler.max_records,))
    numbers = jnp.arange(sampler.max_records, dtype=jnp.int32)
    drawn = numbers < jnp.asarray(num_records, jnp.int32)
    if sampler.sampling_rate < 1:
        drawn &= _below(high, low, sampler.threshold)
    if sampler.truncates:
        size = sampler.max_batch_size
        drawn = jax.lax.cond(
            jnp.sum(drawn, dtype=jnp.int32) > size,
            lambda: _smallest(drawn, high, low, size),
            lambda: drawn,
        )
    return _padded(drawn, numbers, sampler.max_batch_size)


def _check_number(num_records: int | jax.Array, max_records: int) -> None:
    """Refuses a number that is known and out of range."""
    if isinstance(num_records, int) and not 0 <= num_records <= max_records:
        raise ValueError(
            f"num_records={num_records}: needed 0 to max_records={max_records}; make "
            "a sampler with a larger bound"
        )


def _below(high: jax.Array, low: jax.Array, threshold: int) -> jax.Array:
    """Whether the word high 2^32 + low is below a number of 64 bits."""
    top, rest = np.uint32(threshold >> 32), np.uint32(threshold & 0xFFFFFFFF)
    return (high < top) | ((high == top) & (low < rest))


def _smallest(
    drawn: jax.Array, high: jax.Array, low: jax.Array, size: int
) -> jax.Array:
    """Which of the drawn are among the `size` with the smallest words."""
    last = (~drawn).astype(jnp.uint32)
    numbers = jnp.arange(len(drawn), dtype=jnp.int32)
    order = jax.lax.sort((last, high, low, numbers), num_keys=3)[3]
    return jnp.zeros_like(drawn).at[order[:size]].set(True)


def _padded(drawn: jax.Array, numbers: jax.Array, slots: int) -> Batch:
    """The drawn numbers in order, then zeros; at most `slots` are drawn."""
    places = jnp.cumsum(drawn, dtype=jnp.int32) - 1
    places = jnp.where(drawn, places, slots)  # beyond the end: dropped
    indices = jnp.zeros(slots, jnp.int32).at[places].set(numbers, mode="drop")
    count = jnp.sum(drawn, dtype=jnp.int32)
    mask = jnp.arange(slots, dtype=jnp.int32) < count
    return Batch(cast(Any, indices), cast(Any, mask))
