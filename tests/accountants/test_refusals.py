"""Every refusal of a ledger: what it advises works, and nothing was written.

Each kind of event, under each filter and regime, is charged, reserved, released and
asked about. Advice is a phrase listed in `ADVICE`; it is taken, on an equal ledger.
"""

import itertools
import math
import re
from typing import Any

import dp_accounting as dp
import pytest
from dp_accounting import dp_event

from dpkit.accountants import (
    ApproxDpEvent,
    Budget,
    BudgetExceeded,
    PureDpEvent,
    UnsupportedEvent,
    UnsupportedRelation,
    from_json,
    to_json,
)
from dpkit.accountants.storage.entry import canonical
from tests.accountants.test_events import EVERY
from tests.accountants.toy_ledgers import new_ledger

APPROX = {"filter": "approx"}
WHOLE, PURE = Budget(3.0, 1e-5), Budget(3.0, 0.0)
# Each kind of ledger: how it is opened, and what was charged to it.
LEDGERS: dict[str, tuple[dict[str, Any], Any]] = {
    "auto": ({"budget": WHOLE}, None),
    "auto spent": ({"budget": WHOLE}, ("charge", dp.GaussianDpEvent(3.4))),
    "approx": ({"budget": WHOLE, **APPROX}, None),
    "approx spent": ({"budget": WHOLE, **APPROX}, ("charge", dp.GaussianDpEvent(5.0))),
    "approx planned": (
        {"budget": WHOLE, **APPROX},
        ("reserve", dp.GaussianDpEvent(5.0)),
    ),
    "approx declared": ({"budget": WHOLE, "adaptive": WHOLE}, None),
    "approx pure": ({"budget": PURE}, ("charge", PureDpEvent(2.9))),
    "approx empty": ({"budget": Budget(0.0, 0.0)}, None),
    "scopes": ({"budget": WHOLE, "scopes": {"site": Budget(0.5, 1e-6)}}, None),
    "zcdp": ({"budget": WHOLE, "filter": "zcdp"}, ("charge", PureDpEvent(0.5))),
    "pure": ({"budget": PURE, "filter": "pure"}, ("charge", PureDpEvent(0.5))),
    "static": ({"budget": WHOLE, "regime": "static"}, None),
    "static pure": ({"budget": PURE, "regime": "static"}, None),
}
ADVICE = {
    "reserve": r"as a sealed plan it fits: ledger\.reserve",
    "seal": r"seal a plan first \(ledger\.plan, or one ledger\.reserve\)",
    "shorter": r"in one sealed plan, at least (\d+) of count=(\d+) would fit",
    "fewer": r"(\d+) of count=(\d+) would fit",
    "relation": r"possible: (.*)",
    "noise": r"(in one sealed plan, )?with (\w+)=([0-9.e+]+) it would fit",
    "batches": r"with a larger max_batch_size it would fit",
}
# Words that would be advice of another kind.
IMPERATIVE = re.compile(
    r"\b(use|take (?!all)|give|declare|choose|try|ask|reserve|seal|split)\b"
)
KNOWN: dict[str, Any] = {}


class _Released:
    """A mechanism that costs an event."""

    def __init__(self, event):
        self.cost = event

    def event(self, relation):
        return self.cost

    def __call__(self, key, records):
        return None


def _ledger(name, relation) -> Any:
    """A new ledger of a kind; all of one relation remember the same prices."""
    options, earlier = LEDGERS[name]
    ledger = new_ledger(relation=relation, **options)
    ledger._book._prices = KNOWN.setdefault(relation, {})
    if earlier is not None:
        action, event = earlier
        getattr(ledger, action)(event, label="earlier")
    return ledger


def _ask(ledger, action, event, count) -> Any:
    """One question to a ledger."""
    if action == "release":
        return ledger.release(_Released(event), None, None, label="x")
    if action.startswith("remaining"):
        return ledger.remaining(event, sealed=action == "remaining")
    return getattr(ledger, action)(event, count=count, label="x")


