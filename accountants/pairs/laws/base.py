"""What is known of one release, in the forms that accountants need.

This is the only place that knows kinds of events, and the only one that refuses a
relation. To add a kind, write its class in events/own.py, its row in events/kinds.py,
and here a `Law` in the file of its family, with the views that are proven:

    profiles(free_delta)   privacy profiles, with counts      the loss distributions
    curve()                orders -> Rényi divergences        Rényi
    points()               losses at weighted points          Edgeworth
    guarantee()            (epsilon, delta)                   basic composition

A view that is not written refuses the event for its accountant alone; none is derived
from another. That is UnsupportedEvent; a relation without a proof refuses it for all,
as UnsupportedRelation. `lacks` says so beforehand, and at once: whoever asks whether a
release can be read must not wait for its law. zCDP and Gaussian DP take what suits
them of

    concentration()        (xi, rho), if it is concentrated
    shift()                of a Gaussian that dominates it
    limit()                of its central limit, which is no bound

and have rules of their own for the rest, so these answer None instead of refusing.

Three kinds didn't fit four plain views. A release with disjoint parts has `children`,
compositions themselves: their profile is made where compositions are. One whose batch
can overflow has `unlimited`, the release without the limit and the probability of the
difference, for accountants that can't read it as it is. And `points` says how points
are found instead of giving them: finite pairs have infinite losses too, and a thousand
sampled Gaussians are faster found at once.

Events give noise in contribution radii. Replacing a record moves a sum by two of them,
which is applied here: s / 2 and b / 2. (dp-accounting's own Rényi accountant forgets
that factor.)
"""

import functools
from collections.abc import Mapping
from typing import Any, ClassVar

from dp_accounting import DpEvent

from dpkit.accountants.answers.errors import UnsupportedEvent, UnsupportedRelation
from dpkit.accountants.answers.exact import ZERO, Number
from dpkit.accountants.answers.relations import Relation, as_relation
from dpkit.accountants.answers.relations import shift as radii
from dpkit.accountants.events.kinds import kind_of, relations_of
from dpkit.accountants.pairs.curve import Curve, Remembered, Table
from dpkit.accountants.pairs.finite import FinitePair
from dpkit.accountants.pairs.points import Points, SampledGaussian
from dpkit.accountants.pairs.profiles import Profile

# Each view's accountant, and what to say of a release that doesn't have it.
_VIEWS = {
    "profiles": ("pld", "it has no known dominating pair"),
    "curve": ("rdp", "it has no Rényi curve"),
    "points": ("edgeworth", "it has no known pair of its own"),
    "guarantee": ("pure", "it is not pure by itself"),
}
_LAWS: dict[str, "type[Law]"] = {}


class Law:
    """One release under one relation.

    Attributes:
      event: the release.
      relation: the neighbouring relation, under which the event has a proof.
      fields: the event's, by their names in JSON, in the order of its row.
      radii: how many contribution radii a change of one record moves a sum by.
      private: False if it gives no guarantee at all.
      attained: whether `points` are of a pair that is reached, not only never exceeded.

    Example:
      >>> from dp_accounting import GaussianDpEvent
      >>> law_of(GaussianDpEvent(2.0), Relation.REPLACE_ONE).shift()
      1.0
    """

    private: ClassVar[bool] = True
    attained: ClassVar[bool] = True

    def __init_subclass__(cls, *, kinds: tuple[str, ...] = ()) -> None:
        for kind in kinds:
            if kind in _LAWS:
                raise ValueError(f"kind={kind!r} must be new: {_LAWS[kind]} is its law")
            _LAWS[kind] = cls

    def __init__(self, event: Any, relation: Relation, fields: Mapping[str, Any]):
        self.event = event
        self.relation = relation
        self.fields = fields
        self.radii = radii(relation)

    def profiles(self, free_delta: float) -> list[tuple[Profile, int]]:
        """Privacy profiles whose composition dominates the release, with counts.

        `free_delta` is a probability so small that all privacy may be lost with it.
        """
        raise self.refusal("profiles")

    def curve(self) -> Curve:
        """Orders to Rényi divergences, the worse of both directions."""
        raise self.refusal("curve")

    def points(self) -> FinitePair | SampledGaussian | Points:
        """How the loss is found at points."""
        raise self.refusal("points")

    def guarantee(self) -> tuple[Number, Number]:
        """An (epsilon, delta) that the release has by itself: exact, or rounded up."""
        if self.trivial:
            return ZERO, ZERO
        raise self.refusal("guarantee")

    def concentration(self) -> tuple[float, float] | None:
        """(xi, rho): Rényi divergences are at most xi + rho a at every order a."""
        return None

    def shift(self) -> float | None:
        """m of a Gaussian N(m, 1) against N(0, 1) that dominates the release.

        Given what was sampled, a release is a plain Gaussian or the same on both sides.
        Divergences are quasi-convex, so the mixture over what is sampled is dominated
        by its worst component.

        Reference: van Erven & Harremoës, "Rényi Divergence and Kullback-Leibler
        Divergence", 2012, arXiv:1206.2459, Theorem 13 (quasi-convexity).
        """
        return None

    def limit(self) -> float | None:
        """m of the Gaussian that many such releases tend to, each adding m^2."""
        return None

    def unlimited(self) -> tuple[list[tuple[DpEvent, int]], float] | None:
        """The release without a limit on batches, and how likely that differs."""
        return None

    @property
    def children(self) -> tuple[DpEvent, ...]:
        """Compositions of which one record meets one; a release by itself has none."""
        return ()

    @property
    def trivial(self) -> bool:
        """Whether nothing can be learnt of a record: all divergences are 0."""
        return False

    def lacks(self, view: str) -> str:
        """Why there is no such view, or "" if there is."""
        own = getattr(type(self), view) is not getattr(Law, view)
        if view == "guarantee" and not own:
            own = self.trivial
        return "" if own else _VIEWS[view][1]

    def check(self, view: str) -> None:
        """Refuse a release, or what it consists of, that lacks a view."""
        if self.lacks(view):
            raise self.refusal(view)

    def refusal(self, view: str) -> UnsupportedEvent:
        """What to raise for a view that is lacking."""
        return UnsupportedEvent(_VIEWS[view][0], self.event, self.lacks(view))


def law_of(event: DpEvent, relation: Relation) -> Law:
    """The law of one release of `flatten`; UnsupportedRelation if it has no proof.

    Example:
      >>> from dp_accounting import LaplaceDpEvent
      >>> law_of(LaplaceDpEvent(2.0), Relation.ZERO_OUT).guarantee()[0]
      Fraction(1, 2)
    """
    kind, allowed, relation = kind_of(event), relations_of(event), as_relation(relation)
    if relation not in allowed:
        shown = getattr(event, "name", event)
        raise UnsupportedRelation("every accountant", relation, shown, allowed)
    return _LAWS.get(kind.name, Law)(event, relation, kind.read(event))


@functools.lru_cache(maxsize=64)
def curve_of(event: DpEvent, relation: Relation) -> Curve:
    """The curve of one release in normal form, which keeps its answers.

    Example:
      >>> import numpy as np
      >>> from dp_accounting import GaussianDpEvent
      >>> curve_of(GaussianDpEvent(1.0), Relation.ZERO_OUT)(np.array([2.0])).round(6)
      array([1.])
    """
    law = law_of(event, relation)
    law.check("curve")
    curve = law.curve()
    return curve if isinstance(curve, Table) else Remembered(curve, law.trivial)
