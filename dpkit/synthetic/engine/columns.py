r"""The two programs of a sweep: best responses, and swaps, in one column.

For a row and a column, with residuals r in rows and h = 1 / N, a change from code a to
b changes F by 2 h^2 D, D(b) = sum over families of w (r[b] - r[a] + [b != a]); families
that are only prices add no [b != a]. D of all codes of many rows at once is a sum of
rows of the column's slice. Each row proposes its best code, eligible ones are accepted
with probability p, and the batch is kept only if it lowers F by the true account of all
changes together: so F never rises.

Changes of a family add up to sum w change (before + after), exactly.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dpkit.synthetic.engine.layout import Slice

NOISE_ROWS = 1024  # rows share so many vectors of noise, drawn anew for each column
_UP, _DOWN = 1.15, 0.5


class State(NamedTuple):
    """What a sweep changes: residuals, codes of views, p by column."""

    residuals: jax.Array
    codes: jax.Array
    rates: jax.Array


class _Carried(NamedTuple):
    """The same inside a column."""

    part: jax.Array
    codes: jax.Array
    rate: jax.Array


def _get(array: jax.Array, index: Any) -> jax.Array:
    """Entries at places that are known to be inside."""
    return array.at[index].get(mode="promise_in_bounds")


def _places(residuals: jax.Array, table: Slice, width: int) -> jax.Array:
    """Where a slice's entries stand among the residuals; padding: the last cell."""
    code = jnp.arange(width)[None]
    place = table.base[:, None] + table.step[:, None] * code
    return jnp.where(code < table.limit[:, None], place, len(residuals) - 1)


def _rests(table: Slice, codes: jax.Array) -> jax.Array:
    """The slice's row of each table row in each family, (B, V, M)."""
    found = jnp.asarray(table.starts)[None]
    for n in range(table.others.shape[2]):
        found = found + table.strides[None, :, :, n] * codes[:, table.others[:, :, n]]
    return found


def _gains(
    table: Slice, part: jax.Array, rests: jax.Array, old: jax.Array, mapped: bool
) -> jax.Array:
    """D of every code, (B, width), for views' old codes (B, V)."""
    rows, width = len(rests), part.shape[1]
    code = jnp.arange(width)[None]
    found = jnp.zeros((rows, width))
    for v in range(rests.shape[1]):

        def add(slot: Any, total: jax.Array, v: int = v) -> jax.Array:
            return total + table.weights[v, slot] * _get(part, rests[:, v, slot])

        total = jax.lax.fori_loop(0, table.counts[v], add, jnp.zeros((rows, width)))
        here = jnp.take_along_axis(total, old[:, v, None], axis=1)
        moved = (table.weights[v] * table.live[v]).sum()
        other = moved * (code != old[:, v, None])
        gain = total - here + other
        found = found + (gain[:, table.maps[v]] if mapped else gain)
    return jnp.where(code < table.size, found, jnp.inf)


