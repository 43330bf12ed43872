"""Exact arithmetic of totals, against fractions."""

import math
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpkit.accountants.rules.totals import (
    Cost,
    Totals,
    above,
    add,
    at_least,
    below,
    exact,
    subtract,
    text,
    times,
)

NUMBERS = st.floats(0.0, 1e300, allow_nan=False)


def _fraction(number):
    """The rational number that a float is written as."""
    return Fraction(repr(number))


@given(st.lists(NUMBERS, max_size=20), st.integers(1, 10**12))
def test_sums_and_multiples_are_exact(numbers, count):
    total = Decimal(0)
    for number in numbers:
        total = add(total, times(exact(number), count))
    assert Fraction(total) == count * sum(map(_fraction, numbers), Fraction(0))


@given(st.lists(NUMBERS, min_size=1, max_size=10))
def test_what_is_added_can_be_taken_away(numbers):
    total = Decimal(0)
    for number in numbers:
        total = add(total, exact(number))
    for number in numbers:
        total = subtract(total, exact(number))
    assert total == 0


@given(NUMBERS)
def test_text_reads_back(number):
    assert exact(text(exact(number))) == exact(number)


@given(NUMBERS)
def test_computed_numbers_are_never_lowered(number):
    assert Fraction(at_least(number)) >= Fraction(number)


@given(st.fractions(0, 10**6))
def test_rounding_to_floats_is_outward(number):
    decimal = Decimal(number.numerator) / Decimal(number.denominator)
    assert exact(below(decimal)) <= decimal <= exact(above(decimal))


def test_thirty_tenths_are_three():
    total = Decimal(0)
    for _ in range(30):
        total = add(total, exact(0.1))
    assert total == exact(3.0)


def test_a_subnormal_is_not_lost():
    assert add(exact(3.0), exact(5e-324)) > exact(3.0)


def test_infinity_stays():
    assert add(exact(1.0), exact(math.inf)).is_infinite()
    assert subtract(exact(math.inf), exact(1.0)).is_infinite()
    assert text(exact("inf")) == "inf"


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
