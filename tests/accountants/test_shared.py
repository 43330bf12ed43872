"""A ledger that many share: one Rényi filter, chosen by the first charge."""

import math
from fractions import Fraction
from typing import Any

import dp_accounting as dp
import numpy as np
import pytest
from dp_accounting import dp_event

from dpkit.accountants import (
    ApproxDpEvent,
    Budget,
    BudgetExceeded,
    Ledger,
    LedgerCorrupt,
    ParallelDpEvent,
    PureDpEvent,
    RandomAllocationDpEvent,
    UnsupportedEvent,
    repeat,
)
from dpkit.accountants.answers.exact import exact
from dpkit.accountants.rules.filters import RenyiFilter, offset, shared_filter
from tests.accountants.toy_ledgers import GAUSSIAN, STEP, new_ledger, static_bound

# One run of epsilon .3 by itself; a budget (3, 1e-5) holds 68, if all are fixed before.
RUN = dp.TruncatedSubsampledGaussianDpEvent(50_000, 0.01, 707, 2.679878), 500


def spent(ledger, **how):
    return ledger.spent(**how).upper


def test_many_runs_share_a_ledger_one_after_another():
    ledger = new_ledger()
    for number in range(50):
        ledger.reserve(RUN[0], count=RUN[1], label=str(number))
    assert {entry.body["counted"] for entry in ledger.entries()[1:]} == {"renyi"}
    static = static_bound(dp.SelfComposedDpEvent(RUN[0], 50 * RUN[1])).upper
    assert static < spent(ledger) <= 3.0
    ledger.verify()


@pytest.mark.parametrize(
    ("event", "budget", "least", "most"),
    [
        # At most what all orders with the whole delta would admit, by the sheet.
        (dp.LaplaceDpEvent(1000.0), Budget(1.0, 1e-6), 20_000, 68_000),
        (GAUSSIAN, Budget(3.0, 1e-5), 43, 44),
        (STEP, Budget(3.0, 1e-5), 2_000, 3_000),
    ],
)
def test_how_many_charges_fit(event, budget, least, most):
    ledger = new_ledger(budget=budget)
    ledger.charge(event, label="first")
    assert least <= 1 + ledger.remaining(event, sealed=False) <= most


def test_a_plan_made_for_all_of_a_budget_is_counted_by_the_tightest_accountant():
    step, ledger = dp.PoissonSampledDpEvent(0.01, dp.GaussianDpEvent(1.0)), new_ledger()
    count = ledger.remaining(step)
    grant = ledger.reserve(step, count=count, label="all of it")
    assert grant.entry.body["counted"] == "approx"
    assert spent(ledger) == static_bound(dp.SelfComposedDpEvent(step, count)).upper
    assert count > new_ledger().remaining(step, sealed=False)


def test_one_run_alone_keeps_its_tight_bound_beside_the_ledgers_report():
    """What else will be charged may depend on what came out, so the two differ."""
    ledger = new_ledger()
    grant = ledger.reserve(STEP, count=300, label="run", key="run")
    assert ledger.entries()[-1].body["counted"] == "renyi"
    static = static_bound(dp.SelfComposedDpEvent(STEP, 300)).upper
    own: Any = ledger.charged("run")
    assert own.upper == grant.bound.upper == static
    assert (own.delta, own.certified, own.regime) == (1e-5, True, "static")
    for delta in (1e-5, 1e-7):
        bound = ledger.spent(delta)
        static = static_bound(dp.SelfComposedDpEvent(STEP, 300), delta).upper
        assert bound.upper > 1.1 * static
        assert (bound.regime, bound.method_upper) == (
            "adaptive",
            "ledger, filter renyi",
        )
    before = spent(ledger)
    ledger.charge(GAUSSIAN, label="look")
    assert spent(ledger) > before
    assert ledger.charged("run") == own


def test_a_smaller_delta_scales_every_part_whatever_was_spent():
    """The report of what has a curve doesn't follow the deltas that others took."""
    ledger = new_ledger()
    ledger.charge(GAUSSIAN, label="first")
    before = spent(ledger, delta=1e-7)
    ledger.charge(ApproxDpEvent(0.0, 5e-9), label="a hundredth of its part")
    assert spent(ledger, delta=1e-7) == before
    ledger.charge(ApproxDpEvent(0.0, 1e-12), label="a little more")
    assert spent(ledger, delta=1e-7) == math.inf
    assert spent(ledger, delta=1.1e-7) < before
    assert spent(ledger) <= 3.0


