"""One run of the program on a batch: losses, what the sites read, what flows back.

Every site's output gets a zero added to it. The derivative of the summed losses with
respect to these zeros is the cotangent of every site's output, for every example: one
backward pass, in which no gradient of a weight is formed. DATA values carry the batch
on axis 0 and go through each operation by `vmap`; the rest is computed once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dpkit.rewrite.program import (
    Kind,
    Loop,
    Operation,
    Program,
    Site,
    Value,
    constants_of,
)

Env = dict[Value, Any]
_POOLING = ("reduce_window_max", "reduce_window_min", "reduce_window_sum")


class Pass(NamedTuple):
    """What one pass over a batch of B examples gives.

    Args:
      losses: (B,).
      known: the values that depend on no data, outside loops.
      read: what sites read; of DATA (B, L..., shape), L the loops that the site stands
        in from the outermost, of others (L..., shape).
      cotangents: for every site, of its tracked outputs, (B, L..., shape) each.
    """

    losses: jax.Array
    known: Env
    read: Env
    cotangents: dict[Site, tuple[jax.Array, ...]]


def run(program: Program, leaves: Sequence[Any], rows: Sequence[Any]) -> Pass:
    """Runs the program forward, and backward to every site.

    Args:
      program: from `trace`.
      leaves: the parameters' leaves.
      rows: the leaves of examples and keys, (B, ...) each.

    Returns:
      The pass; in the dtypes of the loss.
    """
    size = rows[0].shape[0]
    known: Env = dict(zip(program.inputs, leaves, strict=False))
    for operation in program.operations:
        if all(value.kind is not Kind.DATA for value in operation.outputs):
            _run_known(operation, known)
    batch = dict(zip(program.inputs[len(leaves) :], rows, strict=True))
    sites = program.sites()
    zeros = {site: _zeros(site, size) for site in sites}

    wanted = {value: len(site.loops) for site in sites for value in reads(site)}

    def forward(epsilons: list[Any]) -> tuple[jax.Array, tuple[jax.Array, list[Any]]]:
        reader = _Reader(size, dict(zip(sites, epsilons, strict=True)))
        env = {**known, **batch}
        reader.run(program, env)
        losses = env[program.outputs[0]]
        return losses.sum(), (losses, [reader.read[value] for value in wanted])

    gradient = jax.grad(forward, has_aux=True)
    flowing, (losses, arrays) = gradient([zeros[site] for site in sites])
    read = {
        value: jnp.moveaxis(array, depth, 0) if value.kind is Kind.DATA else array
        for (value, depth), array in zip(wanted.items(), arrays, strict=True)
    }
    cotangents = {
        site: tuple(jnp.moveaxis(g, len(site.loops), 0) for g in flowing[i])
        for i, site in enumerate(sites)
    }
    return Pass(losses, known, read, cotangents)


def reads(site: Site) -> list[Value]:
    """The values that must be kept to apply a site again to other parameters.

    Its own DATA inputs; inside loops also the constants that its parameters meet on
    their way to it.
    """
    found = [value for value in site.inputs if value.kind is Kind.DATA]
    if site.loops:
        for value in site.inputs:
            known = value.kind is Kind.CONST and value.constant is None
            found.extend([value] if known else constants_of(value))
    return list(dict.fromkeys(found))


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


def _zeros(site: Site, size: int) -> tuple[jax.Array, ...]:
    """What is added to a site's outputs, loops in front of the batch."""
    front = (*(loop.params["length"] for loop in site.loops), size)
    avals = [site.outputs[i].aval for i in site.tracked]
    return tuple(jnp.zeros((*front, *aval.shape), aval.dtype) for aval in avals)


class _Reader:
    """Runs operations on a batch and keeps what the sites read."""

    def __init__(self, size: int, epsilons: Mapping[Site, Sequence[Any]]) -> None:
        self.size = size
        self.epsilons = dict(epsilons)
        self.read: Env = {}

    def run(self, program: Program, env: Env) -> None:
        """Fills `env` with all values of a program."""
        for operation in program.operations:
            if isinstance(operation, Loop):
                self._loop(operation, env)
            elif all(value.kind is not Kind.DATA for value in operation.outputs):
                _run_known(operation, env)
            else:
                results = list(self._batched(operation, env))
                if isinstance(operation, Site):
                    self._add_zeros(operation, results)
                    for value in reads(operation):
                        self.read[value] = evaluate(value, env)
                env.update(zip(operation.outputs, results, strict=True))

    def _batched(self, operation: Operation, env: Env) -> Sequence[Any]:
        """An operation on every example."""
        arrays = [evaluate(value, env) for value in operation.inputs]
        axes = [0 if value.kind is Kind.DATA else None for value in operation.inputs]
        if operation.name in _POOLING:
            pooled = _pooled(operation, arrays)
            if pooled is not None:
                return pooled
        return jax.vmap(operation.fn, axes, axis_size=self.size)(*arrays)

    def _add_zeros(self, site: Site, results: list[Any]) -> None:
        """Adds the site's zeros to its outputs."""
        for place, zero in zip(site.tracked, self.epsilons[site], strict=True):
            results[place] = results[place] + zero

    def _loop(self, loop: Loop, env: Env) -> None:
        """A scan whose body has sites."""
        body, params = loop.body, loop.params
        sites = body.sites()
        wanted = list(dict.fromkeys(v for site in sites for v in reads(site)))
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
            slices, epsilons = xs
            inner = _Reader(self.size, dict(zip(sites, epsilons, strict=True)))
            given = [*consts, *carry, *slices]
            values: Env = dict(zip(body.inputs, given, strict=True))
            inner.run(body, values)
            results = [evaluate(value, values) for value in body.outputs]
            ys = [
                self._spread(array, value)
                for array, value in zip(results, body.outputs, strict=True)
            ][loop.num_carry :]
            kept = [inner.read[value] for value in wanted]
            return results[: loop.num_carry], (ys, kept)

        carry, (ys, kept) = jax.lax.scan(
            step,
            carry,
            (scanned, [self.epsilons[site] for site in sites]),
            length=params["length"],
            reverse=params["reverse"],
            unroll=params["unroll"],
        )
        self.read.update(zip(wanted, kept, strict=True))
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
