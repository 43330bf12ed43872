"""A composition in progress: one event's losses, composed any number of times."""

import dataclasses
import functools
import math
from collections.abc import Sequence

import dp_accounting as dp
import numpy as np
from dp_accounting import DpEvent

from dpkit.accountants import exact_gaussian
from dpkit.accountants.composed_loss import (
    ComposedLoss,
    Transform,
    Window,
    spread,
    window,
)
from dpkit.accountants.event_types import ParallelDpEvent
from dpkit.accountants.events import flatten
from dpkit.accountants.loss_grid import Extent, Losses, discretise, extent
from dpkit.accountants.pld_profiles import check_supported, profile_of
from dpkit.accountants.profiles import (
    EVERYTHING,
    NOTHING,
    Curve,
    Profile,
    either_way,
    gaussian,
    worst,
)
from dpkit.accountants.relations import Relation

FLOOR = 1e-10
_UNIT = 2.0**-53
_FINENESS = 100
_CHEAP_WIDTH = 2**16
_MAX_WIDTH = 2**21
_MAX_POINTS = 2**20
_NEGLIGIBLE = 1e-6
_SPARE = 1e-4

Terms = list[tuple[Losses, int]]


@dataclasses.dataclass(frozen=True)
class Composition:
    """A composed event: its two chains, or the shift of one Gaussian, or no privacy.

    Attributes:
      chains: one loss distribution for each direction; one alone if they are equal.
      moved: the Gaussian's shift in standard deviations, if that is all there is.
      private: False if any part gives no guarantee at all.
      compositions: how many numerical compositions went in.
    """

    chains: tuple[ComposedLoss, ...] = ()
    moved: float = 0.0
    private: bool = True
    compositions: int = 0

    @property
    def floor(self) -> float:
        """The smallest delta that the chains certify."""
        return _floor(self.compositions) if self.chains else 0.0

    def epsilon(self, delta: float) -> tuple[float | None, float]:
        """Lower bound, if there is one, and upper bound (inf below the floor)."""
        if not self.private:
            return None, math.inf
        if not self.chains:
            return exact_gaussian.epsilon(self.moved, delta)
        return None, max(chain.epsilon(delta) for chain in self.chains)

    def delta(self, epsilon: float) -> tuple[float | None, float]:
        """Lower bound, if there is one, and upper bound, at least the floor."""
        if not self.private:
            return None, 1.0
        if not self.chains:
            return exact_gaussian.delta(self.moved, epsilon)
        at = np.array([epsilon])
        values = [float(chain.delta(at)[0]) + chain.allowance for chain in self.chains]
        return None, min(1.0, max(self.floor, *values))


