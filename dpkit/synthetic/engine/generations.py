r"""The program of a genetic search: candidates, the best of which is tried.

A candidate changes one or two cells of the table: a code drawn anew (from all codes,
or, of an ordered column, between two neighbouring of 32 quantiles), two rows that
exchange a code, or one or two codes taken over from another row. With net changes
delta of the counts of a family, F N^2 rises by sum over families of
w (2 r.delta + |delta|^2), where entries that fall into the same cell are merged.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

QUANTILES = 32
OPERATORS = ("mutate", "redraw", "swap", "cross")
_LEARNING, _EXPLORING = 0.1, 0.05


class Tables(NamedTuple):
    """What the program reads. M families, U views, d columns, Q regions.

    Attributes:
      offsets, weights, live: (M,); views, strides: (M, k) codes to cells.
      touching: (d, T) marginals that hold a column, padded by a family without weight;
        holds: (d, M).
      columns: (U,) of views; maps: (U, width) code -> group.
      regions: (Q,) which families are; scores: (n, width, Q) of the numeric columns
        `numeric` (n,); bounds: (Q,).
      sizes: (d,); movable, ordered: columns that may be chosen.
      held: (d,) columns that only rows that are alike may exchange; alike: (d, d) what
        they must have in common.
      frozen: (N, d).
    """

    offsets: Any
    weights: Any
    live: Any
    views: Any
    strides: Any
    touching: Any
    holds: Any
    columns: Any
    maps: Any
    regions: Any
    scores: Any
    numeric: Any
    bounds: Any
    sizes: Any
    movable: Any
    ordered: Any
    held: Any
    alike: Any
    frozen: Any


class State(NamedTuple):
    """Residuals in rows, codes of views, and the operators' weights."""

    residuals: jax.Array
    codes: jax.Array
    odds: jax.Array


class Changes(NamedTuple):
    """Candidates: cells (P, 2) that get new codes; the second may repeat the first."""

    rows: jax.Array
    columns: jax.Array
    codes: jax.Array


def _get(array: jax.Array, index: Any) -> jax.Array:
    """Entries at places that are known to be inside."""
    return array.at[index].get(mode="promise_in_bounds")


def _pick(number: jax.Array, size: Any) -> jax.Array:
    """A number in [0, 1) as one of 0 … size - 1."""
    whole = jnp.floor(number * size).astype(jnp.int32)
    return jnp.minimum(whole, jnp.asarray(size, jnp.int32) - 1)


def _changed(
    tables: Tables, codes: jax.Array, column: jax.Array, code: jax.Array
) -> jax.Array:
    """Codes of views (P, U) after a column (P,) got a code."""
    views = jnp.arange(len(tables.columns))[None]
    new = _get(tables.maps, (views, code[:, None]))
    return jnp.where(tables.columns[None] == column[:, None], new, codes)


def _cells(tables: Tables, families: jax.Array, codes: jax.Array) -> jax.Array:
    """Where rows (P, U) stand in families (P, F) or (F,), (P, F)."""
    found = _get(tables.offsets, families)
    row = jnp.arange(len(codes))[:, None]
    for n in range(tables.views.shape[1]):
        view, stride = (_get(t[:, n], families) for t in (tables.views, tables.strides))
        found = found + stride * _get(codes, (row, view))
    return found


def _rise(
    values: list[jax.Array],
    cells: list[jax.Array],
    signs: list[Any],
    weights: jax.Array,
    live: jax.Array,
) -> jax.Array:
    """N^2 times the rise of F, (P,), by signed units in cells (P, F)."""
    linear = sum(sign * value for sign, value in zip(signs, values, strict=True))
    square = sum(sign * sign for sign in signs)
    for n, (cell, sign) in enumerate(zip(cells, signs, strict=True)):
        for other, beside in zip(cells[:n], signs[:n], strict=True):
            square = square + 2 * sign * beside * (cell == other)
    return (weights * (2 * linear + live * square)).sum(axis=1)


