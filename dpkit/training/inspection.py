"""The checks that a loss must pass before its gradients can be called per-example.

A loss is traced once on the shapes of a single example. Nothing private is read: only
shapes, types and the traced program.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core as jax_core

_CALLBACKS = ("pure_callback", "io_callback", "debug_callback", "debug_print")
_NORMALISERS = ("rsqrt", "sqrt")
# The axis of a mesh over which `clipped_grad` divides examples.
_DATA_AXIS = "data"
# What these do for many examples at once is not what they do for each of them.
_MIXERS = ("custom_vmap_call", "ffi_call", "rng_bit_generator", "rng_uniform")


def check_params(params: Any) -> None:
    """Refuses trainable leaves whose gradient norm would not be what it seems.

    Raises:
      TypeError: a leaf is complex, integer or boolean.
      ValueError: there is no leaf at all.
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    if not leaves:
        raise ValueError("params has no leaves: there is nothing to train")
    for path, leaf in leaves:
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(
                f"params{jax.tree_util.keystr(path)} has dtype {dtype}: trainable "
                "leaves must be real floating; keep others out of params"
            )


def check_batch(batch: Any, mask: Any, keys: Any) -> int:
    """Refuses rows that don't belong together.

    Args:
      batch: a tree of arrays (B, ...).
      mask: (B,) booleans, or None.
      keys: (B,) typed Threefry keys, or None.

    Returns:
      B.

    Raises:
      ValueError, TypeError: no rows, or another length, shape or dtype.
    """
    size = _batch_size(batch)
    if mask is not None and (mask.shape != (size,) or mask.dtype != jnp.bool_):
        raise ValueError(
            f"mask has shape {mask.shape} and dtype {mask.dtype}: it must be "
            f"({size},) booleans, one a row"
        )
    if keys is not None:
        _check_keys(keys, size)
    return size


@dataclasses.dataclass(frozen=True, eq=False)
class CheckedLoss:
    """A loss as the program that was checked: the function itself isn't run again.

    Args:
      closed: the program, of the leaves of (params, example, key).
      inputs: the structure of its arguments.
      names: of the primitives that it and its derivative are made of.
    """

    closed: Any
    inputs: Any
    names: frozenset[str] = frozenset()

    def __call__(self, params: Any, example: Any, key: Any) -> jax.Array:
        """The loss of one example."""
        leaves = jax.tree.leaves((params, example, key))
        return jax.core.eval_jaxpr(self.closed.jaxpr, self.closed.consts, *leaves)[0]

    def is_for(self, params: Any, example: Any, key: Any) -> bool:
        """Whether it was traced on these shapes and dtypes."""
        leaves, inputs = jax.tree.flatten((params, example, key))
        return inputs == self.inputs and [
            (leaf.shape, leaf.dtype) for leaf in leaves
        ] == [(aval.shape, aval.dtype) for aval in self.closed.in_avals]


def check_loss(
    loss_fn: Any,
    params: Any,
    example: Any,
    key: Any,
    *,
    allow_effects: bool = False,
) -> CheckedLoss:
    """Refuses a loss that isn't one number of one example; traces it once.

    Args:
      loss_fn: (params, example, key) -> scalar.
      params: the parameters, or their shapes.
      example: shapes of one example, without a batch axis.
      key: the shape of one key, or None.
      allow_effects: lets callbacks and printing in the loss pass: they hand
        un-noised values of single examples to the outside.

    Returns:
      The same loss, traced; what was checked on these shapes is returned as it is.

    Raises:
      TypeError: the loss returns a tuple (a mutable collection such as batch
        statistics, or auxiliary values) or anything that isn't a real number.
      ValueError: the loss is not scalar, it or its derivative has callbacks, batches
        itself in a way of its own, normalises over a batch, or uses the axis of a mesh
        over which a batch is divided.
    """
    if isinstance(loss_fn, CheckedLoss) and loss_fn.is_for(params, example, key):
        return loss_fn
    closed, out = jax.make_jaxpr(loss_fn, return_shape=True)(params, example, key)
    if not hasattr(out, "shape"):
        raise TypeError(
            f"loss_fn returned a {type(out).__name__}, not one number: batch "
            "statistics or other state updated from data can't be private this way "
            "(use LayerNorm or GroupNorm instead of BatchNorm), and auxiliary values "
            "have no place in a clipped gradient"
        )
    if out.shape != ():
        raise ValueError(
            f"loss_fn returned shape {out.shape}, not a scalar: it is called with "
            "ONE example, without a batch axis, and must return that example's loss"
        )
    if not jnp.issubdtype(out.dtype, jnp.floating):
        raise TypeError(f"loss_fn returned dtype {out.dtype}, not a real number")
    _refuse_placement(closed)
    _refuse_hidden(closed, allow_effects)
    # A derivative rule may do what the loss itself doesn't.
    traced = CheckedLoss(closed, jax.tree.structure((params, example, key)))
    derived = jax.make_jaxpr(jax.value_and_grad(traced))(params, example, key)
    _refuse_hidden(derived, allow_effects)
    _refuse_batch_normalisation(closed)
    _warn_of_unused(closed.jaxpr, params)
    names = frozenset(eqn.primitive.name for eqn in _equations(derived.jaxpr))
    return dataclasses.replace(traced, names=names)


