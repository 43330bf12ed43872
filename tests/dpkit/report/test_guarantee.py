"""Epsilon with its warrant: what is said, what is never said."""

import math

import pytest

from dpkit.accountants import DeltaBound, PrivacyBound
from dpkit.report import Guarantee, not_covered, stated

BOUND = {
    "upper": 2.0,
    "estimate": None,
    "certified": True,
    "delta": 1e-5,
    "relation": "add_remove",
    "unit": "example",
    "method_upper": "pld",
}


def told(**changes):
    """A guarantee that is like BOUND but for these fields."""
    return Guarantee.read(BOUND | changes)


def everything(guarantee):
    """All that a guarantee has to say."""
    facts = [f"{name} {value}" for name, value in guarantee.facts()]
    return " ".join([guarantee.headline, *facts, *guarantee.sentences()])


def test_certified_headline_has_all_parts():
    assert told().headline == (
        "epsilon ≤ 2 at delta = 1e-5, to add or remove one example (certified: pld)"
    )


@pytest.mark.parametrize("certified", [False, None, 0, 1, "yes", "false"])
def test_an_uncertified_number_is_called_an_estimate(certified):
    """Only the value True is a certificate: a text out of a file is none."""
    guarantee = told(certified=certified)
    assert "estimate" in guarantee.headline
    assert "certified: pld" not in guarantee.headline
    assert "estimate" in " ".join(guarantee.sentences())
    assert "estimate" in guarantee.facts()[0][1]
    assert "≤" not in everything(guarantee)
    assert "certified upper bound" not in everything(guarantee)


@pytest.mark.parametrize("epsilon", ["inf", math.inf, None, math.nan])
def test_infinite_epsilon_is_no_guarantee(epsilon):
    guarantee = told(upper=epsilon)
    assert guarantee.headline.startswith("no privacy")
    assert len(guarantee.sentences()) == 1
    assert guarantee.facts()[0] == ("epsilon", "infinite: no guarantee")


def test_a_fixed_seed_is_said_first():
    guarantee = Guarantee.read(BOUND, insecure="the noise of this run")
    assert guarantee.headline.startswith("no privacy: a fixed seed")
    assert "NO PRIVACY" in guarantee.facts()[0][1]


@pytest.mark.parametrize("at", [1.00001, 2.00049, 2.99951, 3.3333333, 1e-7, 12345678.9])
def test_what_is_shown_is_never_below_what_is_certified(at):
    guarantee = told(upper=at, delta=at * 1e-9)
    shown = guarantee.value.removeprefix("≤ ")
    assert float(shown) >= at
    delta = dict(guarantee.facts())["delta"]
    assert float(delta) >= at * 1e-9
    assert f"epsilon = {shown}, delta = {delta}" in everything(guarantee)
    assert f"epsilon ≤ {shown} at delta = {delta}" in everything(guarantee)
    bound = PrivacyBound(
        delta=1e-5, upper=at, certified=True, method_upper="m", relation="zero_out"
    )
    assert stated(bound) == f"≤ {shown}, certified upper bound (m)"


def test_delta_is_never_shown_below_itself():
    """(epsilon, delta) holds for a larger delta too, and not for a smaller one."""
    guarantee = told(delta=1.00049e-5)
    assert "delta = 1.001e-5" in guarantee.headline
    assert "delta = 1.001e-5" in " ".join(guarantee.sentences())


def test_an_estimate_beside_a_larger_unproven_bound_is_not_preferred():
    bound = PrivacyBound(delta=0.1, estimate=1.5, upper=4.0, relation="zero_out")
    assert stated(bound) == "≈ 4, an estimate, not certified"
    assert Guarantee.of(bound).value == "≈ 4"


def test_a_bound_on_delta_is_worded_alike():
    bound = DeltaBound(
        epsilon=1.0,
        upper=2.00001e-6,
        certified=True,
        method_upper="rdp",
        relation="zero_out",
    )
    assert stated(bound) == "≤ 2.001e-6, certified upper bound (rdp)"
    assert stated(DeltaBound(epsilon=1.0, relation="zero_out")) == "no answer"


def test_warnings_of_a_bound_are_told():
    text = "The floor of the grid was reached."
    assert told(warnings=[text]).sentences()[-1] == text
    assert ("warning", text) in told(warnings=[text]).facts()


@pytest.mark.parametrize(
    "relation, part",
    [
        ("add_remove", "missing from the other"),
        ("replace_one", "any other user"),
        ("zero_out", "empty record"),
    ],
)
def test_each_relation_has_its_own_words(relation, part):
    text = " ".join(told(relation=relation, unit="user").sentences())
    assert part in text
    assert "example" not in text


def test_the_guarantee_names_what_it_rests_on():
    text = " ".join(told().sentences())
    for part in (
        "exp(epsilon) = 7.39 times",  # e^2 = 7.38906, rounded up
        "delta = 1e-5",
        "accountant pld",
    ):
        assert part in text
    assert "by the ledger (filter)" in " ".join(
        told(method_upper="ledger (filter)").sentences()
    )


def test_what_is_not_covered():
    text = " ".join(not_covered("user", "The first."))
    assert text.startswith("The first.")
    for part in (
        "Hyper-parameter search",
        "Preparation that looked at the private rows",
        "Floating-point",
        "choices",
        "More than one user a person",
    ):
        assert part in text
