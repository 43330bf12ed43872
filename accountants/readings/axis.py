"""The values of a free parameter that a calibration can return, in order of privacy.

They are integers, or numbers of seven significant digits or fewer, and carry an index
that grows towards more privacy: up for noise, down for steps and rates. Whatever falls
between two values is rounded to the private one.
"""

import dataclasses
import math
from typing import Any

from dpkit.accountants.answers import checks

DIGITS = 7
# name: whether the loss grows with it, about which power of it the loss is, a bracket.
_KNOWN = {
    "noise_multiplier": (False, 1.2, (1e-2, 1e4)),
    "steps": (True, 0.6, (1, 10**9)),
    "sampling_rate": (True, 1.1, (1e-9, 1.0)),
}
FREE = tuple(_KNOWN)


@dataclasses.dataclass(frozen=True)
class Axis:
    """A parameter's values between two ends.

    Example:
      >>> axis = Axis.of("noise_multiplier", (0.5, 2.0))
      >>> axis.value(axis.place(1.23456781))
      1.234568
    """

    free: str  # its name
    growing: bool  # whether the loss grows with it
    first: int  # the loosest index
    last: int  # the most private index
    digits: int = DIGITS  # significant digits of values that are no integers

    @classmethod
    def of(
        cls, free: str, bracket: tuple[float, float] | None, digits: int = DIGITS
    ) -> "Axis":
        """The axis of a parameter; ValueError for a bad name, bracket or digits."""
        checks.one_of(FREE, free=free)
        digits = checks.integer_at_least(1, digits=digits)
        if digits > DIGITS:
            raise ValueError(f"digits={digits}: must be at most {DIGITS}")
        low, high = bracket or _KNOWN[free][2]
        others = checks.rate if free == "sampling_rate" else checks.positive
        check: Any = checks.count if free == "steps" else others
        low, high = check(lowest=low), check(highest=high)
        if low >= high:
            raise ValueError(
                f"bracket={bracket!r} must be (lowest, highest), increasing"
            )
        shown, growing = 0 if free == "steps" else digits, _KNOWN[free][0]
        ends = _rounded(low, shown, up=True), _rounded(high, shown, up=False)
        if ends[0] > ends[1]:
            raise ValueError(f"bracket={bracket!r} holds no number of {digits} digits")
        first, last = (-ends[1], -ends[0]) if growing else ends
        return cls(free, growing, first, last, digits)

    @property
    def slope(self) -> float:
        """About how fast the logarithm of a bound falls along `log`."""
        return -_KNOWN[self.free][1]

    @property
    def middle(self) -> int:
        """The index in the middle of the logarithms."""
        return self.near(0.5 * (self.log(self.first) + self.log(self.last)))

    def value(self, index: int) -> float:
        """The parameter at an index; an int for steps."""
        place = -index if self.growing else index
        if self.free == "steps":
            return place
        least = 10 ** (self.digits - 1)
        exponent, rest = divmod(place, 9 * least)
        return float(f"{rest + least}e{exponent - self.digits + 1}")

    def place(self, value: float) -> int:
        """The index of a value, or of the next more private one."""
        digits = 0 if self.free == "steps" else self.digits
        place = _rounded(value, digits, up=not self.growing)
        return -place if self.growing else place

    def log(self, index: int) -> float:
        """A coordinate that grows with the index: the logarithm, or minus it."""
        size = math.log(self.value(index))
        return -size if self.growing else size

    def near(self, log: float) -> int:
        """The index at a coordinate, or the next more private one, between the ends."""
        log = min(max(log, self.log(self.first)), self.log(self.last))
        index = self.place(math.exp(-log if self.growing else log))
        return min(max(index, self.first), self.last)


def _rounded(value: float, digits: int, *, up: bool) -> int:
    """The place of a value among numbers of so many digits; 0 for the integers."""
    if not digits:
        return math.ceil(value) if up else math.floor(value)
    shown, exponent = f"{value:.{digits - 1}e}".split("e")
    least = 10 ** (digits - 1)
    place = int(exponent) * 9 * least + int(shown.replace(".", "")) - least
    near = float(f"{shown}e{exponent}")
    if near == value:
        return place
    if up:
        return place + (near < value)
    return place - (near > value)
