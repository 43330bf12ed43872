"""Factorisations: published numbers, every participation set, and what is best."""

import math
from typing import Any

import numpy as np
import pytest

from dpkit.mechanisms.factorisation import (
    Cyclic,
    MinSeparation,
    SinglePass,
    inverse_coefficients,
    matrix_sensitivity,
    prefix_error,
    sensitivity,
    square_root_coefficients,
    toeplitz_matrix,
)
from dpkit.mechanisms.strategies import (
    Banded,
    Buffered,
    SquareRoot,
    optimal_bands,
    optimal_buffers,
)
from tests.oracles import factorisation as oracle

ROOT = square_root_coefficients(8)


def test_square_root_coefficients():
    # (-1)^k binomial(-1/2, k), by hand.
    known = [1, 0.5, 0.375, 0.3125, 0.2734375, 0.24609375, 0.2255859375, 0.20947265625]
    assert ROOT.tolist() == known


def test_the_root_squared_is_the_triangle_of_ones():
    root = oracle.lower_toeplitz(square_root_coefficients(40), 40)
    np.testing.assert_allclose(root @ root, np.tril(np.ones((40, 40))), atol=1e-14)


# Eight steps; computed from dense matrices by maximising over all sets.
PUBLISHED = [
    (8, 1, 6.58847365),
    (8, 2, 3.57193287),
    (8, 4, 2.07358123),
    (8, 8, 1.31086966),
    (2, 2, 2.23606798),
    (2, 4, 1.58113883),
]


@pytest.mark.parametrize(("bands", "separation", "expected"), PUBLISHED)
def test_published_sensitivities(bands, separation, expected):
    for participation in (Cyclic(separation), MinSeparation(separation, 8)):
        found = sensitivity(ROOT[:bands], 8, participation)
        assert found == pytest.approx(expected, abs=1e-8)


FALLING = [(1.0,), (1.0, 0.5), (1.0, 1.0, 0.4), tuple(ROOT[:5]), tuple(ROOT)]
RISING = [(1.0, 0.2, 0.9), (1.0, 0.0, 0.7, 0.8), (1.0, -0.6), (1.0, -0.5, 0.8, -0.1)]
CASES = [
    (SinglePass(), oracle.single_pass(8)),
    (Cyclic(1), oracle.cyclic(8, 1)),
    (Cyclic(3), oracle.cyclic(8, 3)),
    (Cyclic(9), oracle.cyclic(8, 9)),
    (MinSeparation(1, 2), oracle.separated(8, 1, 2)),
    (MinSeparation(2, 3), oracle.separated(8, 2, 3)),
    (MinSeparation(3, 9), oracle.separated(8, 3, 9)),
]


@pytest.mark.parametrize(("participation", "sets"), CASES, ids=lambda x: str(x)[:24])
def test_sensitivity_is_the_worst_of_all_sets(participation, sets):
    for coefficients in FALLING:
        worst = oracle.sensitivity(oracle.lower_toeplitz(coefficients, 8), sets)
        assert sensitivity(coefficients, 8, participation) == pytest.approx(worst)


@pytest.mark.parametrize(("participation", "sets"), CASES, ids=lambda x: str(x)[:24])
def test_other_coefficients_and_matrices_are_bounded(participation, sets):
    rng = np.random.default_rng(0)
    matrices = [oracle.lower_toeplitz(c, 8) for c in RISING]
    matrices += [np.tril(rng.uniform(size=(8, 8))), rng.normal(size=(8, 8))]
    for matrix in matrices:
        worst = oracle.sensitivity(matrix, sets)
        bound = matrix_sensitivity(matrix, participation)
        assert worst * (1 - 1e-12) <= bound <= 2.5 * worst
        # Exact where only one order of sets is possible and no product is negative.
        if matrix.min() >= 0 and not isinstance(participation, MinSeparation):
            assert bound == pytest.approx(worst)
    for coefficients in RISING:
        worst = oracle.sensitivity(oracle.lower_toeplitz(coefficients, 8), sets)
        assert sensitivity(coefficients, 8, participation) >= worst * (1 - 1e-12)


