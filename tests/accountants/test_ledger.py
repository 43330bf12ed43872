"""The ledger: refuses before it spends, whatever the order of events."""

import math
import pickle
import random
import sys
from fractions import Fraction
from typing import Any

import dp_accounting as dp
import jax
import pytest

from dpkit.accountants import (
    ApproxDpEvent,
    Budget,
    BudgetExceeded,
    Incompatible,
    Ledger,
    NotCertified,
    PureDpEvent,
    RdpCurveDpEvent,
    Relation,
    UnsupportedEvent,
    epsilon,
    repeat,
)
from dpkit.accountants.filters import offset

TERMS: dict[str, Any] = {
    "relation": "add_remove",
    "unit": "example",
    "dataset": "toy 1.0",
}
BUDGET = Budget(3.0, 1e-5)
GAUSSIAN = dp.GaussianDpEvent(10.0)
STEP = dp.PoissonSampledDpEvent(0.01, dp.GaussianDpEvent(1.0))


def _ledger(budget=BUDGET, **options) -> Any:
    return Ledger.open(None, budget=budget, **TERMS | options)


def _static(event, delta=1e-5) -> Any:
    """The static bound of an event."""
    return epsilon(event, delta, relation="add_remove", unit="example")


def _charge_until_refused(ledger, event, limit=200):
    for number in range(limit):
        try:
            ledger.charge(event, label=f"charge {number}")
        except BudgetExceeded:
            return number
    return limit


# How many fit ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filter", "event", "expected"),
    [
        # rho* = 0.22424917 over rho = 1/200 (zCDP of a Gaussian), and over 0.1^2/2.
        ("zcdp", GAUSSIAN, 44),
        ("zcdp", PureDpEvent(0.1), 44),
        ("zcdp", dp.ZCDpEvent(0.005), 44),
        # Thirty tenths are three, equality included.
        ("pure", PureDpEvent(0.1), 30),
    ],
)
def test_how_many_releases_fit(filter, event, expected):
    ledger = _ledger(filter=filter)
    assert ledger.remaining(event, sealed=False) == expected
    assert _charge_until_refused(ledger, event) == expected
    assert ledger.spent().upper <= 3.0
    ledger.verify(recount=True)


def test_the_adaptive_filter_keeps_most_of_what_one_order_with_all_of_delta_allows():
    """Between the static optimum (51) and the six orders alone (38)."""
    found = _charge_until_refused(_ledger(), GAUSSIAN)
    assert 38 <= found <= 44


def test_adaptive_charges_count_as_a_brute_force_search_says():
    """Orders and shares as the ledger wrote them, sums and conversion by hand."""
    ledger = _ledger()
    opened = ledger.charge(GAUSSIAN, label="first").body["cost"]["all"]["opens"]
    pairs = [
        (float(order), float(share) * float(opened["delta"]))
        for order, share in zip(opened["orders"], opened["shares"], strict=True)
    ]

    def report(count):
        return min(offset(a, d) + count * a / 200.0 for a, d in pairs)

    expected = max(n for n in range(1, 100) if report(n) <= 3.0)
    assert 1 + _charge_until_refused(ledger, GAUSSIAN) == expected
    assert ledger.spent().upper == pytest.approx(report(expected), rel=1e-9)


def test_poisson_sampled_charges_live_on_their_own_renyi_curve():
    ledger = _ledger()
    entry = ledger.charge(STEP, count=300, label="epoch")
    assert entry.body["counted"] == "renyi"
    # The price of adaptive choices: a share of delta for each order.
    static = _static(repeat(STEP, 300)).upper
    assert static < ledger.spent().upper < 2 * static
    assert ledger.spent().regime == "adaptive"


