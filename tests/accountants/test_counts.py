"""Counts that no float can hold are refused by name; those one can hold, answered."""

import dp_accounting as dp
import pytest
from dp_accounting import dp_event

from dpkit.accountants import calibrate, epsilon_curve, repeat
from dpkit.accountants.events import (
    DiscreteGaussianDpEvent,
    ParallelDpEvent,
    RandomAllocationDpEvent,
    TruncatedAllocationDpEvent,
)
from dpkit.accountants.readings.best import READINGS
from tests.accountants.test_conformance import EVENTS
from tests.accountants.worked_runs import (
    gaussian,
    poisson,
    truncated,
    without_replacement,
)

HUGE = 10**400
READ = [reading.name for reading in READINGS]


@pytest.mark.parametrize("reading", READINGS, ids=READ)
@pytest.mark.parametrize("name", [n for n in EVENTS if n != "metric_local_pure"])
def test_huge_counts_are_refused_by_name(name, reading):
    event = dp.SelfComposedDpEvent(EVENTS[name], HUGE)
    nested = dp.SelfComposedDpEvent(dp.SelfComposedDpEvent(EVENTS[name], 10**99), 1000)
    for big in (event, nested, ParallelDpEvent([event], True)):
        for ask in (reading.epsilon, reading.delta_of):
            with pytest.raises(ValueError, match="count"):
                ask(big, 0.5, relation="zero_out")
        with pytest.raises(ValueError, match="count"):
            reading.supports(big, "zero_out")


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: repeat(gaussian(1), HUGE), "count"),
        (lambda: DiscreteGaussianDpEvent(1.0, HUGE), "sensitivity"),
        (lambda: RandomAllocationDpEvent(1.0, 5, epochs=HUGE), "epochs"),
        (lambda: TruncatedAllocationDpEvent(1.0, 5, HUGE, 10), "dataset_size"),
        (lambda: repeat(truncated(1, 0.5, HUGE, 9), 1), "dataset_size"),
        (lambda: repeat(without_replacement(1, 9, HUGE), 1), "dataset_size"),
        (lambda: repeat(dp.RandomizedResponseDpEvent(0.5, HUGE), 1), "categories"),
        (lambda: repeat(dp_event.DiscreteLaplaceDpEvent(1.0, HUGE), 1), "sensitivity"),
        (lambda: repeat(dp.SingleEpochTreeAggregationDpEvent(1.0, HUGE), 1), "step"),
        (
            lambda: epsilon_curve(gaussian(1), [HUGE], 1e-5, relation="zero_out"),
            "count",
        ),
        (
            lambda: calibrate(
                lambda steps: repeat(gaussian(1), steps),
                epsilon=1,
                delta=1e-5,
                relation="zero_out",
                free="steps",
                bracket=(1, HUGE),
            ),
            "highest",
        ),
    ],
)
def test_huge_numbers_of_all_sorts_are_refused_by_name(make, named):
    with pytest.raises(ValueError, match=named):
        make()


@pytest.mark.parametrize(
    ("name", "reading"),
    [
        pytest.param(name, reading, id=f"{name}-{reading.name}")
        for name, event in EVENTS.items()
        for reading in READINGS
        if reading.supports(event, "zero_out")
    ],
)
def test_the_largest_counts_are_answered(name, reading):
    event = repeat(EVENTS[name], 10**98)
    bound = reading.epsilon(event, 1e-5, relation="zero_out", lower=False)
    assert bound.upper is None or bound.upper > 1e3


def test_longer_digits_than_python_prints_are_refused_by_name():
    with pytest.raises(ValueError, match="count=<an integer of 5001 digits> must"):
        repeat(poisson(1, 0.1), 10**5000)
