"""Tables and their statistics by counting, one row at a time: slow and obvious."""

import itertools
from collections import Counter


def counts(rows, columns, maps=None):
    """How often each combination of codes occurs, a Counter of tuples."""
    maps = maps or [None] * len(columns)
    return Counter(
        tuple(
            int(row[c] if m is None else m[row[c]])
            for c, m in zip(columns, maps, strict=True)
        )
        for row in rows
    )


def loss(rows, targets):
    """Sum of weight * (share - value)^2 over (columns, values, weight, maps)."""
    total = 0.0
    for columns, values, weight, maps in targets:
        found = counts(rows, columns, maps)
        for cell in itertools.product(*(range(n) for n in values.shape)):
            total += weight * (found[cell] / len(rows) - float(values[cell])) ** 2
    return total


def one_cell_changes(rows, sizes):
    """All tables that differ in one cell, in order of row, column and code."""
    for i, row in enumerate(rows):
        for j, size in enumerate(sizes):
            for code in range(size):
                changed = [list(r) for r in rows]
                changed[i] = [*row[:j], code, *row[j + 1 :]]
                yield changed


def steepest(rows, sizes, targets, moves):
    """The losses along the steepest descent by one cell, from before the first move."""
    rows, found = [list(row) for row in rows], [loss(rows, targets)]
    for _ in range(moves):
        best = min(one_cell_changes(rows, sizes), key=lambda r: loss(r, targets))
        if loss(best, targets) < found[-1] - 1e-9:
            rows = best
        found.append(loss(rows, targets))
    return found


def all_tables(sizes, count):
    """All tables of so many rows, in any order of rows."""
    everything = list(itertools.product(*(range(n) for n in sizes)))
    return itertools.combinations_with_replacement(everything, count)
