"""Operations of a traced loss, run on a batch of examples at once.

DATA values carry the batch on axis 0 and go through each operation by `vmap`; all
others are computed once. What happens at sites is for subclasses to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from dpkit.rewrite.program import (
    Kind,
    Loop,
    Operation,
    Program,
    Recomputed,
    Site,
    Value,
)

Env = dict[Value, Any]
_POOLING = ("reduce_window_max", "reduce_window_min", "reduce_window_sum")


def evaluate(value: Value, env: Env) -> Any:
    """A value that depends on no data, from those in `env`, which it fills."""
    if value in env:
        return env[value]
    if value.producer is None:
        return value.constant
    arrays = [evaluate(part, env) for part in value.producer.inputs]
    results = value.producer.fn(*arrays)
    env.update(zip(value.producer.outputs, results, strict=True))
    return env[value]


def _run_known(operation: Operation, env: Env) -> None:
    """An operation without data."""
    for value in operation.outputs:
        evaluate(value, env)


class Runner:
    """Runs operations on a batch; subclasses say what happens at sites.

    Args:
      size: B.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def site(self, site: Site, env: Env) -> list[Any]:
        """The outputs of a site."""
        raise NotImplementedError

    def given(self, loop: Loop) -> Any:
        """What an iteration of a loop is given besides its inputs, stacked."""
        return None

    def inside(self, loop: Loop, given: Any) -> Runner:
        """What runs one iteration."""
        return self

    def kept(self, loop: Loop) -> list[Any]:
        """What an iteration that this has run leaves behind."""
        return []

    def collect(self, loop: Loop, kept: list[Any]) -> None:
        """Takes what all iterations left, stacked."""

    def run(self, program: Program, env: Env) -> None:
        """Fills `env` with all values of a program."""
        for operation in program.operations:
            if isinstance(operation, Loop):
                self._loop(operation, env)
            elif isinstance(operation, Recomputed):
                self._recomputed(operation, env)
            elif all(
                value.kind is not Kind.DATA
                for value in (*operation.outputs, *operation.inputs)
            ):
                _run_known(operation, env)
            else:
                if isinstance(operation, Site):
                    results = self.site(operation, env)
                else:
                    results = self.batched(operation, env)
                env.update(zip(operation.outputs, results, strict=True))

    def batched(self, operation: Operation, env: Env) -> Sequence[Any]:
        """An operation on every example."""
        arrays = [evaluate(value, env) for value in operation.inputs]
        axes = [0 if value.kind is Kind.DATA else None for value in operation.inputs]
        if operation.name in _POOLING:
            pooled = _pooled(operation, arrays)
            if pooled is not None:
                return pooled
        return jax.vmap(operation.fn, axes, axis_size=self.size)(*arrays)

    def _recomputed(self, part: Recomputed, env: Env) -> None:
        """A part that is run again for the backward pass."""

        def forward(arrays: list[Any]) -> list[Any]:
            values: Env = dict(zip(part.body.inputs, arrays, strict=True))
            self.run(part.body, values)
            return [values[value] for value in part.body.outputs]

        again = jax.checkpoint(
            forward,
            policy=part.params["policy"],
            prevent_cse=part.params["prevent_cse"],
        )
        results = again([evaluate(value, env) for value in part.inputs])
        env.update(zip(part.outputs, results, strict=True))

    def _loop(self, loop: Loop, env: Env) -> None:
        """A scan whose body has sites."""
        body, params = loop.body, loop.params
        split = loop.num_consts, loop.num_consts + loop.num_carry
        arrays = [evaluate(value, env) for value in loop.inputs]
        batched = [value.kind is Kind.DATA for value in body.inputs]
        consts, carry, scanned = _thirds(arrays, split)
        batched_scanned = batched[split[1] :]
        scanned = [
            jnp.moveaxis(array, 0, 1) if has else array
            for array, has in zip(scanned, batched_scanned, strict=True)
        ]

        def step(carry: list[Any], xs: Any) -> tuple[list[Any], Any]:
            slices, given = xs
            inner = self.inside(loop, given)
            arrays = [*consts, *carry, *slices]
            values: Env = dict(zip(body.inputs, arrays, strict=True))
            inner.run(body, values)
            results = [evaluate(value, values) for value in body.outputs]
            ys = [
                self._spread(array, value)
                for array, value in zip(results, body.outputs, strict=True)
            ][loop.num_carry :]
            return results[: loop.num_carry], (ys, inner.kept(loop))

        carry, (ys, kept) = jax.lax.scan(
            step,
            carry,
            (scanned, self.given(loop)),
            length=params["length"],
            reverse=params["reverse"],
            unroll=params["unroll"],
        )
        self.collect(loop, kept)
        carry = [
            self._spread(array, value)
            for array, value in zip(carry, body.outputs[: loop.num_carry], strict=True)
        ]
        results = [*carry, *(jnp.moveaxis(y, 1, 0) for y in ys)]
        env.update(zip(loop.outputs, results, strict=True))

    def _spread(self, array: Any, value: Value) -> Any:
        """The array with a batch axis, whether or not the value depends on data."""
        if value.kind is Kind.DATA:
            return array
        return jnp.broadcast_to(array, (self.size, *jnp.shape(array)))


def _thirds(items: list[Any], split: tuple[int, int]) -> tuple[list, list, list]:
    """A list cut at two places."""
    return items[: split[0]], items[split[0] : split[1]], items[split[1] :]


def _pooled(operation: Operation, arrays: Sequence[Any]) -> list[Any] | None:
    """Pooling without leading axes of one example, which would make slow windows."""
    params = operation.params
    (array,) = arrays
    if array.ndim < 3 or array.shape[1] != 1 or params["window_dimensions"][0] != 1:
        return None
    if params["padding"][0] != (0, 0) or params["base_dilation"][0] != 1:
        return None
    # The batch takes the place of the axis: windows are one long there in any case.
    primitive = getattr(jax.extend.core.primitives, f"{operation.name}_p")
    return [primitive.bind(array[:, 0], **params)[:, None]]
