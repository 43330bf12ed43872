"""Checks of host numbers: what passes, what is refused, and that the name is told."""

import decimal
import fractions
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpkit.accountants.answers import checks

NUMBERS = [
    checks.finite,
    checks.positive,
    checks.non_negative,
    checks.non_negative_or_inf,
    checks.probability,
    checks.open_probability,
    checks.half_open_probability,
    checks.rate,
]
NO_NUMBERS = [
    True,
    np.bool_(True),
    "0.5",
    None,
    [0.5],
    np.array(0.5),
    jnp.asarray(0.5),
    decimal.Decimal("0.5"),
    0.5 + 0j,
]


@pytest.mark.parametrize("check", NUMBERS)
@pytest.mark.parametrize("value", [0.5, np.float32(0.5), fractions.Fraction(1, 2)])
def test_honest_numbers_come_back_as_floats(check, value):
    found = check(some_name=value)
    assert found == 0.5
    assert type(found) is float


@pytest.mark.parametrize("check", NUMBERS)
@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
def test_what_is_no_number_is_a_type_error_with_the_name(check, value):
    with pytest.raises(TypeError, match="some_name"):
        check(some_name=value)


@pytest.mark.parametrize("check", NUMBERS)
@pytest.mark.parametrize("value", [math.nan, -math.inf, -0.5, 10**400])
def test_nan_and_worse_are_refused_with_the_name(check, value):
    if check is checks.finite and value == -0.5:
        assert check(some_name=value) == -0.5
        return
    with pytest.raises(ValueError, match="some_name"):
        check(some_name=value)


@pytest.mark.parametrize(
    ("check", "inside", "outside"),
    [
        (checks.positive, [5e-324, 1e308], [0.0, math.inf]),
        (checks.noise, [1e-100, 1e100], [9.9e-101, 1.1e100, -1.0, 0, math.inf]),
        (checks.non_negative, [0, 1e308], [math.inf, -5e-324]),
        (checks.non_negative_or_inf, [0, math.inf], [-5e-324]),
        (checks.probability, [0, 1], [1.0000001]),
        (checks.open_probability, [5e-324, 0.9999999], [0, 1]),
        (checks.half_open_probability, [0], [1]),
        (checks.rate, [1, 1e-250], [0, 9e-251, 1.0000001]),
        (checks.finite, [0, -1e308], [math.inf]),
    ],
)
def test_the_edges_of_each_range(check, inside, outside):
    for value in inside:
        assert check(x=value) == value
    for value in outside:
        with pytest.raises(ValueError, match="x="):
            check(x=value)


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_integers_come_back_as_ints(value):
    found = checks.integer_at_least(3, steps=value)
    assert found == 3
    assert type(found) is int


@pytest.mark.parametrize("value", [3.0, True, "3", np.array(3), None])
def test_other_kinds_are_no_integers(value):
    with pytest.raises(TypeError, match="steps"):
        checks.integer_at_least(1, steps=value)


def test_small_integers_are_refused():
    with pytest.raises(ValueError, match="steps=0 must be at least 1"):
        checks.integer_at_least(1, steps=0)


def test_a_traced_value_is_a_type_error():
    def traced(x):
        return checks.positive(noise_multiplier=x)

    with pytest.raises(TypeError, match="noise_multiplier"):
        jax.jit(traced)(1.0)


def test_strings_and_flags():
    assert checks.one_of(("a", "b"), option="a") == "a"
    assert checks.text(name="x y") == "x y"
    assert checks.flag(certified=np.bool_(False)) is False
    with pytest.raises(ValueError, match="option='c' must be one of: a, b"):
        checks.one_of(("a", "b"), option="c")
    with pytest.raises(ValueError, match="name"):
        checks.text(name="  ")
    for wrong in (lambda: checks.flag(certified=1), lambda: checks.text(name=3)):
        with pytest.raises(TypeError):
            wrong()


def test_a_check_takes_one_keyword():
    with pytest.raises(TypeError, match="exactly one"):
        checks.positive(a=1.0, b=2.0)
