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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from dp_accounting import DpEvent

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.bounds import DeltaBound, PrivacyBound
from dpkit.accountants.answers.relations import Relation, as_relation
from dpkit.accountants.composition.rounds import Rounds
from dpkit.accountants.events.composing import repeat, sequential
from dpkit.accountants.readings import edgeworth, gdp, pld, pure, rdp, zcdp
from dpkit.accountants.readings.reading import Reading

Bound = TypeVar("Bound", PrivacyBound, DeltaBound)
_AGREEMENT = 1e-6
_FAINT = 1e-12
# Asked in this order: who may win without the others first.
READINGS: tuple[Reading[Any], ...] = (
    pld.PLD,
    pure.PURE,
    rdp.RDP,
    edgeworth.EDGEWORTH,
    zcdp.ZCDP,
    gdp.GDP,
)
ACCOUNTANTS: dict[str, Reading[Any]] = {reading.name: reading for reading in READINGS}


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
    whole, relation, unit = _checked(event, relation, accountant, unit)
    delta = checks.half_open_probability(delta=delta)

    def ask(reading: Reading[Any]) -> PrivacyBound:
        return reading.epsilon(whole, delta, relation=relation, lower=lower)

    if delta == 0 and accountant == "best":
        if not pure.PURE.supports(whole, relation):
            raise ValueError(
                "delta=0 needs pure releases throughout: give a delta in (0, 1)"
            )
        accountant = pure.PURE.name
    return replace(_answer(ask, accountant, whole, relation, delta), unit=unit)


def delta_of(
    event: DpEvent | Iterable[DpEvent],
    epsilon: float,
    *,
    relation: Relation | str,
    accountant: str = "best",
    unit: str | None = None,
    lower: bool = True,
) -> DeltaBound:
    """What is known about delta at epsilon; otherwise as `epsilon`.

    Args:
      event: one event, or several that all touch the same data.
      epsilon: at least 0, finite.
      relation: "add_remove", "replace_one" or "zero_out"; it has no default.
      accountant: "best", or one of ACCOUNTANTS alone.
      unit: the privacy unit, to be shown with the answer.
      lower: whether to look for a lower bound too, which can take as long again.

    Example:
      >>> from dp_accounting import GaussianDpEvent
      >>> bound = delta_of(GaussianDpEvent(1.0), 1.0, relation="add_remove")
      >>> round(bound.upper, 6)
      0.126937
    """
    whole, relation, unit = _checked(event, relation, accountant, unit)
    epsilon = checks.non_negative(epsilon=epsilon)

    def ask(reading: Reading[Any]) -> DeltaBound:
        return reading.delta_of(whole, epsilon, relation=relation, lower=lower)

    return replace(_answer(ask, accountant, whole, relation, 1.0), unit=unit)


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
    event, relation, unit = _checked(event, relation, "best", unit)
    delta = checks.open_probability(delta=delta)
    wanted = [checks.count(count=count) for count in counts]
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
    composes = pld.composes(event, relation)
    rounds = Rounds(event, relation, counts, delta) if composes else None
    for count in reversed(counts):
        bounds: list[PrivacyBound] = []
        if rounds is not None:
            bounds.append(pld.PLD.epsilon_after(rounds, count, event, delta))
        if rdp.RDP.worth_asking(event, delta, _known(bounds)):
            whole = repeat(event, count)

            def ask(reading: Reading[Any], whole: DpEvent = whole) -> PrivacyBound:
                return reading.epsilon(whole, delta, relation=relation)

            bounds = _asked(ask, whole, relation, delta, bounds)
        yield count, _best(bounds)


def _checked(
    event: DpEvent | Iterable[DpEvent],
    relation: Relation | str,
    accountant: str,
    unit: str | None,
) -> tuple[DpEvent, Relation, str | None]:
    """One valid event, the relation and the unit; all of them checked."""
    checks.one_of(("best", *ACCOUNTANTS), accountant=accountant)
    unit = unit if unit is None else checks.text(unit=unit)
    return sequential(event), as_relation(relation), unit


def _answer(
    ask: Callable[[Reading[Any]], Bound],
    accountant: str,
    event: DpEvent,
    relation: Relation,
    delta: float,
) -> Bound:
    """The answer of one accountant, or the best of all."""
    if accountant != "best":
        return ask(ACCOUNTANTS[accountant])
    return _best(_asked(ask, event, relation, delta))


def _asked(
    ask: Callable[[Reading[Any]], Bound],
    event: DpEvent,
    relation: Relation,
    delta: float,
    bounds: Sequence[Bound] = (),
) -> list[Bound]:
    """The answers, and who may win; if nobody reads it, Rényi's accountant says why."""
    found = list(bounds)
    for reading in READINGS:
        if any(reading.name == bound.method_upper for bound in bounds):
            continue
        known = _known(found)
        if reading.worth_asking(event, delta, known):
            if reading.supports(event, relation):
                found.append(ask(reading))
                delta = min(delta, _smallest_delta(found))
    return found or [ask(rdp.RDP)]


def _known(bounds: Sequence[Bound]) -> bool:
    """Whether a certified answer says something; basic composition is never tight."""
    return any(
        b.certified
        and b.method_upper != pure.PURE.name
        and b.upper is not None
        and b.upper < (math.inf if isinstance(b, PrivacyBound) else 1.0)
        for b in bounds
    )


def _smallest_delta(bounds: Sequence[Bound]) -> float:
    """The smallest certified delta among answers about delta, else 1.

    Where it is tiny, 0: the losses may be too small for a grid.
    """
    uppers = [b.upper for b in bounds if isinstance(b, DeltaBound) and b.certified]
    least = min((upper for upper in uppers if upper is not None), default=1.0)
    return least if least > _FAINT else 0.0


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
