"""Half-spaces and prefixes in the genetic search: all of them for every candidate.

Regions whose cells are combinations of the same columns are of one kind. Residuals of
all regions stand side by side, (cells of all kinds, Q), with zeros where a region has
no cells: so a row of numbers serves all regions, and memory is read in order.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dpkit.synthetic.engine.families import Region
from dpkit.synthetic.engine.layout import Layout, room


class Regions(NamedTuple):
    """What the program reads. Q regions, G kinds.

    Attributes:
      scores: (n, width, Q) of the numeric columns `numeric` (n,); bounds: (Q,) what
        their sum is above inside; weights: (Q,).
      kind: (Q,), and as members (G, Q) of 0 and 1.
      starts: (G,) where a kind's rows begin; views, strides: (G, k) codes to rows.
    """

    scores: Any
    numeric: Any
    bounds: Any
    weights: Any
    kind: Any
    members: Any
    starts: Any
    views: Any
    strides: Any


class _Seen(NamedTuple):
    """Rows (P, U) as regions see them: rows of each kind (P, G); 1 inside, (P, Q)."""

    kinds: jax.Array
    inside: jax.Array


def _seen(tables: Regions, codes: jax.Array) -> _Seen:
    """Where rows stand in all regions."""
    total = jnp.zeros((len(codes), len(tables.bounds)), jnp.int32)
    for n in range(len(tables.numeric)):
        total = total + _get(tables.scores[n], codes[:, tables.numeric[n]])
    kinds = tables.starts[None]
    for n in range(tables.views.shape[1]):
        kinds = kinds + tables.strides[None, :, n] * codes[:, tables.views[:, n]]
    return _Seen(kinds, (total > tables.bounds[None]).astype(jnp.float32))


def _get(array: jax.Array, index: Any) -> jax.Array:
    """Entries at places that are known to be inside."""
    return array.at[index].get(mode="promise_in_bounds")


def rise(
    tables: Regions, residuals: jax.Array, rows: list[jax.Array], signs: list[float]
) -> jax.Array:
    """N^2 times the rise of F, (P,), where rows (P, U) come (1.0) or go (-1.0)."""
    found = [_seen(tables, codes) for codes in rows]
    linear, square = 0.0, 0.0
    for n, (one, sign) in enumerate(zip(found, signs, strict=True)):
        values = [_get(residuals, one.kinds[:, g]) for g in range(len(tables.starts))]
        linear = linear + sign * one.inside * sum(values)
        square = square + one.inside
        for other, beside in zip(found[:n], signs[:n], strict=True):
            same = (one.kinds == other.kinds).astype(jnp.float32) @ tables.members
            square = square + 2 * sign * beside * one.inside * other.inside * same
    # A product, which reads in order of memory; a sum that is fused with it doesn't.
    return (2 * linear + square) @ tables.weights


def moves(
    tables: Regions, rows: list[jax.Array], signs: list[float]
) -> tuple[jax.Array, jax.Array]:
    """Flat entries of the residuals and what is added to them, for rows (U,)."""
    found = [_seen(tables, codes[None]) for codes in rows]
    count = len(tables.bounds)
    at = [_get(one.kinds[0], tables.kind) * count + jnp.arange(count) for one in found]
    units = [sign * one.inside[0] for one, sign in zip(found, signs, strict=True)]
    more = (0, (4 - len(rows)) * count)
    return jnp.pad(jnp.concatenate(at), more), jnp.pad(jnp.concatenate(units), more)


def _listed(layout: Layout) -> list[tuple[int, Region]]:
    """Regions, and which families they are."""
    pairs = enumerate(layout.counted)
    return [(n, one) for n, one in pairs if isinstance(one, Region)]


def _kinds(layout: Layout) -> tuple[list[int], list[int], np.ndarray]:
    """Each region's kind, a family of each kind, and where kinds begin and end."""
    seen: dict[tuple[int, ...], int] = {}
    found, first = [], []
    for n, _ in _listed(layout):
        key = tuple(layout.view_of(*pair) for pair in layout.families[n].mapped())
        if key not in seen:
            first.append(n)
        found.append(seen.setdefault(key, len(seen)))
    sizes = [int(np.prod(layout.shapes[n])) for n in first]
    return found, first, np.cumsum([0, *sizes])


def entries(layout: Layout) -> tuple[int, int]:
    """How many residuals and how many scores are kept."""
    found = _listed(layout)
    count = room(len(found)) if found else 0
    numeric = {column for _, one in found for column in one.columns}
    return int(_kinds(layout)[2][-1]) * count, len(numeric) * max(layout.sizes) * count


def places(layout: Layout) -> list[tuple[slice, tuple[slice, int]]]:
    """Where each region's residuals stand in a row, and where side by side."""
    kinds, _, starts = _kinds(layout)
    return [
        (slice(*layout.offsets[n : n + 2]), (slice(*starts[kind : kind + 2]), q))
        for q, ((n, _), kind) in enumerate(zip(_listed(layout), kinds, strict=True))
    ]


def beside(layout: Layout, flat: np.ndarray) -> np.ndarray:
    """Residuals of regions side by side, float32."""
    kinds, _, starts = _kinds(layout)
    found = np.zeros((starts[-1], room(len(kinds)) if kinds else 0), np.float32)
    for part, place in places(layout):
        found[place] = flat[part]
    return found


def tables(layout: Layout) -> Regions:
    """What the program reads; regions beyond those there are have no weight."""
    found = _listed(layout)
    numeric = sorted({column for _, one in found for column in one.columns})
    count = room(len(found)) if found else 0
    scores = np.zeros((len(numeric), max(layout.sizes), count), np.int32)
    bounds, weights = np.zeros(count, np.int32), np.zeros(count, np.float32)
    for q, (n, one) in enumerate(found):
        bounds[q], weights[q] = one.bound, layout.weights[n]
        for column, own in zip(one.columns, one.scores(), strict=True):
            scores[numeric.index(column), : len(own), q] = own
    kinds, first, starts = _kinds(layout)
    longest = max([1, *(len(layout.shapes[n]) for n in first)])
    views, strides = np.zeros((2, len(first), longest), np.int32)
    for kind, n in enumerate(first):
        for place, pair in enumerate(layout.families[n].mapped()):
            views[kind, place] = layout.view_of(*pair)
            strides[kind, place] = np.prod(layout.shapes[n][place + 1 :])
    members = np.zeros((len(first), count), np.float32)
    members[kinds, np.arange(len(kinds))] = 1
    kind = np.pad(np.array(kinds, np.int32), (0, count - len(kinds)))
    begin = starts[:-1].astype(np.int32)
    numbers = np.array(numeric, np.int32)
    return Regions(
        scores, numbers, bounds, weights, kind, members, begin, views, strides
    )
