"""Clipped sums as plain trees, for tests of the sums themselves."""

import dataclasses
from typing import Any

from dpkit.mechanisms import ClippedSum
from dpkit.training import gradients


@dataclasses.dataclass(frozen=True)
class Bare:
    """A `ClippedGrad` that returns the value of its sum; without a mask, all rows."""

    typed: Any

    def __call__(self, params, batch, mask=None, keys=None) -> tuple[Any, Any]:
        total, aux = self.typed(params, batch, mask, keys)
        return total.private_value, aux

    def __getattr__(self, name):
        return getattr(self.typed, name)


def clipped_grad(loss_fn, **options) -> Any:
    """As the public one."""
    return Bare(gradients.clipped_grad(loss_fn, **options))


def clipped(plan, value, norms=(), memory=()) -> ClippedSum:
    """A tree as if `plan.gradient` had made it, of a batch with these norms."""
    stream = plan.stream
    return ClippedSum(
        value,
        stream.clipping,
        rows=plan.sampler.max_batch_size,
        limit=stream.limit(memory),
        statistics=stream.statistics(norms, memory),
    )
