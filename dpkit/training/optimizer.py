"""Noise as an optax transformation, to be put first in any optimiser's chain."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from dpkit.accountants.answers import checks
from dpkit.jobs.roots import secret_key as secret_key  # public: as_optax wants one
from dpkit.mechanisms.clipped_sum import ClippedSum
from dpkit.mechanisms.noise import GENERATORS, checked_key, wide
from dpkit.mechanisms.pinning import held_back
from dpkit.training.matching import NoiseState
from dpkit.training.plan import NOISE_BRANCH, DPSGDPlan


def as_optax(
    plan: DPSGDPlan, key: jax.Array, *, generator: str = "threefry"
) -> optax.GradientTransformation:
    """Clipped sums in, private mean gradients out: u = (S + noise) / b.

    The noise has standard deviation noise_multiplier * clip_norm per coordinate, fresh
    in every step; b is the plan's expected batch size, whatever the batch was.

    Privacy: the updates of all steps together cost `plan.event(relation)`, provided
    that S is the sum of `plan.gradient` over the plan's own batches, one call a step;
    what is clipped otherwise, or is no un-noised sum at all, is refused when traced.
    Charge that event before the first call. The state holds the key: whoever has it
    can subtract the noise, so never publish it. A state is for one sum: two different
    sums that are updated from the same state get the same noise, and the difference
    of their updates is exact. Carry the state on, and never start again from an older
    one with other rows.

    Args:
      plan: gives the noise and the divisor.
      key: secret, made by `secret_key()`; used for nothing else than this plan and its
        batches. Or one of `dpkit.mechanisms.chacha_key`, for noise alone, with
      generator: "chacha20"; see `dpkit.mechanisms.gaussian_noise`.

    Returns:
      A transformation; chain an optimiser behind it. An update beyond the plan's last
      step is all NaN, so that nothing unaccounted is ever released.

    Raises:
      TypeError: key is not a typed key; on a call, what is no `ClippedSum`, or one
        narrower than float32.
      ValueError: on a call, a sum that was clipped in another way than the plan's, of
        other rows than the slots of one batch, or without their mask.

    Example:
      >>> import jax, optax
      >>> plan = DPSGDPlan.create(max_records=100, expected_batch_size=10, steps=5,
      ...                         clip_norm=1.0, noise_multiplier=1.0)
      >>> optimizer = optax.chain(as_optax(plan, jax.random.key(0)), optax.sgd(0.1))
    """
    key = checked_key(key, generator)
    check_generator(plan, generator)

    def init(params: Any) -> NoiseState:
        memory = release_state(plan, params)
        # Its own copy of the root: a state may be donated.
        return NoiseState(jax.random.clone(key), jnp.zeros((), jnp.int32), memory)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        check_matching(plan, updates, params)
        like = updates.private_value if params is None else params
        mean, memory = released_mean(
            plan, state.key, state.step, updates, like, state.memory, generator
        )
        return mean, NoiseState(state.key, state.step + 1, memory)

    return optax.GradientTransformation(init, update)


def release_state(plan: DPSGDPlan, params: Any) -> Any:
    """What a plan's stream carries from one step to the next, before the first.

    Nothing for independent noise; the clip norm that adapts (released, but never to be
    guessed from a later one); noise that later steps take back, which is SECRET.

    Args:
      plan: has the stream.
      params: a tree of arrays in the shapes of the parameters.
    """
    return plan.stream.init(
        jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, wide(p.dtype)), params)
    )


def check_generator(plan: DPSGDPlan, generator: str) -> None:
    """Refuses a generator that a plan's noise doesn't have.

    Raises:
      ValueError: an unknown one, or another than Threefry with adaptive clipping.
    """
    checks.one_of(GENERATORS, generator=generator)
    if generator not in plan.stream.generators:
        raise ValueError(
            f"generator={generator!r} is not there for {plan.stream.clipping}: use "
            f"generator={plan.stream.generators[0]!r}"
        )


def released_mean(
    plan: DPSGDPlan,
    key: jax.Array,
    step: jax.Array,
    clipped_sum: ClippedSum,
    like: Any,
    memory: Any = (),
    generator: str = "threefry",
) -> tuple[Any, Any]:
    """What one step publishes: (S + noise) / b, in the dtypes of `like`.

    The noise is a function of (key, step) and the memory. Beyond the plan's last step,
    and for a sum that was clipped to another norm than that of the memory, the result
    is all NaN. See `as_optax` for the guarantee.

    Args:
      plan: gives noise and divisor.
      key: the secret root of the noise.
      step: from 0; may be traced.
      clipped_sum: S, by `plan.gradient`, in float32 or wider.
      like: a tree of arrays whose dtypes the mean gets.
      memory: of `release_state` or of the step before.
      generator: of the noise; adaptive clipping has "threefry" alone.

    Returns:
      The mean, and the memory for the next step.
    """
    check_generator(plan, generator)
    check_matching(plan, clipped_sum)
    total = clipped_sum.private_value
    branch = jax.random.fold_in(key, NOISE_BRANCH)
    drawn = jax.random.fold_in(branch, step)
    total, drawn = held_back(total, drawn, source=jnp.asarray(step))
    usable = step < plan.steps
    if plan.stream.clip_moves:
        usable &= jnp.array_equal(clipped_sum.limit, plan.stream.limit(memory))
    noised, memory = plan.stream.step(
        drawn, total, memory, clipped_sum.statistics, generator=generator
    )
    divisor = plan.divisor(step)
    mean = jax.tree.map(
        lambda y, leaf: _mean(y, divisor, usable, leaf.dtype), noised, like
    )
    return mean, memory


def check_matching(plan: DPSGDPlan, total: Any, params: Any = None) -> None:
    """Refuses what is no sum for a plan's noise, when it is traced.

    Raises:
      TypeError: no `ClippedSum`, or one narrower than float32.
      ValueError: clipped otherwise; of rows that are no batch of the plan, or whose
        padding nobody told apart; several sums, or one of other shapes than params.
    """
    if not isinstance(total, ClippedSum):
        cause = "with nothing before as_optax in the chain"
        if type(total).__module__.startswith("flax."):
            cause = (
                "and nnx.Optimizer takes it apart: nnx.split the model, and give sum "
                "and parameters to the optax optimizer itself"
            )
        raise TypeError(
            f"updates={type(total).__name__}: noise needs the ClippedSum of "
            f"plan.gradient(loss_fn), {cause}"
        )
    if total.stack != ():
        raise ValueError(
            f"a stack of shape {total.stack} of un-noised sums, or a part of one: "
            "noise is for the sum of one batch; map over gradient and "
            "optimizer.update together, with a root for each"
        )
    wanted = plan.stream.clipping
    if total.clipping != wanted:
        raise ValueError(
            f"the sum is clipped by {total.clipping}, the plan's noise is for "
            f"{wanted}: make the sum with plan.gradient(loss_fn)"
        )
    slots, devices = plan.sampler.max_batch_size, jax.device_count()
    if not total.masked:
        raise ValueError(
            f"mask=None for {total.rows} rows, but the plan pads its batches to "
            f"{slots}: pass batch.mask, or what plan.batches(root, records) yields to "
            "plan.gradient(loss_fn)"
        )
    if not slots <= total.rows < slots + devices:
        raise ValueError(
            f"the sum is of {total.rows} rows, but the plan's batches have {slots} "
            f"slots, padded for {devices} devices at most: give all rows of one batch "
            "of plan.batches(root, records), and no others"
        )
    _refuse_narrow(total.private_value)
    if params is not None:
        _refuse_shapes(total.private_value, params)


def _mean(y: jax.Array, divisor: Any, usable: jax.Array, dtype: Any) -> jax.Array:
    """The sum over the constant divisor, or NaN."""
    return jnp.where(usable, y / divisor, jnp.full_like(y, jnp.nan)).astype(dtype)


def _refuse_shapes(total: Any, params: Any) -> None:
    """A sum of another model's gradients."""
    shapes, wanted = (
        {jax.tree_util.keystr(path): jnp.shape(leaf) for path, leaf in leaves}
        for leaves in map(jax.tree_util.tree_leaves_with_path, (total, params))
    )
    for name in sorted(shapes.keys() | wanted.keys()):
        if shapes.get(name) != wanted.get(name):
            raise ValueError(
                f"clipped_sum{name} has shape {shapes.get(name)}, the parameter "
                f"{wanted.get(name)}: give the sum of these parameters' gradients"
            )


def _refuse_narrow(tree: Any) -> None:
    """A sum rounded to half precision has lost its sensitivity bound."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not jnp.issubdtype(leaf.dtype, jnp.floating) or leaf.dtype.itemsize < 4:
            raise TypeError(
                f"clipped_sum{jax.tree_util.keystr(path)} has dtype {leaf.dtype}: "
                "noise needs the float32 sum that clipped_grad returns"
            )
