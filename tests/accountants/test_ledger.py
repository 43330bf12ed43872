"""The ledger: refuses before it spends, whatever the order of events."""

import math
import pickle
import random
from fractions import Fraction
from typing import Any

import dp_accounting as dp
import pytest

from dpkit.accountants import (
    ApproxDpEvent,
    Budget,
    BudgetExceeded,
    Incompatible,
    Ledger,
    MetricLocalPureDpEvent,
    NotCertified,
    ParallelDpEvent,
    PureDpEvent,
    RdpCurveDpEvent,
    Relation,
    UnsupportedEvent,
    repeat,
)
from dpkit.accountants.rules.filters import offset
from tests.accountants.toy_ledgers import (
    BUDGET,
    GAUSSIAN,
    STEP,
    new_ledger,
    static_bound,
)
from tests.accountants.worked_runs import thinned


def _charge_until_refused(ledger, event, limit=200):
    for number in range(limit):
        try:
            ledger.charge(event, label=f"charge {number}")
        except BudgetExceeded:
            return number
    return limit


pytestmark = pytest.mark.usefixtures("every_database")

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
    ledger = new_ledger(filter=filter)
    assert ledger.remaining(event, sealed=False) == expected
    assert _charge_until_refused(ledger, event) == expected
    assert ledger.spent().upper <= 3.0
    ledger.verify(recount=True)


def test_the_adaptive_filter_keeps_most_of_what_one_order_with_all_of_delta_allows():
    """Between the static optimum (51) and the six orders alone (38)."""
    found = _charge_until_refused(new_ledger(), GAUSSIAN)
    assert 38 <= found <= 44


def test_adaptive_charges_count_as_a_brute_force_search_says():
    """Orders and shares as the ledger wrote them, sums and conversion by hand."""
    ledger = new_ledger()
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
    ledger = new_ledger()
    entry = ledger.charge(STEP, count=300, label="epoch")
    assert entry.body["counted"] == "renyi"
    # The price of adaptive choices: a share of delta for each order.
    static = static_bound(repeat(STEP, 300)).upper
    assert static < ledger.spent().upper < 2 * static
    assert ledger.spent().regime == "adaptive"


@pytest.mark.parametrize(
    ("event", "count"), [(STEP, 2000), (GAUSSIAN, 50), (PureDpEvent(0.1), 30)]
)
def test_a_plan_enters_as_its_tightest_bound(event, count):
    ledger = new_ledger(filter="approx")
    with ledger.reserve(event, count=count, label="train") as grant:
        pass
    static = static_bound(repeat(event, count))
    assert grant.entry.body["counted"] == "approx"
    assert grant.bound.upper == pytest.approx(static.upper, rel=1e-12)
    assert ledger.spent() == grant.bound
    assert ledger.spent().regime == "static"
    ledger.verify(recount=True)


def test_fifty_one_gaussians_fit_as_a_plan_and_no_more():
    """mu = sqrt(n)/10; (3, 1e-5) allows mu <= 0.71956 (Balle & Wang, mpmath)."""
    ledger = new_ledger()
    assert ledger.remaining(GAUSSIAN) == 51
    with pytest.raises(BudgetExceeded):
        ledger.reserve(GAUSSIAN, count=52, label="too long")
    ledger.reserve(GAUSSIAN, count=51, label="exactly")
    assert ledger.remaining(GAUSSIAN) == 0


def test_remaining_is_what_reserve_accepts():
    ledger = new_ledger()
    ledger.reserve(PureDpEvent(1.0), label="first", delta=0.0)
    most = ledger.remaining(STEP)
    assert most > 100
    with pytest.raises(BudgetExceeded):
        ledger.reserve(STEP, count=most + 1, label="one more")
    ledger.reserve(STEP, count=most, label="all of it")


# Refusals ----------------------------------------------------------------------


