r"""The zCDP accountant: two numbers for each release, that add up.

A release is (xi, rho)-concentrated if every Rényi divergence between neighbours is at
most xi + rho a at order a > 1. Both numbers add up over releases; their sums are turned
into epsilon at delta by composition/concentration.py.

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
from typing import NamedTuple

import dp_accounting as dp
from dp_accounting import DpEvent

from dpkit.accountants.answers.errors import UnsupportedEvent
from dpkit.accountants.answers.exact import above
from dpkit.accountants.answers.relations import Relation
from dpkit.accountants.composition.concentration import tight_delta, tight_epsilon
from dpkit.accountants.events.composing import flatten
from dpkit.accountants.pairs.laws import law_of
from dpkit.accountants.pairs.laws.finite import half_square
from dpkit.accountants.readings import truncation
from dpkit.accountants.readings.gdp import NO_AMPLIFICATION
from dpkit.accountants.readings.reading import Answer, Reading


@dataclasses.dataclass(frozen=True)
class Concentration:
    """How concentrated some releases are."""

    xi: float = 0.0  # of the Rényi bound xi + rho a, the part that does not grow with a
    rho: float = 0.0  # its slope
    delta: float = 0.0  # outside an event of this probability on each side
    unamplified: tuple[DpEvent, ...] = ()  # sampled, but counted as unsampled


class Plain(NamedTuple):
    """The concentration with plain sampling, and what truncation adds: T Psi."""

    total: Concentration
    overflow: float


class Concentrated(Reading[Plain]):
    """Two numbers for each release, added up; a ledger's filter by them is adaptive.

    Example:
      >>> from dp_accounting import ZCDpEvent
      >>> round(epsilon(ZCDpEvent(0.5), 1e-5, relation="add_remove").upper, 6)
      4.728387
    """

    name = "zcdp"

    def read(self, event: DpEvent, relation: Relation) -> Plain:
        """The sum over all parts."""
        releases, overflow = truncation.plain(flatten(event), relation, "curve")
        return Plain(_sum(releases, relation), overflow)

    def epsilon_at(self, read: Plain, delta: float, *, lower: bool) -> Answer:
        """At the best order; inf if the deltas of the parts use up `delta`."""
        total = read.total

        def at(rest: float) -> float:
            left = rest - total.delta
            return tight_epsilon(total.xi, total.rho, left) if left > 0 else math.inf

        upper = truncation.corrected_epsilon(at, delta, read.overflow)
        return Answer(upper=upper, warnings=_unamplified(total))

    def delta_at(self, read: Plain, epsilon: float, *, lower: bool) -> Answer:
        """At the best order, and the deltas of the parts."""
        total = read.total
        plain = tight_delta(total.xi, total.rho, epsilon) + total.delta
        upper = truncation.corrected_delta(plain, epsilon, read.overflow)
        upper = min(1.0, upper * (1 + 1e-15))
        return Answer(upper=upper, warnings=_unamplified(total))

    def worth_asking(self, event: DpEvent, delta: float, known: bool) -> bool:
        """Where nobody else answers: it is a Rényi curve, and deltas beside it."""
        return not known


def concentration(event: DpEvent, relation: Relation) -> Concentration:
    """How concentrated a whole valid event is; both directions.

    Sums over all parts, as computed: whoever compares them rounds up. A part that is
    not concentrated, or sampled with a limit, raises UnsupportedEvent.

    Example:
      >>> from dp_accounting import GaussianDpEvent
      >>> concentration(GaussianDpEvent(2.0), Relation.REPLACE_ONE).rho
      0.5
    """
    return _sum(flatten(event), relation)


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
    """The concentration of one release; of disjoint parts, the worst in each number."""
    law = law_of(event, relation)
    if law.children:
        parts = [concentration(child, relation) for child in law.children]
        return Concentration(
            max(part.xi for part in parts),
            max(part.rho for part in parts),
            max(part.delta for part in parts),
            tuple(event for part in parts for event in part.unamplified),
        )
    found, shift = law.concentration(), law.shift()
    if found is not None:
        return Concentration(*found)
    if shift is not None:
        sampled = not isinstance(event, dp.GaussianDpEvent)
        rho, unamplified = half_square(shift), (event,) if sampled else ()
        return Concentration(rho=rho, unamplified=unamplified)
    if law.lacks("guarantee"):
        reason = "it is neither concentrated nor private by itself"
        raise UnsupportedEvent(Concentrated.name, event, reason)
    # epsilon-private releases have rho = epsilon^2 / 2 (Bun & Steinke, Prop. 1.4).
    epsilon, delta = law.guarantee()
    return Concentration(rho=half_square(above(epsilon)), delta=above(delta))


def _unamplified(total: Concentration) -> tuple[str, ...]:
    """What a reader must know of sampled parts."""
    return (NO_AMPLIFICATION,) if total.unamplified else ()


ZCDP = Concentrated()
epsilon, delta_of, supports = ZCDP.epsilon, ZCDP.delta_of, ZCDP.supports
