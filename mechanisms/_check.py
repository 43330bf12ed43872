"""Checks of arrays and keys, with messages that name the argument.

Everything here looks at types, dtypes and shapes only, never at values, so the checks
work on tracers and can't make a failure depend on private data.
"""

from typing import Any

import jax
import jax.numpy as jnp


def typed_key(key: Any, *, batched: bool = False) -> jax.Array:
    """The key, if it is a typed Threefry key of JAX; a scalar unless `batched`.

    Raises:
      TypeError: a legacy uint32 key, no key at all, a key of another generator, or an
        array of keys where one was needed.

    Example:
      >>> typed_key(jax.random.key(0)).shape
      ()
    """
    # The messages describe the key and never print it: keys are secret.
    if not isinstance(key, jax.Array):
        raise TypeError(
            f"key={type(key).__name__}: needed a typed key; make one with "
            "jax.random.key(seed)"
        )
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise TypeError(
            f"key={key.dtype}{list(key.shape)}: needed a typed key; make one with "
            "jax.random.key(seed), or wrap this one with jax.random.wrap_key_data"
        )
    if str(jax.random.key_impl(key)) != "threefry2x32":
        raise TypeError(
            f"key={key.dtype}: needed a Threefry key; make one with "
            "jax.random.key(seed, impl='threefry2x32')"
        )
    if key.shape and not batched:
        raise TypeError(
            f"key={key.dtype}{list(key.shape)}: needed one key, not an array of keys; "
            "use jax.vmap, or pick one"
        )
    return key


def floating(**trees: Any) -> None:
    """Refuse, by name, a tree with a leaf that is not real floating point.

    Raises:
      TypeError: a leaf is an integer, a boolean, complex, or no array.

    Example:
      >>> floating(record={"w": jnp.zeros(3)})
    """
    for name, tree in trees.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            dtype = getattr(leaf, "dtype", None)
            if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
                raise TypeError(
                    f"{name}{jax.tree_util.keystr(path)}={dtype or type(leaf)}: "
                    "needed floating-point arrays; cast with jnp.asarray(x, float)"
                )


def same_length(**trees: Any) -> int:
    """The length of axis 0, on which all leaves agree.

    Raises:
      ValueError: no leaves, a leaf without axes, or leaves of unequal length.

    Example:
      >>> same_length(records={"x": jnp.zeros((5, 2)), "y": jnp.zeros(5)})
      5
    """
    ((name, tree),) = trees.items()
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]
    if not shapes or not all(shapes):
        raise ValueError(
            f"{name}={shapes}: needed at least one array, each with records on axis 0"
        )
    lengths = {shape[0] for shape in shapes}
    if len(lengths) > 1:
        raise ValueError(
            f"{name}={shapes}: needed leaves that agree on the length of axis 0; "
            "stack every record's leaves together"
        )
    return lengths.pop()