def test_bands_within_the_separation_have_orthogonal_columns():
    # sqrt(k) times the largest column norm, whatever the signs.
    for coefficients in ((1.0, 0.3, 0.8), (1.0, -0.3, 0.8)):
        expected = math.sqrt(3) * np.linalg.norm(coefficients)
        for separation in (3, 4):
            found = sensitivity(coefficients, 12, MinSeparation(separation, 3))
            assert found == pytest.approx(expected)


def test_the_inverse_and_the_error_of_prefix_sums():
    for coefficients in (*FALLING, *RISING):
        matrix = oracle.lower_toeplitz(coefficients, 9)
        inverse = oracle.lower_toeplitz(inverse_coefficients(coefficients, 9), 9)
        np.testing.assert_allclose(inverse @ matrix, np.eye(9), atol=1e-12)
        np.testing.assert_array_equal(toeplitz_matrix(coefficients, 9), matrix)
        errors = oracle.prefix_errors(matrix)
        assert prefix_error(coefficients, 9, error="max") == pytest.approx(errors.max())
        mean = math.sqrt((errors**2).mean())
        assert prefix_error(coefficients, 9) == pytest.approx(mean)


def test_strategies_are_their_matrices():
    buffered = Buffered((0.9, 0.25), (0.25, 0.5))
    dense = oracle.buffered_matrix(buffered.decays, buffered.weights, 12)
    column = oracle.lower_toeplitz(buffered.coefficients(12), 12)
    np.testing.assert_allclose(column, dense, atol=1e-14)
    root = SquareRoot().coefficients(2000)
    np.testing.assert_allclose(root, square_root_coefficients(2000), rtol=1e-5)
    assert (np.diff(root) < 0).all()
    np.testing.assert_allclose(
        SquareRoot().inverse(8), inverse_coefficients(ROOT, 8), rtol=1e-6
    )


def test_numbers_are_those_that_the_device_can_hold():
    strategy = Buffered((0.1, 0.9), (0.1, 0.9))
    for number in (*strategy.decays, *strategy.weights, *Banded((1.0, 0.1)).bands):
        assert number == float(np.float32(number))
    assert sum(strategy.weights) <= 1


def cost(coefficients, steps, participation, error):
    """Error of prefix sums for noise that hides a record equally well."""
    scale = sensitivity(coefficients, steps, participation)
    return scale * prefix_error(coefficients, steps, error=error)


@pytest.mark.parametrize("error", ["mean", "max"])
@pytest.mark.parametrize(
    "participation", [SinglePass(), Cyclic(8), MinSeparation(5, 2)]
)
def test_optimal_bands_are_a_minimum(participation, error):
    best = np.array(optimal_bands(32, 6, participation, error=error).bands)
    least = cost(best, 32, participation, error)
    assert least <= cost(ROOT[:6], 32, participation, error)
    rng = np.random.default_rng(0)
    for _ in range(100):
        other = best * (1 + 0.02 * rng.normal(size=6))
        other = np.minimum.accumulate(np.maximum(other, 0) / other[0])
        assert cost(other, 32, participation, error) >= least * (1 - 1e-6)


def test_two_bands_are_found_by_search_too():
    grid = np.linspace(0, 1, 2001)
    best = min(cost([1.0, c], 16, Cyclic(2), "mean") for c in grid)
    found = optimal_bands(16, 2, Cyclic(2))
    assert cost(found.bands, 16, Cyclic(2), "mean") == pytest.approx(best, rel=1e-5)


def test_correlation_pays():
    # 16 epochs of 16 steps: independent noise has 3.4 times the error.
    participation = Cyclic(16)
    best = optimal_bands(256, 16, participation).bands
    plain = cost([1.0], 256, participation, "mean")
    assert cost(best, 256, participation, "mean") < plain / 3
    root = square_root_coefficients(16)
    assert cost(best, 256, participation, "mean") < cost(
        root, 256, participation, "mean"
    )


