"""Noise as large as it says, answers as near as they say.

Keys are fixed. Standard deviations of 20,000 draws are within 5 standard errors, 2.5 %:
false alarm 6e-7 each. Coverage: an interval of two deviations holds 95.4 % where noise
is Gaussian and alone; what each release promises is 95 % over queries and releases.
"""

import math

import jax
import numpy as np
import pytest

from dpkit.mechanisms.density import (
    KERNELS,
    CdfDistances,
    Gaussian,
    HatDistances,
    Kernel,
    KernelSketch,
    LandmarkSketch,
    Laplace,
    ProjectedDistances,
    Radial,
    SplineGrid,
    SquaredDistances,
)
from tests.oracles import density as oracle

DRAWS = 20_000
GAUSS = Kernel("gaussian", 1.0)


def slow_but(often, values):
    """All values as parameters; those not in `often` are slow."""
    return [
        pytest.param(
            value,
            marks=[] if value in often else pytest.mark.slow,
            id=getattr(value, "__name__", None) or str(value),
        )
        for value in values
    ]


def covered(structure, points, exact, *, releases=40, seed=0, queries=None):
    """The share of queries and releases whose error is within two deviations."""
    rng = np.random.default_rng(seed)
    d = structure.dimension
    queries = rng.uniform(0, 4, (60, d)) if queries is None else queries
    total = structure.total(points)
    truth = np.array([exact(query) for query in queries])
    tiled = np.broadcast_to(total, (releases, structure.size))
    values = structure.privatize(jax.random.key(seed), tiled)
    found = [structure.answers(row, queries) for row in values]
    inside = [
        np.abs(a.values - truth) <= 2 * a.stddev + a.bias_bound + 1e-9 for a in found
    ]
    return float(np.mean(inside))


def kernel_of(kernel, points):
    return lambda query: kernel.between(query[None], points).sum()


def noise_of(structure, seed=0, draws=DRAWS):
    """Releases of nothing, (draws, size)."""
    nothing = np.zeros((draws, structure.size), np.int64)
    return structure.privatize(jax.random.key(seed), nothing)


def close(found, expected, draws=DRAWS):
    """A standard deviation within 5 standard errors of normal draws."""
    assert found == pytest.approx(expected, rel=5 / math.sqrt(2 * draws))


@pytest.mark.parametrize("noise", [Gaussian(4.0), Radial(0.5), Laplace(0.5)])
def test_noise_of_a_sketch(noise):
    """sigma, sqrt(m + 1) / epsilon, sqrt(2 m) / epsilon, times what the count costs."""
    sketch = KernelSketch.draw(GAUSS, 2, features=16, noise=noise)
    query = np.array([[0.3, -0.7]])
    waves = np.append(oracle.waves(query[0], sketch.frequencies.array), 0.0)
    found = noise_of(sketch) @ waves / math.sqrt(sketch.count)
    m, beside = 16, math.sqrt(1 + 0.1**2)
    expected = {
        Gaussian: 4.0 * beside,
        Radial: math.sqrt(m + 2) / 0.5 * beside,
        # in L1 a pair is sqrt(2), and the count's weight .1 sqrt(p)
        Laplace: math.sqrt(2) * (math.sqrt(m) + 0.1) / 0.5,
    }[type(noise)]
    close(found.std(), expected)
    close(sketch.stddev / math.sqrt(sketch.count), expected)
    assert abs(found.mean()) < 5 * expected / math.sqrt(DRAWS)


