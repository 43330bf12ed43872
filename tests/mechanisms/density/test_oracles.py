"""Without noise, structures say what slow code says, and what the papers' sums are."""

import math

import numpy as np
import pytest

from dpkit.accountants import Relation
from dpkit.density.choice import noise_multiplier
from dpkit.mechanisms.density import (
    KERNELS,
    CdfDistances,
    ClassSums,
    Gaussian,
    HatDistances,
    Kernel,
    KernelSketch,
    LandmarkSketch,
    Laplace,
    ProjectedDistances,
    SplineGrid,
    SquaredDistances,
)
from dpkit.mechanisms.density.spline import nodes_of
from tests.oracles import density as oracle

# Points, a query, and figures that were found with other code, by hand in part.
X = np.array([[0.0, 0.0], [1.0, 2.0], [-1.0, 0.5]])
Y = np.array([[0.5, -0.25]])
NOISE = Gaussian(2.0)
GAUSS = Kernel("gaussian", 1.0)
KERNEL_SUMS = {"gaussian": 0.7965998842, "exponential": 0.8584654113}
KERNEL_SUMS["cauchy"] = 1.1826156855
DISTANCES = {("lp", 1): 5.75, ("l2", 1): 4.5409540918, ("l2", 2): 8.4375}


def silent(structure, points, **records):
    """What would be published without noise."""
    if records:
        return structure.total({"points": points, **records}) * structure.step
    return structure.total(points) * structure.step


def asked(structure, points=X, queries=Y):
    """Answers without noise."""
    return structure.answers(silent(structure, points), queries).values


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_by_their_definition(name):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(4, 3)), rng.normal(size=(5, 3))
    found = Kernel(name, 0.7).between(a, b)
    expected = [[oracle.kernel(name, x, y, 0.7) for y in b] for x in a]
    np.testing.assert_allclose(found, expected, rtol=1e-13)
    steps = (a[:, None] - b) / 0.7
    np.testing.assert_allclose(Kernel(name, 0.7).of(steps), expected, rtol=1e-13)
    rows = Kernel(name, 0.7).rows(
        (a / 0.7).astype(np.float32), (b / 0.7).astype(np.float32)
    )
    np.testing.assert_allclose(rows, expected, rtol=4e-6)


@pytest.mark.parametrize(("name", "expected"), KERNEL_SUMS.items())
def test_exact_sums_of_kernels(name, expected):
    assert oracle.kernel_sum(name, X, Y[0]) == pytest.approx(expected, abs=1e-10)
    found = Kernel(name, 1.0).between(Y, X).sum()
    assert found == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(("kind", "expected"), DISTANCES.items())
def test_exact_sums_of_distances(kind, expected):
    found = oracle.distance_sum(X, Y[0], kind[1], kind[0])
    assert found == pytest.approx(expected, abs=1e-10)


# (epsilon, delta): the noise multiplier of one exactly calibrated Gaussian
CALIBRATED = {
    (1.0, 1e-6): 4.22467889,
    (0.1, 1e-6): 36.30469043,
    (1.0, 1e-5): 3.73063163,
    (2.0, 1e-5): 1.99381245,
    (0.5, 1e-6): 8.05761848,
}


@pytest.mark.parametrize(("budget", "expected"), CALIBRATED.items())
def test_noise_of_one_gaussian_release(budget, expected):
    assert oracle.gaussian_noise(*budget) == pytest.approx(expected, abs=2e-8)
    found = noise_multiplier(*budget, Relation.ADD_REMOVE)
    # Never below the truth, and hardly above it.
    assert expected * (1 - 1e-9) <= found <= expected * (1 + 1e-5)
    replaced = noise_multiplier(*budget, Relation.REPLACE_ONE)
    assert replaced == pytest.approx(2 * found, rel=1e-5)


# kernel: E cos(w . (.6, -.3, .4)), the kernel itself
MOMENTS = {
    "gaussian": 0.54335087,
    "exponential": 0.45793640,
    "laplacian": 0.27253179,
    "cauchy": 0.62111801,
    "rational": 0.56147444,
    "rational_l1": 0.43478261,
}


@pytest.mark.parametrize("orthogonal", [False, True])
@pytest.mark.parametrize(("name", "expected"), MOMENTS.items())
def test_frequencies_average_to_their_kernel(name, expected, orthogonal):
    """Five standard errors: false alarm 6e-7 each."""
    delta, kernel = np.array([0.6, -0.3, 0.4]), Kernel(name, 1.0)
    assert oracle.kernel(name, delta, [0, 0, 0]) == pytest.approx(expected, abs=1e-8)
    if orthogonal and not kernel.turns:
        with pytest.raises(ValueError, match="orthogonal"):
            kernel.frequencies(3, 3, seed=0, orthogonal=True)
        return
    count = 300_000
    found = np.cos(kernel.frequencies(count, 3, 5, orthogonal=orthogonal) @ delta)
    if orthogonal:  # blocks are independent, directions within one are not
        found = found.reshape(-1, 3).mean(axis=1)
    error = found.std() / math.sqrt(len(found))
    assert abs(found.mean() - expected) < 5 * error < 0.01


