"""Modules of Flax, NNX and Equinox, and pairs of functions, called in one way."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Model:
    """A network as two functions.

    Attributes:
      init: a public key -> parameters, a tree of arrays.
      apply: (parameters, inputs of ONE example, key or None) -> an array. The key is of
        randomness inside, such as dropout; without it there is none.
      filled: parameters -> the module that holds them; None where no module does.

    Example:
      >>> model = Model(lambda key: jnp.ones(2), lambda w, x, key: jnp.vdot(w, x))
      >>> float(model.apply(model.init(jax.random.key(0)), jnp.ones(2), None))
      2.0
    """

    init: Callable[[jax.Array], Any]
    apply: Callable[[Any, Any, jax.Array | None], jax.Array]
    filled: Callable[[Any], Any] | None = None


def as_model(made: Any, inputs: Any) -> Model:
    """A module, or a pair of functions, as `Model`.

    Args:
      made: a module of Flax Linen; of Flax NNX or Equinox, whose parameters are made
        already; or an object with `init(key, inputs)` and `apply(params, inputs)`, such
        as a pair of Haiku's without apply_rng.
      inputs: shapes and dtypes of the inputs of one example.

    Raises:
      TypeError: another object.
      ValueError: on `init`, a module with other state than parameters, such as the
        statistics of a batch, which would mix examples.

    Example:
      >>> from flax import linen
      >>> model = as_model(linen.Dense(3), jax.ShapeDtypeStruct((2,), jnp.float32))
      >>> jax.eval_shape(model.init, jax.random.key(0))["kernel"].shape
      (2, 3)
    """
    from flax import linen, nnx

    if isinstance(made, Model):
        return made
    if isinstance(made, linen.Module):
        return _linen(made, inputs)
    if isinstance(made, nnx.Module):
        return _nnx(made)
    equinox = sys.modules.get("equinox")  # there, if one of its modules was made
    if equinox is not None and isinstance(made, equinox.Module):
        return _equinox(made, equinox)
    if callable(getattr(made, "init", None)) and callable(getattr(made, "apply", None)):
        return Model(
            lambda key: made.init(key, zeros(inputs)),
            lambda params, x, key: made.apply(params, x),
        )
    raise TypeError(
        f"the factory made {type(made).__name__}: it must return a module of Flax, "
        "NNX or Equinox, or an object with init and apply"
    )


def zeros(inputs: Any) -> Any:
    """Inputs of zeros.

    Example:
      >>> zeros({"x": jax.ShapeDtypeStruct((2,), jnp.float32)})["x"].tolist()
      [0.0, 0.0]
    """
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), inputs)


def _linen(module: Any, inputs: Any) -> Model:
    """A module of Flax Linen."""

    def init(key: jax.Array) -> Any:
        names = ("params", "dropout")
        keys = dict(zip(names, jax.random.split(key), strict=True))
        keys["params"] = key
        variables = jax.jit(module.init)(keys, zeros(inputs))
        _refuse_state(set(variables) - {"params"})
        return variables.get("params", {})

    def apply(params: Any, x: Any, key: jax.Array | None) -> jax.Array:
        keys = None if key is None else {"dropout": key}
        return module.apply({"params": params}, x, rngs=keys)

    return Model(init, apply)


def _nnx(module: Any) -> Model:
    """A module of Flax NNX; its parameters are those that it came with."""
    from flax import nnx

    graph, params, rest = nnx.split(module, nnx.Param, ...)
    kinds = {type(leaf).__name__ for leaf in jax.tree.leaves(rest, is_leaf=_variable)}
    _refuse_state(kinds & {"BatchStat"})
    start = nnx.to_pure_dict(params)

    def filled(values: Any) -> Any:
        state, others = jax.tree.map(lambda leaf: leaf, (params, rest))
        nnx.replace_by_pure_dict(state, values)
        return nnx.merge(graph, state, others)

    def apply(values: Any, x: Any, key: jax.Array | None) -> jax.Array:
        made = filled(values)
        if key is None:
            made.eval()
        else:
            made.train()
            nnx.reseed(made, default=key, dropout=key)
        return made(x)

    return Model(lambda key: start, apply, filled)


def _variable(leaf: Any) -> bool:
    """Whether a leaf is a variable of NNX."""
    from flax import nnx

    return isinstance(leaf, nnx.Variable)


def _equinox(module: Any, equinox: Any) -> Model:
    """A module of Equinox; its parameters are those that it came with."""
    params, rest = equinox.partition(module, equinox.is_inexact_array)
    leaves, structure = jax.tree.flatten(params)
    names = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
    ]
    start = dict(zip(names, leaves, strict=True))

    def filled(values: Mapping[str, Any]) -> Any:
        tree = jax.tree.unflatten(structure, [values[name] for name in names])
        return equinox.combine(tree, rest)

    keyed = "key" in inspect.signature(type(module).__call__).parameters

    def apply(values: Mapping[str, Any], x: Any, key: jax.Array | None) -> jax.Array:
        made = filled(values)
        if key is None:
            made = equinox.nn.inference_mode(made)
        return made(x, key=key) if keyed else made(x)

    return Model(lambda key: start, apply, filled)


def _refuse_state(others: set[str]) -> None:
    """Refuses a module that keeps more than parameters."""
    if others:
        raise ValueError(
            f"the model keeps {', '.join(sorted(others))} besides parameters: what is "
            "computed over a batch mixes examples; use a norm of one example, such as "
            "GroupNorm or LayerNorm"
        )
