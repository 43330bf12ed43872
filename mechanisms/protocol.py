"""What every mechanism is: a bounded message from each record, summed, then published.

A mechanism is a frozen dataclass, registered as a pytree, that knows its cost (`event`)
and can release (`__call__`). Its fields are public configuration and static; its
arguments are private data. Nearly all are bounded sums: `contribute` bounds what one
record may add, `privatize` publishes something about the sum, and `run` is the plain
meaning of the two together. Fused paths elsewhere (microbatches, ghost norms, sharded
sums) are optimisations of `run`, and tests hold them against it.

The bound is what one record can move under adding or removing it; accountants, never
mechanisms, know that replacing a record moves a sum by twice that.
"""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from dp_accounting import DpEvent
from jax.sharding import NamedSharding, PartitionSpec

from dpkit.accountants.answers.relations import Relation
from dpkit.mechanisms import _check
from dpkit.mechanisms.noise import wide

Key = jax.Array
PyTree = Any


@runtime_checkable
class Mechanism(Protocol):
    """A private release that knows its cost.

    Privacy: the output of one call, on fresh keys, is as private as `event` says under
    the relation asked for. Charge the event to a ledger before the call
    (`ledger.release` does both).

    Example:
      >>> from dpkit.mechanisms.clipping import GaussianSum
      >>> isinstance(GaussianSum(clip_norm=1.0, noise_multiplier=1.0), Mechanism)
      True
    """

    def event(self, relation: Relation | str) -> DpEvent:
        """What one release costs. From static fields only, on the host.

        Args:
          relation: "add_remove", "replace_one" or "zero_out"; there is no default.

        Returns:
          An event in dp-accounting's vocabulary. Its noise is relative to the
          contribution radius of one record, the same number under every relation.

        Raises:
          UnsupportedRelation: no proof for this relation.
          TypeError: a field that enters the event is a tracer.
        """
        ...

    def __call__(self, key: Key, records: PyTree) -> PyTree:
        """Release. Pure and jit-able.

        Args:
          key: a typed key of JAX, used for this release alone.
          records: private; stacked on axis 0 of every leaf; zero records are allowed.

        Returns:
          What is published.
        """
        ...


class BoundedSum:
    """Mixin for mechanisms made of `contribute` and `privatize`: calls are `run`.

    Example:
      >>> from dpkit.mechanisms.clipping import GaussianSum
      >>> silent = GaussianSum(clip_norm=1.0, noise_multiplier=0.0)
      >>> silent(jax.random.key(0), jnp.array([[3.0, 4.0], [0.0, 1.0]]))
      Array([0.6, 1.8], dtype=float32)
    """

    def contribute(self, key: Key, record: PyTree) -> PyTree:
        """What one record may add; enforces the bound, whatever the record holds.

        Args:
          key: this record's own key.
          record: one record, without axis 0.

        Returns:
          Its message: a tree of fixed structure, shapes and dtypes.
        """
        raise NotImplementedError

    def privatize(self, key: Key, total: PyTree) -> PyTree:
        """What is published about the sum of the messages.

        Args:
          key: a key used for this release alone.
          total: the sum of all messages, floating leaves in float32 or wider.

        Returns:
          What is published.
        """
        raise NotImplementedError

    def publish(self, key: Key, total: PyTree, rest: PyTree) -> PyTree:
        """What is published about a sum in two words, total + rest.

        Only mechanisms that add noise can make use of the rest; here it is dropped.

        Args:
          key: a key used for this release alone.
          total: the sum of all messages, rounded.
          rest: what rounding took away, in the same structure.

        Returns:
          What `privatize` returns.
        """
        del rest
        return self.privatize(key, total)

    def __call__(self, key: Key, records: PyTree) -> PyTree:
        """Release: contribute for every record, sum, privatize."""
        return run(self, key, records)


def static(cls: type[Any]) -> type[Any]:
    """Registers a mechanism as a pytree without leaves: all its fields are public.

    Example:
      >>> @static
      ... @dataclasses.dataclass(frozen=True)
      ... class Nothing:
      ...     name: str
      >>> jax.tree.leaves(Nothing("x"))
      []
    """
    names = [field.name for field in dataclasses.fields(cls)]
    return jax.tree_util.register_dataclass(cls, data_fields=[], meta_fields=names)


