r"""Sites whose gradient is a product of two thin matrices, A^T G, row by row.

Dense layers, einsums, convolutions and embedding lookups: A (T, D) holds what the
parameter meets in each of T rows (positions, patches, one-hot lookups), G (T, P) the
cotangent of what comes out. With a further axis H over independent blocks (heads,
groups, layers of a scanned stack) the gradient is, block by block,

    dW_h = sum_t a_ht g_ht^T,      (H, D, P) in the *matrix layout* of the site.

Rows of a lookup are kept as indices, never as one-hot vectors.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dpkit.rewrite.program import Kind, Site, Value
from dpkit.rewrite.selections import Selection, selection


@dataclasses.dataclass(frozen=True, eq=False)
class Factored:
    """How a site's gradient factors.

    Args:
      site: the site.
      selection: which entries of which parameter it uses.
      operand: the DATA value that A is made of.
      size: H, T, D, P.
      matrix: from what the site sees, (shape), to blocks (h, D, P) of one iteration.
      rows: from the operand (N, ...) of N iterations or examples to A (N, h, t, D), or
        to indices (N, 1, t) of a lookup.
      columns: from the cotangent (N, ...) to G (N, h, t, P).
      lookup: whether rows are indices; those outside 0..D-1 count for nothing.
    """

    site: Site
    selection: Selection
    operand: Value
    size: tuple[int, int, int, int]
    matrix: Callable[[jax.Array], jax.Array]
    rows: Callable[[jax.Array], jax.Array]
    columns: Callable[[jax.Array], jax.Array]
    lookup: bool = False

    def left(self, array: jax.Array) -> jax.Array:
        """A of a whole batch, (B, H, T, D), or indices (B, H, T)."""
        return self._gathered(array, self.rows)

    def right(self, array: jax.Array) -> jax.Array:
        """G of a whole batch, (B, H, T, P)."""
        return self._gathered(array, self.columns)

    def blocks(self, leaf: jax.Array) -> jax.Array:
        """The parameter in the site's matrix layout, (H, D, P); only moves entries."""
        seen = self.selection.view(leaf)
        stacked = seen.shape[: seen.ndim - len(self.selection.shape)]
        flat = seen.reshape(-1, *self.selection.shape)
        one = jax.vmap(self.matrix)(flat)
        return one.reshape(math.prod(stacked) * one.shape[1], *one.shape[2:])

    def _gathered(self, array: jax.Array, turn: Any) -> jax.Array:
        """Scanned loops become blocks, others rows: (B, L..., x) to (B, H, T, ...)."""
        scans = self.selection.scans
        front = array.shape[: 1 + len(scans)]
        flat = turn(array.reshape(-1, *array.shape[len(front) :]))
        array = flat.reshape(*front, *flat.shape[1:])
        loops = range(1, len(front))
        blocks = [axis for axis in loops if scans[axis - 1]]
        shared = [axis for axis in loops if not scans[axis - 1]]
        last = len(front)
        rest = range(last + 2, array.ndim)
        array = array.transpose(0, *blocks, last, *shared, last + 1, *rest)
        _, h, t, *_ = (front[0], *self.size)
        return array.reshape(front[0], h, t, *array.shape[last + 2 :])


def factored(site: Site, leaves: dict[Value, int]) -> Factored | None:
    """How a site's gradient factors; None where it doesn't."""
    make = _MAKERS.get(site.name)
    if make is None or len(site.inputs) != len(site.operands) or len(site.outputs) > 1:
        return None
    arguments = [site.inputs[place] for place in site.operands if place is not None]
    if len(arguments) != 2 or {v.kind for v in arguments} != {Kind.PARAM, Kind.DATA}:
        return None
    place = next(i for i, v in enumerate(arguments) if v.kind is Kind.PARAM)
    weight, data = arguments[place], arguments[1 - place]
    real = (weight.aval.dtype, site.outputs[0].aval.dtype)
    if not all(jnp.issubdtype(dtype, jnp.floating) for dtype in real):
        return None
    chosen = selection(site, weight, leaves)
    if chosen is None:
        return None
    # Nothing to gain where nothing is multiplied, and no shape can be inferred.
    if not all(v.aval.size for v in (weight, data, *site.outputs)):
        return None
    return make(site, chosen, weight, data, place)


def _finished(
    site: Site, chosen: Selection, data: Value, shapes: Any, **turns: Any
) -> Factored:
    """The factoring with loops counted in."""
    h, t, d, p = shapes
    for loop, scans in zip(site.loops, chosen.scans, strict=True):
        length = loop.params["length"]
        h, t = (h * length, t) if scans else (h, t * length)
    return Factored(site, chosen, data, (h, t, d, p), **turns)


def _dot(
    site: Site, chosen: Selection, weight: Value, data: Value, place: int
) -> Factored:
    """A contraction: dense layers, einsums, attention heads."""
    contracted, batched = site.params["dimension_numbers"]
    w_contract, w_batch = contracted[place], batched[place]
    x_contract, x_batch = contracted[1 - place], batched[1 - place]
    w_shape, x_shape = weight.aval.shape, data.aval.shape
    w_free = _others(len(w_shape), w_contract, w_batch)
    x_free = _others(len(x_shape), x_contract, x_batch)
    h = _size(w_shape, w_batch)
    t = _size(x_shape, x_free)
    d = _size(w_shape, w_contract)
    p = _size(w_shape, w_free)
    batch = range(len(w_batch))
    out_first = range(
        len(w_batch), len(w_batch) + len(w_free if place == 0 else x_free)
    )
    out_rest = range(out_first.stop, len(site.outputs[0].aval.shape))
    out_x, out_w = (out_rest, out_first) if place == 0 else (out_first, out_rest)
    return _finished(
        site,
        chosen,
        data,
        (h, t, d, p),
        matrix=_mover((*w_batch, *w_contract, *w_free), (h, d, p), False),
        rows=_mover((*x_batch, *x_free, *x_contract), (h, t, d), True),
        columns=_mover((*batch, *out_x, *out_w), (h, t, p), True),
    )


