"""The Gaussian-DP accountant: exact for Gaussians, an estimate for sampled ones."""

import math
from typing import Any

import dp_accounting as dp
import pytest

from dpkit.accountants.answers.errors import UnsupportedEvent, UnsupportedRelation
from dpkit.accountants.events import PureDpEvent, from_json, repeat, sequential
from dpkit.accountants.events.kinds import KINDS
from dpkit.accountants.readings import gdp, zcdp
from tests.accountants.worked_runs import (
    ALL,
    ANALYTIC_GAUSSIAN,
    DP_SGD,
    gaussian,
    poisson,
    truncated,
)
from tests.oracles import compositions


def epsilon(event, delta, relation="add_remove") -> Any:
    return gdp.epsilon(event, delta, relation=relation)


def delta_of(event, value, relation="add_remove") -> Any:
    return gdp.delta_of(event, value, relation=relation)


@pytest.mark.parametrize(("noise", "delta", "exact"), ANALYTIC_GAUSSIAN)
def test_one_gaussian_is_exact(noise, delta, exact):
    bound = epsilon(gaussian(noise), delta)
    assert bound.lower <= exact * (1 + 1e-11)
    assert exact * (1 - 1e-11) <= bound.upper <= exact * (1 + 1e-9)
    assert bound.certified
    assert bound.method_upper == "gdp"
    assert not bound.warnings


# mu, delta, epsilon: 30-digit bisection of the analytic Gaussian.
@pytest.mark.parametrize(
    ("event", "relation", "exact"),
    [
        (repeat(gaussian(2), 36), "add_remove", 16.6754944026),
        (repeat(gaussian(2), 9), "replace_one", 16.6754944026),
        (
            sequential([gaussian(1), repeat(gaussian(0.5), 2)]),
            "zero_out",
            16.6754944026,
        ),
        (poisson(1, 1.0), "add_remove", 4.37717809568),
    ],
)
def test_gaussians_add_up_in_squares(event, relation, exact):
    bound = epsilon(event, 1e-5, relation)
    assert bound.lower <= bound.upper == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.5, 3.0, 40.0])
@pytest.mark.parametrize("moved", [0.3, 1.0, 4.0])
def test_delta_is_the_profile(moved, value):
    exact = float(compositions.gaussian_delta(moved, value))
    bound = delta_of(gaussian(1 / moved), value)
    assert bound.lower <= exact * (1 + 1e-12)
    assert exact <= bound.upper <= max(exact * (1 + 1e-9), 1e-300)


# mu = q sqrt(T (e^(1/s^2) - 1)) by hand, and its epsilon by 30-digit bisection.
@pytest.mark.parametrize(
    ("event", "delta", "limit"),
    [
        (repeat(poisson(1, 0.01), 10_000), 1e-5, 6.0070773076),
        (
            sequential([repeat(poisson(1, 0.01), 1000), repeat(gaussian(8), 10)]),
            1e-6,
            2.61806318091,
        ),
    ],
)
def test_sampled_gaussians_give_the_limit_as_an_estimate(event, delta, limit):
    bound = epsilon(event, delta)
    assert bound.estimate == pytest.approx(limit, rel=1e-9)
    assert bound.method_estimate == "gdp"
    assert not bound.certified
    assert bound.lower is None
    assert bound.upper is None
    assert any("under-reports" in warning for warning in bound.warnings)
    back = delta_of(event, bound.estimate)
    assert back.estimate == pytest.approx(delta, rel=1e-9)
    assert back.upper is None


def test_the_limit_is_below_the_truth():
    # 6.007 against 6.188: why it is an estimate and can never be a bound.
    noise, rate, steps, delta, truth, _ = next(r for r in DP_SGD if r[:2] == (1, 0.01))
    assert epsilon(repeat(poisson(noise, rate), steps), delta).estimate < truth


@pytest.mark.parametrize("noise", [1e-100, 0.03, 1.0, 1e100])
@pytest.mark.parametrize("delta", [1e-300, 1e-100, 1e-5, 1 - 1e-12])
@pytest.mark.parametrize("sampled", [False, True])
def test_every_delta_has_an_answer(noise, delta, sampled):
    event = poisson(noise, 1e-9) if sampled else gaussian(noise)
    bound = epsilon(event, delta)
    assert bound.estimate >= 0
    if not sampled:
        assert 0 <= bound.lower <= bound.upper


def test_tiny_shifts_are_solved_for():
    # 420-digit bisection: shift 1e-50, delta 1e-300.
    bound = epsilon(gaussian(1e50), 1e-300)
    assert bound.lower <= 3.36953996233869e-49 <= bound.upper


