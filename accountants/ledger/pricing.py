"""What an event costs, asked of the accountants once and remembered.

A ledger prices a request before it takes the write lock, decides under the lock from
what is remembered, and so holds the lock for milliseconds.
"""

from __future__ import annotations

import copy
import functools
import importlib
import math
import re
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any, TypeVar, cast

from dp_accounting import DpEvent

from dpkit.accountants.answers.bounds import PrivacyBound
from dpkit.accountants.answers.errors import UnsupportedEvent, UnsupportedRelation
from dpkit.accountants.answers.exact import ZERO, Number, above, at_least, exact, times
from dpkit.accountants.answers.relations import Relation
from dpkit.accountants.events.composing import repeat
from dpkit.accountants.events.notation import from_json, to_json
from dpkit.accountants.rules.counting import SharedCost, raised
from dpkit.accountants.storage.entry import canonical

_REMEMBERED = 4096
_NOISES = re.compile(r'"(noise_multiplier|scale|stddev)":"([^"]+)"')
_Answer = TypeVar("_Answer")
_Method = TypeVar("_Method", bound=Callable[..., Any])


def _remembered(method: _Method) -> _Method:
    """A method of prices that asks accountants, once for the same arguments."""

    @functools.wraps(method)
    def answer(self: EventPrices, *asked: Any) -> Any:
        key = (method.__name__, *asked)
        return once(self._known, key, lambda: method(self, *asked))

    return cast(_Method, answer)


class EventPrices:
    """The prices of one event; `rules.counting.Prices` says what each answer means.

    Example:
      >>> from dpkit.accountants.events import PureDpEvent
      >>> EventPrices(PureDpEvent(0.1), Relation.ADD_REMOVE, "example").direct()
      (Fraction(1, 10), Fraction(0, 1))
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

    def noisier(self, factor: float) -> tuple[EventPrices, str] | None:
        """The prices with so much more noise, and that noise in words, if it has one.

        Example:
          >>> from dp_accounting import LaplaceDpEvent
          >>> prices = EventPrices(LaplaceDpEvent(2.0), Relation.ADD_REMOVE, "example")
          >>> prices.noisier(1.5)[1]
          'scale=3.0'
        """
        text = canonical(to_json(self.event))
        found = set(_NOISES.findall(text))
        if len(found) != 1:
            return None
        name, noise = found.pop()
        more = repr(float(f"{float(noise) * factor:.4g}"))
        noisier = copy.copy(self)
        noisier.event = from_json(_NOISES.sub(f'"{name}":"{more}"', text))
        noisier._known = {}
        return noisier, f"{name}={more}"

    def bound(self, count: int, delta: float) -> PrivacyBound:
        """The static bound of `count` copies; basic composition is exact here."""
        direct = self.direct() or (math.inf, ZERO)
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
        how: Any = {"relation": self._relation, "unit": self._unit, "certified": True}
        return PrivacyBound(delta=delta, upper=upper, method_upper=method, **how)

    @_remembered
    def curve(self, orders: tuple[float, ...]) -> tuple[float, ...] | None:
        """Rényi bounds of one copy, or None where there are none."""
        read = accountant("rdp").rdp_curve
        values = _if_supported(read, self.event, orders, relation=self._relation)
        if values is None:
            return None
        return tuple(math.inf if math.isnan(v) else float(v) for v in values)

    @_remembered
    def shared(self, orders: tuple[float, ...]) -> SharedCost | None:
        """What one copy costs a filter for a whole ledger, or None: it can't enter."""
        read = accountant("rdp").shared_cost
        found = _if_supported(read, self.event, orders, relation=self._relation)
        if found is None:
            return None
        values, largest, lost, missed = found
        at = iter([at_least(raised(float(value))) for value in values])
        each = [next(at) if order < math.inf else largest for order in orders]
        return SharedCost(tuple(each), lost, at_least(missed))

    @_remembered
    def direct(self) -> tuple[Number, Number] | None:
        """(epsilon, delta) of one copy by basic composition of its parts, or None."""
        read = accountant("pure").guarantee
        found = _if_supported(read, self.event, self._relation)
        return found if found and found[1] < 1 else None

    @_remembered
    def zcdp(self) -> tuple[float, float] | None:
        """(xi, rho), if the Rényi curve lies below xi + rho alpha at every order."""
        read = accountant("zcdp").concentration
        found = _if_supported(read, self.event, self._relation)
        if found is None or found.delta != 0 or found.unamplified:
            return None
        return found.xi, found.rho

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
            return False
        return True

    @_remembered
    def _bound(self, count: int, delta: float, name: str) -> PrivacyBound:
        """The bound by one accountant, or by the best."""
        how = {"relation": self._relation, "accountant": name, "unit": self._unit}
        event = repeat(self.event, count)
        try:
            return accountant("best").epsilon(event, delta, lower=False, **how)
        except UnsupportedRelation as error:
            reason = f"no proof under relation={self._relation}"
            raise UnsupportedEvent(name, error.event, reason) from None


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


def _if_supported(read: Callable[..., Any], *asked: Any, **how: Any) -> Any:
    """An accountant's answer, or None where it has no proof."""
    try:
        return read(*asked, **how)
    except (UnsupportedEvent, UnsupportedRelation):
        return None


def accountant(name: str) -> ModuleType:
    """An accountant's module, loaded when first asked: reading a ledger needs none."""
    return importlib.import_module(f"dpkit.accountants.readings.{name}")


def bound_to_json(bound: PrivacyBound) -> dict[str, Any]:
    """A bound as it stands in an entry: numbers as decimal strings."""
    fields = bound.to_json()
    return {n: repr(v) if isinstance(v, float) else v for n, v in fields.items()}


def bound_from_json(value: dict[str, Any]) -> PrivacyBound:
    """The bound that `bound_to_json` wrote."""
    names = ("delta", "lower", "estimate", "upper")
    numbers: Any = {n: float(value[n]) for n in names if value[n] is not None}
    return PrivacyBound(**value | numbers)