def _take(advice, found, name, relation, action, event, count):
    """Takes a refusal's advice on an equal ledger: it must not be refused in turn."""
    ledger = _ledger(name, relation)
    if advice in ("reserve", "seal"):
        ledger.reserve(event, count=count, label="x")
    elif advice in ("shorter", "fewer"):
        assert int(found[2]) == count > int(found[1]) > 0
        action = "reserve" if advice == "shorter" else action
        _ask(ledger, action, event, int(found[1]))
    elif advice == "noise":
        text = canonical(to_json(event))
        more = re.sub(rf'"{found[2]}":"[^"]+"', f'"{found[2]}":"{found[3]}"', text)
        assert more != text
        action = "reserve" if found[1] else action
        _ask(ledger, action, from_json(more), count)
    elif advice == "batches":
        text = canonical(to_json(event))
        more = re.sub('"max_batch_size":[0-9]+', '"max_batch_size":1000', text)
        _ask(ledger, action, from_json(more), count)
    else:
        for other in found[1].split(", "):
            _ledger(name, other).remaining(event)


def _check(error, name, relation, action, event, count):
    """Whether a refusal's advice works, and whether all of it is known."""
    said = str(error)
    assert "\n" not in said
    if isinstance(error, UnsupportedEvent | UnsupportedRelation):
        said = said.replace(repr(error.event), "").replace(str(error.event), "")
    taken = []
    for advice, pattern in ADVICE.items():
        found = re.search(pattern, said)
        if found:
            _take(advice, found, name, relation, action, event, count)
            said = said.replace(found[0], "")
            taken.append(advice)
    assert not IMPERATIVE.search(said), said
    return taken


ACTIONS = [
    ("charge", 1),
    ("charge", 5000),
    ("release", 1),
    ("reserve", 1),
    ("reserve", 5000),
    ("remaining", 1),
    ("remaining charges", 1),
]
USUAL = {"fewer", "noise", "relation", "shorter"}
GIVEN = {
    "auto": USUAL | {"reserve"},
    "auto spent": USUAL - {"shorter"} | {"batches"},
    "approx": USUAL | {"reserve"},
    "approx spent": USUAL,
    "approx planned": USUAL - {"noise"},
    "approx declared": USUAL | {"reserve"},
    "approx pure": {"noise", "relation"},
    "approx empty": {"relation"},
    "scopes": USUAL | {"reserve"},
    "zcdp": USUAL,
    "pure": USUAL - {"noise"},
    "static": {"noise", "relation", "seal", "shorter"},
    "static pure": {"noise", "relation", "seal", "shorter"},
}


FAST = ("static pure", "zcdp")
OFTEN = [pytest.mark.slow, pytest.mark.guard]


# The Rényi accountant searches a curve of two orders, infinite between them.
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=OFTEN if n in FAST else pytest.mark.slow) for n in LEDGERS],
)
def test_advice_is_never_refused_in_turn(name):
    ledger, taken, refused = _ledger(name, "add_remove"), set(), 0
    for event, (action, count) in itertools.product(EVERY, ACTIONS):
        before = ledger.head
        try:
            _ask(ledger, action, event, count)
        except (BudgetExceeded, ValueError) as error:
            refused += 1
            taken.update(_check(error, name, "add_remove", action, event, count))
            assert ledger.head == before
        if ledger.head != before:
            ledger = _ledger(name, "add_remove")
    assert refused > len(EVERY)
    assert taken == GIVEN[name]


HUGE = 10**400


@pytest.mark.parametrize("name", ["approx", "zcdp", "pure", "static"])
@pytest.mark.parametrize(
    "event",
    [
        PureDpEvent(1e-300),
        dp.GaussianDpEvent(1e9),
        dp.PoissonSampledDpEvent(1e-6, dp.GaussianDpEvent(1e9)),
        dp.SelfComposedDpEvent(PureDpEvent(1e-300), HUGE),
        dp.SelfComposedDpEvent(dp.GaussianDpEvent(1e9), HUGE),
        dp.RandomizedResponseDpEvent(0.5, HUGE),
        dp.SingleEpochTreeAggregationDpEvent(1.0, HUGE),
        dp_event.DiscreteLaplaceDpEvent(0.5, HUGE),
    ],
    ids=lambda event: type(event).__name__,
)
def test_numbers_beyond_floats_are_refused_and_nothing_is_written(name, event):
    ledger = _ledger(name, "zero_out")
    before = ledger.head
    for action, count in [("charge", HUGE), ("reserve", HUGE), ("remaining", 1)]:
        for asked in {count, 1}:
            try:
                _ask(ledger, action, event, asked)
            except (BudgetExceeded, ValueError) as error:
                assert "\n" not in str(error)
                assert ledger.head == before
            else:
                assert asked == 1
                before = ledger.head


