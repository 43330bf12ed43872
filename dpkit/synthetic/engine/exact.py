"""Totals that are met in whole rows, and rows that hold nothing impossible.

Before the search, rows are moved until every exact target is met; after that its
columns change only by exchanges between rows that are alike in all that the exact
targets of the column count beside it, which keeps them met. Impossible combinations are
drawn anew, as far as nothing exact or frozen stands against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dpkit.synthetic.engine.families import Marginal
from dpkit.synthetic.engine.targets import Impossible, broken

_CLOSE = 1e-6  # shares of exact targets agree to this
_ROUNDS = 200  # draws of a row that holds something impossible
_ANYWHERE = 0.1  # of these draws, from all codes instead of those that occur


class Exact(NamedTuple):
    """A marginal and the shares it must have."""

    family: Marginal
    shares: np.ndarray


def held(hard: Sequence[Exact], columns: int) -> np.ndarray:
    """Which columns an exact target counts, (columns,) bool."""
    found = np.zeros(columns, bool)
    for one in hard:
        found[list(one.family.columns)] = True
    return found


def met(
    rows: np.ndarray,
    hard: Sequence[Exact],
    frozen: np.ndarray,
    generator: np.random.Generator,
) -> np.ndarray:
    """Rows moved so that all exact targets are met in whole rows.

    Raises:
      ValueError: shares are no distribution, contradict each other, or share columns
        in a circle; frozen cells are in the way.
    """
    done: list[Exact] = []
    for one in _in_order(hard):
        shared = _shared(one, done)
        fresh = [c for c in one.family.columns if c not in shared]
        if fresh:
            fixed = np.asarray(frozen[:, fresh].any(axis=1))
            rows = _moved(rows, one, shared, fixed, generator)
        done.append(one)
    return rows


def _in_order(hard: Sequence[Exact]) -> list[Exact]:
    """So that each shares all it can with one before: a tree, if there is one."""
    left = sorted(hard, key=lambda one: -len(one.family.columns))
    found: list[Exact] = []
    while left:
        reach = [max([len(_common(a, b)) for b in found] or [0]) for a in left]
        found.append(left.pop(int(np.argmax(reach))))
    return found


def _common(one: Exact, other: Exact) -> set[int]:
    """Columns of both."""
    return set(one.family.columns) & set(other.family.columns)


def _shared(one: Exact, done: Sequence[Exact]) -> set[int]:
    """Columns that exact targets before this one fixed; all must agree on them."""
    columns = one.family.columns
    if one.shares.min() < 0 or abs(one.shares.sum() - 1) > _CLOSE:
        raise ValueError(
            f"exact target of columns {columns}: needed shares of at least 0 with sum 1"
        )
    overlaps = [(_common(one, other), other) for other in done]
    shared = set().union(*(common for common, _ in overlaps))
    if shared and shared not in [common for common, _ in overlaps]:
        raise ValueError(
            f"exact target of columns {columns}: shares columns {sorted(shared)} with "
            "others in a circle, so that no order meets them all; leave one out"
        )
    for common, other in overlaps:
        if any(_map(one, c) != _map(other, c) for c in common):
            raise ValueError(
                f"exact targets of columns {columns} and {other.family.columns}: they "
                f"count columns {sorted(common)} by different groups"
            )
        mine, theirs = (_margin(each, common) for each in (one, other))
        if np.abs(mine - theirs).max() > _CLOSE:
            raise ValueError(
                f"exact targets of columns {columns} and {other.family.columns}: they "
                f"contradict each other in columns {sorted(common)}"
            )
    return shared


def _map(one: Exact, column: int) -> bytes | None:
    """By which groups a column is counted; None: by its codes."""
    chosen = dict(one.family.mapped())[column]
    return None if chosen is None else chosen.astype(np.int64).tobytes()


def _margin(one: Exact, columns: set[int]) -> np.ndarray:
    """The shares of some columns, in increasing order."""
    kept = sorted(columns)
    places = [one.family.columns.index(column) for column in kept]
    rest = [n for n in range(one.shares.ndim) if n not in places]
    return one.shares.transpose(places + rest).sum(
        tuple(range(len(kept), len(places + rest)))
    )


def _moved(
    rows: np.ndarray,
    one: Exact,
    shared: set[int],
    fixed: np.ndarray,
    generator: np.random.Generator,
) -> np.ndarray:
    """Rows of cells that hold too many, moved to cells of the same group."""
    family, shape = one.family, one.family.shape
    axes = [n for n, column in enumerate(family.columns) if column in shared]
    codes = np.unravel_index(np.arange(one.shares.size), shape)
    group = np.zeros(one.shares.size, np.int64)
    for axis in axes:
        group = group * shape[axis] + codes[axis]
    cells = family.cells(rows)
    there = np.bincount(cells, minlength=one.shares.size)
    needed = _whole(one.shares.reshape(-1), np.bincount(group, there), group)
    # In each cell those stay that must, then others by chance.
    order = np.lexsort((generator.random(len(rows)), ~fixed, cells))
    rank = np.empty(len(rows), np.int64)
    rank[order] = np.arange(len(rows)) - (np.cumsum(there) - there)[cells[order]]
    leaving = np.flatnonzero(rank >= needed[cells])
    if fixed[leaving].any():
        raise ValueError(
            f"exact target of columns {family.columns}: frozen cells are more than it "
            "allows"
        )
    leaving = leaving[np.argsort(group[cells[leaving]], kind="stable")]
    free = np.repeat(np.arange(one.shares.size), np.maximum(needed - there, 0))
    free = free[np.lexsort((generator.random(len(free)), group[free]))]
    found = rows.copy()
    for axis, (column, chosen) in enumerate(family.mapped()):
        if axis not in axes:
            new = codes[axis][free]
            found[leaving, column] = (
                new if chosen is None else _within(chosen, new, generator)
            )
    return found


def _within(
    chosen: np.ndarray, groups: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """A code of each group, by chance."""
    order = np.argsort(chosen, kind="stable")
    sizes = np.bincount(chosen)
    begin = np.cumsum(sizes) - sizes
    drawn = (generator.random(len(groups)) * sizes[groups]).astype(np.int64)
    return order[begin[groups] + drawn]


def _whole(shares: np.ndarray, totals: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Whole numbers near the shares whose sums by group are the totals."""
    sums = np.bincount(group, shares, minlength=len(totals))
    scale = np.divide(totals, sums, out=np.zeros(len(sums)), where=sums > 0)
    wanted = shares * scale[group]
    found = np.floor(wanted + 1e-9).astype(np.int64)
    missing = (totals - np.bincount(group, found, minlength=len(totals))).astype(int)
    if (missing[sums <= 0] > 0).any():
        raise ValueError("exact targets: they contradict each other in a group of 0")
    order = np.lexsort((found - wanted, group))
    first = np.searchsorted(group[order], np.arange(len(totals)))
    rank = np.arange(len(order)) - first[group[order]]
    found[order] += rank < missing[group[order]]
    return found


