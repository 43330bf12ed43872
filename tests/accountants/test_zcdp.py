"""The zCDP accountant: the tight conversion, and what each event is charged."""

import math
from typing import Any

import dp_accounting as dp
import pytest
from dp_accounting import dp_event

from dpkit.accountants.answers.errors import UnsupportedEvent, UnsupportedRelation
from dpkit.accountants.events import (
    ApproxDpEvent,
    BoundedRangeDpEvent,
    DiscreteGaussianDpEvent,
    MetricLocalPureDpEvent,
    ParallelDpEvent,
    PureDpEvent,
    Relation,
    repeat,
    sequential,
)
from dpkit.accountants.readings import pld, zcdp
from tests.accountants.worked_runs import (
    ANALYTIC_GAUSSIAN,
    BOTH_READ,
    DP_SGD,
    PURE,
    gaussian,
    pmf_pair,
    poisson,
    poisson_laplace,
    rdp_curve,
    truncated,
    without_replacement,
)
from tests.oracles import binomial, compositions, renyi_curves


def upper(event, delta, relation="add_remove") -> Any:
    return zcdp.epsilon(event, delta, relation=relation).upper


def delta_of(event, epsilon, relation="add_remove") -> Any:
    return zcdp.delta_of(event, epsilon, relation=relation).upper


def concentration(event, relation="add_remove") -> Any:
    return zcdp.concentration(event, Relation(relation))


# (rho, delta, epsilon): the tight conversion (Canonne, Kamath, Steinke 2020,
# arXiv:2004.00010), minimised with mpmath.
ZCDP = [
    (0.5, 1e-5, 4.728386985),
    (0.1, 1e-6, 2.141938928),
    (0.005, 1e-5, 0.375261236),
    (2, 1e-8, 13.386104649),
]


@pytest.mark.parametrize(("rho", "delta", "epsilon"), ZCDP)
def test_the_tight_conversion(rho, delta, epsilon):
    found = upper(dp.ZCDpEvent(rho), delta)
    assert epsilon - 1e-9 <= found <= epsilon + 1e-9
    assert upper(dp.ZCDpEvent(rho, 0.25), delta) == pytest.approx(found + 0.25)
    # Bun & Steinke 2016, Proposition 1.3: the classic form is never smaller.
    assert found < rho + 2 * math.sqrt(rho * math.log(1 / delta))


@pytest.mark.parametrize("rho", [1e-12, 1e-6, 0.01, 0.7, 30.0, 1e6])
@pytest.mark.parametrize("delta", [1e-100, 1e-12, 1e-5, 0.3])
def test_no_order_is_better(rho, delta):
    exact = renyi_curves.conversion(
        lambda order: order * rho, delta, lowest=1 + 1e-9, highest=1e20
    )
    found = upper(dp.ZCDpEvent(rho), delta)
    assert found <= max(exact, 0) * (1 + 1e-9) + 1e-15
    if found > 0:
        assert found >= exact * (1 - 1e-12)


@pytest.mark.parametrize("delta", [5e-324, 1e-300, 1e-100, 0.5, 1 - 1e-12])
@pytest.mark.parametrize("rho", [0.0, 5e-324, 1e-100, 1e-8, 1.0, 1e8, 1e300])
@pytest.mark.parametrize("xi", [0.0, 1e-9, 2.0])
def test_every_delta_has_an_answer(rho, delta, xi):
    found = upper(dp.ZCDpEvent(rho, xi), delta)
    assert 0 <= found < math.inf
    if rho + xi > 0:
        # The total variation is at most sqrt(1 - e^-(xi + rho)).
        assert found > 0 or delta**2 >= -math.expm1(-rho - xi)
    back = delta_of(dp.ZCDpEvent(rho, xi), found)
    assert 0 <= back <= 1