def _score(
    tables: Tables,
    residuals: jax.Array,
    before: list[jax.Array],
    after: list[jax.Array],
    families: jax.Array,
    weights: jax.Array,
) -> jax.Array:
    """The rise of F N^2 where rows `before` become `after`, lists of (P, U)."""
    count = len(before)
    signs: list[Any] = [-1.0] * count + [1.0] * count
    cells = [_cells(tables, families, codes) for codes in before + after]
    values = [_get(residuals, cell) for cell in cells]
    found = _rise(values, cells, signs, weights, _get(tables.live, families))
    if len(tables.regions):
        families = tables.regions[None]
        cells = [_cells(tables, families, codes) for codes in before + after]
        values = [_get(residuals, cell) for cell in cells]
        inside = [_inside(tables, codes) for codes in before + after]
        signs = [sign * one for sign, one in zip(signs, inside, strict=True)]
        found += _rise(
            values, cells, signs, tables.weights[families], tables.live[families]
        )
    return found


def _inside(tables: Tables, codes: jax.Array) -> jax.Array:
    """Which regions rows (P, U) lie in, (P, Q) of 0 and 1."""
    total = jnp.zeros((len(codes), len(tables.regions)), jnp.int32)
    for n in range(len(tables.numeric)):
        total = total + _get(tables.scores[n], codes[:, tables.numeric[n]])
    return (total > tables.bounds[None]).astype(jnp.float32)


def _one_cell(
    tables: Tables, state: State, change: Changes
) -> tuple[jax.Array, Changes]:
    """The rise by one new code."""
    row, column, code = (part[:, 0] for part in change)
    before = _get(state.codes, row)
    after = _changed(tables, before, column, code)
    families = _get(tables.touching, column)
    weights = _get(tables.weights, families)
    rise = _score(tables, state.residuals, [before], [after], families, weights)
    return rise, Changes(*(jnp.stack([x, x], axis=1) for x in (row, column, code)))


def _swapped(
    tables: Tables, state: State, change: Changes
) -> tuple[jax.Array, Changes]:
    """The rise where two rows exchange a code."""
    column = change.columns[:, 0]
    first, second = (_get(state.codes, change.rows[:, n]) for n in (0, 1))
    a, b = (_get(x, (jnp.arange(len(x)), column)) for x in (first, second))
    after = [_changed(tables, first, column, b), _changed(tables, second, column, a)]
    families = _get(tables.touching, column)
    weights = _get(tables.weights, families)
    rise = _score(tables, state.residuals, [first, second], after, families, weights)
    codes = jnp.stack([b, a], axis=1)
    columns = jnp.stack([column, column], axis=1)
    width = len(tables.sizes)
    equal = (first[:, :width] == second[:, :width]) | ~_get(tables.alike, column)
    rise = jnp.where(equal.all(axis=1), rise, jnp.inf)
    return rise, Changes(change.rows, columns, codes)


def _crossed(
    tables: Tables, state: State, change: Changes
) -> tuple[jax.Array, Changes]:
    """The rise where a row takes one or two codes over from another."""
    row, column = jnp.arange(len(change.rows)), change.columns
    before, donor = (_get(state.codes, change.rows[:, n]) for n in (0, 1))
    codes = jnp.stack([_get(donor, (row, column[:, n])) for n in (0, 1)], axis=1)
    after = before
    for n in (0, 1):
        after = _changed(tables, after, column[:, n], codes[:, n])
    own, more = (_get(tables.touching, column[:, n]) for n in (0, 1))
    families = jnp.concatenate([own, more], axis=1)
    # A family that holds both columns stands in both lists, and counts once.
    twice = _get(tables.holds, (column[:, :1], more))
    weights = _get(tables.weights, families) * jnp.concatenate(
        [jnp.ones(own.shape), 1.0 - twice], axis=1
    )
    rise = _score(tables, state.residuals, [before], [after], families, weights)
    rows = jnp.stack([change.rows[:, 0]] * 2, axis=1)
    return rise, Changes(rows, column, codes)


def _written(tables: Tables, state: State, change: Changes, n: int) -> State:
    """After the n-th cell of one candidate was written."""
    row, column, code = (part[n] for part in change)
    before = state.codes[row][None]
    after = _changed(tables, before, column[None], code[None])
    residuals, families = state.residuals, tables.touching[column][None]
    for sign, codes in ((-1.0, before), (1.0, after)):
        cells = _cells(tables, families, codes)[0]
        residuals = residuals.at[cells].add(sign * tables.live[families[0]])
        if len(tables.regions):
            cells = _cells(tables, tables.regions[None], codes)[0]
            units = sign * _inside(tables, codes)[0] * tables.live[tables.regions]
            residuals = residuals.at[cells].add(units)
    return State(residuals, state.codes.at[row].set(after[0]), state.odds)