@pytest.mark.parametrize(
    ("event", "count"), [(STEP, 2000), (GAUSSIAN, 50), (PureDpEvent(0.1), 30)]
)
def test_a_plan_enters_as_its_tightest_bound(event, count):
    ledger = _ledger()
    with ledger.reserve(event, count=count, label="train") as grant:
        pass
    static = _static(repeat(event, count))
    assert grant.entry.body["counted"] == "approx"
    assert grant.bound.upper == pytest.approx(static.upper, rel=1e-12)
    assert ledger.spent() == grant.bound
    assert ledger.spent().regime == "static"
    ledger.verify(recount=True)


def test_fifty_one_gaussians_fit_as_a_plan_and_no_more():
    """mu = sqrt(n)/10; (3, 1e-5) allows mu <= 0.71956 (Balle & Wang, mpmath)."""
    ledger = _ledger()
    assert ledger.remaining(GAUSSIAN) == 51
    with pytest.raises(BudgetExceeded):
        ledger.reserve(GAUSSIAN, count=52, label="too long")
    ledger.reserve(GAUSSIAN, count=51, label="exactly")
    assert ledger.remaining(GAUSSIAN) == 0


def test_remaining_is_what_reserve_accepts():
    ledger = _ledger()
    ledger.reserve(PureDpEvent(1.0), label="first", delta=0.0)
    most = ledger.remaining(STEP)
    assert most > 100
    with pytest.raises(BudgetExceeded):
        ledger.reserve(STEP, count=most + 1, label="one more")
    ledger.reserve(STEP, count=most, label="all of it")


# Refusals ----------------------------------------------------------------------


def test_a_refusal_writes_nothing_and_says_what_to_do():
    ledger = _ledger(filter="zcdp")
    ledger.charge(GAUSSIAN, count=40, label="first")
    head = ledger.head
    with pytest.raises(BudgetExceeded, match="4 of count=10 would fit") as caught:
        ledger.charge(GAUSSIAN, count=10, label="second")
    assert ledger.head == head
    error: Any = caught.value
    assert error.budget == BUDGET
    assert 2.5 < error.spent <= 3.0
    assert 0.0 < error.asked < 3.0
    assert "\n" not in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_equality_is_allowed_and_the_smallest_number_beyond_is_not():
    ledger = _ledger(Budget(3.0, 0.0))
    for _ in range(3):
        ledger.charge(PureDpEvent(1.0), label="third")
    assert ledger.spent().upper == 3.0
    for tiny in (5e-324, 1e-300, 1e-16):
        with pytest.raises(BudgetExceeded):
            ledger.charge(PureDpEvent(tiny), label="subnormal")
    ledger.charge(PureDpEvent(0.0), label="free")


def test_ten_plans_of_a_tenth_fill_a_budget_of_one():
    ledger = _ledger(Budget(1.0, 0.0))
    for number in range(10):
        ledger.reserve(PureDpEvent(0.1), label=f"plan {number}")
    assert ledger.spent().upper == 1.0
    with pytest.raises(BudgetExceeded):
        ledger.reserve(PureDpEvent(5e-324), label="subnormal")


def test_a_subnormal_is_refused_by_the_renyi_filter_too():
    ledger = _ledger(filter="zcdp")
    order = float(ledger.entries()[0].body["opens"]["all"]["orders"][0])
    rho = (3.0 - offset(order, 1e-5)) / order
    ledger.charge(dp.ZCDpEvent(math.nextafter(rho * (1 - 1e-13), 0)), label="all")
    with pytest.raises(BudgetExceeded):
        ledger.charge(dp.ZCDpEvent(rho * 1e-12), label="a little more")


def test_a_budget_of_zero_is_zero():
    ledger = _ledger(Budget(0.0, 0.0))
    with pytest.raises(BudgetExceeded):
        ledger.charge(PureDpEvent(1e-9), label="x")
    with pytest.raises(BudgetExceeded):
        ledger.reserve(GAUSSIAN, label="x")
    assert ledger.spent().upper == 0.0


