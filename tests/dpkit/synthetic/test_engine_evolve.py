"""The genetic search: the steepest descent, and what must hold on all tables."""

import math

import numpy as np
import pytest

from dpkit.synthetic.engine import Marginal, Prefix, Target, evolve
from tests.dpkit.synthetic.engine_cases import (
    SIZES,
    START,
    TARGETS,
    Rule,
    asked_of,
    plain,
    random_case,
    squares,
    with_regions,
)
from tests.oracles import searches as tables

pytestmark = pytest.mark.slow


def test_all_candidates_are_the_steepest_descent():
    start = np.zeros((5, 3), int)
    expected = tables.steepest(start.tolist(), SIZES, plain(TARGETS), 10)
    assert expected[0] == pytest.approx(2.6225) and expected[8] > expected[9]
    assert expected[9] == expected[10] == pytest.approx(0.1025)
    options = {"seed": 0, "candidates": None, **asked_of(TARGETS, SIZES)}
    found = [
        evolve(start, SIZES, generations=n, **options).loss
        for n in range(len(expected))
    ]
    assert found == pytest.approx(expected, abs=1e-9)


def test_it_lowers_the_loss_and_never_raises_it():
    start, sizes, asked = with_regions(5)
    options = {"seed": 1, "candidates": 8, "ordered": [True, False, False, True, False]}
    losses = [squares(start, asked)]
    for generations in (1, 5, 50, 1000):
        found = evolve(start, sizes, generations=generations, **options, **asked)
        assert found.loss == pytest.approx(squares(found.rows, asked), rel=1e-9)
        assert found.loss <= losses[-1] + 1e-12
        losses.append(found.loss)
    assert losses[-1] < 0.7 * losses[0]
    assert found.sweeps == 1000


def test_impossible_and_frozen_cells():
    start, sizes, targets = random_case(4)
    rng = np.random.default_rng(0)
    rule = Rule((0, 3), rng.random((4, 6)) < 0.4)
    frozen = np.zeros(start.shape, bool)
    frozen[:35, 4] = True
    frozen[:9, 1] = True
    found = evolve(
        start, sizes, **asked_of(targets, sizes), generations=800, candidates=8,
        seed=0, forbidden=[rule], frozen=frozen,
    ).rows  # fmt: skip
    assert rule.mask[start[:, 0], start[:, 3]].any()
    assert not rule.mask[found[:, 0], found[:, 3]].any()
    assert (found == start)[frozen].all() and (found != start)[~frozen].any()


def test_exact_targets_stay_met():
    start, sizes, targets = random_case(6)
    truth = random_case(7)[0]
    family = Marginal((0, 1), sizes)
    shares = np.bincount(family.cells(truth), minlength=12).reshape(4, 3) / len(truth)
    given = asked_of([*targets, Target((0, 1), shares, math.inf)], sizes)
    before = evolve(start, sizes, **given, generations=0, seed=0)
    found = evolve(start, sizes, **given, generations=800, candidates=8, seed=0)
    wanted = tables.counts(truth, (0, 1))
    assert tables.counts(found.rows, (0, 1)) == wanted
    assert found.loss < before.loss
    # Columns 0 and 1 are exchanged, not stuck.
    assert (found.rows[:, :2] != before.rows[:, :2]).any()


def test_the_seed_decides_and_it_stops():
    start, sizes, targets = random_case(8)
    given = asked_of(targets, sizes)
    one, again, other = (
        evolve(start, sizes, **given, generations=40, candidates=8, seed=seed).rows
        for seed in (1, 1, 2)
    )
    assert (one == again).all() and (one != other).any()
    told = []
    found = evolve(
        start, sizes, **given, generations=10**5, candidates=8, seed=0, stop_below=10.0,
        on_progress=lambda *at: told.append(at),
    )  # fmt: skip
    assert told == [(found.sweeps, 10**5)] and found.sweeps < 10**5


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"generations": -1}, "generations=-1"),
        ({"candidates": 0}, "candidates=0"),
        ({"weights": [1.0]}, "one for each of 3 families"),
        ({"shares": [np.zeros(2)] * 3}, "shape"),
        ({"memory_limit": 1000}, "memory_limit=1000"),
        ({"ordered": [True]}, "ordered"),
    ],
)
def test_what_does_not_fit_is_refused(change, match):
    given = asked_of(TARGETS, SIZES) | {"generations": 1, "seed": 0} | change
    with pytest.raises(ValueError, match=match):
        evolve(START, SIZES, **given)


def test_an_exact_region_is_refused():
    region = Prefix((0,), (np.array([0.25, 0.75]),), Marginal((1,), SIZES), np.ones(1))
    with pytest.raises(ValueError, match="weight=inf"):
        evolve(
            START, SIZES, [region], [np.ones(3) / 3], weights=[math.inf], seed=0,
            generations=1,
        )  # fmt: skip
