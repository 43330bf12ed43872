"""What an event costs, asked of the accountants once and remembered.

A ledger prices a request before it takes the write lock, decides under the lock from
what is remembered, and so holds the lock for milliseconds.
"""

from __future__ import annotations

import importlib
import math
from dataclasses import replace
from decimal import Decimal
from types import ModuleType
from typing import Any

from dp_accounting import DpEvent

from dpkit.accountants.answers.bounds import PrivacyBound
from dpkit.accountants.answers.errors import (
    NotCertified,
    UnsupportedEvent,
    UnsupportedRelation,
)
from dpkit.accountants.answers.relations import Relation
from dpkit.accountants.events.composing import flatten, repeat
from dpkit.accountants.events.notation import from_json, to_json
from dpkit.accountants.events.own import ApproxDpEvent, PureDpEvent
from dpkit.accountants.events.warrant import warrant
from dpkit.accountants.rules.totals import ZERO, above, add, at_least, exact, times
from dpkit.accountants.storage.entry import canonical

_REMEMBERED = 4096


class Pricer:
    """Answers of the accountants for one relation and unit, remembered by event.

    Example:
      >>> pricer = Pricer(Relation.ADD_REMOVE, "example")
      >>> pricer.of(PureDpEvent(0.1)).direct()
      (Decimal('0.1'), Decimal('0'))
    """

    def __init__(self, relation: Relation, unit: str):
        self._relation = relation
        self._unit = unit
        self._known: dict[Any, Any] = {}

    def of(self, event: DpEvent) -> EventPrices:
        """The prices of one event.

        Raises:
          NotCertified: the event, or a part of it, is not proven.
          ValueError: it is no valid event.
        """
        text = canonical(to_json(event))

        def make() -> EventPrices:
            if not warrant(event).certified:
                raise NotCertified(
                    f"{event!r} is not proven: a ledger counts proofs only"
                )
            self._refuse_foreign(event)
            return EventPrices(self, from_json(text), text, self._relation)

        return self._once(("event", text), make)

    def _refuse_foreign(self, event: DpEvent) -> None:
        """Raise UnsupportedRelation for what no accountant reads under the relation."""
        names = ("rdp", "pld", "pure", "zcdp")
        if any(_accountant(name).supports(event, self._relation) for name in names):
            return
        try:
            _accountant("rdp").rdp_curve(event, (2.0,), relation=self._relation)
        except UnsupportedEvent:
            return  # what a filter says of it tells more

    def answer(self, delta: float, upper: float, method: str) -> PrivacyBound:
        """A certified bound for this relation and unit."""
        return PrivacyBound(
            delta=delta,
            upper=upper,
            certified=True,
            method_upper=method,
            relation=self._relation,
            unit=self._unit,
        )

    def bound(self, event: DpEvent, text: str, count: int, delta: float, how: str):
        """The static bound of `count` copies by the accountant `how`."""

        def ask() -> PrivacyBound:
            return _accountant("best").epsilon(
                repeat(event, count),
                delta,
                relation=self._relation,
                accountant=how,
                unit=self._unit,
                lower=False,
            )

        return self._once(("bound", text, count, delta, how), ask)

    def curve(self, event: DpEvent, text: str, orders: tuple[float, ...]):
        """Rényi bounds of one copy, or None where there are none."""

        def ask() -> tuple[float, ...] | None:
            curve = _accountant("rdp").rdp_curve
            try:
                values = curve(event, orders, relation=self._relation)
            except (UnsupportedEvent, UnsupportedRelation):
                return None
            return tuple(math.inf if math.isnan(v) else float(v) for v in values)

        return self._once(("curve", text, orders), ask)

    def _once(self, key: Any, ask: Any) -> Any:
        """A remembered answer, or a new one."""
        if key not in self._known:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[key] = ask()
        return self._known[key]


class EventPrices:
    """The prices of one event; `counting.Prices` says what each answer means."""

    def __init__(self, pricer: Pricer, event: DpEvent, text: str, relation: Relation):
        self._pricer = pricer
        self._text = text
        self._relation = relation
        self.event = event

    def bound(self, count: int, delta: float, how: str = "best") -> PrivacyBound:
        """The static bound of `count` copies; basic composition is exact here."""
        direct = self.direct() or (Decimal("inf"), ZERO)
        upper = math.inf
        if times(direct[1], count) <= exact(delta):
            upper = above(times(direct[0], count))
        if delta == 0.0:
            return self.answer(0.0, upper, "pure")
        bound = self._pricer.bound(self.event, self._text, count, delta, how)
        if bound.upper is not None and bound.upper <= upper:
            return bound
        lower = None if bound.lower is None else min(bound.lower, upper)
        method = "pure" if upper < math.inf else bound.method_upper
        return replace(bound, upper=upper, lower=lower, method_upper=method)

    def answer(self, delta: float, upper: float, method: str) -> PrivacyBound:
        """A certified bound with the relation and unit of these prices."""
        return self._pricer.answer(delta, upper, method)

    def curve(self, orders: tuple[float, ...]) -> tuple[float, ...] | None:
        """Rényi bounds of one copy, or None where there are none."""
        return self._pricer.curve(self.event, self._text, orders)

    def direct(self) -> tuple[Decimal, Decimal] | None:
        """(epsilon, delta) of one copy by basic composition of its parts, or None."""
        epsilon = delta = ZERO
        for release, count in flatten(self.event):
            part = self._release(release)
            if part is None:
                return None
            epsilon = add(epsilon, times(part[0], count))
            delta = add(delta, times(part[1], count))
        return (epsilon, delta) if delta < 1 else None

    def zcdp(self) -> tuple[float, float]:
        """(xi, rho): the Rényi curve lies below xi + rho alpha at every order."""
        found = _accountant("zcdp").concentration(self.event, self._relation)
        if found.delta > 0 or found.unamplified:
            raise UnsupportedEvent(
                "zcdp",
                found.unamplified[0] if found.unamplified else self.event,
                "filter='zcdp' takes concentrated and pure releases",
            )
        return found.xi, found.rho

    def _release(self, event: DpEvent) -> tuple[Decimal, Decimal] | None:
        """(epsilon, delta) of a release that has them by itself."""
        if isinstance(event, PureDpEvent):
            return exact(event.epsilon), ZERO
        if isinstance(event, ApproxDpEvent):
            return exact(event.epsilon), exact(event.delta)
        try:
            epsilon, delta = _accountant("pure").guarantee(event, self._relation)
        except (UnsupportedEvent, UnsupportedRelation):
            return None
        return at_least(epsilon), at_least(delta)


def _accountant(name: str) -> ModuleType:
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
