"""Two runs of the loss: the first for norms, the second for the clipped sum.

For losses that recompute activations (`jax.checkpoint`): nothing is kept beyond what
the loss itself keeps. Both runs are rounds of one loop, hence the same machine code on
the same inputs, so the rows whose norm the first one finds are, to the bit, those that
the second one adds up.

A parameter with a single site that factors is *probed*: in the backward pass, where the
site's rows are at hand, the first round takes their norm and the second their weighted
sum. Every other parameter is given to each example as its own copy, so that ordinary
differentiation gives whole gradients.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from dpkit.mechanisms.noise import wide
from dpkit.mechanisms.norms import halvings, squared_norm
from dpkit.mechanisms.pinning import rounds
from dpkit.rewrite import products
from dpkit.rewrite.blocks import summed
from dpkit.rewrite.clipping import by_group
from dpkit.rewrite.factors import Factored, factored
from dpkit.rewrite.forms import WHOLE, choose
from dpkit.rewrite.products import Rows
from dpkit.rewrite.program import Program, Site, Value, trace
from dpkit.rewrite.running import Env, Runner, evaluate


@dataclasses.dataclass(frozen=True, eq=False)
class Twice:
    """A loss, prepared for two runs.

    Args:
      program: the traced loss; parameters that aren't probed count as data in it.
      probes: for a site, how it factors, and whether its gradient is formed whole.
      probed: the numbers of the probed parameters.
    """

    program: Program
    probes: dict[Site, tuple[Factored, bool]]
    probed: tuple[int, ...]

    @classmethod
    def of(
        cls, loss_fn: Any, params: Any, example: Any, key: Any, kappa: float
    ) -> Twice:
        """Traces the loss and decides what is probed.

        Args:
          loss_fn, params, example, key: as for `trace`.
          kappa: as for `choose`.
        """
        leaves = jax.tree.leaves(params)
        forms = choose(trace(loss_fn, params, example, key), len(leaves), kappa)
        whole = {form.leaf: form.kind == WHOLE for form in forms}
        single = [f.leaf for f in forms if len(f.uses) == 1 and not f.others]
        while True:  # until every probe is one in the program that it is part of
            others = [i for i in range(len(leaves)) if i not in single]
            program = trace(
                loss_fn, params, example, key, as_data=others, open_recomputed=False
            )
            numbers = {program.inputs[i]: i for i in single}
            ways = {site: factored(site, numbers) for site in program.sites()}
            good = [way for way in ways.values() if _probes(way)]
            found = sorted(way.selection.leaf for way in good if way is not None)
            if found == single:
                break
            single = [i for i in single if found.count(i) == 1]
            if len(ways) == len(single) == 0:
                break
        probes = {
            site: (way, whole[way.selection.leaf])
            for site, way in ways.items()
            if way is not None
        }
        return cls(program, probes, tuple(single))


def _probes(way: Factored | None) -> bool:
    """Whether norms of a site's iterations add up, and the sum stays in float32.

    What is probed flows back as the sum of all examples, the whole way from the site to
    the parameter: any narrower type there would round it.
    """
    if way is None or not all(way.selection.scans):
        return False
    way_back = [v for v in way.site.inputs if v is not way.operand]
    for link in way.selection.links:
        if not isinstance(link, tuple):
            way_back += [*link.inputs, *link.outputs]
    return all(wide(value.aval.dtype) == value.aval.dtype for value in way_back)


def clipped_sum_twice(
    twice: Twice,
    clip: Any,
    groups: Sequence[int],
    leaves: Sequence[Any],
    rows: Sequence[Any],
    mask: jax.Array,
) -> tuple[list[jax.Array], jax.Array, jax.Array]:
    """sum_i m_i phi(||g_i||) g_i by two runs of the loss.

    Args and returns as `clipped_sum`.
    """
    size = len(mask)
    count = max(groups) + 1
    kinds = [wide(leaf.dtype) for leaf in leaves]

    def one_round(state: Any) -> Any:
        number, weights, norms, _, rows, _ = state
        first = number == 0
        losses, squares, sums = _run(twice, leaves, rows, first, weights, groups)
        found = jnp.sqrt(squares)
        finite = jnp.isfinite(found).all(axis=1)
        factors = jnp.where((finite & mask)[:, None], clip.factors(found), 0.0)
        norms = jnp.where(first, found, norms)
        weights = jnp.where(first, factors, weights)
        # Never so, but for the compiler: rows that stayed the same for certain would
        # let it move a round's work out of the loop, and keep what was to be forgotten.
        changed = number > 2
        rows = jax.tree.map(lambda x: jnp.where(changed, jnp.zeros_like(x), x), rows)
        return number + 1, weights, norms, losses, rows, sums

    start = (
        jnp.zeros((), jnp.uint32),
        jnp.zeros((size, count)),
        jnp.zeros((size, count)),
        jnp.zeros(size, twice.program.outputs[0].aval.dtype),
        list(rows),
        [jnp.zeros(leaf.shape, k) for leaf, k in zip(leaves, kinds, strict=True)],
    )
    last = rounds(2, leaves)
    state = jax.lax.while_loop(lambda state: state[0] < last, one_round, start)
    _, _, norms, losses, _, sums = state
    whole = jnp.sqrt(jnp.square(norms).sum(axis=1))
    return sums, losses, jnp.where(jnp.isfinite(whole), whole, jnp.inf)


def _run(
    twice: Twice,
    leaves: Sequence[Any],
    rows: Sequence[Any],
    first: jax.Array,
    weights: jax.Array,
    groups: Sequence[int],
) -> tuple[jax.Array, jax.Array, list[jax.Array]]:
    """Losses, squared norms of groups (first round) and weighted sums (second)."""
    size = len(weights)
    program = twice.program
    probed = {i: leaves[i] for i in twice.probed}
    copies = {
        i: jnp.broadcast_to(leaf, (size, *leaf.shape))
        for i, leaf in enumerate(leaves)
        if i not in probed
    }
    marks = {i: jnp.zeros(size) for i in probed}

    def forward(probed: Any, copies: Any, marks: Any) -> tuple[jax.Array, jax.Array]:
        given = [*(probed[i] if i in probed else copies[i] for i in range(len(leaves)))]
        env: Env = dict(zip(program.inputs, [*given, *rows], strict=True))
        runner = _Prober(size, twice.probes, marks, first, weights, groups)
        runner.run(program, env)
        losses = env[program.outputs[0]]
        return losses.sum(), losses

    gradient = jax.grad(forward, argnums=(0, 1, 2), has_aux=True)
    (sums, whole, squares), losses = gradient(probed, copies, marks)
    squared, results = [], []
    for i, leaf in enumerate(leaves):
        weight = weights[:, groups[i]]
        if i in probed:
            square, result = squares[i], sums[i]
        else:
            each = whole[i].astype(wide(leaf.dtype))
            norms = functools.partial(_norms, later=halvings(len(leaves)))
            square, result = jax.lax.cond(first, norms, _sums, each, weight)
        squared.append(square)
        results.append(result.reshape(leaf.shape))
    return losses, by_group(squared, groups), results


def _norms(
    each: jax.Array, weight: jax.Array, *, later: int
) -> tuple[jax.Array, jax.Array]:
    """Squared norms of whole gradients; no sum."""
    squares = jax.vmap(lambda gradient: squared_norm([gradient], later))(each)
    return squares.astype(each.dtype), jnp.zeros(math.prod(each.shape[1:]), each.dtype)


def _sums(each: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The weighted sum of whole gradients; no norms."""
    squares = jnp.zeros(weight.shape, each.dtype)
    each = each.reshape(len(weight), -1)
    each = jnp.where((weight == 0)[:, None], jnp.zeros_like(each), each)
    weight = weight.astype(each.dtype)
    exact = jax.lax.Precision.HIGHEST
    (total,) = summed(
        lambda rows: [jnp.matmul(*rows, precision=exact)], (weight, each), len(weight)
    )
    return squares, total