class Rounds:
    """One event, ready to be composed with itself up to a number of times.

    Args:
      event: a valid event: one round.
      relation: the neighbouring relation.
      counts: the numbers of rounds that may be asked for.
      delta: the smallest delta of interest; what counts as negligible follows.
    """

    def __init__(
        self,
        event: DpEvent,
        relation: Relation,
        counts: Sequence[int] = (1,),
        delta: float = FLOOR,
    ):
        self._delta = max(delta, FLOOR)
        self._negligible = self._delta * _NEGLIGIBLE
        releases = flatten(event)
        for release, _ in releases:
            check_supported(release, relation)
        self._private = not any(
            isinstance(release, dp.NonPrivateDpEvent) for release, _ in releases
        )
        self._moved, others = exact_gaussian.total_shift(releases, relation)
        self._terms: list[tuple[Profile, int]] = []
        if self._private and others:
            uses = max(counts) * sum(count for _, count in others)
            spare = self._delta * _SPARE / uses
            self._terms = [(_profile(e, relation, spare), n) for e, n in others]
            if self._moved > 0:
                self._terms.append((gaussian(1 / self._moved), 1))
        self._size = sum(count * p.compositions for p, count in self._terms)
        certified = [count for count in counts if self.floor(count) <= delta]
        self._most = max(certified, default=min(counts))

    def floor(self, rounds: int) -> float:
        """The smallest delta certified for a number of rounds."""
        return _floor(self._size * rounds) if self._terms else 0.0

    def composition(self, rounds: int) -> Composition:
        """`rounds` copies of the event, at most the number prepared for."""
        if not self._terms:
            moved = self._moved * math.sqrt(rounds)
            return Composition(moved=moved, private=self._private)
        size = self._size * rounds
        chains = []
        for terms, transform, widest in self._chains:
            kept = widest
            if rounds < self._most:
                longest = spread(self._times(terms, self._most))
                counted = self._times(terms, rounds)
                kept = window(counted, self._negligible, longest)
            chains.append(transform.power(rounds, kept, size, self._negligible))
        return Composition(chains=tuple(chains), compositions=size)

    @functools.cached_property
    def _chains(self) -> list[tuple[Terms, Transform, Window]]:
        """Each direction's losses, transformed once, on a grid fit for the most."""
        tail = self._negligible / (self._size * self._most)
        extents = [extent(profile, tail) for profile, _ in self._terms]
        reach = max(e.forward + e.backward for e in extents)
        step = max(self._step(extents), reach / _MAX_POINTS, 1e-14)
        step = self._snapped(step)
        while True:
            pairs = [
                discretise(profile, step, e)
                for (profile, _), e in zip(self._terms, extents, strict=True)
            ]
            sums = [self._direction(pairs, i) for i in self._directions()]
            windows = [
                window(self._times(terms, self._most), self._negligible)
                for terms in sums
            ]
            if all(kept.width <= _MAX_WIDTH for kept in windows):
                break
            step *= 2
        return [
            (terms, Transform(terms, kept, step), kept)
            for terms, kept in zip(sums, windows, strict=True)
        ]

    def _directions(self) -> range:
        """One chain if every release is symmetric, else two."""
        return range(1 if all(p.symmetric for p, _ in self._terms) else 2)

    def _direction(self, pairs: list[tuple[Losses, Losses]], which: int) -> Terms:
        """The losses of one direction, with their counts in one round."""
        return [
            (pair[which], count)
            for pair, (_, count) in zip(pairs, self._terms, strict=True)
        ]

    @staticmethod
    def _times(terms: Terms, rounds: int) -> Terms:
        """The same losses in many rounds."""
        return [(losses, count * rounds) for losses, count in terms]

    def _step(self, extents: list[Extent]) -> float:
        """A hundredth of one release's deviation on average.

        Finer where the whole composition is short; a little coarser for more than a
        hundred kinds of releases, each of which costs a transform. The upward bias of
        epsilon is about a twelfth of the square of the fraction, relative.
        """
        counts = [count for _, count in self._terms]
        pairs = list(zip(counts, extents, strict=True))
        variance = sum(n * e.variance for n, e in pairs)
        reach = self._most * sum(n * (e.forward + e.backward) for n, e in pairs)
        width = min(reach, 16 * math.sqrt(self._most * variance))
        fineness = _FINENESS * min(1.0, max(0.3, 100 / len(pairs)))
        return min(math.sqrt(variance / sum(counts)) / fineness, width / _CHEAP_WIDTH)

    def _snapped(self, step: float) -> float:
        """The step, made to divide the only atom of the losses if there is one."""
        lattices = {profile.lattice for profile, _ in self._terms}
        lattice = lattices.pop()
        if lattices or lattice is None:
            return step
        return lattice / max(1, math.ceil(lattice / step))


def _profile(event: DpEvent, relation: Relation, spare: float = 0.0) -> Profile:
    """The profile of one release; of a parallel event, the worst child's."""
    if not isinstance(event, ParallelDpEvent):
        return profile_of(event, relation, spare)
    profile = worst([_whole(child, relation) for child in event.children])
    return either_way(profile) if relation is Relation.REPLACE_ONE else profile


def _whole(event: DpEvent, relation: Relation) -> Profile:
    """The profile of a child, which may be a composition itself."""
    releases = flatten(event)
    if len(releases) == 1 and releases[0][1] == 1:
        if not isinstance(releases[0][0], dp.NonPrivateDpEvent):
            return _profile(releases[0][0], relation)
    composed = Rounds(event, relation).composition(1)
    if not composed.private:
        return EVERYTHING
    if not composed.chains:
        return gaussian(1 / composed.moved) if composed.moved else NOTHING
    forward, backward = (
        _with_allowance(chain) for chain in (composed.chains[0], composed.chains[-1])
    )
    return Profile(forward, backward, compositions=composed.compositions)


def _with_allowance(chain: ComposedLoss) -> Curve:
    """A chain's delta, made a proven upper bound."""
    return lambda e: np.minimum(chain.delta(e) + chain.allowance, 1.0)


def _floor(compositions: int) -> float:
    """The smallest delta that transforms of so many releases certify."""
    return max(FLOOR, 10 * _UNIT * compositions)
