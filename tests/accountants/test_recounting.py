"""Forgeries whose hashes and totals are all right: what verifying, and a recount, find.

Each is an entry as the ledger itself would have chained it, with another cost in it.
"""

import copy
from typing import Any

import dp_accounting as dp
import pytest

from dpkit.accountants import (
    ApproxDpEvent,
    Budget,
    LedgerCorrupt,
    PureDpEvent,
    to_json,
)
from dpkit.accountants.ledger.state import after, state_of
from tests.accountants.toy_ledgers import GAUSSIAN, STEP, new_ledger

CLEAR = dp.GaussianDpEvent(0.01)
ZERO = {"epsilon": "0", "delta": "0"}


def body_of(event, kind="charge", **how):
    """An honest body of a first charge."""
    count, budget = how.pop("count", 1), how.pop("budget", Budget(3.0, 1e-5))
    ledger = new_ledger(budget=budget, **how)
    getattr(ledger, kind)(event, count=count, label="x")
    return copy.deepcopy(ledger.entries()[1].body)


def forged(ledger, kind, body, **changes):
    """The ledger with one more entry, whose state and hash follow from its body."""
    with ledger._store.writing() as session:
        head = session.head()
        told = {k: v for k, v in (body | changes).items() if k != "after"}
        state = after(state_of(head), kind, head.seq + 1, told)
        session.append(head.followed_by(kind, told | {"after": state.to_json()}))
    return ledger


def shared():
    """A ledger in which one Rényi filter counts everything."""
    ledger = new_ledger()
    ledger.charge(GAUSSIAN, count=20, label="first")
    return ledger


def inside(**changes):
    """A body of a charge inside a filter that is open, with another cost."""
    body = body_of(GAUSSIAN)
    del body["cost"]["all"]["opens"]
    body["cost"]["all"] |= changes
    return body


def noticed(ledger, match, *, recount=True):
    """A recount finds it; where no accountant is needed, so does any verification."""
    ledger._book._prices.clear()
    with pytest.raises(LedgerCorrupt, match=match):
        ledger.verify(recount=recount)


@pytest.mark.parametrize("kind", ["spend", "reserve"])
@pytest.mark.parametrize("open_filter", [False, True])
def test_what_has_no_epsilon_of_its_own_is_not_free(kind, open_filter):
    free: Any = {"event": to_json(CLEAR), "counted": "approx"}
    free |= {"cost": {"all": {"as": "approx", **ZERO}}, "adaptive": kind == "spend"}
    ledger = forged(shared() if open_filter else new_ledger(), kind, inside() | free)
    if open_filter:
        noticed(ledger, "never does", recount=False)
    noticed(ledger, "less" if not open_filter else "never does")


@pytest.mark.parametrize("epsilon", ["0", "1.8"])
def test_a_plan_costs_what_the_accountants_say_at_its_delta(epsilon):
    """It is 1.828 at 1e-5; that it is not below the least possible is not enough."""
    body = body_of(STEP, "reserve", count=1000, filter="approx")
    honest = forged(new_ledger(filter="approx"), "reserve", copy.deepcopy(body))
    honest.verify(recount=True)
    body["cost"]["all"]["epsilon"] = epsilon
    noticed(forged(new_ledger(filter="approx"), "reserve", body), "less")


def test_a_bound_is_what_the_accountants_say():
    body = body_of(STEP, "reserve", count=1000)
    assert body["counted"] == "renyi"
    body["bound"] |= {"upper": "0.5", "estimate": None}
    noticed(forged(new_ledger(), "reserve", body), "less")
    body["bound"] |= {"upper": "3.0", "delta": "1e-9"}
    noticed(forged(new_ledger(), "reserve", body), "less")


def test_values_stand_where_the_filter_has_orders():
    cost = {"as": "renyi", **ZERO}
    body = inside() | {"event": to_json(CLEAR), "cost": {"all": cost}}
    noticed(forged(shared(), "spend", body), "never does", recount=False)


def test_no_other_way_of_counting_than_the_filters():
    values = inside()["cost"]["all"]["values"]
    body = inside(**{"as": "zcdp", "values": ["20", *["0"] * (len(values) - 1)]})
    body |= {"event": to_json(dp.GaussianDpEvent(0.5)), "counted": "zcdp"}
    noticed(forged(shared(), "spend", body), "never does", recount=False)