class _Prober(Runner):
    """Probes the sites: their derivative is the norm, or the weighted sum."""

    def __init__(
        self, size: int, probes: Any, marks: Any, first: Any, weights: Any, groups: Any
    ) -> None:
        super().__init__(size)
        self.probes, self.marks = probes, marks
        self.first, self.weights, self.groups = first, weights, groups

    def site(self, site: Site, env: Env) -> list[Any]:
        """The outputs; in the backward pass, the rows are looked at."""
        way, whole = self.probes[site]
        operand = evaluate(way.operand, env)
        (place,) = (value for value in site.inputs if value is not way.operand)
        leaf = way.selection.leaf
        control = (self.first.astype(jnp.float32), self.weights[:, self.groups[leaf]])
        probe = _probe(way, whole, place, self.size, halvings(len(self.groups)))
        return [probe(operand, evaluate(place, env), self.marks[leaf], control)]


def _probe(
    way: Factored, whole: bool, weight_value: Value, size: int, later: int
) -> Any:
    """A site on a batch, with a derivative of its own."""
    site = way.site
    axes = [0 if value is way.operand else None for value in site.inputs]

    def plain(operand: Any, weight: Any) -> Any:
        arrays = [operand if axis == 0 else weight for axis in axes]
        return jax.vmap(site.fn, axes, axis_size=size)(*arrays)[0]

    @jax.custom_vjp
    def probe(operand: Any, weight: Any, mark: Any, control: Any) -> Any:
        return plain(operand, weight)

    def forward(operand: Any, weight: Any, mark: Any, control: Any) -> Any:
        return plain(operand, weight), (operand, weight, control)

    def backward(kept: Any, cotangent: jax.Array) -> Any:
        operand, weight, (first, weights) = kept
        _, back = jax.vjp(lambda array: plain(array, weight), operand)
        rows = _rows(way, operand, cotangent)
        kind = rows.right.dtype
        mark, blocks = jax.lax.cond(
            first == 1,
            lambda rows, _: (_square(rows, way, whole, later), _no_blocks(rows, way)),
            lambda rows, w: (jnp.zeros(size, kind), _blocks(rows, w, way)),
            rows,
            weights,
        )
        like = jax.ShapeDtypeStruct(weight.shape, blocks.dtype)
        (gradient,) = jax.linear_transpose(way.matrix, like)(blocks)
        none = (jnp.zeros_like(first), jnp.zeros_like(weights))
        mark = mark.astype(weights.dtype)
        return back(cotangent)[0], gradient.astype(weight.dtype), mark, none

    probe.defvjp(forward, backward)
    return probe


