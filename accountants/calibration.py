"""How much noise a target needs: the smallest parameter whose certified bound fits.

Privacy must improve as the parameter grows. The search works on logarithms, first with
the cheap Rényi accountant and then, inside the bracket that it leaves, with the one
asked for. The root is rounded up and the rounded value is checked once more: an
unchecked root is never returned.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from dp_accounting import DpEvent
from scipy import optimize

from dpkit.accountants import _check, accounting, rdp
from dpkit.accountants.bounds import PrivacyBound
from dpkit.accountants.errors import NotCertified
from dpkit.accountants.relations import Relation, as_relation

_DIGITS = 6
_TOLERANCE = 1e-6
_ROUGH = 1e-3
_CEILING = 50.0


@dataclasses.dataclass(frozen=True)
class Calibration:
    """A calibrated parameter and the bound that it was checked with.

    Attributes:
      value: the parameter, rounded up to 7 significant digits.
      bound: the certified bound at `value`; its `upper` is at most the target.

    Example:
      >>> Calibration(1.0, PrivacyBound(delta=0.1, relation="zero_out")).value
      1.0
    """

    value: float
    bound: PrivacyBound


def calibrate(
    make_event: Callable[[float], DpEvent],
    *,
    epsilon: float,
    delta: float,
    relation: Relation | str,
    accountant: str = "best",
    bracket: tuple[float, float] = (1e-2, 1e4),
) -> Calibration:
    """The smallest parameter (a noise multiplier) whose certified epsilon fits.

    Args:
      make_event: parameter -> everything that will be released; epsilon must not grow
        with the parameter.
      epsilon: the target, above 0, finite.
      delta: in (0, 1); 0 is possible if everything is pure.
      relation: "add_remove", "replace_one" or "zero_out".
      accountant: "best", or "pld", "rdp", "pure" alone.
      bracket: (lowest, highest) parameter to consider.

    Returns:
      The parameter, rounded up, and its bound: `bound.upper <= epsilon`. If the lowest
      parameter fits already, that one.

    Raises:
      ValueError: a bad target or bracket, or one that even `bracket[1]` doesn't reach.
      NotCertified: the event's own tables are not proven.
      UnsupportedEvent: a part that the accountant has no proof for.
      UnsupportedRelation: a part that has no proof under the relation.

    Example:
      >>> from dp_accounting import GaussianDpEvent
      >>> fit = calibrate(GaussianDpEvent, epsilon=1.0, delta=1e-5,
      ...                 relation="add_remove")
      >>> round(fit.value, 4), fit.bound.upper <= 1.0
      (3.7306, True)

    Reference: Balle & Wang 2018, arXiv:1805.06530 (the number above).
    """
    epsilon = _check.positive(epsilon=epsilon)
    delta = _check.half_open_probability(delta=delta)
    relation = as_relation(relation)
    low = _check.positive(lowest=bracket[0])
    high = _check.positive(highest=bracket[1])
    if low >= high:
        raise ValueError(f"bracket={bracket!r} must be (lowest, highest), increasing")

    def bound_at(value: float) -> PrivacyBound:
        return accounting.epsilon(
            make_event(value), delta, relation=relation, accountant=accountant
        )

    search = _Search(epsilon, lambda value: _certified(bound_at(value)))
    edges = math.log(low), math.log(high)
    if delta > 0 and rdp.supports(make_event(high), relation):

        def rough_at(value: float) -> float:
            rough = rdp.epsilon(make_event(value), delta, relation=relation)
            return math.inf if rough.upper is None else rough.upper

        edges = _narrowed(search, _Search(epsilon, rough_at), *edges)
    if search.excess(edges[1]) > 0:
        raise ValueError(
            f"epsilon={epsilon!r} is out of reach at delta={delta!r}: even {high!r} "
            f"gives {search.upper(edges[1])!r}; widen bracket or change the plan"
        )
    fits = search.excess(edges[0]) <= 0
    root = low if fits else math.exp(search.root(*edges, _TOLERANCE))
    return _verified(bound_at, epsilon, max(root, low), high)


class _Search:
    """Upper bounds by the parameter's logarithm, remembered, and where they fit."""

    def __init__(self, epsilon: float, upper: Callable[[float], float]):
        self._epsilon = epsilon
        self._upper = upper
        self._known: dict[float, float] = {}

    def upper(self, log_value: float) -> float:
        """The upper bound at a parameter."""
        if log_value not in self._known:
            self._known[log_value] = self._upper(math.exp(log_value))
        return self._known[log_value]

    def excess(self, log_value: float) -> float:
        """log(upper / epsilon), kept finite: above 0 where the target is missed."""
        ratio = self.upper(log_value) / self._epsilon
        if ratio <= math.exp(-_CEILING):
            return -_CEILING
        return min(math.log(ratio), _CEILING)

    def root(self, low: float, high: float, tolerance: float) -> float:
        """Where the excess changes sign between two logarithms."""
        root: Any = optimize.brentq(self.excess, low, high, xtol=tolerance, rtol=1e-12)
        return float(root)


def _narrowed(
    search: _Search, rough: _Search, low: float, high: float
) -> tuple[float, float]:
    """A narrow bracket around the Rényi accountant's answer, or the one given."""
    if rough.excess(high) > 0 or rough.excess(low) <= 0:
        return low, high
    top = min(high, rough.root(low, high, _ROUGH) + 2 * _ROUGH)
    if search.excess(top) > 0:
        return top, high
    bottom, width = top, 0.08
    while bottom > low and search.excess(bottom) <= 0:
        top, bottom = bottom, max(low, bottom - width)
        width *= 2
    return bottom, top


def _certified(bound: PrivacyBound) -> float:
    """The upper bound, if it is proven."""
    if bound.upper is None or not bound.certified:
        raise NotCertified(
            f"no certified epsilon at delta={bound.delta!r}: "
            f"{'; '.join(bound.warnings) or 'no accountant proves one'}"
        )
    return bound.upper


def _verified(
    bound_at: Callable[[float], PrivacyBound], epsilon: float, root: float, high: float
) -> Calibration:
    """The root rounded up until its own bound fits."""
    step = _TOLERANCE
    value = _rounded_up(root)
    while True:
        bound = bound_at(value)
        if _certified(bound) <= epsilon:
            return Calibration(value, bound)
        if value >= high:
            raise ValueError(f"epsilon={epsilon!r} is out of reach below {high!r}")
        value = min(high, _rounded_up(value * (1 + step)))
        step *= 2


def _rounded_up(value: float) -> float:
    """The next number with 7 significant digits that is not below `value`."""
    rounded = float(f"{value:.{_DIGITS}e}")
    if rounded >= value:
        return rounded
    digit = 10.0 ** (math.floor(math.log10(value)) - _DIGITS)
    return float(f"{value + digit:.{_DIGITS}e}")