def test_a_refusal_writes_nothing_and_says_what_to_do():
    ledger = new_ledger(filter="zcdp")
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
    ledger = new_ledger(Budget(3.0, 0.0))
    for _ in range(3):
        ledger.charge(PureDpEvent(1.0), label="third")
    assert ledger.spent().upper == 3.0
    for tiny in (5e-324, 1e-300, 1e-16):
        with pytest.raises(BudgetExceeded):
            ledger.charge(PureDpEvent(tiny), label="subnormal")
    ledger.charge(PureDpEvent(0.0), label="free")


def test_ten_plans_of_a_tenth_fill_a_budget_of_one():
    ledger = new_ledger(Budget(1.0, 0.0))
    for number in range(10):
        ledger.reserve(PureDpEvent(0.1), label=f"plan {number}")
    assert ledger.spent().upper == 1.0
    with pytest.raises(BudgetExceeded):
        ledger.reserve(PureDpEvent(5e-324), label="subnormal")


def test_a_subnormal_is_refused_by_the_renyi_filter_too():
    ledger = new_ledger(filter="zcdp")
    order = float(ledger.entries()[0].body["opens"]["all"]["orders"][0])
    rho = (3.0 - offset(order, 1e-5)) / order
    ledger.charge(dp.ZCDpEvent(math.nextafter(rho * (1 - 1e-13), 0)), label="all")
    with pytest.raises(BudgetExceeded):
        ledger.charge(dp.ZCDpEvent(rho * 1e-12), label="a little more")


def test_a_budget_of_zero_is_zero():
    ledger = new_ledger(Budget(0.0, 0.0))
    with pytest.raises(BudgetExceeded):
        ledger.charge(PureDpEvent(1e-9), label="x")
    with pytest.raises(BudgetExceeded):
        ledger.reserve(GAUSSIAN, label="x")
    assert ledger.spent().upper == 0.0


def test_no_privacy_needs_an_infinite_budget():
    with pytest.raises(BudgetExceeded):
        new_ledger().charge(dp.NonPrivateDpEvent(), label="open")
    with pytest.raises(BudgetExceeded):
        new_ledger().reserve(dp.NonPrivateDpEvent(), label="open")
    ledger = new_ledger(Budget(math.inf, 1e-5))
    ledger.charge(GAUSSIAN, label="finite")
    assert ledger.spent().upper < 1.0
    ledger.charge(dp.NonPrivateDpEvent(), label="open")
    assert ledger.spent().upper == math.inf
    ledger.verify()


def test_an_unlimited_ledger_still_reports_finite_numbers():
    ledger = new_ledger(Budget(math.inf, 1e-5))
    ledger.charge(STEP, label="look")
    ledger.reserve(STEP, count=10_000, label="train")
    assert 5.0 < ledger.spent().upper < 20.0
    ledger.verify()


def test_a_plan_that_took_all_of_delta_says_so():
    ledger = new_ledger(filter="approx")
    ledger.reserve(STEP, count=100, label="first")
    with pytest.raises(BudgetExceeded, match="delta is all taken"):
        ledger.reserve(STEP, count=100, label="second")
    with pytest.raises(BudgetExceeded, match=r"delta=0\.001 was asked"):
        ledger.reserve(STEP, label="second", delta=0.001)


def test_two_plans_share_epsilon_and_delta():
    ledger = new_ledger(filter="approx")
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
        new_ledger().charge(curve, label="guess")


def test_events_of_another_relation_are_refused():
    batch = dp.SampledWithoutReplacementDpEvent(1000, 10, dp.GaussianDpEvent(1.0))
    with pytest.raises(ValueError):
        new_ledger().charge(batch, label="fixed size")


def test_what_has_no_curve_is_pointed_to_a_plan():
    truncated = dp.TruncatedSubsampledGaussianDpEvent(1000, 0.01, 40, 2.0)
    ledger = new_ledger(filter="approx")
    with pytest.raises(UnsupportedEvent, match=r"ledger\.reserve"):
        ledger.charge(truncated, label="step")
    assert ledger.reserve(truncated, count=10, label="plan").bound.certified


