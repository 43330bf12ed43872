"""A way of clipping against per-example gradients, on two rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_TOLERANCE = 1e-3


class Check(NamedTuple):
    """What `ClippedGrad.check` found: private if its rows were.

    Example:
      >>> Check(jnp.ones(2), jnp.ones(2), ("bias",)).unmoved
      ('bias',)
    """

    norms: jax.Array
    """Of the first two examples, by the mode in use."""
    trusted: jax.Array
    """The same by per-example gradients."""
    unmoved: tuple[str, ...]
    """Parameters whose gradient was zero for both: they would not be trained."""


def compare(way: Any, trusted: Any, params: Any, batch: Any, keys: Any) -> Check:
    """What two ways of clipping make of the first two rows of a batch.

    Args:
      way, trusted: from `clipped_grad`; the second by per-example gradients.
      params, batch, keys: as in a call of them.

    Returns:
      The norms of both, and the parameters whose gradient was zero.

    Raises:
      ValueError: norms or sums differ by more than a thousandth.
    """
    params = jax.tree.map(_local, params)
    batch = jax.tree.map(lambda leaf: _local(leaf)[:2], batch)
    keys = None if keys is None else keys[:2]
    total, aux = jax.jit(way)(params, batch, None, keys)
    wanted, right = jax.jit(trusted)(params, batch, None, keys)
    total, wanted = total.private_value, wanted.private_value
    distance = max(
        _distance(aux.norms, right.norms),
        *map(_distance, jax.tree.leaves(total), jax.tree.leaves(wanted)),
    )
    if not distance <= _TOLERANCE:
        raise ValueError(
            f"mode={way.mode!r} gives norms {aux.norms.tolist()}, per-example "
            f"gradients have {right.norms.tolist()}: use mode='vmap' for this "
            "loss, and report it"
        )
    unmoved = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, leaf in jax.tree_util.tree_leaves_with_path(wanted)
        if not jnp.any(leaf)
    ]
    return Check(aux.norms, right.norms, tuple(unmoved))


def made_up(example: Any) -> tuple[Any, jax.Array]:
    """Two rows and two keys for them, of which nothing is private.

    Returns:
      Rows whose floats are drawn and whose integers are 0 and 1; typed keys.

    Example:
      >>> rows, keys = made_up(jax.ShapeDtypeStruct((), jnp.int32))
      >>> rows.tolist(), keys.shape
      ([0, 1], (2,))
    """
    draws = np.random.default_rng(0)

    def rows(leaf: Any) -> jax.Array:
        shape = (2, *leaf.shape)
        dtype = jax.dtypes.canonicalize_dtype(leaf.dtype)
        if jnp.issubdtype(dtype, jnp.floating):
            return jnp.asarray(draws.normal(size=shape), dtype)
        return jnp.broadcast_to(
            jnp.arange(2).reshape(2, *(1,) * len(leaf.shape)) > 0, shape
        ).astype(dtype)

    return jax.tree.map(rows, example), jax.random.split(jax.random.key(0), 2)


def _local(leaf: Any) -> Any:
    """An array that is on no mesh."""
    typed = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return leaf if typed else np.asarray(leaf)


def _distance(some: jax.Array, wanted: jax.Array) -> float:
    """The largest difference as a share of the largest wanted entry, where finite."""
    got, right = np.asarray(some, float), np.asarray(wanted, float)
    usable = np.isfinite(got) | np.isfinite(right)
    got, right = got[usable], right[usable]
    scale = float(np.max(np.abs(right), initial=0.0)) or 1.0
    return float(np.max(np.abs(got - right), initial=0.0)) / scale