def test_no_privacy_needs_an_infinite_budget():
    with pytest.raises(BudgetExceeded):
        _ledger().charge(dp.NonPrivateDpEvent(), label="open")
    with pytest.raises(BudgetExceeded):
        _ledger().reserve(dp.NonPrivateDpEvent(), label="open")
    ledger = _ledger(Budget(math.inf, 1e-5))
    ledger.charge(GAUSSIAN, label="finite")
    assert ledger.spent().upper < 1.0
    ledger.charge(dp.NonPrivateDpEvent(), label="open")
    assert ledger.spent().upper == math.inf
    ledger.verify()


def test_an_unlimited_ledger_still_reports_finite_numbers():
    ledger = _ledger(Budget(math.inf, 1e-5))
    ledger.charge(STEP, label="look")
    ledger.reserve(STEP, count=10_000, label="train")
    assert 5.0 < ledger.spent().upper < 20.0
    ledger.verify()


def test_a_plan_that_took_all_of_delta_says_so():
    ledger = _ledger()
    ledger.reserve(STEP, count=100, label="first")
    with pytest.raises(BudgetExceeded, match="delta is all taken"):
        ledger.reserve(STEP, count=100, label="second")
    with pytest.raises(BudgetExceeded, match=r"delta=0\.001 was asked"):
        ledger.reserve(STEP, label="second", delta=0.001)


def test_two_plans_share_epsilon_and_delta():
    ledger = _ledger()
    first = ledger.reserve(STEP, count=1000, label="first", delta=5e-6)
    second = ledger.reserve(STEP, count=200, label="second", delta=5e-6)
    total = first.bound.upper + second.bound.upper
    assert ledger.spent().upper == pytest.approx(total, rel=1e-12)
    assert ledger.spent().regime == "adaptive"
    with pytest.raises(BudgetExceeded):
        ledger.reserve(STEP, label="third", delta=1e-9)
    ledger.verify(recount=True)


def test_events_without_proof_are_refused():
    curve = RdpCurveDpEvent(
        orders=[2.0, 8.0],
        values=[0.01, 0.04],
        relation="add_remove",
        name="guess",
        provenance="none",
        certified=False,
    )
    with pytest.raises(NotCertified):
        _ledger().charge(curve, label="guess")


def test_events_of_another_relation_are_refused():
    batch = dp.SampledWithoutReplacementDpEvent(1000, 10, dp.GaussianDpEvent(1.0))
    with pytest.raises(ValueError):
        _ledger().charge(batch, label="fixed size")


def test_what_has_no_curve_is_pointed_to_a_plan():
    truncated = dp.TruncatedSubsampledGaussianDpEvent(1000, 0.01, 40, 2.0)
    ledger = _ledger()
    with pytest.raises(UnsupportedEvent, match=r"ledger\.reserve"):
        ledger.charge(truncated, label="step")
    assert ledger.reserve(truncated, count=10, label="plan").bound.certified


@pytest.mark.parametrize("filter", ["pure", "zcdp"])
def test_filters_refuse_what_they_have_no_proof_for(filter):
    with pytest.raises(UnsupportedEvent):
        _ledger(filter=filter).charge(STEP, label="sampled")


# Several ways of counting in one ledger -----------------------------------------


def test_pure_and_approximate_charges_enter_directly():
    ledger = _ledger()
    assert ledger.charge(PureDpEvent(0.5), label="a").body["counted"] == "approx"
    ledger.charge(ApproxDpEvent(0.25, 1e-6), count=2, label="b")
    ledger.charge(dp.LaplaceDpEvent(4.0), label="c")
    assert ledger.spent().upper == pytest.approx(1.25, rel=1e-9)
    with pytest.raises(BudgetExceeded):
        ledger.charge(ApproxDpEvent(0.1, 9e-6), label="too much delta")


def test_a_declared_part_leaves_the_rest_to_plans():
    ledger = _ledger(adaptive=Budget(1.0, 4e-6))
    ledger.charge(GAUSSIAN, label="look")
    grant = ledger.reserve(STEP, count=1000, label="train")
    assert grant.entry.body["counted"] == "approx"
    assert grant.bound.delta == 6e-6
    spent = ledger.spent().upper
    assert grant.bound.upper < spent <= grant.bound.upper + 1.0
    with pytest.raises(BudgetExceeded):
        ledger.charge(dp.GaussianDpEvent(1.0), label="more than its part")
    ledger.verify(recount=True)


