"""What counts as one example: several views of a record, or all records of a user.

Clipping bounds what one example can move. So whatever belongs together must be one
example, whose loss is a function of nothing but itself: then one clipped gradient
stands for all of it, and the bound is that of one example, not of its parts.

Sources: De et al., "Unlocking High-Accuracy Differentially Private Image Classification
through Scale", 2022, arXiv:2204.13650 (augmentation multiplicity); McMahan et al.,
"Learning Differentially Private Recurrent Language Models", 2018, arXiv:1710.06963
(users).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dpkit.accountants.answers import checks

LossFn = Callable[[Any, Any, Any], jax.Array]
AugmentFn = Callable[[jax.Array, Any], Any]


def augmented(loss_fn: LossFn, augment_fn: AugmentFn, copies: int) -> LossFn:
    """The mean loss over several augmentations of one example.

    loss(w, x, key) = (1/K) sum_k loss_fn(w, augment_fn(a_k, x), b_k),  a_k and b_k two
    keys split from fold_in(key, k).

    Privacy: the K views are averaged before the gradient is clipped, so one example
    moves a clipped sum by the clip's radius, as without augmentation; views clipped one
    by one would move it by K times that. The views depend on the example and its own
    key alone.

    Args:
      loss_fn: (params, example, key) -> scalar, of one view.
      augment_fn: (key, example) -> view: random, and of one shape for all keys.
      copies: K >= 1; a step costs K times as much.

    Returns:
      A loss of (params, example, key) for `clipped_grad` or `fit`. It needs keys.

    Raises:
      ValueError, TypeError: copies is no integer of at least 1; in use, no key.

    Example:
      >>> flip = lambda key, x: jnp.where(jax.random.bernoulli(key), x, -x)
      >>> loss = augmented(lambda w, x, key: (w * x - 1.0) ** 2, flip, copies=8)
      >>> loss(0.0, 2.0, jax.random.key(0))
      Array(1., dtype=float32)

    Reference: De et al., 2022, arXiv:2204.13650, section 3.
    """
    copies = checks.integer_at_least(1, copies=copies)

    def loss(params: Any, example: Any, key: Any) -> jax.Array:
        if key is None:
            raise TypeError(
                "key=None: augmentation needs a key for every example; pass keys= to "
                "the clipped gradient"
            )
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(copies))

        def of_view(key: jax.Array) -> jax.Array:
            augment_key, loss_key = jax.random.split(key)
            return loss_fn(params, augment_fn(augment_key, example), loss_key)

        return jnp.mean(jax.vmap(of_view)(keys))

    return loss


def per_user(loss_fn: LossFn, max_records: int, *, by_own_count: bool = True) -> LossFn:
    """The loss of a user, from the losses of the user's records.

    loss(w, (records, mask), key) = (1/D) sum_j mask_j loss_fn(w, records_j, key_j),
    D the user's own count, sum_j mask_j, or max_records; key_j = fold_in(key, j).

    Privacy: the unit of sampling, clipping and accounting is the user, if every user is
    one row of the data, and at most one. Both divisors are safe, because both are
    functions of this user alone: the number of records of the user is as private as the
    records and stays behind the clip. With the own count all users weigh alike; with
    max_records those with few records weigh less.

    A user without records has loss 0. A padded record is replaced by the user's first
    valid one, and its loss then dropped, so that nothing in the padding, NaN included,
    reaches a gradient. A user without any valid record is evaluated at zeros: if the
    gradient there is not finite, the user's is not, and a clipped sum leaves it out,
    which is zero as well.

    Args:
      loss_fn: (params, record, key) -> scalar, of one record; key may be None.
      max_records: k >= 1: the slots of a user's stack. Choose who fills them by this
        user's records alone.
      by_own_count: divide by the number of the user's valid records, not by
        max_records.

    Returns:
      A loss of (params, example, key), the example a pair of records, leaves (k, ...),
      and mask, (k,) booleans.

    Raises:
      ValueError, TypeError: max_records is no integer of at least 1; in use, an example
        that is no such pair.

    Example:
      >>> loss = per_user(lambda w, x, key: (w - x) ** 2, max_records=3)
      >>> stack = jnp.array([1.0, 3.0, jnp.nan]), jnp.array([True, True, False])
      >>> jax.grad(loss)(0.0, stack, None)
      Array(-4., dtype=float32, weak_type=True)

    Reference: McMahan, Ramage, Talwar, Zhang, 2018, arXiv:1710.06963.
    """
    max_records = checks.integer_at_least(1, max_records=max_records)
    by_own_count = checks.flag(by_own_count=by_own_count)

    def loss(params: Any, example: Any, key: Any) -> jax.Array:
        records, mask = _checked_stack(example, max_records)
        records = jax.tree.map(lambda leaf: _without_padding(leaf, mask), records)
        keys = None
        if key is not None:
            slots = jnp.arange(max_records)
            keys = jax.vmap(jax.random.fold_in, (None, 0))(key, slots)
        losses = jax.vmap(lambda record, key: loss_fn(params, record, key))(
            records, keys
        )
        kept = jnp.where(mask, losses, jnp.zeros_like(losses))
        if not by_own_count:
            return jnp.sum(kept) / max_records
        count = jnp.maximum(jnp.sum(mask), 1).astype(losses.dtype)
        return jnp.sum(kept) / count

    return loss


def _checked_stack(example: Any, max_records: int) -> tuple[Any, jax.Array]:
    """A user's records and mask, if that is what the example is."""
    if not isinstance(example, tuple) or len(example) != 2:
        raise TypeError(
            f"example={type(example).__name__}: needed a pair (records, mask) for "
            "every user"
        )
    records, mask = example
    if jnp.shape(mask) != (max_records,) or jnp.result_type(mask) != jnp.bool_:
        raise ValueError(
            f"mask has shape {jnp.shape(mask)} and dtype {jnp.result_type(mask)}: "
            f"needed ({max_records},) booleans, one for each slot of a user"
        )
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(records)}
    if lengths != {(max_records,)}:
        raise ValueError(
            f"records have leading axes {sorted(lengths)}: needed stacks of "
            f"max_records={max_records} records; pad them"
        )
    return records, jnp.asarray(mask)


def _without_padding(leaf: Any, mask: jax.Array) -> jax.Array:
    """The stack, its padding replaced by the first valid record, or by zeros."""
    leaf = jnp.asarray(leaf)
    first = leaf[jnp.argmax(mask)]
    first = jnp.where(jnp.any(mask), first, jnp.zeros_like(first))
    column = mask.reshape((-1,) + (1,) * (leaf.ndim - 1))
    return jnp.where(column, leaf, jnp.broadcast_to(first, leaf.shape))
