"""Families of cells: what they count, and how far one row moves them."""

import itertools
import math

import numpy as np
import pytest

from dpkit.synthetic.engine import HalfSpace, Marginal, Prefix
from tests.oracles import searches as tables

pytestmark = pytest.mark.slow

SIZES = (4, 3, 5)
MIDDLES = tuple((np.arange(SIZES[c]) + 0.5) / SIZES[c] for c in (0, 2))
ROWS = np.array(list(itertools.product(*(range(n) for n in SIZES))))
KIND = Marginal((1,), SIZES)
PLANE = np.array([0.7, -0.4])
FAMILIES = [
    Marginal((0, 2), SIZES),
    Marginal((2, 1), SIZES, (np.array([0, 0, 1, 1, 1]), None)),
    Prefix((0, 2), MIDDLES, KIND, np.array([0.5, 0.7])),
    HalfSpace((0, 2), MIDDLES, KIND, PLANE, 0.1),
]


@pytest.mark.parametrize("family", FAMILIES[:2])
def test_marginals_are_counted_as_by_hand(family):
    rng = np.random.default_rng(0)
    rows = ROWS[rng.integers(0, len(ROWS), 200)]
    found = np.bincount(family.cells(rows), minlength=math.prod(family.shape))
    expected = tables.counts(rows, family.columns, family.maps)
    for cell, count in np.ndenumerate(found.reshape(family.shape)):
        assert expected[cell] == count


def test_regions_are_what_they_say():
    x, y = (MIDDLES[n][ROWS[:, c]] for n, c in ((0, 0), (1, 2)))
    below = (x < 0.5) & (y < 0.7)
    assert (FAMILIES[2].cells(ROWS) == np.where(below, ROWS[:, 1], -1)).all()
    assert below.any() and not below.all()
    side = 0.7 * x - 0.4 * y > 0.1
    assert (FAMILIES[3].cells(ROWS) == np.where(side, ROWS[:, 1], -1)).all()
    assert side.any() and not side.all()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_lights_at_most_one_cell_whatever_is_beside_it(family):
    """So adding one moves the counts by at most 1; replacing, by sqrt 2 in L2."""
    alone = np.concatenate([family.cells(row[None]) for row in ROWS])
    together = family.cells(ROWS)
    assert alone.shape == (len(ROWS),) and (alone == together).all()
    assert together.min() >= -1 and together.max() < math.prod(family.shape)


def test_a_thresholds_equal_is_outside_and_whole_steps_decide():
    edge = Prefix((0,), MIDDLES[:1], KIND, MIDDLES[0][1:2])
    assert (edge.cells(ROWS) >= 0).tolist() == (ROWS[:, 0] == 0).tolist()
    third = HalfSpace((0,), MIDDLES[:1], KIND, np.ones(1) / 3, MIDDLES[0][2] / 3)
    assert (third.cells(ROWS) >= 0).tolist() == (ROWS[:, 0] == 3).tolist()


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Marginal((), SIZES), "at least one"),
        (lambda: Marginal((0, 3), SIZES), "from 0 to 2"),
        (lambda: Marginal((0,), SIZES, ()), "one a column"),
        (lambda: Marginal((0,), SIZES, (np.array([0, 1]),)), "4 integers"),
        (lambda: Marginal((0,), SIZES, (np.array([0, 1, -1, 0]),)), "from 0 on"),
        (lambda: Prefix((0,), MIDDLES, KIND, np.zeros(1)), "values"),
        (lambda: Prefix((0, 2), MIDDLES, KIND, np.zeros(1)), "thresholds"),
        (lambda: HalfSpace((0, 2), MIDDLES, KIND, PLANE, math.inf), "offset"),
        (lambda: HalfSpace((0, 2), MIDDLES, KIND, PLANE * 3000, 0), "below 1000"),
        (lambda: HalfSpace((0, 2), MIDDLES, KIND, PLANE * np.nan, 0), "direction"),
    ],
)
def test_what_does_not_fit_is_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()