@pytest.mark.parametrize("epsilon", [0.0, 1e-6, 0.5, 4.0, 60.0, 1e9, 1e300])
@pytest.mark.parametrize("rho", [1e-9, 0.02, 0.5, 8.0])
def test_delta_is_above_the_gaussian_profile(rho, epsilon):
    # A Gaussian with shift m is m^2/2-concentrated, exactly.
    exact = compositions.gaussian_delta(math.sqrt(2 * rho), min(epsilon, 1e3))
    found = delta_of(dp.ZCDpEvent(rho), epsilon)
    assert 0 < found <= 1
    if epsilon <= 1e3:
        assert found >= float(exact)


@pytest.mark.parametrize("delta", [1e-2, 1e-5, 1e-30, 1e-200])
@pytest.mark.parametrize("rho", [1e-3, 0.5, 20.0])
def test_delta_of_is_the_inverse(rho, delta):
    event = dp.ZCDpEvent(rho, 0.1)
    found = delta_of(event, upper(event, delta))
    assert found == pytest.approx(delta, rel=1e-9)


def test_without_a_slope_it_is_pure():
    # xi alone bounds the largest loss; 1 - e^-x of it is covered by delta.
    event = dp.ZCDpEvent(0.0, 0.5)
    assert upper(event, 1e-5) == pytest.approx(0.5 + math.log1p(-1e-5), rel=1e-9)
    assert upper(event, 1e-5) > 0.5 + math.log1p(-1e-5)
    assert delta_of(event, 0.51) == 0
    assert delta_of(event, 0.4) > 1 - math.exp(-0.1)
    assert upper(PureDpEvent(0), 1e-5) == delta_of(PureDpEvent(0), 0.0) == 0


@pytest.mark.parametrize(
    ("event", "relation", "xi", "rho", "delta"),
    [
        (gaussian(2), "add_remove", 0, 1 / 8, 0),
        (gaussian(2), "replace_one", 0, 1 / 2, 0),
        (repeat(gaussian(10), 44), "zero_out", 0, 0.22, 0),
        (DiscreteGaussianDpEvent(4.0, 2), "zero_out", 0, 1 / 8, 0),
        (DiscreteGaussianDpEvent(4.0, 2), "replace_one", 0, 1 / 2, 0),
        (dp.ZCDpEvent(0.3, 0.2), "replace_one", 0.2, 0.3, 0),
        (repeat(dp.ZCDpEvent(0.3, 0.2), 5), "replace_one", 1.0, 1.5, 0),
        (PureDpEvent(0.1), "add_remove", 0, 0.005, 0),
        (dp.LaplaceDpEvent(4.0), "add_remove", 0, 1 / 32, 0),
        (dp.LaplaceDpEvent(4.0), "replace_one", 0, 1 / 8, 0),
        (dp_event.DiscreteLaplaceDpEvent(0.5, 2), "zero_out", 0, 0.5, 0),
        (BoundedRangeDpEvent(0.4), "add_remove", 0, 0.02, 0),
        (ApproxDpEvent(0.2, 1e-7), "add_remove", 0, 0.02, 1e-7),
        (repeat(ApproxDpEvent(0.2, 1e-7), 10), "add_remove", 0, 0.2, 1e-6),
        (
            dp.RandomizedResponseDpEvent(0.5, 2),
            "replace_one",
            0,
            math.log(3) ** 2 / 2,
            0,
        ),
        (dp.SingleEpochTreeAggregationDpEvent(2.0, [4, 7]), "zero_out", 0, 3 / 8, 0),
        (dp.SingleEpochTreeAggregationDpEvent(2.0, 8), "zero_out", 0, 4 / 8, 0),
        (
            ParallelDpEvent([gaussian(2), dp.ZCDpEvent(0.01, 0.3)]),
            "add_remove",
            0.3,
            1 / 8,
            0,
        ),
        (poisson(2, 0.01), "add_remove", 0, 1 / 8, 0),
        (poisson(2, 0.01), "replace_one", 0, 1 / 2, 0),
        (without_replacement(2, 5, 50), "replace_one", 0, 1 / 2, 0),
        (
            dp_event.MixtureOfGaussiansDpEvent(2.0, (0.0, 1.0, 3.0), (0.9, 0.1, 0.0)),
            "add_remove",
            0,
            1 / 8,
            0,
        ),
    ],
    ids=repr,
)
def test_what_each_event_is_charged(event, relation, xi, rho, delta):
    found = concentration(event, relation)
    expected = pytest.approx((xi, rho, delta), rel=1e-12)
    assert (found.xi, found.rho, found.delta) == expected


