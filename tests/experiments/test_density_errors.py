"""The baselines' errors on the synthetic data are those measured before.

Each reference is a root mean square over uniform queries (the mixture's own draws for
`LSQ_RFF`, and there of the mean, not the sum) by other code, on other draws. Seeds are
fixed. With other noise, the mean square over the runs here has the relative deviation
in the comment (measured over 200 runs, 12 for `LSQ_RFF`): every band is five of those
wide on either side, so that other seeds would fail with some 1e-6 each.
"""

import numpy as np
import pytest

from experiments import density_data
from experiments.baselines.distance_trees import ShellTree, SumTree
from experiments.baselines.hermite_cells import LSQ_FGT
from experiments.baselines.phase_features import LSQ_RFF
from experiments.baselines.release import gaussian_sums, l1_sums, root_mean_square


def rng(*seed):
    return np.random.default_rng(seed)


def error(baseline, points, queries, truth, runs):
    answers = [baseline.fit(points, rng(s, 2)).query(queries) for s in range(runs)]
    return root_mean_square(np.array(answers) - truth)


@pytest.mark.parametrize(
    ("baseline", "reference", "found"),
    [
        (ShellTree(1, 1.0, 14, 0.3, 1.0), 119, 121.6),  # 0.05
        (SumTree(1, 1.0, 14, 1.0), 177, 170.7),  # 0.05
    ],
)
def test_distances(baseline, reference, found):
    points = density_data.skewed(20_000, 1, rng(0, 0))
    queries = rng(0, 1).uniform(0, 1, (300, 1))
    measured = error(baseline, points, queries, l1_sums(points, queries), runs=20)
    assert measured == pytest.approx(found, rel=0.15)
    assert measured == pytest.approx(reference, rel=0.25)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dim", "order", "runs", "reference", "found", "within"),
    [
        (1, 10, 60, 5.4, 5.9, 0.22),  # 0.075
        (2, 8, 10, 23.0, 24.0, 0.15),  # 0.05
        (2, 4, 10, 193, 147, 0.05),  # 0.01; almost all of it is the series
    ],
)
def test_hermite_cells(dim, order, runs, reference, found, within):
    points = density_data.bumps(100_000, dim, rng(0, 0))
    queries = rng(0, 1).uniform(0, density_data.SIDE, (300, dim))
    baseline = LSQ_FGT(dim, density_data.SIDE, order, 1.0)
    truth = gaussian_sums(points, queries)
    measured = error(baseline, points, queries, truth, runs)
    assert measured == pytest.approx(found, rel=within)
    assert measured == pytest.approx(reference, rel=0.3)


@pytest.mark.slow
def test_phase_features():
    """A tenth of the records at ten times epsilon: the same error of the mean."""
    n, errors = 10_000, []
    for s in range(6):
        mixture = density_data.Mixture.drawn(16, rng(s, 9))
        points, queries = mixture.points(n, rng(s, 0)), mixture.points(200, rng(s, 1))
        found = LSQ_RFF(16, 4096, 10.0, s).fit(points, rng(s, 2)).query(queries)
        errors.append((found - gaussian_sums(points, queries)) / n)
    assert root_mean_square(np.array(errors)) == pytest.approx(5.4e-3, rel=0.5)  # 0.14
