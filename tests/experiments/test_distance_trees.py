"""The trees for distances, against loops over records."""

import numpy as np
import pytest

from experiments.baselines.distance_trees import ShellTree, SumTree, between
from experiments.baselines.release import l1_sums


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_between_sums_each_range_of_leaves(depth):
    leaves = rng(depth).normal(size=2**depth)
    tree = np.full(2 ** (depth + 1), np.nan)
    tree[2**depth :] = leaves
    for cell in range(2**depth - 1, 1, -1):
        tree[cell] = tree[2 * cell] + tree[2 * cell + 1]
    tree[1] = leaves.sum()
    ends = np.arange(2**depth + 1)
    low, high = np.meshgrid(ends, ends, indexing="ij")
    found = between(tree, low, high)
    for i in ends:
        for j in ends:
            assert found[i, j] == pytest.approx(leaves[i:j].sum(), abs=1e-12)


def test_no_more_than_two_cells_a_level_are_summed():
    depth = 10
    ones = np.ones(2 ** (depth + 1))
    low, high = rng(1).integers(0, 2**depth + 1, (2, 5000))
    assert (
        between(ones, np.minimum(low, high), np.maximum(low, high)).max() <= 2 * depth
    )


@pytest.mark.parametrize("dim", [1, 3])
def test_sums_are_exact_but_for_the_leaf(dim):
    depth, side = 6, 5.0
    points, queries = (
        rng(1).uniform(0, side, (200, dim)),
        rng(2).uniform(0, side, (20, dim)),
    )
    found = SumTree(dim, side, depth, np.inf).fit(points, rng()).query(queries)
    leaf = side / 2**depth
    for value, y in zip(found, queries, strict=True):
        apart = points // leaf != y // leaf
        assert value == pytest.approx((apart * abs(points - y)).sum(), rel=1e-9)


@pytest.mark.parametrize("alpha", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("dim", [1, 3])
def test_shells_are_right_up_to_their_width(dim, alpha):
    depth, side = 12, 5.0
    points, queries = (
        rng(1).uniform(0, side, (200, dim)),
        rng(2).uniform(0, side, (20, dim)),
    )
    found = ShellTree(dim, side, depth, alpha, np.inf).fit(points, rng()).query(queries)
    truth = l1_sums(points, queries)
    grid = 200 * dim * side * (1 + alpha) / 2**depth
    assert np.all(found <= truth * (1 + alpha / 2) + grid)
    assert np.all(found >= truth / (1 + alpha / 2) - grid)


@pytest.mark.parametrize("x", [0.1, 0.45, 0.8, 0.99])
def test_a_record_has_the_middle_of_its_shell(x):
    found = ShellTree(1, 1.0, 14, 1.0, np.inf).fit(np.array([[x]]), rng())
    away = abs(x - 0.5)
    outer = next(2.0**-i for i in range(20) if 2.0 ** -(i + 1) <= away < 2.0**-i)
    assert found.query(np.array([[0.5]]))[0] == pytest.approx(0.75 * outer)


def test_records_outside_are_moved_to_the_box():
    for tree in (ShellTree(1, 2.0, 8, 0.3, np.inf), SumTree(1, 2.0, 8, np.inf)):
        out, on = (
            tree.fit(np.array(x), rng()) for x in ([[-3.0], [9.0]], [[0.0], [2.0]])
        )
        assert np.array_equal(out.statistics, on.statistics)