def test_a_tree_is_as_dear_as_dp_accounting_says():
    tree = dp.SingleEpochTreeAggregationDpEvent(2.0, [4, 7])
    peer = dp.rdp.RdpAccountant([2.0], dp.NeighboringRelation.REPLACE_SPECIAL)
    rho = peer.compose(tree)._rdp[0] / 2
    assert concentration(tree, "zero_out").rho == pytest.approx(rho, rel=1e-12)


@pytest.mark.parametrize(("noise", "delta", "truth"), ANALYTIC_GAUSSIAN)
def test_it_is_above_the_analytic_gaussian(noise, delta, truth):
    assert truth < upper(gaussian(noise), delta) < truth * 1.35


@pytest.mark.parametrize(("each", "times", "delta", "truth"), PURE)
def test_it_is_above_the_truth_of_pure_releases(each, times, delta, truth):
    assert truth <= upper(repeat(PureDpEvent(each), times), delta)


@pytest.mark.parametrize(("noise", "rate", "steps", "delta", "truth", "_"), DP_SGD[::4])
def test_sampled_runs_count_as_unsampled_ones(noise, rate, steps, delta, truth, _):
    bound: Any = zcdp.epsilon(
        repeat(poisson(noise, rate), steps), delta, relation="add_remove"
    )
    assert bound.upper == upper(repeat(gaussian(noise), steps), delta)
    assert bound.upper > truth
    assert bound.certified
    assert any("no amplification" in warning for warning in bound.warnings)
    assert not zcdp.epsilon(gaussian(1), delta, relation="add_remove").warnings


@pytest.mark.slow
@pytest.mark.parametrize("order", [1.5, 6])
def test_the_unsampled_curve_is_above_the_sampled_one(order):
    rho = concentration(poisson(1, 0.6)).rho
    for add in (False, True):
        assert renyi_curves.sampled_gaussian(0.6, 1, order, add=add) <= rho * order


def test_discrete_gaussians_are_above_their_truth():
    # dp-accounting's optimistic and pessimistic values: 8.30326 within 3e-5.
    assert upper(repeat(DiscreteGaussianDpEvent(2.0, 1), 10), 1e-6) > 8.3032


@pytest.mark.parametrize("times", [1, 20])
def test_deltas_of_the_parts_are_taken_off(times):
    event = repeat(ApproxDpEvent(0.1, 1e-8), times)
    pure = repeat(PureDpEvent(0.1), times)
    spent = times * 1e-8
    assert upper(event, 1e-6) == pytest.approx(upper(pure, 1e-6 - spent), rel=1e-9)
    assert upper(event, 1e-6) > upper(pure, 1e-6)
    assert upper(event, spent / 2) == math.inf
    assert delta_of(event, 0.3) == pytest.approx(delta_of(pure, 0.3) + spent)
    tight: Any = pld.epsilon(event, 1e-6, relation="add_remove").upper
    assert upper(event, 1e-6) > tight


def test_truncation_is_corrected_for():
    steps, delta = 20, 1e-2
    event = repeat(truncated(4, 0.1, 1000, 150), steps)
    found = upper(event, delta)
    plain = delta_of(repeat(poisson(4, 0.1), steps), found)
    correction = steps * (1 + math.exp(found)) * binomial.upper_tail(1000, 0.1, 150)
    assert plain + correction == pytest.approx(delta, rel=1e-3)
    assert plain + correction <= delta * (1 + 1e-9)


