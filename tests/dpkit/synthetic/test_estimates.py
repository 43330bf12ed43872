"""Least squares over everything measured, against a dense solver."""

import itertools

import numpy as np
import pytest

from dpkit.synthetic.estimates import Estimate, merged, on_simplex
from dpkit.synthetic.recipe import Measurement

SIZES = (2, 3, 2)
SINGLES = {
    (0,): ([61.0, 38.0], 0.01),
    (1,): ([50.0, 31.0, 22.0], 0.02),
    (2,): ([70.0, 33.0], 0.01),
}
PAIRS = {
    (0, 1): ([[40.0, 15.0, 9.0], [11.0, 14.0, 12.0]], 0.004),
    (0, 2): ([[50.0, 12.0], [19.0, 18.0]], 0.006),
    (1, 2): ([[33.0, 16.0], [25.0, 4.0], [11.0, 12.0]], 0.002),
}


def measured():
    """Three singles and three pairs."""
    return merged(
        Measurement(columns, np.array(values), precision**-0.5)
        for columns, (values, precision) in (SINGLES | PAIRS).items()
    )


def dense():
    """The same by weighted least squares over all twelve cells."""
    cells = list(itertools.product(*map(range, SIZES)))
    rows, targets, weights = [], [], []
    for columns, (values, precision) in (SINGLES | PAIRS).items():
        for index, value in np.ndenumerate(np.array(values)):
            rows.append([tuple(c[j] for j in columns) == index for c in cells])
            targets.append(value * precision**0.5)
            weights.append(precision**0.5)
    matrix = np.array(rows, float) * np.array(weights)[:, None]
    found = np.linalg.lstsq(matrix, np.array(targets), rcond=None)[0]
    return cells, found


def test_singles_are_the_least_squares_of_everything():
    estimate = Estimate.of(SIZES, measured())
    cells, found = dense()
    assert estimate.records == pytest.approx(found.sum(), abs=1e-8)
    assert estimate.records == pytest.approx(101.53913043, abs=1e-8)
    for column, counts in enumerate(estimate.counts):
        whole = np.zeros(SIZES[column])
        np.add.at(whole, [cell[column] for cell in cells], found)
        np.testing.assert_allclose(counts, whole, atol=1e-8)
    np.testing.assert_allclose(
        estimate.precisions, [0.01433333, 0.023, 0.01366667], atol=1e-8
    )
    np.testing.assert_allclose(
        estimate.counts[1], [49.64347826, 30.33913043, 21.55652174], atol=1e-8
    )


def test_an_exact_total_is_kept():
    exact = Measurement((0,), np.array([60.0, 40.0]), 0.0)
    whole = merged([exact, Measurement((0,), np.array([80.0, 10.0]), 3.0)])
    assert whole[(0,)].stddev == 0
    np.testing.assert_allclose(whole[(0,)].values, [60, 40], atol=1e-8)


@pytest.mark.parametrize(
    ("values", "nearest"),
    [([0.6, 0.5, -0.2, 0.05], [0.55, 0.45, 0, 0]), ([-1.0, -2.0, -3.0], [1, 0, 0])],
)
def test_the_nearest_distribution(values, nearest):
    np.testing.assert_allclose(on_simplex(np.array(values)), nearest, atol=1e-12)