def test_a_plan_after_the_filter_took_everything_is_counted_inside_it():
    ledger = _ledger()
    ledger.charge(GAUSSIAN, label="look")
    before = ledger.spent().upper
    with ledger.reserve(STEP, count=300, label="train") as grant:
        assert grant.entry.body["counted"] == "renyi"
        assert before < ledger.spent().upper <= 3.0
        reserved = ledger.spent().upper
        grant.commit(ran=100)
    assert before < ledger.spent().upper < reserved
    assert grant.bound.upper > 0.0
    ledger.verify(recount=True)


@pytest.mark.parametrize("relation", list(Relation))
def test_the_factor_of_replace_one_is_the_accountants(relation):
    """A Gaussian of multiplier 10 is one of multiplier 5 under replace_one."""
    ledger = _ledger(filter="zcdp", relation=relation)
    expected = 44 // (4 if relation is Relation.REPLACE_ONE else 1)
    assert _charge_until_refused(ledger, GAUSSIAN) == expected


# Reservations ------------------------------------------------------------------


def test_without_a_commit_all_stays_spent():
    ledger = _ledger(filter="zcdp")
    with ledger.reserve(GAUSSIAN, count=20, label="train"):
        during = ledger.spent().upper
    assert ledger.spent().upper == during
    with pytest.raises(KeyError), ledger.reserve(GAUSSIAN, count=5, label="fails"):
        raise KeyError("in the loop")
    assert ledger.remaining(GAUSSIAN) == 19


def test_an_early_stop_gives_back_what_is_counted_step_by_step():
    ledger = _ledger(filter="zcdp")
    with ledger.reserve(GAUSSIAN, count=40, label="train") as grant:
        assert ledger.remaining(GAUSSIAN) == 4
        grant.commit(ran=10)
    assert grant.committed
    assert ledger.remaining(GAUSSIAN) == 34
    ledger.verify()


def test_an_early_stop_gives_nothing_back_of_a_sealed_plan():
    ledger = _ledger()
    with ledger.reserve(STEP, count=1000, label="train") as grant:
        before = ledger.spent().upper
        grant.commit(ran=1)
    assert ledger.spent().upper == before


def test_only_an_explicit_word_gives_all_back():
    ledger = _ledger()
    with ledger.reserve(STEP, count=1000, label="train") as grant:
        with pytest.raises(ValueError, match="nothing_released"):
            grant.abort(nothing_released=False)
        grant.abort(nothing_released=True)
    assert ledger.spent().upper == 0.0
    assert ledger.entries()[-1].body["nothing_released"] is True
    ledger.reserve(STEP, count=1000, label="again")
    ledger.verify()


def test_a_checkpoint_speaks_against_an_abort_and_a_smaller_commit():
    ledger = _ledger(filter="zcdp")
    with ledger.reserve(GAUSSIAN, count=40, label="train") as grant:
        grant.checkpoint(7)
        with pytest.raises(ValueError, match="step=7"):
            grant.abort(nothing_released=True)
        with pytest.raises(ValueError, match="step=7"):
            grant.commit(ran=6)
        grant.checkpoint(3)
        grant.commit(ran=7)


def test_a_reservation_is_settled_once():
    ledger = _ledger(filter="zcdp")
    with ledger.reserve(GAUSSIAN, count=40, label="train") as grant:
        first = grant.commit(ran=7)
        assert grant.commit(ran=7) == first
        for again in (lambda: grant.commit(ran=8), lambda: grant.checkpoint(1)):
            with pytest.raises(ValueError, match="settled"):
                again()
        with pytest.raises(ValueError, match="settled"):
            grant.abort(nothing_released=True)
    with pytest.raises(RuntimeError, match="left"):
        grant.commit(ran=7)


