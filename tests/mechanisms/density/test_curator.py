"""The curator: one path of noise, the same for ever, and as large as its kernel."""

import copy
import math
import pickle
from typing import Any

import jax
import numpy as np
import pytest
from dp_accounting import GaussianDpEvent

from dpkit.accountants import Relation
from dpkit.mechanisms.density import KERNELS, ExactKernel, Gaussian, Kernel, Laplace
from tests.oracles import density as oracle

GAUSS = Kernel("gaussian", 1.0)
EXACT = ExactKernel(GAUSS, Gaussian(4.0), max_queries=16)
NOBODY = np.zeros((0, 2))


def paths(queries, count=2_000, kernel=GAUSS):
    """Answers of many curators of nobody, (count, q)."""
    exact = ExactKernel(kernel, Gaussian(4.0), max_queries=16)
    keys = jax.random.split(jax.random.key(3), count)
    return np.array([exact.begin(k, NOBODY).query(queries).values for k in keys])


def test_sums_are_exact_but_for_the_path():
    rng = np.random.default_rng(0)
    points, queries = rng.normal(size=(70_000, 2)), rng.normal(size=(3, 2))
    for kernel in (GAUSS, Kernel("rational_l1", 0.5)):
        exact = ExactKernel(kernel, Gaussian(4.0), max_queries=8)
        noise = exact.begin(jax.random.key(1), NOBODY).query(queries).values
        found = exact.begin(jax.random.key(1), points).query(queries)
        truth = kernel.between(queries, points).sum(axis=1)
        np.testing.assert_allclose(found.values - noise, truth, atol=2e-7)


def test_a_query_has_one_answer():
    curator = EXACT.begin(jax.random.key(0), np.ones((10, 2)))
    rng = np.random.default_rng(0)
    queries = rng.normal(size=(12, 2))
    first = curator.query(queries).values
    order = rng.permutation(12)
    np.testing.assert_array_equal(curator.query(queries[order]).values, first[order])
    zero, minus = curator.query([[0.0, 0.0], [-0.0, 0.0]]).values
    assert zero == minus
    for number in range(3):
        curator.query([[9.0, float(number)]])
    with pytest.raises(ValueError, match="16 different ones"):
        curator.query([[9.0, 3.0]])
    # What was refused changed nothing, and old ones are answered still.
    np.testing.assert_array_equal(curator.query(queries).values, first)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gaussian", "rational_l1"])
def test_noise_has_the_kernel_as_covariance(name):
    """2,000 paths; five standard errors, false alarm 6e-7 an entry."""
    kernel = Kernel(name, 1.0)
    queries = np.array([[0.0, 0.0], [0.5, 0.0], [0.5, 1e-9], [2.0, 2.0]])
    drawn = paths(queries, kernel=kernel) / 4.0
    expected = [[oracle.kernel(name, x, y) for y in queries] for x in queries]
    room = 5 * math.sqrt(2 / 2_000)
    np.testing.assert_allclose(np.cov(drawn.T), expected, atol=room)
    assert np.abs(drawn.mean(axis=0)).max() < 5 / math.sqrt(2_000)


def test_two_queries_are_correlated_by_the_kernel():
    """400 paths, one after another; five standard errors."""
    drawn = paths(np.array([[0.0, 0.0], [0.6, 0.0]]), count=400) / 4.0
    found = np.corrcoef(drawn.T)[0, 1]
    expected = math.exp(-0.36)
    assert abs(found - expected) < 5 * (1 - expected**2) / math.sqrt(400)
    assert abs(drawn.std() - 1) < 5 / math.sqrt(400)


def test_a_record_moves_all_answers_within_the_reach():
    """In the metric of the noise, for queries as near to each other as numbers are."""
    rng = np.random.default_rng(4)
    centres = rng.normal(size=(4, 2))
    near = centres.repeat(4, axis=0) + rng.normal(size=(16, 2)) * 1e-7
    points = np.concatenate([near, rng.normal(size=(40, 2)), centres, [[50.0, 0]]])
    for name in KERNELS:
        kernel = Kernel(name, 1.0)
        exact = ExactKernel(kernel, Gaussian(4.0), max_queries=16)
        covariance = kernel.between(near, near)
        covariance[np.diag_indices(16)] = 1 + exact.jitter
        lower = np.linalg.cholesky(covariance)
        steps = np.rint(kernel.between(points, near) * 2**40) / 2**40
        moved = np.linalg.solve(lower, steps.T).T
        norms = np.linalg.norm(moved, axis=1)
        assert 0.99 < norms.max() <= exact.reach.l2
        apart = np.linalg.norm(moved[:, None] - moved, axis=-1)
        assert 1.0 < apart.max() <= exact.reach.l2_replaced


def test_its_event():
    assert EXACT.event("add_remove") == GaussianDpEvent(4.0)
    assert EXACT.event(Relation.ZERO_OUT) == GaussianDpEvent(4.0)
    event = EXACT.event("replace_one")
    assert isinstance(event, GaussianDpEvent)
    replaced = event.noise_multiplier
    # of two reaches, which accountants take, the points move sqrt(2) alone
    assert replaced == pytest.approx(4.0 * math.sqrt(2), rel=1e-6)
    assert replaced <= 4.0 * math.sqrt(2)


def test_hostile_records_count_as_they_are_or_as_none():
    bad = [[math.nan, 0.0], [math.inf, 0.0], [0.0, -math.inf]]
    far = [[1e308, -1e308], [1e300, 0.0], [1e-320, 1e30]]
    alone, among = (
        EXACT.begin(jax.random.key(0), np.array(points)).query([[0.3, 0.0]]).values
        for points in ([[0.0, 0.0]], [[0.0, 0.0], *bad, *far])
    )
    np.testing.assert_array_equal(among, alone)


@pytest.mark.parametrize(
    ("queries", "said"),
    [
        ([[math.nan, 0.0]], "needed finite"),
        ([[math.inf, 0.0]], "needed finite"),
        ([[0.0]], "needed \\(count, 2\\)"),
        ([0.0, 0.0], "needed \\(count, 2\\)"),
    ],
)
def test_queries_that_are_none(queries, said):
    with pytest.raises(ValueError, match=said):
        EXACT.begin(jax.random.key(0), np.zeros((1, 2))).query(queries)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"noise": Laplace(1.0)}, TypeError),
        ({"noise": None}, TypeError),
        ({"kernel": "gaussian"}, TypeError),
        ({"max_queries": 0}, ValueError),
        ({"max_queries": True}, TypeError),
        ({"jitter": 0.0}, ValueError),
        ({"jitter": -1.0}, ValueError),
        ({"jitter": math.nan}, ValueError),
    ],
)
def test_what_it_is_not_made_of(fields, error):
    given: dict[str, Any] = {"kernel": GAUSS, "noise": Gaussian(4.0), **fields}
    with pytest.raises(error, match=next(iter(fields))):
        ExactKernel(**given)


@pytest.mark.parametrize("key", [jax.random.PRNGKey(0), 0, None], ids=str)
def test_other_keys_are_refused(key):
    with pytest.raises(TypeError, match="key="):
        EXACT.begin(key, np.zeros((1, 2)))


@pytest.mark.parametrize(
    "take", [pickle.dumps, copy.copy, copy.deepcopy], ids=lambda f: f.__name__
)
def test_it_can_not_be_copied(take):
    curator = EXACT.begin(jax.random.key(0), np.full((1, 2), 7.25))
    with pytest.raises(TypeError, match="private records"):
        take(curator)
    assert "7.25" not in repr(curator)
