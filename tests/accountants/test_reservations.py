"""Reservations: what a loop may release, its keys, and sealed plans."""

from typing import Any

import dp_accounting as dp
import pytest

from dpkit.accountants import (
    Budget,
    BudgetExceeded,
    LedgerCorrupt,
    PureDpEvent,
    repeat,
)
from dpkit.accountants.ledger.state import State, after, state_of
from tests.accountants.toy_ledgers import (
    BUDGET,
    GAUSSIAN,
    STEP,
    new_ledger,
    static_bound,
)

pytestmark = pytest.mark.usefixtures("every_database")

# Reservations ------------------------------------------------------------------


def test_without_a_commit_all_stays_spent():
    ledger = new_ledger(filter="zcdp")
    with ledger.reserve(GAUSSIAN, count=20, label="train"):
        during = ledger.spent().upper
    assert ledger.spent().upper == during
    with pytest.raises(KeyError), ledger.reserve(GAUSSIAN, count=5, label="fails"):
        raise KeyError("in the loop")
    assert ledger.remaining(GAUSSIAN) == 19


def test_an_early_stop_gives_back_what_is_counted_step_by_step():
    ledger = new_ledger(filter="zcdp")
    with ledger.reserve(GAUSSIAN, count=40, label="train") as grant:
        assert ledger.remaining(GAUSSIAN) == 4
        grant.commit(ran=10)
    assert grant.committed
    assert ledger.remaining(GAUSSIAN) == 34
    ledger.verify()


def test_an_early_stop_gives_nothing_back_of_a_sealed_plan():
    ledger = new_ledger(filter="approx")
    with ledger.reserve(STEP, count=1000, label="train") as grant:
        before = ledger.spent().upper
        grant.commit(ran=1)
    assert ledger.spent().upper == before


def test_only_an_explicit_word_gives_all_back():
    ledger = new_ledger()
    with ledger.reserve(STEP, count=1000, label="train") as grant:
        with pytest.raises(ValueError, match="nothing_released"):
            grant.abort(nothing_released=False)
        grant.abort(nothing_released=True)
    assert ledger.spent().upper == 0.0
    assert ledger.entries()[-1].body["nothing_released"] is True
    ledger.reserve(STEP, count=1000, label="again")
    ledger.verify()


def test_a_checkpoint_speaks_against_an_abort_and_a_smaller_commit():
    ledger = new_ledger(filter="zcdp")
    with ledger.reserve(GAUSSIAN, count=40, label="train") as grant:
        grant.checkpoint(7)
        with pytest.raises(ValueError, match="step=7"):
            grant.abort(nothing_released=True)
        with pytest.raises(ValueError, match="step=7"):
            grant.commit(ran=6)
        grant.checkpoint(3)
        grant.commit(ran=7)


def test_a_reservation_is_settled_once():
    ledger = new_ledger(filter="zcdp")
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
    with new_ledger(filter="zcdp").reserve(GAUSSIAN, count=40, label="x") as grant:
        with pytest.raises((ValueError, TypeError)):
            grant.commit(ran=ran)


# Keys --------------------------------------------------------------------------


def test_the_same_key_is_the_same_charge():
    ledger = new_ledger(filter="zcdp")
    first = ledger.charge(GAUSSIAN, label="a", key="run-1")
    assert ledger.charge(GAUSSIAN, label="a", key="run-1") == first
    assert len(ledger.entries()) == 2


def test_a_retry_is_not_refused_when_the_budget_is_used_up():
    ledger = new_ledger(Budget(1.0, 0.0))
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
    ledger = new_ledger(filter="zcdp")
    ledger.charge(GAUSSIAN, label="a", key="k")
    with pytest.raises(ValueError, match="another charge"):
        other(ledger)


def test_a_reservation_is_resumed_by_its_key():
    ledger = new_ledger()
    first = ledger.reserve(STEP, count=100, label="train", key="run-1")
    again = ledger.reserve(STEP, count=100, label="train", key="run-1")
    assert (first.resumed, again.resumed) == (False, True)
    assert not again.committed
    assert again.bound == first.bound
    again.commit(ran=100)
    assert ledger.reserve(STEP, count=100, label="train", key="run-1").committed
    assert sum(entry.kind == "reserve" for entry in ledger.entries()) == 1


REFUNDING: list[Any] = [{"filter": "zcdp"}, {"adaptive": BUDGET}]


@pytest.mark.parametrize("options", REFUNDING, ids=["zcdp", "renyi"])
@pytest.mark.parametrize("ran", [0, 1])
def test_steps_that_were_given_back_cannot_be_resumed(options, ran):
    """Else every restart would release what none of them paid for."""
    ledger = new_ledger(**options)
    plan: Any = {"count": 30, "label": "loop", "key": "nightly"}
    with ledger.reserve(GAUSSIAN, **plan) as grant:
        full = ledger.spent().upper
        grant.commit(ran)
    assert ledger.spent().upper < full
    head = ledger.head
    with pytest.raises(ValueError, match="gave the rest back"):
        ledger.reserve(GAUSSIAN, **plan)
    assert ledger.head == head
    ledger.verify(recount=True)


