"""The search: brute force on small tables, and what must hold on all."""

import hashlib
import itertools
import math
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from dpkit.synthetic.engine import Target, columns, layout, memory, search
from tests.dpkit.synthetic.engine_cases import (
    MINIMA,
    SIZES,
    START,
    TARGETS,
    Rule,
    plain,
    random_case,
)
from tests.oracles import searches as tables

pytestmark = pytest.mark.slow

INF = math.inf


def exact(rows, columns, maps=None):
    """The shares that rows have."""
    target = Target(columns, np.zeros(1), 1.0, maps)
    family = target.family(rows.max(axis=0) + 1)
    found = np.bincount(family.cells(rows), minlength=math.prod(family.shape))
    return Target(columns, found.reshape(family.shape) / len(rows), 1.0, maps)


def test_small_tables_by_enumeration():
    asked = plain(TARGETS)
    assert tables.loss(START, asked) == pytest.approx(0.2425, abs=1e-12)
    least = min(tables.loss(rows, asked) for rows in tables.all_tables(SIZES, 5))
    assert least == pytest.approx(MINIMA[0], abs=1e-12)
    losses = set()
    for seed in range(12):
        found = search(START, SIZES, TARGETS, seed=seed, sweeps=20)
        rows = found.rows.tolist()
        assert found.loss == pytest.approx(tables.loss(rows, asked), abs=1e-12)
        beside = tables.one_cell_changes(rows, SIZES)
        assert found.loss <= min(tables.loss(r, asked) for r in beside) + 1e-9
        losses.add(round(found.loss, 9))
    assert MINIMA[0] in losses and losses <= set(MINIMA)


@pytest.mark.parametrize("shared", [True, False])
def test_loss_is_that_of_the_rows_and_never_rises(shared, monkeypatch):
    """Families of one to three columns, and of groups; slices of one or many shapes."""
    if not shared:
        monkeypatch.setattr(layout, "_ONE_SHAPE", 1)
    start, sizes, targets = random_case(1)
    losses = [tables.loss(start, plain(targets))]
    for sweeps in range(6):
        found = search(start, sizes, targets, seed=3, sweeps=sweeps, temperature=0.02)
        expected = tables.loss(found.rows.tolist(), plain(targets))
        assert found.loss == pytest.approx(expected, rel=1e-9)
        assert found.loss <= losses[-1] + 1e-12
        losses.append(found.loss)
    assert losses[-1] < 0.7 * losses[0]


def test_shapes_of_slices_change_nothing(monkeypatch):
    start, sizes, targets = random_case(2)
    one = search(start, sizes, targets, seed=0, sweeps=3)
    monkeypatch.setattr(layout, "_ONE_SHAPE", 1)
    assert (search(start, sizes, targets, seed=0, sweeps=3).rows == one.rows).all()


def test_a_table_with_its_own_marginals_stays():
    rng = np.random.default_rng(0)
    rows = np.stack([rng.permutation(np.arange(60) % size) for size in (5, 3, 4)], 1)
    targets = [exact(rows, pair) for pair in ((0, 1), (0, 2), (1, 2), (0,), (0, 1, 2))]
    found = search(rows, (5, 3, 4), targets, seed=0, sweeps=4, temperature=0.05)
    assert found.loss == 0 and (found.rows == rows).all()


def test_one_compilation_serves_all_columns():
    rng = np.random.default_rng(0)
    sizes = (7, 2, 11, 5, 3, 13)
    rows = np.stack([rng.integers(0, size, 77) for size in sizes], axis=1)
    targets = [Target((a,), np.full(n, 1 / n)) for a, n in enumerate(sizes)]
    program: Any = columns.respond
    before = program._cache_size()
    search(rows, sizes, targets, seed=0, sweeps=2)
    more = [Target((0, 5), np.full((7, 13), 1 / 91))]
    search(rows, sizes, targets + more, seed=0, sweeps=2)
    assert program._cache_size() == before + 1


def test_temperature_is_in_shares():
    """One batch from all zeros: codes are drawn as exp(-D / temperature), D = -t - .9.

    Of 2,000 rows about half are moved; they share 1,024 vectors of noise, so a share's
    deviation is at most .025. False alarm: below 1e-5.
    """
    shares = np.array([0.1, 0.2, 0.3, 0.4])
    start = np.zeros((2000, 1), int)
    target = [Target((0,), shares)]
    rows = search(start, (4,), target, seed=0, sweeps=1, temperature=0.2).rows
    found = np.bincount(rows[:, 0], minlength=4)[1:]
    expected = np.exp(shares[1:] / 0.2)
    assert 800 < found.sum() < 1200
    assert found / found.sum() == pytest.approx(expected / expected.sum(), abs=0.12)


def test_it_cools_from_the_second_sweep_on():
    start, sizes, targets = random_case(2)
    options = {"seed": 0, "temperature": 0.05}
    for sweeps, equal in ((1, True), (2, False)):
        warm, cold = (
            search(start, sizes, targets, sweeps=sweeps, cooling=c, **options).rows
            for c in (1.0, 0.01)
        )
        assert (warm == cold).all() == equal


