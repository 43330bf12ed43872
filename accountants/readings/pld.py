r"""The accountant of privacy loss distributions: the tightest, and static only.

Each kind of release becomes a pair on a grid of losses that dominates it (connect the
dots); the losses of a composition add up, by one FFT for each kind, under a tilt that
keeps relative precision at any delta. The two directions of a relation are two chains
that are never mixed, and the worse answer counts. A second pair, which the release
dominates, gives the lower bound. Unsampled Gaussians are merged beforehand, and alone
have a closed form.

Reference: Doroshenko et al. 2022, arXiv:2207.04380; Zhu, Dong, Wang, "Optimal
Accounting of Differential Privacy via Characteristic Function", 2022, arXiv:2106.08567.
"""

from dp_accounting import ComposedDpEvent, DpEvent, SelfComposedDpEvent

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.bounds import DeltaBound, PrivacyBound
from dpkit.accountants.answers.errors import UnsupportedEvent, UnsupportedRelation
from dpkit.accountants.answers.relations import Relation, as_relation
from dpkit.accountants.composition.rounds import Rounds
from dpkit.accountants.events.allocation import TruncatedAllocationDpEvent
from dpkit.accountants.events.composing import flatten, validate
from dpkit.accountants.events.own import ParallelDpEvent
from dpkit.accountants.events.warrant import warrant
from dpkit.accountants.pairs.pld_profiles import check_supported
from dpkit.accountants.readings import truncation

NAME = "pld"

_NO_LOWER = "lower bound not available: a pair that dominates need not be attained"
_FLOORS = (1e-10, 1e-30, 1e-90, 1e-290)


def epsilon(
    event: DpEvent, delta: float, *, relation: Relation | str, lower: bool = True
) -> PrivacyBound:
    """Bounds on epsilon at delta, by composing privacy loss distributions.

    Privacy: static regime only (every parameter fixed before any output is seen).

    Args:
      event: what was released.
      delta: in (0, 1).
      relation: the neighbouring relation.
      lower: whether to look for a lower bound too, which takes as long again.

    Returns:
      A bound; `lower` is 0, with a warning, where a release's pair need not be
      attained.

    Raises:
      ValueError: a bad event or delta.
      UnsupportedEvent: a part that has no known dominating pair.
      UnsupportedRelation: a part that has no proof under the relation.

    Example:
      >>> from dp_accounting import GaussianDpEvent
      >>> round(epsilon(GaussianDpEvent(1.0), 1e-5, relation="add_remove").upper, 6)
      4.377178

    Reference: Balle & Wang 2018, arXiv:1805.06530 (the number above).
    """
    relation = as_relation(relation)
    delta = checks.open_probability(delta=delta)
    validate(event)
    plain, slip = _unlimited(event)
    if slip:
        return _overflowing(plain, slip, delta, relation, lower=lower)
    rounds = Rounds(plain, relation, (1,), delta)
    return bound_at(rounds, 1, plain, delta, relation, lower=lower)


def bound_at(
    rounds: Rounds,
    count: int,
    event: DpEvent,
    delta: float,
    relation: Relation,
    *,
    lower: bool = True,
) -> PrivacyBound:
    """The bound for `count` rounds of what `event` repeats; `event` is the whole."""
    behind = warrant(event)
    least, most = rounds.epsilon(count, delta, lower=lower)
    warnings = behind.warnings
    if lower and least is None:
        least, warnings = 0.0, (*warnings, _NO_LOWER)
    return PrivacyBound(
        delta=delta,
        lower=least,
        estimate=most,
        upper=most,
        certified=behind.certified,
        method_lower=NAME if least is not None else None,
        method_upper=NAME,
        method_estimate=NAME,
        relation=relation,
        warnings=warnings,
    )


