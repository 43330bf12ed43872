"""What an event costs, asked of the accountants once and remembered.

A ledger prices a request before it takes the write lock, decides under the lock from
what is remembered, and so holds the lock for milliseconds.
"""

from __future__ import annotations

import copy
import importlib
import math
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from types import ModuleType
from typing import Any, TypeVar

from dp_accounting import DpEvent

from dpkit.accountants.answers.bounds import PrivacyBound
from dpkit.accountants.answers.errors import UnsupportedEvent, UnsupportedRelation
from dpkit.accountants.answers.relations import Relation
from dpkit.accountants.events.composing import flatten, repeat
from dpkit.accountants.events.own import ApproxDpEvent, PureDpEvent
from dpkit.accountants.rules.totals import ZERO, above, add, at_least, exact, times

_REMEMBERED = 4096
_Answer = TypeVar("_Answer")


class EventPrices:
    """The prices of one event; `rules.counting.Prices` says what each answer means.

    Example:
      >>> EventPrices(PureDpEvent(0.1), Relation.ADD_REMOVE, "example").direct()
      (Decimal('0.1'), Decimal('0'))
    """

    def __init__(self, event: DpEvent, relation: Relation, unit: str):
        self.event = event
        self._relation = relation
        self._unit = unit
        self._accountant = "best"
        self._known: dict[Any, Any] = {}

    def quick(self) -> EventPrices:
        """The same prices with the Rényi accountant's bounds: a little too high."""
        found = copy.copy(self)
        found._accountant = "rdp"
        return found

    def bound(self, count: int, delta: float) -> PrivacyBound:
        """The static bound of `count` copies; basic composition is exact here."""
        direct = self.direct() or (Decimal("inf"), ZERO)
        upper = math.inf
        if times(direct[1], count) <= exact(delta):
            upper = above(times(direct[0], count))
        if delta == 0.0:
            return self.answer(0.0, upper, "pure")
        try:
            bound = self._bound(count, delta, self._accountant)
        except ValueError:
            if self._accountant == "best":
                raise
            bound = self._bound(count, delta, "best")
        if bound.upper is not None and bound.upper <= upper:
            return bound
        lower = None if bound.lower is None else min(bound.lower, upper)
        method = "pure" if upper < math.inf else bound.method_upper
        return replace(bound, upper=upper, lower=lower, method_upper=method)

    def answer(self, delta: float, upper: float, method: str) -> PrivacyBound:
        """A certified bound with the relation and unit of these prices."""
        return PrivacyBound(
            delta=delta,
            upper=upper,
            certified=True,
            method_upper=method,
            relation=self._relation,
            unit=self._unit,
        )

    def curve(self, orders: tuple[float, ...]) -> tuple[float, ...] | None:
        """Rényi bounds of one copy, or None where there are none."""

        def ask() -> tuple[float, ...] | None:
            curve = accountant("rdp").rdp_curve
            try:
                values = curve(self.event, orders, relation=self._relation)
            except (UnsupportedEvent, UnsupportedRelation):
                return None
            return tuple(math.inf if math.isnan(v) else float(v) for v in values)

        return self._once(("curve", orders), ask)

    def direct(self) -> tuple[Decimal, Decimal] | None:
        """(epsilon, delta) of one copy by basic composition of its parts, or None."""
        return self._once("direct", self._sum_of_parts)

    def zcdp(self) -> tuple[float, float] | None:
        """(xi, rho), if the Rényi curve lies below xi + rho alpha at every order."""

        def ask() -> tuple[float, float] | None:
            read = accountant("zcdp").concentration
            try:
                found = read(self.event, self._relation)
            except (UnsupportedEvent, UnsupportedRelation):
                return None
            plain = found.delta == 0 and not found.unamplified
            return (found.xi, found.rho) if plain else None

        return self._once("zcdp", ask)

    def supported(self) -> bool:
        """Whether some accountant reads the event under the relation.

        Raises:
          UnsupportedRelation: none does, and another relation has a proof.
        """
        names = ("rdp", "pld", "pure", "zcdp")
        if any(accountant(n).supports(self.event, self._relation) for n in names):
            return True
        try:
            accountant("rdp").rdp_curve(self.event, (2.0,), relation=self._relation)
        except UnsupportedEvent:
            pass
        return False

    def _bound(self, count: int, delta: float, name: str) -> PrivacyBound:
        """The bound by one accountant, or by the best."""

        def ask() -> PrivacyBound:
            try:
                return accountant("best").epsilon(
                    repeat(self.event, count),
                    delta,
                    relation=self._relation,
                    accountant=name,
                    unit=self._unit,
                    lower=False,
                )
            except UnsupportedRelation as error:
                reason = f"no proof under relation={self._relation}"
                raise UnsupportedEvent(name, error.event, reason) from None

        return self._once((count, delta, name), ask)

    def _sum_of_parts(self) -> tuple[Decimal, Decimal] | None:
        """Epsilons and deltas of the parts, added up."""
        epsilon = delta = ZERO
        for release, count in flatten(self.event):
            part = self._release(release)
            if part is None:
                return None
            epsilon = add(epsilon, times(part[0], count))
            delta = add(delta, times(part[1], count))
        return (epsilon, delta) if delta < 1 else None

    def _release(self, event: DpEvent) -> tuple[Decimal, Decimal] | None:
        """(epsilon, delta) of a release that has them by itself."""
        if isinstance(event, PureDpEvent):
            return exact(event.epsilon), ZERO
        if isinstance(event, ApproxDpEvent):
            return exact(event.epsilon), exact(event.delta)
        try:
            epsilon, delta = accountant("pure").guarantee(event, self._relation)
        except (UnsupportedEvent, UnsupportedRelation):
            return None
        return at_least(epsilon), at_least(delta)

    def _once(self, key: Any, ask: Callable[[], _Answer]) -> _Answer:
        """A remembered answer, or a new one."""
        return once(self._known, key, ask)


def once(known: dict[Any, Any], key: Any, ask: Callable[[], _Answer]) -> _Answer:
    """A remembered answer, or a new one; no more are kept than memory can hold.

    Raises:
      ValueError: a number on the way does not fit into a float.
    """
    if key not in known:
        if len(known) >= _REMEMBERED:
            known.clear()
        try:
            known[key] = ask()
        except OverflowError:
            raise ValueError(
                "a number of the event, or its count, is too large to be counted: "
                "nothing was charged"
            ) from None
    return known[key]


def accountant(name: str) -> ModuleType:
    """An accountant's module, loaded when first asked: reading a ledger needs none."""
    return importlib.import_module(f"dpkit.accountants.readings.{name}")


def bound_to_json(bound: PrivacyBound) -> dict[str, Any]:
    """A bound as it stands in an entry: numbers as decimal strings."""
    fields = bound.to_json()
    return {n: repr(v) if isinstance(v, float) else v for n, v in fields.items()}


def bound_from_json(value: dict[str, Any]) -> PrivacyBound:
    """The bound that `bound_to_json` wrote."""
    numbers: dict[str, Any] = {
        name: float(value[name])
        for name in ("delta", "lower", "estimate", "upper")
        if value[name] is not None
    }
    return PrivacyBound(**value | numbers | {"warnings": tuple(value["warnings"])})
