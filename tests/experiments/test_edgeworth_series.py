"""The Edgeworth accountant as published: its numbers, and where they mislead."""

import doctest
import math
from typing import Any

import pytest

from dpkit.accountants import Relation, edgeworth, repeat
from dpkit.accountants.composition.tilt import LossSum
from dpkit.accountants.events import ApproxDpEvent
from experiments.baselines import edgeworth_series
from experiments.baselines.edgeworth_series import (
    last_crossing,
    one_sided,
    published,
    two_sided,
)
from tests.accountants.worked_runs import gaussian, poisson


def bound(event, delta, form, order=3) -> Any:
    return published(event, delta, relation="add_remove", form=form, order=order)


def test_the_examples_run():
    options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    found = doctest.testmod(edgeworth_series, optionflags=options)
    assert found.attempted >= 10
    assert found.failed == 0


# (noise, rate, steps, delta, two-sided orders 1 to 3, one-sided orders 1 to 3).
SERIES = [
    (
        *(1, 0.01, 10_000, 1e-5),
        [6.380762, 6.301175, 6.224469],
        [6.140798, 6.179661, 6.186737],
    ),
    (
        *(4, 0.01, 10_000, 1e-5),
        [0.947485, 0.946878, 0.946867],
        [0.946748, 0.946865, 0.946867],
    ),
    (
        *(3, 0.1, 512, 1e-6),
        [3.860802, 3.805249, 3.775674],
        [3.747893, 3.766748, 3.769477],
    ),
    (
        *(1, 5e-4, 20_000, 1e-5),
        [0.326387, 0.322856, 0.322295],
        [0.320883, 0.321981, 0.322128],
    ),
    (
        *(0.8, 0.005, 1_000, 1e-6),
        [1.613592, 1.714476, 1.802047],
        [1.447917, 1.543958, 1.626084],
    ),
    (
        *(0.5, 0.001, 1_000, 1e-5),
        [1.156417, 1.317859, 1.466885],
        [1.002512, 1.169203, 1.323814],
    ),
]


@pytest.mark.parametrize(
    ("noise", "rate", "steps", "delta", "two", "one"),
    [SERIES[0], *(pytest.param(*row, marks=pytest.mark.slow) for row in SERIES[1:])],
)
def test_the_published_series(noise, rate, steps, delta, two, one):
    # The authors look at the removed record alone; we take the worse direction.
    event = repeat(poisson(noise, rate), steps)
    losses: Any = LossSum(event, Relation.ADD_REMOVE)
    null, alternative = losses.at(-1.0), losses.at(0.0)
    for order in (1, 2, 3):
        curves = {
            "aea": (lambda e, k=order: two_sided(null, alternative, e, k), two),
            "one_sided": (lambda e, k=order: one_sided(alternative, e, k), one),
        }
        for form, (curve, values) in curves.items():
            removing = last_crossing(curve, delta, alternative)
            assert removing == pytest.approx(values[order - 1], abs=2e-6)
            found = bound(event, delta, form=form, order=order)
            assert removing <= found.estimate <= removing + 0.02
            assert not found.certified
            assert found.upper is None
            assert "below the truth" in found.warnings[0]


def test_the_published_series_falls_far_below_the_truth():
    found = bound(repeat(poisson(0.5, 0.001), 1000), 1e-5, form="aea", order=3)
    assert found.estimate < 0.5 * 3.2388781


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "value"), [(50_000, 0.29995), (10**6, 0.39820)])
def test_the_published_intervals_setting(steps, value):
    # The authors' code, order 1, at rates 0.08 sqrt(log m / m).
    rate = 0.08 * math.sqrt(math.log(steps) / steps)
    event = repeat(poisson(0.8, rate), steps)
    found = bound(event, 0.1, form="aea", order=1)
    assert found.estimate == pytest.approx(value, abs=4e-5)
    interval = bound(event, 0.1, form="eeai")
    assert interval.certified
    tight: Any = edgeworth.epsilon(event, 0.1, relation="add_remove")
    assert interval.lower < tight.lower <= tight.upper < interval.upper


def test_the_untilted_interval_says_nothing_for_small_delta():
    found = bound(repeat(poisson(1, 0.01), 10_000), 1e-5, form="eeai")
    assert found.upper is None
    assert not found.certified
    assert "says nothing" in found.warnings[-1]


def test_a_series_below_zero_is_clipped_and_flagged():
    found = bound(repeat(poisson(1, 1e-3), 10), 0.4, form="aea", order=1)
    assert found.estimate == 0.0
    assert "below epsilon=0" in found.warnings[-1]


def test_published_forms_need_finite_losses():
    with pytest.raises(ValueError, match="form='aea'"):
        bound(ApproxDpEvent(0.1, 1e-7), 1e-5, form="aea")


@pytest.mark.parametrize(
    ("delta", "form", "order", "named"),
    [
        (0, "aea", 1, "delta"),
        (1e-5, "best", 1, "form"),
        (1e-5, "aea", 5, "order"),
        (1e-5, "aea", 0, "order"),
    ],
)
def test_bad_arguments_are_refused(delta, form, order, named):
    with pytest.raises(ValueError, match=named):
        bound(gaussian(1), delta, form, order)
