"""Exact numbers, for what is added up and compared with a budget.

Numbers are read as the decimals that they are written as, and added exactly: nothing is
lost or gained by rounding, sums don't depend on their order, "up to the budget,
equality included" means what it says, and the smallest positive charge after exhaustion
is still refused. A third is a third. What comes out of floating-point formulas is
rounded up before.
"""

from __future__ import annotations

import decimal
import functools
import math
import re
import sys
from fractions import Fraction

Number = Fraction | float
"""A fraction, or infinity: the only float among them."""

ZERO = Fraction(0)
_INFINITE = math.inf
_WRITTEN = re.compile(r"[+-]?\d+(\.\d*)?(e[+-]?\d{1,4})?|[+-]?\d+/\d+", re.IGNORECASE)
_TRAPS = [decimal.Inexact, decimal.InvalidOperation, decimal.Overflow]
# The second is for the rare number that has more digits than the first.
_QUICK, _EXACT = (
    decimal.Context(digits, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN, traps=_TRAPS)
    for digits in (60, 20_000)
)
# So that sums of many are short: the least common multiple of all has 433 digits.
_LARGEST_DENOMINATOR = 1000


def exact(number: Number | int | str) -> Number:
    """The number that is written so; of a float, the shortest decimal that reads back.

    Raises:
      ValueError: not a number, or one of more digits than any sum has.

    Example:
      >>> exact(0.1) * 3 == exact("0.3")
      True
    """
    if isinstance(number, Fraction):
        return number
    if isinstance(number, int):
        return Fraction(number)
    return _read(repr(float(number)) if isinstance(number, float) else number)


@functools.lru_cache(maxsize=1024)
def _read(written: str) -> Number:
    """The number that is written so: a ledger reads the same totals again and again."""
    if written.lower() in ("inf", "infinity"):
        return _INFINITE
    if not _WRITTEN.fullmatch(written):
        raise ValueError(f"{written[:40]!r} is not a number")
    return Fraction(written)


def at_least(number: float) -> Number:
    """A short decimal that is at least the binary value of a computed number.

    Example:
      >>> float(at_least(3.0)), float(at_least(0.1))
      (3.0, 0.10000000000000002)
    """
    short = exact(number)
    return short if short >= number else exact(math.nextafter(number, _INFINITE))


def shortened(number: Number) -> Number:
    """The number, or a decimal just above it where its denominator is unwieldy.

    Example:
      >>> shortened(Fraction(1, 3)), shortened(Fraction(1, 1009)) > Fraction(1, 1009)
      (Fraction(1, 3), True)
    """
    if _denominator(number) <= _LARGEST_DENOMINATOR:
        return number
    return exact(above(number))


def below(number: Number) -> float:
    """The largest float that is written as a decimal of at most `number`.

    Example:
      >>> below(exact("0.1")), below(exact("0.10000000000000001")) <= 0.1
      (0.1, True)
    """
    near = _near(number)
    return near if exact(near) <= number else math.nextafter(near, -_INFINITE)


def above(number: Number) -> float:
    """The smallest float that is written as a decimal of at least `number`.

    Example:
      >>> above(exact("0.1")), above(exact("1e-400")), above(exact("1e400"))
      (0.1, 5e-324, inf)
    """
    near = _near(number)
    return near if exact(near) >= number else math.nextafter(near, _INFINITE)


def _near(number: Number) -> float:
    """A float nearby; inf beyond the largest."""
    try:
        return float(number)
    except OverflowError:
        return _INFINITE


def times(number: Number, count: int) -> Number:
    """number * count; nothing, however often it is infinite, is nothing."""
    return ZERO if count == 0 else number * count


def plus(left: Number, right: Number) -> Number:
    """left + right; infinite beyond the largest float, which no budget holds.

    Example:
      >>> plus(exact("1.7e308"), exact("1.7e308")), plus(exact("0.1"), exact("0.2"))
      (inf, Fraction(3, 10))
    """
    total = _INFINITE if _INFINITE in (left, right) else left + right
    return total if total <= sys.float_info.max else _INFINITE


def text(number: Number) -> str:
    """The one spelling of a number: a decimal, "inf", or a fraction where it is none.

    Example:
      >>> text(exact(3.0)), text(exact("1e-05")), text(math.inf), text(Fraction(2, 6))
      ('3', '1e-5', 'inf', '1/3')
    """
    if number == _INFINITE:
        return "inf"
    whole = Fraction(number)
    if _denominator(whole) > 1:
        return f"{whole.numerator}/{whole.denominator}"
    try:
        short = _divided(whole, _QUICK)
    except decimal.Inexact:
        short = _divided(whole, _EXACT)
    return f"{short:f}" if -5 < short.adjusted() < 17 else f"{short:e}".lower()


def _divided(whole: Fraction, context: decimal.Context) -> decimal.Decimal:
    """A fraction as the decimal that it is; Inexact where it has too many digits."""
    top, bottom = map(context.create_decimal, (whole.numerator, whole.denominator))
    return context.divide(top, bottom).normalize(context)


def _denominator(number: Number) -> int:
    """What the denominator has beside twos and fives; 1 for decimals."""
    left = Fraction(number).denominator if number < _INFINITE else 1
    for prime in (2, 5):
        while left % prime == 0:
            left //= prime
    return left
