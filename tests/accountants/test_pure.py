"""Basic composition: sums, outwards, and the only answers at delta = 0."""

import math
from fractions import Fraction

import dp_accounting as dp
import pytest
from dp_accounting import dp_event

from dpkit.accountants.answers.errors import UnsupportedEvent, UnsupportedRelation
from dpkit.accountants.answers.relations import as_relation
from dpkit.accountants.events import (
    ApproxDpEvent,
    BoundedRangeDpEvent,
    ParallelDpEvent,
    PureDpEvent,
    repeat,
    sequential,
)
from dpkit.accountants.readings import pure
from tests.accountants.worked_runs import gaussian, pmf_pair, poisson_laplace


def guarantee(event, relation="zero_out"):
    return pure.guarantee(event, as_relation(relation))


@pytest.mark.parametrize(
    ("event", "relation", "epsilon", "delta"),
    [
        (PureDpEvent(0.3), "add_remove", 0.3, 0),
        (BoundedRangeDpEvent(0.3), "replace_one", 0.3, 0),
        (ApproxDpEvent(0.3, 1e-6), "zero_out", 0.3, 1e-6),
        (dp.LaplaceDpEvent(4.0), "add_remove", 0.25, 0),
        (dp.LaplaceDpEvent(4.0), "replace_one", 0.5, 0),
        (dp_event.DiscreteLaplaceDpEvent(0.5, 3), "zero_out", 1.5, 0),
        (dp_event.DiscreteLaplaceDpEvent(0.5, 3), "replace_one", 3.0, 0),
        # log(1 + q (e^(1/b) - 1)): amplification of pure privacy by sampling.
        (poisson_laplace(1, 0.1), "add_remove", math.log1p(0.1 * math.expm1(1)), 0),
        # Answers 0.75 : 0.25 against each other, and 0.75 : 0.5 against a fair coin.
        (dp.RandomizedResponseDpEvent(0.5, 2), "replace_one", math.log(3), 0),
        (dp.RandomizedResponseDpEvent(0.5, 2), "zero_out", math.log(2), 0),
        (pmf_pair((0.75, 0.25), (0.5, 0.5)), "add_remove", math.log(2), 0),
        (pmf_pair((0.9, 0.1, 0.0), (0.9, 0.0, 0.1)), "add_remove", 0.0, 0.1),
        (repeat(PureDpEvent(0.25), 8), "add_remove", 2.0, 0),
        (sequential([]), "add_remove", 0.0, 0),
        (
            ParallelDpEvent([PureDpEvent(0.5), repeat(PureDpEvent(0.25), 3)]),
            "zero_out",
            0.75,
            0,
        ),
    ],
    ids=repr,
)
def test_guarantees(event, relation, epsilon, delta):
    found = guarantee(event, relation)
    assert found == pytest.approx((epsilon, delta), rel=1e-12)
    assert found[0] >= epsilon * (1 - 1e-15)


def test_sums_are_those_of_the_decimals_as_written():
    epsilon, _ = guarantee(repeat(PureDpEvent(0.1), 3))
    assert epsilon == Fraction(3, 10)


def test_epsilon_needs_room_for_the_deltas():
    event = repeat(ApproxDpEvent(0.1, 1e-6), 10)
    assert pure.epsilon(event, 1e-5 - 1e-9, relation="zero_out").upper == math.inf
    assert pure.epsilon(event, 1.1e-5, relation="zero_out").upper == pytest.approx(1.0)
    assert pure.delta_of(event, 1.1, relation="zero_out").upper == pytest.approx(1e-5)
    assert pure.delta_of(event, 0.9, relation="zero_out").upper == 1.0


def test_delta_zero_is_possible():
    bound = pure.epsilon(dp.LaplaceDpEvent(2.0), 0, relation="add_remove")
    assert bound.upper == pytest.approx(0.5)
    assert bound.delta == 0
    assert bound.certified


def test_what_is_not_pure_is_refused():
    with pytest.raises(UnsupportedEvent, match="Gaussian"):
        guarantee(sequential([PureDpEvent(1.0), gaussian(1)]))
    for event, relation in [
        (dp.RandomizedResponseDpEvent(0.5, 2), "add_remove"),
        (poisson_laplace(1, 0.1), "replace_one"),
        (ParallelDpEvent([PureDpEvent(1.0)]), "replace_one"),
        (pmf_pair((0.5, 0.5), (0.4, 0.6)), "zero_out"),
    ]:
        with pytest.raises(UnsupportedRelation):
            guarantee(event, relation)
        assert not pure.supports(event, relation)
    assert pure.supports(PureDpEvent(1.0), "replace_one")


def test_no_privacy_is_infinite():
    assert guarantee(dp.NonPrivateDpEvent())[0] == math.inf
