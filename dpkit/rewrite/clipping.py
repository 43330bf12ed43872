"""One batch's clipped sum by the rewritten loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from dpkit.mechanisms.noise import wide
from dpkit.mechanisms.norms import halvings, squared_norm
from dpkit.mechanisms.pinning import kept
from dpkit.mechanisms.protocol import tree_sum
from dpkit.rewrite import products
from dpkit.rewrite.application import outputs
from dpkit.rewrite.blocks import summed
from dpkit.rewrite.execution import Pass, reads, run
from dpkit.rewrite.forms import PRODUCT, Form, Use
from dpkit.rewrite.products import Rows
from dpkit.rewrite.program import Kind, Program, Site
from dpkit.rewrite.running import Env


def clipped_sum(
    program: Program,
    forms: Sequence[Form],
    clip: Any,
    groups: Sequence[int],
    leaves: Sequence[Any],
    rows: Sequence[Any],
    mask: jax.Array,
) -> tuple[list[jax.Array], jax.Array, jax.Array]:
    """sum_i m_i phi(||g_i||) g_i, without the g_i where there is a cheaper way.

    Args:
      program: the traced loss.
      forms: how each parameter's norm is taken.
      clip: a `Clip`.
      groups: the number of every leaf's group, `clip.groups(params)`.
      leaves: the parameters.
      rows: the leaves of examples and keys, (B, ...) each.
      mask: (B,) booleans.

    Returns:
      The sum, leaf by leaf, in float32 or wider; losses and norms, (B,) each, as they
      are: not finite where an example's aren't.
    """
    done = run(program, leaves, rows)
    held = [_held(form, done, leaves) for form in forms]
    # From here on, norms and sums read the same numbers, from memory: a compiler that
    # computed them anew for each could round them differently, and a row of norm near
    # zero for the one could be of any size for the other.
    slim = kept(jax.tree.map(_slim, held))
    held = jax.tree.map(_like, slim, held)
    later = halvings(len(forms))
    squares = [_squares(*pair, later) for pair in zip(forms, held, strict=True)]
    norms = jnp.sqrt(by_group(squares, groups))
    finite = jnp.isfinite(norms).all(axis=1)
    slim, norms = _without(slim, norms, ~finite)
    held = jax.tree.map(_like, slim, held)
    weights = jnp.where((finite & mask)[:, None], clip.factors(norms), 0.0)

    def sums(rows: Any) -> list[jax.Array]:
        held, weights = rows
        parts = zip(forms, held, groups, leaves, strict=True)
        return [
            _weighted(form, some, weights[:, g], leaf) for form, some, g, leaf in parts
        ]

    total = summed(sums, (held, weights), len(mask))
    whole = jnp.sqrt(jnp.square(norms).sum(axis=1))
    return total, done.losses, jnp.where(finite, whole, jnp.inf)


def _slim(array: jax.Array) -> jax.Array:
    """Rows without axes of length one.

    Such an axis leaves a compiler free to lay out the state of a loop in another order
    of axes than what it was made of; it copies everything then.
    """
    return array.reshape(len(array), *(n for n in array.shape[1:] if n != 1))


def _like(slim: jax.Array, array: jax.Array) -> jax.Array:
    """The rows in the shape that they had."""
    return slim.reshape(array.shape)


def _held(form: Form, done: Pass, leaves: Sequence[Any]) -> Any:
    """What a parameter's norm and sum are made of: rows, or whole gradients."""
    if form.kind == PRODUCT:
        return [_rows(use, done) for use in form.uses]
    leaf = leaves[form.leaf]
    size = len(done.losses)
    total = jnp.zeros((size, *leaf.shape), wide(leaf.dtype))
    for use in form.uses:
        blocks = products.each(_rows(use, done), use.width)
        total = total + jax.vmap(lambda b, u=use: _unblocked(u, b, leaf))(blocks)
    for site in form.others:
        total = total + _derivative(site, form.leaf, done, leaves)
    return total


def _rows(use: Use, done: Pass) -> Rows:
    """A and G of one use, in float32 or wider."""
    way = use.factored
    (cotangent,) = done.cotangents[way.site]
    left = way.left(_operand(way.operand, done))
    right = _widened(way.right(cotangent))
    if way.lookup:
        inside = (left < way.size[2])[..., None]
        right = jnp.where(inside, right, jnp.zeros_like(right))
    else:
        left = _widened(left)
    return Rows(right, left) if use.swapped else Rows(left, right)


