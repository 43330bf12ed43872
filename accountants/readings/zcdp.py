r"""The zCDP accountant: two numbers for each release, that add up.

A release is (xi, rho)-concentrated if every Rényi divergence between neighbours is at
most xi + rho a at order a > 1. Both numbers add up over releases; conversion.py turns
their sums into epsilon at delta.

An (epsilon, delta)-private release is, with probability 1 - delta, an epsilon-private
one, and shows everything otherwise (Kairouz, Oh, Viswanath 2015, arXiv:1311.0776), so
the deltas of such releases are taken off the delta that is asked about, and the rest
counts as pure. Sampling does not amplify here: a sampled Gaussian counts as an
unsampled one, with a warning.

Reference: Bun & Steinke, "Concentrated Differential Privacy", 2016, arXiv:1605.02658.
"""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import dp_accounting as dp
from dp_accounting import DpEvent

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.bounds import DeltaBound, PrivacyBound
from dpkit.accountants.answers.errors import UnsupportedEvent, UnsupportedRelation
from dpkit.accountants.answers.relations import Relation, as_relation, shift
from dpkit.accountants.composition.concentration import tight_delta, tight_epsilon
from dpkit.accountants.events.composing import flatten, validate
from dpkit.accountants.events.kinds import kind_of
from dpkit.accountants.events.own import ParallelDpEvent
from dpkit.accountants.events.warrant import check_relation, warrant
from dpkit.accountants.readings import pure, truncation
from dpkit.accountants.readings.gdp import NO_AMPLIFICATION, unsampled_shift

NAME = "zcdp"

_TINY = 5e-324


@dataclasses.dataclass(frozen=True)
class Concentration:
    """How concentrated some releases are.

    Attributes:
      xi: part of the Rényi bound xi + rho a that does not grow with the order a.
      rho: its slope.
      delta: outside an event of this probability on each side.
      unamplified: the sampled releases that count as unsampled ones.

    Example:
      >>> Concentration(rho=0.5)
      Concentration(xi=0.0, rho=0.5, delta=0.0, unamplified=())
    """

    xi: float = 0.0
    rho: float = 0.0
    delta: float = 0.0
    unamplified: tuple[DpEvent, ...] = ()


def epsilon(event: DpEvent, delta: float, *, relation: Relation | str) -> PrivacyBound:
    """Upper bound on epsilon at delta, by concentration.

    Privacy: static regime; a ledger's zCDP filter holds adaptively.

    Args:
      event: what was released.
      delta: in (0, 1).
      relation: the neighbouring relation.

    Returns:
      A bound whose `upper` is certified if every part of the event is proven; inf if
      the deltas of the parts use up `delta`.

    Raises:
      ValueError: a bad event or delta.
      UnsupportedEvent: a part that is not concentrated.
      UnsupportedRelation: a part that has no proof under the relation.

    Example:
      >>> from dp_accounting import ZCDpEvent
      >>> round(epsilon(ZCDpEvent(0.5), 1e-5, relation="add_remove").upper, 6)
      4.728387
    """
    relation = as_relation(relation)
    delta = checks.open_probability(delta=delta)
    validate(event)
    found, slip = _plain(event, relation)

    def at(rest: float) -> float:
        left = rest - found.delta
        return tight_epsilon(found.xi, found.rho, left) if left > 0 else math.inf

    return PrivacyBound(
        delta=delta,
        upper=truncation.corrected_epsilon(at, delta, slip),
        method_upper=NAME,
        relation=relation,
        **_behind(event, found),
    )


def delta_of(event: DpEvent, epsilon: float, *, relation: Relation | str) -> DeltaBound:
    """Upper bound on delta at epsilon, by concentration.

    Privacy: static regime; a ledger's zCDP filter holds adaptively.

    Args:
      event: what was released.
      epsilon: at least 0, finite.
      relation: the neighbouring relation.

    Returns:
      A bound whose `upper` is certified if every part of the event is proven.

    Raises:
      ValueError: a bad event or epsilon.
      UnsupportedEvent: a part that is not concentrated.
      UnsupportedRelation: a part that has no proof under the relation.

    Example:
      >>> from dp_accounting import ZCDpEvent
      >>> bound = delta_of(ZCDpEvent(0.5), 4.728387, relation="add_remove")
      >>> round(bound.upper, 10)
      1e-05
    """
    relation = as_relation(relation)
    epsilon = checks.non_negative(epsilon=epsilon)
    validate(event)
    found, slip = _plain(event, relation)
    plain = tight_delta(found.xi, found.rho, epsilon) + found.delta
    upper = truncation.corrected_delta(plain, epsilon, slip)
    return DeltaBound(
        epsilon=epsilon,
        upper=min(1.0, upper * (1 + 1e-15)),
        method_upper=NAME,
        relation=relation,
        **_behind(event, found),
    )