def test_what_nothing_reads_is_not_pointed_anywhere():
    ledger, metric = new_ledger(), MetricLocalPureDpEvent(1.0, "metre")
    for event in (metric, repeat(metric, 3), ParallelDpEvent([metric, STEP])):
        for _ in range(2):
            for ask in (ledger.charge, ledger.reserve):
                with pytest.raises(UnsupportedEvent, match="no accountant") as caught:
                    ask(event, label="x")
                assert "ledger." not in str(caught.value)
            with pytest.raises(UnsupportedEvent, match="no accountant"):
                ledger.remaining(event)
            # Whatever is left in the ledger.
            ledger.charge(dp.GaussianDpEvent(9.0), label="y")


@pytest.mark.parametrize("filter", ["pure", "zcdp"])
def test_filters_refuse_what_they_have_no_proof_for(filter):
    with pytest.raises(UnsupportedEvent):
        new_ledger(filter=filter).charge(STEP, label="sampled")


# Several ways of counting in one ledger -----------------------------------------


def test_pure_and_approximate_charges_enter_directly():
    ledger = new_ledger(filter="approx")
    assert ledger.charge(PureDpEvent(0.5), label="a").body["counted"] == "approx"
    ledger.charge(ApproxDpEvent(0.25, 1e-6), count=2, label="b")
    ledger.charge(dp.LaplaceDpEvent(4.0), label="c")
    assert ledger.spent().upper == pytest.approx(1.25, rel=1e-9)
    with pytest.raises(BudgetExceeded):
        ledger.charge(ApproxDpEvent(0.1, 9e-6), label="too much delta")


def test_a_declared_part_leaves_the_rest_to_plans():
    ledger = new_ledger(adaptive=Budget(1.0, 4e-6))
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
    ledger = new_ledger()
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
    ledger = new_ledger(filter="zcdp", relation=relation)
    expected = 44 // (4 if relation is Relation.REPLACE_ONE else 1)
    assert _charge_until_refused(ledger, GAUSSIAN) == expected


# Reports at other deltas -------------------------------------------------------


def test_a_smaller_delta_reports_a_larger_epsilon():
    ledger = new_ledger(adaptive=Budget(1.0, 5e-6))
    ledger.charge(GAUSSIAN, label="look")
    ledger.charge(PureDpEvent(0.0625), label="pure")
    ledger.reserve(STEP, count=300, label="train", delta=5e-6)
    reports = [ledger.spent(d).upper for d in (1e-4, 1e-5, 1e-6, 1e-8)]
    assert reports[0] == reports[1]
    assert reports[1] < reports[2] < reports[3] < 10.0
    assert ledger.spent(1e-6).delta == 1e-6
    assert ledger.spent(0.0).upper == math.inf


def test_one_plan_reports_at_any_delta_by_its_accountant():
    ledger = new_ledger(filter="approx")
    ledger.reserve(STEP, count=300, label="train")
    for delta in (1e-8, 1e-6):
        static = static_bound(repeat(STEP, 300), delta).upper
        assert ledger.spent(delta).upper == pytest.approx(static, rel=1e-9)
    assert ledger.spent(1e-3).upper == ledger.spent().upper


def test_an_approximate_charge_has_no_bound_below_its_delta():
    ledger = new_ledger()
    ledger.charge(ApproxDpEvent(0.5, 1e-6), label="x")
    assert ledger.spent().upper == 0.5
    assert ledger.spent(1e-7).upper == math.inf


# Totals against a reference ----------------------------------------------------


@pytest.mark.parametrize(("seed",), thinned(zip(range(4)), (0, 1)))
def test_totals_against_brute_force(seed):
    """Random charges, commits and aborts; totals by fractions, from the start."""
    random.seed(seed)
    ledger = new_ledger(Budget(50.0, 0.0), filter="pure")
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


def test_a_ledger_of_unnamed_data_takes_any_name(tmp_path):
    terms = dict(relation="add_remove", unit="example")
    path = tmp_path / "l.db"
    Ledger.open(path, budget=Budget(1.0, 0.0), dataset="unnamed", **terms).close()
    with Ledger.open(path, dataset="mnist 3.0.1", **terms) as ledger:
        assert ledger.dataset == "unnamed"
    with pytest.raises(Incompatible):
        Ledger.open(path, relation="zero_out", dataset="mnist 3.0.1")