def test_weights_decide_between_targets():
    start = np.zeros((10, 1), int)
    targets = [
        Target((0,), np.array([0.8, 0.2]), 3.0),
        Target((0,), np.array([0.4, 0.6]), 1.0),
        Target((0,), np.array([0.0, 1.0]), 0.0),
    ]
    # The mean by weight: (3 * .8 + .4) / 4 = .7.
    rows = search(start, (2,), targets, seed=0, sweeps=9).rows
    assert (rows == 0).sum() == 7


def test_impossible_combinations_never_come():
    start, sizes, targets = random_case(4)
    rng = np.random.default_rng(0)
    rules = [
        Rule((0, 3), rng.random((4, 6)) < 0.4),
        Rule((1, 3, 4), rng.random((3, 6, 2)) < 0.3),
    ]
    assert rules[0].mask[start[:, 0], start[:, 3]].any()
    found = search(
        start, sizes, targets, seed=0, sweeps=4, temperature=0.05, forbidden=rules
    )
    for rule in rules:
        assert not rule.mask[tuple(found.rows[:, c] for c in rule.columns)].any()
    assert found.loss == pytest.approx(
        tables.loss(found.rows.tolist(), plain(targets)), rel=1e-9
    )


def test_impossible_but_frozen_is_refused():
    rule = Rule((0, 1), np.array([[True, False, False], [False, False, False]]))
    frozen = np.array([True, True, False])
    with pytest.raises(ValueError, match=r"forbidden \(0, 1\)"):
        search(START, SIZES, TARGETS, seed=0, forbidden=[rule], frozen=frozen)


@pytest.mark.parametrize("whole", [True, False])
def test_frozen_cells_stay(whole):
    start, sizes, targets = random_case(5)
    rng = np.random.default_rng(0)
    frozen = np.array([1, 0, 0, 1, 0], bool) if whole else rng.random(start.shape) < 0.5
    found = search(start, sizes, targets, seed=0, sweeps=4, frozen=frozen)
    stays = np.broadcast_to(frozen, start.shape)
    assert (found.rows == start)[stays].all() and (found.rows != start)[~stays].any()


def test_exact_targets_are_met_while_others_are_searched():
    """A chain of two pairs and a single of groups, beside noisy ones."""
    start, sizes, targets = random_case(6)
    truth = random_case(7)[0]
    groups = np.array([0, 0, 1, 1, 2, 2])
    asked = [((0, 1), None), ((1, 4), None), ((3,), (groups,))]
    hard = [
        Target(one.columns, one.values, INF, maps)
        for (columns, maps) in asked
        for one in [exact(truth, columns, maps)]
    ]
    before = search(start, sizes, targets + hard, seed=0, sweeps=0)
    found = search(start, sizes, targets + hard, seed=0, sweeps=4)
    for rows in (before.rows, found.rows):
        for one in hard:
            assert tables.counts(rows, one.columns, one.maps) == tables.counts(
                truth, one.columns, one.maps
            )
    assert found.loss == pytest.approx(
        tables.loss(found.rows.tolist(), plain(targets)), rel=1e-9
    )
    assert found.loss < before.loss


def test_hard_singles_are_met_in_whole_rows():
    start, sizes, targets = random_case(8)
    shares = np.array([0.505, 0.245, 0.25, 0.0])
    single = [Target((0,), shares), *targets[1:]]
    found = search(start, sizes, single, seed=0, sweeps=3, hard_singles=True)
    # 40 rows: 20.2, 9.8, 10, 0 by the largest remainder.
    assert np.bincount(found.rows[:, 0], minlength=4).tolist() == [20, 10, 10, 0]


@pytest.mark.parametrize("seed", range(5))
def test_exchanges_end_where_no_exchange_is_better(seed):
    start, sizes, targets = random_case(seed, rows=14)
    start[7:, 1:] = start[:7, 1:]  # rows that are alike beside the column
    targets[0] = Target((0,), np.array([0.4, 0.3, 0.2, 0.1]))
    frozen = np.array([False, True, True, True, True])
    options = {"sweeps": 40, "hard_singles": True, "frozen": frozen}
    found = search(start, sizes, targets, seed=0, **options)
    held, others = found.rows, plain(targets[1:])  # but the single of column 0
    assert found.loss == pytest.approx(tables.loss(held.tolist(), others), rel=1e-9)
    for i, k in itertools.combinations(range(14), 2):
        rows = held.copy()
        rows[[i, k], 0] = held[[k, i], 0]
        assert tables.loss(rows.tolist(), others) >= found.loss - 1e-9