def test_waves_of_two_frequencies():
    frequencies = [[1.0, 0.5], [-0.5, 2.0]]
    sketch = KernelSketch(kernel=GAUSS, frequencies=frequencies, noise=NOISE)
    sums = silent(sketch, X)[:-1]
    expected = sum(oracle.waves(x, frequencies) for x in X)
    paper = [0.930228692, 0.0949506623, 0.1609789871, 0.4572942702]
    np.testing.assert_allclose(expected, paper, atol=2e-9)
    np.testing.assert_allclose(sums, expected * math.sqrt(2), atol=2e-5)
    answer = expected @ oracle.waves(Y[0], frequencies)
    assert answer == pytest.approx(0.48246738, abs=1e-8)
    assert asked(sketch)[0] == pytest.approx(answer, abs=1e-5)
    assert sketch.count_answer(silent(sketch, X)).values == pytest.approx(3, abs=1e-4)


U = [[0.0, 0.0], [0.5, 0.5], [-1.0, 1.0]]


def test_landmarks_without_jitter():
    norms = [(oracle.landmark_features(x, U, "gaussian", 0) ** 2).sum() for x in X]
    assert norms == pytest.approx([1, 0.00970429, 0.64733774], abs=1e-8)
    at_query = oracle.landmark_features(Y[0], U, "gaussian", 0)
    assert (at_query**2).sum() == pytest.approx(0.56641821, abs=1e-8)
    sums = sum(oracle.landmark_features(x, U, "gaussian", 0) for x in X)
    assert sums @ at_query == pytest.approx(0.8896336096, abs=1e-9)
    sketch = LandmarkSketch(
        kernel=GAUSS, landmarks=U, landmarks_public=True, jitter=1e-8, noise=NOISE
    )
    assert asked(sketch)[0] == pytest.approx(0.8896336096, abs=1e-5)
    unreliable = sketch.reliability(Y)[0]
    assert unreliable == pytest.approx(1 - 0.56641821, abs=1e-5)


def test_landmarks_with_jitter():
    sketch = LandmarkSketch(
        kernel=GAUSS, landmarks=U, landmarks_public=True, jitter=0.1, noise=NOISE
    )
    sums = sum(oracle.landmark_features(x, U, "gaussian", 0.1) for x in X)
    expected = sums @ oracle.landmark_features(Y[0], U, "gaussian", 0.1)
    assert asked(sketch)[0] == pytest.approx(expected, abs=1e-5)
    exact = [oracle.kernel_sum("gaussian", X, u) for u in U]
    np.testing.assert_allclose(asked(sketch, X, np.array(U)), exact, atol=1e-5)


def line(**options):
    """Coordinate 0 on [-2, 2]."""
    return {"domain": ((-2.0, 2.0),), "noise": NOISE, **options}


def test_hats_of_one_coordinate():
    hats = HatDistances(**line(levels=3, noise=Laplace(1.0)))
    own = silent(hats, X[:, :1])
    by_level = np.array([0, 0, 1, 2, 2, 3, 3, 3, 3])
    features = own / hats.weights[0][by_level]
    expected = sum(oracle.hat_features(u, 3) for u in (0.5, 0.75, 0.25))
    np.testing.assert_allclose(expected, [1.5, 1.5, 2, 1, 1, 0, 0, 0, 0])
    np.testing.assert_allclose(features, expected, atol=1e-4)
    query = np.array([[0.5]])
    assert asked(hats, X[:, :1], query)[0] == pytest.approx(2.5, abs=1e-3)
    assert oracle.hat_coefficients(0.625, 3) @ expected * 4 == pytest.approx(2.5)


@pytest.mark.parametrize("power", [1.0, 1.3, 1.9])
def test_hats_of_powers(power):
    rng = np.random.default_rng(1)
    points, queries = rng.uniform(-1, 1, (9, 2)), rng.uniform(-1, 1, (4, 2))
    hats = HatDistances(
        domain=((-1, 1), (-1, 1)), levels=6, power=power, noise=Laplace(1.0)
    )
    found = hats.answers(silent(hats, points), queries)
    expected = np.zeros(4)
    for axis in (0, 1):
        u, v = (points[:, axis] + 1) / 2, (queries[:, axis] + 1) / 2
        sums = sum(oracle.hat_features(x, 6) for x in u)
        expected += [oracle.hat_coefficients(y, 6, power) @ sums * 2**power for y in v]
    np.testing.assert_allclose(found.values, expected, atol=2e-3)
    exact = [oracle.distance_sum(points, y, power, "lp") for y in queries]
    assert (np.abs(expected - exact) <= found.bias_bound + 1e-9).all()