def test_couplings_take_more_of_a_smaller_delta_where_the_report_is_larger():
    """(1 + e^epsilon) eta, epsilon what is reported there, not the budget's."""
    opened: Any = shared_filter(
        Budget(1.0, 1e-5), lambda orders: [0.001 * order for order in orders]
    )
    scale, full = Fraction(1, 100), [0.0] * len(opened.orders)
    full[0] = 1.0 - offset(opened.orders[0], 0.75 * opened.delta) - 1e-9
    full[1:] = [math.inf] * (len(full) - 1)
    larger = opened.spent_at(scale, full, Fraction(0), Fraction(0))
    assert 1.1 < larger < 3.0
    part = scale * exact(opened.coupled)
    fails = part / (1 + Fraction(math.exp(larger)))
    assert opened.spent_at(scale, full, Fraction(0), fails * 0.999) == larger
    assert opened.spent_at(scale, full, Fraction(0), fails * 1.01) == math.inf
    # Where the centre is dead, no epsilon was fixed for what another order reports.
    late = [math.inf] * len(full)
    late[3] = 0.0
    reached = opened.spent_at(scale, late, Fraction(0), Fraction(0))
    assert larger < reached < math.inf
    assert opened.spent_at(scale, late, Fraction(0), fails / 10**6) == math.inf


def test_the_order_of_the_first_charge_is_the_one_that_admits_most():
    seen = []

    def curve(orders):
        seen.append(orders)
        return [0.001 * order for order in orders]

    found: Any = shared_filter(Budget(3.0, 1e-5), curve)
    copies = [(3.0 - offset(a, 0.75 * 9e-6)) / (0.001 * a) for a in seen[0][:-1]]
    assert found.orders[0] == seen[0][int(np.argmax(copies))]
    assert math.fsum(found.shares) <= 1.0
    parts = (found.delta, found.approximate, found.coupled)
    assert sum(map(exact, parts)) <= exact(1e-5)
    assert shared_filter(Budget(3.0, 0.0), curve) is None
    assert shared_filter(Budget(3.0, 1e-5), lambda orders: [9.0] * len(orders)) is None


def test_deltas_are_split_once_and_never_follow_what_was_spent():
    """A filter whose delta shrinks with the slack spent is no filter."""
    ledger = new_ledger()
    ledger.charge(GAUSSIAN, label="first")
    opened = ledger.entries()[1].body["cost"]["all"]["opens"]
    fits = ledger.remaining(GAUSSIAN, sealed=False)
    ledger.charge(ApproxDpEvent(1e-9, 4.9e-7), label="nearly all of its part")
    assert ledger.remaining(GAUSSIAN, sealed=False) == fits
    with pytest.raises(BudgetExceeded):
        ledger.charge(ApproxDpEvent(1e-9, 2e-8), label="more than its part")
    found = RenyiFilter.from_json(opened)
    assert found.to_json() == opened
    ledger.verify()


def test_what_couples_badly_is_refused_however_small_its_loss():
    cut = dp.TruncatedSubsampledGaussianDpEvent(1000, 0.1, 160, 200.0)
    ledger = new_ledger()
    ledger.charge(GAUSSIAN, label="first")
    fits = ledger.remaining(cut, sealed=False)
    missed = exact(float(ledger._book.prices(cut).shared((2.0,)).missed))
    allowed = Fraction(1, 2_000_000) / (1 + Fraction(math.exp(3.0)))
    assert fits == int(allowed / missed) > 0
    ledger.charge(cut, count=fits, label="all that couples")
    with pytest.raises(BudgetExceeded, match="Rényi curves"):
        ledger.charge(cut, label="more")
    assert ledger.remaining(GAUSSIAN, sealed=False) > 0
    ledger.verify()


MIXED = (
    GAUSSIAN,
    STEP,
    RUN[0],
    PureDpEvent(0.01),
    ApproxDpEvent(0.01, 1e-9),
    dp.LaplaceDpEvent(50.0),
    RandomAllocationDpEvent(4.0, 100),
    dp_event.DiscreteLaplaceDpEvent(0.01, 2),
)


def test_whatever_has_a_curve_or_a_delta_enters_and_the_sum_is_honest():
    ledger = new_ledger()
    for number, event in enumerate(MIXED * 3):
        ledger.charge(event, label=str(number))
    whole = dp.ComposedDpEvent(list(MIXED * 3))
    for delta in (1e-5, 3e-6):
        # The best static bound there is, from above: the filter costs more than it.
        assert spent(ledger, delta=delta) >= 0.99 * static_bound(whole, delta).upper
    copy = new_ledger()
    copy.charge(whole, label="all at once")
    assert spent(copy) == pytest.approx(spent(ledger), rel=0.3)
    ledger.verify()


def hockey(pairs, epsilon):
    """delta(epsilon) of independent releases (p, q): all outcomes, one by one."""
    p = q = np.ones(1)
    for a, b in pairs:
        p, q = np.outer(p, a).ravel(), np.outer(q, b).ravel()
    return float(np.maximum(p - math.exp(epsilon) * q, 0.0).sum())


