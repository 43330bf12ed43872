"""How a step is computed: checked when it is said, not when it is used."""

import dataclasses

import pytest

from dpkit.training import Execution


@pytest.mark.parametrize(
    ("setting", "error"),
    [
        ({"mode": "fast"}, ValueError),
        ({"mode": None}, TypeError),
        ({"generator": "xorshift"}, ValueError),
        ({"devices": 0}, ValueError),
        ({"devices": -1}, ValueError),
        ({"devices": 1.0}, TypeError),
        ({"microbatch_size": 0}, ValueError),
        ({"microbatch_size": True}, TypeError),
        ({"constant_time": 0}, TypeError),
    ],
    ids=str,
)
def test_what_cannot_be_executed_is_refused(setting, error):
    with pytest.raises(error, match=next(iter(setting))):
        Execution(**setting)


def test_a_resumed_run_takes_what_it_settled_and_nothing_that_is_asked_for():
    settled = {"devices": 2, "microbatch_size": 32, "mode": "vmap"}
    assert Execution().chosen({}) == Execution()
    assert Execution().chosen(settled) == Execution(devices=2, microbatch_size=32)
    asked = Execution(devices=1)
    assert asked.chosen(settled) == dataclasses.replace(asked, microbatch_size=32)
