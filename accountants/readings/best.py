r"""The front door: epsilon at delta and delta at epsilon, by the best certified proof.

`best` asks every accountant that can win and takes the smallest certified upper bound,
naming whose it is. The loss distributions ("pld") are tight, so the Rényi accountant is
asked where they give no answer or read a part by a coarser pair; basic composition
("pure") wherever it applies. The others are never smaller: zCDP is a Rényi curve,
Gaussian-DP is exact where the loss distributions are, and the Edgeworth interval is
wider than theirs unless there are so many releases that a grid is coarse, when it is
asked too. They are quicker, or independent readings. Everything here is
static: valid for parameters that were fixed before any output was seen. Spending that
adapts to outputs needs a ledger.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from types import ModuleType
from typing import TypeVar

from dp_accounting import DpEvent

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.bounds import DeltaBound, PrivacyBound
from dpkit.accountants.answers.relations import Relation, as_relation
from dpkit.accountants.composition.rounds import Rounds
from dpkit.accountants.events.composing import flatten, repeat, sequential, validate
from dpkit.accountants.events.kinds import parts_of
from dpkit.accountants.events.own import BoundedRangeDpEvent
from dpkit.accountants.readings import edgeworth, gdp, pld, pure, rdp, zcdp

Bound = TypeVar("Bound", PrivacyBound, DeltaBound)
_MANY = 10**8
_FAR = 1e-100
_AGREEMENT = 1e-6
ACCOUNTANTS: dict[str, ModuleType] = {
    "rdp": rdp,
    "pld": pld,
    "edgeworth": edgeworth,
    "gdp": gdp,
    "zcdp": zcdp,
    "pure": pure,
}
_WINNERS = (pld, pure, rdp)


def epsilon(
    event: DpEvent | Iterable[DpEvent],
    delta: float,
    *,
    relation: Relation | str,
    accountant: str = "best",
    unit: str | None = None,
    lower: bool = True,
) -> PrivacyBound:
    """What is known about epsilon at delta, once all of these events have happened.

    eps(delta) = inf {e >= 0 : P(S) <= e^e Q(S) + delta for all S}, over all neighbours
    and both directions.

    Privacy: static regime (every parameter fixed before any output is seen).

    Args:
      event: one event, or several that all touch the same data.
      delta: in (0, 1); 0 is possible if everything is pure.
      relation: "add_remove", "replace_one" or "zero_out"; it has no default.
      accountant: "best", or one of ACCOUNTANTS alone.
      unit: the privacy unit ("example", "user"), to be shown with the answer.
      lower: whether to look for a lower bound too, which can take as long again.

    Returns:
      A bound; gates and headlines use `upper`, and only if `certified`.

    Raises:
      ValueError: a bad event, delta, relation or accountant.
      TypeError: something that is no event or no number.
      UnsupportedEvent: a part that the accountant has no proof for.
      UnsupportedRelation: a part that has no proof under the relation.

    Example:
      >>> from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
      >>> step = PoissonSampledDpEvent(0.01, GaussianDpEvent(1.0))
      >>> bound = epsilon(repeat(step, 10_000), 1e-5, relation="add_remove")
      >>> round(bound.upper, 3), bound.certified, bound.method_upper
      (6.188, True, 'pld')
    """
    whole = _whole(event)
    relation = as_relation(relation)
    delta = checks.half_open_probability(delta=delta)
    unit = unit if unit is None else checks.text(unit=unit)
    checks.one_of(("best", *ACCOUNTANTS), accountant=accountant)
    if accountant != "best":
        found = _ask(ACCOUNTANTS[accountant], whole, delta, relation, lower)
        return replace(found, unit=unit)
    if delta == 0:
        return replace(_at_zero(whole, relation), unit=unit)
    bounds = []
    for module in _tried(whole, relation, delta):
        if module is not rdp or _rdp_can_win(whole, bounds, delta):
            bounds.append(_ask(module, whole, delta, relation, lower))
    return replace(_best(bounds), unit=unit)


def delta_of(
    event: DpEvent | Iterable[DpEvent],
    epsilon: float,
    *,
    relation: Relation | str,
    accountant: str = "best",
    unit: str | None = None,
) -> DeltaBound:
    """What is known about delta at epsilon, once all of these events have happened.

    Privacy: static regime (every parameter fixed before any output is seen).

    Args:
      event: one event, or several that all touch the same data.
      epsilon: at least 0, finite.
      relation: "add_remove", "replace_one" or "zero_out"; it has no default.
      accountant: "best", or one of ACCOUNTANTS alone.
      unit: the privacy unit, to be shown with the answer.

    Returns:
      A bound; gates and headlines use `upper`, and only if `certified`.

    Raises:
      ValueError: a bad event, epsilon, relation or accountant.
      TypeError: something that is no event or no number.
      UnsupportedEvent: a part that the accountant has no proof for.
      UnsupportedRelation: a part that has no proof under the relation.

    Example:
      >>> from dp_accounting import GaussianDpEvent
      >>> bound = delta_of(GaussianDpEvent(1.0), 1.0, relation="add_remove")
      >>> round(bound.upper, 6)
      0.126937
    """
    whole = _whole(event)
    relation = as_relation(relation)
    epsilon = checks.non_negative(epsilon=epsilon)
    unit = unit if unit is None else checks.text(unit=unit)
    checks.one_of(("best", *ACCOUNTANTS), accountant=accountant)
    modules = [ACCOUNTANTS[accountant]] if accountant != "best" else None
    bounds = [
        module.delta_of(whole, epsilon, relation=relation)
        for module in modules or _tried(whole, relation)
    ]
    return replace(_best(bounds), unit=unit)


def epsilon_curve(
    event: DpEvent,
    counts: Sequence[int],
    delta: float,
    *,
    relation: Relation | str,
    unit: str | None = None,
) -> list[PrivacyBound]:
    """Epsilon at delta after each of several numbers of repetitions of one event.

    The event's losses are transformed once, so a point costs one inverse transform.
    Each bound is the smallest over this count and all larger ones: a longer run
    includes a shorter one.

    Privacy: each point is valid for a run of that length, fixed beforehand (static).

    Args:
      event: one round, for example one training step.
      counts: how many rounds, each at least 1, in any order.
      delta: in (0, 1).
      relation: "add_remove", "replace_one" or "zero_out".
      unit: the privacy unit, to be shown with the answers.

    Returns:
      One bound for each count, in the order of `counts`; `upper` grows with the count.

    Raises:
      ValueError: a bad event, count, delta or relation.
      UnsupportedEvent: a part that no accountant has a proof for.
      UnsupportedRelation: a part that has no proof under the relation.

    Example:
      >>> from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
      >>> step = PoissonSampledDpEvent(0.01, GaussianDpEvent(1.0))
      >>> curve = epsilon_curve(step, [300, 1000], 1e-5, relation="add_remove")
      >>> [round(bound.upper, 3) for bound in curve]
      [1.068, 1.828]
    """
    validate(event)
    relation = as_relation(relation)
    delta = checks.open_probability(delta=delta)
    unit = unit if unit is None else checks.text(unit=unit)
    wanted = [checks.integer_at_least(1, count=count) for count in counts]
    at = dict[int, PrivacyBound]()
    best: PrivacyBound | None = None
    for count, bound in _descending(event, sorted(set(wanted)), delta, relation):
        if best is None or _rank(bound) <= _rank(best):
            best = bound
        at[count] = replace(best, unit=unit)
    return [at[count] for count in wanted]


def _descending(
    event: DpEvent, counts: list[int], delta: float, relation: Relation
) -> Iterable[tuple[int, PrivacyBound]]:
    """Bounds for each count, the largest first."""
    if not counts:
        return
    rounds = None
    composes = pld.composes(event, relation)
    if composes:
        rounds = Rounds(event, relation, counts, delta)
    for count in reversed(counts):
        bounds = []
        if rounds is not None:
            bounds.append(
                pld.bound_at(rounds, count, event, delta, relation, lower=False)
            )
        if _rdp_can_win(event, bounds, delta):
            whole = repeat(event, count)
            bounds += [
                module.epsilon(whole, delta, relation=relation)
                for module in _tried(whole, relation, delta)
                if not (composes and module is pld)
            ]
        yield count, _best(bounds)


def _ask(
    module: ModuleType, event: DpEvent, delta: float, relation: Relation, lower: bool
) -> PrivacyBound:
    """One accountant's answer; only the loss distributions' lower bound costs time."""
    options = {"lower": lower} if module is pld else {}
    return module.epsilon(event, delta, relation=relation, **options)


def _whole(event: DpEvent | Iterable[DpEvent]) -> DpEvent:
    """One valid event from one or several."""
    if isinstance(event, DpEvent):
        validate(event)
        return event
    return sequential(event)


def _tried(event: DpEvent, relation: Relation, delta: float = 1.0) -> list[ModuleType]:
    """The accountants that read an event; if there is none, rdp, to say why."""
    winners = (*_WINNERS, edgeworth) if _coarse(event, delta) else _WINNERS
    return [m for m in winners if m.supports(event, relation)] or [rdp]


def _coarse(event: DpEvent, delta: float) -> bool:
    """Whether a grid may be too coarse: for so many releases, or so far out."""
    return delta < _FAR or sum(count for _, count in flatten(event)) > _MANY


def _rdp_can_win(event: DpEvent, bounds: list[PrivacyBound], delta: float) -> bool:
    """Whether Rényi may beat what is there.

    It may where there is no finite answer yet, or a grid is coarse, or with bounded
    range, which the loss distributions read as pure.
    """
    answered = [b for b in bounds if b.certified and b.method_upper != pure.NAME]
    if all(b.upper is None or math.isinf(b.upper) for b in answered):
        return True
    if _coarse(event, delta):
        return True
    pending = [event]
    while pending:
        node = pending.pop()
        if isinstance(node, BoundedRangeDpEvent):
            return True
        pending.extend(parts_of(node))
    return False


def _at_zero(event: DpEvent, relation: Relation) -> PrivacyBound:
    """Epsilon at delta = 0, which only pure releases have."""
    if not pure.supports(event, relation):
        raise ValueError(
            "delta=0 needs pure releases throughout: give a delta in (0, 1)"
        )
    return pure.epsilon(event, 0.0, relation=relation)


def _rank(bound: PrivacyBound | DeltaBound) -> tuple[bool, float]:
    """Certified before not, then the smaller upper bound."""
    upper = math.inf if bound.upper is None else bound.upper
    return not bound.certified, upper


def _best(bounds: list[Bound]) -> Bound:
    """The bound with the smallest certified upper, with the best lower and estimate."""
    chosen = min(bounds, key=_rank)
    lowers = [b for b in bounds if b.lower is not None and b.certified]
    if lowers and chosen.upper is not None:
        lower = max(lowers, key=lambda b: b.lower or 0.0)
        least = lower.lower or 0.0
        if least > chosen.upper * (1 + _AGREEMENT):
            raise ArithmeticError(
                f"{lower.method_lower} says at least {least!r}, {chosen.method_upper} "
                f"at most {chosen.upper!r}, both certified: one of them is wrong"
            )
        least = min(least, chosen.upper)
        chosen = replace(chosen, lower=least, method_lower=lower.method_lower)
    estimates = [b for b in bounds if b.estimate is not None]
    if chosen.estimate is None and estimates:
        nearest = min(estimates, key=lambda b: b.estimate or 0.0)
        chosen = replace(
            chosen, estimate=nearest.estimate, method_estimate=nearest.method_estimate
        )
    if chosen.estimate is not None and chosen.upper is not None:
        if chosen.estimate > chosen.upper:
            chosen = replace(
                chosen, estimate=chosen.upper, method_estimate=chosen.method_upper
            )
    return chosen
