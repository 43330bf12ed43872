"""The way from one parameter to a site, where it only moves entries about.

Reshaping, transposing, slicing, reversing and casting leave the gradient's entries what
they are: the norm of a site's gradient in the site's own layout is the norm of its
gradient in the parameter's. Loops count as well: a parameter that is scanned over gives
every iteration a slice, one that is shared gives every iteration the whole.
"""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dpkit.rewrite.program import Kind, Loop, Operation, Site, Value

_MOVES = ("reshape", "transpose", "squeeze", "expand_dims", "slice", "rev", "copy")
_MOVES += ("copy_p", "convert_element_type", "broadcast_in_dim", "lift")


@dataclasses.dataclass(frozen=True, eq=False)
class Selection:
    """What a site sees of one parameter.

    Args:
      leaf: the parameter's number.
      links: operations and loops from the parameter to the site; a loop with whether it
        scans over the parameter.
      shape: of what the site sees in one iteration.
    """

    leaf: int
    links: tuple[Operation | tuple[Loop, bool], ...]
    shape: tuple[int, ...]

    @property
    def scans(self) -> tuple[bool, ...]:
        """For every loop around the site, whether it scans over the parameter."""
        return tuple(link[1] for link in self.links if isinstance(link, tuple))

    def view(self, leaf: jax.Array) -> jax.Array:
        """What the site sees, (L..., shape), with the lengths of the scanning loops."""
        return _followed(self.links, leaf)


def selection(site: Site, value: Value, leaves: dict[Value, int]) -> Selection | None:
    """The way from a parameter to a value that a site reads; None of any other way."""
    links: list[Operation | tuple[Loop, bool]] = []
    shape = value.aval.shape
    while value not in leaves:
        operation = value.producer
        if operation is not None:
            if not _only_moves(operation):
                return None
            links.append(operation)
            (value,) = operation.inputs
        elif value.outer is not None:
            links.extend([] if value.entry is None else [value.entry])
            value = value.outer
        else:
            return None
    return Selection(leaves[value], tuple(reversed(links)), shape)


def _only_moves(operation: Operation) -> bool:
    """Whether an operation only moves entries of its one input."""
    if operation.name not in _MOVES or len(operation.inputs) != 1:
        return False
    (value,), (output,) = operation.inputs, operation.outputs
    if value.kind is not Kind.PARAM:
        return False
    real = all(jnp.issubdtype(v.aval.dtype, jnp.floating) for v in (value, output))
    # Broadcasting may add axes of length one only.
    return real and output.aval.size <= value.aval.size


def _followed(links: Any, array: jax.Array) -> jax.Array:
    """The array along the links."""
    scans = 0  # axes in front, one for every loop that scans over the parameter
    for link in links:
        if isinstance(link, tuple):
            scans += link[1]
        else:
            array = _moved(link, array, scans)
    return array


def _moved(operation: Operation, array: jax.Array, front: int) -> jax.Array:
    """The entries where the operation moves them; the first axes stay.

    In plain words, as the operation itself may be bound to the mesh it was traced on.
    """
    name, params = operation.name, operation.params
    if name in ("slice", "rev"):
        parts = [slice(None)] * array.ndim
        if name == "rev":
            for axis in params["dimensions"]:
                parts[front + axis] = slice(None, None, -1)
        else:
            bounds = (params["start_indices"], params["limit_indices"])
            strides = params["strides"] or (1,) * len(bounds[0])
            ends = zip(*bounds, strides, strict=True)
            parts[front:] = [slice(*numbers) for numbers in ends]
        return array[tuple(parts)]
    order = params["permutation"] if name == "transpose" else None
    if name == "reshape":
        order = params["dimensions"]
    if order is not None:
        array = array.transpose(*range(front), *(front + axis for axis in order))
    return array.reshape(*array.shape[:front], *operation.outputs[0].aval.shape)


def numbering(view: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The number of the parameter's entry at every place of a view of it."""
    numbers = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    # A thread of its own has no trace, and no mesh that the caller set: there the view
    # is of plain arrays.
    with ThreadPoolExecutor(1) as alone:
        return alone.submit(lambda: np.asarray(view(jnp.asarray(numbers)))).result()
