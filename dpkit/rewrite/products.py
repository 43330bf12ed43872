r"""Squared norms of sums of thin products, exactly, without forming them.

For one example let the gradient of a parameter be sum_u A_u^T G_u over its uses u. Then

    ||grad||^2 = sum_{u,v} < A_u A_v^T, G_u G_v^T >:

all pairs of rows count, those of different uses too. Leaving the cross terms out is the
error that makes shared weights leak. In float32 each pair, and the sum, is off by d
roundings at most, d known from the shapes, of what its rows' lengths multiply to; the
result is raised by as much (`norms.not_below`), which keeps it on the side of a larger
norm, hence of more clipping, unless rows cancel. Where they nearly do, the rounding
grows with s = (sum_t ||a_t|| ||g_t||)^2 instead; a margin of 2^-24 s is for it, not a
bound. The result can also be off where squares are too small for float32 on one side
and huge on the other; what they may have lost is added.

Sources: Goodfellow, "Efficient Per-Example Gradient Computations", 2015,
arXiv:1510.01799 (one row); Li, Tramer, Liang, Hashimoto, "Large Language Models Can Be
Strong Differentially Private Learners", 2022, arXiv:2110.05679 (many rows).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dpkit.mechanisms import norms
from dpkit.mechanisms.norms import UNIT, halvings, not_below
from dpkit.mechanisms.protocol import tree_sum

_EXACT = jax.lax.Precision.HIGHEST
# Rows that cancel to less than 2^-9 of what they were are clipped as if they hadn't: in
# the sum of all examples their parts would leave more rounding than the noise covers.
_MOST_CANCELLED = 2.0**-18
_NEGLIGIBLE = 2.0**-50


class Rows(NamedTuple):
    """One use of a parameter: A and G of every example.

    Args:
      left: (B, H, T, D), or indices (B, H, T) into D.
      right: (B, H, T, P), or indices (B, H, T) into P.
    """

    left: jax.Array
    right: jax.Array


def squared_norm(uses: Sequence[Rows], later: int = 0) -> jax.Array:
    """||sum_u A_u^T G_u||^2 of every example, (B,), with the margin.

    Args:
      uses: all uses of one parameter, in one layout, floating arrays in float32 or
        wider; indices of one table all on one side.
      later: how often the result will be added to something by the caller.

    Returns:
      Never less than what cancellation lets be trusted; not finite where a row isn't.
    """
    alone = [_alone(use) for use in uses]
    total = sum(square for square, _, _ in alone)
    for i, first in enumerate(uses):
        for second in uses[:i]:
            total = total + 2 * _inner(first, second)
    none = jnp.zeros_like(total)
    length = sum((length for _, length, _ in alone), start=none)
    lost = sum((lost for _, _, lost in alone), start=none)
    # No clip tells such small norms from zero, which zeros are to have.
    lost = jnp.where(lost > _NEGLIGIBLE, lost, none)
    # (length + lost)^2 - length^2 bounds, by Cauchy, what all pairs of rows have lost.
    additions = max(map(_additions, uses)) + len(uses) ** 2 + later
    return _trusted(total + lost * (2 * length + lost), length, additions)


def squared_norm_of_sum(use: Rows, sums: jax.Array, later: int = 0) -> jax.Array:
    """Squared norms of A_i^T G_i, (B,), for rows that are added up once more.

    Rows that cancel leave other bits when they are added in another order, or scaled:
    here, too, the margin keeps the norm on the larger side.

    Args:
      use: one use of a parameter.
      sums: (B, H, D, P), from `each`.
      later: as for `squared_norm`.
    """
    _, length, _ = _alone(use)
    squares = jax.vmap(lambda one: norms.squared_norm([one], later + 2))(sums)
    return _trusted(squares, length, 0)


def _trusted(square: jax.Array, length: jax.Array, additions: int) -> jax.Array:
    """Squared norms with the margin, given sum_t ||a_t|| ||g_t||."""
    spread = jnp.square(length)
    square = not_below(square, additions) + UNIT * spread
    return jnp.maximum(square, _MOST_CANCELLED * spread)


def _additions(use: Rows) -> int:
    """How many roundings, one after another, a use's squared norm goes through."""
    widths = (0 if _is_indices(array) else array.shape[-1] for array in use)
    _, h, t = use.left.shape[:3]
    return sum(widths) + (t - 1) + halvings(h * t) + 2


def _added(products: jax.Array) -> jax.Array:
    """Sums over all axes but the first, (B,): rows as they are, and by halves."""
    return tree_sum(products.sum(-1).reshape(len(products), -1).T)