@pytest.mark.parametrize("ran", [-1, 41, 2.0, True, "3", None])
def test_numbers_of_steps_are_checked(ran):
    with _ledger(filter="zcdp").reserve(GAUSSIAN, count=40, label="x") as grant:
        with pytest.raises((ValueError, TypeError)):
            grant.commit(ran=ran)


# Keys --------------------------------------------------------------------------


def test_the_same_key_is_the_same_charge():
    ledger = _ledger(filter="zcdp")
    first = ledger.charge(GAUSSIAN, label="a", key="run-1")
    assert ledger.charge(GAUSSIAN, label="a", key="run-1") == first
    assert len(ledger.entries()) == 2


def test_a_retry_is_not_refused_when_the_budget_is_used_up():
    ledger = _ledger(Budget(1.0, 0.0))
    ledger.charge(PureDpEvent(1.0), label="a", key="run-1")
    ledger.charge(PureDpEvent(1.0), label="a", key="run-1")
    with pytest.raises(BudgetExceeded):
        ledger.charge(PureDpEvent(1.0), label="a", key="run-2")


@pytest.mark.parametrize(
    "other",
    [
        lambda ledger: ledger.charge(dp.GaussianDpEvent(9.0), label="a", key="k"),
        lambda ledger: ledger.charge(GAUSSIAN, count=2, label="a", key="k"),
        lambda ledger: ledger.reserve(GAUSSIAN, label="a", key="k"),
    ],
)
def test_a_key_of_another_charge_is_refused(other):
    ledger = _ledger(filter="zcdp")
    ledger.charge(GAUSSIAN, label="a", key="k")
    with pytest.raises(ValueError, match="another charge"):
        other(ledger)


def test_a_reservation_is_resumed_by_its_key():
    ledger = _ledger()
    first = ledger.reserve(STEP, count=100, label="train", key="run-1")
    again = ledger.reserve(STEP, count=100, label="train", key="run-1")
    assert (first.resumed, again.resumed) == (False, True)
    assert not again.committed
    assert again.bound == first.bound
    again.commit(ran=100)
    assert ledger.reserve(STEP, count=100, label="train", key="run-1").committed
    assert sum(entry.kind == "reserve" for entry in ledger.entries()) == 1


def test_an_aborted_key_may_be_used_again():
    ledger = _ledger()
    with ledger.reserve(STEP, count=100, label="train", key="run-1") as grant:
        grant.abort(nothing_released=True)
    assert not ledger.reserve(STEP, count=100, label="train", key="run-1").resumed


# Release -----------------------------------------------------------------------


class _Spy:
    """A mechanism that remembers what the ledger held when it was called."""

    def __init__(self, ledger, event):
        self.ledger = ledger
        self.cost = event
        self.seen = []

    def event(self, relation):
        assert relation is Relation.ADD_REMOVE
        return self.cost

    def __call__(self, key, records):
        self.seen.append(self.ledger.entries()[-1])
        return records + key


def test_the_charge_is_in_the_ledger_before_the_mechanism_runs():
    ledger = _ledger()
    spy = _Spy(ledger, GAUSSIAN)
    assert ledger.release(spy, 1, 2, label="sum") == 3
    assert [(e.kind, e.label) for e in spy.seen] == [("release", "sum")]


def test_a_mechanism_over_budget_is_never_called():
    ledger = _ledger()
    spy = _Spy(ledger, dp.GaussianDpEvent(0.1))
    with pytest.raises(BudgetExceeded):
        ledger.release(spy, 1, 2, label="sum")
    assert spy.seen == []


# Scopes ------------------------------------------------------------------------


def _scoped() -> Any:
    scopes = {"site a": Budget(1.0, 0.0), "site b": Budget(2.0, 0.0)}
    return _ledger(Budget(2.5, 0.0), scopes=scopes)


