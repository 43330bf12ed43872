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
import math

import dp_accounting as dp
import numpy as np
from dp_accounting import DpEvent

from dpkit.accountants import _check, exact_gaussian, rdp
from dpkit.accountants.bounds import DeltaBound, PrivacyBound
from dpkit.accountants.composed_loss import ComposedLoss, Transform, Window, window
from dpkit.accountants.errors import UnsupportedEvent, UnsupportedRelation
from dpkit.accountants.event_types import ParallelDpEvent
from dpkit.accountants.events import flatten, validate
from dpkit.accountants.loss_grid import Losses, discretise, extent
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
from dpkit.accountants.relations import Relation, as_relation
from dpkit.accountants.warrant import warrant

NAME = "pld"

_FLOOR = 1e-10
_UNIT = 2.0**-53
_FINENESS = 100
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
        return max(_FLOOR, 10 * _UNIT * self.compositions) if self.chains else 0.0

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
    return bound_at(composition(event, relation, delta), event, delta, relation)


def bound_at(
    composed: Composition, event: DpEvent, delta: float, relation: Relation
) -> PrivacyBound:
    """The bound on epsilon that a composition of `event` gives."""
    behind = warrant(event)
    if delta >= composed.floor:
        lower, upper = composed.epsilon(delta)
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
    note = f"delta={delta:g} is below {composed.floor:.3g}, which pld certifies here"
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
    lower, upper = composition(event, relation).delta(epsilon)
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


def composition(
    event: DpEvent, relation: Relation, delta: float = _FLOOR
) -> Composition:
    """A valid event, composed so that it answers for `delta` and above."""
    return Rounds(event, relation, 1, delta).composition(1)


class Rounds:
    """One event, ready to be composed with itself up to a number of times.

    Args:
      event: a valid event: one round.
      relation: the neighbouring relation.
      most: the largest number of rounds.
      delta: the smallest delta of interest; what counts as negligible follows.
    """

    def __init__(self, event: DpEvent, relation: Relation, most: int, delta: float):
        self._most = most
        self._negligible = max(delta, _FLOOR) * _NEGLIGIBLE
        releases = flatten(event)
        for release, _ in releases:
            check_supported(release, relation)
        self._private = not any(
            isinstance(release, dp.NonPrivateDpEvent) for release, _ in releases
        )
        self._moved, others = exact_gaussian.total_shift(releases, relation)
        if not self._private or not others:
            self._terms: list[tuple[Profile, int]] = []
            return
        uses = most * sum(count for _, count in others)
        spare = max(delta, _FLOOR) * _SPARE / uses
        self._terms = [(_profile(e, relation, spare), count) for e, count in others]
        if self._moved > 0:
            self._terms.append((gaussian(1 / self._moved), 1))
        self._size = sum(count * p.compositions for p, count in self._terms)
        self._grid()

    def composition(self, rounds: int) -> Composition:
        """`rounds` copies of the event, at most the number prepared for."""
        if not self._terms:
            moved = self._moved * math.sqrt(rounds)
            return Composition(moved=moved, private=self._private)
        size = self._size * rounds
        chains = []
        for terms, transform, widest in self._chains:
            kept = widest if rounds == self._most else self._window(terms, rounds)
            chains.append(transform.power(rounds, kept, size, self._negligible))
        return Composition(chains=tuple(chains), compositions=size)

    def _grid(self) -> None:
        """Choose the grid, and transform each direction's losses once."""
        tail = self._negligible / (self._size * self._most)
        extents = [extent(profile, tail) for profile, _ in self._terms]
        step = self._step([e.variance for e in extents])
        reach = max(e.forward + e.backward for e in extents)
        step = max(step, reach / _MAX_POINTS, 1e-14)
        step = self._snapped(step)
        while True:
            pairs = [
                discretise(profile, step, e)
                for (profile, _), e in zip(self._terms, extents, strict=True)
            ]
            sums = [self._direction(pairs, i) for i in self._directions()]
            windows = [self._window(terms, self._most) for terms in sums]
            if all(kept.width <= _MAX_WIDTH for kept in windows):
                break
            step *= 2
        self._chains = [
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

    def _window(self, terms: Terms, rounds: int) -> Window:
        """Where the losses of many rounds lie."""
        counted = [(losses, count * rounds) for losses, count in terms]
        return window(counted, self._negligible)

    def _step(self, variances: list[float]) -> float:
        """A hundredth of the loss's standard deviation in one release, on average."""
        counts = [count for _, count in self._terms]
        mean = sum(n * v for n, v in zip(counts, variances, strict=True)) / sum(counts)
        return math.sqrt(mean) / _FINENESS

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
    composed = composition(event, relation)
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