@pytest.mark.slow
def test_no_reading_is_below_the_tightest_one():
    for event, relations in BOTH_READ:
        for relation in relations:
            if zcdp.supports(event, relation):
                tight: Any = pld.epsilon(event, 1e-5, relation=relation)
                assert upper(event, 1e-5, relation) >= tight.upper * (1 - 1e-3)


def test_it_grows_with_everything():
    base = upper(sequential([gaussian(2), PureDpEvent(0.3)]), 1e-6)
    assert upper(sequential([PureDpEvent(0.3), gaussian(2)]), 1e-6) == base
    for more in (
        sequential([gaussian(1.9), PureDpEvent(0.3)]),
        sequential([gaussian(2), PureDpEvent(0.31)]),
        sequential([gaussian(2), PureDpEvent(0.3), dp.ZCDpEvent(1e-6)]),
        sequential([gaussian(2), PureDpEvent(0.3), ApproxDpEvent(0.0, 1e-8)]),
    ):
        assert upper(more, 1e-6) > base
    assert upper(sequential([gaussian(2), PureDpEvent(0.3)]), 1e-7) > base


@pytest.mark.parametrize(
    ("event", "relation"),
    [
        (dp.SingleEpochTreeAggregationDpEvent(1.0, 3), "add_remove"),
        (dp.RandomizedResponseDpEvent(0.5, 2), "add_remove"),
        (poisson_laplace(1, 0.1), "replace_one"),
        (without_replacement(1, 5, 10), "add_remove"),
        (pmf_pair((0.5, 0.5), (0.4, 0.6)), "zero_out"),
        (ParallelDpEvent([gaussian(1)]), "replace_one"),
        (
            dp_event.MixtureOfGaussiansDpEvent(1.0, (0.0, 1.0), (0.5, 0.5)),
            "replace_one",
        ),
    ],
    ids=repr,
)
def test_relations_without_a_proof_are_refused(event, relation):
    with pytest.raises(UnsupportedRelation, match="every accountant"):
        upper(sequential([gaussian(1), event]), 1e-5, relation)
    assert not zcdp.supports(event, relation)


@pytest.mark.parametrize(
    "event",
    [
        MetricLocalPureDpEvent(1.0, "metre"),
        rdp_curve([2], [0.1]),
        dp_event.RepeatAndSelectDpEvent(gaussian(1), 2.0, 1.0),
    ],
    ids=repr,
)
def test_events_that_are_not_concentrated_are_refused_by_name(event):
    with pytest.raises(UnsupportedEvent, match="zcdp") as refused:
        upper(repeat(event, 3), 1e-5)
    assert refused.value.accountant == "zcdp"
    assert refused.value.event == event


def test_no_privacy_is_infinite():
    event = sequential([gaussian(1), dp.NonPrivateDpEvent()])
    assert upper(event, 1e-5) == math.inf
    assert delta_of(event, 3.0) == 1


def test_unproven_tables_are_never_certified():
    bound = zcdp.epsilon(
        pmf_pair((0.5, 0.5), (0.4, 0.6), certified=False), 1e-5, relation="add_remove"
    )
    assert not bound.certified
    assert any("not proven" in warning for warning in bound.warnings)


@pytest.mark.parametrize(
    ("delta", "error"),
    [(0, ValueError), (1, ValueError), (math.nan, ValueError), (True, TypeError)],
)
def test_bad_input_is_refused(delta, error):
    with pytest.raises(error, match="delta"):
        upper(gaussian(1), delta)
    with pytest.raises(ValueError, match="epsilon"):
        delta_of(gaussian(1), math.inf)
    with pytest.raises(ValueError, match="relation"):
        upper(gaussian(1), 1e-5, "swap")