def test_scopes_have_budgets_of_their_own():
    ledger = _scoped()
    ledger.charge(PureDpEvent(1.0), label="a", scope=["site a"])
    with pytest.raises(BudgetExceeded, match="site a"):
        ledger.charge(PureDpEvent(0.5), label="a", scope=["site a"])
    with pytest.raises(BudgetExceeded, match="site a"):
        ledger.charge(PureDpEvent(0.5), label="both", scope=["site b", "site a"])
    with pytest.raises(BudgetExceeded, match="site a"):
        ledger.charge(PureDpEvent(0.5), label="everyone")
    ledger.charge(PureDpEvent(1.5), label="b", scope=["site b"])
    with pytest.raises(BudgetExceeded, match="all"):
        ledger.charge(PureDpEvent(0.25), label="b", scope=["site b"])
    spent = {s: ledger.spent(scope=s).upper for s in ("all", "site a", "site b")}
    assert spent == {"all": 2.5, "site a": 1.0, "site b": 1.5}
    ledger.verify()


def test_a_charge_on_everyone_counts_in_every_scope():
    ledger = _scoped()
    ledger.charge(PureDpEvent(0.75), label="everyone")
    assert ledger.spent(scope="site b").upper == 0.75
    assert ledger.remaining(PureDpEvent(0.25), scope=["site a"]) == 1
    assert ledger.remaining(PureDpEvent(0.25), scope=["site b"]) == 5


@pytest.mark.parametrize("scope", ["site a", [], ["site c"], ["all"]])
def test_scopes_are_declared_names(scope):
    with pytest.raises((ValueError, TypeError)):
        _scoped().charge(PureDpEvent(0.1), label="x", scope=scope)


def test_each_scope_counts_by_its_own_filter():
    scopes = {"site": Budget(1.0, 1e-6)}
    ledger = _ledger(scopes=scopes)
    entry = ledger.charge(GAUSSIAN, label="look", scope=["site"])
    assert entry.body["cost"].keys() == {"all", "site"}
    assert ledger.spent(scope="site").upper <= 1.0
    ledger.charge(GAUSSIAN, label="everyone")
    ledger.verify(recount=True)


# Static ------------------------------------------------------------------------


def test_a_static_ledger_takes_one_sealed_plan():
    ledger = _ledger(regime="static")
    with pytest.raises(ValueError, match="seal"):
        ledger.charge(GAUSSIAN, label="look")
    with ledger.reserve(STEP, count=1000, label="train") as grant:
        grant.commit(ran=10)
    assert ledger.spent().regime == "static"
    assert ledger.spent().upper == pytest.approx(grant.bound.upper)
    for late in (GAUSSIAN, STEP):
        with pytest.raises(ValueError, match="not left in the sealed plan"):
            ledger.charge(late, label="train")
    assert ledger.remaining(STEP) == 0
    ledger.verify()


def test_items_of_a_sealed_plan_cost_nothing_more():
    ledger = _ledger(regime="static")
    plan = {"train": (STEP, 1000), "histogram": (GAUSSIAN, 2)}
    ledger.plan(plan, label="study")
    before = ledger.spent()
    composed = [repeat(STEP, 1000), repeat(GAUSSIAN, 2)]
    static = _static(composed)
    assert before.upper == pytest.approx(static.upper, rel=1e-9)
    ledger.charge(GAUSSIAN, label="histogram")
    ledger.charge(GAUSSIAN, label="histogram")
    with pytest.raises(ValueError, match="not left"):
        ledger.charge(GAUSSIAN, label="histogram")
    with pytest.raises(ValueError, match="not left"):
        ledger.charge(dp.GaussianDpEvent(11.0), label="train")
    with ledger.reserve(STEP, count=1000, label="train") as grant:
        assert grant.bound.upper == before.upper
    with pytest.raises(ValueError, match="one plan"):
        ledger.plan(plan, label="second study")
    assert ledger.spent() == before
    ledger.verify()


