"""Marginals: counts, sensitivities of every small table, noise, refusals."""

import dataclasses
import functools
import itertools
import math
import time

import jax
import numpy as np
import pytest

from dpkit.mechanisms.tables import Deviations, Marginals, PureMarginals, deviations
from tests.oracles.tables import counted
from tests.tables import FAMILIES, PLAIN, PURE, SIZES

ROWS = list(itertools.product(*(range(size) for size in SIZES)))
NULL = (-1, -1, -1)
ADULT = (85, 9, 100, 16, 7, 15, 6, 5, 2, 100, 100, 99, 42, 2)
PAIRS = tuple(itertools.combinations(range(14), 2))


def tables_of(rows, most):
    """Every table of at most so many rows, as a tuple of rows."""
    for count in range(most + 1):
        yield from itertools.combinations_with_replacement(rows, count)


def neighbours(relation, units, rest):
    """Pairs of tables that differ in one unit, for each unit and each rest."""
    for table in rest:
        for one in units:
            if relation == "add_remove":
                yield table, (*table, *one)
            elif relation == "zero_out":
                yield (*table, *(NULL for _ in one)), (*table, *one)
            else:
                yield from (((*table, *a), (*table, *one)) for a in units)


def codes(table):
    return np.array(table, np.int16).reshape(-1, len(SIZES))


@pytest.mark.parametrize("kind", [Marginals, PureMarginals])
@pytest.mark.parametrize("relation", ["add_remove", "replace_one", "zero_out"])
@pytest.mark.parametrize("reach", [1, 2])
def test_no_neighbours_are_further_apart_than_the_event_says(kind, relation, reach):
    """Of all tables of one row and a unit; and some are as far apart as that."""
    own = dataclasses.replace(PLAIN if kind is Marginals else PURE, reach=reach)
    spread = np.repeat(own.spreads, [math.prod(shape) for shape in own.shapes])
    order = 2 if kind is Marginals else 1
    units = [u for u in tables_of(ROWS, reach) if u]
    rest = list(tables_of(ROWS, 1)) if reach == 1 else [()]
    totals = {}

    def total(table):
        if table not in totals:
            totals[table] = own.total(codes(table)) / spread
        return totals[table]

    far = max(
        np.linalg.norm(total(a) - total(b), order)
        for a, b in neighbours(relation, units, rest)
    )
    event = own.event(relation)
    if kind is PureMarginals:
        claimed = event.epsilon
    else:  # an accountant doubles what a replaced record moves
        claimed = (2 if relation == "replace_one" else 1) / event.noise_multiplier
    assert far <= claimed * (1 + 1e-12)
    assert far == pytest.approx(claimed, rel=1e-12)


@pytest.mark.parametrize("relation", ["add_remove", "replace_one"])
def test_no_scores_are_further_apart_than_the_event_says(relation):
    """Against references that are no counts, of all tables of two rows and a unit."""
    rng = np.random.default_rng(0)
    references = [rng.uniform(-1, 3, shape) for shape in PLAIN.shapes]
    own = Deviations(families=3, stddev=5.0)
    found = {
        table: deviations(PLAIN.split(PLAIN.total(codes(table))), references)
        for table in tables_of(ROWS, 3)
    }
    units = [(row,) for row in ROWS]
    far = [
        found[tuple(sorted(a))] - found[tuple(sorted(b))]
        for a, b in neighbours(relation, units, list(tables_of(ROWS, 2)))
    ]
    factor = 2 if relation == "replace_one" else 1
    assert np.abs(far).max() == factor  # exactly: scores are whole steps of a grid
    radius = own.stddev / own.event(relation).noise_multiplier
    worst = np.linalg.norm(far, axis=1).max()
    assert worst <= radius * factor * (1 + 1e-12)
    assert worst == pytest.approx(radius * factor, rel=1e-12)


def test_sums_of_precisions():
    """Three families with 1/4, 1, 1/9: a multiplier of 1 / sqrt(49/36) = 6/7."""
    assert PLAIN.event("add_remove").noise_multiplier == pytest.approx(6 / 7, 1e-15)
    replaced = PLAIN.event("replace_one").noise_multiplier
    assert replaced == pytest.approx(6 / 7 * math.sqrt(2), rel=1e-15)
    assert PURE.event("replace_one").epsilon == pytest.approx(2 * (13 / 12), rel=1e-15)
    thrice = dataclasses.replace(PLAIN, reach=3)
    assert thrice.event("zero_out").noise_multiplier == pytest.approx(2 / 7, rel=1e-15)


