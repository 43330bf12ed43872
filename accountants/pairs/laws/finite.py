"""Releases with a dominating pair of finitely many outcomes."""

import functools
import math
from typing import Any

import numpy as np

from dpkit.accountants.answers.exact import ZERO, Number, at_least, exact, shortened
from dpkit.accountants.answers.relations import Relation
from dpkit.accountants.pairs import curve as renyi
from dpkit.accountants.pairs import finite, profiles
from dpkit.accountants.pairs.curve import Curve
from dpkit.accountants.pairs.finite import FinitePair
from dpkit.accountants.pairs.laws.base import Law
from dpkit.accountants.pairs.profiles import Profile

_PAD = 1 + 1e-13
_FARTHEST, _LARGEST_LOSS, _FAINT = 10**6, 700, 1e-9


class FiniteLaw(Law):
    """Everything follows from the pair."""

    @functools.cached_property
    def pair(self) -> FinitePair:
        """The two laws."""
        raise NotImplementedError

    @property
    def lattice(self) -> float | None:
        """A loss of which all others are multiples, or None."""
        return None

    def lacks(self, view: str) -> str:
        """No points if what masses round is no small part of the losses."""
        if view == "points" and self.faint:
            return f"its losses are below {_FAINT:g}, too small for masses in floats"
        return super().lacks(view)

    @property
    def faint(self) -> bool:
        """Whether all losses are tiny, but not 0."""
        small = self.pair.pure_epsilon() < _FAINT
        return small and not (self.trivial or max(self.pair.infinite))

    @property
    def trivial(self) -> bool:
        """Whether the two laws are one."""
        lost = max(self.pair.infinite)
        return not lost and bool(np.array_equal(self.pair.p, self.pair.q))

    def profiles(self, free_delta: float) -> list[tuple[Profile, int]]:
        """The pair's."""
        return [(profiles.finite(self.pair, lattice=self.lattice), 1)]

    def curve(self) -> Curve:
        """The pair's, the worse of both directions."""
        return functools.partial(renyi.finite, p=self.pair.p, q=self.pair.q)

    def points(self) -> FinitePair:
        """The pair."""
        return self.pair

    def guarantee(self) -> tuple[Number, Number]:
        """The largest finite loss, and the mass of infinite loss."""
        _, p, q = self.pair.finite
        lost = at_least(max(self.pair.infinite))
        if np.array_equal(p, q):
            return ZERO, lost
        rounding = 4e-16 * (1 - np.log(np.append(p, q)).min(initial=0.0))
        loss = self.pair.pure_epsilon() * _PAD + float(rounding)
        return at_least(loss), lost


class DiscreteLaplace(FiniteLaw, kinds=("discrete_laplace",)):
    """Integer noise; all losses are multiples of its rate."""

    @property
    def _moved(self) -> int:
        return self.fields["sensitivity"] * self.radii

    def lacks(self, view: str) -> str:
        """No pair that can be listed if it is moved too far."""
        loss = self.fields["rate"] * self._moved
        if view != "guarantee" and (self._moved > _FARTHEST or loss > _LARGEST_LOSS):
            return (
                f"it moves by over {_FARTHEST:g}, or has losses above {_LARGEST_LOSS}"
            )
        return super().lacks(view)

    @property
    def faint(self) -> bool:
        """By its largest loss."""
        return self.fields["rate"] * self._moved < _FAINT

    @functools.cached_property
    def pair(self) -> FinitePair:
        """Between the two centres; all outcomes beyond fall together."""
        return finite.discrete_laplace(self.fields["rate"], self._moved)

    @property
    def trivial(self) -> bool:
        """Never."""
        return False

    @property
    def lattice(self) -> float:
        """The rate."""
        return self.fields["rate"]

    def guarantee(self) -> tuple[Number, Number]:
        """Rate times shift."""
        return shortened(exact(self.fields["rate"]) * exact(self._moved)), ZERO


