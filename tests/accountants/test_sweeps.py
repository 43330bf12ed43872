"""A sweep: several runs that are sealed together, and counted as one plan."""

import dp_accounting as dp
import pytest

from dpkit.accountants import (
    Budget,
    BudgetExceeded,
    Ledger,
    LedgerCorrupt,
    PureDpEvent,
    merge,
)
from dpkit.accountants.answers.exact import exact
from dpkit.accountants.events import repeat, sequential
from dpkit.accountants.ledger.state import after, state_of
from tests.accountants.test_shared import RUN, orders_of
from tests.accountants.toy_ledgers import GAUSSIAN, STEP, new_ledger, static_bound

pytestmark = pytest.mark.usefixtures("every_database")
SMALL = {"kind": "pure", "v": 1, "epsilon": "0.1"}
SWEEP = [GAUSSIAN, (STEP, 100), GAUSSIAN, GAUSSIAN]


def static_of_sweep(delta=1e-5):
    whole = sequential([repeat(GAUSSIAN, 3), repeat(STEP, 100)])
    return static_bound(whole, delta).upper


def test_a_sweep_holds_what_the_tightest_accountant_allows_together():
    ledger = new_ledger()
    with pytest.raises(BudgetExceeded, match="the first 68 of its 69 runs would fit"):
        ledger.reserve([RUN] * 69, label="sweep")
    grant = ledger.reserve([RUN] * 68, label="sweep")
    assert len(grant.runs) == 68
    assert grant.entry.body["counted"] == "approx"
    static = static_bound(dp.SelfComposedDpEvent(RUN[0], 68 * RUN[1])).upper
    assert ledger.spent().upper == grant.bound.upper == static <= 3.0
    assert grant[67].bound.upper == static_bound(dp.SelfComposedDpEvent(*RUN)).upper
    assert grant[67].bound.delta == 1e-5
    assert len(grant.entry.text) < 3000
    ledger.verify(recount=True)


def test_runs_may_differ_and_are_marked_in_any_order():
    ledger = new_ledger(filter="approx")
    with ledger.reserve(SWEEP, label="sweep", delta=5e-6, key="sweep") as grant:
        assert [(run.event, run.count) for run in grant.runs] == [
            (GAUSSIAN, 1),
            (STEP, 100),
            (GAUSSIAN, 1),
            (GAUSSIAN, 1),
        ]
        assert grant.bound.upper == pytest.approx(static_of_sweep(5e-6), rel=1e-12)
        noted = [grant[place].commit() for place in (2, 1, 2, -1)]
        assert [entry.body["run"] for entry in noted] == [2, 1, 2, 3]
        assert noted[0] == noted[2]
        with pytest.raises(ValueError, match="checkpoint"):
            grant.abort(nothing_released=True)
        with pytest.raises(IndexError):
            grant[4]
        grant.commit(grant.count)
    with pytest.raises(RuntimeError, match="left"):
        grant[0].commit()
    ledger.verify(recount=True)


@pytest.mark.parametrize("opening", [None, GAUSSIAN])
def test_in_a_shared_filter_it_is_counted_by_its_curve_and_never_given_back(opening):
    ledger = new_ledger()
    if opening is not None:
        ledger.charge(opening, label="first")
    with ledger.reserve(SWEEP, label="sweep") as grant:
        assert grant.entry.body["counted"] == "renyi"
        one, before = new_ledger(), state_of(grant.entry).of("all")
        for event, count in (
            run if isinstance(run, tuple) else (run, 1) for run in SWEEP
        ):
            one.reserve(event, count=count, label="x")
        orders = tuple(map(float, orders_of(ledger)))
        prices = [ledger._book.prices(run.event).shared(orders) for run in grant.runs]
        sums = sum(
            float(p.values[0]) * r.count
            for p, r in zip(prices, grant.runs, strict=True)
        )
        cost = grant.entry.body["cost"]["all"]["values"][0]
        assert float(exact(cost)) == pytest.approx(sums, rel=1e-9)
        grant.commit(0)
    assert state_of(ledger.entries()[-1]).of("all") == before
    assert grant.bound.upper == pytest.approx(static_of_sweep(), rel=1e-12)
    ledger.verify(recount=True)