def test_precisions_that_split_a_budget_add_up_to_it():
    """The unequal split of synthetic tables' singles: mu^2 f1 s^(2/3) / sum."""
    mu2, sizes = 0.25 * 0.2, (2, 3, 6)
    shares = np.array(sizes) ** (2 / 3)
    precisions = mu2 * shares / shares.sum()
    expected = [0.01138834, 0.01492295, 0.02368871]
    assert precisions == pytest.approx(expected, abs=5e-9)
    own = Marginals(
        families=((0,), (1,), (2,)), sizes=sizes, stddevs=tuple(precisions**-0.5)
    )
    assert own.event("add_remove").noise_multiplier == pytest.approx(
        mu2**-0.5, rel=1e-14
    )


@pytest.mark.parametrize("dtype", [np.int8, np.uint32, np.int32])
def test_totals_are_counts_and_sums_of_messages(dtype):
    """Codes outside are in no cell of their column's families, in any integers."""
    rng = np.random.default_rng(1)
    rows = rng.integers(-2, 5, (60, 3)).astype(dtype)
    rows[::9, 0] = np.iinfo(dtype).max
    rows[1::9, 2] = np.iinfo(dtype).min
    expected = counted(rows.tolist(), FAMILIES, SIZES)
    assert (PLAIN.total(rows) == expected).all()
    assert (PLAIN.total(rows.reshape(20, 3, 3)) == expected).all()
    some = rows[:12]
    three = dataclasses.replace(PLAIN, reach=3)
    for own, units in ((PLAIN, some), (three, some.reshape(4, 3, 3))):
        message = jax.jit(functools.partial(own.contribute, None))
        found = [np.asarray(message(unit)) for unit in units]
        assert (np.sum(found, axis=0) == counted(some.tolist(), FAMILIES, SIZES)).all()


def test_codes_beyond_32_bits_are_none():
    rows = np.array([[2**32, 0, 0], [0, 2**33 + 1, -(2**32)]])
    assert PLAIN.total(rows).sum() == 1 + 1  # families of what is left
    for row in rows:
        found = PLAIN.contribute(None, row)
        assert (PLAIN.total(row[None]) == found).all()


def test_families_are_told_apart_in_their_own_order():
    own = dataclasses.replace(PLAIN, families=((1, 0), (2,), (2, 1)))
    rows = np.array([[1, 2, 0], [0, 2, 1], [1, 2, 0]])
    first, second, third = own.split(own.total(rows))
    assert first.tolist() == [[0, 0], [0, 0], [1, 2]]
    assert second.tolist() == [2, 1]
    assert third.tolist() == [[0, 0, 2], [0, 0, 1]]
    tiled = own.split(np.zeros((4, own.cells)))
    assert [part.shape for part in tiled] == [(4, 3, 2), (4, 2), (4, 2, 3)]


@pytest.mark.parametrize("size", [2.0**-10, 0.3, 20.0, 200.0, 5e4, 2.0**40])
@pytest.mark.parametrize("kind", [Marginals, PureMarginals])
def test_noise_of_any_size_is_on_a_grid_and_as_large_as_said(kind, size):
    """100,000 cells: a variance within 6 deviations (false alarm 2e-9, Laplace 4e-7).

    Its relative deviation is sqrt(2 / n) for Gaussian noise, sqrt(5 / n) for Laplace.
    """
    name = "stddevs" if kind is Marginals else "scales"
    own = kind(families=((0,),), sizes=(100_000,), **{name: (size,)})
    total = np.full(100_000, 2**30)
    noise = own.privatize(jax.random.key(3), total) - total
    step = min(1.0, 2.0 ** (math.floor(math.log2(size)) - 10))
    assert (noise / step == np.rint(noise / step)).all()
    variance = size**2 if kind is Marginals else 2 * size**2
    room = 6 * math.sqrt((2 if kind is Marginals else 5) / 100_000)
    assert abs((noise**2).mean() / variance - 1) < room
    assert len(np.unique(noise)) > 1000


def test_counts_that_floats_do_not_hold_are_cut():
    """As they must be: neighbours around 2^53 may not be rounded apart."""
    total = np.array([2**53 - 1, 2**53, 2**53 + 1, 2**62, -(2**62)])
    own = Marginals(families=((0,),), sizes=(5,), stddevs=(4.0,))
    values = own.privatize(jax.random.key(0), total)
    assert (np.abs(np.abs(values) - 2**53) < 40).all()


