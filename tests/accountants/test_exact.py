"""Exact arithmetic of what is charged, against fractions."""

import itertools
import math
from fractions import Fraction

import dp_accounting as dp
import pytest
from dp_accounting import dp_event
from hypothesis import given
from hypothesis import strategies as st

from dpkit.accountants import Budget, BudgetExceeded, PureDpEvent, epsilon, repeat
from dpkit.accountants.answers.exact import (
    above,
    at_least,
    below,
    exact,
    shortened,
    text,
    times,
)
from tests.accountants.toy_ledgers import new_ledger

NUMBERS = st.floats(0.0, 1e300, allow_nan=False)


def written(number):
    """The rational number that a float is written as."""
    return Fraction(repr(number))


@given(st.lists(NUMBERS, max_size=20), st.integers(1, 10**12))
def test_sums_and_multiples_are_exact(numbers, count):
    total = sum((times(exact(number), count) for number in numbers), Fraction(0))
    assert total == count * sum(map(written, numbers), Fraction(0))


@given(NUMBERS | st.fractions(0, 10**6, max_denominator=1000))
def test_text_reads_back(number):
    assert exact(text(exact(number))) == exact(number)


@pytest.mark.parametrize(
    ("number", "spelling"),
    [(3.0, "3"), (1e-05, "1e-5"), (0.1, "0.1"), (1e22, "1e+22"), ("2/6", "1/3")],
)
def test_a_number_has_one_spelling(number, spelling):
    assert text(exact(number)) == spelling


@pytest.mark.parametrize("word", ["nan", "", "1/0", "1e-99999999", "0x1", "1_0", " 1"])
def test_what_is_no_number_is_refused(word):
    with pytest.raises((ValueError, ArithmeticError)):
        exact(word)


@given(NUMBERS)
def test_computed_numbers_are_never_lowered(number):
    assert Fraction(at_least(number)) >= Fraction(number)


@given(st.fractions(0, 10**6))
def test_rounding_to_floats_is_outward(number):
    assert exact(below(number)) <= number <= exact(above(number))
    assert number <= shortened(number) <= exact(above(number))


def test_the_smallest_and_the_largest():
    assert sum(itertools.repeat(exact(0.1), 30)) == exact(3.0)
    assert exact(3.0) + exact(5e-324) > exact(3.0)
    assert exact(1.0) + exact(math.inf) == math.inf == exact("inf")
    assert (text(math.inf), above(math.inf), times(math.inf, 0)) == ("inf", math.inf, 0)


@pytest.mark.parametrize("scale", [1.0, 3.0, 4.0, 7.0, 10.0, 970.0])
def test_a_budget_without_delta_holds_what_fits_and_no_more(scale):
    count, budget = round(scale), Budget(1.0, 0.0)
    ledger, event = new_ledger(budget=budget), dp.LaplaceDpEvent(scale)
    for number in range(min(count, 10)):
        ledger.charge(event, label=str(number))
    if count > 10:
        ledger.charge(event, count=count - 10, label="the rest")
    assert ledger.spent().upper == budget.epsilon
    ledger.verify()
    for more in (event, PureDpEvent(1e-300)):
        assert ledger.remaining(more) == 0
        with pytest.raises(BudgetExceeded):
            ledger.charge(more, label="more")


def test_many_unlike_scales_have_a_short_sum_that_is_no_smaller():
    """A charge of another scale each: denominators stay short, the sum is above."""
    ledger, truth = new_ledger(budget=Budget(1e6, 0.0)), Fraction(0)
    for number in range(200):
        scale = 0.5 + number / 997
        ledger.charge(dp.LaplaceDpEvent(scale), label="x")
        truth += 1 / written(scale)
    spelled = ledger.entries()[-1].body["after"]["totals"]["all"]["epsilon"]
    assert truth <= exact(spelled) <= truth * (1 + Fraction(1, 10**15))
    assert len(spelled) < 1000
    ledger.verify()


@pytest.mark.parametrize(
    ("event", "relation", "answer"),
    [
        (dp.LaplaceDpEvent(1.0), "add_remove", 1.0),
        (dp.LaplaceDpEvent(3.0), "replace_one", 0.6666666666666667),
        (repeat(dp.LaplaceDpEvent(3.0), 3), "zero_out", 1.0),
        (repeat(PureDpEvent(0.1), 30), "zero_out", 3.0),
        (dp_event.DiscreteLaplaceDpEvent(0.1, 3), "add_remove", 0.3),
        (repeat(dp.LaplaceDpEvent(0.7), 7), "add_remove", 10.0),
    ],
)
def test_a_closed_form_that_is_exact_has_no_pad(event, relation, answer):
    assert epsilon(event, 0.0, relation=relation).upper == answer


def test_what_is_irrational_is_rounded_up():
    """log 3, by forty digits."""
    event = dp.RandomizedResponseDpEvent(0.5, 2)
    found = epsilon(event, 0.0, relation="replace_one").upper
    assert found is not None
    least = Fraction("1.098612288668109691395245236922525704647490")
    assert least <= Fraction(found) < least * (1 + Fraction(1, 10**12))