def test_an_adaptive_ledger_has_no_plan():
    with pytest.raises(ValueError, match="reserve"):
        _ledger().plan({"a": (GAUSSIAN, 1)}, label="x")


# Reports at other deltas -------------------------------------------------------


def test_a_smaller_delta_reports_a_larger_epsilon():
    ledger = _ledger(adaptive=Budget(1.0, 5e-6))
    ledger.charge(GAUSSIAN, label="look")
    ledger.charge(PureDpEvent(0.0625), label="pure")
    ledger.reserve(STEP, count=300, label="train", delta=5e-6)
    reports = [ledger.spent(d).upper for d in (1e-4, 1e-5, 1e-6, 1e-8)]
    assert reports[0] == reports[1]
    assert reports[1] < reports[2] < reports[3] < 10.0
    assert ledger.spent(1e-6).delta == 1e-6
    assert ledger.spent(0.0).upper == math.inf


def test_one_plan_reports_at_any_delta_by_its_accountant():
    ledger = _ledger()
    ledger.reserve(STEP, count=300, label="train")
    for delta in (1e-8, 1e-6):
        static = _static(repeat(STEP, 300), delta).upper
        assert ledger.spent(delta).upper == pytest.approx(static, rel=1e-9)
    assert ledger.spent(1e-3).upper == ledger.spent().upper


def test_an_approximate_charge_has_no_bound_below_its_delta():
    ledger = _ledger()
    ledger.charge(ApproxDpEvent(0.5, 1e-6), label="x")
    assert ledger.spent().upper == 0.5
    assert ledger.spent(1e-7).upper == math.inf


# Terms -------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["budget", "relation", "unit", "dataset"])
def test_creating_needs_every_term(missing):
    terms: dict[str, Any] = {"budget": BUDGET, **TERMS}
    with pytest.raises(ValueError, match=missing):
        Ledger.open(None, **terms | {missing: None})


@pytest.mark.parametrize(
    "other",
    [
        {"budget": Budget(4.0, 1e-5)},
        {"relation": "replace_one"},
        {"unit": "user"},
        {"dataset": "toy 1.1"},
        {"filter": "zcdp"},
        {"regime": "static"},
        {"adaptive": Budget(1.0, 1e-6)},
        {"scopes": {"a": Budget(1.0, 1e-6)}},
    ],
)
def test_other_terms_are_incompatible(tmp_path, other):
    path = tmp_path / "ledger.db"
    Ledger.open(path, budget=BUDGET, **TERMS).close()
    with pytest.raises(Incompatible, match=next(iter(other))):
        Ledger.open(path, **other)
    with Ledger.open(path, budget=BUDGET, **TERMS) as ledger:
        assert (ledger.budget, ledger.unit) == (BUDGET, "example")
        assert (ledger.relation, ledger.dataset) == (Relation.ADD_REMOVE, "toy 1.0")


@pytest.mark.parametrize(
    ("terms", "error"),
    [
        ({"relation": "neighbours"}, ValueError),
        ({"unit": ""}, ValueError),
        ({"dataset": 3}, TypeError),
        ({"budget": (3.0, 1e-5)}, TypeError),
        ({"regime": "free"}, ValueError),
        ({"filter": "rdp"}, ValueError),
        ({"filter": "zcdp", "budget": Budget(3.0, 0.0)}, ValueError),
        ({"adaptive": Budget(4.0, 1e-6)}, ValueError),
        ({"adaptive": Budget(1.0, 1e-4)}, ValueError),
        ({"adaptive": Budget(1.0, 0.0)}, ValueError),
        ({"regime": "static", "filter": "zcdp"}, ValueError),
        ({"scopes": {"all": Budget(1.0, 0.0)}}, ValueError),
    ],
)
def test_bad_terms_are_refused(tmp_path, terms, error):
    path = tmp_path / "ledger.db"
    with pytest.raises(error):
        Ledger.open(path, **{"budget": BUDGET} | TERMS | terms)
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"event": "gaussian"}, TypeError),
        ({"event": dp.GaussianDpEvent(math.nan)}, ValueError),
        ({"event": dp.GaussianDpEvent(0.0)}, ValueError),
        ({"count": 0}, ValueError),
        ({"count": 1.0}, TypeError),
        ({"count": True}, TypeError),
        ({"label": ""}, ValueError),
        ({"label": "two\nlines"}, ValueError),
        ({"label": None}, TypeError),
        ({"key": 7}, TypeError),
        ({"provenance": {"rows": [1, 2]}}, TypeError),
        ({"provenance": {"root": b"secret"}}, TypeError),
        ({"provenance": ["a"]}, TypeError),
    ],
)
def test_bad_charges_are_refused_and_nothing_is_written(arguments, error):
    ledger = _ledger()
    with pytest.raises(error):
        ledger.charge(**{"event": GAUSSIAN, "label": "x"} | arguments)
    assert len(ledger.entries()) == 1


