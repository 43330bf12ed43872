"""What is read off a released grid, beside what the records say, with its bands.

Bands of two deviations and a bias hold 95 % and more; keys are fixed.
"""

import math
from typing import Any

import jax
import numpy as np
import pytest
from scipy import stats
from sklearn.neighbors import KernelDensity

from dpkit.density import release, views
from dpkit.mechanisms.density import Kernel

RNG = np.random.default_rng(5)
SPOTS = np.repeat([[2.0], [2.25], [6.1]], [3_000, 3_000, 4_000], axis=0)
LINES = {
    "bumps": RNG.normal([[4.0]], 1.0, (10_000, 1)).clip(0, 9),
    "spots": SPOTS,
    "whole numbers": RNG.integers(0, 10, (10_000, 1)).astype(float),
    "edges": np.repeat([[0.0], [9.0]], 5_000, axis=0),
}
PLANE = np.stack([RNG.normal(3, 1, 8_000), RNG.uniform(0, 4, 8_000)], axis=1)
PLANE = PLANE.clip([0, 0], [9, 4])
on_lines = pytest.mark.parametrize("points", LINES.values(), ids=LINES.keys())


def made(points, seed=0, **settings):
    d = points.shape[1]
    given: dict[str, Any] = {
        "bandwidth": 1.0,
        "domain": [(0, 9), (0, 4)][:d],
        "epsilon": 1.0,
    }
    given |= {"delta": 1e-6, "structure": "spline", "records": len(points)}
    return release(points, key=jax.random.key(seed), **(given | settings))


def inside(found, truth):
    """The share of answers whose bands hold the truth."""
    room = 2 * found.stddev + found.bias_bound
    return float((np.abs(found.values - truth) <= room + 1e-9).mean())


def again(out, points, count, seed=1):
    """The same release with noise of its own, so many times."""
    total = out.structure.total(points)
    tiled = np.broadcast_to(total, (count, len(total)))
    for values in out.structure.privatize(jax.random.key(seed), tiled):
        yield type(out)(out.structure, values, out.facts)


def over_seeds(view, points, truth, count=200, **settings):
    out = made(points, **settings)
    return np.mean([inside(view(o), truth) for o in again(out, points, count)])


@on_lines
@pytest.mark.parametrize("epsilon", [1.0, pytest.param(100.0, marks=pytest.mark.slow)])
def test_histograms(points, epsilon):
    edges = np.array([-1.0, 0.0, 1.0, 2.0, 2.1, 4.5, 6.0, 9.0, 11.0])
    truth = np.histogram(points[:, 0], edges)[0]
    # NumPy's last interval is closed on both sides, ours are (a, b] but for the first.
    below = np.array([(points[:, 0] <= e).sum() for e in edges])
    assert below[-1] == truth.sum()
    share = over_seeds(
        lambda out: views.histogram(out, edges),
        points,
        np.diff(below),
        epsilon=epsilon,
    )
    assert share >= 0.95
    out = made(points, epsilon=1e6)  # hardly any noise: all of it is bias
    assert inside(views.histogram(out, edges), np.diff(below)) == 1.0


@on_lines
def test_distribution_functions(points):
    places = np.linspace(-0.5, 9.5, 101)
    truth = (points[:, 0] <= places[:, None]).sum(axis=1)
    found = views.cdf(made(points), places)
    assert found.values[0] == 0 and found.stddev[0] == 0
    assert found.values[-1] == pytest.approx(made(points).count.values[0])
    share = over_seeds(lambda out: views.cdf(out, places), points, truth)
    assert share >= 0.95
    hardly_any = {"epsilon": 1e6, "count": 50}  # noise: what is left is bias
    share = over_seeds(lambda out: views.cdf(out, places), points, truth, **hardly_any)
    assert share >= 0.95
    middle = found.bias_bound[40:60]
    assert middle.max() < 0.75 * len(points)  # of who is around, not of all


@on_lines
def test_quantiles(points):
    parts = np.array([[0.1, 0.25], [0.5, 0.9]])
    truth = np.quantile(points[:, 0], parts, method="inverted_cdf")
    found = views.quantile(made(points), parts)
    assert found.values.shape == (2, 2)
    share = over_seeds(lambda out: views.quantile(out, parts), points, truth, count=40)
    assert share >= 0.95
    clear = views.quantile(made(points, epsilon=1e6), parts)
    assert inside(clear, truth) == 1.0
    assert (clear.stddev >= 0).all()
    assert np.median(clear.bias_bound) < 0.7


