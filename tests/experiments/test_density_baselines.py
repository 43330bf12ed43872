"""The kernel baselines: brute force without noise, their bounds, and their noise."""

import doctest
import importlib
import itertools
import math
from typing import Any

import numpy as np
import pytest
from numpy.polynomial.hermite import hermval
from scipy import integrate

from experiments.baselines.bernstein import Bernstein
from experiments.baselines.distance_trees import ShellTree, SumTree
from experiments.baselines.hermite_cells import LSQ_FGT
from experiments.baselines.phase_features import LSQ_RFF
from experiments.baselines.race import RACE
from experiments.baselines.release import gaussian_sums, l1_sums, laplace

OFF = math.inf
MODULES = {
    "density_data": 3,
    "baselines.release": 2,
    "baselines.phase_features": 2,
    "baselines.hermite_cells": 3,
    "baselines.race": 3,
    "baselines.bernstein": 3,
    "baselines.distance_trees": 7,
}


def rng(seed=0):
    return np.random.default_rng(seed)


def kernel_sums(points, queries):
    return [sum(math.exp(-(math.dist(x, y) ** 2)) for x in points) for y in queries]


@pytest.mark.parametrize(("module", "examples"), MODULES.items())
def test_the_examples_run(module, examples):
    found = doctest.testmod(importlib.import_module(f"experiments.{module}"))
    assert found.attempted >= examples
    assert found.failed == 0


def test_truths_are_those_of_loops():
    points, queries = rng(1).normal(size=(50, 3)), rng(2).normal(size=(9, 3))
    found = gaussian_sums(points, queries, rows=7)
    assert found == pytest.approx(kernel_sums(points, queries), rel=1e-12)
    manhattan = [sum(abs(x - y).sum() for x in points) for y in queries]
    assert l1_sums(points, queries) == pytest.approx(manhattan, rel=1e-12)


def test_phase_features_estimate_without_bias():
    points, queries = rng(1).normal(size=(8, 2)), rng(2).normal(size=(3, 2))
    found = np.array(
        [LSQ_RFF(2, 64, OFF, s).fit(points, rng()).query(queries) for s in range(400)]
    )
    # 400 independent maps, three queries: beyond 5 standard errors with 2e-6.
    error = found.std(0) / math.sqrt(len(found))
    assert np.all(abs(found.mean(0) - kernel_sums(points, queries)) < 5 * error)
    assert np.all(error < 0.1)


@pytest.mark.parametrize(("dim", "order"), [(1, 4), (1, 9), (2, 4), (2, 7), (3, 5)])
def test_hermite_cells_are_the_series_of_each_record(dim, order):
    side = 4
    points = rng(1).uniform(-0.5, side + 0.5, (40, dim))
    queries = rng(2).uniform(0, side, (6, dim))
    found = LSQ_FGT(dim, side, order, OFF).fit(points, rng()).query(queries)
    for value, y in zip(found, queries, strict=True):
        expected = 0.0
        for x in points.clip(0, side):
            centre = np.floor(x + 0.5)
            if math.dist(y, centre) ** 2 <= order:
                expected += math.prod(
                    math.exp(-(t**2)) * hermval(t, taylor(u, order))
                    for t, u in zip(y - centre, x - centre, strict=True)
                )
        assert value == pytest.approx(expected, rel=1e-9, abs=1e-9)


def taylor(u, order):
    return [u**j / math.factorial(j) for j in range(order)]


@pytest.mark.parametrize("dim", [1, 2])
def test_hermite_cells_with_many_terms_are_exact(dim):
    points, queries = rng(1).uniform(0, 5, (30, dim)), rng(2).uniform(0, 5, (5, dim))
    found = LSQ_FGT(dim, 5, 26, OFF).fit(points, rng()).query(queries)
    assert found == pytest.approx(kernel_sums(points, queries), abs=1e-5)


def collisions(r, width):
    """The probability of one step for both: an integral over where they fall."""
    density = lambda t: 2 / (r * math.sqrt(2 * math.pi)) * math.exp(-0.5 * (t / r) ** 2)  # noqa: E731
    return integrate.quad(lambda t: density(t) * (1 - t / width), 0, width)[0]


@pytest.mark.parametrize("power", [1, 3])
def test_race_estimates_its_collisions(power):
    points, query = rng(1).normal(size=(5, 3)), np.zeros((1, 3))
    sketches = [RACE(3, 50, 32, 2.0, power, OFF, seed) for seed in range(200)]
    apart = [math.dist(x, query[0]) for x in points]
    kernel = [collisions(r, 2.0) ** power for r in apart]
    assert sketches[0].collision(apart) == pytest.approx(kernel, rel=1e-9)
    found = [sketch.fit(points, rng()).query(query)[0] for sketch in sketches]
    # 200 independent sketches: beyond 5 standard errors with 6e-7.
    error = np.std(found) / math.sqrt(len(found))
    assert abs(np.mean(found) - sum(kernel)) < 5 * error < 0.2