# S of infinitely many levels, and the deviation at .3 that goes with it
ALL_LEVELS, AT_POINT_THREE = 2.7024143, 4.338046


def test_noise_of_hats_is_shared_over_the_levels_there_are():
    """Ours sum to epsilon over L levels; with all levels' sum they would be quieter."""
    levels = 10
    assert 1 + 1 / (4 ** (1 / 3) - 1) == pytest.approx(ALL_LEVELS, abs=1e-7)
    scales = oracle.hat_scales(levels)
    ratio = scales[0] / ALL_LEVELS
    paper = oracle.hat_stddev(0.3, scales / ratio)
    assert paper == pytest.approx(AT_POINT_THREE, abs=1e-6)
    hats = HatDistances(domain=((0, 1),), levels=levels, noise=Laplace(1.0))
    found = hats.answers(np.zeros(hats.size), [[0.3]]).stddev[0]
    wide = hats.bar / hats.stddev  # of Laplace noise, so that 95 of 100 are inside
    assert found == pytest.approx(AT_POINT_THREE * ratio * wide, rel=1e-3)
    assert found >= AT_POINT_THREE * ratio * (1 - 1e-6)  # rounding only adds
    assert (1 / scales).sum() == pytest.approx(1)
    for v in np.linspace(0, 1, 33):  # the bound that no number of levels passes
        assert oracle.hat_stddev(v, scales) <= math.sqrt(2 * scales[0] ** 3)


def test_distribution_function_of_one_coordinate():
    cdf = CdfDistances(**line(cells=8))
    own = silent(cdf, X[:, :1])
    expected = sum(oracle.sign_means(u, 8) for u in (0.5, 0.75, 0.25))
    np.testing.assert_allclose(expected, [3, 3, 1, 1, -1, -1, -3, -3])
    np.testing.assert_allclose(own[1:], expected, atol=1e-4)
    assert asked(cdf, X[:, :1], np.array([[0.5]]))[0] == pytest.approx(2.5, abs=1e-3)


def test_distances_in_the_plane():
    box = ((-4.0, 4.0), (-4.0, 4.0))
    hats = HatDistances(domain=box, levels=5, noise=Laplace(1.0))
    cdf = CdfDistances(domain=box, cells=32, noise=NOISE)
    for structure in (hats, cdf):  # the query is on both meshes
        assert asked(structure)[0] == pytest.approx(5.75, abs=2e-3)
        assert structure.answers(silent(structure, X), Y).bias_bound < 1e-6
    squared = SquaredDistances(radius=4.0, dimension=2, noise=NOISE)
    moments = silent(squared, X) * [1, 4 / math.sqrt(2), 4 / math.sqrt(2), 16]
    np.testing.assert_allclose(moments, [3, 0, 2.5, 6.25], atol=2e-4)
    assert asked(squared)[0] == pytest.approx(8.4375, abs=1e-3)
    far = ProjectedDistances.draw(2, radius=4.0, count=256, cells=512, noise=NOISE)
    # 128 right angles: within 5 deviations of a mean over them, .5 % each
    assert asked(far)[0] == pytest.approx(4.5409540918, rel=0.025)


SPLINE_3 = [0.036, 0.53866667, 0.58133333, 0.71333333, 0.70533333, 0.41466667]
SPLINE_3 += [0.01066667]
SPLINE_5 = [0.000648, 0.08349333, 0.48388, 0.61323467, 0.6778, 0.69229867]
SPLINE_5 += [0.40425333, 0.04430667, 0.00008533]