def _drawn(
    tables: Tables,
    codes: jax.Array,
    edges: jax.Array,
    operator: jax.Array,
    numbers: jax.Array,
) -> Changes:
    """Candidates of an operator from random numbers (P, 6)."""
    rows = jnp.stack([_pick(numbers[:, n], len(codes)) for n in (0, 1)], axis=1)
    index = [_pick(numbers[:, n], len(tables.movable)) for n in (2, 3)]
    first, second = (_get(tables.movable, n) for n in index)
    chosen = _get(tables.ordered, _pick(numbers[:, 2], len(tables.ordered)))
    part = _pick(numbers[:, 5], QUANTILES)
    low, high = (_get(edges, (chosen, part + n)) for n in (0, 1))
    between = low + _pick(numbers[:, 4], high - low + 1)
    anywhere = _pick(numbers[:, 4], _get(tables.sizes, first))
    redraw = operator == 1
    code = jnp.where(redraw, between, anywhere)
    columns = jnp.stack([jnp.where(redraw, chosen, first), second], axis=1)
    return Changes(rows, columns, jnp.stack([code, code], axis=1))


def _generation(
    tables: Tables,
    state: State,
    operator: jax.Array,
    chance: jax.Array,
    changes: Changes,
) -> State:
    """The best of an operator's candidates, if it lowers F."""
    branches = [_one_cell, _one_cell, _swapped, _crossed]
    rise, changes = jax.lax.switch(
        operator, [functools.partial(one, tables, state) for one in branches], changes
    )
    barred = _get(tables.frozen, (changes.rows, changes.columns))
    barred |= (operator != 2) & _get(tables.held, changes.columns)
    rise = jnp.where(barred.any(axis=1), jnp.inf, rise)
    best = jnp.argmin(rise)
    better = rise[best] < 0
    for n in (0, 1):
        one = Changes(*(part[best] for part in changes))
        now = state.codes[one.rows[n], one.columns[n]]
        codes = one.codes.at[n].set(jnp.where(better, one.codes[n], now))
        state = _written(tables, state, one._replace(codes=codes), n)
    odds = state.odds.at[operator].multiply(jnp.exp(_LEARNING * better / chance))
    return state._replace(odds=odds / odds.sum())


@functools.partial(
    jax.jit, static_argnames=("block", "candidates"), donate_argnames=("state",)
)
def generations(
    tables: Tables,
    state: State,
    allowed: jax.Array,
    count: jax.Array,
    key: jax.Array,
    everything: Changes | None,
    *,
    block: int,
    candidates: int,
) -> State:
    """Some generations, `count` of at most `block`.

    Args:
      allowed: (4,) 1 for operators that may be drawn, else 0.
      everything: candidates of every generation, instead of random ones.
    """
    operator_key, number_key = jax.random.split(key)
    chances = jax.random.uniform(operator_key, (block,))
    numbers = jax.random.uniform(number_key, (block, candidates, 6))
    edges = _quantiles(state.codes[:, : len(tables.sizes)])

    def one(n: Any, state: State) -> State:
        odds = (1 - _EXPLORING) * state.odds + _EXPLORING / len(OPERATORS)
        odds = odds * allowed / (odds * allowed).sum()
        operator = (chances[n] >= jnp.cumsum(odds)[:-1]).sum()
        changes = (
            _drawn(tables, state.codes, edges, operator, numbers[n])
            if everything is None
            else everything
        )
        return _generation(tables, state, operator, odds[operator], changes)

    return jax.lax.fori_loop(0, count, one, state)


def _quantiles(codes: jax.Array) -> jax.Array:
    """Codes at equal steps through each column's order, (d, QUANTILES + 1)."""
    some = jnp.sort(codes[:: -(-len(codes) // 4096)], axis=0)
    place = jnp.linspace(0, len(some) - 1, QUANTILES + 1).astype(jnp.int32)
    return some[place].T
