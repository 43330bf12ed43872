"""Accountants side by side: the registry decides who is asked, facts flag estimates."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
from dp_accounting import GaussianDpEvent

from dpkit.accountants import PrivacyBound, PureDpEvent, UnsupportedEvent, repeat
from dpkit.accountants.readings.best import ACCOUNTANTS
from dpkit.budget.comparison import compare

TRUE = 4.37717809568  # analytic Gaussian, sigma 1, delta 1e-5, by mpmath
AT = {"delta": 1e-5, "relation": "add_remove"}


def bound(**fields):
    return PrivacyBound(**AT, **fields)


def guess(answer):
    """An accountant that always says the same."""

    def epsilon(event, delta, *, relation):
        if isinstance(answer, Exception):
            raise answer
        return answer

    return SimpleNamespace(epsilon=epsilon)


def test_everybody_in_the_registry_is_asked(monkeypatch):
    found = compare(GaussianDpEvent(1.0), **AT, unit="user")
    assert [r.accountant for r in found] == list(ACCOUNTANTS)
    known: dict[str, Any] = {r.accountant: r for r in found}
    for name in ("pld", "rdp"):
        upper = known[name].bound.upper
        assert TRUE - 1e-9 <= upper <= 1.2 * TRUE
        assert known[name].bound.unit == "user"
        assert known[name].flags == ()
        assert known[name].seconds > 0
    assert "GaussianDpEvent" in known["pure"].unsupported
    monkeypatch.setitem(ACCOUNTANTS, "mine", guess(bound(estimate=1.0)))
    assert compare(GaussianDpEvent(1.0), **AT)[-1].accountant == "mine"


def test_names_choose():
    found = compare(GaussianDpEvent(1.0), **AT, accountants=["rdp"])
    assert [r.accountant for r in found] == ["rdp"]
    with pytest.raises(ValueError, match="gut"):
        compare(GaussianDpEvent(1.0), **AT, accountants=["rdp", "gut"])


@pytest.mark.parametrize(
    "answer, words",
    [
        ({"estimate": 0.4}, "below a certified lower"),
        ({"estimate": 0.6}, "above the smallest certified upper"),
        ({"estimate": 0.5}, None),
        ({"estimate": 0.4999999}, None),
        ({"upper": 0.4, "certified": True}, "contradict"),
        ({"lower": 0.6, "upper": 0.7, "certified": True}, "contradict"),
        ({"upper": math.inf, "certified": True}, None),
    ],
)
def test_facts_flag_what_they_rule_out(monkeypatch, answer, words):
    fact = bound(lower=0.5, upper=0.5, certified=True, method_upper="fact")
    for name in list(ACCOUNTANTS):
        monkeypatch.delitem(ACCOUNTANTS, name)
    monkeypatch.setitem(ACCOUNTANTS, "fact", guess(fact))
    monkeypatch.setitem(ACCOUNTANTS, "other", guess(bound(**answer)))
    found = compare(PureDpEvent(0.5), **AT, tolerance=1e-6)
    flags = " ".join(found[1].flags)
    assert (words in flags) if words else flags == ""


def test_an_accountant_without_an_answer_says_why(monkeypatch):
    error = UnsupportedEvent("mine", "this", "no proof")
    monkeypatch.setitem(ACCOUNTANTS, "mine", guess(error))
    reading = compare(PureDpEvent(0.5), **AT)[-1]
    assert (reading.bound, reading.unsupported) == (None, str(error))
    told = reading.to_json()
    assert told["unsupported"] == str(error)
    assert "upper" not in told


def test_delta_zero_is_for_pure_releases():
    found = compare(PureDpEvent(0.5), delta=0.0, relation="zero_out")
    upper = {r.accountant: r.bound.upper for r in found if r.bound is not None}
    assert upper["pure"] == pytest.approx(0.5, rel=1e-12)


@pytest.mark.slow
def test_a_peer_below_the_truth_is_flagged():
    """dp-accounting's Rényi accountant forgets that a replaced record moves twice."""
    found = compare(
        repeat(GaussianDpEvent(1.0), 10),
        1e-5,
        relation="replace_one",
        accountants=["pld"],
        peers=True,
    )
    by_name = {reading.accountant: reading for reading in found}
    assert list(by_name) == ["pld", "dp-accounting pld", "dp-accounting rdp"]
    assert any("below" in flag for flag in by_name["dp-accounting rdp"].flags)
    assert not by_name["pld"].flags
    for name in ("dp-accounting pld", "dp-accounting rdp"):
        told = by_name[name].bound
        assert told is not None
        assert (told.certified, told.upper) == (False, None)


def test_a_peer_that_does_not_know_an_event_says_so():
    found = compare(
        PureDpEvent(0.5), 1e-6, relation="zero_out", accountants=["pure"], peers=True
    )
    assert all(reading.unsupported for reading in found[1:])