def weighted_sum(use: Rows, weights: jax.Array, width: tuple[int, int]) -> jax.Array:
    """sum_i w_i A_i^T G_i over the examples, (H, D, P).

    Args:
      use: one use of a parameter.
      weights: (B,).
      width: D and P.
    """
    left, right = use
    scale = weights.reshape(-1, 1, 1, 1)
    if _is_indices(left):
        return _scattered(left, right * scale, width[0])
    if _is_indices(right):
        return _scattered(right, left * scale, width[1]).swapaxes(1, 2)
    if left.shape[-1] < right.shape[-1]:
        left = left * scale
    else:
        right = right * scale
    return jnp.einsum("bhtd,bhtp->hdp", left, right, precision=_EXACT)


def each(use: Rows, width: tuple[int, int]) -> jax.Array:
    """A_i^T G_i of every example, (B, H, D, P)."""
    left, right = use
    if _is_indices(left):
        return jax.vmap(lambda i, g: _scattered(i[None], g[None], width[0]))(
            left, right
        )
    if _is_indices(right):
        return jax.vmap(lambda i, a: _scattered(i[None], a[None], width[1]))(
            right, left
        ).swapaxes(2, 3)
    return jnp.einsum("bhtd,bhtp->bhdp", left, right, precision=_EXACT)


def _scattered(indices: jax.Array, rows: jax.Array, size: int) -> jax.Array:
    """Rows (B, H, T, P) added up at their indices, (H, size, P)."""
    blocks = jnp.arange(rows.shape[1])[None, :, None]
    table = jnp.zeros((rows.shape[1], size, rows.shape[3]), rows.dtype)
    blocks = jnp.broadcast_to(blocks, indices.shape)
    return table.at[blocks, indices].add(rows, mode="drop")


def _alone(use: Rows) -> tuple[jax.Array, jax.Array, jax.Array]:
    """One use's squared norm, sum_t ||a_t|| ||g_t||, and what that may lack, (B,)."""
    if use.right.shape[2] == 1:
        left, right = _squares(use.left), _squares(use.right)
        total = _added(left * right)
    else:
        left, right = _gram(use.left, use.left), _gram(use.right, use.right)
        total = _added(left * right)
        left, right = _diagonal(left), _diagonal(right)
    length = jnp.sqrt(left * right)
    # Exactly zero unless a square is near the smallest number.
    lost = jnp.sqrt((left + _flushed(use.left)) * (right + _flushed(use.right)))
    return total, length.sum((1, 2)), (lost - length).sum((1, 2))


def _flushed(array: jax.Array) -> float:
    """What a sum of products of two rows may lack, since tiny products become zero."""
    if _is_indices(array):
        return 0.0
    return 2 * array.shape[-1] * float(jnp.finfo(array.dtype).tiny)


def _inner(first: Rows, second: Rows) -> jax.Array:
    """< sum_t a_t g_t^T, sum_s b_s k_s^T > of every example, (B,)."""
    if _is_indices(first.left) != _is_indices(second.left):
        table, other = (first, second) if _is_indices(first.left) else (second, first)
        return _crossed(table.left, table.right, other.left, other.right)
    if _is_indices(first.right) != _is_indices(second.right):
        table, other = (first, second) if _is_indices(first.right) else (second, first)
        return _crossed(table.right, table.left, other.right, other.left)
    left = _gram(first.left, second.left)
    right = _gram(first.right, second.right)
    return _added(left * right)


def _crossed(
    indices: jax.Array, rows: jax.Array, left: jax.Array, right: jax.Array
) -> jax.Array:
    """sum_{t,s} left[s, id_t] (rows_t . right_s): a lookup against a product."""
    places = jnp.broadcast_to(
        indices[:, :, None, :], (*left.shape[:3], indices.shape[2])
    )
    # Indices outside of the table stand for no row at all.
    picked = jnp.take_along_axis(left, jnp.minimum(places, left.shape[3] - 1), axis=3)
    picked = jnp.where(places < left.shape[3], picked, 0)
    return _added(picked * _gram(right, rows))


def _gram(first: jax.Array, second: jax.Array) -> jax.Array:
    """All products of rows, (B, H, T, S); of indices, whether they are equal."""
    if _is_indices(first):
        return (first[..., :, None] == second[..., None, :]).astype(jnp.float32)
    return jnp.einsum("bhtd,bhsd->bhts", first, second, precision=_EXACT)


def _squares(array: jax.Array) -> jax.Array:
    """Squared lengths of rows, (B, H, T)."""
    if _is_indices(array):
        return jnp.ones(array.shape)
    return jnp.square(array).sum(-1)


def _diagonal(products: jax.Array) -> jax.Array:
    """Every row with itself, (B, H, T)."""
    return jnp.diagonal(products, axis1=2, axis2=3)


def _is_indices(array: jax.Array) -> bool:
    """Whether rows are numbers of rows of a table."""
    return jnp.issubdtype(array.dtype, jnp.integer)