def supports(event: DpEvent, relation: Relation | str) -> bool:
    """Whether every part of the event is concentrated, with a proof.

    Args:
      event: a valid event.
      relation: the neighbouring relation.

    Returns:
      False where `epsilon` would raise UnsupportedEvent or UnsupportedRelation.

    Example:
      >>> from dp_accounting import LaplaceDpEvent
      >>> supports(LaplaceDpEvent(1.0), "replace_one")
      True
    """
    validate(event)
    try:
        _plain(event, as_relation(relation))
    except (UnsupportedEvent, UnsupportedRelation):
        return False
    return True


def concentration(event: DpEvent, relation: Relation) -> Concentration:
    """How concentrated a whole valid event is; both directions.

    Args:
      event: what was released, without truncated sampling.
      relation: the neighbouring relation.

    Returns:
      Sums over all parts, as computed: whoever compares them rounds up.

    Raises:
      UnsupportedEvent: a part that is not concentrated.
      UnsupportedRelation: a part that has no proof under the relation.

    Example:
      >>> from dp_accounting import GaussianDpEvent
      >>> concentration(GaussianDpEvent(2.0), Relation.REPLACE_ONE).rho
      0.5
    """
    return _sum(flatten(event), relation)


def _plain(event: DpEvent, relation: Relation) -> tuple[Concentration, float]:
    """The concentration with plain sampling, and the truncation's sum of T Psi."""
    releases, slip = truncation.plain(flatten(event))
    return _sum(releases, relation), slip


def _sum(releases: Iterable[tuple[DpEvent, int]], relation: Relation) -> Concentration:
    """The concentration of some releases together."""
    parts = [(_single(release, relation), count) for release, count in releases]
    return Concentration(
        math.fsum(count * part.xi for part, count in parts),
        math.fsum(count * part.rho for part, count in parts),
        math.fsum(count * part.delta for part, count in parts) * (1 + 4e-16),
        tuple(event for part, _ in parts for event in part.unamplified),
    )


def _single(event: DpEvent, relation: Relation) -> Concentration:
    """The concentration of one release."""
    kind = kind_of(event)
    fields = kind.read(event)
    if isinstance(event, ParallelDpEvent):
        return _parallel(event, relation)
    moved = unsampled_shift(NAME, event, relation)
    if moved is not None:
        sampled = not isinstance(event, dp.GaussianDpEvent)
        return Concentration(
            rho=0.5 * moved**2, unamplified=(event,) if sampled else ()
        )
    if kind.name == "discrete_gaussian":
        moved = shift(relation) * fields["sensitivity"] / fields["stddev"]
        return Concentration(rho=0.5 * moved**2)
    if kind.name == "zcdp":
        return Concentration(fields["xi"], fields["rho"])
    if kind.name == "tree":
        return _tree(event, fields, relation)
    if kind.name == "bounded_range":
        return Concentration(rho=_half_square(0.5 * fields["epsilon"]))
    return _pure(event, relation)


def _tree(event: DpEvent, fields: Any, relation: Relation) -> Concentration:
    """One record is in as many nodes as the deepest tree has levels."""
    if relation is not Relation.ZERO_OUT:
        raise UnsupportedRelation(NAME, relation, event, (Relation.ZERO_OUT,))
    steps = fields["step_counts"]
    deepest = max(steps) if isinstance(steps, tuple | list) else steps
    levels = int(deepest).bit_length()
    return Concentration(rho=0.5 * levels * fields["noise_multiplier"] ** -2.0)


def _parallel(event: ParallelDpEvent, relation: Relation) -> Concentration:
    """The worst child in each number: one record meets one child."""
    check_relation(NAME, event, relation)
    children = [concentration(child, relation) for child in event.children]
    return Concentration(
        max(child.xi for child in children),
        max(child.rho for child in children),
        max(child.delta for child in children),
        tuple(part for child in children for part in child.unamplified),
    )


def _pure(event: DpEvent, relation: Relation) -> Concentration:
    """rho = epsilon^2 / 2 if it is private by itself (Bun & Steinke, Prop. 1.4)."""
    try:
        private, delta = pure.guarantee(event, relation)
    except UnsupportedRelation as error:
        raise UnsupportedRelation(NAME, relation, event, error.allowed) from None
    except UnsupportedEvent:
        advice = "it is neither concentrated nor private by itself"
        raise UnsupportedEvent(NAME, event, advice) from None
    return Concentration(rho=_half_square(private), delta=delta)


def _half_square(value: float) -> float:
    """value^2 / 2, which is 0 for 0 alone."""
    return max(0.5 * value * value, _TINY if value else 0.0)


def _behind(event: DpEvent, found: Concentration) -> dict[str, Any]:
    """Whether it is proven, and what a reader must know."""
    behind = warrant(event)
    loose = (NO_AMPLIFICATION,) if found.unamplified else ()
    return {"certified": behind.certified, "warnings": (*behind.warnings, *loose)}
