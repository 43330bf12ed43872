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

from dpkit.synthetic.engine import regions
from dpkit.synthetic.engine.regions import Regions

QUANTILES = 32
OPERATORS = ("mutate", "redraw", "swap", "cross")
_LEARNING, _EXPLORING = 0.1, 0.05


class Tables(NamedTuple):
    """What the program reads. M families, U views, d columns.

    Attributes:
      offsets, weights, live: (M,); views, strides: (M, k) codes to cells.
      touching: (d, T) marginals that hold a column, padded by a family without weight;
        own, steps: (d, M) as what view a family holds a column, and its stride; 0, 0 if
        it doesn't.
      columns: (U,) of views; maps: (U, width) code -> group.
      regions: what else is counted.
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
    own: Any
    steps: Any
    columns: Any
    maps: Any
    regions: Regions
    sizes: Any
    movable: Any
    ordered: Any
    held: Any
    alike: Any
    frozen: Any


class State(NamedTuple):
    """Residuals, those of regions side by side, codes of views, operators' weights."""

    residuals: jax.Array
    regions: jax.Array
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
    """Where rows (P, U) stand in families (P, F), (P, F)."""
    found = _get(tables.offsets, families)
    row = jnp.arange(len(codes))[:, None]
    for n in range(tables.views.shape[1]):
        view, stride = (_get(t[:, n], families) for t in (tables.views, tables.strides))
        found = found + stride * _get(codes, (row, view))
    return found


def _rise(
    values: jax.Array,
    cells: list[jax.Array],
    units: list[jax.Array],
    weights: jax.Array,
    live: jax.Array,
) -> jax.Array:
    """N^2 times the rise of F, (P,), by signed units in cells, lists of (P, F)."""
    linear = sum(
        unit * _get(values, cell) for unit, cell in zip(units, cells, strict=True)
    )
    square = sum(unit * unit for unit in units)
    for n, (cell, unit) in enumerate(zip(cells, units, strict=True)):
        for other, beside in zip(cells[:n], units[:n], strict=True):
            square = square + 2 * unit * beside * (cell == other)
    return (weights * (2 * linear + live * square)).sum(axis=1)


class _Best(NamedTuple):
    """The best candidate: its rise, its cells (2,), and units in cells of families."""

    rise: jax.Array
    change: Changes
    at: jax.Array
    units: jax.Array
    region_at: jax.Array
    region_units: jax.Array


def _best(
    tables: Tables,
    state: State,
    befores: list[jax.Array],
    written: list[list[tuple[jax.Array, jax.Array]]],
    change: Changes,
    families: jax.Array,
    once: jax.Array,
    barred: jax.Array,
) -> _Best:
    """The candidate that lowers F most.

    Args:
      befores: the rows that change, lists of (P, U); written: of each, the columns and
        their codes, (P,).
      families: (P, F) what they touch; once: 0 where one stands twice.
      barred: (P,) or (P, 2) what may not be.
    """
    mapped = len(tables.columns) > len(tables.sizes)
    row = jnp.arange(len(families))
    cells, afters = [], []
    for before, writes in zip(befores, written, strict=True):
        now, after = _cells(tables, families, before), before
        cells.append(now)
        for column, code in writes:
            old = _get(after, (row, column))
            step = _get(tables.steps, (column[:, None], families))
            if mapped:
                own = _get(tables.own, (column[:, None], families))
                groups = (_get(tables.maps, (own, x[:, None])) for x in (old, code))
                first, second = groups
                now = now + step * (second - first)
            else:
                now = now + step * (code - old)[:, None]
            after = _changed(tables, after, column, code)
        cells.append(now)
        afters.append(after)
    signs = [-1.0, 1.0] * len(befores)
    live = _get(tables.live, families)
    units = [sign * once for sign in signs]
    weights = _get(tables.weights, families)
    rise = _rise(state.residuals, cells, units, weights, live)
    both = [x for pair in zip(befores, afters, strict=True) for x in pair]
    if len(tables.regions.bounds):
        rise = rise + regions.rise(tables.regions, state.regions, both, signs)
    barred = barred | _get(tables.frozen, (change.rows, change.columns)).any(axis=1)
    rise = jnp.where(barred, jnp.inf, rise)
    best = jnp.argmin(rise)
    at = jnp.concatenate([cell[best] for cell in cells])
    moved = jnp.concatenate([(unit * live)[best] for unit in units])
    # All operators return as many entries.
    more = 8 * tables.touching.shape[1] - len(at)
    return _Best(
        rise[best],
        Changes(*(part[best] for part in change)),
        jnp.pad(at, (0, more)),
        jnp.pad(moved, (0, more)),
        *regions.moves(tables.regions, [codes[best] for codes in both], signs),
    )


