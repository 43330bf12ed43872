"""Noise as an optax transformation, to be put first in any optimiser's chain."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dpkit.mechanisms._check import typed_key
from dpkit.training.plan import NOISE_BRANCH, DPSGDPlan


class NoiseState(NamedTuple):
    """Where the noise stands: a SECRET key and the number of steps taken."""

    key: jax.Array
    step: jax.Array


def as_optax(plan: DPSGDPlan, key: jax.Array) -> optax.GradientTransformation:
    """Clipped sums in, private mean gradients out: u = (S + noise) / b.

    The noise has standard deviation noise_multiplier * clip_norm per coordinate, fresh
    in every step; b is the plan's expected batch size, whatever the batch was.

    Privacy: the updates of all steps together cost `plan.event(relation)`, provided
    that S is a `clipped_grad` sum with the plan's clip_norm over the plan's own
    batches, one call a step. Charge that event before the first call. The state holds
    the key: whoever has it can subtract the noise, so never publish it.

    Args:
      plan: gives the noise and the divisor.
      key: secret, made by `secret_key()`; used for nothing else than this plan and its
        batches.

    Returns:
      A transformation; chain an optimiser behind it. An update beyond the plan's last
      step is all NaN, so that nothing unaccounted is ever released.

    Raises:
      TypeError: key is not a typed key, or a leaf of the sum is narrower than float32.

    Example:
      >>> import jax, optax
      >>> plan = DPSGDPlan.create(max_records=100, expected_batch_size=10, steps=5,
      ...                         clip_norm=1.0, noise_multiplier=1.0)
      >>> optimizer = optax.chain(as_optax(plan, jax.random.key(0)), optax.sgd(0.1))
    """
    key = typed_key(key)

    def init(params: Any) -> NoiseState:
        del params
        return NoiseState(key, jnp.zeros((), jnp.int32))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        like = updates if params is None else params
        mean = noised_mean(plan, state.key, state.step, updates, like)
        return mean, NoiseState(state.key, state.step + 1)

    return optax.GradientTransformation(init, update)


def noised_mean(
    plan: DPSGDPlan, key: jax.Array, step: jax.Array, clipped_sum: Any, like: Any
) -> Any:
    """What one step publishes: (S + noise) / b, in the dtypes of `like`.

    The noise is a function of (key, step) alone; beyond the plan's last step the
    result is all NaN. See `as_optax` for the guarantee.
    """
    _refuse_narrow(clipped_sum)
    branch = jax.random.fold_in(key, NOISE_BRANCH)
    noised = plan.mechanism.privatize(jax.random.fold_in(branch, step), clipped_sum)
    planned = step < plan.steps
    return jax.tree.map(
        lambda y, leaf: _mean(y, plan.expected_batch_size, planned, leaf.dtype),
        noised,
        like,
    )


def _mean(y: jax.Array, divisor: float, planned: jax.Array, dtype: Any) -> jax.Array:
    """The sum over the constant divisor, or NaN beyond the plan."""
    return jnp.where(planned, y / divisor, jnp.full_like(y, jnp.nan)).astype(dtype)


def _refuse_narrow(tree: Any) -> None:
    """A sum rounded to half precision has lost its sensitivity bound."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not jnp.issubdtype(leaf.dtype, jnp.floating) or leaf.dtype.itemsize < 4:
            raise TypeError(
                f"clipped_sum{jax.tree_util.keystr(path)} has dtype {leaf.dtype}: "
                "noise needs the float32 sum that clipped_grad returns"
            )