def delta_of(
    event: DpEvent, epsilon: float, *, relation: Relation | str, lower: bool = True
) -> DeltaBound:
    """Bounds on delta at epsilon, by composing privacy loss distributions.

    Privacy: static regime only (every parameter fixed before any output is seen).

    Args:
      event: what was released.
      epsilon: at least 0, finite.
      relation: the neighbouring relation.
      lower: whether to look for a lower bound too, which takes as long again.

    Returns:
      A bound; `lower` is 0, with a warning, where a release's pair need not be
      attained.

    Raises:
      ValueError: a bad event or epsilon.
      UnsupportedEvent: a part that has no known dominating pair.
      UnsupportedRelation: a part that has no proof under the relation.

    Example:
      >>> from dp_accounting import GaussianDpEvent
      >>> delta_of(GaussianDpEvent(1.0), 0.0, relation="zero_out").upper.__round__(9)
      0.382924923
    """
    relation = as_relation(relation)
    epsilon = checks.non_negative(epsilon=epsilon)
    validate(event)
    event, slip = _unlimited(event)
    least, upper = None, 1.0
    for floor in _FLOORS:
        # What is negligible depends on the answer.
        rounds = Rounds(event, relation, (1,), floor)
        low, high = rounds.delta(1, epsilon, lower=lower)
        if high <= upper:
            least, upper = low, high
        if high >= floor:
            break
    behind = warrant(event)
    warnings = behind.warnings
    upper = truncation.corrected_delta(upper, epsilon, slip)
    if slip:
        least = None
    if lower and least is None:
        least, warnings = 0.0, (*warnings, _NO_LOWER)
    return DeltaBound(
        epsilon=epsilon,
        lower=least,
        estimate=upper,
        upper=upper,
        certified=behind.certified,
        method_lower=NAME if least is not None else None,
        method_upper=NAME,
        method_estimate=NAME,
        relation=relation,
        warnings=warnings,
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
    pending = [_unlimited(event)[0]]
    try:
        while pending:
            for release, _ in flatten(pending.pop()):
                check_supported(release, relation)
                if isinstance(release, ParallelDpEvent):
                    pending.extend(release.children)
    except (UnsupportedEvent, UnsupportedRelation):
        return False
    return True


def composes(event: DpEvent, relation: Relation) -> bool:
    """Whether losses of the event alone say all: nothing is added to delta later.

    Args:
      event: a valid event.
      relation: the neighbouring relation.

    Returns:
      Whether `Rounds` takes the event; then `supports` holds too.

    Example:
      >>> from dpkit.accountants.events.allocation import RandomAllocationDpEvent
      >>> composes(RandomAllocationDpEvent(1.0, 29), Relation.ADD_REMOVE)
      True
    """
    return not _truncated(event) and supports(event, relation)


def _truncated(event: DpEvent) -> bool:
    """Whether a part is random allocation that can overflow."""
    releases = flatten(event)
    return any(isinstance(part, TruncatedAllocationDpEvent) for part, _ in releases)


def _unlimited(event: DpEvent) -> tuple[DpEvent, float]:
    """The event with plain random allocation, and T Psi of what was truncated."""
    if not _truncated(event):
        return event, 0.0
    releases, slip = truncation.unlimited(flatten(event))
    return ComposedDpEvent([SelfComposedDpEvent(*each) for each in releases]), slip


def _overflowing(
    event: DpEvent, slip: float, delta: float, relation: Relation, *, lower: bool
) -> PrivacyBound:
    """The bound where allocation can overflow; what is lost to it isn't bounded."""

    def at(rest: float) -> float:
        return Rounds(event, relation, (1,), rest).epsilon(1, rest, lower=False)[1]

    upper = truncation.corrected_epsilon(at, delta, slip)
    behind = warrant(event)
    return PrivacyBound(
        delta=delta,
        lower=0.0 if lower else None,
        estimate=upper,
        upper=upper,
        certified=behind.certified,
        method_lower=NAME if lower else None,
        method_upper=NAME,
        method_estimate=NAME,
        relation=relation,
        warnings=(*behind.warnings, _NO_LOWER) if lower else behind.warnings,
    )
