"""Every kind of event, by every accountant, under every relation."""

import functools
import itertools
import math
import re
from typing import Any

import dp_accounting as dp
import pytest
from dp_accounting import dp_event

from dpkit.accountants import UnsupportedEvent, UnsupportedRelation, delta_of, epsilon
from dpkit.accountants.answers.relations import Relation
from dpkit.accountants.events import (
    ApproxDpEvent,
    BoundedRangeDpEvent,
    DiscreteGaussianDpEvent,
    MetricLocalPureDpEvent,
    ParallelDpEvent,
    PureDpEvent,
    RandomAllocationDpEvent,
    TruncatedAllocationDpEvent,
    repeat,
    sequential,
)
from dpkit.accountants.events.kinds import KINDS, kind_of, relations_of
from dpkit.accountants.readings.best import ACCOUNTANTS, READINGS
from tests.accountants.worked_runs import (
    gaussian,
    pmf_pair,
    poisson,
    poisson_laplace,
    rdp_curve,
    truncated,
    without_replacement,
)

# A new kind of event is one more line here.
EVENTS = {
    "gaussian": gaussian(2),
    "poisson_gaussian": poisson(2, 0.1),
    "truncated_poisson_gaussian": truncated(2, 0.1, 1000, 200),
    "wor_gaussian": without_replacement(2, 10, 100),
    "laplace": dp.LaplaceDpEvent(2.0),
    "poisson_laplace": poisson_laplace(2, 0.1),
    "discrete_laplace": dp_event.DiscreteLaplaceDpEvent(0.5, 2),
    "discrete_gaussian": DiscreteGaussianDpEvent(3.0, 1),
    "randomized_response": dp.RandomizedResponseDpEvent(0.5, 3),
    "mixture_gaussian": dp_event.MixtureOfGaussiansDpEvent(
        4.0, (0.0, 1.0, 2.0), (0.7, 0.2, 0.1)
    ),
    "zcdp": dp.ZCDpEvent(0.1, 0.01),
    "tree": dp.SingleEpochTreeAggregationDpEvent(3.0, 7),
    "non_private": dp.NonPrivateDpEvent(),
    "random_allocation": RandomAllocationDpEvent(2.0, 5),
    "truncated_random_allocation": TruncatedAllocationDpEvent(2.0, 5, 1000, 400),
    "pmf_pair": pmf_pair((0.5, 0.5), (0.4, 0.6), "zero_out"),
    "rdp_curve": rdp_curve((2, 8, 64), (0.1, 0.4, 4.0), "replace_one"),
    "approx_dp": ApproxDpEvent(0.5, 1e-7),
    "pure": PureDpEvent(0.5),
    "bounded_range": BoundedRangeDpEvent(0.5),
    "metric_local_pure": MetricLocalPureDpEvent(0.5, "metre"),
    "sequential": sequential([gaussian(2), PureDpEvent(0.1)]),
    "repeat": repeat(poisson(2, 0.1), 3),
    "parallel": ParallelDpEvent([gaussian(2), PureDpEvent(0.1)], index_based=True),
    "repeat_and_select": dp_event.RepeatAndSelectDpEvent(gaussian(3), 5.0, 1.0),
}
CASES = list(itertools.product(EVENTS, Relation))
DELTA = 1e-5


@pytest.fixture(autouse=True, scope="module")
def asked_once():
    """The front door asks what `answers` asks: nobody computes an answer twice."""

    def remembered(ask, known):
        def asked(event, delta, *, relation, lower=True):
            key = repr(event), delta, Relation(relation), lower
            if key not in known:
                known[key] = ask(event, delta, relation=relation, lower=lower)
            return known[key]

        return asked

    with pytest.MonkeyPatch.context() as patch:
        for reading in READINGS:
            patch.setattr(reading, "epsilon", remembered(reading.epsilon, {}))
        yield


@functools.cache
def answers(name, relation) -> dict[str, Any]:
    event = EVENTS[name]
    return {
        reading.name: reading.epsilon(event, DELTA, relation=relation)
        for reading in READINGS
        if reading.supports(event, relation)
    }


def test_every_kind_is_listed_under_its_name():
    assert set(EVENTS) == set(KINDS)
    assert all(kind_of(event).name == name for name, event in EVENTS.items())


@pytest.mark.parametrize(("name", "relation"), CASES)
def test_a_kind_has_a_certified_reading_under_its_relations_alone(name, relation):
    found = answers(name, relation)
    if name == "metric_local_pure" or relation not in relations_of(EVENTS[name]):
        assert not found
        return
    proven = [bound for bound in found.values() if bound.certified]
    assert proven
    if name != "non_private":
        assert min(bound.upper for bound in proven) < 20


@pytest.mark.parametrize(("name", "relation"), CASES)
def test_certified_readings_contradict_nobody(name, relation):
    found = answers(name, relation)
    proven = {n: b for n, b in found.items() if b.certified}
    for upper, lower in itertools.product(proven.values(), repeat=2):
        assert (lower.lower or 0.0) <= upper.upper * (1 + 1e-9)
    if proven:
        best: Any = epsilon(EVENTS[name], DELTA, relation=relation)
        assert best.upper <= min(b.upper for b in proven.values()) * (1 + 1e-4)