def _warn_of_unused(jaxpr: Any, params: Any) -> None:
    """Noise alone would move such parameters."""
    named = jax.tree_util.tree_leaves_with_path(params)
    reached = _reached(jaxpr, [True] * len(jaxpr.outvars))
    unused = [
        f"params{jax.tree_util.keystr(path)}"
        for (path, _), used in zip(named, reached, strict=False)
        if not used
    ]
    if 0 < len(unused) < len(named):  # a loss that uses none is refused elsewhere
        warnings.warn(
            f"loss_fn doesn't use {', '.join(unused)}: noise alone will move what "
            "has no gradient; keep it out of params",
            stacklevel=3,
        )


def _reached(jaxpr: Any, wanted: list[bool]) -> list[bool]:
    """Which inputs of a program the wanted outputs are computed from, at most."""
    needed = {
        var
        for var, want in zip(jaxpr.outvars, wanted, strict=True)
        if want and isinstance(var, jax_core.Var)
    }
    for eqn in reversed(jaxpr.eqns):
        wants = [var in needed for var in eqn.outvars]
        if not any(wants):
            continue
        inner = eqn.params["jaxpr"].jaxpr if eqn.primitive.name == "jit" else None
        used = _reached(inner, wants) if inner else [True] * len(eqn.invars)
        needed.update(
            var
            for var, is_used in zip(eqn.invars, used, strict=True)
            if is_used and isinstance(var, jax_core.Var)
        )
    return [var in needed for var in jaxpr.invars]


def _equations(jaxpr: Any) -> Iterator[Any]:
    """Every equation of a jaxpr, inner ones included."""
    for eqn in jaxpr.eqns:
        yield eqn
        for sub in jax_core.jaxprs_in_params(eqn.params):
            yield from _equations(sub)


def _refuse_placement(closed: Any) -> None:
    """One example has no batch axis that could be divided among devices."""
    for eqn in _equations(closed.jaxpr):
        spec = getattr(eqn.params.get("sharding"), "spec", ())
        reduced = [eqn.params.get(name, ()) for name in ("axes", "axis_name")]
        if any(_DATA_AXIS in _axes(entry) for entry in (*spec, *reduced)):
            raise ValueError(
                f"loss_fn uses the mesh axis {_DATA_AXIS!r} ({eqn.primitive.name}), "
                "but it is given ONE example, which must not see others and has no "
                "batch axis: move this out of the loss, and pass mesh= to "
                "clipped_grad, which divides the batch"
            )


def _axes(entry: Any) -> tuple[Any, ...]:
    """The mesh axes in one entry of a specification."""
    return tuple(entry) if isinstance(entry, tuple | list) else (entry,)


def _refuse_hidden(closed: Any, allow_effects: bool) -> None:
    """What a program does besides computing one example's number."""
    if not allow_effects:
        _refuse_effects(closed)
    _refuse_mixers(closed)


