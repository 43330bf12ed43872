"""The parameter that a target needs, with the proof that it is enough.

One parameter is free: a noise multiplier (the smallest that will do), a number of steps
or a sampling rate (the largest). The search runs over the values that can be returned,
and ends at two neighbours that were both checked: the one returned meets the target by
its own certified bound, and the next looser one does not. An unchecked root is never
returned. Bounds are nearly powers of the parameter, so secants on logarithms, started
at the answer of a cheap accountant, need four or five bounds.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from dp_accounting import DpEvent

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.bounds import PrivacyBound
from dpkit.accountants.answers.errors import NotCertified
from dpkit.accountants.answers.relations import Relation, as_relation
from dpkit.accountants.readings import best, gdp, rdp
from dpkit.accountants.readings.axis import DIGITS, Axis
from dpkit.accountants.readings.reading import Reading

_CEILING = 50.0
_ROUGH = 1e-3
_LEAST_RUN = 1e-5
_PATIENCE = 5


Bound = TypeVar("Bound")  # has upper, certified and warnings


@dataclasses.dataclass(frozen=True)
class Calibration(Generic[Bound]):
    """A calibrated parameter and the bound that it was checked with.

    Attributes:
      value: the parameter: at most 7 significant digits, or an integer.
      bound: the certified bound at `value`; its `upper` is at most the target.

    Example:
      >>> Calibration(1.0, PrivacyBound(delta=0.1, relation="zero_out")).value
      1.0
    """

    value: float
    bound: Bound


def calibrate(
    make_event: Callable[[Any], DpEvent],
    *,
    epsilon: float,
    delta: float,
    relation: Relation | str,
    accountant: str = "best",
    free: str = "noise_multiplier",
    bracket: tuple[float, float] | None = None,
    digits: int = DIGITS,
) -> Calibration[PrivacyBound]:
    """The loosest value of one parameter whose certified epsilon fits.

    Args:
      make_event: parameter -> everything that will be released; an int for "steps".
      epsilon: the target, above 0, finite.
      delta: in (0, 1); 0 is possible if everything is pure.
      relation: "add_remove", "replace_one" or "zero_out".
      accountant: "best", or one accountant alone.
      free: "noise_multiplier" (the smallest that fits; epsilon must not grow with it),
        "steps" or "sampling_rate" (the largest; epsilon must not fall with them).
      bracket: (lowest, highest) value to consider; without one (1e-2, 1e4), (1, 10^9)
        or (1e-9, 1).
      digits: significant digits of the answer, 1 to 7; steps are whole anyway.

    Returns:
      The value, rounded to the private side, and its bound: `bound.upper <= epsilon`.
      The next looser value, if it is within the bracket, does not fit. No lower bound
      is looked for; `dpkit.epsilon` has it.

    Raises:
      ValueError: a bad target or bracket, or one that no value in it reaches.
      NotCertified: nothing within the bracket is proven.
      UnsupportedEvent: a part that the accountant has no proof for.
      UnsupportedRelation: a part that has no proof under the relation.

    Example:
      >>> from dp_accounting import GaussianDpEvent
      >>> from dpkit.accountants.events import repeat
      >>> fit = calibrate(GaussianDpEvent, epsilon=1.0, delta=1e-5,
      ...                 relation="add_remove")
      >>> round(fit.value, 4), fit.bound.upper <= 1.0
      (3.7306, True)
      >>> calibrate(lambda steps: repeat(GaussianDpEvent(10.0), steps), epsilon=3.0,
      ...           delta=1e-5, relation="add_remove", free="steps").value
      51

    Reference: Balle & Wang 2018, arXiv:1805.06530 (the first number above).
    """
    epsilon = checks.positive(epsilon=epsilon)
    delta = checks.half_open_probability(delta=delta)
    relation = as_relation(relation)
    axis = Axis.of(free, bracket, digits)

    def bound_at(value: Any) -> PrivacyBound:
        return best.epsilon(
            make_event(value),
            delta,
            relation=relation,
            accountant=accountant,
            lower=False,
        )

    def cheaply(reading: Reading[Any], value: Any) -> float:
        bound = reading.epsilon(make_event(value), delta, relation=relation)
        value = bound.estimate if bound.upper is None else bound.upper
        return math.inf if value is None else value

    search = _Search(bound_at, epsilon, axis)
    sample = make_event(axis.value(axis.middle))
    for reading in (gdp.GDP, rdp.RDP):
        if delta > 0 and reading.supports(sample, relation):
            read = functools.partial(cheaply, reading)
            search.start_from(_Falling(read, epsilon, axis))
            break
    return search.solve("epsilon")


def solve(
    bound_at: Callable[[Any], Bound],
    *,
    target: float,
    free: str = "noise_multiplier",
    bracket: tuple[float, float] | None = None,
    digits: int = DIGITS,
) -> Calibration[Bound]:
    """The loosest value of one parameter whose certified bound is within a target.

    It is `calibrate`, whose arguments, answer and errors it has, for other targets than
    epsilon: an attacker's advantage, which is delta at epsilon 0, or a true positive
    rate.

    Args:
      bound_at: parameter -> a bound with `upper`, `certified` and `warnings`.
      target: above 0, finite; what `upper` may be at most.

    Example:
      >>> from dp_accounting import GaussianDpEvent
      >>> def advantage(noise):
      ...     event = GaussianDpEvent(noise)
      ...     return best.delta_of(event, 0.0, relation="add_remove")
      >>> solve(advantage, target=0.38292493).value
      1.0
    """
    target = checks.positive(target=target)
    return _Search(bound_at, target, Axis.of(free, bracket, digits)).solve("target")


class _Falling:
    """A reading that falls along an axis, and the search for where it meets a target.

    What was read is remembered; `low` and `high` are the closest indices that are known
    not to fit and to fit, one outside each end at first.
    """

    def __init__(self, read: Callable[[Any], float], target: float, axis: Axis):
        self._read = read
        self._target = target
        self.axis = axis
        self.low, self.high = axis.first - 1, axis.last + 1
        self.slope = axis.slope
        self.start = axis.middle
        self._known: dict[int, float] = {}
        self._leap, self._least = 1.0, 1e-9
        self._width, self._patience = math.inf, _PATIENCE

    def run(self, tolerance: float = 0.0) -> int:
        """The first index that fits, or one that misses by at most `tolerance`."""
        index = self.start
        while True:
            reading = self._read(self.axis.value(index))
            if reading <= self._target:
                self.high = index
            else:
                self.low = index
            self._remember(index, reading)
            if abs(self._known[index]) < tolerance:
                return index
            if self.high - self.low == 1:
                return self.high
            index = min(max(self._next(), self.low + 1), self.high - 1)

    def start_from(self, rough: "_Falling") -> None:
        """Takes the answer of a rougher search as the first guess."""
        self.start = min(rough.run(_ROUGH), self.axis.last)
        self.slope = rough.slope

    def _remember(self, index: int, reading: float) -> None:
        """Keeps log(reading / target), within limits, and the slope to the last one."""
        ratio = reading / self._target
        excess = -_CEILING if reading <= self._target else _CEILING
        if math.exp(-_CEILING) < ratio < math.exp(_CEILING):
            excess = math.log(ratio)
        if self._known and abs(excess) < _CEILING:
            before, other = list(self._known.items())[-1]
            run = self.axis.log(index) - self.axis.log(before)
            rise = excess - other
            # Too short a run has no slope but that of rounding.
            if abs(other) < _CEILING and abs(run) > _LEAST_RUN and rise * run < 0:
                self.slope = rise / run
        self._known[index] = excess

    def _next(self) -> int:
        """Where to read next: a secant from the best reading, safeguarded."""
        best = min(self._known, key=lambda index: abs(self._known[index]))
        place, excess = self.axis.log(best), self._known[best]
        step = -excess / self.slope if abs(excess) < _CEILING else math.inf
        nothing_fits = self.high > self.axis.last
        if nothing_fits or self.low < self.axis.first:
            size = min(max(abs(step), self._least), self._leap)
            self._leap, self._least = 2 * self._leap, 16 * self._least
            return self.axis.near(place + (size if nothing_fits else -size))
        ends = self.axis.log(self.low), self.axis.log(self.high)
        if ends[1] - ends[0] <= 0.5 * self._width:
            self._width, self._patience = ends[1] - ends[0], max(self._patience, 1)
        self._patience -= 1
        if math.isinf(step) or self._patience < 0:
            return self.axis.near(0.5 * (ends[0] + ends[1]))
        return self.axis.near(place + step)


class _Search(_Falling, Generic[Bound]):
    """The search along certified bounds; what is not certified does not fit."""

    def __init__(self, bound_at: Callable[[Any], Bound], target: float, axis: Axis):
        self._bounds: dict[Any, Bound] = {}

        def read(value: Any) -> float:
            bound = self._bounds[value] = bound_at(value)
            return _certified(bound)

        super().__init__(read, target, axis)

    def solve(self, name: str) -> Calibration[Bound]:
        """The loosest value that fits, with its bound."""
        index = self.run()
        value = self.axis.value(min(index, self.axis.last))
        bound: Any = self._bounds[value]
        if index <= self.axis.last:
            return Calibration(value, bound)
        if math.isinf(_certified(bound)) and not bound.certified:
            why = "; ".join(bound.warnings) or "no accountant proves one"
            raise NotCertified(
                f"no certified bound at {self.axis.free}={value!r}: {why}"
            )
        raise ValueError(
            f"{name}={self._target!r} is out of reach: even {self.axis.free}={value!r} "
            f"gives {bound.upper!r}; widen bracket or change the plan"
        )


def _certified(bound: Any) -> float:
    """The upper bound, if it is proven, else inf."""
    return bound.upper if bound.certified and bound.upper is not None else math.inf