@pytest.mark.parametrize(
    "event",
    [
        dp.LaplaceDpEvent(1.0),
        PureDpEvent(1.0),
        dp.ZCDpEvent(0.5),
        truncated(1, 0.1, 100, 50),
    ],
    ids=repr,
)
def test_other_events_are_refused_by_name(event):
    with pytest.raises(UnsupportedEvent, match="gdp") as refused:
        epsilon(sequential([gaussian(1), event]), 1e-5)
    assert refused.value.event == event
    assert not gdp.supports(event, "add_remove")


def test_replacing_has_no_limit_formula_but_the_bound_without_sampling():
    found = epsilon(poisson(1, 0.1), 1e-5, "replace_one")
    assert found.upper == epsilon(gaussian(1), 1e-5, "replace_one").upper
    assert (found.certified, found.lower) == (True, None)
    assert found.warnings == (gdp.NO_AMPLIFICATION,)


ALLOCATED = pytest.mark.skipif(
    "random_allocation" not in KINDS, reason="the kind is not registered"
)


def allocated(**fields):
    base = {"kind": "random_allocation", "noise_multiplier": 2, "steps_per_epoch": 10}
    return from_json(base | fields)


@ALLOCATED
@pytest.mark.parametrize(
    ("fields", "rounds"),
    [
        ({"epochs": 4}, 4),
        ({"epochs": 4, "last_steps": 3}, 5),
        ({"selected": 3, "epochs": 2}, 6),
        ({"epochs": 4, "partition": "kept"}, 4),
    ],
)
def test_allocation_counts_every_step_of_a_record(fields, rounds):
    """allocation: one epoch of k steps of t is no worse than Gaussians for k steps."""
    event, plain = allocated(**fields), repeat(gaussian(2), rounds)
    for module in (gdp, zcdp):
        bound: Any = module.epsilon(event, 1e-5, relation="zero_out")
        same: Any = module.epsilon(plain, 1e-5, relation="zero_out")
        assert bound.upper == pytest.approx(same.upper, rel=1e-12)
        assert bound.certified
        assert bound.lower is None
        assert any("no amplification" in warning for warning in bound.warnings)
        with pytest.raises(UnsupportedRelation):
            module.epsilon(event, 1e-5, relation="replace_one")


@pytest.mark.parametrize("delta", [0, 1, math.nan, "1e-5"])
def test_bad_input_is_refused(delta):
    with pytest.raises((ValueError, TypeError), match="delta"):
        epsilon(gaussian(1), delta)
    with pytest.raises(ValueError, match="epsilon"):
        delta_of(gaussian(1), -1.0)
    with pytest.raises(ValueError, match="nan"):
        epsilon(gaussian(math.nan), 1e-5)


def test_epsilon_grows_with_steps_and_falls_with_noise():
    for relation in ALL:
        steps = [epsilon(repeat(gaussian(3), n), 1e-6, relation) for n in (1, 2, 9)]
        noise = [epsilon(gaussian(s), 1e-6, relation) for s in (9, 3, 1)]
        for bounds in (steps, noise):
            uppers = [bound.upper for bound in bounds]
            assert uppers == sorted(uppers)


# Roots of Phi(mu/2 - eps/mu) - e^eps Phi(-mu/2 - eps/mu) = delta, to 9 decimals.
BUDGETS = [
    (0.1, 1e-6, 0.027544650),
    (1.0, 1e-5, 0.268051123),
    (1.0, 1e-6, 0.236704381),
    (1.0, 1e-9, 0.181974807),
    (3.0, 1e-6, 0.647726531),
    (10.0, 1e-6, 1.848132206),
]


@pytest.mark.parametrize(("target", "delta", "mu"), BUDGETS)
def test_a_budget_buys_this_mu(target, delta, mu):
    assert gdp.gdp_of_budget(target, delta) == pytest.approx(mu, abs=6e-10)


@pytest.mark.parametrize("delta", [1e-250, 1e-30, 1e-6, 0.3, 0.9])
@pytest.mark.parametrize("target", [1e-4, 1e-2, 1.0, 50.0, 1e6])
def test_what_a_budget_buys_fits_and_no_more_would(target, delta):
    mu = gdp.gdp_of_budget(target, delta)
    shares = [0.2, 0.3, 0.5 / 3, 0.5 / 3, 0.5 / 3]
    parts = sequential([gaussian(1 / (mu * math.sqrt(part))) for part in shares])
    assert epsilon(parts, delta).upper <= target

    assert epsilon(gaussian(1 / (mu * (1 + 1e-3))), delta).upper > target


@pytest.mark.parametrize(
    ("target", "delta", "words"),
    [(1e-5, 1e-6, "epsilon=1e-05"), (math.inf, 1e-6, "epsilon=inf")]
    + [(1.0, delta, "delta=") for delta in (0.0, 1.0, 1e-260, math.nan)],
)
def test_budgets_that_buy_nothing(target, delta, words):
    with pytest.raises(ValueError, match=words):
        gdp.gdp_of_budget(target, delta)