@pytest.mark.parametrize("name", ["epsilon", "delta", "missed", "values"])
def test_nothing_is_given_back_by_a_negative_number(name):
    value = ["-1"] * len(inside()["cost"]["all"]["values"])
    body = inside(**{name: value if name == "values" else "-1"})
    noticed(forged(shared(), "spend", body), "malformed", recount=False)
    pure = body_of(PureDpEvent(0.5), filter="pure", budget=Budget(1.0, 0.0))
    pure["cost"]["all"]["epsilon"] = "-0.5"
    ledger = new_ledger(filter="pure", budget=Budget(1.0, 0.0))
    ledger.charge(PureDpEvent(0.75), label="x")
    noticed(forged(ledger, "spend", pure), "less than nothing", recount=False)


def test_every_value_is_recounted_and_every_delta():
    for number in range(len(inside()["cost"]["all"]["values"])):
        body = inside()
        body["cost"]["all"]["values"][number] = "0"
        noticed(forged(shared(), "spend", body), "less")
    body = body_of(ApproxDpEvent(0.125, 1e-7), filter="approx")
    body["cost"]["all"]["delta"] = "1e-9"
    noticed(forged(new_ledger(filter="approx"), "spend", body), "less")


def test_a_filter_is_opened_once():
    body = body_of(dp.GaussianDpEvent(12.0))
    noticed(forged(shared(), "spend", body), "opens a filter", recount=False)


def test_a_filter_for_all_is_opened_by_the_first_charge():
    ledger = new_ledger()
    ledger.charge(PureDpEvent(1.0), label="first")
    assert ledger.entries()[-1].body["counted"] == "approx"
    body = body_of(GAUSSIAN, budget=Budget(2.0, 1e-5))
    noticed(forged(ledger, "spend", body), "charged before", recount=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [("orders", 2.0), ("delta", 0.5), ("coupled", 0.5), ("shares", 0.5)],
)
def test_a_filter_is_the_one_that_its_first_charge_chooses(name, value):
    body = body_of(GAUSSIAN)
    opens = body["cost"]["all"]["opens"]
    old = opens[name]
    new = [repr(float(x) * value) for x in (old if isinstance(old, list) else [old])]
    opens[name] = new if isinstance(old, list) else new[0]
    if name == "orders":
        body["cost"]["all"]["values"] = [
            repr(1.001 * float(order) / 200) for order in opens["orders"]
        ]
    noticed(forged(new_ledger(), "spend", body), "opens another filter")


def test_an_order_that_rounds_otherwise_is_no_forgery():
    body = body_of(GAUSSIAN)
    opens = body["cost"]["all"]["opens"]
    opens["orders"][2] = repr(float(opens["orders"][2]) * 1.001)
    body["cost"]["all"]["values"][2] = repr(
        1.001 * float(body["cost"]["all"]["values"][2])
    )
    forged(new_ledger(), "spend", body).verify(recount=True)


def test_a_sealed_plan_is_what_its_items_are():
    ledger = new_ledger(regime="static")
    ledger.plan({"train": (STEP, 10)}, label="study")
    body = copy.deepcopy(ledger.entries()[1].body)
    body["items"][0]["event"] = to_json(CLEAR)
    noticed(
        forged(new_ledger(regime="static"), "plan", body), "its items", recount=False
    )
    item = copy.deepcopy(ledger.reserve(STEP, label="train").entry.body)
    item["bound"]["upper"] = "0.001"
    noticed(forged(ledger, "reserve", item), "not an item", recount=False)


def test_an_honest_ledger_of_each_kind_is_recounted():
    for options in ({}, {"filter": "approx"}, {"adaptive": Budget(1.0, 5e-6)}):
        ledger = new_ledger(scopes={"north": Budget(3.0, 1e-5)}, **options)
        ledger.charge(dp.ZCDpEvent(0.0), label="nothing")
        ledger.charge(dp.GaussianDpEvent(40.0), label="look")
        ledger.charge(PureDpEvent(0.01), label="north", scope="north")
        ledger.reserve(STEP, count=20, label="run", delta=1e-7)
        ledger.verify(recount=True)
