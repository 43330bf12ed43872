"""Events that dp-accounting has no word for; each subclasses its `DpEvent`.

An event fully documents the mathematics of one release, is immutable, and its meaning
never changes. All of these are hashable, check their fields when made and survive JSON
(`dpkit.accountants.events`).
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Annotated

import attrs
from dp_accounting import DpEvent

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.relations import Relation, as_relation
from dpkit.accountants.events import fields

MISSING = 1e-9
_ROUNDING = 1e-14


@attrs.frozen
class OwnDpEvent(DpEvent):
    """Base of the events defined here; each annotation says how its field is kept."""

    def __attrs_post_init__(self) -> None:
        for name, field in fields_of(type(self)).items():
            value = field.check(name, getattr(self, name))
            object.__setattr__(self, name, value)
        self._check_together()

    def _check_together(self) -> None:
        """Checks that need more than one field."""


@attrs.frozen
class PureDpEvent(OwnDpEvent):
    """Any epsilon-differentially private release: delta = 0.

    Privacy: dominated by randomized response on two points with log-ratio epsilon
    (Kairouz, Oh, Viswanath 2015, arXiv:1311.0776), whatever the relation.

    Attributes:
      epsilon: at least 0.

    Example:
      >>> PureDpEvent(0.5)
      PureDpEvent(epsilon=0.5)
    """

    epsilon: Annotated[float, fields.number(checks.non_negative)]


@attrs.frozen
class ApproxDpEvent(OwnDpEvent):
    """Any (epsilon, delta)-differentially private release.

    Privacy: dominated by the pair of Kairouz, Oh, Viswanath 2015 (arXiv:1311.0776):
    mass delta at infinite loss, (1-delta) e^eps/(1+e^eps) at +eps, the rest at -eps.

    Attributes:
      epsilon: at least 0.
      delta: in [0, 1).

    Example:
      >>> ApproxDpEvent(1.0, 1e-6).delta
      1e-06
    """

    epsilon: Annotated[float, fields.number(checks.non_negative)]
    delta: Annotated[float, fields.number(checks.half_open_probability)]


@attrs.frozen
class BoundedRangeDpEvent(OwnDpEvent):
    """A release whose log-ratios between neighbours span at most epsilon.

    The exponential mechanism with scores of sensitivity D and weights
    exp(epsilon q / 2D) is one; its Rényi curve lies below alpha epsilon^2 / 8.

    Privacy: log P(y)/Q(y) lies in [t - epsilon, t] for some t in [0, epsilon] that may
    differ from pair to pair of neighbours.

    Attributes:
      epsilon: at least 0.

    Example:
      >>> BoundedRangeDpEvent(1)
      BoundedRangeDpEvent(epsilon=1.0)

    Reference: Dong, Durfee, Rogers, "Optimal Differential Privacy Composition for
    Exponential Mechanisms", 2020, arXiv:1909.13830.
    """

    epsilon: Annotated[float, fields.number(checks.non_negative)]


@attrs.frozen
class MetricLocalPureDpEvent(OwnDpEvent):
    """A release that is epsilon-private per unit of distance (metric privacy).

    It is reported apart and never added to other events: every accountant refuses it.

    Attributes:
      epsilon: at least 0, per unit of distance.
      unit: the name of that unit.

    Example:
      >>> MetricLocalPureDpEvent(0.1, "metre").unit
      'metre'
    """

    epsilon: Annotated[float, fields.number(checks.non_negative)]
    unit: Annotated[str, fields.plain(checks.text)]


@attrs.frozen
class DiscreteGaussianDpEvent(OwnDpEvent):
    """An integer query plus discrete Gaussian noise, P(k) ~ exp(-k^2 / 2 stddev^2).

    Privacy: concentrated with rho = sensitivity^2 / (2 stddev^2) (Canonne, Kamath,
    Steinke 2020, arXiv:2004.00010, Theorem 4); twice the sensitivity if a record is
    replaced.

    Attributes:
      stddev: the parameter of the discrete Gaussian, in [1e-100, 1e100].
      sensitivity: how far one record can move the integer (contribution radius).

    Example:
      >>> DiscreteGaussianDpEvent(2.0, 1)
      DiscreteGaussianDpEvent(stddev=2.0, sensitivity=1)
    """

    stddev: Annotated[float, fields.number(checks.noise)]
    sensitivity: Annotated[int, fields.count()]

    def _check_together(self) -> None:
        """A shift that can be squared."""
        if self.sensitivity > 1e100 * self.stddev:
            raise ValueError(
                f"sensitivity={self.sensitivity} must be at most 1e100 times "
                f"stddev={self.stddev!r}"
            )


@attrs.frozen
class PmfPairDpEvent(OwnDpEvent):
    """An exact pair of discrete distributions that dominates a release.

    Privacy: `p` is the law of the output with the record, `q` without it (or with the
    null record). Both D(p || q) and D(q || p) are composed. Under replace_one neither
    side comes first, so each event counts the worse of the two. Where q is 0 and p is
    not, the loss is infinite.

    Attributes:
      p: probabilities, at least 0; they sum to 1, or to less by up to 1e-9, which
        counts as infinite loss where it is more than rounding, (n + 4) 2^-53 for n.
      q: the same for the other side, on the same support.
      relation: the relation that the pair was derived for; others are refused.
      name: of the mechanism.
      provenance: where the proof is: a theorem, a paper.
      certified: whether the pair is proven to dominate.
      min_contributors: how many honest contributors the pair assumes.

    Example:
      >>> coin = PmfPairDpEvent(p=(0.75, 0.25), q=(0.25, 0.75), relation="zero_out",
      ...                       name="coin", provenance="direct", certified=True)
      >>> coin.min_contributors
      1
    """

    p: Annotated[Sequence[float], fields.numbers(checks.probability)]
    q: Annotated[Sequence[float], fields.numbers(checks.probability)]
    relation: Annotated[Relation | str, fields.plain(as_relation)]
    name: Annotated[str, fields.plain(checks.text)]
    provenance: Annotated[str, fields.plain(checks.text)]
    certified: Annotated[bool, fields.plain(checks.flag)]
    min_contributors: Annotated[int, fields.count()] = 1

    def _check_together(self) -> None:
        """Equal lengths, and sums of one."""
        check_equal_lengths(p=self.p, q=self.q)
        check_sums_to_one(MISSING, p=self.p)
        check_sums_to_one(MISSING, q=self.q)


@attrs.frozen
class RdpCurveDpEvent(OwnDpEvent):
    """A table of Rényi divergences, valid in both directions of the relation.

    Between orders, (alpha - 1) rho(alpha) is convex in alpha and 0 at alpha = 1, so it
    is read by chords; above the last order nothing is claimed.

    Privacy: R_alpha(P || Q) <= rho(alpha) for all neighbours, in both directions.

    Attributes:
      orders: alpha, above 1 and strictly increasing.
      values: rho at each order, at least 0.
      relation, name, provenance, certified, min_contributors: as of `PmfPairDpEvent`.

    Example:
      >>> RdpCurveDpEvent(orders=[2, 4], values=[0.1, 0.2], relation="add_remove",
      ...                 name="toy", provenance="direct", certified=True).orders
      (2.0, 4.0)
    """

    orders: Annotated[Sequence[float], fields.numbers(checks.finite)]
    values: Annotated[Sequence[float], fields.numbers(checks.non_negative)]
    relation: Annotated[Relation | str, fields.plain(as_relation)]
    name: Annotated[str, fields.plain(checks.text)]
    provenance: Annotated[str, fields.plain(checks.text)]
    certified: Annotated[bool, fields.plain(checks.flag)]
    min_contributors: Annotated[int, fields.count()] = 1

    def _check_together(self) -> None:
        """Equal lengths; orders above 1 and increasing."""
        check_equal_lengths(orders=self.orders, values=self.values)
        if self.orders[0] <= 1:
            raise ValueError(f"orders={self.orders[0]!r} must be above 1")
        if any(a >= b for a, b in zip(self.orders, self.orders[1:], strict=False)):
            raise ValueError("orders must be strictly increasing")


@attrs.frozen
class ParallelDpEvent(OwnDpEvent):
    """Releases about declared disjoint parts of the data: the worst child counts.

    Privacy: one record is in one part, so under add_remove and zero_out it meets one
    child. A replaced record can leave one keyed part and enter another, so replace_one
    is refused unless the parts are blocks of positions that no value can change.

    Attributes:
      children: one event for each part, at least one.
      index_based: whether the parts are fixed blocks of record positions.

    Example:
      >>> ParallelDpEvent([PureDpEvent(0.1), PureDpEvent(0.2)]).index_based
      False
    """

    children: Sequence[DpEvent]
    index_based: Annotated[bool, fields.plain(checks.flag)] = False

    def _check_together(self) -> None:
        """At least one child, all of them events."""
        object.__setattr__(self, "children", tuple(self.children))
        if not self.children:
            raise ValueError("parallel needs at least one child")
        for child in self.children:
            if not isinstance(child, DpEvent):
                raise TypeError(f"child={child!r} of parallel must be a DpEvent")


@functools.cache
def fields_of(cls: type[OwnDpEvent]) -> Mapping[str, fields.Field]:
    """The fields of a class by name, children aside."""
    return {
        each.name: dataclasses.replace(
            each.type.__metadata__[0],
            default=fields.REQUIRED if each.default is attrs.NOTHING else each.default,
        )
        for each in attrs.fields(cls)
        if hasattr(each.type, "__metadata__")
    }


def check_equal_lengths(**lists: Sequence[float]) -> None:
    """Refuse lists of different lengths."""
    if len({len(values) for values in lists.values()}) != 1:
        lengths = ", ".join(f"{name}: {len(v)}" for name, v in lists.items())
        raise ValueError(f"lists of one length needed, not {lengths}")


def check_sums_to_one(missing: float = 0.0, /, **values: Sequence[float]) -> None:
    """Refuse probabilities that sum to more than 1, or to less than 1 - `missing`.

    What is missing can be counted as infinite loss. What is too much can't be made up
    for: on one side of a pair it hides loss, e^epsilon times over.
    """
    for name, probabilities in values.items():
        total = math.fsum(probabilities)
        if not -missing - _ROUNDING <= total - 1 <= _ROUNDING:
            less = f" or up to {missing:g} less" if missing else ""
            raise ValueError(
                f"{name} sums to {total!r}, must sum to 1{less}: divide by the sum"
            )
