"""The terms of a ledger, its scopes, and what may be charged and from where."""

import math
import sys
from typing import Any

import dp_accounting as dp
import jax
import pytest

from dpkit.accountants import (
    Budget,
    BudgetExceeded,
    Incompatible,
    Ledger,
    PureDpEvent,
    Relation,
)
from tests.accountants.toy_ledgers import (
    BUDGET,
    GAUSSIAN,
    TERMS,
    new_ledger,
)

pytestmark = pytest.mark.usefixtures("every_database")

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
    ledger = new_ledger()
    spy = _Spy(ledger, GAUSSIAN)
    assert ledger.release(spy, 1, 2, label="sum") == 3
    assert [(e.kind, e.label) for e in spy.seen] == [("release", "sum")]


def test_a_mechanism_over_budget_is_never_called():
    ledger = new_ledger()
    spy = _Spy(ledger, dp.GaussianDpEvent(0.1))
    with pytest.raises(BudgetExceeded):
        ledger.release(spy, 1, 2, label="sum")
    assert spy.seen == []


# Scopes ------------------------------------------------------------------------


def _scoped() -> Any:
    scopes = {"site a": Budget(1.0, 0.0), "site b": Budget(2.0, 0.0)}
    return new_ledger(Budget(2.5, 0.0), scopes=scopes)


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


def test_one_scope_may_be_named_by_itself():
    by_name, by_list = _scoped(), _scoped()
    one = by_name.charge(PureDpEvent(0.5), label="a", scope="site a")
    other = by_list.charge(PureDpEvent(0.5), label="a", scope=["site a"])
    assert one.body == other.body
    assert by_name.remaining(PureDpEvent(0.5), scope="site a") == 1
    with pytest.raises(BudgetExceeded, match="site a"):
        by_name.reserve(PureDpEvent(0.25), count=3, label="loop", scope="site a")
    by_name.verify()


@pytest.mark.parametrize("scope", ["site", "", [], 7, None, ["site c"], ["all"]])
def test_scopes_are_declared_names(scope):
    with pytest.raises((ValueError, TypeError)):
        _scoped().charge(PureDpEvent(0.1), label="x", scope=scope)


def test_each_scope_counts_by_its_own_filter():
    scopes = {"site": Budget(1.0, 1e-6)}
    ledger = new_ledger(scopes=scopes)
    entry = ledger.charge(GAUSSIAN, label="look", scope=["site"])
    assert entry.body["cost"].keys() == {"all", "site"}
    assert ledger.spent(scope="site").upper <= 1.0
    ledger.charge(GAUSSIAN, label="everyone")
    ledger.verify(recount=True)


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
    ledger = new_ledger()
    with pytest.raises(error):
        ledger.charge(**{"event": GAUSSIAN, "label": "x"} | arguments)
    assert len(ledger.entries()) == 1


def test_provenance_is_kept():
    facts = {"run": "r1", "steps": 7, "rate": 0.5, "insecure_seed": True}
    entry = new_ledger().charge(GAUSSIAN, label="x", provenance=facts)
    assert entry.body["provenance"] == facts | {"rate": "0.5"}


def test_a_retired_ledger_takes_no_more():
    ledger = new_ledger()
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
    ledger = new_ledger(regime="static" if action == "plan" else "adaptive")

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
    new_ledger().charge(GAUSSIAN, label="x")
    assert "jax" not in sys.modules
