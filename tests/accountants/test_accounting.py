"""The front door: the best certified answer, curves over time, and bad questions."""

import functools
import math
import subprocess
import sys
from typing import Any

import dp_accounting as dp
import pytest
from dp_accounting import dp_event
from hypothesis import given, settings
from hypothesis import strategies as st

import dpkit.accountants
from dpkit.accountants.answers.errors import UnsupportedEvent, UnsupportedRelation
from dpkit.accountants.events import (
    ApproxDpEvent,
    BoundedRangeDpEvent,
    MetricLocalPureDpEvent,
    PureDpEvent,
    repeat,
    sequential,
)
from dpkit.accountants.readings import best as accounting
from dpkit.accountants.readings import pld
from dpkit.accountants.readings.best import epsilon_curve
from tests.accountants.worked_runs import (
    BOTH_READ,
    gaussian,
    pmf_pair,
    poisson,
    rdp_curve,
    truncated,
)

STEP = poisson(1, 0.01)


def epsilon(*args, **kwargs) -> Any:
    return accounting.epsilon(*args, **kwargs)


def delta_of(*args, **kwargs) -> Any:
    return accounting.delta_of(*args, **kwargs)


def uppers(curve) -> list[Any]:
    return [bound.upper for bound in curve]


def test_best_takes_the_smallest_and_says_whose_it_is():
    event = repeat(STEP, 1000)
    found = epsilon(event, 1e-5, relation="add_remove", unit="user")
    assert found.method_upper == "pld"
    alone = pld.epsilon(event, 1e-5, relation="add_remove", lower=False)
    assert found.upper == alone.upper
    assert (found.unit, found.regime, found.certified) == ("user", "static", True)
    tiny = epsilon(event, 1e-150, relation="add_remove", lower=False)
    assert tiny.method_upper == "pld"
    curve = epsilon(rdp_curve([2, 8], [0.1, 0.4]), 1e-5, relation="add_remove")
    assert curve.method_upper == "rdp"
    one = epsilon(PureDpEvent(30.0), 1e-300, relation="add_remove")
    assert one.method_upper == "pure"
    assert one.upper == pytest.approx(30.0)


@pytest.mark.slow
@pytest.mark.parametrize(("event", "relations"), BOTH_READ, ids=lambda x: repr(x)[:40])
def test_best_is_never_worse_than_any_accountant(event, relations):
    for relation in relations:
        best = epsilon(event, 1e-6, relation=relation)
        for name in ("pld", "rdp"):
            alone = epsilon(event, 1e-6, relation=relation, accountant=name)
            assert best.upper <= alone.upper * (1 + 3e-5)
        if best.lower is not None:
            assert best.lower <= best.estimate <= best.upper


def test_bounded_range_keeps_its_better_renyi_bound():
    # 10000 exponential mechanisms: concentrated like eps^2 / 8, not like pure eps.
    event = repeat(BoundedRangeDpEvent(0.01), 10_000)
    found = epsilon(event, 1e-5, relation="add_remove")
    assert found.method_upper == "rdp"
    as_pure = epsilon(event, 1e-5, relation="add_remove", accountant="pld").upper
    assert found.upper < 0.6 * as_pure


@pytest.mark.parametrize("accountant", ["pld", "rdp"])
def test_one_accountant_may_be_asked_for(accountant):
    found = epsilon(repeat(STEP, 10), 1e-5, relation="zero_out", accountant=accountant)
    assert found.method_upper == accountant


def test_several_events_compose_in_any_order():
    parts = [repeat(STEP, 100), dp.LaplaceDpEvent(5.0), gaussian(4), gaussian(4)]
    ask = functools.partial(epsilon, relation="add_remove", lower=False)
    there, back = (ask(each, 1e-6).upper for each in (parts, iter(parts[::-1])))
    assert there == pytest.approx(back, rel=1e-12)
    alone = [ask(part, 1e-6).upper for part in parts]
    assert max(alone) < there < sum(alone) * 1.2
    assert ask([], 1e-6).upper == 0.0


@pytest.mark.slow
def test_delta_of_is_the_inverse():
    event = repeat(STEP, 300)
    for delta in (1e-4, 1e-30):
        found = epsilon(event, delta, relation="add_remove").upper
        back = delta_of(event, found, relation="add_remove", unit="user")
        assert back.upper == pytest.approx(delta, rel=2e-3)
        assert back.certified
        assert back.unit == "user"
    everything = dp.NonPrivateDpEvent()
    assert delta_of(everything, 1.0, relation="add_remove").upper == 1.0


def test_delta_of_the_analytic_gaussian():
    # Phi(1/2 - 1) - e Phi(-3/2), Balle & Wang 2018 (arXiv:1805.06530), mpmath.
    found = delta_of(gaussian(1), 1.0, relation="add_remove")
    assert found.upper == pytest.approx(0.12693673750664395, rel=1e-9)
    assert found.lower == pytest.approx(found.upper, rel=1e-9)