def test_it_is_resumed_by_its_key_and_settled_by_another():
    ledger = new_ledger()
    ledger.reserve(SWEEP, label="sweep", key="k")
    spent = ledger.spent()
    assert ledger.reserve(list(SWEEP), label="sweep", key="k").resumed
    ledger.granted("k")[1].commit()
    for other in (SWEEP[:3], SWEEP[::-1], [*SWEEP, GAUSSIAN]):
        with pytest.raises(ValueError, match="belongs to another"):
            ledger.reserve(other, label="sweep", key="k")
    with pytest.raises(ValueError, match="belongs to another"):
        ledger.reserve(GAUSSIAN, label="sweep", key="k")
    assert ledger.spent() == spent
    assert ledger.charged("k").upper == pytest.approx(static_of_sweep(), rel=1e-12)


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        (lambda ledger: ledger.reserve([], label="x"), TypeError),
        (lambda ledger: ledger.reserve("abc", label="x"), (TypeError, ValueError)),
        (lambda ledger: ledger.reserve([GAUSSIAN, 3], label="x"), TypeError),
        (lambda ledger: ledger.reserve([(GAUSSIAN, 0)], label="x"), ValueError),
        (lambda ledger: ledger.reserve([(GAUSSIAN, 1, 2)], label="x"), ValueError),
        (lambda ledger: ledger.reserve([GAUSSIAN], count=2, label="x"), ValueError),
        (lambda ledger: ledger.charge([GAUSSIAN], label="x"), ValueError),
    ],
)
def test_what_is_no_sweep_is_refused(ask, error):
    ledger = new_ledger()
    with pytest.raises(error):
        ask(ledger)
    assert len(ledger.entries()) == 1


def test_it_is_copied_merged_and_sealed_in_a_static_ledger(tmp_path):
    ledger = new_ledger(filter="approx")
    ledger.reserve(SWEEP, label="sweep", key="k")
    ledger.export_jsonl(tmp_path / "lines")
    with Ledger.import_jsonl(tmp_path / "lines", tmp_path / "copy.db") as copy:
        assert copy.granted("k")[1].count == 100
    merged = merge([ledger], None)
    assert merged.spent().upper == pytest.approx(ledger.spent().upper, rel=1e-12)
    fixed = new_ledger(regime="static")
    grant = fixed.reserve(SWEEP, label="sweep")
    assert fixed.spent().upper == grant.bound.upper
    assert len(grant.runs) == 4
    fixed.verify(recount=True)


def test_pure_runs_are_added_exactly():
    ledger = new_ledger(budget=Budget(1.0, 0.0))
    thirds = [dp.LaplaceDpEvent(3.0), dp.LaplaceDpEvent(3.0), PureDpEvent(0.25)]
    grant = ledger.reserve(thirds, label="sweep")
    assert grant[0].bound.upper == pytest.approx(1 / 3)
    ledger.charge(dp.LaplaceDpEvent(12.0), label="the rest")
    assert ledger.spent().upper == 1.0


@pytest.mark.parametrize(
    "change",
    [
        {"runs": [{"event": SMALL, "count": 1, "times": 4}]},
        {"runs": []},
        {"count": 2},
    ],
)
def test_runs_that_are_not_what_was_charged_are_noticed(change):
    ledger = new_ledger(budget=Budget(9.0, 1e-4))
    ledger.reserve(SWEEP, label="this one opens the filter")
    entry = ledger.reserve(SWEEP, label="sweep").entry
    for body, same in ((entry.body, True), ({**entry.body, **change}, False)):
        head = ledger.entries()[-1]
        told = after(state_of(head), "reserve", head.seq + 1, body).to_json()
        with ledger._store.writing() as session:
            session.append(head.followed_by("reserve", {**body, "after": told}))
        if same:
            ledger.verify()
    with pytest.raises(LedgerCorrupt, match="seq=4: malformed"):
        ledger.verify()


def test_a_run_that_is_not_in_the_sweep_is_noticed():
    ledger = new_ledger()
    grant = ledger.reserve(SWEEP, label="sweep")
    ledger._book.settle(grant.entry, "checkpoint", {"run": 4, "step": 1})
    with pytest.raises(LedgerCorrupt, match="seq=2"):
        ledger.verify()
