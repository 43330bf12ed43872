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

from typing import NamedTuple

from dp_accounting import ComposedDpEvent, DpEvent, SelfComposedDpEvent

from dpkit.accountants.answers.bounds import PrivacyBound
from dpkit.accountants.answers.relations import Relation
from dpkit.accountants.composition.rounds import Rounds
from dpkit.accountants.events.composing import flatten
from dpkit.accountants.pairs.laws import law_of
from dpkit.accountants.readings import truncation
from dpkit.accountants.readings.reading import Answer, Reading

_NO_LOWER = "lower bound not available: a pair that dominates need not be attained"
_FLOORS = (1e-10, 1e-30, 1e-90, 1e-290)


class Plain(NamedTuple):
    """An event that can be composed, and the sum of T Psi of what was truncated."""

    event: DpEvent
    relation: Relation
    overflow: float


class LossDistributions(Reading[Plain]):
    """Both bounds, at any delta; `lower` is 0 where a pair need not be attained."""

    name = "pld"

    def read(self, event: DpEvent, relation: Relation) -> Plain:
        """The event with plain random allocation, if each part has a pair."""
        given = flatten(event)
        releases, overflow = truncation.plain(given, relation, "profiles")
        for release, _ in releases:
            law_of(release, relation).check("profiles")
        if releases != given:
            parts: list[DpEvent] = [SelfComposedDpEvent(*each) for each in releases]
            event = ComposedDpEvent(parts)
        return Plain(event, relation, overflow)

    def epsilon_at(self, read: Plain, delta: float, *, lower: bool) -> Answer:
        """Composed once; again for each step of a correction for truncation."""
        event, relation, overflow = read

        def at(rest: float) -> float:
            return Rounds(event, relation, (1,), rest).epsilon(1, rest, lower=False)[1]

        if overflow:
            upper = truncation.corrected_epsilon(at, delta, overflow)
            return _answer(None, upper, lower)
        rounds = Rounds(event, relation, (1,), delta)
        return _answer(*rounds.epsilon(1, delta, lower=lower), lower)

    def delta_at(self, read: Plain, epsilon: float, *, lower: bool) -> Answer:
        """Composed for smaller and smaller deltas, until the answer is no smaller."""
        least, upper = None, 1.0
        for floor in _FLOORS:
            # What is negligible depends on the answer.
            rounds = Rounds(read.event, read.relation, (1,), floor)
            low, high = rounds.delta(1, epsilon, lower=lower)
            if high <= upper:
                least, upper = low, high
            if high >= floor:
                break
        upper = truncation.corrected_delta(upper, epsilon, read.overflow)
        return _answer(None if read.overflow else least, upper, lower)

    def epsilon_after(
        self, rounds: Rounds, count: int, event: DpEvent, delta: float
    ) -> PrivacyBound:
        """The upper bound for `count` of the `rounds` that were made for an event."""
        answer = _answer(*rounds.epsilon(count, delta, lower=False), False)
        told = self._told(event, answer)
        return PrivacyBound(delta=delta, relation=rounds.relation, **told)


PLD = LossDistributions()
epsilon, delta_of, supports = PLD.epsilon, PLD.delta_of, PLD.supports


def composes(event: DpEvent, relation: Relation) -> bool:
    """Whether `Rounds` takes a valid event: nothing is added to its delta later.

    Example:
      >>> from dpkit.accountants.events.allocation import RandomAllocationDpEvent
      >>> composes(RandomAllocationDpEvent(1.0, 29), Relation.ADD_REMOVE)
      True
    """
    return supports(event, relation) and PLD.read(event, relation).event is event


def _answer(least: float | None, most: float, lower: bool) -> Answer:
    """Bounds from a composition; 0 with a warning where none is known from below."""
    if lower and least is None:
        return Answer(lower=0.0, estimate=most, upper=most, warnings=(_NO_LOWER,))
    return Answer(lower=least, estimate=most, upper=most)