def test_delta_zero_is_for_pure_releases():
    found = epsilon(
        [PureDpEvent(0.5), dp.LaplaceDpEvent(2.0)], 0, relation="add_remove"
    )
    assert found.upper == pytest.approx(1.0)
    assert found.method_upper == "pure"
    with pytest.raises(ValueError, match="delta=0 needs pure"):
        epsilon(gaussian(1), 0, relation="add_remove")


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"delta": -1e-9}, ValueError),
        ({"delta": 1.0}, ValueError),
        ({"delta": math.nan}, ValueError),
        ({"delta": "1e-5"}, TypeError),
        ({"relation": "substitute"}, ValueError),
        ({"relation": None}, TypeError),
        ({"accountant": "moments"}, ValueError),
        ({"unit": " "}, ValueError),
        ({"event": gaussian(math.nan)}, ValueError),
        ({"event": [gaussian(1), 3]}, TypeError),
        ({"event": dp.NoOpDpEvent()}, ValueError),
    ],
)
def test_bad_questions_are_refused(wrong, error):
    asked: dict[str, Any] = {
        "event": gaussian(1),
        "delta": 1e-5,
        "relation": "add_remove",
    } | wrong
    with pytest.raises(error):
        epsilon(asked.pop("event"), asked.pop("delta"), **asked)


def test_the_relation_has_no_default():
    with pytest.raises(TypeError, match="relation"):
        epsilon(gaussian(1), 1e-5)


@pytest.mark.parametrize("value", [-1.0, math.inf, math.nan])
def test_bad_epsilons_are_refused(value):
    with pytest.raises(ValueError, match="epsilon"):
        delta_of(gaussian(1), value, relation="add_remove")


def test_what_nobody_reads_is_refused_with_a_reason():
    with pytest.raises(UnsupportedEvent, match="never added"):
        epsilon(MetricLocalPureDpEvent(1.0, "metre"), 1e-5, relation="add_remove")
    with pytest.raises(UnsupportedRelation, match="add_remove, zero_out"):
        epsilon(
            dp.PoissonSampledDpEvent(0.1, dp.LaplaceDpEvent(1.0)),
            1e-5,
            relation="replace_one",
        )
    both = [ApproxDpEvent(1.0, 1e-6), rdp_curve([2], [0.1])]
    with pytest.raises(UnsupportedEvent):
        epsilon(both, 1e-5, relation="add_remove")


def test_what_one_accountant_alone_reads_is_read_by_it():
    both = [ApproxDpEvent(1.0, 1e-6), dp.ZCDpEvent(0.1)]
    found = epsilon(both, 1e-5, relation="add_remove")
    assert (found.method_upper, found.certified) == ("zcdp", True)


def test_unproven_answers_are_estimates():
    doubtful = pmf_pair((0.5, 0.5), (0.4, 0.6), certified=False)
    found = epsilon([doubtful, gaussian(3)], 1e-5, relation="add_remove")
    assert not found.certified
    assert found.estimate is not None
    assert any("not proven" in warning for warning in found.warnings)


@settings(derandomize=True, max_examples=6, deadline=None)
@given(
    st.floats(0.5, 20),
    st.floats(1e-4, 1.0),
    st.integers(1, 2000),
    st.sampled_from([1e-9, 1e-6, 1e-3]),
)
@pytest.mark.slow
def test_monotone_in_noise_rate_steps_and_delta(noise, rate, steps, delta):
    def at(noise=noise, rate=rate, steps=steps, delta=delta):
        event = repeat(poisson(noise, rate), steps)
        return epsilon(event, delta, relation="add_remove", lower=False).upper

    base, slack = at(), 1 + 5e-5
    assert at(noise=noise * 1.1) <= base * slack
    assert at(rate=rate * 0.9) <= base * slack
    assert at(steps=steps + 5) * slack >= base
    assert at(delta=min(delta * 2, 0.5)) <= base * slack


@pytest.mark.slow
@pytest.mark.guard
def test_a_curve_is_what_each_length_would_cost():
    counts = [1, 2000, 10, 300]
    curve = epsilon_curve(STEP, counts, 1e-6, relation="add_remove", unit="user")
    for count, bound in zip(counts, curve, strict=True):
        event = repeat(STEP, count)
        alone = epsilon(event, 1e-6, relation="add_remove", lower=False).upper
        assert bound.upper == pytest.approx(alone, rel=1e-4, abs=1e-6)
        assert bound.certified
        assert bound.unit == "user"


