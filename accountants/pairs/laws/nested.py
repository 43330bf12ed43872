"""Releases that hold compositions: disjoint parts, and the best of several runs."""

import functools

import numpy as np
from dp_accounting import DpEvent

from dpkit.accountants.answers.exact import ZERO, Number, plus, times
from dpkit.accountants.answers.relations import Relation
from dpkit.accountants.events.composing import flatten
from dpkit.accountants.events.kinds import parts_of
from dpkit.accountants.pairs import borrowed
from dpkit.accountants.pairs.arrays import Array
from dpkit.accountants.pairs.curve import Curve, knots_of, sum_of
from dpkit.accountants.pairs.laws.base import Law, curve_of, law_of


class Parallel(Law, kinds=("parallel",)):
    """The worst child; its profile is made by composition/rounds.py."""

    @property
    def children(self) -> tuple[DpEvent, ...]:
        """One event for each part."""
        return parts_of(self.event)

    @functools.cached_property
    def _laws(self) -> list[Law]:
        """Of all that its children are made of."""
        parts = [part for child in self.children for part, _ in flatten(child)]
        return [law_of(part, self.relation) for part in parts]

    def lacks(self, view: str) -> str:
        """What its children lack, and points."""
        own = "" if view == "profiles" else super().lacks(view)
        return own or next(filter(None, (law.lacks(view) for law in self._laws)), "")

    def check(self, view: str) -> None:
        """Refuse what a child lacks, as the child's."""
        for law in self._laws:
            law.check(view)
        super().check(view)

    def curve(self) -> Curve:
        """The worst child at each order."""
        curves = [composed_curve(child, self.relation)[0] for child in self.children]
        return lambda orders: np.max([curve(orders) for curve in curves], axis=0)

    def guarantee(self) -> tuple[Number, Number]:
        """The worst child in each number."""
        each = [composed_guarantee(child, self.relation) for child in self.children]
        return max(e for e, _ in each), max(d for _, d in each)

    @property
    def trivial(self) -> bool:
        """Whether all children are."""
        return all(_trivial(child, self.relation) for child in self.children)


class RepeatAndSelect(Law, kinds=("repeat_and_select",)):
    """The best of a random number of runs."""

    def curve(self) -> Curve:
        """From the curve of one run."""
        (child,) = parts_of(self.event)
        curve, _ = composed_curve(child, self.relation)
        trivial = _trivial(child, self.relation)
        return borrowed.repeat_and_select(curve, **self.fields, trivial=trivial)


def composed_curve(event: DpEvent, relation: Relation) -> tuple[Curve, Array]:
    """The curve of a composition, and the orders worth trying besides a grid.

    Example:
      >>> from dp_accounting import GaussianDpEvent, SelfComposedDpEvent
      >>> twice = SelfComposedDpEvent(GaussianDpEvent(1.0), 2)
      >>> composed_curve(twice, Relation.ZERO_OUT)[0](np.array([2.0])).round(6)
      array([2.])
    """
    terms = [(curve_of(part, relation), count) for part, count in flatten(event)]
    return sum_of(terms), knots_of(terms)


def composed_guarantee(event: DpEvent, relation: Relation) -> tuple[Number, Number]:
    """(epsilon, delta) of a composition: the exact sums of its parts' own.

    Example:
      >>> from dpkit.accountants.events import PureDpEvent, repeat
      >>> composed_guarantee(repeat(PureDpEvent(0.25), 4), Relation.ZERO_OUT)
      (Fraction(1, 1), Fraction(0, 1))
    """
    epsilon, delta = ZERO, ZERO
    for part, count in flatten(event):
        own = law_of(part, relation).guarantee()
        epsilon, delta = (
            plus(epsilon, times(own[0], count)),
            delta + times(own[1], count),
        )
    return epsilon, delta


def _trivial(event: DpEvent, relation: Relation) -> bool:
    """Whether nothing can be learnt from a composition."""
    return all(law_of(part, relation).trivial for part, _ in flatten(event))