def test_buffers_come_near_the_best_for_a_single_pass():
    # In one pass the square root is the best Toeplitz matrix for the worst prefix.
    root = cost(square_root_coefficients(500), 500, SinglePass(), "max")
    ratios = []
    for buffers in (1, 2, 3, 4):
        strategy = optimal_buffers(500, buffers, SinglePass())
        found = cost(strategy.coefficients(500), 500, SinglePass(), "max")
        ratios.append(found / root)
    assert ratios == sorted(ratios, reverse=True)
    assert 1 - 1e-6 <= ratios[-1] < 1.001
    mean = optimal_buffers(500, 3, SinglePass(), error="mean").coefficients(500)
    assert cost(mean, 500, SinglePass(), "mean") < cost(
        square_root_coefficients(500), 500, SinglePass(), "mean"
    )


def test_the_worst_of_thousands_of_steps_is_quick():
    strategy = optimal_buffers(5000, 4, MinSeparation(100, 20))
    found = sensitivity(strategy.coefficients(5000), 5000, MinSeparation(100, 20))
    assert found > sensitivity(strategy.coefficients(5000), 5000, SinglePass())


@pytest.mark.slow
def test_agreement_with_jax_privacy():
    toeplitz = pytest.importorskip("jax_privacy.matrix_factorization.toeplitz")
    import jax

    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        with jax.numpy_dtype_promotion("standard"):
            theirs = toeplitz.optimal_max_error_strategy_coefs(64)
            np.testing.assert_allclose(theirs, square_root_coefficients(64), rtol=1e-6)
            for coefficients in (theirs[:8], theirs):
                squared = toeplitz.minsep_sensitivity_squared(
                    coefficients, min_sep=8, max_participations=5, n=64
                )
                ours = sensitivity(np.asarray(coefficients), 64, MinSeparation(8, 5))
                assert ours**2 == pytest.approx(float(squared), rel=1e-6)
            bands = toeplitz.optimize_banded_toeplitz(64, 8)
    ours = optimal_bands(64, 8, Cyclic(8)).bands
    one = cost(np.asarray(bands) / float(bands[0]), 64, Cyclic(8), "mean")
    assert cost(ours, 64, Cyclic(8), "mean") <= one * 1.001


@pytest.mark.parametrize(
    "make",
    [
        lambda: Cyclic(0),
        lambda: MinSeparation(0, 1),
        lambda: MinSeparation(1, 0),
        lambda: Banded(()),
        lambda: Banded((0.5, 0.5)),
        lambda: Banded((1.0, -0.1)),
        lambda: Banded((1.0, 0.1, 0.2)),
        lambda: Banded((1.0, math.nan)),
        lambda: Buffered((), ()),
        lambda: Buffered((0.5,), (0.5, 0.1)),
        lambda: Buffered((1.0,), (0.5,)),
        lambda: Buffered((0.5,), (0.0,)),
        lambda: Buffered((0.5, 0.6), (0.5, 0.6)),
        lambda: Buffered((1e-60,), (0.5,)),
        lambda: square_root_coefficients(0),
        lambda: sensitivity([1.0], 0, SinglePass()),
        lambda: sensitivity([2.0], 3, SinglePass()),
        lambda: sensitivity([], 3, SinglePass()),
        lambda: matrix_sensitivity(np.ones((2, 3)), SinglePass()),
        lambda: matrix_sensitivity(np.full((2, 2), math.inf), SinglePass()),
        lambda: prefix_error([1.0], 3, error="median"),
        lambda: optimal_bands(4, 5, SinglePass()),
        lambda: optimal_bands(4, 0, SinglePass()),
        lambda: optimal_buffers(1, 1, SinglePass()),
        lambda: optimal_buffers(9, 9, SinglePass()),
    ],
)
def test_bad_values_are_refused(make):
    with pytest.raises(ValueError, match=r"needed|must be"):
        make()


WRONG: Any = 2.5


@pytest.mark.parametrize(
    "make",
    [
        lambda: Cyclic(WRONG),
        lambda: MinSeparation(True, 1),
        lambda: sensitivity([1.0], 3, WRONG),
        lambda: matrix_sensitivity(np.eye(2), WRONG),
        lambda: optimal_bands(4, 2, WRONG),
    ],
)
def test_wrong_kinds_are_refused(make):
    with pytest.raises(TypeError):
        make()
