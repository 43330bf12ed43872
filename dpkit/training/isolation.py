"""Programs in which what one example holds can't reach another's numbers.

A convolution may be grouped by features or by its batch. Some backends make the second
kind a plain convolution of everything with everything, and multiply what doesn't belong
together by zero; but 0 * NaN is NaN, so one example that isn't finite then spoils all
others. Derivatives of convolutions, batched, are of that kind. The same numbers come
out of a convolution that is grouped by features, which no backend mixes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core as jax_core

CONVOLUTION = "conv_general_dilated"
_DERIVED = ("custom_jvp_call", "custom_vjp_call")


def isolated(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, with every convolution grouped by features at most.

    Args:
      fn: traceable; what it returns can't be differentiated further where a derivative
        rule holds such a convolution.

    Example:
      >>> import jax.numpy as jnp
      >>> isolated(jnp.sin)(0.0)
      Array(0., dtype=float32, weak_type=True)
    """

    def call(*args: Any) -> Any:
        closed, shape = jax.make_jaxpr(fn, return_shape=True)(*args)
        outputs = _Replay().run(closed, jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shape), outputs)

    return call


class _Replay:
    """One program, run again; inner programs that occur often are replaced once."""

    def __init__(self) -> None:
        # By identity; the programs are kept, so that no other can take their place.
        self._mixing: dict[int, tuple[Any, bool]] = {}
        self._replaced: dict[int, tuple[Any, Any]] = {}

    def run(self, closed: Any, args: list[Any]) -> list[Any]:
        """What a program returns."""
        jaxpr = closed.jaxpr
        if not self._mixes(jaxpr):
            return jax.core.eval_jaxpr(jaxpr, closed.consts, *args)
        values = dict(zip(jaxpr.constvars, closed.consts, strict=True))
        values |= zip(jaxpr.invars, args, strict=True)

        def read(var: Any) -> Any:
            return var.val if isinstance(var, jax_core.Literal) else values[var]

        for eqn in jaxpr.eqns:
            results = self._result(jaxpr, eqn, [read(var) for var in eqn.invars])
            values |= zip(eqn.outvars, results, strict=True)
        return [read(var) for var in jaxpr.outvars]

    def _mixes(self, jaxpr: Any) -> bool:
        """Whether a convolution in a program is grouped by its batch."""
        if id(jaxpr) not in self._mixing:
            mixes = any(map(self._is_mixing, jaxpr.eqns))
            self._mixing[id(jaxpr)] = jaxpr, mixes
        return self._mixing[id(jaxpr)][1]

    def _is_mixing(self, eqn: Any) -> bool:
        """Whether an equation is such a convolution, or holds one."""
        if eqn.primitive.name == CONVOLUTION:
            return eqn.params["batch_group_count"] > 1
        return any(map(self._mixes, jax_core.jaxprs_in_params(eqn.params)))

    def _result(self, jaxpr: Any, eqn: Any, args: list[Any]) -> list[Any]:
        """What an equation of a jaxpr returns, without batch groups."""
        params = eqn.params
        if self._is_mixing(eqn):
            if eqn.primitive.name == CONVOLUTION:
                return [_by_features(eqn, *args)]
            if eqn.primitive.name in _DERIVED:
                return self.run(params["call_jaxpr"], args)
            params = {name: self._inside(param) for name, param in params.items()}
        given = {
            var: array
            for var, array in zip(eqn.invars, args, strict=True)
            if not isinstance(var, jax_core.Literal)
        }
        alone = jaxpr.replace(
            constvars=(),
            invars=list(given),
            outvars=eqn.outvars,
            eqns=[eqn.replace(params=params)],
            effects=eqn.effects,
            debug_info=jaxpr.debug_info.with_unknown_names(),
        )
        return jax.core.eval_jaxpr(alone, (), *given.values())

    def _inside(self, param: Any) -> Any:
        """A parameter of an equation, with the programs in it replaced."""
        if hasattr(param, "_fields"):
            return type(param)(*map(self._inside, param))
        if type(param) in (tuple, list):
            return type(param)(map(self._inside, param))
        if isinstance(param, jax_core.Jaxpr):
            return self._inside(jax_core.ClosedJaxpr(param, ())).jaxpr
        if not isinstance(param, jax_core.ClosedJaxpr) or not self._mixes(param.jaxpr):
            return param
        key = id(param.jaxpr)
        if key not in self._replaced:
            inputs = [_like(var.aval) for var in param.jaxpr.invars]
            new = jax.make_jaxpr(lambda *args: self.run(param, list(args)))(*inputs)
            self._replaced[key] = param, new
        return self._replaced[key][1]


def _like(aval: Any) -> jax.ShapeDtypeStruct:
    """A value's shape and type, and where it is."""
    return jax.ShapeDtypeStruct(
        aval.shape,
        aval.dtype,
        weak_type=aval.weak_type,
        sharding=getattr(aval, "sharding", None),
    )


def _by_features(eqn: Any, left: jax.Array, right: jax.Array) -> jax.Array:
    """A convolution with batch groups, group by group, then side by side."""
    numbers, groups = eqn.params["dimension_numbers"], eqn.params["batch_group_count"]
    params = {**eqn.params, "batch_group_count": 1}
    batch, kernels = numbers.lhs_spec[0], numbers.rhs_spec[0]
    features = numbers.out_spec[1]

    def split(array: jax.Array, axis: int) -> jax.Array:
        shape = array.shape
        return array.reshape(
            *shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :]
        )

    out = jax.vmap(
        lambda some, kernel: eqn.primitive.bind(some, kernel, **params),
        (batch, kernels),
        features,
    )(split(left, batch), split(right, kernels))
    shape = out.shape
    return out.reshape(*shape[:features], -1, *shape[features + 2 :])
