"""Shrinkage of pairs, against numbers worked out by other code in double precision."""

import numpy as np
import pytest

from dpkit.synthetic.shrinkage import (
    band_factors,
    haar,
    pair_target,
    strength,
    zero_chances,
)

FIRST = np.array([0.3, 0.25, 0.2, 0.1, 0.1, 0.05])
SECOND = np.array([0.6, 0.3, 0.1])
COUNTS = np.array(
    [
        [250, 40, 10],
        [170, 60, 20],
        [110, 70, 25],
        [50, 45, 8],
        [20, 60, 22],
        [5, 21, 19],
    ],
    float,
)


def test_steps_along_a_column():
    rows, mass = haar(np.array([0.5, 0.2, 0.1, 0.1, 0.1]))
    np.testing.assert_allclose(rows @ rows.T, np.eye(5), atol=1e-12)
    np.testing.assert_allclose(
        rows[1:],
        [
            [0.89442719, -0.2236068, -0.2236068, -0.2236068, -0.2236068],
            [0, 0.5, 0.5, -0.5, -0.5],
            [0, 0.70710678, -0.70710678, 0, 0],
            [0, 0, 0, 0.70710678, -0.70710678],
        ],
        atol=1e-8,
    )
    np.testing.assert_allclose(
        mass, [0.4472136, 0.55901699, 0.25, 0.21213203, 0.14142136], atol=1e-8
    )


@pytest.mark.parametrize(
    ("variance", "first", "second", "risk"),
    [(1e-4, 0.48220065, 0.0, 4.028803e-4), (1e-6, 0.99482201, 0.8, 9.979288e-6)],
)
def test_bands(variance, first, second, risk):
    mass = np.array([0.3, 0.2, 0.15, 0.1, 0.1, 0.05, 0.04, 0.03, 0.02, 0.01])
    moved = [0.03, -0.02, 0.01, 0, 0.005, -0.01, 0.002, -0.004, 0.003, -0.001]
    factors, found = band_factors(mass, np.array(moved), np.full(10, variance))
    np.testing.assert_allclose(factors, [first] * 8 + [second] * 2, atol=1e-8)
    assert found == pytest.approx(risk, rel=1e-6)


@pytest.mark.parametrize(
    ("precision", "ordered", "bases", "values", "stddev"),
    [
        (
            0.01,
            False,
            (False, False),
            [0.24655261, 0.04306678, 0.01341354],
            [0.00978957, 0.00978129, 0.00901945],
        ),
        (
            0.01,
            True,
            (True, False),
            [0.24619831, 0.04323752, 0.01853419],
            [0.00801784, 0.00727727, 0.00558945],
        ),
        (
            0.0004,
            True,
            (False, False),
            [0.18466418, 0.08829537, 0.02975823],
            [0.01295803, 0.00932055, 0.00544466],
        ),
    ],
)
def test_a_pair(precision, ordered, bases, values, stddev):
    found = pair_target(COUNTS, precision, 1000.0, FIRST, SECOND, (ordered, False))
    assert found.bases == bases
    np.testing.assert_allclose(found.values[0], values, atol=1e-8)
    np.testing.assert_allclose(found.stddev[0], stddev, atol=1e-8)


def test_shrinkage_comes_nearer_to_the_truth():
    generator = np.random.default_rng(3)
    truth = np.outer(FIRST, SECOND) + 0.002 * np.outer(
        [1, -1, 1, -1, 1, -1], [1, -1, 0]
    )
    errors = []
    for _ in range(50):
        noisy = 1000 * truth + generator.normal(0, 20, truth.shape)
        found = pair_target(noisy, 1 / 400, 1000.0, FIRST, SECOND, (True, False))
        errors.append(
            [np.abs(found.values - truth).sum(), np.abs(noisy / 1000 - truth).sum()]
        )
    shrunk, raw = np.mean(errors, axis=0)
    assert shrunk < raw / 2


def test_chances_of_zero():
    counts = [[2, 40, 10], [270, 60, -8], [110, 70, 5], [50, -12, 8], [20, 60, 1]]
    noisy = np.array([*counts, [5, 21, -4]], float)
    found = zero_chances(noisy, 1000 * np.outer(FIRST, SECOND), 10.0)
    expected = [0.23285219, 0.00017778, 0.13233718, 0.0, 1e-08, 0.30153747]
    np.testing.assert_allclose(found.ravel()[:6], expected, atol=1e-8)
    np.testing.assert_allclose(
        found[-1], [0.18414124, 0.04980501, 0.35582122], atol=1e-8
    )
    assert zero_chances(noisy[:, :1], np.zeros((6, 1)), 10.0).tolist() == [[1.0]] * 6


def test_strength_of_a_pair():
    assert strength(np.outer(FIRST, SECOND), FIRST, SECOND) == 0
