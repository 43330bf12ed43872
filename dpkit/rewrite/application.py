"""A site applied again: its outputs as a function of the parameters alone."""

from __future__ import annotations

from typing import Any

import jax

from dpkit.rewrite.program import Kind, Site, Value
from dpkit.rewrite.running import Env, evaluate


def outputs(site: Site, known: Env, read: Env) -> tuple[Any, ...]:
    """The tracked outputs of a site for one example.

    Args:
      site: where parameters meet data.
      known: the parameters' leaves and what depends on no data, outside loops. Values
        that depend on parameters are left out, to be computed anew.
      read: what the site read for this example, (L..., shape), loops in front.

    Returns:
      Arrays (L..., shape), a function of the leaves with the right derivative.
    """
    return _level(site, 0, known, list(read), list(read.values()))


def _level(
    site: Site, depth: int, env: Env, values: list[Value], arrays: list[Any]
) -> tuple[Any, ...]:
    """The outputs, seen from inside the first `depth` loops."""
    if depth == len(site.loops):
        env = {**env, **dict(zip(values, arrays, strict=True))}
        results = site.fn(*(evaluate(value, env) for value in site.inputs))
        return tuple(results[i] for i in site.tracked)
    loop = site.loops[depth]
    shared: Env = {}
    scanned: Env = {}
    for value in loop.body.inputs:
        if value.kind is Kind.PARAM and value.outer is not None and value.entry:
            entered = scanned if value.entry[1] else shared
            entered[value] = evaluate(value.outer, env)

    def iteration(slices: list[Any], arrays: list[Any]) -> tuple[Any, ...]:
        inner = {**shared, **dict(zip(scanned, slices, strict=True))}
        return _level(site, depth + 1, inner, values, arrays)

    length = loop.params["length"]
    return jax.vmap(iteration, axis_size=length)(list(scanned.values()), arrays)