def test_maps():
    kernel = Kernel("gaussian", 1.0)

    def truths(x, y):
        first, second = (
            kernel.between(line[:, None], PLANE[:, [j]])
            for j, line in enumerate((x, y))
        )
        return first @ second.T

    out = made(PLANE)
    found = views.heat_map(out, size=16)
    assert found.x[[0, -1]].tolist() == [0, 9] and found.y[[0, -1]].tolist() == [0, 4]
    truth = truths(found.x, found.y)
    share = over_seeds(lambda o: views.heat_map(o, size=16).answers, PLANE, truth, 40)
    assert share >= 0.95
    turned = views.heat_map(out, (1, 0), size=16)
    straight = views.heat_map(out, size=16)
    for a, b in zip(turned.answers, straight.answers, strict=True):
        np.testing.assert_allclose(a.T, b, rtol=1e-9)
    at = np.array([[found.x[3], found.y[5]]])
    asked = out.query(at)
    for a, b in zip(straight.answers, asked, strict=True):
        assert a[3, 5] == pytest.approx(b[0], rel=1e-9)
    line = views.curve(out, axis=1, size=16)
    sums = kernel.between(line.x[:, None], PLANE[:, [1]]).sum(axis=1)
    share = over_seeds(
        lambda o: views.curve(o, axis=1, size=16).answers, PLANE, sums[:, None], 40
    )
    assert share >= 0.95
    coarse = made(PLANE, structure="spline", bandwidth=0.4, epsilon=1e6)
    clear = views.curve(coarse, axis=0, size=64)
    sums = Kernel("gaussian", 0.4).between(clear.x[:, None], PLANE[:, [0]]).sum(axis=1)
    assert inside(clear.answers, sums[:, None]) > 0.85


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["laplacian", "cauchy"])
def test_maps_of_other_kernels(kernel):
    out = made(PLANE, kernel=kernel, epsilon=1e5)
    if kernel == "cauchy":
        with pytest.raises(TypeError, match="no product over axes"):
            views.heat_map(out)
        return
    found = views.heat_map(out, size=8)
    first, second = (
        Kernel(kernel, 1.0).between(line[:, None], PLANE[:, [j]])
        for j, line in enumerate((found.x, found.y))
    )
    assert inside(found.answers, first @ second.T) == 1.0


def test_samples():
    """Of two means, a spread and a range; 20,000 draws, five standard errors."""
    out = made(LINES["bumps"], epsilon=8.0)
    drawn = out.sample(20_000, seed=3)
    assert drawn.shape == (20_000, 1)
    np.testing.assert_array_equal(drawn, out.sample(20_000, seed=3))
    assert (drawn != out.sample(20_000, seed=4)).any()
    assert drawn.min() >= 0 and drawn.max() <= 9
    # The spline spreads each point by sqrt((r + 1) / 12) steps, and drawing as much.
    spread = math.hypot(1.0, out.structure.unit)  # type: ignore[attr-defined]
    assert drawn.mean() == pytest.approx(4.0, abs=0.06)
    assert drawn.std() == pytest.approx(spread, rel=0.05)
    assert stats.kstest(drawn[:, 0], stats.norm(4, spread).cdf).statistic < 0.03
    plane = made(PLANE, epsilon=8.0).sample(5_000, seed=0)
    np.testing.assert_allclose(plane.mean(axis=0), PLANE.mean(axis=0), atol=0.15)
    assert (plane >= 0).all() and (plane <= [9, 4]).all()


def test_nothing_to_draw():
    out = made(LINES["bumps"])
    silent = type(out)(out.structure, np.zeros_like(out.values), out.facts)
    with pytest.raises(ValueError, match="nothing stands above"):
        silent.sample(3, seed=0)


@pytest.mark.parametrize(
    ("view", "said"),
    [
        (lambda out: views.histogram(out, [3.0]), "edges"),
        (lambda out: views.histogram(out, [3.0, 3.0]), "edges"),
        (lambda out: views.histogram(out, [3.0, math.nan]), "edges"),
        (lambda out: views.histogram(out, [[0.0, 1.0]]), "edges"),
        (lambda out: views.histogram(out, [0.0, 1.0], axis=1), "axis=1"),
        (lambda out: views.cdf(out, [1.0], axis=-1), "axis=-1"),
        (lambda out: views.cdf(out, [math.nan]), "places"),
        (lambda out: views.curve(out, axis=1), "axis=1"),
        (lambda out: views.quantile(out, [1.5]), "fractions"),
        (lambda out: views.quantile(out, [math.nan]), "fractions"),
        (lambda out: views.quantile(out, [0.5], axis=1), "axis=1"),
        (lambda out: views.heat_map(out), "axes"),
        (lambda out: views.heat_map(out, (0, 0)), "axes"),
        (lambda out: views.curve(out, size=1), "size"),
        (lambda out: out.sample(3, seed=-1), "seed"),
        (lambda out: views.cdf(out, 1.0), "places"),
        (lambda out: out.sample(-3, seed=1), "size"),
    ],
)
def test_what_can_not_be_asked(view, said):
    with pytest.raises((ValueError, TypeError), match=said):
        view(made(LINES["bumps"]))