@pytest.mark.parametrize("options", REFUNDING, ids=["zcdp", "renyi"])
def test_a_key_with_two_holders_gives_nothing_back(options):
    """The first stops early while the second, resumed, goes on: all stays charged."""
    ledger = new_ledger(**options)
    plan: Any = {"count": 30, "label": "loop", "key": "nightly"}
    first = ledger.reserve(GAUSSIAN, **plan)
    second = ledger.reserve(GAUSSIAN, **plan)
    assert second.resumed
    full = ledger.spent().upper
    first.commit(ran=1)
    assert ledger.spent().upper == full
    for late in (lambda: second.checkpoint(30), lambda: second.commit(30)):
        with pytest.raises(ValueError, match="settled"):
            late()
    again = ledger.reserve(GAUSSIAN, **plan)
    assert again.resumed and again.committed
    assert ledger.spent().upper == full
    ledger.verify(recount=True)


def test_a_resumed_reservation_gives_nothing_back_to_either_holder():
    ledger = new_ledger(filter="zcdp")
    plan: Any = {"count": 40, "label": "loop", "key": "nightly"}
    grants = [ledger.reserve(GAUSSIAN, **plan) for _ in range(3)]
    assert [entry.kind for entry in ledger.entries()].count("resume") == 1
    full = ledger.spent().upper
    for grant in grants:
        with pytest.raises(ValueError, match="resumed"):
            grant.abort(nothing_released=True)
    grants[-1].commit(ran=3)
    assert ledger.spent().upper == full
    assert grants[0].commit(ran=3) == grants[-1].commit(ran=3)
    ledger.verify()


def test_a_finished_reservation_is_resumed_without_a_trace():
    ledger = new_ledger(filter="zcdp")
    plan: Any = {"count": 40, "label": "loop", "key": "nightly"}
    ledger.reserve(GAUSSIAN, **plan).commit(ran=40)
    head = ledger.head
    assert ledger.reserve(GAUSSIAN, **plan).committed
    assert ledger.head == head


@pytest.mark.parametrize("forged", ["commit", "abort"])
def test_a_forged_refund_after_a_resumption_is_found(forged):
    """The chain made anew over a refund that the rules don't allow."""
    ledger = new_ledger(filter="zcdp")
    for _ in range(2):
        ledger.reserve(GAUSSIAN, count=40, label="loop", key="nightly")
    with ledger._store.writing() as session:
        head, charged = session.head(), session.get(1)
        fields = {"commit": {"ran": 0}, "abort": {"nothing_released": True}}[forged]
        body = {"label": "loop", "ref": 1, **fields}
        # As if nobody had resumed it.
        state = after(state_of(head), forged, head.seq + 1, body, charged, [])
        session.append(head.followed_by(forged, body | {"after": state.to_json()}))
    assert ledger.spent().upper == 0.0
    with pytest.raises(LedgerCorrupt, match="seq=3"):
        ledger.verify()


def test_a_forged_plan_that_the_first_one_pays_is_found():
    """It would make the items of the first plan as good as new, again and again."""
    ledger = new_ledger(regime="static")
    ledger.plan({"train": (STEP, 10)}, label="study")
    ledger.reserve(STEP, count=10, label="train")
    with ledger._store.writing() as session:
        head, first = session.head(), session.get(1)
        body = head.body | {"items": first.body["items"], "count": 1}
        state = State.from_json(first.body["after"])
        body["after"] = after(state, "plan", head.seq + 1, body).to_json()
        session.append(head.followed_by("plan", body))
    assert ledger.reserve(STEP, count=9, label="train").count == 9
    with pytest.raises(LedgerCorrupt, match=r"seq=3.*second sealed plan"):
        ledger.verify()


def test_an_aborted_key_may_be_used_again():
    ledger = new_ledger()
    with ledger.reserve(STEP, count=100, label="train", key="run-1") as grant:
        grant.abort(nothing_released=True)
    assert not ledger.reserve(STEP, count=100, label="train", key="run-1").resumed


# Static ------------------------------------------------------------------------


def test_a_static_ledger_takes_one_sealed_plan():
    ledger = new_ledger(regime="static")
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
    ledger = new_ledger(regime="static")
    plan = {"train": (STEP, 1000), "histogram": (GAUSSIAN, 2)}
    ledger.plan(plan, label="study")
    before = ledger.spent()
    composed = [repeat(STEP, 1000), repeat(GAUSSIAN, 2)]
    static = static_bound(composed)
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
        new_ledger().plan({"a": (GAUSSIAN, 1)}, label="x")
