r"""The accountant of privacy loss distributions: the tightest, and static only.

Each kind of release becomes a pair on a grid of losses that dominates it (connect the
dots); the losses of a composition add up, by one FFT for each kind. The two directions
of a relation are two chains that are never mixed, and the worse answer counts.
Unsampled Gaussians are merged beforehand, and alone have a closed form.

The transforms round absolutely, so a composition of T releases is certified for
delta >= max(1e-10, 10 T 2^-53); below that the Rényi accountant answers.

Reference: Doroshenko et al. 2022, arXiv:2207.04380; Zhu, Dong, Wang, "Optimal
Accounting of Differential Privacy via Characteristic Function", 2022, arXiv:2106.08567.
"""

import dataclasses

from dp_accounting import DpEvent

from dpkit.accountants import _check, rdp
from dpkit.accountants.bounds import DeltaBound, PrivacyBound
from dpkit.accountants.errors import UnsupportedEvent, UnsupportedRelation
from dpkit.accountants.event_types import ParallelDpEvent
from dpkit.accountants.events import flatten, validate
from dpkit.accountants.pld_profiles import check_supported
from dpkit.accountants.relations import Relation, as_relation
from dpkit.accountants.rounds import Rounds
from dpkit.accountants.warrant import warrant

NAME = "pld"


def epsilon(event: DpEvent, delta: float, *, relation: Relation | str) -> PrivacyBound:
    """Upper bound on epsilon at delta, by composing privacy loss distributions.

    Privacy: static regime only (every parameter fixed before any output is seen).

    Args:
      event: what was released.
      delta: in (0, 1). Below what the transforms certify, `upper` is the Rényi
        accountant's, if it reads the event; else None.
      relation: the neighbouring relation.

    Returns:
      A bound; `lower` is given where the answer is a closed form.

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
    delta = _check.open_probability(delta=delta)
    validate(event)
    rounds = Rounds(event, relation, (1,), delta)
    return bound_at(rounds, 1, event, delta, relation)


def bound_at(
    rounds: Rounds, count: int, event: DpEvent, delta: float, relation: Relation
) -> PrivacyBound:
    """The bound for `count` rounds of what `event` repeats; `event` is the whole."""
    behind = warrant(event)
    if delta >= rounds.floor(count):
        lower, upper = rounds.composition(count).epsilon(delta)
        return PrivacyBound(
            delta=delta,
            lower=lower,
            estimate=upper,
            upper=upper,
            certified=behind.certified,
            method_lower=NAME if lower is not None else None,
            method_upper=NAME,
            method_estimate=NAME,
            relation=relation,
            warnings=behind.warnings,
        )
    note = (
        f"delta={delta:g} is below {rounds.floor(count):.3g}, which pld certifies here"
    )
    if not rdp.supports(event, relation):
        return PrivacyBound(
            delta=delta, relation=relation, warnings=(*behind.warnings, note)
        )
    fallback = rdp.epsilon(event, delta, relation=relation)
    return dataclasses.replace(fallback, warnings=(*fallback.warnings, note))


def delta_of(event: DpEvent, epsilon: float, *, relation: Relation | str) -> DeltaBound:
    """Upper bound on delta at epsilon, by composing privacy loss distributions.

    Privacy: static regime only (every parameter fixed before any output is seen).

    Args:
      event: what was released.
      epsilon: at least 0, finite.
      relation: the neighbouring relation.

    Returns:
      A bound; unless it is a closed form, `upper` is never below the delta that the
      transforms certify.

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
    epsilon = _check.non_negative(epsilon=epsilon)
    validate(event)
    rounds = Rounds(event, relation)
    lower, upper = None, 1.0
    if rounds.floor(1) < 1:
        lower, upper = rounds.composition(1).delta(epsilon)
    behind = warrant(event)
    return DeltaBound(
        epsilon=epsilon,
        lower=lower,
        estimate=upper,
        upper=upper,
        certified=behind.certified,
        method_lower=NAME if lower is not None else None,
        method_upper=NAME,
        method_estimate=NAME,
        relation=relation,
        warnings=behind.warnings,
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
    pending = [event]
    try:
        while pending:
            for release, _ in flatten(pending.pop()):
                check_supported(release, relation)
                if isinstance(release, ParallelDpEvent):
                    pending.extend(release.children)
    except (UnsupportedEvent, UnsupportedRelation):
        return False
    return True
