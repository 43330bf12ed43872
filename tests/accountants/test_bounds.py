"""Bounds, budgets and the exceptions that callers branch on."""

import json
import math
import pickle
from typing import Any

import pytest

from dpkit.accountants.answers import errors
from dpkit.accountants.answers.bounds import Budget, DeltaBound, PrivacyBound
from dpkit.accountants.answers.relations import Relation, as_relation, shift


def test_a_bound_coerces_and_writes_itself():
    bound = PrivacyBound(
        delta=1e-5,
        lower=1,
        upper=math.inf,
        certified=True,
        method_upper="rdp",
        relation="zero_out",
        unit="user",
        warnings=("careful",),
    )
    assert bound.relation is Relation.ZERO_OUT
    written = json.loads(json.dumps(bound.to_json(), allow_nan=False))
    assert written == {
        "delta": 1e-5,
        "lower": 1.0,
        "estimate": None,
        "upper": "inf",
        "certified": True,
        "method_lower": None,
        "method_upper": "rdp",
        "method_estimate": None,
        "relation": "zero_out",
        "unit": "user",
        "regime": "static",
        "warnings": ["careful"],
    }


def test_a_delta_bound_has_epsilon_instead():
    written = DeltaBound(epsilon=1, upper=0.5, relation="add_remove").to_json()
    assert written["epsilon"] == 1.0
    assert "delta" not in written


@pytest.mark.parametrize(
    "wrong",
    [
        {"upper": math.nan},
        {"lower": 2.0, "upper": 1.0},
        {"upper": None, "certified": True},
        {"upper": -1.0},
        {"upper": 1.0, "delta": 1.5},
        {"upper": 1.0, "relation": "swap"},
        {"upper": 1.0, "regime": "dynamic"},
    ],
)
def test_bounds_that_say_nothing_honest_are_refused(wrong):
    asked: dict[str, Any] = {"delta": 1e-5, "relation": "add_remove"} | wrong
    with pytest.raises(ValueError, match="="):
        PrivacyBound(**asked)


@pytest.mark.parametrize(
    ("epsilon", "delta"), [(0, 0), (3, 1e-5), (math.inf, 0.5), (0.1, 0.0)]
)
def test_budgets_round_trip(epsilon, delta):
    budget = Budget(epsilon, delta)
    assert Budget.from_json(json.loads(json.dumps(budget.to_json()))) == budget


def test_a_budget_writes_decimal_strings():
    assert Budget(3, 1e-5).to_json() == {"epsilon": "3.0", "delta": "1e-05"}


@pytest.mark.parametrize(
    ("epsilon", "delta"), [(-1, 0), (math.nan, 0), (1, 1), (1, -0.1), (1, math.nan)]
)
def test_impossible_budgets_are_refused(epsilon, delta):
    with pytest.raises(ValueError, match="must be"):
        Budget(epsilon, delta)


def test_a_budget_takes_numbers_only():
    text: Any = "3"
    with pytest.raises(TypeError, match="epsilon"):
        Budget(text, 0.1)
    with pytest.raises(ValueError, match="epsilon and delta"):
        Budget.from_json({"epsilon": 1})


def test_relations_come_from_their_exact_names():
    assert as_relation(Relation.REPLACE_ONE) is as_relation("replace_one")
    assert [shift(relation) for relation in Relation] == [1, 2, 1]
    with pytest.raises(ValueError, match="add_remove, replace_one, zero_out"):
        as_relation("add-remove")
    with pytest.raises(TypeError, match="relation"):
        as_relation(None)


@pytest.mark.parametrize(
    "error",
    [
        errors.BudgetExceeded(1.0, 2.0, Budget(2.5, 0.0), "site", "ask for less"),
        errors.UnsupportedEvent("pld", "an event", "why"),
        errors.UnsupportedRelation("rdp", "replace_one", "an event", ["zero_out"]),
        errors.NotCertified("no"),
        errors.Incompatible("unit"),
        errors.LedgerCorrupt("entry 3"),
    ],
)
def test_errors_survive_pickling(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_errors_name_what_they_are_about():
    refused = errors.UnsupportedRelation("rdp", "replace_one", "Poisson", ["zero_out"])
    assert (refused.accountant, refused.allowed) == ("rdp", ("zero_out",))
    assert "Poisson" in str(refused)
    exceeded = errors.BudgetExceeded(1.0, 2.0, Budget(2.5, 0))
    assert (exceeded.asked, exceeded.spent) == (1.0, 2.0)