def _refuse_effects(closed: Any) -> None:
    """Callbacks and prints would leak values of one example."""
    names = {eqn.primitive.name for eqn in _equations(closed.jaxpr)}
    found = sorted(names.intersection(_CALLBACKS))
    if found or closed.effects:
        raise ValueError(
            f"loss_fn has side effects ({', '.join(found) or 'effects'}): they would "
            "hand out un-noised values of single examples; remove them, or pass "
            "allow_effects=True and keep what they print private"
        )


def _refuse_mixers(closed: Any) -> None:
    """Batching rules of the user's own, and generators whose draws depend on the batch.

    Under `vmap` such code sees all examples at once, so that one could move another's
    gradient past the clip norm.
    """
    for eqn in _equations(closed.jaxpr):
        name = eqn.primitive.name
        if name in _MIXERS:
            raise ValueError(
                f"loss_fn uses {name}, which sees a whole batch at once: examples "
                "must not depend on each other; use primitives that JAX batches itself"
            )
        for var in eqn.invars:
            dtype = getattr(var.aval, "dtype", None)
            if dtype is not None and not _draws_apart(dtype):
                raise ValueError(
                    f"loss_fn draws from a {dtype}, whose numbers depend on the whole "
                    "batch: use Threefry keys, jax.random.key(seed, "
                    "impl='threefry2x32')"
                )


def _draws_apart(dtype: Any) -> bool:
    """Whether this is no key, or one whose numbers are the same in every batch."""
    return not jnp.issubdtype(dtype, jax.dtypes.prng_key) or str(dtype) == "key<fry>"


def _refuse_batch_normalisation(closed: Any) -> None:
    """A mean over a leading axis of one, then a root: BatchNorm fed a batch of one."""
    equations = list(_equations(closed.jaxpr))
    reduced = [eqn.outvars[0].aval.shape for eqn in equations if _over_unit_batch(eqn)]
    if not reduced:
        return
    sizes = {math.prod(shape) for shape in reduced}
    roots = {
        math.prod(eqn.invars[0].aval.shape)
        for eqn in equations
        if eqn.primitive.name in _NORMALISERS
    }
    if sizes & roots:
        raise ValueError(
            "loss_fn looks batch-normalised: it takes statistics over a batch axis, "
            "which is one example long here; BatchNorm mixes examples and has no "
            "per-example gradient: use GroupNorm or LayerNorm"
        )
    warnings.warn(
        "loss_fn reduces over a leading axis of length one; if that is the batch axis "
        "of a layer that mixes examples, replace the layer",
        stacklevel=3,
    )


def _over_unit_batch(eqn: Any) -> bool:
    """Whether an equation sums a leading axis of length one and keeps others.

    The axis may also be one that the layer itself mapped, as Equinox's does.
    """
    summed = eqn.primitive.name in ("reduce_sum", "psum")
    if not summed or 0 not in eqn.params["axes"]:
        return False
    return eqn.invars[0].aval.shape[:1] == (1,) and eqn.outvars[0].aval.shape != ()


def _batch_size(batch: Any) -> int:
    """The common length of all leaves."""
    leaves = jax.tree_util.tree_leaves_with_path(batch)
    if not leaves:
        raise ValueError("batch has no leaves: give arrays with a row an example")
    sizes = {}
    for path, leaf in leaves:
        if jnp.ndim(leaf) == 0:
            raise ValueError(f"batch{jax.tree_util.keystr(path)} has no batch axis")
        sizes[jax.tree_util.keystr(path)] = leaf.shape[0]
    if len(set(sizes.values())) > 1:
        raise ValueError(f"batch leaves disagree on the number of rows: {sizes}")
    return next(iter(sizes.values()))


def _check_keys(keys: Any, size: int) -> None:
    """Typed keys, one a row."""
    if not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key):
        raise TypeError(
            f"keys has dtype {keys.dtype}: give typed keys, "
            "jax.random.split(jax.random.key(...), batch_size)"
        )
    if str(jax.random.key_impl(keys)) != "threefry2x32":
        raise TypeError(
            f"keys has dtype {keys.dtype}, whose numbers depend on the whole batch: "
            "give Threefry keys, jax.random.key(seed, impl='threefry2x32')"
        )
    if keys.shape != (size,):
        raise ValueError(f"keys has shape {keys.shape}: it must be ({size},)")