class RandomizedResponse(FiniteLaw, kinds=("randomized_response",)):
    """The truth, or any category."""

    @functools.cached_property
    def pair(self) -> FinitePair:
        """Two categories swapped, or one against all others."""
        return finite.randomized_response(**self.fields, relation=self.relation)

    @property
    def trivial(self) -> bool:
        """Whether the truth is never told."""
        return self.fields["probability"] == 1

    @property
    def lattice(self) -> float | None:
        """The one loss, if the pair is symmetric."""
        loss = self.pair.pure_epsilon()
        symmetric = self.relation is Relation.REPLACE_ONE and 0 < loss < np.inf
        return loss if symmetric else None


class PmfPair(FiniteLaw, kinds=("pmf_pair",)):
    """The pair that a mechanism gave; replacing, either side may come first."""

    def lacks(self, view: str) -> str:
        """No points where neither side comes first."""
        if view == "points" and self.relation is Relation.REPLACE_ONE:
            return "neither side of its pair comes first"
        return super().lacks(view)

    @functools.cached_property
    def pair(self) -> FinitePair:
        """The given masses; what they are above 1 is divided away."""
        p, q = (np.array(self.fields[side]) for side in "pq")
        return FinitePair(p / max(1.0, math.fsum(p)), q / max(1.0, math.fsum(q)))

    def profiles(self, free_delta: float) -> list[tuple[Profile, int]]:
        """The pair's, or the worse of both directions in each."""
        profile = profiles.finite(self.pair)
        if self.relation is Relation.REPLACE_ONE:
            profile = profiles.either_way(profile)
        return [(profile, 1)]


class ApproximatelyPrivate(FiniteLaw, kinds=("pure", "approx_dp")):
    """Dominated by one pair, whatever it is (Kairouz, Oh, Viswanath 2015)."""

    def lacks(self, view: str) -> str:
        """No curve with a delta: every divergence may be infinite."""
        if view == "curve" and self.guarantee()[1] > 0:
            return "with delta > 0 every Rényi divergence may be infinite"
        return super().lacks(view)

    @functools.cached_property
    def pair(self) -> FinitePair:
        """Losses of epsilon, -epsilon and infinity."""
        return finite.approximate(*map(float, self.guarantee()))

    @property
    def trivial(self) -> bool:
        """Whether it says so."""
        return not any(self.guarantee())

    @property
    def lattice(self) -> float | None:
        """Epsilon."""
        loss = self.fields["epsilon"]
        return loss if 0 < loss <= _LARGEST_LOSS else None

    def curve(self) -> Curve:
        """Two outcomes with log-ratio epsilon."""
        self.check("curve")
        return functools.partial(renyi.two_point, epsilon=self.fields["epsilon"])

    def guarantee(self) -> tuple[Number, Number]:
        """What the event states."""
        return exact(self.fields["epsilon"]), exact(self.fields.get("delta", 0.0))


class BoundedRange(ApproximatelyPrivate, kinds=("bounded_range",)):
    """Read as pure where nothing better is known, which is more than it ever is."""

    attained = False

    def profiles(self, free_delta: float) -> list[tuple[Profile, int]]:
        """From above."""
        return [(profiles.between(self.pair, None, lattice=self.lattice), 1)]

    def curve(self) -> Curve:
        """The worst pair of bounded range."""
        return functools.partial(renyi.bounded_range, epsilon=self.fields["epsilon"])

    def concentration(self) -> tuple[float, float]:
        """rho = epsilon^2 / 8 (Dong, Durfee, Rogers 2020, arXiv:1909.13830)."""
        return 0.0, half_square(self.fields["epsilon"]) / 4 or self.fields["epsilon"]


def half_square(value: Any) -> float:
    """value^2 / 2, which is 0 for 0 alone."""
    return max(0.5 * value * value, 5e-324 if value else 0.0)