def test_all_pairs_of_adult_in_a_tenth_of_a_second():
    """CPU seconds; 5 to 9 milliseconds when measured."""
    own = Marginals(families=PAIRS, sizes=ADULT, stddevs=(43.2,) * 91)
    assert own.cells == 148_137
    total = np.zeros(own.cells, np.int64)
    keys = jax.random.split(jax.random.key(0), 3)
    own.privatize(keys[0], total)
    start = time.process_time()
    own.privatize(keys[1], total)
    assert time.process_time() - start < 0.1


def test_each_family_has_its_own_noise():
    """Independent: correlations of 40 families' first cells over 4,000 releases.

    Each is nearly normal with deviation 1/sqrt(4000); the largest of 780 stays below 7
    deviations (false alarm 2e-9).
    """
    own = Marginals(families=((0,),) * 40, sizes=(2,), stddevs=(1.0,) * 40)
    zeros = np.zeros((4000, own.cells), np.int64)
    found = own.privatize(jax.random.key(1), zeros)[:, ::2]
    correlations = np.corrcoef(found.T) - np.eye(40)
    assert np.abs(correlations).max() < 7 / math.sqrt(4000)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"families": ()}, "families: needed at least one"),
        ({"families": ((),)}, "families: needed at least one"),
        ({"families": ((0, 0),)}, "families: .* different columns below 3"),
        ({"families": ((0, 3),)}, "families: .* different columns below 3"),
        ({"families": ((-1,),)}, "families=-1"),
        ({"families": "01"}, "families=str"),
        ({"sizes": (2, 0, 2)}, "sizes=0"),
        ({"sizes": (2, 2.0, 2)}, "sizes=2.0"),
        ({"sizes": (2, 3, 2**40)}, "sizes: 1099511627776"),
        (
            {"sizes": (2**16, 2**16, 2)},
            r"the largest 4,294,967,296 of \(65536, 65536\)",
        ),
        ({"sizes": (1, 2**30, 2**30)}, r"families have 1,152,9.* cells"),
        ({"reach": 2**60}, "reach="),
        ({"stddevs": (1.0, 2.0)}, "stddevs has 2 numbers: .* 3 families"),
        ({"stddevs": (1.0, 2.0, 1e-4)}, r"stddevs=0.0001: needed a size in"),
        ({"stddevs": (1.0, 2.0, 1e13)}, "stddevs=1[0.]+: needed a size in"),
    ],
)
def test_tables_that_are_none(fields, words):
    with pytest.raises((ValueError, TypeError), match=words):
        dataclasses.replace(PLAIN, **fields)


def test_what_is_not_counted_exactly_is_refused():
    key = jax.random.key(0)
    with pytest.raises(TypeError, match="total=float64: needed exact counts"):
        PLAIN.privatize(key, np.zeros(PLAIN.cells))
    with pytest.raises(ValueError, match="total of shape"):
        PLAIN.privatize(key, np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="needed 3 columns"):
        PLAIN.total(np.zeros((4, 2), int))
    with pytest.raises(ValueError, match="2 rows: needed 1=reach"):
        PLAIN.contribute(None, np.zeros((2, 3), int))
    with pytest.raises(ValueError, match="at most 1 rows a unit"):
        PLAIN(key, np.zeros((5, 2, 3), int))
    with pytest.raises(TypeError, match="under jit"):
        jax.jit(lambda key: PLAIN.privatize(key, PLAIN.total(codes(ROWS))))(key)


def test_deviations_say_what_they_are_of():
    counts = [np.array([[3, 0], [1, 2]]), np.array([4])]
    references = [np.array([[1.5, 0.25], [0, 2]]), np.array([-1.0])]
    assert deviations(counts, references).tolist() == [2.75, 5.0]
    own = Deviations(families=2, stddev=3.0)
    assert own.total(counts, references).tolist() == [2.75 * 1024, 5 * 1024]
    with pytest.raises(ValueError, match="counts: 1; needed 2"):
        own.total(counts[:1], references[:1])
    with pytest.raises(TypeError, match="total=float64"):
        own.privatize(jax.random.key(0), deviations(counts, references))
    for bad in (math.nan, math.inf, 1e13):
        with pytest.raises(ValueError, match=r"references\[1\]: needed finite"):
            deviations(counts, [references[0], np.array([bad])])
    with pytest.raises(ValueError, match=r"references\[0\] of shape"):
        deviations(counts, [references[1], references[1]])
    with pytest.raises(TypeError, match=r"counts\[0\]=float64"):
        deviations([counts[0] * 1.0, counts[1]], references)
