"""Events: JSON both ways, the closed registry, and what validation refuses."""

import json
import math
from typing import Any

import dp_accounting as dp
import jax
import numpy as np
import pytest
from dp_accounting import dp_event
from hypothesis import given, settings
from hypothesis import strategies as st

from dpkit.accountants.events import (
    ApproxDpEvent,
    BoundedRangeDpEvent,
    DiscreteGaussianDpEvent,
    MetricLocalPureDpEvent,
    ParallelDpEvent,
    PmfPairDpEvent,
    PureDpEvent,
    RandomAllocationDpEvent,
    RdpCurveDpEvent,
    TruncatedAllocationDpEvent,
    flatten,
    from_json,
    repeat,
    sequential,
    to_json,
    validate,
)
from dpkit.accountants.events.kinds import KINDS

GAUSSIAN = dp.GaussianDpEvent(1.1)
UNTYPED: Any = dp  # for events that are wrong, or that its hints are too narrow for
TABLE: dict[str, Any] = {
    "relation": "add_remove",
    "name": "toy",
    "provenance": "by hand",
    "certified": True,
}
PAIR = PmfPairDpEvent((0.5, 0.5), (0.25, 0.75), **TABLE)
CURVE = RdpCurveDpEvent((1.5, 3), (0.1, 0.2), **TABLE, min_contributors=5)
RELEASES: list[dp.DpEvent] = [
    GAUSSIAN,
    dp.PoissonSampledDpEvent(0.01, GAUSSIAN),
    dp.PoissonSampledDpEvent(1.0, GAUSSIAN),
    dp.TruncatedSubsampledGaussianDpEvent(1000, 0.1, 130, 1.0),
    dp.SampledWithoutReplacementDpEvent(60_000, 256, dp.GaussianDpEvent(2.0)),
    RandomAllocationDpEvent(1.0, 29, epochs=9, last_steps=10),
    TruncatedAllocationDpEvent(1.0, 29, 60_000, 2388, epochs=9, last_steps=10),
    dp.LaplaceDpEvent(3.0),
    dp.PoissonSampledDpEvent(0.1, dp.LaplaceDpEvent(1.0)),
    DiscreteGaussianDpEvent(2.0, 1),
    dp_event.DiscreteLaplaceDpEvent(0.5, 1),
    dp.RandomizedResponseDpEvent(0.5, 2),
    dp_event.MixtureOfGaussiansDpEvent(1.0, (0.0, 1.0), (0.9, 0.1)),
    PAIR,
    CURVE,
    ApproxDpEvent(1.0, 1e-6),
    PureDpEvent(0.0),
    BoundedRangeDpEvent(1.0),
    MetricLocalPureDpEvent(1.0, "metre"),
    dp.ZCDpEvent(0.1),
    dp.ZCDpEvent(0.1, 0.3),
    dp.SingleEpochTreeAggregationDpEvent(1.0, 5),
    UNTYPED.SingleEpochTreeAggregationDpEvent(1.0, (5, 3)),
    dp.NonPrivateDpEvent(),
]
NESTED = [
    dp_event.RepeatAndSelectDpEvent(GAUSSIAN, 2.0, math.inf),
    dp.ComposedDpEvent(RELEASES),
    dp.ComposedDpEvent([]),
    dp.SelfComposedDpEvent(dp.ComposedDpEvent([GAUSSIAN, PAIR]), 7),
    ParallelDpEvent([GAUSSIAN, dp.SelfComposedDpEvent(PAIR, 3)], index_based=True),
]
EVERY = RELEASES + NESTED


@pytest.mark.parametrize("event", EVERY, ids=lambda e: type(e).__name__)
def test_json_round_trip_is_exact(event):
    validate(event)
    text = json.dumps(to_json(event), allow_nan=False)
    assert from_json(text) == event
    assert to_json(from_json(text)) == json.loads(text)


def test_every_kind_of_the_registry_is_tried_above():
    written = set()

    def kinds(data):
        if isinstance(data, dict):
            written.add(data["kind"])
            for value in data.values():
                kinds(value)
        if isinstance(data, list):
            for value in data:
                kinds(value)

    for event in EVERY:
        kinds(to_json(event))
    assert written == set(KINDS)