def _rows(way: Factored, operand: jax.Array, cotangent: jax.Array) -> Rows:
    """A and G of one iteration."""
    left, right = way.rows(operand), way.columns(cotangent)
    right = right.astype(wide(right.dtype))
    if way.lookup:
        inside = (left < way.size[2])[..., None]
        return Rows(left, jnp.where(inside, right, jnp.zeros_like(right)))
    return Rows(left.astype(wide(left.dtype)), right)


def _square(rows: Rows, way: Factored, whole: bool, later: int) -> jax.Array:
    """Squared norms, (B,), to be added `later` times once a loop's are added up."""
    later += way.size[0]
    if not whole:
        return products.squared_norm([rows], later)
    # The second round adds the rows of all examples, scaled: in other bits than these.
    each = products.each(rows, way.size[2:])
    return products.squared_norm_of_sum(rows, each, later)


def _blocks(rows: Rows, weights: jax.Array, way: Factored) -> jax.Array:
    """The weighted sum; examples of weight zero take no part, whatever they hold."""
    none = (weights == 0).reshape(-1, 1, 1, 1)
    right = jnp.where(none, jnp.zeros_like(rows.right), rows.right)
    left = rows.left
    if not way.lookup:
        left = jnp.where(none, jnp.zeros_like(left), left)
    weights = weights.astype(right.dtype)

    def part(some: Any) -> list[jax.Array]:
        rows, weights = some
        return [products.weighted_sum(rows, weights, way.size[2:])]

    (total,) = summed(part, (Rows(left, right), weights), len(weights))
    return total


def _no_blocks(rows: Rows, way: Factored) -> jax.Array:
    """Zeros in the place of a sum."""
    return jnp.zeros((rows.right.shape[1], *way.size[2:]), rows.right.dtype)