@pytest.mark.parametrize(("name", "relation"), CASES)
@pytest.mark.parametrize("reading", READINGS, ids=lambda reading: reading.name)
def test_supports_is_what_is_answered_and_a_refusal_has_a_remedy(
    name, relation, reading
):
    event = EVENTS[name]
    asks = [
        lambda: (
            answers(name, relation).get(reading.name)
            or reading.epsilon(event, DELTA, relation=relation)
        ),
        lambda: reading.delta_of(event, 0.1, relation=relation, lower=False),
    ]
    for ask in asks:
        if reading.supports(event, relation):
            assert ask().relation == relation
            continue
        with pytest.raises((UnsupportedEvent, UnsupportedRelation)) as refused:
            ask()
        check_remedy(str(refused.value), event, relation)


def check_remedy(text, event, relation):
    named = re.findall(r"accountant='(\w+)'", text)
    for name in named:
        assert ACCOUNTANTS[name].supports(event, relation), text
    if not named:
        assert "every accountant" in text or "no accountant reads" in text
        assert not any(r.supports(event, relation) for r in READINGS), text


def test_a_composition_that_nobody_reads_says_so():
    both = sequential([ApproxDpEvent(1.0, 1e-6), rdp_curve((2, 4), (0.1, 0.2))])
    for ask in (epsilon, *(reading.epsilon for reading in READINGS)):
        with pytest.raises(UnsupportedEvent) as refused:
            ask(both, DELTA, relation="add_remove")
        assert "no accountant reads the whole of it" in str(refused.value)


# Each has a delta(0) that is not 0, below what squares of floats can hold. For a
# sampled pair it is q times that of the unsampled one: 2 Phi(1/2) - 1 for the Gaussian,
# 1 - e^(-1/2) for Laplace.
GAUSSIAN, LAPLACE = math.erf(0.5 / math.sqrt(2)), -math.expm1(-0.5)
FAINT = [
    (poisson(1, 1e-165), "add_remove", 1e-165 * GAUSSIAN),
    (poisson(1, 1e-200), "zero_out", 1e-200 * GAUSSIAN),
    (poisson(1, 1e-170), "replace_one", 1e-170 * math.erf(1 / math.sqrt(2))),
    (truncated(1, 1e-170, 100, 50), "zero_out", 1e-170 * GAUSSIAN),
    (repeat(poisson(1, 1e-170), 3), "add_remove", 1e-170 * GAUSSIAN),
    (repeat(poisson(1, 1e-80), 10**6), "replace_one", 1e-80),
    (poisson_laplace(1, 1e-170), "add_remove", 1e-170 * LAPLACE),
    (poisson_laplace(1e100, 1e-120), "zero_out", 1e-220 * 0.5),
    (
        dp_event.MixtureOfGaussiansDpEvent(1.0, (0.0, 1.0), (1.0, 1e-170)),
        "add_remove",
        1e-170 * GAUSSIAN,
    ),
    (
        dp_event.MixtureOfGaussiansDpEvent(1.0, (0.0, 1.0, 1.0), (1.0, 5e-171, 5e-171)),
        "zero_out",
        1e-170 * GAUSSIAN,
    ),
    (PureDpEvent(1e-170), "add_remove", 0.5e-170),
    (ApproxDpEvent(0.0, 1e-170), "add_remove", 1e-170),
    (ParallelDpEvent([poisson(1, 1e-170)]), "zero_out", 1e-170 * GAUSSIAN),
    (ParallelDpEvent([PureDpEvent(1e-170)]), "zero_out", 0.5e-170),
    (dp_event.RepeatAndSelectDpEvent(poisson(1, 1e-170), 1.0, 0.0), "zero_out", 0.0),
    (BoundedRangeDpEvent(1e-170), "zero_out", 0.0),
    (BoundedRangeDpEvent(5e-324), "zero_out", 0.0),
    (dp_event.DiscreteLaplaceDpEvent(1e-100, 1), "zero_out", 0.0),
    (dp.RandomizedResponseDpEvent(1 - 1.1e-16, 2), "zero_out", 0.5e-16),
    (without_replacement(100, 1, 10**9), "replace_one", 0.0),
    (dp.SingleEpochTreeAggregationDpEvent(1e100, 3), "zero_out", 0.0),
    (RandomAllocationDpEvent(1e100, 29), "zero_out", 0.0),
]


@pytest.mark.parametrize(
    ("event", "relation", "truth", "reading"),
    [
        pytest.param(*case, reading, id=f"{reading.name}-{i}")
        for i, case in enumerate(FAINT)
        for reading in READINGS
        if reading.supports(*case[:2])
    ],
)
def test_what_is_too_faint_for_a_float_is_never_nothing(
    event, relation, truth, reading
):
    found: Any = reading.delta_of(event, 0.0, relation=relation, lower=False)
    if found.upper is not None:
        assert found.upper >= max(truth * (1 - 1e-9), 5e-324)
    if truth > 1e-250:
        spent: Any = reading.epsilon(
            event, truth * 1e-5, relation=relation, lower=False
        )
        assert spent.upper is None or spent.upper > 0


def test_the_front_door_is_never_nothing_either():
    lost: Any = delta_of(poisson(1, 1e-200), 0.0, relation="zero_out")
    spent: Any = epsilon(poisson(1, 1e-165), 1e-170, relation="zero_out")
    assert lost.upper > 3e-201
    assert spent.upper > 0
