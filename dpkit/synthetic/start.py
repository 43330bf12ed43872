"""Rows to begin a search with: drawn from a forest of the strongest pairs.

Post-processing of released values. The nearer the start is to what is wanted, the
better the end: a search from uniform rows stops early, one from the product of the
columns later, one from a forest latest.

Source: Chow and Liu, "Approximating discrete probability distributions with dependence
trees", 1968; edges as noisy tables in McKenna, Miklau, Sheldon, arXiv:2108.04978.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dpkit.synthetic.shrinkage import PairTarget, strength

Pair = tuple[int, int]
_NOISY = 0.4  # of the summed deviations counts against an edge
_ROUNDS = 10  # of iterative proportional fitting
_PRIOR = 1e-3


def forest(
    shares: Sequence[np.ndarray], pairs: Mapping[Pair, PairTarget]
) -> tuple[list[Pair], dict[Pair, float]]:
    """The edges of a forest of strong pairs, strongest first, and every pair's score.

    Args:
      shares: of each column.
      pairs: shrunk tables.

    Returns:
      Edges whose strength is above their noise, and scores by pair.
    """
    scores = {
        (a, b): strength(pair.values, shares[a], shares[b]) - _NOISY * pair.stddev.sum()
        for (a, b), pair in pairs.items()
    }
    tree, edges = list(range(len(shares))), []
    for a, b in sorted(scores, key=lambda pair: scores[pair], reverse=True):
        if scores[a, b] <= 0:
            break
        if tree[a] != tree[b]:
            kept, lost = tree[a], tree[b]
            tree = [kept if root == lost else root for root in tree]
            edges.append((a, b))
    return edges, scores


def edge_table(values: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """A pair's table without negative cells, whose margins are the columns' shares.

    Example:
      >>> half = np.array([0.5, 0.5])
      >>> edge_table(np.array([[0.6, -0.1], [0.0, 0.4]]), half, half).sum(0).round(6)
      array([0.5, 0.5])
    """
    prior = _PRIOR * np.outer(first, second)
    return fitted(np.maximum(values, 0) + prior, first, second)


def fitted(table: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """A table scaled by rows and columns in turn until its margins are given ones."""
    for _ in range(_ROUNDS):
        table = table * (first / np.maximum(table.sum(1), 1e-300))[:, None]
        table = table * (second / np.maximum(table.sum(0), 1e-300))
    return table


def drawn(
    shares: Sequence[np.ndarray],
    edges: Mapping[Pair, np.ndarray],
    rows: int,
    generator: np.random.Generator,
) -> np.ndarray:
    """Rows of a forest: roots by their columns, children given their parents.

    Args:
      shares: of each column.
      edges: tables of pairs without a circle.
      rows: how many.
      generator: of the search, not of noise.

    Returns:
      Codes, (rows, d) int32.
    """
    codes = np.full((rows, len(shares)), -1, np.int32)
    left = dict(edges)
    for root, share in enumerate(shares):
        if codes[:1, root].sum() >= 0 and rows:
            continue
        codes[:, root] = codes_given(share[None], np.zeros(rows, np.int64), generator)
        reached = [root]
        for parent in reached:
            for a, b in [pair for pair in left if parent in pair]:
                table = left.pop((a, b))
                child, by_parent = (b, table) if a == parent else (a, table.T)
                codes[:, child] = codes_given(by_parent, codes[:, parent], generator)
                reached.append(child)
    return codes


def codes_given(
    table: np.ndarray, given: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """A code for each row, from the line of the table that its given code names."""
    lines = np.maximum(table, 0)
    empty = lines.sum(1, keepdims=True) <= 0
    lines = np.where(empty, lines.sum(0, keepdims=True) + 1e-12, lines)
    above = np.cumsum(lines / lines.sum(1, keepdims=True), axis=1)
    above[:, -1] = 1.0
    # One sorted search for all lines: line k lies in [k, k + 1).
    places = (above + np.arange(len(above))[:, None]).ravel()
    wanted = generator.random(len(given)) + given
    found = np.searchsorted(places, wanted, side="right")
    return (found - given * table.shape[1]).clip(0, table.shape[1] - 1)
