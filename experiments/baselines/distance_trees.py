"""Sums of l1 distances from dyadic trees: noisy counts in shells, or counts and sums.

Coordinates are in [0, side] and have a tree each, with epsilon / dim: level l = 1 to
depth has 2^l cells, and all levels have the same part of that; the root, which no query
needs, has none. What lies between two leaves is a sum over two cells a level at most.

References: Backurs, Lin, Mahabadi, Silwal, Tarnawski, "Efficiently Computing
Similarities to Private Datasets", 2024, arXiv:2403.08917; Liu, Hu, Reneau, Song, Liu,
"Differentially Private Kernel Density Estimation", 2024, arXiv:2409.01688.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from experiments.baselines.release import Array, Release, laplace, records


@dataclasses.dataclass(frozen=True)
class ShellTree:
    """Counts at distances between side / (1 + alpha)^(i+1) and side / (1 + alpha)^i.

    A count is multiplied by the middle of its shell, which is right up to a factor of
    1 + alpha / 2; the published one is 1 + alpha. By a shell's outer edge the bias is
    ten times as large on smooth data. Records within side 2^-depth count nothing.

    Privacy: pure epsilon for an added or removed record, which moves one count a level
    by 1; replacing one costs 2 epsilon. Every cell has noise, empty or not. Records
    outside the public box are moved to it.

    Attributes:
      dim: of the points.
      side: of the box.
      depth: of each tree.
      alpha: of the shells.
      epsilon: inf is no noise.

    Example:
      >>> rng = np.random.default_rng(0)
      >>> release = ShellTree(1, 1.0, 14, 0.01, math.inf).fit(np.zeros((100, 1)), rng)
      >>> release.query(np.ones((1, 1)) / 2).round().tolist()
      [50.0]
    """

    dim: int
    side: float
    depth: int
    alpha: float
    epsilon: float

    def fit(self, points: Array, rng: np.random.Generator) -> Release:
        """The noisy counts, (dim, 2^(depth + 1)) in the order of a heap.

        Args:
          points: (n, dim), private.
          rng: of the noise.
        """
        units = _units(records(points, self.dim), self.side)
        trees = np.stack([_tree(u, np.ones_like(u), self.depth) for u in units.T])
        noise = laplace(rng, self.dim * self.depth, self.epsilon, trees.shape)
        return Release(trees + noise, self._answer)

    def _answer(self, trees: Array, queries: Array) -> Array:
        """The shells on both sides of each query, coordinate by coordinate."""
        leaves = 2**self.depth
        number = math.ceil(self.depth * math.log(2) / math.log1p(self.alpha))
        reach = (1 + self.alpha) ** -np.arange(number + 1.0)
        total = np.zeros(len(queries))
        for tree, v in zip(trees, queries.T / self.side, strict=True):
            for side in (-1, 1):
                ends = np.rint((v[:, None] + side * reach) * leaves).astype(int)
                outer, inner = np.clip([ends[:, :-1], ends[:, 1:]], 0, leaves)
                low, high = (outer, inner) if side < 0 else (inner, outer)
                total += between(tree, low, high) @ (reach[:-1] + reach[1:]) / 2
        return self.side * total


@dataclasses.dataclass(frozen=True)
class SumTree:
    """Counts and sums of coordinates on both sides of a query's leaf; no alpha.

    sum |x - y| = sum over x above of (x - y) + sum over x below of (y - x); records in
    the leaf of y count nothing.

    Privacy: pure epsilon for an added or removed record, which moves one count a level
    by 1 and one sum by at most `side`: count and sum have half of a level's part each.
    Replacing one costs 2 epsilon. Every cell has noise, empty or not. Records outside
    the public box are moved to it.

    Attributes:
      dim: of the points.
      side: of the box.
      depth: of each tree.
      epsilon: inf is no noise.

    Example:
      >>> rng = np.random.default_rng(0)
      >>> release = SumTree(1, 1.0, 14, math.inf).fit(np.zeros((100, 1)), rng)
      >>> release.query(np.ones((1, 1)) / 2).round().tolist()
      [50.0]
    """

    dim: int
    side: float
    depth: int
    epsilon: float

    def fit(self, points: Array, rng: np.random.Generator) -> Release:
        """The noisy counts and sums in units of `side`, (dim, 2, 2^(depth + 1)).

        Args:
          points: (n, dim), private.
          rng: of the noise.
        """
        units = _units(records(points, self.dim), self.side)
        trees = np.array(
            [[_tree(u, w, self.depth) for w in (np.ones_like(u), u)] for u in units.T]
        )
        noise = laplace(rng, 2 * self.dim * self.depth, self.epsilon, trees.shape)
        return Release(trees + noise, self._answer)

    def _answer(self, trees: Array, queries: Array) -> Array:
        """Below and above each query, coordinate by coordinate."""
        leaves = 2**self.depth
        total = np.zeros(len(queries))
        for (counts, sums), v in zip(trees, queries.T / self.side, strict=True):
            leaf = np.minimum((v * leaves).astype(int), leaves - 1)
            first, last = np.zeros_like(leaf), np.full_like(leaf, leaves)
            for sign, low, high in ((-1, first, leaf), (1, leaf + 1, last)):
                count, total_of = (between(t, low, high) for t in (counts, sums))
                total += sign * (total_of - v * count)
        return self.side * total


def between(tree: Array, low: Array, high: Array) -> Array:
    """The sum over leaves low to high - 1, by the fewest cells.

    Args:
      tree: a heap: the cells of level l at 2^l to 2^(l+1) - 1, after any first.
      low: leaves.
      high: leaves, of the same shape.

    Example:
      >>> between(np.array([0, 10, 3, 7, 1, 2, 3, 4]), np.array([1]), np.array([4]))
      array([9])
    """
    low, high = low + len(tree) // 2, high + len(tree) // 2
    total = np.zeros(low.shape, dtype=tree.dtype)
    while (inside := low < high).any():
        total += np.where(inside & (low % 2 == 1), tree[low * inside], 0)
        total += np.where(inside & (high % 2 == 1), tree[high * inside - 1], 0)
        low, high = (low + 1) // 2, high // 2
    return total


def _units(points: Array, side: float) -> Array:
    """Coordinates in [0, 1]."""
    return np.clip(points / side, 0, 1)


def _tree(units: Array, weights: Array, depth: int) -> Array:
    """The heap of sums of weights, without its root."""
    leaf = np.minimum((units * 2**depth).astype(int), 2**depth - 1)
    levels = [np.bincount(leaf, weights, minlength=2**depth)]
    while len(levels[-1]) > 2:
        levels.append(levels[-1].reshape(-1, 2).sum(1))
    return np.concatenate([np.zeros(2), *reversed(levels)])