def worst(epsilon, delta):
    """The pair that dominates every (epsilon, delta)-DP release."""
    up = (1 - delta) / (1 + math.exp(-epsilon))
    down = 1 - delta - up
    return np.array([delta, up, down, 0.0]), np.array([0.0, down, up, delta])


@pytest.mark.parametrize("loss", [0.1, 0.25])
def test_a_full_ledger_of_approximate_releases_keeps_its_word(loss):
    """As many as it admits, each the worst there is: delta by brute force."""
    budget = Budget(2.0, 0.05)
    ledger, event = new_ledger(budget=budget), ApproxDpEvent(loss, 3e-4)
    count = 0
    while True:
        try:
            ledger.charge(event, label=str(count))
        except BudgetExceeded:
            break
        count += 1
    assert 3 <= count <= 10
    assert ledger.entries()[1].body["counted"] == "renyi"
    assert hockey([worst(loss, 3e-4)] * count, spent(ledger)) <= budget.delta
    assert hockey([worst(loss, 3e-4)] * count, budget.epsilon) <= budget.delta


def test_what_adds_up_as_well_leaves_room_for_plans():
    """A look that is pure and large, then a run: each by what is tightest for it."""
    ledger = new_ledger(budget=Budget(1.0, 1e-5))
    assert ledger.charge(PureDpEvent(0.25), label="look").body["counted"] == "approx"
    ledger.reserve(GAUSSIAN, label="run")
    assert spent(ledger) == pytest.approx(0.25 + static_bound(GAUSSIAN).upper)


@pytest.mark.parametrize("event", [dp.NonPrivateDpEvent(), PureDpEvent(800.0)])
def test_what_no_budget_holds_enters_no_ledger(event):
    for first in (None, GAUSSIAN, STEP, PureDpEvent(0.001)):
        ledger = new_ledger()
        if first is not None:
            ledger.charge(first, label="first")
        head = ledger.head
        for ask in (ledger.charge, ledger.reserve):
            with pytest.raises(BudgetExceeded):
                ask(event, label="never")
        assert ledger.remaining(event) == 0
        assert ledger.head == head


def test_steps_are_given_back_but_never_a_delta():
    ledger = new_ledger()
    grant = ledger.reserve(RUN[0], count=500, label="run")
    before = ledger.entries()[-1].body["after"]["totals"]["all"]
    with grant:
        grant.commit(100)
    after = ledger.entries()[-1].body["after"]["totals"]["all"]
    assert exact(after["renyi"][0]) == exact(before["renyi"][0]) / 5
    assert after["missed"] == before["missed"]
    ledger.verify()


def test_an_aborted_charge_leaves_the_choice_or_the_filter():
    ledger = new_ledger()
    with ledger.reserve(GAUSSIAN, label="one") as grant:
        grant.abort(nothing_released=True)
    assert spent(ledger) == 0.0
    ledger.charge(STEP, label="two")
    assert ledger.entries()[-1].body["counted"] == "renyi"
    ledger.verify()


@pytest.mark.parametrize("part", ["delta", "missed"])
def test_what_was_lowered_is_noticed(part):
    ledger = new_ledger()
    event = RUN[0] if part == "missed" else ApproxDpEvent(0.1, 1e-8)
    ledger.charge(event, label="x")
    lowered = new_ledger()
    real: Any = lowered._book.prices(event)
    one = real.shared(tuple(float(a) for a in orders_of(ledger)))
    changes = {"delta": {"lost": Fraction(0)}, "missed": {"missed": 0.0}}[part]
    real.shared = lambda orders: type(one)(
        tuple(type(real).shared(real, orders).values), one.lost, one.missed
    )._replace(**changes)
    lowered.charge(event, label="x")
    with pytest.raises(LedgerCorrupt, match="less"):
        verified_anew(lowered)


def orders_of(ledger):
    return ledger.entries()[1].body["cost"]["all"]["opens"]["orders"]


def verified_anew(ledger):
    """By prices that nobody has touched."""
    ledger._book._prices.clear()
    ledger.verify(recount=True)


def test_without_a_delta_epsilons_add_up():
    ledger = new_ledger(budget=Budget(1.0, 0.0))
    ledger.charge(dp.LaplaceDpEvent(2.0), count=2, label="two")
    assert ledger.entries()[-1].body["counted"] == "approx"
    with pytest.raises(BudgetExceeded):
        ledger.charge(GAUSSIAN, label="no")


def test_a_ledger_of_an_older_filter_stays_what_it_is(tmp_path):
    terms = {"relation": "add_remove", "unit": "example", "dataset": "toy"}
    budget = Budget(3.0, 1e-5)
    path = tmp_path / "l.db"
    Ledger.open(path, budget=budget, filter="approx", **terms).close()
    with Ledger.open(path) as ledger:
        ledger.reserve(STEP, count=10, label="run")
        assert ledger.entries()[-1].body["counted"] == "approx"


