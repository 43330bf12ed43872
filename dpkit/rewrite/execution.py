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

from dpkit.rewrite.program import Kind, Loop, Program, Site, Value, constants_of
from dpkit.rewrite.running import Env, Runner, evaluate


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
        for value in operation.outputs:
            if value.kind is not Kind.DATA:
                evaluate(value, known)
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


def _zeros(site: Site, size: int) -> tuple[jax.Array, ...]:
    """What is added to a site's outputs, loops in front of the batch."""
    front = (*(loop.params["length"] for loop in site.loops), size)
    avals = [site.outputs[i].aval for i in site.tracked]
    return tuple(jnp.zeros((*front, *aval.shape), aval.dtype) for aval in avals)


class _Reader(Runner):
    """Adds zeros to what comes out of sites, and keeps what goes in."""

    def __init__(self, size: int, epsilons: Mapping[Site, Sequence[Any]]) -> None:
        super().__init__(size)
        self.epsilons = dict(epsilons)
        self.read: Env = {}

    def site(self, site: Site, env: Env) -> list[Any]:
        """The outputs, with zeros added where a gradient flows."""
        results = list(self.batched(site, env))
        for place, zero in zip(site.tracked, self.epsilons[site], strict=True):
            results[place] = results[place] + zero
        self.read.update((value, evaluate(value, env)) for value in reads(site))
        return results

    def given(self, loop: Loop) -> Any:
        """The zeros of the sites in a loop."""
        return [self.epsilons[site] for site in loop.body.sites()]

    def inside(self, loop: Loop, given: Any) -> Runner:
        """A reader of one iteration's own."""
        return _Reader(self.size, dict(zip(loop.body.sites(), given, strict=True)))

    def kept(self, loop: Loop) -> list[Any]:
        """What the sites of one iteration read."""
        return [self.read[value] for value in _wanted(loop)]

    def collect(self, loop: Loop, kept: list[Any]) -> None:
        """What the sites read in all iterations."""
        self.read.update(zip(_wanted(loop), kept, strict=True))


def _wanted(loop: Loop) -> list[Value]:
    """What the sites in a loop read, each once."""
    values = (value for site in loop.body.sites() for value in reads(site))
    return list(dict.fromkeys(values))
