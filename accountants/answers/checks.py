"""Checks of host numbers, used by everything that enters an event, a bound or a ledger.

Each function takes one keyword, so that the message carries the caller's own name for
the value: `positive(noise_multiplier=x)`. All of them return a plain Python number and
refuse what is no honest number: bool, NaN, infinities, strings, arrays, traced values.
"""

import math
import numbers
from collections.abc import Callable, Collection

import numpy as np

MOST = 10**100
_BOOLS = (bool, np.bool_)


def finite(**value: object) -> float:
    """A finite real number, as float."""
    return _within(value, math.isfinite, "finite")


def positive(**value: object) -> float:
    """A finite number above 0, as float."""
    return _within(value, lambda x: 0 < x < math.inf, "finite and above 0")


def noise(**value: object) -> float:
    """A noise of 1e-100 to 1e100, as float: its square is neither 0 nor infinite."""
    return _within(value, lambda x: 1e-100 <= x <= 1e100, "in [1e-100, 1e100]")


def non_negative(**value: object) -> float:
    """A finite number of at least 0, as float."""
    return _within(value, lambda x: 0 <= x < math.inf, "finite and at least 0")


def non_negative_or_inf(**value: object) -> float:
    """A number of at least 0 that may be infinite (an unlimited epsilon), as float."""
    return _within(value, lambda x: x >= 0, "at least 0, or inf")


def probability(**value: object) -> float:
    """A number in [0, 1], as float."""
    return _within(value, lambda x: 0 <= x <= 1, "in [0, 1]")


def open_probability(**value: object) -> float:
    """A number in (0, 1), as float: what a query for epsilon at delta needs."""
    return _within(value, lambda x: 0 < x < 1, "in (0, 1)")


def half_open_probability(**value: object) -> float:
    """A number in [0, 1), as float: the delta of a budget."""
    return _within(value, lambda x: 0 <= x < 1, "in [0, 1)")


def rate(**value: object) -> float:
    """A sampling rate in (0, 1], as float; one below 1e-250 is none that is meant."""
    number = _within(value, lambda x: 0 < x <= 1, "in (0, 1]")
    if number < 1e-250:
        raise ValueError(f"{next(iter(value))}={number!r} must be at least 1e-250")
    return number


def integer_at_least(minimum: int, /, **value: object) -> int:
    """An integer (Python or NumPy, never a float or a bool) of at least `minimum`."""
    name, given = _only(value)
    if isinstance(given, _BOOLS) or not isinstance(given, numbers.Integral):
        raise TypeError(f"{name}={_show(given)} must be an integer")
    if given < minimum:
        raise ValueError(f"{name}={int(given)} must be at least {minimum}")
    return int(given)


def count(minimum: int = 1, /, **value: object) -> int:
    """An integer of at least `minimum` that still is a number as a float: to 10^100."""
    number = integer_at_least(minimum, **value)
    if number > MOST:
        digits = number.bit_length() * 30103 // 100000 + 1  # printing it may be refused
        shown = f"<an integer of {digits} digits>"
        raise ValueError(f"{next(iter(value))}={shown} must be at most 10^100")
    return number


def flag(**value: object) -> bool:
    """A Python or NumPy bool, as bool."""
    name, given = _only(value)
    if not isinstance(given, _BOOLS):
        raise TypeError(f"{name}={_show(given)} must be True or False")
    return bool(given)


def text(**value: object) -> str:
    """A string with at least one character that is not white space."""
    name, given = _only(value)
    if not isinstance(given, str):
        raise TypeError(f"{name}={_show(given)} must be a string")
    if not given.strip():
        raise ValueError(f"{name}={given!r} must not be empty")
    return given


def one_of(options: Collection[str], /, **value: object) -> str:
    """One of the strings in `options`."""
    name, given = _only(value)
    if not isinstance(given, str):
        raise TypeError(f"{name}={_show(given)} must be a string")
    if given not in options:
        listed = ", ".join(sorted(options))
        raise ValueError(f"{name}={given!r} must be one of: {listed}")
    return given


def _only(value: dict[str, object]) -> tuple[str, object]:
    """The one keyword that a check was called with."""
    if len(value) != 1:
        raise TypeError(f"a check takes exactly one keyword, got {sorted(value)}")
    return next(iter(value.items()))


def _within(
    value: dict[str, object], allows: Callable[[float], bool], allowed: str
) -> float:
    """The value as a float that is allowed; TypeError if it is no number."""
    name, given = _only(value)
    if isinstance(given, _BOOLS) or not isinstance(given, numbers.Real):
        raise TypeError(f"{name}={_show(given)} must be a Python or NumPy number")
    try:
        number = float(given)
    except OverflowError:
        raise ValueError(f"{name}={_show(given)} is too large for a float") from None
    if not allows(number):
        raise ValueError(f"{name}={number!r} must be {allowed}")
    return number


def _show(given: object) -> str:
    """A short description of a refused value, with its type."""
    shown = repr(given)
    if len(shown) > 60:
        shown = shown[:57] + "..."
    return f"{shown} ({type(given).__name__})"