def _applied(
    table: Slice, now: _Carried, at: jax.Array, change: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The slice after changes (B, V, M, n) at its entries, or as it was if F rises."""
    weights = (table.weights * table.live)[None, :, :, None]
    change = change * table.live[None, :, :, None]
    before = now.part.reshape(-1)
    after = before.at[at].add(change, mode="promise_in_bounds")
    both = _get(before, at) + _get(after, at)
    rise = jnp.vdot(weights * change, both)
    worse = rise >= 0
    undone = after.at[at].add(jnp.where(worse, -change, 0), mode="promise_in_bounds")
    return undone.reshape(now.part.shape), worse


def _carried_on(
    table: Slice,
    now: _Carried,
    part: jax.Array,
    worse: jax.Array,
    index: jax.Array,
    new: jax.Array,
    take: jax.Array,
) -> _Carried:
    """After a batch: rows `index` have code `new` where taken, if it was kept."""
    kept = take & ~worse
    codes = now.codes
    for v in range(len(table.views)):
        old = codes.at[index, table.views[v]].get(mode="clip")
        entry = jnp.where(kept, table.maps[v, new], old)
        codes = codes.at[index, table.views[v]].set(entry, mode="drop")
    rate = jnp.where(
        worse,
        jnp.maximum(now.rate * _DOWN, 1 / len(index)),
        jnp.minimum(now.rate * _UP, 1.0),
    )
    # A batch without a proposal says nothing of p.
    rate = jnp.where(take.any(), rate, now.rate)
    return _Carried(part, codes, rate)


def _in_column(state: State, table: Slice, width: int, batches: int, one: Any) -> State:
    """Take a column's slice out, do the batches, and write it back."""
    places = _places(state.residuals, table, width)
    rate = state.rates[table.column]
    now = _Carried(_get(state.residuals, places), state.codes, rate)
    now = jax.lax.fori_loop(0, batches, one, now)
    return State(
        state.residuals.at[places].set(now.part, mode="promise_in_bounds"),
        now.codes,
        state.rates.at[table.column].set(now.rate),
    )


@functools.partial(
    jax.jit, static_argnames=("batch", "mapped"), donate_argnames=("state",)
)
def respond(
    state: State,
    table: Slice,
    frozen: jax.Array,
    temperature: jax.Array,
    key: jax.Array,
    *,
    batch: int,
    mapped: bool,
) -> State:
    """Every row once: its best code in one column, under noise of a temperature.

    Args:
      frozen: (N,) rows whose code may not change.
      temperature: of Gumbel noise on D.
    """
    rows, width = len(frozen), table.maps.shape[1]
    batches = -(-rows // batch)
    begin_key, noise_key, choice_key, chance_key = jax.random.split(key, 4)
    begin = jax.random.randint(begin_key, (), 0, rows)
    noise = temperature * jax.random.gumbel(noise_key, (NOISE_ROWS, width))
    choices = jax.random.randint(choice_key, (batches, batch), 0, NOISE_ROWS)
    chances = jax.random.uniform(chance_key, (batches, batch))

    def one(number: Any, now: _Carried) -> _Carried:
        index = (begin + number * batch + jnp.arange(batch)) % rows
        codes = _get(now.codes, index)
        old, rests = codes[:, table.views], _rests(table, codes)
        gains = _gains(table, now.part, rests, old, mapped)
        new = jnp.argmin(gains - _get(noise, choices[number]), axis=1)
        gain = jnp.take_along_axis(gains, new[:, None], axis=1)[:, 0]
        take = (gain < 0) & (new != codes[:, table.column])
        take &= (chances[number] < now.rate) & ~_get(frozen, index)
        here = jnp.stack([old, table.maps[:, new].T], axis=-1)[:, :, None]
        sign = jnp.array([-1.0, 1.0])[None, None, None] * take[:, None, None, None]
        at = rests[..., None] * width + here
        part, worse = _applied(table, now, at, jnp.broadcast_to(sign, at.shape))
        return _carried_on(table, now, part, worse, index, new, take)

    return _in_column(state, table, width, batches, one)


@functools.partial(jax.jit, static_argnames=("batch",), donate_argnames=("state",))
def swap(
    state: State, table: Slice, pairs: jax.Array, key: jax.Array, *, batch: int
) -> State:
    """Pairs of rows that exchange their codes in one column where that lowers F.

    Args:
      pairs: (n, 2) rows, none twice; n a multiple of `batch`. A pair (N, N) is none.
    """
    width, batches = table.maps.shape[1], len(pairs) // batch
    chances = jax.random.uniform(key, (batches, batch))
    weights, length = table.weights[None], 2 * table.live[None]
    sign = jnp.array([-1.0, 1.0, -1.0, 1.0])

    def one(number: Any, now: _Carried) -> _Carried:
        index = jax.lax.dynamic_slice_in_dim(pairs, number * batch, batch)
        first, second = (now.codes.at[index[:, n]].get(mode="clip") for n in (0, 1))
        a, b = first[:, table.views, None], second[:, table.views, None]
        here, there = _rests(table, first), _rests(table, second)
        at = jnp.stack([here, here, there, there], -1) * width + jnp.stack(
            [a, b, b, a], -1
        )
        moves = (here != there) & (a != b)
        values = (_get(now.part.reshape(-1), at) * sign[None, None, None]).sum(-1)
        gain = (weights * jnp.where(moves, values + length, 0)).sum((1, 2))
        take = (gain < 0) & (chances[number] < now.rate)
        change = sign[None, None, None] * (moves & take[:, None, None])[..., None]
        part, worse = _applied(table, now, at, change)
        new = jnp.stack([second[:, table.column], first[:, table.column]], axis=1)
        both = jnp.broadcast_to(take[:, None], new.shape)
        return _carried_on(
            table,
            now,
            part,
            worse,
            index.reshape(-1),
            new.reshape(-1),
            both.reshape(-1),
        )

    return _in_column(state, table, width, batches, one)
