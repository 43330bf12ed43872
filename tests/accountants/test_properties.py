"""What holds of any event: JSON keeps it, and all certified readings agree."""

import math
from typing import Any

import dp_accounting as dp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpkit.accountants import UnsupportedEvent, epsilon, from_json, to_json
from dpkit.accountants.events import repeat, sequential
from dpkit.accountants.events.own import (
    ApproxDpEvent,
    BoundedRangeDpEvent,
    DiscreteGaussianDpEvent,
    ParallelDpEvent,
    PureDpEvent,
)
from dpkit.accountants.readings.best import ACCOUNTANTS
from tests.accountants.worked_runs import gaussian, poisson, poisson_laplace

positive = st.floats(0.3, 30.0)
rates = st.floats(1e-4, 1.0)
releases = st.one_of(
    positive.map(gaussian),
    st.builds(poisson, positive, rates),
    positive.map(dp.LaplaceDpEvent),
    st.builds(poisson_laplace, positive, rates),
    st.builds(DiscreteGaussianDpEvent, st.floats(0.5, 20), st.integers(1, 3)),
    st.floats(0.0, 2.0).map(PureDpEvent),
    st.builds(ApproxDpEvent, st.floats(0.0, 2.0), st.floats(0.0, 1e-8)),
    st.floats(0.0, 2.0).map(BoundedRangeDpEvent),
)
nested = st.recursive(
    releases,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(sequential),
        st.builds(repeat, inner, st.integers(1, 20)),
        st.lists(inner, min_size=1, max_size=2).map(ParallelDpEvent),
    ),
    max_leaves=4,
)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(nested)
def test_json_keeps_every_event(event):
    text = to_json(event)
    again = from_json(text)
    assert to_json(again) == text
    assert again == event


def check_agreement(event, delta):
    found: dict[str, Any] = {}
    for name in ACCOUNTANTS:
        try:
            found[name] = epsilon(event, delta, relation="add_remove", accountant=name)
        except UnsupportedEvent:
            continue
    certified = {name: b for name, b in found.items() if b.certified}
    assert certified
    lower = max(b.lower or 0.0 for b in certified.values())
    upper = min(b.upper for b in certified.values())
    assert lower <= upper * (1 + 1e-9) + 1e-12, certified
    for bound in certified.values():
        if bound.estimate is not None:
            assert (bound.lower or 0.0) <= bound.estimate <= bound.upper
    best: Any = epsilon(event, delta, relation="add_remove")
    assert best.lower <= best.upper
    if best.estimate is not None:
        assert best.lower <= best.estimate <= best.upper
    assert math.isinf(best.upper) or best.upper <= upper * (1 + 1e-3) + 1e-9


@settings(derandomize=True, max_examples=4, deadline=None)
@given(nested, st.sampled_from([1e-3, 1e-6, 1e-12, 1e-40]))
def test_certified_readings_bracket_one_truth(event, delta):
    check_agreement(event, delta)


@pytest.mark.slow
@settings(derandomize=True, max_examples=150, deadline=None)
@given(nested, st.sampled_from([0.1, 1e-3, 1e-6, 1e-9, 1e-12, 1e-40, 1e-120]))
def test_certified_readings_bracket_one_truth_at_length(event, delta):
    check_agreement(event, delta)