@pytest.mark.parametrize(
    ("hard", "match"),
    [
        ([((0,), [0.5, 0.6])], "needed shares"),
        ([((0,), [1.5, -0.5])], "needed shares"),
        ([((0,), [0.5, 0.5]), ((0, 2), [[0.5, 0.2], [0.2, 0.1]])], "contradict"),
        (
            [(c, np.full([SIZES[i] for i in c], 1 / math.prod(SIZES[i] for i in c)))
             for c in ((0, 1), (1, 2), (0, 2))],
            "in a circle",
        ),
    ],
)  # fmt: skip
def test_exact_targets_that_cannot_be_met_are_refused(hard, match):
    targets = [Target(columns, np.array(values), INF) for columns, values in hard]
    with pytest.raises(ValueError, match=match):
        search(START, SIZES, targets, seed=0)


def test_exact_targets_and_frozen_cells():
    target = [Target((0,), np.array([0.2, 0.8]), INF)]
    frozen = np.zeros((5, 3), bool)
    frozen[0, 0] = True
    found = search(START, SIZES, target, seed=0, frozen=frozen)
    assert found.rows[:, 0].tolist() == [0, 1, 1, 1, 1]
    frozen[1, 0] = True
    with pytest.raises(ValueError, match="frozen cells"):
        search(START, SIZES, target, seed=0, frozen=frozen)


def test_it_stops_where_it_is_good_enough():
    told = []
    found = search(
        START, SIZES, TARGETS, seed=0, sweeps=9, stop_below=10.0,
        on_progress=lambda *at: told.append(at),
    )  # fmt: skip
    assert found.sweeps == 1 and told == [(1, 9)]


def test_memory_is_refused_before_it_is_taken():
    target = [Target((0, 1), np.zeros((300, 400)))]
    needed = memory((300, 400), target, 10)
    assert needed > 32 * 300 * 400
    start = np.zeros((10, 2), int)
    with pytest.raises(ValueError, match=r"\(300, 400\), has 480000 bytes; take fewer"):
        search(start, (300, 400), target, seed=0, memory_limit=needed - 1)
    search(start, (300, 400), target, seed=0, sweeps=0, memory_limit=needed)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"start": START[:, :2]}, "start: shape"),
        ({"start": START[:0]}, "start: shape"),
        ({"start": START + 1}, "outside"),
        ({"sizes": (2, 0, 2)}, "sizes="),
        ({"targets": [Target((0, 0), np.zeros((2, 2)))]}, "none twice"),
        ({"targets": [Target((0, 3), np.zeros((2, 2)))]}, "from 0 to 2"),
        ({"targets": [Target((0, 2), np.zeros((2, 3)))]}, r"needed \(2, 2\)"),
        ({"targets": [Target((0,), np.array([np.nan, 1]))]}, "finite"),
        ({"targets": [Target((0,), np.zeros(2), math.nan)]}, "weight=nan"),
        ({"targets": [Target((0,), np.zeros(2), -1.0)]}, "weight=-1"),
        ({"targets": [Target((0,), np.zeros(2), 1, (np.zeros(3, int),))]}, "maps"),
        ({"sweeps": -1}, "sweeps=-1"),
        ({"temperature": -0.1}, "temperature=-0.1"),
        ({"cooling": 0.0}, "cooling=0"),
        ({"frozen": np.zeros(2, bool)}, "frozen"),
        ({"forbidden": [Rule((0, 1), np.ones((2, 3), bool))]}, "no combination"),
        ({"forbidden": [Rule((0, 1), np.zeros((2, 2), bool))]}, "forbidden"),
    ],
)
def test_what_does_not_fit_is_refused(change, match):
    given = {"start": START, "sizes": SIZES, "targets": TARGETS, "seed": 0} | change
    with pytest.raises(ValueError, match=match):
        search(**given)


def test_codes_are_whole_numbers():
    with pytest.raises(TypeError, match="whole numbers"):
        search(START * 1.0, SIZES, TARGETS, seed=0)


def test_the_start_is_not_written_to_and_the_seed_decides():
    start, sizes, targets = random_case(9)
    kept = start.copy()
    options = {"sweeps": 2, "temperature": 0.01}
    one, again, other = (
        search(start, sizes, targets, seed=seed, **options).rows for seed in (1, 1, 2)
    )
    assert (start == kept).all() and (one == again).all() and (one != other).any()


ROWS = """
import hashlib, os
os.sched_setaffinity(0, {affinity})
from dpkit.synthetic.engine import search
from tests.dpkit.synthetic.engine_cases import random_case
start, sizes, targets = random_case(9, rows=5000)
found = search(start, sizes, targets, seed=1, sweeps=3, temperature=0.01)
print(hashlib.sha256(found.rows.tobytes()).hexdigest())
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux")
def test_the_same_rows_on_one_core_and_on_two():
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        pytest.skip("one core")
    found = {
        subprocess.run(
            [sys.executable, "-c", ROWS.format(affinity=set(chosen))],
            capture_output=True, text=True, check=True,
        ).stdout
        for chosen in (cores[:1], cores)
    }  # fmt: skip
    assert len(found) == 1
    start, sizes, targets = random_case(9, rows=5000)
    rows = search(start, sizes, targets, seed=1, sweeps=3, temperature=0.01).rows
    assert {hashlib.sha256(rows.tobytes()).hexdigest() + "\n"} == found