def test_provenance_is_kept():
    facts = {"run": "r1", "steps": 7, "rate": 0.5, "insecure_seed": True}
    entry = _ledger().charge(GAUSSIAN, label="x", provenance=facts)
    assert entry.body["provenance"] == facts | {"rate": "0.5"}


def test_a_retired_ledger_takes_no_more():
    ledger = _ledger()
    ledger.charge(GAUSSIAN, label="x")
    ledger.retire("the data was deleted")
    with pytest.raises(ValueError, match="closed"):
        ledger.charge(GAUSSIAN, label="y")
    assert ledger.retired
    ledger.note("for the record")
    ledger.verify()


# Traces ------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["charge", "reserve", "release", "plan"])
@pytest.mark.parametrize("transform", ["jit", "vmap", "grad", "scan"])
def test_charging_inside_a_traced_function_is_refused(action, transform):
    ledger = _ledger(regime="static" if action == "plan" else "adaptive")

    def charge(x):
        if action == "release":
            ledger.release(_Spy(ledger, GAUSSIAN), 1, 2, label="x")
        elif action == "plan":
            ledger.plan({"a": (GAUSSIAN, 1)}, label="x")
        else:
            getattr(ledger, action)(GAUSSIAN, label="x")
        return x

    runs = {
        "jit": lambda: jax.jit(charge)(1.0),
        "vmap": lambda: jax.vmap(charge)(jax.numpy.ones(2)),
        "grad": lambda: jax.grad(charge)(1.0),
        "scan": lambda: jax.lax.scan(lambda c, x: (charge(c), x), 1.0, None, 2),
    }
    with pytest.raises(RuntimeError, match="traced"):
        runs[transform]()
    assert len(ledger.entries()) == 1


def test_the_guard_does_not_import_jax(monkeypatch):
    monkeypatch.delitem(sys.modules, "jax")
    _ledger().charge(GAUSSIAN, label="x")
    assert "jax" not in sys.modules


# Totals against a reference ----------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_totals_against_brute_force(seed):
    """Random charges, commits and aborts; totals by fractions, from the start."""
    random.seed(seed)
    ledger = _ledger(Budget(50.0, 0.0), filter="pure")
    live: dict[int, Fraction] = {}
    for number in range(60):
        size = random.choice([0.1, 0.25, 1e-7, 3.0, 1e-300])
        count = random.randint(1, 4)
        cost = Fraction(repr(size)) * count
        fits = sum(live.values()) + cost <= 50
        try:
            grant = ledger.reserve(PureDpEvent(size), count=count, label=str(number))
        except BudgetExceeded:
            assert not fits
            continue
        assert fits
        live[number] = cost
        if random.random() < 0.3:
            grant.abort(nothing_released=True)
            del live[number]
        elif random.random() < 0.5:
            grant.commit(ran=count - 1)
        expected = sum(live.values(), Fraction(0))
        found = Fraction(ledger.entries()[-1].body["after"]["totals"]["all"]["epsilon"])
        assert found == expected
        assert ledger.spent().upper >= float(expected)
    ledger.verify()
