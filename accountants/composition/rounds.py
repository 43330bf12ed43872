"""A composition in progress: one event's losses, composed any number of times."""

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
from dp_accounting import DpEvent

from dpkit.accountants.answers.relations import Relation
from dpkit.accountants.composition import chain as chains
from dpkit.accountants.composition import grid
from dpkit.accountants.composition.chain import ComposedLoss, Convolution, Tilt
from dpkit.accountants.events.composing import flatten
from dpkit.accountants.pairs import gaussian, noise, profiles
from dpkit.accountants.pairs.laws import law_of
from dpkit.accountants.pairs.profiles import Profile, Side

FINENESS = 100
_ROUGH = 10
_COARSEST = 0.2
_CHEAP_WIDTH = 2**16
_MAX_POINTS = 2**20
_LEAST_STEP = 1e-14
_MOST_RELEASES = 10**12
_FINER_WIDTH = 2**19
_MOST_FINER = 64
_NEGLIGIBLE = 1e-6
_FREE = 1e-4
_SMALLEST = 1e-290
_DECADES = 1e-6


class Rounds:
    """One event, ready to be composed with itself up to a number of times.

    Args:
      event: a valid event: one round.
      relation: the neighbouring relation.
      counts: the numbers of rounds that may be asked for.
      delta: the smallest delta of interest; what counts as negligible follows.
      fineness: grid points in a standard deviation of one release, on average. The
        upward bias of epsilon is about 1 / (12 fineness^2), relative.
    """

    def __init__(
        self,
        event: DpEvent,
        relation: Relation,
        counts: Sequence[int] = (1,),
        delta: float = 1e-10,
        fineness: float = FINENESS,
    ):
        self.relation = relation
        self._delta = max(delta, _SMALLEST)
        self._fineness = fineness
        self._most = max(counts)
        releases = flatten(event)
        laws = [law_of(release, relation) for release, _ in releases]
        for law in laws:
            law.check("profiles")
        self._private = all(law.private for law in laws)
        self._shift, others = gaussian.total_shift(releases, relation)
        self._terms: list[tuple[Profile, int]] = []
        if self._private and others:
            uses = self._most * sum(count for _, count in others)
            free_delta = self._delta * _FREE / uses
            self._terms = [
                (profile, n * times)
                for e, n in others
                for profile, times in _profiles(e, relation, free_delta)
            ]
            if self._shift > 0:
                self._terms.append((noise.gaussian(1 / self._shift), 1))
        self._size = sum(count for _, count in self._terms)

    def epsilon(
        self, rounds: int, delta: float, *, lower: bool = True
    ) -> tuple[float | None, float]:
        """Lower bound (None if not asked for or not known) and upper bound."""
        if not self._private:
            return None, math.inf
        if not self._terms:
            shift = self._shift * math.sqrt(rounds)
            return gaussian.epsilon(shift, delta)
        if self._most * self._size > _MOST_RELEASES:  # no grid is fine enough
            return None, math.inf
        tilts = [chain.tilt_for_delta(rounds, delta) for chain in self._chains]
        upper = max(
            chain.composed(rounds, tilt).epsilon(delta, 1)
            for chain, tilt in zip(self._chains, tilts, strict=True)
        )
        if not (lower and self.bounded_below) or math.isinf(upper):
            return None, upper
        found = max(below.epsilon(delta, -1) for below in self._below(rounds, tilts))
        return min(found * (1 - 1e-9), upper), upper

    def delta(
        self, rounds: int, epsilon: float, *, lower: bool = True
    ) -> tuple[float | None, float]:
        """Lower bound (None if not asked for or not known) and upper bound on delta."""
        if not self._private:
            return None, 1.0
        if not self._terms:
            return gaussian.delta(self._shift * math.sqrt(rounds), epsilon)
        if self._most * self._size > _MOST_RELEASES:
            return None, 1.0
        at = np.array([epsilon])
        tilts = [chain.tilt_for_epsilon(rounds, epsilon) for chain in self._chains]
        upper = max(
            float(chain.composed(rounds, tilt).delta(at, 1)[0])
            for chain, tilt in zip(self._chains, tilts, strict=True)
        )
        upper = min(1.0, upper * (1 + 1e-12))
        if not (lower and self.bounded_below):
            return None, upper
        found = max(float(b.delta(at, -1)[0]) for b in self._below(rounds, tilts))
        return min(found * (1 - 1e-9), upper), upper

    def profile(self, rounds: int = 1) -> Profile:
        """The composition as a profile, from above, down to its smallest delta."""
        if not self._private:
            return profiles.EVERYTHING
        if not self._terms:
            shift = self._shift * math.sqrt(rounds)
            return noise.gaussian(1 / shift) if shift else profiles.NOTHING
        if self._most * self._size > _MOST_RELEASES:
            return profiles.EVERYTHING
        sides = [self._side(chain, rounds) for chain in self._chains]
        return Profile(sides[0], sides[-1])

    @property
    def bounded_below(self) -> bool:
        """Whether a lower bound can be given."""
        return all(profile.bounded_below for profile, _ in self._terms)

    def _side(self, chain: Convolution, rounds: int) -> Side:
        """One direction as a curve: the smallest bound over tilts for its parts."""
        tilts = [chain.tilt_for_epsilon(rounds, 0.0)]
        delta = 1.0
        while delta > self._delta:
            delta = max(delta * _DECADES, self._delta)
            tilts.append(chain.tilt_for_delta(rounds, delta))
        composed = [chain.composed(rounds, tilt) for tilt in tilts]
        return Side(lambda e: np.min([c.delta(e, 1) for c in composed], axis=0))

    @functools.cached_property
    def _extents(self) -> list[grid.Extent]:
        """How far each release's losses go."""
        tail = self._delta * _NEGLIGIBLE / (self._size * self._most)
        return [grid.extent(profile, tail) for profile, _ in self._terms]

    @functools.cached_property
    def _chains(self) -> list[Convolution]:
        """Each direction from above, on a grid fit for the most rounds."""
        rough = self._snapped(self._rough_step())
        return [
            self._fitted(which, terms, rough)
            for which, terms in enumerate(self._directions(rough))
        ]

    def _fitted(self, which: int, terms: chains.Summands, rough: float) -> Convolution:
        """One direction, on a grid fit for its tilted law, which a rough grid tells."""
        chain = Convolution(terms, rough)
        tilt = chain.tilt_for_delta(self._most, self._delta)
        step = self._snapped(min(rough, self._step(chain, tilt)))
        while True:
            chain = Convolution(self._directions(step)[which], step)
            tilt = chain.tilt_for_delta(self._most, self._delta)
            if chain.width(self._most, tilt) <= chains.MAX_WIDTH:
                return chain
            step *= 2

    def _below(self, rounds: int, tilts: Sequence[Tilt]) -> list[ComposedLoss]:
        """Each direction from below, under the tilts that served from above."""
        return [
            self._from_below(which, rounds, chain, tilt)
            for which, (chain, tilt) in enumerate(zip(self._chains, tilts, strict=True))
        ]

    def _from_below(
        self, which: int, rounds: int, chain: Convolution, tilt: Tilt
    ) -> ComposedLoss:
        """One direction; outcomes that stand anywhere are merged on a finer grid."""
        step, slope = chain.step, tilt.slope
        if any(p.lower is not None and not p.lattice for p, _ in self._terms):
            reach = max(e.forward + e.backward for e in self._extents)
            longest = max(chain.width(rounds, tilt), math.ceil(reach / step))
            finer = max(1, min(_MOST_FINER, _FINER_WIDTH // longest))
            step, slope = step / finer, slope / finer
        uses = rounds * self._size
        parts = [
            (*chains.settled(losses, slope, uses), n)
            for losses, n in self._directions(step, below=True)[which]
        ]
        chain = Convolution([(losses, n) for losses, _, n in parts], step)
        composed = chain.composed(rounds, chain.tilt(rounds, slope))
        slack = rounds * step * math.fsum(n * each for _, each, n in parts)
        return dataclasses.replace(composed, slack=slack)

    def _directions(self, step: float, *, below: bool = False) -> list[chains.Summands]:
        """The losses of one direction if every release is symmetric, else of both."""
        make = grid.below if below else grid.above
        pairs = [
            make(profile, step, extent)
            for (profile, _), extent in zip(self._terms, self._extents, strict=True)
        ]
        symmetric = all(profile.symmetric for profile, _ in self._terms)
        return [
            [(pair[i], n) for pair, (_, n) in zip(pairs, self._terms, strict=True)]
            for i in range(1 if symmetric else 2)
        ]

    def _rough_step(self) -> float:
        """A tenth of one release's deviation on average, and not too many points."""
        pairs = list(zip(self._terms, self._extents, strict=True))
        variance = sum(n * e.variance for (_, n), e in pairs) / self._size
        reach = max(e.forward + e.backward for e in self._extents)
        return max(math.sqrt(variance) / _ROUGH, reach / _MAX_POINTS, _LEAST_STEP)

    def _step(self, chain: Convolution, tilt: Tilt) -> float:
        """The step whose bias is 1 / (12 fineness^2) of epsilon.

        Connecting the dots keeps E[e^0] and E[e^-L]; in between and beyond, it adds
        h^2 t (t+1) / 12 to each release's K(t) on average, so h^2 (t+1) / 12 to
        epsilon. Finer where the whole composition is short; a little coarser for more
        than a hundred kinds of releases, each of which costs a transform.
        """
        t = tilt.slope / chain.step
        epsilon = tilt.log_bound(0.0, chain.step) - math.log(self._delta)
        releases = self._most * self._size
        kinds = min(1.0, max(_COARSEST, 100 / len(self._terms)))
        fineness = self._fineness * kinds
        fit = math.sqrt(max(epsilon, 0.0) / t / (releases * (t + 1))) / fineness
        if fit == 0:
            fit = chain.step * _ROUGH / fineness
        width = chain.width(self._most, tilt) * chain.step
        longest = max(e.forward + e.backward for e in self._extents)
        return max(
            min(fit, width / (_CHEAP_WIDTH * kinds)), longest / _MAX_POINTS, 1e-14
        )

    def _snapped(self, step: float) -> float:
        """The step, made to divide the only atom of the losses if there is one."""
        lattices = {profile.lattice for profile, _ in self._terms}
        lattice = lattices.pop()
        if lattices or lattice is None or lattice < _LEAST_STEP:
            return step
        return lattice / max(1, math.ceil(lattice / step))


def _profiles(
    event: DpEvent, relation: Relation, free_delta: float
) -> list[tuple[Profile, int]]:
    """The profiles of one release; of disjoint parts, the worst one's."""
    law = law_of(event, relation)
    if not law.children:
        return law.profiles(free_delta)
    each = [_whole(child, relation, free_delta) for child in law.children]
    profile = profiles.worst(each)
    if relation is Relation.REPLACE_ONE:
        profile = profiles.either_way(profile)
    return [(profile, 1)]


def _whole(event: DpEvent, relation: Relation, free_delta: float) -> Profile:
    """The profile of a child, which may be a composition itself."""
    releases = flatten(event)
    if len(releases) == 1 and releases[0][1] == 1:
        found = _profiles(releases[0][0], relation, free_delta)
        if len(found) == 1 and found[0][1] == 1:
            return found[0][0]
    return Rounds(event, relation, delta=free_delta).profile()