def run(mechanism: BoundedSum, key: Key, records: PyTree) -> PyTree:
    """The plain meaning of a bounded sum.

    output = privatize(sum_i contribute(record_i)), with a key of its own for every
    record (by its position) and one for privatize, all split from `key`.

    Privacy: what `mechanism.event(relation)` says. Charge it first.

    Args:
      mechanism: has `contribute` and `privatize`.
      key: a typed key of JAX, used for this release alone.
      records: private; leaves (num_records, ...) that agree on num_records, which may
        be zero.

    Returns:
      What `privatize` returns. Sums are taken in float32 or wider.

    Raises:
      TypeError: a legacy key.
      ValueError: no leaves, or leaves that disagree on axis 0.

    Example:
      >>> from dpkit.mechanisms.clipping import GaussianSum
      >>> nobody = jnp.zeros((0, 2))
      >>> run(GaussianSum(1.0, 0.0), jax.random.key(0), nobody)
      Array([0., 0.], dtype=float32)
    """
    _check.typed_key(key)
    num_records = _check.same_length(records=records)
    contribute_key, privatize_key = jax.random.split(key)
    keys = _placed_like(records, jax.random.split(contribute_key, num_records))
    messages = jax.vmap(mechanism.contribute)(keys, records)
    sums = jax.tree.map(_sum_records, messages)
    total, rest = jax.tree.transpose(
        jax.tree.structure(messages), jax.tree.structure((0, 0)), sums
    )
    return mechanism.publish(privatize_key, total, rest)


def _placed_like(records: PyTree, keys: Key) -> Key:
    """The keys, split over an explicit mesh as the records are; vmap insists on it."""
    placed = jax.typeof(jax.tree.leaves(records)[0]).sharding
    axis = placed.spec[0]
    if axis is None:
        return keys
    rows = NamedSharding(placed.mesh, PartitionSpec(axis))
    return jax.sharding.reshard(keys, rows)


def _sum_records(messages: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sum over axis 0 in two words; integers as they are, the second word zero."""
    placed = jax.typeof(messages).sharding
    if placed.spec and placed.spec[0] is not None:
        # On an explicit mesh halves can't be cut out of a sharded axis.
        whole = PartitionSpec(None, *placed.spec[1:])
        messages = jax.sharding.reshard(messages, NamedSharding(placed.mesh, whole))
    if jnp.issubdtype(messages.dtype, jnp.floating):
        return exact_sum(messages)
    total = jnp.sum(messages, axis=0)
    return total, jnp.zeros_like(total)


@jax.jit  # some hundred small operations, which would be compiled one by one
def exact_sum(messages: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sum over axis 0 in two words, by halves: what each addition rounds away is kept.

    With unit roundoff u (2^-24 for float32) and k = ceil(log2 n), total + rest is off
    by at most 2 k^2 u^2 sum_i |x_i| in each entry.

    Args:
      messages: floating (n, ...), n may be zero.

    Returns:
      total and rest, (...) each, in float32 or wider.

    Example:
      >>> [float(word) for word in exact_sum(jnp.array([2.0**24, 1.0]))]
      [16777216.0, 1.0]

    Reference: Ogita, Rump, Oishi, "Accurate sum and dot product", 2005; the exact error
    of one addition is Knuth's.
    """
    high = messages.astype(wide(messages.dtype))
    low = jnp.zeros_like(high)
    if len(high) == 0:
        return high.sum(axis=0), low.sum(axis=0)
    while len(high) > 1:
        half = len(high) // 2
        left, right, odd = high[:half], high[half : 2 * half], slice(2 * half, None)
        total = left + right
        virtual = total - left
        lost = (left - (total - virtual)) + (right - virtual)
        lost = lost + low[:half] + low[half : 2 * half]
        high = jnp.concatenate([total, high[odd]])
        low = jnp.concatenate([lost, low[odd]])
    # A total that isn't finite has no rest: infinity minus itself would spoil it.
    low_word = jnp.where(jnp.isfinite(high[0]), low[0], jnp.zeros_like(low[0]))
    total = high[0] + low_word
    rest = low_word - (total - high[0])
    return total, jnp.where(jnp.isfinite(total), rest, jnp.zeros_like(rest))


def tree_sum(messages: jax.Array) -> jax.Array:
    """Sum over axis 0 by halves, whose rounding grows with log2 of the length only.

    Args:
      messages: floating (n, ...), n may be zero.

    Returns:
      The sum (...), in float32 or wider.

    Example:
      >>> tree_sum(jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
      Array([ 9., 12.], dtype=float32)
    """
    messages = messages.astype(wide(messages.dtype))
    if len(messages) == 0:
        return jnp.zeros(messages.shape[1:], messages.dtype)
    while len(messages) > 1:
        half = len(messages) // 2
        pairs = messages[:half] + messages[half : 2 * half]
        rest = messages[2 * half :]
        messages = jnp.concatenate([pairs, rest]) if len(rest) else pairs
    return messages[0]