@pytest.mark.parametrize(
    ("degree", "weights", "answer"),
    [(3, SPLINE_3, 2.00234781), (5, SPLINE_5, 2.00232904)],
)
def test_splines_of_three_points(degree, weights, answer):
    points, query = np.array([0.2, 1, 1.7]), np.array([[0.6]])
    grid = SplineGrid(kernel=GAUSS, domain=((0, 2),), degree=degree, noise=NOISE)
    nodes = nodes_of(grid)[0]
    assert nodes[0] == -0.5 * (degree // 2)
    expected = oracle.spline_weights(points, nodes, 0.5, degree)
    np.testing.assert_allclose(expected[: len(weights)], weights, atol=1e-8)
    own = silent(grid, points[:, None])
    np.testing.assert_allclose(own, expected, atol=1e-5)
    solved = oracle.spline_coefficients(
        "gaussian", 0.6, 0.0, 0.5, grid.first, grid.size, degree
    )
    np.testing.assert_allclose(grid.coefficients(query)[0][0], solved, atol=1e-8)
    assert solved @ expected == pytest.approx(answer, abs=1e-8)
    assert asked(grid, points[:, None], query)[0] == pytest.approx(answer, abs=1e-5)
    exact = oracle.kernel_sum("gaussian", points[:, None], query[0])
    assert exact == pytest.approx(2.00248486, abs=1e-8)
    found = grid.answers(own, query)
    assert abs(found.values[0] - exact) <= found.bias_bound[0] < 0.2


@pytest.mark.parametrize("degree", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", ["gaussian", "cauchy"])
def test_splines_of_every_degree_in_the_plane(degree, name):
    grid = SplineGrid(
        kernel=Kernel(name, 1.0), domain=((0, 1), (0, 2)), degree=degree, noise=NOISE
    )
    rng = np.random.default_rng(degree)
    points = rng.uniform(0, 1, (7, 2)) * [1, 2]
    first, second = (
        oracle.b_spline(degree, (points[:, j, None] - nodes) / 0.5)
        for j, nodes in enumerate(nodes_of(grid))
    )
    own = silent(grid, points).reshape(grid.shape)
    np.testing.assert_allclose(own, first.T @ second, atol=3e-5)
    query = np.array([[0.3, 1.4]])
    found = grid.answers(own.reshape(-1), query)
    exact = oracle.kernel_sum(name, points, query[0])
    assert abs(found.values[0] - exact) <= found.bias_bound[0] + 1e-5


# degree: the largest L2 norm of the weights around a point
NORMS = {1: 1.0, 2: 0.77055175, 3: 0.70710678, 4: 0.66114043, 5: 0.62970452}


@pytest.mark.parametrize(("degree", "norm"), NORMS.items())
def test_norms_of_splines(degree, norm):
    places = np.linspace(-0.5, 0.5, 2001)[:, None] - np.arange(-4, 5)
    weights = oracle.b_spline(degree, places)
    assert np.abs(weights.sum(axis=1) - 1).max() < 1e-12
    assert weights.min() >= -1e-12
    assert np.linalg.norm(weights, axis=1).max() == pytest.approx(norm, abs=1e-8)
    grid = SplineGrid(kernel=GAUSS, domain=((0, 1),), degree=degree, noise=NOISE)
    assert grid.point_reach().l2 == pytest.approx(norm, abs=1e-8)
    square = SplineGrid(
        kernel=GAUSS, domain=((0, 1), (0, 1)), degree=degree, noise=NOISE
    )
    assert square.point_reach().l2 == pytest.approx(norm**2, abs=1e-8)


def test_tables_of_classes():
    points = np.array([[3.0, 4.0], [0.0, 2.0], [-5.0, 0.0], [1.0, 1.0]])
    labels, frequencies = np.array([0, 2, 2, 7]), [[1.0, 0.5], [-0.5, 2.0]]
    table = ClassSums(classes=3, dimension=2, noise=NOISE)
    sums, counts = table.table(silent(table, points, labels=labels))
    np.testing.assert_allclose(sums, [[0.6, 0.8], [0, 0], [-1, 1]], atol=1e-4)
    np.testing.assert_allclose(counts, [1, 0, 2], atol=1e-4)
    sketch = KernelSketch(kernel=GAUSS, frequencies=frequencies, noise=NOISE)
    table = ClassSums(classes=3, dimension=2, sketch=sketch, noise=NOISE)
    sums, _ = table.table(silent(table, points, labels=labels))
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    expected = np.zeros((3, 4))
    for x, label in zip(unit[:3], labels[:3], strict=True):
        expected[label] += oracle.waves(x, frequencies)
    np.testing.assert_allclose(sums, expected, atol=1e-4)
    query = np.array([[1.0, 0.0]])
    own = oracle.waves(query[0], frequencies)
    means = expected / np.array([[1], [1], [2]])
    scores = table.scores(silent(table, points, labels=labels), query)
    np.testing.assert_allclose(scores[0], means @ own, atol=1e-4)


def test_scores_by_the_mean_take_the_noise_off_its_length():
    table = ClassSums(classes=2, dimension=2, noise=NOISE)
    points, labels = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), np.array([0, 1, 1])
    values = silent(table, points, labels=labels)
    found = table.scores(values, [[1.0, 1.0]])[0]
    noise = 2 * table.stddev**2 * np.array([1, 1 / 4])
    half = 1 / math.sqrt(2) - (1 - noise) / 2
    np.testing.assert_allclose(found, half, atol=1e-3)
    few = table.scores(np.zeros(table.size), [[1.0, 1.0]], least_count=4.0)[0]
    np.testing.assert_allclose(few, table.stddev**2 / 16, rtol=1e-6)
