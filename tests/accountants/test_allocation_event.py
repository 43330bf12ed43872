"""Random allocation as an event: what it refuses, its normal form and its parts."""

import json
import math
from typing import Any

import pytest
from dp_accounting import ComposedDpEvent, GaussianDpEvent, SelfComposedDpEvent

from dpkit.accountants import UnsupportedRelation, epsilon
from dpkit.accountants.events import (
    RandomAllocationDpEvent,
    flatten,
    from_json,
    to_json,
    validate,
)
from dpkit.accountants.events.allocation import Part, parts
from dpkit.accountants.readings import rdp

ALLOCATION: Any = RandomAllocationDpEvent
GOOD = [
    ALLOCATION(1.0, 29),
    ALLOCATION(1.1, 29, epochs=10, last_steps=28),
    ALLOCATION(1.0, 29, epochs=0, last_steps=1),
    ALLOCATION(1.0, 2**20, selected=2**20, epochs=10**9),
    ALLOCATION(1.0, 29, epochs=10, partition="kept"),
    ALLOCATION(1e-100, 1),
]


@pytest.mark.parametrize("event", GOOD, ids=repr)
def test_json_round_trip(event):
    validate(event)
    assert from_json(json.dumps(to_json(event))) == event
    assert hash(from_json(to_json(event))) == hash(event)


def test_the_written_form():
    assert to_json(ALLOCATION(1.1, 29, epochs=9, last_steps=10)) == {
        "kind": "random_allocation",
        "v": 1,
        "noise_multiplier": "1.1",
        "steps_per_epoch": 29,
        "selected": 1,
        "epochs": 9,
        "last_steps": 10,
        "partition": "fresh",
    }
    short = {"kind": "random_allocation", "noise_multiplier": 1, "steps_per_epoch": 29}
    assert from_json(short) == ALLOCATION(1.0, 29)
    assert from_json(short | {"count": 3}) == SelfComposedDpEvent(
        ALLOCATION(1.0, 29), 3
    )


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"noise_multiplier": 0.0}, "noise_multiplier=0"),
        ({"noise_multiplier": math.nan}, "nan"),
        ({"noise_multiplier": math.inf}, "inf"),
        ({"noise_multiplier": -1.0}, "-1"),
        ({"steps_per_epoch": 0}, "steps_per_epoch=0"),
        ({"steps_per_epoch": 2**20 + 1}, "at most 1048576"),
        ({"selected": 0}, "selected=0"),
        ({"selected": 30}, "selected=30"),
        ({"epochs": -1}, "epochs=-1"),
        ({"epochs": 0}, "epochs=0"),
        ({"last_steps": -1}, "last_steps=-1"),
        ({"last_steps": 29}, "last_steps=29"),
        ({"last_steps": 3, "selected": 2}, "selected=2"),
        ({"partition": "kept", "selected": 2}, "selected=2"),
        ({"partition": "kept", "last_steps": 3}, "last_steps=3"),
        ({"partition": "shuffled"}, "shuffled"),
    ],
)
def test_values_that_are_refused(fields, named):
    good = {"noise_multiplier": 1.0, "steps_per_epoch": 29}
    with pytest.raises(ValueError, match=named):
        ALLOCATION(**good | fields)
    data = {"kind": "random_allocation"} | good | fields
    with pytest.raises(ValueError, match="random_allocation"):
        from_json(data)


@pytest.mark.parametrize(
    "fields",
    [
        {"steps_per_epoch": 29.0},
        {"selected": True},
        {"epochs": 1.5},
        {"last_steps": "3"},
        {"partition": 1},
        {"noise_multiplier": True},
    ],
)
def test_the_wrong_type_is_refused(fields):
    with pytest.raises(TypeError):
        ALLOCATION(**{"noise_multiplier": 1.0, "steps_per_epoch": 29} | fields)


NOISE = GaussianDpEvent(2.0)
EPOCH = ALLOCATION(2.0, 29)


@pytest.mark.parametrize(
    ("event", "form"),
    [
        (ALLOCATION(2.0, 29, epochs=10), [(EPOCH, 10)]),
        (SelfComposedDpEvent(EPOCH, 10), [(EPOCH, 10)]),
        (
            SelfComposedDpEvent(ALLOCATION(2.0, 29, epochs=2, last_steps=3), 5),
            [(EPOCH, 10), (ALLOCATION(2.0, 29, epochs=0, last_steps=3), 5)],
        ),
        (ComposedDpEvent([EPOCH, NOISE, EPOCH]), [(EPOCH, 2), (NOISE, 1)]),
        (ALLOCATION(2.0, 1, epochs=7), [(NOISE, 7)]),
        (ALLOCATION(2.0, 1, epochs=7, partition="kept"), [(NOISE, 7)]),
        (ALLOCATION(2.0, 3, selected=3, epochs=7), [(NOISE, 21)]),
        (ALLOCATION(2.0, 29, 4, epochs=7), [(ALLOCATION(2.0, 29, 4), 7)]),
        (ALLOCATION(2.0, 29, epochs=1, partition="kept"), [(EPOCH, 1)]),
    ],
)
def test_normal_form(event, form):
    assert flatten(event) == form


def test_a_kept_partition_rounds_its_noise_down():
    [(once, count)] = flatten(ALLOCATION(3.0, 29, epochs=10, partition="kept"))
    noise = getattr(once, "noise_multiplier")  # noqa: B009
    assert count == 1
    assert 3.0 / math.sqrt(10) * (1 - 1e-15) < noise < 3.0 / math.sqrt(10)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (EPOCH, [Part(2.0, 29, None, 1)]),
        (
            ALLOCATION(2.0, 29, epochs=9, last_steps=10),
            [Part(2.0, 29, None, 9), Part(2.0, 29, 10, 1)],
        ),
        (
            ALLOCATION(1.0, 10, 3, epochs=2),
            [Part(1.0, 4, None, 2), Part(1.0, 3, None, 4)],
        ),
        (ALLOCATION(1.0, 40, 4), [Part(1.0, 10, None, 4)]),
        (
            ALLOCATION(1.0, 5, 4),
            [Part(1.0, 2, None, 1), Part(1.0, 1, None, 3)],
        ),
        (ALLOCATION(1.0, 5, 5, epochs=2), [Part(1.0, 1, None, 10)]),
    ],
)
def test_parts(event, expected):
    assert parts(event) == expected
    steps = sum(part.count * (part.last_steps or part.steps) for part in expected)
    whole = event.epochs * event.steps_per_epoch + event.last_steps
    assert steps == whole


@pytest.mark.parametrize("event", GOOD[:3], ids=repr)
def test_replacing_a_record_is_refused(event):
    with pytest.raises(UnsupportedRelation, match="replace_one"):
        rdp.epsilon(event, 1e-5, relation="replace_one")
    with pytest.raises(UnsupportedRelation):
        epsilon(event, 1e-5, relation="replace_one")


@pytest.mark.slow
def test_a_record_of_zeros_costs_what_an_absent_one_does():
    absent, zeros = (
        epsilon(GOOD[1], 1e-5, relation=relation)
        for relation in ("add_remove", "zero_out")
    )
    assert absent.upper == zeros.upper
    assert absent.certified
