r"""The Edgeworth accountant: the fastest reading of long compositions; static only.

It needs a few cumulants of each kind of release, whatever the number of releases, and
answers with a certified interval (Berry-Esseen under a tilt) and, where the tilted loss
is nearly normal, with an estimate, most often to five digits. The two directions of
a relation are two chains that are never mixed, and the worse answer counts. Unsampled
Gaussians enter exactly, and alone have a closed form. Any delta can be asked for.

Reference: Wang, Gao, Zhang, Shen, Su, "Analytical Composition of Differential Privacy
via the Edgeworth Accountant", 2022, arXiv:2206.04236.
"""

import functools
import math
from typing import NamedTuple

from dp_accounting import DpEvent

from dpkit.accountants.answers.relations import Relation
from dpkit.accountants.composition import saddle
from dpkit.accountants.composition.tilt import LossSum
from dpkit.accountants.pairs import gaussian
from dpkit.accountants.readings import rdp
from dpkit.accountants.readings.reading import Answer, Reading, coarse

_PAD = 1e-12
_TINY = 5e-324
_LOOSE = "no estimate: the loss is not nearly normal; accountant='pld' may be tighter"

Interval = tuple[float, float | None, float]


class Tilted(NamedTuple):
    """A composition's loss, and what it is the loss of."""

    losses: LossSum
    event: DpEvent
    relation: Relation


class Edgeworth(Reading[Tilted]):
    """A certified interval, and an estimate where the tilted loss is nearly normal.

    Example:
      >>> from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
      >>> from dpkit.accountants.events import repeat
      >>> step = PoissonSampledDpEvent(0.01, GaussianDpEvent(4.0))
      >>> bound = epsilon(repeat(step, 10_000), 1e-5, relation="add_remove")
      >>> bound.certified, round(bound.estimate, 6), round(bound.upper, 3)
      (True, 0.946867, 0.95)
    """

    name = "edgeworth"

    def read(self, event: DpEvent, relation: Relation) -> Tilted:
        """The loss, ready to be tilted."""
        return Tilted(LossSum(event, relation), event, relation)

    def epsilon_at(self, read: Tilted, delta: float, *, lower: bool) -> Answer:
        """The worse of both directions; by Rényi where no tilt could be tried."""
        losses = read.losses
        if not losses.private:
            return _answer((math.inf, math.inf, math.inf))
        if losses.only_gaussian:
            low, high = gaussian.epsilon(losses.shift, delta)
            return _answer((low, high, high))
        found = _worse([_epsilon(losses, delta, side) for side in (False, True)])
        if math.isinf(found[2]) and rdp.supports(read.event, read.relation):
            renyi = rdp.RDP.read(read.event, read.relation)
            upper = rdp.RDP.epsilon_at(renyi, delta, lower=lower).upper
            return Answer(upper=upper, warnings=(_LOOSE,), method=rdp.RDP.name)
        return _answer(found)

    def delta_at(self, read: Tilted, epsilon: float, *, lower: bool) -> Answer:
        """The worse of both directions."""
        losses = read.losses
        if not losses.private:
            return _answer((1.0, 1.0, 1.0))
        if losses.only_gaussian:
            low, high = gaussian.delta(losses.shift, epsilon)
            return _answer((low, high, high))
        return _answer(
            _worse([_delta(losses, epsilon, side) for side in (False, True)])
        )

    def worth_asking(self, event: DpEvent, delta: float, known: bool) -> bool:
        """Where a grid is coarse: elsewhere the loss distributions are tighter."""
        return coarse(event, delta)


EDGEWORTH = Edgeworth()
epsilon, delta_of = EDGEWORTH.epsilon, EDGEWORTH.delta_of
supports = EDGEWORTH.supports


def _answer(found: Interval) -> Answer:
    """An interval as an answer."""
    lower, estimate, upper = found
    warnings = (_LOOSE,) if estimate is None else ()
    return Answer(lower=lower, estimate=estimate, upper=upper, warnings=warnings)


def _epsilon(losses: LossSum, delta: float, backward: bool) -> Interval:
    """Lower bound, estimate and upper bound on epsilon in one direction."""
    rest = delta - losses.escaped[backward] * (1 + _PAD)
    if rest <= 0:
        return 0.0, math.inf, math.inf
    if _variation(losses, backward) <= delta:
        return 0.0, 0.0, 0.0
    at = functools.partial(losses.at, backward=backward)
    lower, estimate, upper = saddle.epsilon(at, math.log(rest))
    if math.isnan(upper):
        return 0.0, None, math.inf  # losses too far apart for moments in floats
    return (
        0.0 if losses.escaped[backward] or not losses.attained else lower,
        estimate if losses.smooth or upper == 0 else None,
        upper,
    )


def _delta(losses: LossSum, epsilon: float, backward: bool) -> Interval:
    """Lower bound, estimate and upper bound on delta in one direction."""
    at = functools.partial(losses.at, backward=backward)
    low, middle, high = saddle.log_delta(at, epsilon)
    if math.isnan(high):
        return 0.0, None, 1.0
    escaped = losses.escaped[backward]
    upper = (escaped + math.exp(high)) * (1 + _PAD)
    upper = max(min(upper, _variation(losses, backward)), _TINY)
    lower = min((losses.certain[backward] + math.exp(low)) * (1 - _PAD), upper)
    if not losses.attained:
        return 0.0, None, upper
    if middle is None or not losses.smooth:
        return lower, None, upper
    return lower, escaped + math.exp(middle), upper


def _variation(losses: LossSum, backward: bool) -> float:
    """At any epsilon delta is below sqrt(1 - e^-KL) (Bretagnolle & Huber, 1979)."""
    loss = None if max(losses.escaped) else losses.at(0.0, backward=backward)
    if loss is None:
        return 1.0
    divergence = max(loss.mean, 0.0) + loss.drift
    return min(1.0, math.sqrt(-math.expm1(-divergence)) * (1 + _PAD))


def _worse(sides: list[Interval]) -> Interval:
    """The larger of both directions; no estimate where a missing one could matter."""
    lower, upper = max(side[0] for side in sides), max(side[2] for side in sides)
    known = [side[1] for side in sides if side[1] is not None]
    doubts = [side[2] for side in sides if side[1] is None]
    if not known or max(doubts, default=0.0) > max(known):
        return lower, None, upper
    return lower, min(max(lower, *known), upper), upper
