"""Parts of a sum: private, merged in any order, each counted and released once."""

import copy
import itertools
import pickle

import jax
import numpy as np
import pytest

from dpkit.accountants import Budget, Ledger
from dpkit.density import Shard, release_shards
from dpkit.mechanisms.density import (
    CdfDistances,
    ClassSums,
    Gaussian,
    Kernel,
    KernelSketch,
    SplineGrid,
)

KERNEL, NOISE = Kernel("gaussian", 1.0), Gaussian(4.3)
GRID = SplineGrid(kernel=KERNEL, domain=((0, 9),), noise=NOISE)
STRUCTURES = [
    GRID,
    KernelSketch.draw(KERNEL, 1, features=16, noise=NOISE),
    CdfDistances(domain=((0, 9),), cells=64, noise=NOISE),
]
POINTS = np.random.default_rng(0).normal(4, 1.5, (900, 1))


def part(structure, points):
    shard = Shard(structure)
    shard.add(points)
    return shard


def opened():
    return Ledger.open(
        None,
        budget=Budget(10.0, 1e-4),
        relation="add_remove",
        unit="row",
        dataset="toy",
    )


@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda s: type(s).__name__)
def test_parts_add_up_to_the_same_in_any_order(structure):
    whole = part(structure, POINTS).private_total
    pieces = np.split(POINTS, [10, 10, 500])
    for order in itertools.permutations(range(4)):
        first, *others = (part(structure, pieces[i]) for i in order)
        np.testing.assert_array_equal(first.merge(*others).private_total, whole)
    one = Shard(structure)
    one.add(iter(pieces))
    np.testing.assert_array_equal(one.private_total, whole)
    left = part(structure, pieces[0]).merge(part(structure, pieces[1]))
    right = part(structure, pieces[2]).merge(part(structure, pieces[3]))
    np.testing.assert_array_equal(left.merge(right).private_total, whole)


def test_a_release_of_parts_is_that_of_the_whole():
    ledger = opened()
    parts = [part(GRID, piece) for piece in np.array_split(POINTS, 3)]
    out = release_shards(*parts, ledger=ledger, key=jax.random.key(0))
    whole = release_shards(part(GRID, POINTS), ledger=ledger, key=jax.random.key(0))
    np.testing.assert_array_equal(out.values, whole.values)
    kinds = [entry.kind for entry in ledger.entries()]
    assert kinds == ["genesis"] + ["reserve", "commit"] * 2
    # Without noise, it would have been the sum itself.
    noise = out.values / GRID.step - part(GRID, POINTS).private_total
    assert np.std(noise * GRID.step) == pytest.approx(GRID.stddev, rel=0.6)


def test_parts_are_released_once():
    ledger, shard = opened(), part(GRID, POINTS)
    release_shards(shard, ledger=ledger, key=jax.random.key(0))
    head = ledger.head
    with pytest.raises(ValueError, match="released before"):
        release_shards(shard, ledger=ledger, key=jax.random.key(1))
    with pytest.raises(ValueError, match="released before"):
        release_shards(part(GRID, POINTS), shard, ledger=ledger, key=jax.random.key(1))
    assert ledger.head == head


def test_a_part_that_is_there_twice_would_count_twice():
    """Its records would move the sum by two reaches, and noise hides one."""
    ledger = opened()
    one, other = part(GRID, POINTS[:5]), part(GRID, POINTS[5:])
    both = one.merge(other)
    for parts in ((one, one), (one, other, one), (both, other), (both, both)):
        with pytest.raises(ValueError, match="there twice"):
            parts[0].merge(*parts[1:])
        with pytest.raises(ValueError, match="there twice"):
            release_shards(*parts, ledger=ledger, key=jax.random.key(0))
    assert len(ledger.entries()) == 1
    release_shards(both, ledger=ledger, key=jax.random.key(0))


def test_other_refusals_cost_nothing():
    ledger, shard = opened(), part(GRID, POINTS)
    other = SplineGrid(kernel=KERNEL, domain=((0, 9),), noise=Gaussian(1.0))
    with pytest.raises(ValueError, match="at least one"):
        release_shards(ledger=ledger)
    with pytest.raises(ValueError, match="same structure"):
        release_shards(shard, Shard(other), ledger=ledger)
    with pytest.raises(TypeError, match="needed a Shard"):
        shard.merge(shard.private_total)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="key="):
        release_shards(shard, ledger=ledger, key=jax.random.PRNGKey(0))
    with pytest.raises(TypeError, match="structure="):
        Shard("SplineGrid")  # type: ignore[arg-type]
    assert len(ledger.entries()) == 1


@pytest.mark.parametrize(
    ("points", "more", "said"),
    [
        (np.ones(3), {}, "points of shape"),
        (np.ones((3, 2)), {}, "points of shape"),
        (np.array([["a"]]), {}, "needed an array of real"),
        (np.ones((3, 1)), {"weights": np.ones(2)}, "weights of shape"),
        (np.ones((3, 1)), {"labels": np.ones((3, 1))}, "labels of shape"),
        (iter([np.ones((3, 1))]), {"weights": np.ones(3)}, "go with one array"),
    ],
)
def test_what_can_not_be_added(points, more, said):
    shard = Shard(GRID)
    with pytest.raises((ValueError, TypeError), match=said):
        shard.add(points, **more)
    assert not shard.private_total.any()


@pytest.mark.parametrize(
    "take",
    [pickle.dumps, copy.copy, copy.deepcopy, lambda s: pickle.dumps({"a": [s]}, 0)],
)
def test_a_part_can_not_be_saved_or_copied(take):
    with pytest.raises(TypeError, match="private sums without noise"):
        take(part(GRID, POINTS))


def test_a_part_says_nothing():
    shard = part(GRID, POINTS)
    assert repr(shard) == str(shard) == "<Shard of SplineGrid: private, without noise>"
    assert not hasattr(shard, "query")


def test_between_processes_that_are_trusted():
    shard = part(GRID, POINTS)
    bare = pickle.loads(pickle.dumps(shard.private_total))
    again = Shard.from_private(GRID, bare)
    np.testing.assert_array_equal(again.private_total, shard.private_total)
    with pytest.raises(TypeError, match="needed whole steps"):
        Shard.from_private(GRID, bare * 1.0)
    with pytest.raises(ValueError, match="total of shape"):
        Shard.from_private(GRID, bare[1:])


def test_classes_and_weights_of_parts():
    table = ClassSums(classes=3, dimension=1, noise=NOISE, max_weight=2.0)
    rng = np.random.default_rng(1)
    labels, weights = rng.integers(-1, 4, 900), rng.uniform(-1, 3, 900)
    shard = Shard(table)
    for rows in np.array_split(np.arange(900), 4):
        shard.add(POINTS[rows], weights=weights[rows], labels=labels[rows])
    counts = table.counts(shard.private_total * table.step)
    cut = weights.clip(0, 2)
    truth = [cut[labels == c].sum() for c in range(3)]
    np.testing.assert_allclose(counts.values, truth, rtol=1e-4)