def test_the_written_form():
    step = dp.TruncatedSubsampledGaussianDpEvent(60_000, 0.1, 130, 1)
    assert to_json(dp.SelfComposedDpEvent(step, 3)) == {
        "kind": "repeat",
        "v": 1,
        "count": 3,
        "child": {
            "kind": "truncated_poisson_gaussian",
            "v": 1,
            "noise_multiplier": "1.0",
            "sampling_rate": "0.1",
            "dataset_size": 60_000,
            "max_batch_size": 130,
        },
    }


@settings(derandomize=True, max_examples=200)
@given(st.floats(1e-100, 1e100), st.floats(1e-250, 1.0))
def test_decimal_strings_read_back_to_the_same_float(noise, rate):
    event = dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(noise))
    assert from_json(to_json(event)) == event


def test_people_may_write_plain_numbers_and_counts():
    by_hand = {"kind": "poisson_gaussian", "noise_multiplier": 2, "sampling_rate": 0.5}
    assert from_json(by_hand | {"count": 10}) == dp.SelfComposedDpEvent(
        dp.PoissonSampledDpEvent(0.5, dp.GaussianDpEvent(2.0)), 10
    )
    inside = {"kind": "sequential", "children": [by_hand | {"count": 1}]}
    assert from_json(inside) == dp.ComposedDpEvent([from_json(by_hand)])
    assert from_json({"kind": "zcdp", "rho": "0.5"}) == dp.ZCDpEvent(0.5, 0.0)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({"kind": "gausian", "noise_multiplier": 1}, "gausian"),
        ({"noise_multiplier": 1}, "kind=None"),
        ({"kind": "gaussian", "v": 2, "noise_multiplier": 1}, "v=2"),
        ({"kind": "gaussian", "v": True, "noise_multiplier": 1}, "v=True"),
        ({"kind": "gaussian", "noise_multiplier": 1, "sigma": 2}, "sigma"),
        ({"kind": "gaussian"}, "noise_multiplier is missing"),
        ({"kind": "gaussian", "noise_multiplier": "nan"}, "nan"),
        ({"kind": "gaussian", "noise_multiplier": "inf"}, "inf"),
        ({"kind": "gaussian", "noise_multiplier": math.inf}, "inf"),
        ({"kind": "gaussian", "noise_multiplier": 0}, "noise_multiplier=0"),
        ({"kind": "gaussian", "noise_multiplier": "-1"}, "-1"),
        ({"kind": "gaussian", "noise_multiplier": "1_0"}, "1_0"),
        ({"kind": "gaussian", "noise_multiplier": " 1"}, "decimal"),
        ({"kind": "gaussian", "noise_multiplier": True}, "True"),
        ({"kind": "gaussian", "noise_multiplier": None}, "None"),
        ({"kind": "gaussian", "noise_multiplier": 1, "count": 0}, "count=0"),
        ({"kind": "gaussian", "noise_multiplier": 1, "count": 1.5}, "count"),
        ({"kind": "poisson_gaussian", "noise_multiplier": 1, "sampling_rate": 0}, "0"),
        ({"kind": "repeat", "count": 2}, "None"),
        ({"kind": "repeat", "count": "2", "child": {"kind": "non_private"}}, "count"),
        ({"kind": "sequential", "children": {}}, "list"),
        ({"kind": "sequential", "children": [3]}, "3"),
        ([], "object"),
        ("{", "JSON"),
        ('"gaussian"', "object"),
    ],
)
def test_bad_json_is_a_value_error_that_names_the_thing(data, named):
    with pytest.raises(ValueError, match=named):
        from_json(data)


def test_reading_never_imports_by_name():
    foreign = {"kind": "os.system", "module_name": "os", "class_name": "system"}
    with pytest.raises(ValueError, match="unknown"):
        from_json(foreign)