def test_scopes_choose_for_themselves():
    scopes = {"north": Budget(1.0, 1e-6)}
    ledger = new_ledger(scopes=scopes)
    ledger.charge(GAUSSIAN, label="everybody")
    ledger.charge(GAUSSIAN, label="north", scope="north")
    cost = ledger.entries()[-1].body["cost"]
    assert {name: each["as"] for name, each in cost.items()} == dict.fromkeys(
        ("all", "north"), "renyi"
    )
    ledger.verify()


# What is accepted, and what a refusal says ----------------------------------------


def test_parallel_releases_enter_as_the_worst_of_them():
    both = ParallelDpEvent([dp.GaussianDpEvent(20.0), dp.GaussianDpEvent(30.0)])
    one, ledger = new_ledger(), new_ledger()
    for book, event in ((one, dp.GaussianDpEvent(20.0)), (ledger, both)):
        book.charge(GAUSSIAN, label="first")
        book.charge(event, label="north and south")
    assert spent(ledger) == pytest.approx(spent(one), rel=1e-12)
    ledger.verify(recount=True)


@pytest.mark.parametrize("how", ["charge", "reserve"])
def test_what_has_no_curve_is_refused_as_that_and_not_for_want_of_budget(how):
    ledger = new_ledger()
    ledger.charge(GAUSSIAN, label="first")
    event = ParallelDpEvent([ApproxDpEvent(0.1, 1e-8), dp.GaussianDpEvent(30.0)])
    with pytest.raises(UnsupportedEvent, match="neither"):
        getattr(ledger, how)(event, label="x")
    assert ledger.remaining(GAUSSIAN) > 0


NOTHING: list[Any] = [PureDpEvent(0.0), dp.ZCDpEvent(0.0), ApproxDpEvent(0.0, 0.0)]


@pytest.mark.parametrize("nothing", [*NOTHING, dp.ComposedDpEvent(NOTHING)])
@pytest.mark.parametrize("how", ["charge", "reserve"])
def test_what_costs_nothing_decides_nothing(nothing, how):
    fits = new_ledger().remaining(GAUSSIAN, sealed=False)
    ledger = new_ledger()
    for _ in range(2):
        getattr(ledger, how)(nothing, label="nothing")
    assert spent(ledger) == 0.0
    assert spent(ledger, delta=0.0) == 0.0
    assert ledger.remaining(GAUSSIAN, sealed=False) == fits
    assert ledger.charge(GAUSSIAN, label="first").body["counted"] == "renyi"
    getattr(ledger, how)(nothing, label="nothing")
    assert ledger.remaining(GAUSSIAN, sealed=False) == fits - 1
    ledger.verify(recount=True)


def test_noise_that_no_pair_lists_is_counted_by_its_epsilon():
    """Its pair would take terabytes."""
    wide, ledger = dp_event.DiscreteLaplaceDpEvent(1e-15, 10**12), new_ledger()
    ledger.charge(wide, label="x")
    assert 0.0 < spent(ledger) <= 0.001 * (1 + 1e-9)
    ledger.charge(ParallelDpEvent([wide]), label="y")
    ledger.verify(recount=True)


@pytest.mark.parametrize("epsilon", [3.0, math.inf])
@pytest.mark.parametrize("first", [None, GAUSSIAN])
@pytest.mark.parametrize(
    "huge",
    [
        repeat(dp.GaussianDpEvent(1e-100), 10**85),
        repeat(PureDpEvent(1e308), 10**15),
        dp.ComposedDpEvent([PureDpEvent(1e308), PureDpEvent(1.1e308)]),
        dp.ZCDpEvent(1e308),
        PureDpEvent(1e308),
    ],
)
def test_sums_beyond_all_floats_are_refused_or_infinite(huge, first, epsilon):
    ledger = new_ledger(budget=Budget(epsilon, 1e-5))
    if first is not None:
        ledger.charge(first, label="first")
    for _ in range(3):
        for ask in (ledger.charge, ledger.reserve):
            if epsilon == math.inf:
                ask(huge, count=10**15, label="x")
                continue
            with pytest.raises(BudgetExceeded):
                ask(huge, count=10**15, label="x")
    assert epsilon < math.inf or spent(ledger) > 1e300
    ledger.verify(recount=True)


def test_all_of_the_budget_kept_for_charges_is_what_auto_does():
    kept = Budget(3.0, 1e-5)
    terms = dict(relation="add_remove", unit="example", dataset="toy")
    event = dp.SelfComposedDpEvent(*RUN)
    left = []
    for adaptive in (None, kept):
        ledger = Ledger.open(None, budget=kept, adaptive=adaptive, **terms)
        ledger.reserve(event, label="run")
        left.append(ledger.remaining(event))
    assert left[0] == left[1] >= 40
