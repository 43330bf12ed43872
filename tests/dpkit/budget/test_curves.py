"""Curves against closed forms of the Gaussian, and the words of an attacker's gain."""

import math
from statistics import NormalDist
from typing import Any

import pytest

from dpkit.accountants import attack_risk
from dpkit.budget import curves
from dpkit.budget.declaration import declare
from dpkit.budget.solving import AttackLimit, solve, solve_attack
from dpkit.report.words import largest_advantage, most_recognised

PHI = NormalDist()
ONE = {
    "relation": "add_remove",
    "events": [{"kind": "gaussian", "noise_multiplier": 1}],
}


def gaussian_delta(epsilon, sigma=1.0):
    """Balle, Wang 2018, arXiv:1805.06530, Theorem 8."""
    a, b = 1 / (2 * sigma), epsilon * sigma
    return PHI.cdf(a - b) - math.exp(epsilon) * PHI.cdf(-a - b)


@pytest.fixture(scope="module")
def risk():
    return attack_risk(declare(ONE).event, relation="add_remove")


def test_the_profile_is_that_of_the_gaussian(risk):
    profile = curves.profile(risk)
    assert profile.certified
    for epsilon, delta in profile.points:
        true = gaussian_delta(epsilon)
        assert true - 1e-12 <= delta <= true * 1.001 + 1e-12


def test_the_advantage_is_delta_at_zero(risk):
    profile = curves.profile(risk)
    # 2 Phi(1/2) - 1
    assert profile.points[0] == (0.0, pytest.approx(0.3829249225, rel=1e-4))
    assert profile.points[0][1] >= 0.3829249225 - 1e-9


def test_the_trade_off_is_a_lower_bound_near_the_truth(risk):
    curve = curves.trade_off(risk, count=21)
    for x, y in curve.points[1:-1]:
        true = PHI.cdf(PHI.inv_cdf(1 - x) - 1)
        assert true - 1e-4 <= y <= true + 1e-9
    drawn = curve.references["Gaussian, mu = 1 (Dong et al., 2022)"]
    assert dict(drawn)[0.01 * 50] == pytest.approx(PHI.cdf(-1.0), abs=1e-12)


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 1.0, 8.0])
@pytest.mark.parametrize("delta", [0.0, 1e-5, 0.3])
def test_the_advantage_of_a_pair_is_the_corner_of_its_trade_off(epsilon, delta):
    rates = [n / 20_000 for n in range(20_001)]
    found = max(most_recognised(epsilon, delta, x) - x for x in rates)
    told = largest_advantage(epsilon, delta)
    assert found - 1e-12 <= told <= found + math.exp(epsilon) / 20_000
    assert largest_advantage(math.inf, delta) == 1.0


def test_steps_are_read_from_events_too():
    events = [
        {"kind": "pure", "epsilon": 0.1, "count": 2},
        {"kind": "laplace", "scale": 5},
    ]
    run = declare({"relation": "zero_out", "events": events})
    curve = curves.against_steps(run, 1e-5)
    assert [x for x, _ in curve.points] == [2, 3]
    assert curve.points[0][1] <= 0.2 + 1e-6
    assert curve.points[1][1] > curve.points[0][1]


def test_longer_runs_cost_more_and_have_published_lines():
    data = {"kind": "poisson_gaussian", "noise_multiplier": 1.0, "sampling_rate": 0.01}
    run = declare({"relation": "add_remove", "events": [data | {"count": 1000}]})
    curve = curves.against_steps(run, 1e-5, count=5)
    values = [y for _, y in curve.points]
    assert values == sorted(values)
    # Inversion of the contour integral of the loss (remove direction): 1.8282367.
    assert 1.828236 <= values[-1] <= 1.8282367 * 1.01
    rdp = next(v for name, v in curve.references.items() if "Mironov" in name)
    assert all(r > v for (_, r), v in zip(rdp, values, strict=True))


GAUSSIAN = declare(ONE)


@pytest.mark.parametrize("epsilon, delta, sigma", [(1.0, 1e-5, 3.73063163482)])
def test_noise_for_a_budget(epsilon, delta, sigma):
    # Analytic Gaussian, by mpmath.
    found = solve(GAUSSIAN, "noise_multiplier", epsilon=epsilon, delta=delta)
    assert sigma <= found.value <= sigma * 1.0001
    assert found.bound.upper <= epsilon


def test_steps_for_a_budget_are_the_largest():
    """mu^2 = steps / sigma^2, and mu = 1 / 3.7306 is the largest for (1, 1e-5)."""
    run = GAUSSIAN.varied("noise_multiplier", 100.0)
    found: Any = solve(run, "steps", epsilon=1.0, delta=1e-5)
    assert found.value == math.floor((100 / 3.73063163482) ** 2)
    assert found.bound.upper <= 1.0
    over = solve(
        run.varied("steps", found.value + 1), "epsilon", epsilon=None, delta=1e-5
    )
    assert over.value > 1.0


def test_a_rate_for_a_budget_is_rounded_down():
    data = {"kind": "poisson_gaussian", "noise_multiplier": 1.0, "sampling_rate": 0.5}
    run = declare({"relation": "add_remove", "events": [data | {"count": 1000}]})
    found = solve(run, "sampling_rate", epsilon=1.828237, delta=1e-5)
    # The epsilon of rate 0.01 is 1.8282367 (contour integral).
    assert 0.0099 < found.value <= 0.01 * (1 + 1e-6)
    again = solve(found.run, "epsilon", epsilon=None, delta=1e-5)
    assert again.value <= 1.828237


def test_delta_for_an_epsilon():
    found = solve(GAUSSIAN, "delta", epsilon=1.0, delta=None)
    assert gaussian_delta(1.0) - 1e-12 <= found.value <= gaussian_delta(1.0) * 1.001


@pytest.mark.parametrize(
    "limit, sigma",
    [
        (AttackLimit(0.3829249225), 1.0),  # 2 Phi(1/2) - 1
        (AttackLimit(0.0923622, 0.01), 1.0),  # Phi(Phi^-1(.01) + 1)
    ],
)
def test_noise_for_an_attackers_gain(limit, sigma):
    found, gain = solve_attack(GAUSSIAN, "noise_multiplier", limit, delta=1e-5)
    assert sigma * (1 - 1e-6) <= found.value <= sigma * 1.01
    assert gain <= limit.gain
    assert found.bound.certified


@pytest.mark.parametrize("gain, rate", [(0, None), (1, None), (0.01, 0.05), (0.5, 0)])
def test_limits_that_mean_nothing_are_refused(gain, rate):
    with pytest.raises(ValueError):
        AttackLimit(gain, rate)


@pytest.mark.parametrize(
    "name, options, named",
    [
        ("steps", {"epsilon": 0.1, "delta": 1e-5}, "out of reach"),
        ("steps", {"epsilon": 0.0, "delta": 1e-5}, "epsilon"),
        ("steps", {"epsilon": None, "delta": 1e-5}, "epsilon"),
        ("steps", {"epsilon": 1.0, "delta": None}, "delta"),
        ("order", {"epsilon": 1.0, "delta": 1e-5}, "solve"),
        ("sampling_rate", {"epsilon": 1.0, "delta": 1e-5}, "sampling_rate"),
    ],
)
def test_what_has_no_solution_is_refused(name, options, named):
    with pytest.raises(ValueError, match=named):
        solve(GAUSSIAN, name, **options)
