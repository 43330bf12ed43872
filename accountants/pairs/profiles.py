r"""Privacy profiles: D(e) = sup_S P(S) - e^e Q(S) of one release, in both directions.

`forward` is D(P || Q), with the record against without it (or with the null record);
`backward` is D(Q || P). Both are given for e >= 0, which says everything: for e < 0,
D(P || Q)(e) = 1 - e^e + e^e D(Q || P)(-e). Under replace_one neither side comes first,
so the two are equal there.

Values are relative upper bounds however small they are: each carries a pad for the
rounding of its formula, so that a composition certifies a delta of 1e-100.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from dpkit.accountants.pairs.arrays import Array
from dpkit.accountants.pairs.finite import FinitePair

Curve = Callable[[Array], Array]
Tails = Callable[[Array], tuple[Array, Array]]


@dataclasses.dataclass(frozen=True)
class Side:
    """One direction of a pair (P, Q), for losses L = log dP/dQ."""

    above: Curve  # e >= 0 (increasing) -> D(e), rounded up
    # e >= 0 -> (P(L > e), Q(L > e)), or None where the pair only dominates the
    # release or its law is not known: then nothing can be bounded from below
    tails: Tails | None = None

    def __call__(self, e: Array) -> Array:
        """D(e), rounded up."""
        return self.above(e)


@dataclasses.dataclass(frozen=True)
class Profile:
    """The two directions of a dominating pair."""

    forward: Side  # of P against Q
    backward: Side  # of Q against P; the same object if both are the same function
    lattice: float | None = None  # a loss with mass of its own, to lie on the grid
    upper: FinitePair | None = None  # the pair itself, if it is finite
    lower: Callable[[], FinitePair] | None = None  # a pair that the release dominates

    @property
    def symmetric(self) -> bool:
        """Whether both directions are the same function."""
        return self.forward is self.backward

    @property
    def bounded_below(self) -> bool:
        """Whether a lower bound can be given."""
        known = self.forward.tails is not None and self.backward.tails is not None
        return known or self.lower is not None


_SAME = Side(np.zeros_like, lambda e: (np.zeros_like(e), np.zeros_like(e)))
_APART = Side(np.ones_like, lambda e: (np.ones_like(e), np.zeros_like(e)))
NOTHING = Profile(_SAME, _SAME)
EVERYTHING = Profile(_APART, _APART)


def finite(pair: FinitePair, *, lattice: float | None = None) -> Profile:
    """A pair of finite distributions."""
    return between(pair, lambda: pair, lattice=lattice)


def between(
    upper: FinitePair,
    lower: Callable[[], FinitePair] | None,
    *,
    lattice: float | None = None,
) -> Profile:
    """A release between two finite pairs; the lower one is made when it is needed."""
    sides = Side(upper.delta), Side(upper.swapped().delta)
    return Profile(*sides, lattice, upper, lower)


def worst(profiles: Sequence[Profile]) -> Profile:
    """The pointwise maximum: a profile again, which dominates each of them."""
    if len(profiles) == 1:
        return profiles[0]

    def highest(sides: list[Side]) -> Side:
        return Side(lambda e: np.max([side(e) for side in sides], axis=0))

    forward = highest([profile.forward for profile in profiles])
    backward = forward
    if not all(profile.symmetric for profile in profiles):
        backward = highest([profile.backward for profile in profiles])
    return Profile(forward, backward)


def either_way(profile: Profile) -> Profile:
    """The maximum of both directions, for relations in which neither comes first."""
    if profile.symmetric:
        return profile
    side = Side(lambda e: np.maximum(profile.forward(e), profile.backward(e)))
    return Profile(side, side, profile.lattice)