def test_an_unlimited_budget_takes_no_more_than_can_be_counted():
    ledger = new_ledger(Budget(math.inf, 1e-5))
    for count in (10**15 + 1, HUGE, 10**5000):
        for ask in (ledger.charge, ledger.reserve):
            with pytest.raises(ValueError, match=r"at most 1,000,000,000,000,000"):
                ask(PureDpEvent(1.0), count=count, label="x")
    assert len(ledger.entries()) == 1
    ledger.charge(PureDpEvent(1.0), count=10**15, label="x")
    assert ledger.spent().upper == 1e15
    ledger.verify(recount=True)


CUT = dp.TruncatedSubsampledGaussianDpEvent(1000, 0.1, 120, 20.0)
ONE, STEP = (
    dp.GaussianDpEvent(10.0),
    dp.PoissonSampledDpEvent(0.01, dp.GaussianDpEvent(1.0)),
)
TIGHT = {"scopes": {"site": Budget(0.7, 1e-6)}}
# What was charged, how the ledger is opened, what is asked, and what is said of it.
CAUSES: list[Any] = [
    ([(ONE, 43)], {}, ("charge", ONE, 5, {}), r"curves.*too little.*with noise_mult"),
    ([(ONE, 1)], {}, ("reserve", ONE, 60, {}), r"too little is left for it; 42 of"),
    ([(ONE, 1)], {}, ("reserve", [ONE] * 60, 1, {}), r"the first 42 of its 60 runs"),
    (
        [(ONE, 1)],
        {},
        ("charge", ApproxDpEvent(0.01, 6e-7), 1, {}),
        "delta=5e-07 is left",
    ),
    (
        [(ONE, 1)],
        {},
        ("charge", CUT, 1, {}),
        "overflow too often.*larger max_batch_size",
    ),
    ([], {}, ("charge", dp.GaussianDpEvent(1.4), 1, {}), "as a sealed plan it fits"),
    (
        [],
        {},
        ("reserve", dp.GaussianDpEvent(1.0), 1, {}),
        r"with noise_multiplier=1\.5",
    ),
    ([], {}, ("reserve", STEP, 50_000, {}), "in one sealed plan, at least 2195"),
    ([(STEP, 500)], APPROX, ("reserve", STEP, 5, {}), "its delta is all taken"),
    ([(STEP, 500)], APPROX, ("charge", ONE, 1, {}), "its delta is all taken"),
    ([(STEP, 500)], APPROX, ("reserve", PureDpEvent(3.0), 1, {}), "delta=0 is left"),
    ([(STEP, 500)], APPROX, ("reserve", STEP, 5, {"delta": 1e-6}), "was asked for"),
    ([], TIGHT, ("charge", ONE, 9, {"scope": "site"}), "scope=site.*; 2 of count=9"),
    ([], TIGHT, ("reserve", [ONE] * 9, 1, {"scope": "site"}), "first 2 of its 9 runs"),
]


@pytest.mark.parametrize(("before", "options", "asked", "words"), CAUSES)
def test_a_refusal_names_its_cause_and_its_advice_works(before, options, asked, words):
    ledger = new_ledger(**options)
    for event, count in before:
        ledger.reserve(event, count=count, label="before")
    action, event, count, how = asked
    head = ledger.head
    with pytest.raises(BudgetExceeded, match=words) as caught:
        getattr(ledger, action)(event, count=count, label="x", **how)
    assert ledger.head == head
    said = str(caught.value)
    if fewer := re.search(r"(\d+) of (?:count=|its )(\d+)", said):
        most = int(fewer[1])
        if isinstance(event, list):
            event = event[:most]
        else:
            count = most
    elif more := re.search(r"noise_multiplier=(\S+) it", said):
        event = dp.GaussianDpEvent(float(more[1]))
    elif "max_batch_size" in said:
        event = dp.TruncatedSubsampledGaussianDpEvent(1000, 0.1, 400, 20.0)
    elif "ledger.reserve" in said:
        action = "reserve"
    else:
        return  # a cause alone
    getattr(ledger, action)(event, count=count, label="x", **how)


def test_without_a_delta_a_gaussian_has_no_epsilon():
    with pytest.raises(
        BudgetExceeded, match="no delta, and without one its epsilon is"
    ):
        new_ledger(budget=PURE).reserve(ONE, label="x")