def test_grids_alone_have_views():
    out = made(LINES["bumps"], structure="sketch", features=8)
    for view in (
        lambda: views.histogram(out, [0.0, 1.0]),
        lambda: views.cdf(out, [0.0]),
        lambda: views.quantile(out, [0.5]),
        lambda: views.heat_map(out),
        lambda: views.curve(out),
        lambda: out.sample(3, seed=0),
    ):
        with pytest.raises(TypeError, match="needed a spline grid"):
            view()


@pytest.mark.parametrize(
    ("kernel", "ours"), [("gaussian", math.sqrt(2)), ("exponential", 1.0)]
)
def test_log_densities_are_those_of_scikit_learn(kernel, ours):
    """At a large epsilon; their Gaussian is exp(-r^2 / 2 h^2)."""
    settings = {"kernel": kernel, "bandwidth": 0.7 * ours, "epsilon": 1e5}
    where = PLANE[:200]
    if kernel == "exponential":
        landmarks = {"landmarks": where, "landmarks_public": True}
        out = made(PLANE, structure=None, **landmarks, **settings)
    else:
        out = made(PLANE, **settings)
    found = out.score_samples(where)
    theirs = KernelDensity(kernel=kernel, bandwidth=0.7).fit(PLANE)
    np.testing.assert_allclose(found, theirs.score_samples(where), atol=0.02)
    assert not out.doubtful(where).any()


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["gaussian", "laplacian", "exponential"])
def test_densities_integrate_to_one(kernel):
    """Over a line that is long for all of them."""
    points = LINES["bumps"]
    out = made(
        points, kernel=kernel, domain=[(-60, 70)], epsilon=1e6, structure="spline"
    )
    x = np.linspace(-60, 70, 6_001)
    sums = Kernel(kernel, 1.0).between(x[:, None], points[:500]).sum(axis=1) / 500
    scale = np.exp(out.score_samples([[4.0]]))[0]
    exact = sums[np.argmin(np.abs(x - 4.0))] / np.trapezoid(sums, x)
    assert scale == pytest.approx(exact, rel=0.1)


def test_where_no_density_is_told():
    out = made(LINES["bumps"], epsilon=0.5)
    far, near = out.doubtful([[8.9], [4.0]])
    assert far and not near
    assert np.isfinite(out.score_samples([[8.9], [4.0]])).all()
    distances = made(LINES["bumps"], kernel="l1", bandwidth=None, structure=None)
    with pytest.raises(TypeError, match="needed a kernel"):
        distances.score_samples([[1.0]])
    with pytest.raises(TypeError, match="no finite integral"):
        made(LINES["bumps"], kernel="cauchy").score_samples([[1.0]])


def test_means_and_counts():
    points = LINES["bumps"]
    exact = Kernel("gaussian", 1.0).between(np.array([[4.0]]), points).mean()
    assert over_seeds(lambda o: o.mean([[4.0]]), points, exact) >= 0.93  # +- .015
    assert over_seeds(lambda o: o.count, points, 10_000) >= 0.93
    empty = made(points[:0], records=1).mean([[4.0]])
    assert np.isfinite(empty.values).all()


def test_public_settings():
    out = made(LINES["bumps"])
    params = out.get_params()
    assert params["kernel"] == Kernel("gaussian", 1.0)
    assert params["domain"] == ((0.0, 9.0),)
    assert "SplineGrid" in repr(out) and "epsilon" in repr(out)


@pytest.mark.parametrize(
    ("queries", "said"),
    [
        ([[math.nan]], "needed finite"),
        ([[math.inf]], "needed finite"),
        ([[1.0, 2.0]], "queries of shape"),
        ([1.0], "queries of shape"),
        ([["a"]], "needed real numbers"),
        ([[True]], "needed real numbers"),
    ],
)
def test_queries_that_are_none(queries, said):
    with pytest.raises((ValueError, TypeError), match=said):
        made(LINES["bumps"]).query(queries)


@pytest.mark.parametrize("kernel", ["l1", "l2", "l2_squared"])
@pytest.mark.parametrize("delta", [1e-6, pytest.param(0.0, marks=pytest.mark.slow)])
def test_distances_are_asked_within_the_domain(kernel, delta):
    settings = {"kernel": kernel, "bandwidth": None, "structure": None, "delta": delta}
    out = made(LINES["bumps"][:500], **settings)
    found = out.query([[0.0], [4.5], [9.0]])
    assert (found.values >= 0).all() and (found.stddev > 0).all()
    for outside in (-0.1, 9.1):
        with pytest.raises(ValueError, match="needed"):
            out.query([[outside]])
    assert out.query(np.zeros((0, 1))).values.shape == (0,)
