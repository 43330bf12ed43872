"""What every accountant is: a name, one way to read an event, and two questions.

To add one, subclass `Reading` in a file of this folder, give it a `name`, and say how
it reads an event and what it answers from that; then add an instance to `READINGS` in
best.py. Checks of arguments, `supports`, and the form of the answers come with it.

A reading answers numbers; whether they are proven is the event's matter (`warrant`),
unless the reading itself only estimates, which it says by answering no `upper`.
"""

import abc
import dataclasses
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from dp_accounting import DpEvent

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.bounds import DeltaBound, PrivacyBound
from dpkit.accountants.answers.errors import UnsupportedEvent, UnsupportedRelation
from dpkit.accountants.answers.relations import Relation, as_relation
from dpkit.accountants.events.composing import flatten, validate
from dpkit.accountants.events.warrant import warrant

Read = TypeVar("Read")

_MANY = 10**8
_FAR = 1e-100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """What a reading says of one question; a number that it can't give is None."""

    lower: float | None = None  # the truth is at least this
    estimate: float | None = None  # an approximation without a proof
    upper: float | None = None  # the truth is at most this
    warnings: tuple[str, ...] = ()  # what a reader must know, one sentence each
    method: str | None = None  # whose numbers these are, if not the reading's own


class Reading(abc.ABC, Generic[Read]):
    """An accountant by its name: it reads an event, and answers from what it read.

    Example:
      >>> from dpkit.accountants import rdp
      >>> isinstance(rdp.RDP, Reading), rdp.RDP.name
      (True, 'rdp')
    """

    name: ClassVar[str]

    @abc.abstractmethod
    def read(self, event: DpEvent, relation: Relation) -> Read:
        """All that the answers need to know of a valid event.

        It costs little: `supports` calls it too.

        Raises:
          UnsupportedEvent: a part that this accountant can't read.
          UnsupportedRelation: a part that has no proof under the relation.
        """

    @abc.abstractmethod
    def epsilon_at(self, read: Read, delta: float, *, lower: bool) -> Answer:
        """Epsilon at a delta; `lower` is whether a lower bound is worth its time."""

    @abc.abstractmethod
    def delta_at(self, read: Read, epsilon: float, *, lower: bool) -> Answer:
        """Delta at an epsilon; `lower` is whether a lower bound is worth its time."""

    def check_delta(self, delta: float) -> float:
        """A delta that this accountant answers at: in (0, 1) unless it says more."""
        return checks.open_probability(delta=delta)

    def worth_asking(self, event: DpEvent, delta: float, known: bool) -> bool:
        """Whether `best` should ask.

        Args:
          event: what was released, which this accountant reads.
          delta: the question, or 1 if it is another.
          known: whether a tight accountant has a finite certified answer by now.
        """
        return True

    @np.errstate(over="ignore")  # inf is right there
    def epsilon(
        self,
        event: DpEvent,
        delta: float,
        *,
        relation: Relation | str,
        lower: bool = True,
    ) -> PrivacyBound:
        """What this accountant says about epsilon at delta.

        Privacy: static regime (every parameter fixed before any output is seen).

        Args:
          event: what was released.
          delta: in (0, 1); 0 too where basic composition is asked.
          relation: "add_remove", "replace_one" or "zero_out".
          lower: whether to look for a lower bound too, if it takes longer.

        Returns:
          A bound whose `upper` is certified if every part of the event is proven, and
          inf where no finite epsilon is.

        Raises:
          ValueError: a bad event or delta.
          UnsupportedEvent: a part that this accountant can't read.
          UnsupportedRelation: a part that has no proof under the relation.

        Example:
          >>> from dp_accounting import GaussianDpEvent
          >>> from dpkit.accountants import pld
          >>> bound = pld.epsilon(GaussianDpEvent(1.0), 1e-5, relation="add_remove")
          >>> round(bound.upper, 6)
          4.377178

        Reference: Balle & Wang 2018, arXiv:1805.06530 (the number above).
        """
        relation, delta = as_relation(relation), self.check_delta(delta)
        validate(event)
        answer = self.epsilon_at(self._read(event, relation), delta, lower=lower)
        return PrivacyBound(delta=delta, relation=relation, **self._told(event, answer))

    @np.errstate(over="ignore")
    def delta_of(
        self,
        event: DpEvent,
        epsilon: float,
        *,
        relation: Relation | str,
        lower: bool = True,
    ) -> DeltaBound:
        """What this accountant says about delta at epsilon; otherwise as `epsilon`.

        Args:
          event: what was released.
          epsilon: at least 0, finite; others are a ValueError.
          relation: "add_remove", "replace_one" or "zero_out".
          lower: whether to look for a lower bound too, if it takes longer.

        Example:
          >>> from dp_accounting import GaussianDpEvent
          >>> from dpkit.accountants import gdp
          >>> bound = gdp.delta_of(GaussianDpEvent(1.0), 0.0, relation="zero_out")
          >>> round(bound.upper, 9)
          0.382924923
        """
        relation = as_relation(relation)
        epsilon = checks.non_negative(epsilon=epsilon)
        validate(event)
        answer = self.delta_at(self._read(event, relation), epsilon, lower=lower)
        told = self._told(event, answer)
        return DeltaBound(epsilon=epsilon, relation=relation, **told)

    def supports(self, event: DpEvent, relation: Relation | str) -> bool:
        """Whether this accountant answers for a valid event under the relation.

        False where `epsilon` raises UnsupportedEvent or UnsupportedRelation. True
        promises an answer, not a certified one.

        Example:
          >>> from dp_accounting import LaplaceDpEvent
          >>> from dpkit.accountants import gdp, pld
          >>> [r.supports(LaplaceDpEvent(1.0), "zero_out") for r in (gdp, pld)]
          [False, True]
        """
        validate(event)
        try:
            self.read(event, as_relation(relation))
        except (UnsupportedEvent, UnsupportedRelation):
            return False
        return True

    def _read(self, event: DpEvent, relation: Relation) -> Read:
        """What `read` gives; a refusal says who does read the event."""
        try:
            return self.read(event, relation)
        except UnsupportedEvent as error:
            raise explained(error, self.name, event, relation) from None

    def _told(self, event: DpEvent, answer: Answer) -> dict[str, Any]:
        """The fields of a bound: numbers, whose they are, and what they rest on."""
        ground = warrant(event)
        told: dict[str, Any] = {"warnings": (*ground.warnings, *answer.warnings)}
        for side in ("lower", "estimate", "upper"):
            value = getattr(answer, side)
            if value is not None:
                told |= {side: value, f"method_{side}": answer.method or self.name}
        return told | {"certified": ground.certified and answer.upper is not None}


def explained(
    error: UnsupportedEvent, name: str, event: DpEvent, relation: Relation
) -> UnsupportedEvent:
    """An accountant's refusal of a part, with a remedy that was asked of the others."""
    from dpkit.accountants.readings.best import READINGS

    remedy = "no accountant reads the whole of it"
    for reading in READINGS:
        if reading.name != name and reading.supports(event, relation):
            remedy = f"use accountant={reading.name!r}"
            break
    return UnsupportedEvent(name, error.event, f"{error.reason}; {remedy}")


def coarse(event: DpEvent, delta: float) -> bool:
    """Whether a grid of losses may be too coarse: so many releases, or so far out."""
    return delta < _FAR or sum(count for _, count in flatten(event)) > _MANY
