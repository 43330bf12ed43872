"""What belongs together: a plan's batches, its clipped sums and its noise.

A plan hands out all three. Rows come with the mask that tells padding from records; a
gradient takes such rows only, and clips as the plan says; noise takes such sums only.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax

from dpkit import rewrite
from dpkit.accountants.events import Relation
from dpkit.mechanisms.clipped_sum import ClippedSum
from dpkit.mechanisms.clips import Flat
from dpkit.training.comparison import Check
from dpkit.training.gradients import ClippedGrad, LossFn, PrivateAux, clipped_grad


class MaskedRows(NamedTuple):
    """The records of one batch, in padded arrays: private, both parts.

    Example:
      >>> import numpy as np
      >>> batch = MaskedRows({"x": np.zeros((4, 2))}, np.array([1, 1, 0, 0], bool))
      >>> batch.rows["x"].shape
      (4, 2)
    """

    rows: Any
    """A tree of arrays (B, ...), a record in each row."""
    mask: Any
    """(B,) booleans, False where the row is padding."""


class NoiseState(NamedTuple):
    """Where the noise stands: SECRET, all of it.

    Args:
      key: the root of all noise.
      step: how many steps were taken.
      memory: what the plan's stream carries from step to step.
    """

    key: jax.Array
    step: jax.Array
    memory: Any = ()


@dataclasses.dataclass(frozen=True)
class PlanGradient:
    """What `plan.gradient` returns: clipped sums that the plan's noise accepts.

    Example:
      >>> import jax.numpy as jnp, numpy as np
      >>> from dpkit import DPSGDPlan
      >>> plan = DPSGDPlan.create(max_records=4, expected_batch_size=2, steps=5,
      ...                         clip_norm=1.0, noise_multiplier=1.0)
      >>> gradient = plan.gradient(lambda w, x, key: jnp.vdot(w, x))
      >>> rows = MaskedRows(np.full((4, 2), 3.0, np.float32), np.arange(4) < 1)
      >>> total, aux = gradient(jnp.zeros(2), rows)
      >>> round(float(total.private_value[0]), 4), aux.norms.shape
      (0.7071, (4,))
    """

    stream: Any
    grad: ClippedGrad

    def __call__(
        self,
        params: Any,
        batch: MaskedRows,
        keys: jax.Array | None = None,
        *,
        state: Any = None,
    ) -> tuple[ClippedSum, PrivateAux]:
        """The clipped sum over the records of a batch.

        Args:
          params: a tree of real floating arrays.
          batch: of `plan.batches(root, records)`, or `MaskedRows(rows, mask)`.
          keys: (B,) typed random keys, one a row, for dropout and the like.
          state: the optimizer's, in which `as_optax` keeps where the noise stands; only
            needed where the clip norm changes during the run.

        Returns:
          The sum, for `as_optax`, and a `PrivateAux` of losses and norms.

        Raises:
          TypeError: rows without their mask.
          ValueError: the clip norm changes, and no state says what it is; and as a call
            of `clipped_grad`.
        """
        memory: Any = ()
        if self.stream.clip_moves:
            memory = _noise_of(state).memory
        return self.at(memory, params, batch, keys)

    def at(
        self, memory: Any, params: Any, batch: MaskedRows, keys: jax.Array | None
    ) -> tuple[ClippedSum, PrivateAux]:
        """The same, from the state of the plan's stream."""
        if not isinstance(batch, MaskedRows) or batch.mask is None:
            raise TypeError(
                f"batch={type(batch).__name__} has no mask, and a plan's batches are "
                "padded: give what plan.batches(root, records) yields, or "
                "dpkit.training.MaskedRows(rows, batch.mask)"
            )
        grad = dataclasses.replace(self.grad, clip=self.stream.clip_for(memory))
        total, aux = grad(params, batch.rows, batch.mask, keys)
        matching = ClippedSum(
            total.private_value,
            self.stream.clipping,
            rows=total.rows,
            limit=self.stream.limit(memory),
            statistics=self.stream.statistics(aux.norms, memory),
        )
        return matching, aux

    def sensitivity(self, relation: Relation | str) -> float:
        """The most that one record moves the sum, in L2, where the clip is fixed."""
        return self.grad.sensitivity(relation)

    def plan(self, params: Any, rows: Any, keys: Any = None) -> rewrite.Table:
        """How the norm of every parameter is taken; see `ClippedGrad.plan`."""
        return self.grad.plan(params, rows, keys)

    def check(self, params: Any, rows: Any, keys: Any = None) -> Check:
        """Compares with per-example gradients; see `ClippedGrad.check`."""
        return self.grad.check(params, rows, keys)


def gradient_of(stream: Any, loss_fn: LossFn, options: dict[str, Any]) -> PlanGradient:
    """The gradient of a plan's stream.

    Raises:
      TypeError: a clip norm or a clip beside the plan's.
    """
    for name in ("clip_norm", "clip"):
        if name in options:
            raise TypeError(f"{name}={options[name]!r}: the plan has its own; drop it")
    if "microbatch_size" in options:
        raise TypeError("microbatch_size: a gradient takes microbatch=, without _size")
    clip = Flat(1.0) if stream.clip_moves else stream.clip_for(())
    return PlanGradient(stream, clipped_grad(loss_fn, clip=clip, **options))


def _noise_of(state: Any) -> NoiseState:
    """Where the noise stands, from anywhere in an optimiser's state."""

    def is_noise(leaf: Any) -> bool:
        return isinstance(leaf, NoiseState)

    leaves = jax.tree.leaves(state, is_leaf=is_noise)
    states = [leaf for leaf in leaves if is_noise(leaf)]
    if len(states) != 1:
        raise ValueError(
            f"state={type(state).__name__}: the clip norm of this plan changes from "
            "step to step; give the optimizer's state, "
            "gradient(params, batch, state=state)"
        )
    return states[0]
