"""Running totals: what is charged, refunded, aborted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpkit.accountants.answers.exact import ZERO, exact, times
from dpkit.accountants.rules.totals import Cost, Totals

NUMBERS = st.floats(0.0, 1e300, allow_nan=False)


@given(st.lists(NUMBERS, min_size=1, max_size=10))
def test_what_is_added_can_be_taken_away(numbers):
    costs = [Cost("approx", exact(number), exact(number)) for number in numbers]
    totals = Totals()
    for cost in costs:
        totals = totals.plus(cost, 1, seq=1)
    for cost in costs:
        totals = totals.minus(cost, 1)
    assert (totals.epsilon, totals.delta, totals.charges) == (ZERO, ZERO, 0)


def test_infinity_stays():
    endless = Cost("approx", epsilon=exact("inf"))
    spent = Totals().plus(endless, 1, seq=1).minus(Cost("pure", exact(1.0)), 1)
    assert spent.epsilon == exact("inf")


@pytest.mark.parametrize("ran", [0, 3, 7])
def test_totals_after_a_refund_are_those_of_what_ran(ran):
    cost = Cost("renyi", values=(exact(0.1), exact(0.7)))
    reserved = Totals().plus(cost, 7, seq=1).minus_steps(cost, 7 - ran)
    assert reserved.renyi == (times(exact(0.1), ran), times(exact(0.7), ran))


def test_a_plan_is_not_refunded():
    cost = Cost("approx", epsilon=exact(1.0), delta=exact(1e-6))
    spent = Totals().plus(cost, 7, seq=1)
    assert spent.minus_steps(cost, 6) == spent


def test_an_aborted_plan_leaves_nothing():
    cost = Cost("approx", epsilon=exact(1.0), delta=exact(1e-6))
    spent = Totals().plus(cost, 7, seq=1).minus(cost, 7)
    assert (spent.epsilon, spent.delta, spent.charges) == (0, 0, 0)


def test_costs_and_totals_read_back():
    cost = Cost("renyi", values=(exact(0.1),), opens={"orders": ["2.0"]})
    assert Cost.from_json(cost.to_json()) == cost
    totals = Totals().plus(cost, 2, seq=5)
    assert Totals.from_json(totals.to_json()) == totals
    assert totals.opened == 5