def _lookup(
    site: Site, chosen: Selection, weight: Value, data: Value, place: int
) -> Factored | None:
    """Rows of a table by number."""
    numbers = site.params["dimension_numbers"]
    shape = weight.aval.shape
    width = data.aval.ndim - 1
    out_rank = site.outputs[0].aval.ndim
    plain = (
        place == 0
        and data.aval.shape[-1:] == (1,)
        and tuple(numbers.collapsed_slice_dims) == (0,)
        and tuple(numbers.start_index_map) == (0,)
        and not numbers.operand_batching_dims
        and tuple(site.params["slice_sizes"]) == (1, *shape[1:])
        and tuple(numbers.offset_dims) == tuple(range(width, out_rank))
    )
    if not plain:
        return None
    t, d, p = math.prod(data.aval.shape[:-1]), shape[0], math.prod(shape[1:])
    clips = "CLIP" in str(site.params["mode"])

    def rows(ids: jax.Array) -> jax.Array:
        ids = ids.reshape(ids.shape[0], 1, t)
        if ids.dtype.itemsize < 4:
            ids = ids.astype(jnp.int32)  # d need not be a number of their type
        if clips:
            return jnp.clip(ids, 0, d - 1).astype(jnp.int32)
        # As JAX's derivative has it: what is outside of the table takes no part.
        inside = (ids >= 0) & (ids < d)
        return jnp.where(inside, ids, d).astype(jnp.int32)

    return _finished(
        site,
        chosen,
        data,
        (1, t, d, p),
        matrix=lambda table: table.reshape(1, d, p),
        rows=rows,
        columns=lambda out: out.reshape(-1, 1, t, p),
        lookup=True,
    )


def _convolution(
    site: Site, chosen: Selection, weight: Value, data: Value, place: int
) -> Factored | None:
    """A convolution as a product with patches, group by group."""
    params = site.params
    if place != 1 or params["batch_group_count"] != 1:
        return None
    lhs, rhs, out = params["dimension_numbers"]
    groups = params["feature_group_count"]
    shape, out_shape = weight.aval.shape, site.outputs[0].aval.shape
    kernel = [shape[axis] for axis in rhs[2:]]
    positions = [out_shape[axis] for axis in out[2:]]
    p, c = shape[rhs[0]] // groups, shape[rhs[1]]
    d = c * math.prod(kernel)
    t = data.aval.shape[lhs[0]] * math.prod(positions)

    def matrix(array: jax.Array) -> jax.Array:
        array = array.transpose(rhs)  # (groups * p, c, kernel)
        array = array.reshape(groups, p, d)
        return array.transpose(0, 2, 1)

    def rows(array: jax.Array) -> jax.Array:
        array = array.transpose(0, *(1 + axis for axis in lhs))
        patches = _patches(array, params, kernel, positions)
        # (N, images, channels, positions, kernel): channels are groups * c
        n, images = patches.shape[:2]
        patches = patches.reshape(n, images, groups, c, math.prod(positions), -1)
        patches = patches.transpose(0, 2, 1, 4, 3, 5)
        return patches.reshape(n, groups, t, d)

    def columns(array: jax.Array) -> jax.Array:
        array = array.transpose(0, *(1 + axis for axis in out))
        array = array.reshape(len(array), -1, groups, p, math.prod(positions))
        return array.transpose(0, 2, 1, 4, 3).reshape(-1, groups, t, p)

    return _finished(
        site,
        chosen,
        data,
        (groups, t, d, p),
        matrix=matrix,
        rows=rows,
        columns=columns,
    )


def _patches(
    array: jax.Array, params: Any, kernel: Sequence[int], positions: Sequence[int]
) -> jax.Array:
    """(N, images, channels, space) to (N, images, channels, positions, kernel).

    One gather an axis: entries are copied, never computed with.
    """
    edges = [(0, 0, 0)] * 3
    dilations = zip(params["padding"], params["lhs_dilation"], strict=True)
    edges += [(low, high, inner - 1) for (low, high), inner in dilations]
    array = jax.lax.pad(array, jnp.zeros((), array.dtype), edges)
    for i, (taps, count) in enumerate(zip(kernel, positions, strict=True)):
        starts = np.arange(count)[:, None] * params["window_strides"][i]
        places = starts + np.arange(taps)[None] * params["rhs_dilation"][i]
        array = jnp.take(array, places, axis=3 + 2 * i, mode="clip")
    axes = [3 + 2 * i for i in range(len(kernel))]
    return array.transpose(0, 1, 2, *axes, *(axis + 1 for axis in axes))


def _mover(
    axes: Sequence[int], shape: Sequence[int], batched: bool
) -> Callable[[jax.Array], jax.Array]:
    """Transposes, then reshapes; `batched` leaves axis 0 in front."""
    if not batched:
        return lambda array: array.transpose(axes).reshape(shape)
    order = (0, *(1 + axis for axis in axes))
    return lambda array: array.transpose(order).reshape(-1, *shape)


def _others(rank: int, *taken: Sequence[int]) -> list[int]:
    """The axes that are not taken."""
    used = {axis for some in taken for axis in some}
    return [axis for axis in range(rank) if axis not in used]


def _size(shape: Sequence[int], axes: Sequence[int]) -> int:
    """Entries along these axes."""
    return math.prod(shape[axis] for axis in axes)


_MAKERS: dict[str, Any] = {
    "dot_general": _dot,
    "gather": _lookup,
    "conv_general_dilated": _convolution,
}