BAD_EVENTS: list[Any] = [
    dp.GaussianDpEvent(math.nan),
    dp.GaussianDpEvent(0.0),
    dp.GaussianDpEvent(math.inf),
    dp.GaussianDpEvent(1e155),
    dp.GaussianDpEvent(1e-160),
    dp.LaplaceDpEvent(1e-310),
    dp.LaplaceDpEvent(-1.0),
    dp.PoissonSampledDpEvent(0.0, GAUSSIAN),
    dp.PoissonSampledDpEvent(1.1, GAUSSIAN),
    dp.PoissonSampledDpEvent(0.1, dp.GaussianDpEvent(math.nan)),
    dp.PoissonSampledDpEvent(0.1, dp.ZCDpEvent(1.0)),
    dp.SampledWithReplacementDpEvent(10, 2, GAUSSIAN),
    dp.SampledWithoutReplacementDpEvent(10, 11, GAUSSIAN),
    dp.SampledWithoutReplacementDpEvent(10, 0, GAUSSIAN),
    dp.TruncatedSubsampledGaussianDpEvent(10, 0.1, 11, 1.0),
    dp.ZCDpEvent(math.nan),
    dp.ZCDpEvent(0.1, -1.0),
    dp.RandomizedResponseDpEvent(1.5, 2),
    dp.RandomizedResponseDpEvent(0.5, 1),
    dp_event.MixtureOfGaussiansDpEvent(1.0, (0.0, 1.0), (0.9, 0.2)),
    dp_event.MixtureOfGaussiansDpEvent(1.0, (0.0, 1.0), (0.9, 0.1 + 1e-10)),
    dp_event.MixtureOfGaussiansDpEvent(1.0, (0.0, 1.0), (0.9, 0.1 - 1e-10)),
    dp_event.MixtureOfGaussiansDpEvent(1.0, (0.0,), (0.9, 0.1)),
    dp_event.MixtureOfGaussiansDpEvent(1.0, (-1.0,), (1.0,)),
    dp_event.MixtureOfGaussiansDpEvent(1.0, (1e101,), (1.0,)),
    dp_event.RepeatAndSelectDpEvent(GAUSSIAN, 0.5, 1.0),
    dp.SingleEpochTreeAggregationDpEvent(1.0, []),
    dp.SelfComposedDpEvent(GAUSSIAN, 0),
    dp.UnsupportedDpEvent(),
    dp.NoOpDpEvent(),
]


@pytest.mark.parametrize("bad", BAD_EVENTS, ids=repr)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda e: e,
        lambda e: dp.SelfComposedDpEvent(e, 3),
        lambda e: dp.ComposedDpEvent([GAUSSIAN, e]),
        lambda e: ParallelDpEvent([GAUSSIAN, dp.SelfComposedDpEvent(e, 2)]),
    ],
)
def test_validation_finds_what_dp_accounting_does_not(bad, wrap):
    with pytest.raises(ValueError, match=r"must|needed|not an event"):
        validate(wrap(bad))


@pytest.mark.parametrize(
    "wrong",
    [
        3,
        "gaussian",
        dp.GaussianDpEvent,
        UNTYPED.GaussianDpEvent(True),
        UNTYPED.GaussianDpEvent("1"),
        UNTYPED.GaussianDpEvent(np.array(1.0)),
        UNTYPED.SelfComposedDpEvent(GAUSSIAN, 2.0),
        UNTYPED.SelfComposedDpEvent(GAUSSIAN, True),
        UNTYPED.SelfComposedDpEvent(3, 2),
        UNTYPED.ComposedDpEvent(GAUSSIAN),
    ],
    ids=repr,
)
def test_the_wrong_kind_is_a_type_error(wrong):
    with pytest.raises(TypeError):
        validate(wrong)


