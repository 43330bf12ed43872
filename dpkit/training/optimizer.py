"""Noise as an optax transformation, to be put first in any optimiser's chain."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dpkit.accountants.answers import checks
from dpkit.mechanisms.adaptive import AdaptiveGaussianSum
from dpkit.mechanisms.clips import as_clip
from dpkit.mechanisms.correlated import CorrelatedSum
from dpkit.mechanisms.noise import GENERATORS, checked_key, gaussian_noise, wide
from dpkit.mechanisms.pinning import held_back
from dpkit.training.plan import NOISE_BRANCH, DPSGDPlan


class NoiseState(NamedTuple):
    """Where the noise stands: SECRET, all of it.

    Args:
      key: the root of all noise.
      step: how many steps were taken.
      memory: what the mechanism carries from step to step; see `release_state`.
    """

    key: jax.Array
    step: jax.Array
    memory: Any = ()


def as_optax(
    plan: DPSGDPlan, key: jax.Array, *, generator: str = "threefry"
) -> optax.GradientTransformation:
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
        batches. Or one of `dpkit.mechanisms.chacha_key`, for noise alone, with
      generator: "chacha20"; see `dpkit.mechanisms.gaussian_noise`.

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
    key = checked_key(key, generator)
    if isinstance(plan.mechanism, AdaptiveGaussianSum):
        raise ValueError(
            f"plan: quantile={plan.mechanism.quantile} needs the norms of the batch, "
            "which optax never sees: use fit, or released_mean in a loop of yours"
        )

    def init(params: Any) -> NoiseState:
        memory = release_state(plan, params)
        return NoiseState(key, jnp.zeros((), jnp.int32), memory)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        like = updates if params is None else params
        mean, memory = released_mean(
            plan, state.key, state.step, updates, like, state.memory, None, generator
        )
        return mean, NoiseState(state.key, state.step + 1, memory)

    return optax.GradientTransformation(init, update)


def release_state(plan: DPSGDPlan, params: Any) -> Any:
    """What a plan's mechanism carries from one step to the next, before the first.

    Nothing for independent noise; the clip norm that adapts (released, but never to be
    guessed from a later one); noise that later steps take back, which is SECRET.

    Args:
      plan: has the mechanism.
      params: a tree of arrays in the shapes of the parameters.
    """
    mechanism = plan.mechanism
    if isinstance(mechanism, AdaptiveGaussianSum):
        return jnp.asarray(mechanism.clip_norm, jnp.float32)
    if isinstance(mechanism, CorrelatedSum):
        return mechanism.init(
            jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, wide(p.dtype)), params)
        )
    return ()


def check_generator(plan: DPSGDPlan, generator: str) -> None:
    """Refuses a generator that a plan's mechanism doesn't have.

    Raises:
      ValueError: an unknown one, or another than Threefry with adaptive clipping.
    """
    checks.one_of(GENERATORS, generator=generator)
    if generator != "threefry" and isinstance(plan.mechanism, AdaptiveGaussianSum):
        raise ValueError(
            f"generator={generator!r} is not there for adaptive clipping: use a fixed "
            "clip norm, or generator='threefry'"
        )


def clip_of(plan: DPSGDPlan, step: jax.Array, memory: Any) -> Any:
    """What clips the gradients of a step: a clipping function."""
    if isinstance(plan.mechanism, AdaptiveGaussianSum):
        return dataclasses.replace(plan.mechanism, clip_norm=memory).clip
    return as_clip(plan.clip_at(step))


def released_mean(
    plan: DPSGDPlan,
    key: jax.Array,
    step: jax.Array,
    clipped_sum: Any,
    like: Any,
    memory: Any = (),
    norms: jax.Array | None = None,
    generator: str = "threefry",
) -> tuple[Any, Any]:
    """What one step publishes: (S + noise) / b, in the dtypes of `like`.

    The noise is a function of (key, step) and the memory; beyond the plan's last step
    the result is all NaN. See `as_optax` for the guarantee.

    Args:
      plan: gives noise and divisor.
      key: the secret root of the noise.
      step: from 0; may be traced.
      clipped_sum: S, by `clip_of(plan, step, memory)`, in float32 or wider.
      like: a tree of arrays whose dtypes the mean gets.
      memory: of `release_state` or of the step before.
      norms: (B,) the norms of the batch, 0 for padding; for adaptive clipping only.
      generator: of the noise; adaptive clipping has "threefry" alone.

    Returns:
      The mean, and the memory for the next step.
    """
    _refuse_narrow(clipped_sum)
    branch = jax.random.fold_in(key, NOISE_BRANCH)
    drawn = jax.random.fold_in(branch, step)
    clipped_sum, drawn = held_back(clipped_sum, drawn, source=jnp.asarray(step))
    mechanism = plan.mechanism
    check_generator(plan, generator)
    if isinstance(mechanism, CorrelatedSum):
        mechanism = dataclasses.replace(mechanism, generator=generator)
        noised, memory = mechanism.step(drawn, clipped_sum, memory)
    elif isinstance(mechanism, AdaptiveGaussianSum):
        if norms is None:
            raise ValueError("norms=None: adaptive clipping needs those of the batch")
        now = dataclasses.replace(mechanism, clip_norm=memory)
        total = {"sum": clipped_sum, "below": now.count(norms)}
        released = now.privatize(drawn, total)
        noised, memory = released["sum"], now.updated(released).clip_norm
    else:
        noise = gaussian_noise(
            drawn, clipped_sum, plan.stddev(step), generator=generator
        )
        noised = jax.tree.map(jnp.add, clipped_sum, noise)
    planned, divisor = step < plan.steps, plan.divisor(step)
    mean = jax.tree.map(
        lambda y, leaf: _mean(y, divisor, planned, leaf.dtype), noised, like
    )
    return mean, memory


def _mean(y: jax.Array, divisor: Any, planned: jax.Array, dtype: Any) -> jax.Array:
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