def _one_cell(tables: Tables, state: State, change: Changes) -> _Best:
    """A new code."""
    row, column, code = (part[:, 0] for part in change)
    families = _get(tables.touching, column)
    change = Changes(*(jnp.stack([x, x], axis=1) for x in (row, column, code)))
    held = _get(tables.held, column)
    once = jnp.ones(families.shape)
    before, writes = [_get(state.codes, row)], [[(column, code)]]
    return _best(tables, state, before, writes, change, families, once, held)


def _swapped(tables: Tables, state: State, change: Changes) -> _Best:
    """Two rows exchange a code; they are alike in what exact targets count with it."""
    row, column = jnp.arange(len(change.rows)), change.columns[:, 0]
    first, second = (_get(state.codes, change.rows[:, n]) for n in (0, 1))
    a, b = (_get(x, (row, column)) for x in (first, second))
    families = _get(tables.touching, column)
    columns, codes = jnp.stack([column] * 2, axis=1), jnp.stack([b, a], axis=1)
    width = len(tables.sizes)
    other = (first[:, :width] != second[:, :width]) & _get(tables.alike, column)
    return _best(
        tables,
        state,
        [first, second],
        [[(column, b)], [(column, a)]],
        Changes(change.rows, columns, codes),
        families,
        jnp.ones(families.shape),
        other.any(axis=1),
    )


def _crossed(tables: Tables, state: State, change: Changes) -> _Best:
    """A row takes one or two codes over from another."""
    row, columns = jnp.arange(len(change.rows)), change.columns
    before, donor = (_get(state.codes, change.rows[:, n]) for n in (0, 1))
    writes = [(columns[:, n], _get(donor, (row, columns[:, n]))) for n in (0, 1)]
    first, second = (_get(tables.touching, columns[:, n]) for n in (0, 1))
    # A family that holds both columns stands in both lists, and counts once.
    twice = _get(tables.steps, (columns[:, :1], second)) > 0
    once = jnp.concatenate([jnp.ones(first.shape), 1.0 - twice], axis=1)
    rows = jnp.stack([change.rows[:, 0]] * 2, axis=1)
    codes = jnp.stack([code for _, code in writes], axis=1)
    return _best(
        tables,
        state,
        [before],
        [writes],
        Changes(rows, columns, codes),
        jnp.concatenate([first, second], axis=1),
        once,
        _get(tables.held, columns).any(axis=1),
    )


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
    tried = [functools.partial(one, tables, state) for one in branches]
    best = jax.lax.switch(operator, tried, changes)
    better = best.rise < 0
    residuals = state.residuals.at[best.at].add(
        jnp.where(better, best.units, 0), mode="promise_in_bounds"
    )
    moved = jnp.where(better, best.region_units, 0)
    beside = state.regions.reshape(-1)
    beside = beside.at[best.region_at].add(moved, mode="promise_in_bounds")
    beside, codes = beside.reshape(state.regions.shape), state.codes
    for n in (0, 1):
        row, column, code = (part[n] for part in best.change)
        now = codes[row]
        new = _changed(tables, now[None], column[None], code[None])[0]
        codes = codes.at[row].set(jnp.where(better, new, now))
    odds = state.odds.at[operator].multiply(jnp.exp(_LEARNING * better / chance))
    return State(residuals, beside, codes, odds / odds.sum())


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