@pytest.mark.parametrize(
    "step",
    [
        STEP,
        gaussian(20),
        sequential([STEP, gaussian(50)]),
        truncated(1, 0.1, 1000, 150),
        dp.ZCDpEvent(0.001),
        repeat(PureDpEvent(0.01), 2),
        BoundedRangeDpEvent(0.1),
        dp.NonPrivateDpEvent(),
    ],
    ids=repr,
)
def test_curves_grow(step):
    curve = epsilon_curve(step, range(1, 42, 8), 1e-6, relation="add_remove")
    found = uppers(curve)
    assert found == sorted(found)
    event = repeat(step, 41)
    whole = epsilon(event, 1e-6, relation="add_remove", lower=False).upper
    assert found[-1] == pytest.approx(whole, rel=1e-4)


@pytest.mark.slow
def test_curves_are_as_good_at_a_tiny_delta():
    curve = epsilon_curve(STEP, [1, 100], 1e-30, relation="add_remove")
    for bound, count in zip(curve, [1, 100], strict=True):
        assert bound.method_upper == "pld"
        alone = epsilon(repeat(STEP, count), 1e-30, relation="add_remove").upper
        assert bound.upper == pytest.approx(alone, rel=1e-4)


@pytest.mark.slow
def test_a_long_curve_keeps_its_short_end():
    counts = [1000, 10**9]
    curve = epsilon_curve(poisson(50, 1e-4), counts, 1e-6, relation="add_remove")
    short, long = uppers(curve)
    alone = epsilon(repeat(poisson(50, 1e-4), 1000), 1e-6, relation="add_remove")
    assert alone.lower < short == pytest.approx(alone.upper, rel=0.02)
    assert short < long


def test_bad_curves_are_refused():
    assert epsilon_curve(STEP, [], 1e-5, relation="add_remove") == []
    with pytest.raises(ValueError, match="count=0"):
        epsilon_curve(STEP, [1, 0], 1e-5, relation="add_remove")
    with pytest.raises(ValueError, match="delta"):
        epsilon_curve(STEP, [1], 0, relation="add_remove")
    with pytest.raises(UnsupportedRelation):
        epsilon_curve(
            dp_event.MixtureOfGaussiansDpEvent(1.0, (0.0, 1.0), (0.5, 0.5)),
            [1],
            1e-5,
            relation="replace_one",
        )


@pytest.mark.slow
def test_the_package_loads_nothing_until_a_name_is_used():
    code = (
        "import sys, dpkit.accountants as a; "
        "heavy = {'jax', 'dp_accounting', 'scipy', 'sqlalchemy'}; "
        "assert not heavy & set(sys.modules); "
        "a.Budget; assert 'dp_accounting' not in sys.modules; "
        "a.epsilon; assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_loads():
    for name in dpkit.accountants.__all__:
        assert getattr(dpkit.accountants, name).__doc__
    with pytest.raises(AttributeError, match="no_such_name"):
        getattr(dpkit.accountants, "no_such_name")  # noqa: B009


@pytest.mark.parametrize("noise", [1e-100, 1e-50, 1e50, 1e100])
def test_noise_of_any_size_that_is_accepted_is_answered(noise):
    """2 Phi(m/2) - 1 at epsilon = 0, which is m / sqrt(2 pi) where m is small."""
    event = dp.GaussianDpEvent(noise)
    found: Any = delta_of(event, 0.0, relation="add_remove").upper
    truth = min(1.0, 1 / noise / math.sqrt(2 * math.pi))
    assert truth <= found * (1 + 1e-15)
    # A Gaussian loss of mean m^2 / 2 and deviation m: far out, the mean is all.
    large = epsilon(event, 1e-5, relation="add_remove").upper
    assert large == pytest.approx(0.5 / noise**2 if noise < 1 else 0.0, rel=1e-9)


@pytest.mark.parametrize("noise", [1e155, 1e165, 1e-160, 1e-300, 5e-324])
def test_noise_whose_square_is_no_number_is_refused(noise):
    for ask in (
        lambda e: epsilon(e, 1e-5, relation="add_remove"),
        lambda e: delta_of(e, 0.0, relation="add_remove"),
    ):
        with pytest.raises(ValueError, match=r"noise_multiplier=.* \[1e-100, 1e100\]"):
            ask(dp.GaussianDpEvent(noise))


def test_best_is_tight_where_a_grid_is_too_coarse():
    # The worst pure release of epsilon 2 is randomised response, so the truth is where
    # p delta(e - 2) + (1 - p) delta(e + 2) = 1e-120, delta that of the Gaussian and
    # p = e^2 / (1 + e^2): solved in 160 digits.
    event = sequential([gaussian(15.0), PureDpEvent(2.0)])
    truth = 3.54067792766006
    best: Any = epsilon(event, 1e-120, relation="add_remove")
    assert best.certified
    assert truth <= best.upper <= truth * (1 + 1e-9)
    on_curve: Any = epsilon_curve(event, [1], 1e-120, relation="add_remove")[0]
    assert truth <= on_curve.upper <= truth * (1 + 1e-9)
