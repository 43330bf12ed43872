r"""The Edgeworth accountant: the fastest reading of long compositions; static only.

It needs a few cumulants of each kind of release, whatever the number of releases, and
answers with a certified interval (Berry-Esseen under a tilt) and, where the tilted loss
is nearly normal, with an estimate, most often to five digits. The two directions of
a relation are two chains that are never mixed, and the worse answer counts. Unsampled
Gaussians enter exactly, and alone have a closed form. Any delta can be asked for.

The forms "aea", "one_sided" and "eeai" are the accountant as it was published, kept for
comparison: the first two are estimates that can be far below the truth.

Reference: Wang, Gao, Zhang, Shen, Su, "Analytical Composition of Differential Privacy
via the Edgeworth Accountant", 2022, arXiv:2206.04236.
"""

import dataclasses
import functools
import math

from dp_accounting import DpEvent

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.bounds import DeltaBound, PrivacyBound
from dpkit.accountants.answers.errors import UnsupportedEvent, UnsupportedRelation
from dpkit.accountants.answers.relations import Relation, as_relation
from dpkit.accountants.composition import saddle
from dpkit.accountants.composition.tilt import LossSum
from dpkit.accountants.events.composing import flatten, validate
from dpkit.accountants.events.warrant import Warrant, warrant
from dpkit.accountants.pairs import gaussian
from dpkit.accountants.pairs.loss_pairs import NAME, check_supported
from dpkit.accountants.readings import rdp
from dpkit.accountants.readings.edgeworth_series import published

FORMS = ("tilted", "aea", "one_sided", "eeai")

_PAD = 1e-12
_TINY = 5e-324
_LOOSE = "no estimate: the loss is not nearly normal; accountant='pld' may be tighter"

Interval = tuple[float, float | None, float]


def epsilon(
    event: DpEvent,
    delta: float,
    *,
    relation: Relation | str,
    form: str = "tilted",
    order: int = 3,
) -> PrivacyBound:
    """Lower bound, estimate and upper bound on epsilon at delta.

    Privacy: static regime only (every parameter fixed before any output is seen).

    Args:
      event: what was released.
      delta: in (0, 1).
      relation: the neighbouring relation.
      form: "tilted" is certified, and gives no estimate where it would not be accurate.
        "aea" (two-sided) and "one_sided" give the published estimate alone. "eeai"
        gives that estimate with the untilted interval, which is rigorous but says
        nothing for small delta.
      order: of the series in the published forms, 1 to 4; the tilted one has order 3.

    Returns:
      A bound; `upper` is certified in the forms "tilted" and "eeai".

    Raises:
      ValueError: a bad event, delta, form or order.
      UnsupportedEvent: a part that has no known pair of its own.
      UnsupportedRelation: a part that has no proof under the relation.

    Example:
      >>> from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
      >>> from dpkit.accountants.events import repeat
      >>> step = PoissonSampledDpEvent(0.01, GaussianDpEvent(4.0))
      >>> bound = epsilon(repeat(step, 10_000), 1e-5, relation="add_remove")
      >>> bound.certified, round(bound.estimate, 6), round(bound.upper, 3)
      (True, 0.946867, 0.95)
    """
    relation = as_relation(relation)
    delta = checks.open_probability(delta=delta)
    form = checks.one_of(FORMS, form=form)
    order = checks.integer_at_least(1, order=order)
    if order > 4:
        raise ValueError(f"order={order!r} must be at most 4")
    validate(event)
    losses = LossSum(event, relation)
    behind = warrant(event)
    if form == "tilted":
        return _tilted(event, losses, delta, relation, behind)
    return published(losses, delta, relation, form, order, behind)


def delta_of(event: DpEvent, epsilon: float, *, relation: Relation | str) -> DeltaBound:
    """Lower bound, estimate and upper bound on delta at epsilon, by the tilted form.

    Privacy: static regime only (every parameter fixed before any output is seen).

    Args:
      event: what was released.
      epsilon: at least 0, finite.
      relation: the neighbouring relation.

    Returns:
      A bound whose `upper` is certified.

    Raises:
      ValueError: a bad event or epsilon.
      UnsupportedEvent: a part that has no known pair of its own.
      UnsupportedRelation: a part that has no proof under the relation.

    Example:
      >>> from dp_accounting import GaussianDpEvent
      >>> delta_of(GaussianDpEvent(1.0), 0.0, relation="zero_out").upper.__round__(9)
      0.382924923
    """
    relation = as_relation(relation)
    epsilon = checks.non_negative(epsilon=epsilon)
    validate(event)
    losses = LossSum(event, relation)
    if not losses.private:
        found: Interval = (1.0, 1.0, 1.0)
    elif losses.only_gaussian:
        low, high = gaussian.delta(losses.moved, epsilon)
        found = low, high, high
    else:
        found = _worse([_delta(losses, epsilon, side) for side in (False, True)])
    behind = warrant(event)
    lower, estimate, upper = found
    return DeltaBound(
        epsilon=epsilon,
        lower=lower,
        estimate=estimate,
        upper=upper,
        certified=behind.certified,
        method_lower=NAME,
        method_upper=NAME,
        method_estimate=None if estimate is None else NAME,
        relation=relation,
        warnings=behind.warnings + (() if estimate is not None else (_LOOSE,)),
    )


def supports(event: DpEvent, relation: Relation | str) -> bool:
    """Whether this accountant reads the event under the relation.

    Args:
      event: a valid event.
      relation: the neighbouring relation.

    Returns:
      False where `epsilon` would raise UnsupportedEvent or UnsupportedRelation.

    Example:
      >>> from dp_accounting import ZCDpEvent
      >>> supports(ZCDpEvent(0.5), "add_remove")
      False
    """
    validate(event)
    relation = as_relation(relation)
    try:
        for release, _ in flatten(event):
            check_supported(release, relation)
    except (UnsupportedEvent, UnsupportedRelation):
        return False
    return True


def _tilted(
    event: DpEvent, losses: LossSum, delta: float, relation: Relation, behind: Warrant
) -> PrivacyBound:
    """The certified interval, and the estimate where it is accepted."""
    if not losses.private:
        found: Interval = (math.inf, math.inf, math.inf)
    elif losses.only_gaussian:
        low, high = gaussian.epsilon(losses.moved, delta)
        found = low, high, high
    else:
        found = _worse([_epsilon(losses, delta, side) for side in (False, True)])
    lower, estimate, upper = found
    warnings = behind.warnings + (() if estimate is not None else (_LOOSE,))
    if math.isinf(upper) and losses.private and rdp.supports(event, relation):
        fallback = rdp.epsilon(event, delta, relation=relation)
        return dataclasses.replace(fallback, warnings=warnings)
    return PrivacyBound(
        delta=delta,
        lower=lower,
        estimate=estimate,
        upper=upper,
        certified=behind.certified,
        method_lower=NAME,
        method_upper=NAME,
        method_estimate=None if estimate is None else NAME,
        relation=relation,
        warnings=warnings,
    )


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
    """An upper bound on delta at any epsilon: sqrt(1 - e^-KL), which is at least TV.

    Reference: Bretagnolle & Huber, "Estimation des densités: risque minimax", 1979.
    """
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