def test_a_traced_parameter_is_a_type_error():
    with pytest.raises(TypeError, match="noise_multiplier"):
        jax.jit(lambda s: validate(dp.GaussianDpEvent(s)))(1.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: PureDpEvent(-1),
        lambda: PureDpEvent(math.nan),
        lambda: ApproxDpEvent(1, 1),
        lambda: DiscreteGaussianDpEvent(1.0, 0),
        lambda: MetricLocalPureDpEvent(1.0, ""),
        lambda: PmfPairDpEvent((0.5, 0.4), (0.5, 0.5), **TABLE),
        lambda: PmfPairDpEvent((0.5, 0.5 + 9e-10), (0.5, 0.5), **TABLE),
        lambda: PmfPairDpEvent((0.5, 0.5), (0.5, 0.5 + 9e-10), **TABLE),
        lambda: PmfPairDpEvent((1.0,), (0.5, 0.5), **TABLE),
        lambda: PmfPairDpEvent((-0.5, 1.5), (0.5, 0.5), **TABLE),
        lambda: PmfPairDpEvent((), (), **TABLE),
        lambda: PmfPairDpEvent((1,), (1,), **TABLE | {"relation": "swap"}),
        lambda: PmfPairDpEvent((1,), (1,), **TABLE | {"name": " "}),
        lambda: RdpCurveDpEvent((1, 2), (0.1, 0.2), **TABLE),
        lambda: RdpCurveDpEvent((3, 2), (0.1, 0.2), **TABLE),
        lambda: RdpCurveDpEvent((), (), **TABLE),
        lambda: RdpCurveDpEvent((2,), (math.inf,), **TABLE),
        lambda: ParallelDpEvent([]),
    ],
)
def test_our_events_check_themselves_when_made(make):
    with pytest.raises(ValueError, match=r"must|needs|needed|increasing"):
        make()


def test_our_events_are_frozen_and_hashable():
    with pytest.raises(AttributeError):
        setattr(PAIR, "name", "other")  # noqa: B010
    assert len({PAIR, PmfPairDpEvent([0.5, 0.5], [0.25, 0.75], **TABLE)}) == 1
    assert isinstance(PAIR, dp.DpEvent)


def test_small_leftover_mass_is_allowed_but_not_more():
    PmfPairDpEvent((0.5, 0.5 - 9e-10), (0.5, 0.5), **TABLE)
    with pytest.raises(ValueError, match="sum to 1"):
        PmfPairDpEvent((0.5, 0.5 - 2e-9), (0.5, 0.5), **TABLE)


def test_flatten_merges_equal_releases_and_multiplies_counts():
    inner = dp.ComposedDpEvent([GAUSSIAN, dp.SelfComposedDpEvent(PAIR, 2)])
    event = dp.ComposedDpEvent(
        [
            dp.SelfComposedDpEvent(dp.SelfComposedDpEvent(inner, 3), 5),
            dp.PoissonSampledDpEvent(1.0, GAUSSIAN),
            dp.ComposedDpEvent([]),
        ]
    )
    assert flatten(event) == [(GAUSSIAN, 16), (PAIR, 30)]
    assert flatten(dp.SelfComposedDpEvent(GAUSSIAN, 10**30)) == [(GAUSSIAN, 10**30)]


def test_flatten_keeps_parallel_whole():
    parallel = ParallelDpEvent([dp.ComposedDpEvent([GAUSSIAN, PAIR]), GAUSSIAN])
    assert [count for _, count in flatten(repeat(parallel, 4))] == [4]


def test_deep_nesting_is_no_problem():
    event = GAUSSIAN
    for depth in range(20_000):
        nest = dp.SelfComposedDpEvent if depth % 2 else None
        event = nest(event, 1) if nest else dp.ComposedDpEvent([event, GAUSSIAN])
    validate(event)
    assert flatten(from_json(to_json(event))) == [(GAUSSIAN, 10_001)]


def test_text_nested_too_deeply_for_json_is_a_value_error():
    deep = '{"kind":"sequential","children":[' * 100_000
    with pytest.raises(ValueError, match="JSON"):
        from_json(deep)


def test_helpers_build_what_they_say():
    assert repeat(GAUSSIAN, 1) is GAUSSIAN
    assert sequential([GAUSSIAN]) is GAUSSIAN
    assert sequential(iter([GAUSSIAN, PAIR])) == dp.ComposedDpEvent([GAUSSIAN, PAIR])
    with pytest.raises(ValueError, match="count"):
        repeat(GAUSSIAN, 0)
    with pytest.raises(TypeError):
        sequential([GAUSSIAN, UNTYPED])