def iterated(f, degree, order):
    """I - (I - B)^order as a sum of powers of B, each a function of functions."""

    def once(g):
        def polynomial(*y):
            return sum(
                g(*(i / degree for i in index))
                * math.prod(
                    math.comb(degree, i) * t**i * (1 - t) ** (degree - i)
                    for i, t in zip(index, y, strict=True)
                )
                for index in itertools.product(range(degree + 1), repeat=len(y))
            )

        return polynomial

    powers = [f]
    for _ in range(order):
        powers.append(once(powers[-1]))
    return lambda *y: sum(
        math.comb(order, i) * (-1) ** (i - 1) * powers[i](*y)
        for i in range(1, order + 1)
    )


@pytest.mark.parametrize(
    ("dim", "degree", "order"), [(1, 6, 1), (1, 6, 3), (2, 3, 1), (2, 3, 2)]
)
def test_bernstein_is_the_iterated_polynomial(dim, degree, order):
    side = 2.0
    points, queries = rng(1).uniform(0, side, (6, dim)), rng(2).uniform(0, 1, (3, dim))
    expected = iterated(
        lambda *u: kernel_sums(points, [[side * t for t in u]])[0], degree, order
    )
    release = Bernstein(dim, side, degree, order, OFF).fit(points, rng())
    assert release.query(queries * side) == pytest.approx(
        [expected(*y) for y in queries.tolist()], rel=1e-9
    )


# What one record may move in L1, by the papers, and a record that comes near it.
BOUNDS: dict[str, Any] = {
    "LSQ_RFF": (lambda e: LSQ_RFF(2, 64, e, 5), math.sqrt(128), [0.3, 0.1], 0.5),
    "LSQ_FGT": (lambda e: LSQ_FGT(2, 3, 4, e), (15 / 8) ** 2, [0.5, 1.5], 1.0),
    "RACE": (lambda e: RACE(2, 40, 16, 1.0, 1, e, 5), 40, [0.3, 0.1], 1.0),
    "Bernstein": (lambda e: Bernstein(2, 0.1, 7, 2, e), 64, [0.05, 0.05], 0.99),
    "ShellTree": (lambda e: ShellTree(2, 1.0, 6, 0.3, e), 12, [0.3, 0.1], 1.0),
    "SumTree": (lambda e: SumTree(2, 1.0, 6, e), 24, [1.0, 1.0], 1.0),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_a_record_moves_no_more_than_the_noise_covers(name):
    make, bound, worst, share = BOUNDS[name]
    points = rng(1).uniform(-1, 4, (20, 2))
    fitted = make(OFF).fit(points, rng()).statistics
    moved = [
        abs(make(OFF).fit(np.vstack([points, x]), rng()).statistics - fitted).sum()
        for x in [worst, *rng(2).uniform(-1, 4, (30, 2))]
    ]
    assert max(moved) <= bound * (1 + 1e-12)
    assert moved[0] >= share * bound * (1 - 1e-12)


@pytest.mark.parametrize("name", BOUNDS)
def test_all_statistics_have_noise_of_that_scale(name):
    make, bound, *_ = BOUNDS[name]
    nothing = np.zeros((0, 2))
    noise = np.array([make(0.5).fit(nothing, rng(s)).statistics for s in range(100)])
    assert np.all(noise != 0)
    # |Laplace(b)| has mean and deviation b: beyond 5 standard errors with 6e-7.
    scale = bound / 0.5
    assert abs(noise).mean() == pytest.approx(scale, abs=5 * scale / noise.size**0.5)


@pytest.mark.parametrize("name", BOUNDS)
def test_records_that_are_not_finite_count_nothing(name):
    make = BOUNDS[name][0]
    good = rng(1).uniform(0, 3, (5, 2))
    bad = np.vstack([good, [[np.nan, 1.0], [np.inf, 0.0]]])
    found = [make(1.0).fit(x, rng()).statistics for x in (good, bad)]
    assert np.array_equal(*found)


@pytest.mark.parametrize("shape", [(4,), (4, 3)])
def test_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"points\.shape"):
        LSQ_RFF(2, 8, 1.0, 0).fit(np.zeros(shape), rng())


@pytest.mark.parametrize("epsilon", [0, -1.0, math.nan])
def test_no_budget_is_refused(epsilon):
    with pytest.raises(ValueError, match="epsilon"):
        laplace(rng(), 1.0, epsilon, 3)