def partners(hard: Sequence[Exact], columns: int) -> dict[int, list[Marginal]]:
    """By column of an exact target: what rows that exchange it must have in common."""
    found: dict[int, list[Marginal]] = {}
    for column in range(columns):
        for family, _ in hard:
            if column in family.columns:
                beside = [pair for pair in family.mapped() if pair[0] != column]
                entry = found.setdefault(column, [])
                if beside:
                    names, maps = zip(*beside, strict=True)
                    entry.append(Marginal(names, family.sizes, maps))
    return found


def paired(
    rows: np.ndarray,
    alike: Sequence[Marginal],
    free: np.ndarray,
    generator: np.random.Generator,
) -> np.ndarray:
    """Pairs of free rows that are alike, by chance, (pairs, 2); padded by len(rows)."""
    index = np.flatnonzero(free)
    keys = [family.cells(rows[index]) for family in alike]
    order = np.lexsort((generator.random(len(index)), *keys))
    # In each run of equal rows the first and second, the third and fourth, …
    new = np.zeros(len(index), bool)
    new[:1] = True
    for key in keys:
        new[1:] |= key[order][1:] != key[order][:-1]
    begin = np.maximum.accumulate(np.where(new, np.arange(len(index)), 0))
    first = (np.arange(len(index)) - begin) % 2 == 0
    first[-1:] = False
    first[:-1] &= ~new[1:]
    found = np.full((len(rows) // 2 + 1, 2), len(rows), np.int32)
    starts = np.flatnonzero(first)
    found[: len(starts), 0] = index[order[starts]]
    found[: len(starts), 1] = index[order[starts + 1]]
    return found


def repaired(
    rows: np.ndarray,
    sizes: Sequence[int],
    rules: Sequence[Impossible],
    kept: np.ndarray,
    generator: np.random.Generator,
) -> np.ndarray:
    """Rows without impossible combinations, as far as the cells that stay allow.

    One column at a time of a broken rule is drawn anew, mostly from the codes of other
    rows, so that the singles stay near what they were.
    """
    rows = rows.copy()
    for _ in range(_ROUNDS):
        wrong = broken(rules, rows)
        bad = np.flatnonzero(wrong.any(axis=0))
        if not len(bad):
            break
        # By chance one of each row's broken rules, and one of its columns.
        chance = generator.random((len(rules), len(bad))) * wrong[:, bad]
        which = chance.argmax(axis=0)
        for number, rule in enumerate(rules):
            mine = bad[which == number]
            column = np.array(rule.columns)[
                generator.integers(0, len(rule.columns), len(mine))
            ]
            new = rows[generator.integers(0, len(rows), len(mine)), column]
            anywhere = generator.random(len(mine)) < _ANYWHERE
            drawn = generator.integers(0, np.array(sizes)[column])
            new = np.where(anywhere, drawn, new)
            free = ~kept[mine, column]
            rows[mine[free], column[free]] = new[free]
    return rows


def alike(hard: Sequence[Exact], columns: int) -> np.ndarray:
    """What rows must have in common to exchange a column, (columns, columns)."""
    found = np.zeros((columns, columns), bool)
    for family, _ in hard:
        found[np.ix_(family.columns, family.columns)] = True
    return found & ~np.eye(columns, dtype=bool)