def test_length_of_radial_noise():
    """Gamma(m, reach / epsilon): mean m reach / epsilon, deviation sqrt(m)."""
    moments = SquaredDistances(radius=1.0, dimension=6, noise=Radial(0.7))
    drawn = noise_of(moments)
    lengths, scale = np.linalg.norm(drawn, axis=1), moments.reach.l2 / 0.7
    assert lengths.mean() == pytest.approx(
        8 * scale, abs=5 * scale * math.sqrt(8 / DRAWS)
    )
    close(lengths.std(), math.sqrt(8) * scale, draws=DRAWS // 2)
    # Directions: every entry alike, none leaning on another.
    unit = drawn / lengths[:, None]
    np.testing.assert_allclose(unit.T @ unit / DRAWS, np.eye(8) / 8, atol=0.01)


def test_noise_of_hats_at_a_query():
    hats = HatDistances(domain=((0, 1),), levels=6, noise=Laplace(1.0))
    by_level = np.repeat(np.arange(7), [2, 1, 2, 4, 8, 16, 32])
    coefficients = oracle.hat_coefficients(0.3, 6) / hats.weights[0][by_level]
    found = noise_of(hats) @ coefficients
    expected = oracle.hat_stddev(0.3, oracle.hat_scales(6))
    # Laplace has kurtosis 6: of a sum of a few, standard errors up to 1.6 times these
    assert found.std() == pytest.approx(expected, rel=0.04)
    told = hats.answers(np.zeros(hats.size), [[0.3]]).stddev[0]
    assert told == pytest.approx(expected * hats.bar / hats.stddev, rel=1e-3)


@pytest.mark.parametrize("dimension", slow_but([1], [1, 3]))
def test_noise_of_distribution_functions_is_that_of_one_query(dimension):
    """sigma d R, whatever the number of cells."""
    for cells in (16, 256):
        cdf = CdfDistances(
            domain=((0, 2),) * dimension, cells=cells, noise=Gaussian(5.0)
        )
        found = noise_of(cdf, draws=2_000)
        # Far from zero, where answers are cut.
        shift = cdf.total(np.full((10_000, dimension), 0.5)) * cdf.step
        query = [[1.0] * dimension]
        answers = [cdf.answers(row + shift, query).values[0] for row in found]
        expected = 5.0 * 2 * dimension
        close(np.std(answers), expected, draws=2_000)
        told = cdf.answers(shift, query).stddev[0]
        assert told == pytest.approx(expected, rel=0.04)


def test_noise_at_a_landmark():
    where = np.array([[0.0], [0.3], [0.6], [3.0]])
    sketch = LandmarkSketch(
        kernel=GAUSS, landmarks=where, landmarks_public=True, noise=Gaussian(4.0)
    )
    drawn = noise_of(sketch)
    gram = np.exp(-((where - where.T) ** 2)) + 1e-4 * np.eye(4)
    found = np.cov(drawn[:, :4].T) / sketch.stddev**2
    np.testing.assert_allclose(found, gram, atol=5 * math.sqrt(2 / DRAWS))
    told = sketch.answers(drawn[0], where).stddev
    np.testing.assert_allclose(told, 4.0 * math.sqrt(1 + 0.01), rtol=2e-3)


# Coverage.


def uniform(rng, count, d):
    return rng.uniform(0, 4, (count, d))


def bumps(rng, count, d):
    middle = rng.choice([1.0, 2.8], (count, 1))
    return (middle + 0.4 * rng.normal(size=(count, d))).clip(0, 4)


def between_nodes(rng, count, d):
    """All at one spot, half way between nodes at half a bandwidth a step."""
    del rng
    return np.full((count, d), 2.25)


def whole_numbers(rng, count, d):
    return rng.integers(0, 5, (count, d)).astype(float)


DATA = (uniform, bumps, between_nodes, whole_numbers)

NOISES = [Gaussian(4.2), Radial(1.0), Laplace(1.0)]
# Two deviations of one Laplace entry hold 1 - exp(-2 sqrt(2)) = 94.1 %, of several
# together more; of radial noise in four dimensions 95.0 %, of Gaussian noise 95.4 %.
# Releases err as a whole: 1,000 of them tell the share to .7 %.
some_data = pytest.mark.parametrize("data", slow_but([bumps], DATA))
some_noises = pytest.mark.parametrize("noise", slow_but(NOISES[:1], NOISES))


@pytest.mark.parametrize("data", slow_but([between_nodes], DATA))
@pytest.mark.parametrize("spacing", slow_but([0.8], [0.5, 0.8]))
@pytest.mark.parametrize("noise", slow_but(NOISES, [NOISES[0], NOISES[2]]))
@pytest.mark.parametrize("name", slow_but(["gaussian"], ["gaussian", "cauchy"]))
def test_coverage_of_splines(name, noise, spacing, data):
    kernel = Kernel(name, 1.0)
    points = data(np.random.default_rng(1), 20_000, 1)
    grid = SplineGrid(kernel=kernel, domain=((0, 4),), spacing=spacing, noise=noise)
    assert covered(grid, points, kernel_of(kernel, points)) >= 0.95


@pytest.mark.parametrize("name", slow_but(["exponential"], KERNELS))
def test_coverage_of_splines_in_the_plane(name):
    """Kernels with a cusp too: their bias is large, and told."""
    kernel = Kernel(name, 1.0)
    points = between_nodes(None, 3_000, 2)
    points[::2] = bumps(np.random.default_rng(1), 1_500, 2)
    grid = SplineGrid(kernel=kernel, domain=((0, 4), (0, 4)), noise=NOISES[0])
    share = covered(grid, points, kernel_of(kernel, points), releases=12)
    assert share >= 0.95


@some_data
@some_noises
@pytest.mark.parametrize("features", slow_but([512], [512, 8]))
def test_coverage_of_sketches(features, noise, data):
    """Over draws of frequencies: those of one draw err together."""
    shares = []
    points = data(np.random.default_rng(1), 3_000, 3)
    for seed in range(12 if features == 8 else 3):
        sketch = KernelSketch.draw(
            GAUSS, 3, features=features, noise=noise, feature_seed=seed
        )
        shares.append(covered(sketch, points, kernel_of(GAUSS, points), releases=4))
    assert np.mean(shares) >= 0.94, shares  # of three draws, which err together


@some_data
@pytest.mark.parametrize("noise", slow_but(NOISES[:1], NOISES[:2]))
def test_coverage_of_landmarks(noise, data):
    """At landmarks, and at queries around them."""
    rng = np.random.default_rng(3)
    points, where = data(np.random.default_rng(1), 5_000, 2), uniform(rng, 40, 2)
    sketch = LandmarkSketch(
        kernel=GAUSS, landmarks=where, landmarks_public=True, noise=noise
    )
    exact = kernel_of(GAUSS, points)
    assert covered(sketch, points, exact, queries=where, releases=200) >= 0.95
    assert covered(sketch, points, exact) >= 0.95


@some_data
@pytest.mark.parametrize("power", [1.0, 1.4])
@pytest.mark.parametrize("levels", slow_but([2], [2, 8]))
def test_coverage_of_hats(levels, power, data):
    points = data(np.random.default_rng(1), 5_000, 2)
    hats = HatDistances(
        domain=((0, 4), (0, 4)), levels=levels, power=power, noise=NOISES[2]
    )

    def exact(query):
        return (np.abs(points - query) ** power).sum()

    assert covered(hats, points, exact) >= 0.95


def test_bias_of_hats_within_a_leaf():
    """Points at the query itself, a quarter into its leaf: chords err by 3/8 of it."""
    hats = HatDistances(domain=((0, 1),), levels=2, noise=Laplace(1000.0))
    where = np.array([[1 / 16]])
    total = hats.total(np.repeat(where, 4_000, axis=0)) * hats.step
    found = hats.answers(total, where)
    assert found.values[0] == pytest.approx(4_000 * 3 / 32, rel=1e-3)
    assert found.values[0] <= found.bias_bound[0] * (1 + 1e-6)


@some_data
@pytest.mark.parametrize("cells", slow_but([4], [4, 512]))
def test_coverage_of_distribution_functions(cells, data):
    points = data(np.random.default_rng(1), 5_000, 2)
    cdf = CdfDistances(domain=((0, 4), (0, 4)), cells=cells, noise=NOISES[0])
    assert covered(cdf, points, lambda y: np.abs(points - y).sum()) >= 0.95


@some_data
@some_noises
def test_coverage_of_moments(noise, data):
    points = data(np.random.default_rng(1), 5_000, 2)
    moments = SquaredDistances(radius=4.0, dimension=2, centre=(2.0, 2.0), noise=noise)
    share = covered(
        moments, points, lambda y: ((points - y) ** 2).sum(), releases=1_000
    )
    assert share >= 0.95


@some_data
@pytest.mark.parametrize("noise", slow_but(NOISES[:1], [NOISES[0], NOISES[2]]))
@pytest.mark.parametrize("dimension", slow_but([20], [2, 20]))
def test_coverage_of_projections(dimension, noise, data):
    """Over draws of directions, as for sketches."""
    points = data(np.random.default_rng(1), 2_000, dimension)
    shares = []
    for seed in range(4):
        far = ProjectedDistances.draw(
            dimension,
            radius=2 * math.sqrt(dimension),
            count=80,
            cells=256,
            levels=8,
            centre=(2.0,) * dimension,
            noise=noise,
            feature_seed=seed,
        )
        shares.append(
            covered(
                far,
                points,
                lambda y: np.linalg.norm(points - y, axis=1).sum(),
                releases=4,
            )
        )
    assert np.mean(shares) >= 0.95, shares


@pytest.mark.slow
def test_counts():
    rng = np.random.default_rng(0)
    points, weights = uniform(rng, 5_000, 2), rng.uniform(0, 3, 5_000)
    for structure in (
        KernelSketch.draw(GAUSS, 2, features=32, noise=NOISES[0], max_weight=2.0),
        SplineGrid(kernel=GAUSS, domain=((0, 4),) * 2, noise=NOISES[0], max_weight=2.0),
        HatDistances(domain=((0, 4), (0, 1)), noise=NOISES[2], max_weight=2.0),
        CdfDistances(domain=((0, 4), (0, 1)), noise=NOISES[0], max_weight=2.0),
        SquaredDistances(radius=6.0, dimension=2, noise=NOISES[0], max_weight=2.0),
        ProjectedDistances.draw(
            2, radius=6.0, count=8, noise=NOISES[0], max_weight=2.0
        ),
        LandmarkSketch(
            kernel=GAUSS,
            landmarks=points[:5],
            landmarks_public=True,
            noise=NOISES[0],
            max_weight=2.0,
        ),
    ):
        total = structure.total({"points": points, "weights": weights})
        silent = structure.count_answer(total * structure.step)
        truth = np.minimum(weights, 2).sum()
        name = type(structure).__name__
        assert silent.values[0] == pytest.approx(truth, rel=1e-4), name
        tiled = np.broadcast_to(total, (4_000, structure.size))[: 2**22 // total.size]
        noisy = structure.privatize(jax.random.key(1), tiled)
        found = [structure.count_answer(row).values[0] for row in noisy]
        assert np.std(found) == pytest.approx(
            silent.stddev[0], rel=6 / math.sqrt(2 * len(found)) + 0.02
        ), name


@pytest.mark.parametrize(("dimension", "features"), [(2, 512), (10, 512), (10, 100)])
def test_an_answer_and_its_deviation_are_those_of_blocks(dimension, features):
    """In float64; of 100 features too few blocks are there, and each stands alone."""
    sketch = KernelSketch.draw(
        Kernel("gaussian", 1.5), dimension, features=features, noise=Gaussian(2.0)
    )
    draws = np.random.default_rng(5)
    values, queries = (
        draws.normal(size=sketch.size) * 50,
        draws.normal(size=(7, dimension)),
    )
    count, found = features // 2, sketch.answer(values, queries)
    angles = queries / 1.5 @ sketch.frequencies.array.T
    single = np.cos(angles) * values[:count] + np.sin(angles) * values[count:-1]
    block = dimension if count // dimension >= 16 else 1
    groups = count // block
    means = np.stack(
        [single[:, g * block :][:, :block].mean(axis=1) for g in range(groups)]
    )
    wanted = means.std(axis=0, ddof=1) / np.sqrt(groups) * student(groups)
    np.testing.assert_allclose(found.values, single.mean(axis=1), atol=1e-3)
    floor = sketch.stddev / np.sqrt(count)
    np.testing.assert_allclose(found.stddev, np.maximum(wanted, floor), rtol=1e-3)


def student(groups):
    return np.sqrt((groups - 1) / (groups - 3))