def _operand(value: Any, done: Pass) -> jax.Array:
    """What a site read."""
    return done.read[value]


def _widened(array: jax.Array) -> jax.Array:
    """The array in float32 or wider."""
    return array.astype(wide(array.dtype))


def _unblocked(use: Use, blocks: jax.Array, leaf: Any) -> jax.Array:
    """Blocks (H, D, P) as a gradient of the parameter: entries move back."""
    if use.swapped:
        blocks = blocks.swapaxes(1, 2)
    like = jax.ShapeDtypeStruct(leaf.shape, blocks.dtype)
    (moved,) = jax.linear_transpose(use.factored.blocks, like)(blocks)
    return moved


def _derivative(site: Site, leaf: int, done: Pass, leaves: Sequence[Any]) -> jax.Array:
    """The gradient that flows through one site to a parameter, of every example."""
    values = reads(site)
    # What depends on parameters is computed again, from the one asked for.
    known: Env = {v: a for v, a in done.known.items() if v.kind is Kind.CONST}
    parameters = [v for v in done.known if v.kind is Kind.PARAM and v.producer is None]
    known |= {value: done.known[value] for value in parameters}
    target = parameters[leaf]
    batched = [0 if value.kind is Kind.DATA else None for value in values]

    def gradient(arrays: list[Any], cotangents: tuple[Any, ...]) -> jax.Array:
        read = dict(zip(values, arrays, strict=True))
        _, back = jax.vjp(
            lambda array: outputs(site, {**known, target: array}, read), leaves[leaf]
        )
        return _widened(back(cotangents)[0])

    arrays = [done.read[value] for value in values]
    return jax.vmap(gradient, (batched, 0))(arrays, done.cotangents[site])


def _squares(form: Form, held: Any, later: int) -> jax.Array:
    """Squared norms of one parameter's gradients, (B,), to be added `later` times."""
    if form.kind == PRODUCT:
        return products.squared_norm(held, later)
    return jax.vmap(lambda gradient: squared_norm([gradient], later))(held)


def by_group(squares: Sequence[jax.Array], groups: Sequence[int]) -> jax.Array:
    """Sums of squares over the groups of parameters, by halves.

    Args:
      squares: (B,) for every parameter.
      groups: the number of its group.

    Returns:
      (B, K).
    """
    dtype = jnp.result_type(jnp.float32, *squares)
    members: list[list[jax.Array]] = [[] for _ in range(max(groups) + 1)]
    for square, group in zip(squares, groups, strict=True):
        members[group].append(square.astype(dtype))
    return jnp.stack([tree_sum(jnp.stack(some)) for some in members], axis=1)


def _without(held: Any, norms: jax.Array, bad: jax.Array) -> tuple[Any, jax.Array]:
    """The same with zeros for bad examples; free where there are none.

    A factor of zero would not do, since 0 * NaN is NaN. The loop has no round, or one.
    """

    def clean(carry: Any) -> Any:
        _, held, norms = carry

        def clear(leaf: jax.Array) -> jax.Array:
            rows = bad.reshape(-1, *(1,) * (leaf.ndim - 1))
            return jnp.where(rows, jnp.zeros_like(leaf), leaf)

        return jnp.zeros((), bool), jax.tree.map(clear, held), norms

    start = (bad.any(), held, norms)
    _, held, norms = jax.lax.while_loop(lambda carry: carry[0], clean, start)
    return held, norms


def _weighted(form: Form, held: Any, weights: jax.Array, leaf: Any) -> jax.Array:
    """sum_i w_i g_i of one parameter."""
    weights = weights.astype(wide(leaf.dtype))
    if form.kind == PRODUCT:
        sums = [
            _unblocked(use, products.weighted_sum(rows, weights, use.width), leaf)
            for use, rows in zip(form.uses, held, strict=True)
        ]
        return sum(sums[1:], start=sums[0])
    flat = held.reshape(len(held), -1)
    product = jnp.matmul(weights, flat, precision=jax.lax.Precision.HIGHEST)
    return product.reshape(leaf.shape)
