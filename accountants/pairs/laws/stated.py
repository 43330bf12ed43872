"""Releases of which little more is known than a statement about divergences."""

import math

import numpy as np

from dpkit.accountants.answers.exact import ZERO, Number
from dpkit.accountants.pairs.curve import FLOOR, Curve, Table
from dpkit.accountants.pairs.laws.base import Law
from dpkit.accountants.pairs.profiles import EVERYTHING, Profile


class Concentrated(Law, kinds=("zcdp",)):
    """xi + rho a, by definition."""

    def concentration(self) -> tuple[float, float]:
        """As stated."""
        return self.fields["xi"], self.fields["rho"]

    def curve(self) -> Curve:
        """A line."""
        xi, rho = self.concentration()
        return lambda orders: xi + rho * orders

    @property
    def trivial(self) -> bool:
        """Whether it says so."""
        return self.concentration() == (0.0, 0.0)


class RenyiCurve(Law, kinds=("rdp_curve",)):
    """The table that a mechanism gave."""

    def curve(self) -> Curve:
        """Read by chords."""
        values = np.maximum(self.fields["values"], 0.0 if self.trivial else FLOOR)
        return Table(np.array(self.fields["orders"]), values)

    @property
    def trivial(self) -> bool:
        """A divergence of 0 at one order is one at all of them."""
        return min(self.fields["values"]) == 0


class NonPrivate(Law, kinds=("non_private",)):
    """No guarantee of any sort."""

    private = False

    def lacks(self, view: str) -> str:
        """Nothing: it is known to be nothing."""
        return ""

    def profiles(self, free_delta: float) -> list[tuple[Profile, int]]:
        """All is lost."""
        return [(EVERYTHING, 1)]

    def curve(self) -> Curve:
        """inf at every order."""
        return lambda orders: np.full(orders.shape, np.inf)

    def guarantee(self) -> tuple[Number, Number]:
        """No epsilon is large enough."""
        return math.inf, ZERO


class MetricLocalPure(Law, kinds=("metric_local_pure",)):
    """Another kind of privacy."""

    def lacks(self, view: str) -> str:
        """Everything."""
        return "metric privacy is reported apart and never added"
