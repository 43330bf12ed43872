"""What a scope of a ledger has spent: exact running totals, carried by its entries.

Numbers are read as the decimals they are written as, and summed exactly: nothing is
lost or gained by rounding, sums don't depend on their order, "up to the budget,
equality included" means what it says, and the smallest positive charge after exhaustion
is still refused. Numbers that come out of floating-point formulas are rounded up
before.
"""

from __future__ import annotations

import decimal
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from dpkit.accountants.answers.bounds import Budget
from dpkit.accountants.rules.filters import RenyiFilter

ZERO = Decimal(0)

_EXACT = decimal.Context(
    prec=20_000,
    Emax=decimal.MAX_EMAX,
    Emin=decimal.MIN_EMIN,
    traps=[decimal.Inexact, decimal.InvalidOperation, decimal.Overflow],
)


def exact(number: float | int | str | Decimal) -> Decimal:
    """The decimal that a number is written as (the shortest one that reads back).

    Example:
      >>> exact(0.1) * 3 == exact("0.3")
      True
    """
    if isinstance(number, float):
        number = repr(float(number))
    return _EXACT.create_decimal(number)


def at_least(number: float) -> Decimal:
    """A short decimal that is at least the binary value of a computed number.

    Example:
      >>> at_least(3.0), at_least(0.1)
      (Decimal('3.0'), Decimal('0.10000000000000002'))
    """
    short = exact(number)
    enough = short >= Decimal(number)
    return short if enough else exact(math.nextafter(number, math.inf))


def below(number: Decimal) -> float:
    """The largest float that is written as a decimal of at most `number`.

    Example:
      >>> below(exact("0.1")), below(exact("0.10000000000000001")) <= 0.1
      (0.1, True)
    """
    near = float(number)
    return near if exact(near) <= number else math.nextafter(near, -math.inf)


def above(number: Decimal) -> float:
    """The smallest float that is written as a decimal of at least `number`.

    Example:
      >>> above(exact("0.1")), above(exact("1e-400"))
      (0.1, 5e-324)
    """
    near = float(number)
    return near if exact(near) >= number else math.nextafter(near, math.inf)


def add(left: Decimal, right: Decimal) -> Decimal:
    """left + right, exactly."""
    return _EXACT.add(left, right)


def subtract(left: Decimal, right: Decimal) -> Decimal:
    """left - right, exactly; an infinite left stays infinite."""
    return left if left.is_infinite() else _EXACT.subtract(left, right)


def times(number: Decimal, count: int) -> Decimal:
    """number * count, exactly."""
    return ZERO if count == 0 else _EXACT.multiply(number, Decimal(count))


def text(number: Decimal) -> str:
    """The one spelling of a total, "inf" included.

    Example:
      >>> text(exact(3.0)), text(exact("1e-05")), text(Decimal("inf"))
      ('3', '1e-5', 'inf')
    """
    if number.is_infinite():
        return "inf"
    short = _EXACT.plus(number).normalize(_EXACT)
    return f"{short:f}" if -5 < short.adjusted() < 17 else f"{short:e}".lower()


@dataclass(frozen=True)
class Cost:
    """What one entry adds to one account.

    Fields: how ("approx", "renyi", "zcdp", "pure", or "planned" for what a sealed plan
    has paid already), epsilon and delta (for all of the entry), values (Rényi, one for
    each order of the filter, for ONE of `count`), opens (the filter that starts with
    this entry, as JSON).
    """

    how: str
    epsilon: Decimal = ZERO
    delta: Decimal = ZERO
    values: tuple[Decimal, ...] = ()
    opens: Mapping[str, Any] | None = None

    @property
    def refundable(self) -> bool:
        """Whether what did not run may be given back: it was counted step by step."""
        return bool(self.values)

    def to_json(self) -> dict[str, Any]:
        """The cost as it stands in an entry."""
        found: dict[str, Any] = {"as": self.how}
        if self.values:
            found["values"] = [text(value) for value in self.values]
        else:
            found |= {"epsilon": text(self.epsilon), "delta": text(self.delta)}
        return found | ({"opens": dict(self.opens)} if self.opens else {})

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Cost:
        """The cost written by `to_json`."""
        epsilon, delta = (exact(value.get(n, "0")) for n in ("epsilon", "delta"))
        values = tuple(exact(item) for item in value.get("values", ()))
        return cls(value["as"], epsilon, delta, values, value.get("opens"))


@dataclass(frozen=True)
class Totals:
    """What one account has spent after an entry.

    Fields: epsilon and delta (summed over plans and direct charges), renyi (one sum for
    each order of the filter; empty while nothing is in it), opened (seq of the entry
    that opened the filter), charges (how many entries have been charged and not
    aborted), sole (seq of the only charge there has ever been, while that is so).

    Example:
      >>> spent = Totals().plus(Cost("pure", epsilon=exact(0.1)), 1, seq=4)
      >>> spent.to_json()
      {'charges': 1, 'delta': '0', 'epsilon': '0.1', 'sole': 4}
    """

    epsilon: Decimal = ZERO
    delta: Decimal = ZERO
    renyi: tuple[Decimal, ...] = ()
    opened: int | None = None
    charges: int = 0
    sole: int | None = None

    def plus(self, cost: Cost, count: int, *, seq: int) -> Totals:
        """The totals after the entry `seq` that costs `cost`, `count` times."""
        return Totals(
            add(self.epsilon, cost.epsilon),
            add(self.delta, cost.delta),
            _moved(self.renyi or (ZERO,) * len(cost.values), cost.values, count),
            seq if cost.opens else self.opened,
            self.charges + 1,
            None if self.charges else seq,
        )

    def minus_steps(self, cost: Cost, unused: int) -> Totals:
        """The totals after `unused` steps of a refundable cost were given back."""
        return replace(self, renyi=_moved(self.renyi, cost.values, -unused))

    def minus(self, cost: Cost, count: int) -> Totals:
        """The totals as if the entry had never been charged; a filter stays open."""
        epsilon = subtract(self.epsilon, cost.epsilon)
        delta = subtract(self.delta, cost.delta)
        renyi = self.minus_steps(cost, count).renyi
        return Totals(epsilon, delta, renyi, self.opened, self.charges - 1)

    def to_json(self) -> dict[str, Any]:
        """The totals as they stand in an entry."""
        sums = {"delta": text(self.delta), "epsilon": text(self.epsilon)}
        found: dict[str, Any] = {"charges": self.charges, **sums}
        places = {"opened": self.opened, "sole": self.sole}
        found |= {name: seq for name, seq in places.items() if seq is not None}
        renyi = [text(value) for value in self.renyi]
        return found | ({"renyi": renyi} if renyi else {})

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Totals:
        """The totals written by `to_json`."""
        renyi = tuple(exact(item) for item in value.get("renyi", ()))
        sums = exact(value["epsilon"]), exact(value["delta"]), renyi
        return cls(*sums, value.get("opened"), value["charges"], value.get("sole"))


@dataclass(frozen=True)
class Account:
    """One scope's budget and what it has spent.

    Fields: scope, budget, rule (the ledger's filter), totals, filter (the open one or
    None).
    """

    scope: str
    budget: Budget
    rule: str
    totals: Totals
    filter: RenyiFilter | None

    def room(self) -> tuple[Decimal, Decimal]:
        """(epsilon, delta) that plans and direct charges may still take."""
        epsilon = subtract(exact(self.budget.epsilon), self.totals.epsilon)
        delta = subtract(exact(self.budget.delta), self.totals.delta)
        if self.filter is None:
            return epsilon, delta
        taken = exact(self.filter.epsilon), exact(self.filter.delta)
        return subtract(epsilon, taken[0]), subtract(delta, taken[1])

    def spent(self) -> Decimal:
        """Epsilon of the filter's report, plus that of plans and direct charges."""
        if self.filter is None:
            return self.totals.epsilon
        report = self.filter.spent([above(value) for value in self.totals.renyi])
        whole = report == self.filter.epsilon
        return add(self.totals.epsilon, exact(report) if whole else at_least(report))

    def after(self, cost: Cost, count: int, *, seq: int) -> Account:
        """The account once an entry was charged."""
        filter = RenyiFilter.from_json(cost.opens) if cost.opens else self.filter
        totals = self.totals.plus(cost, count, seq=seq)
        return replace(self, totals=totals, filter=filter)

    def holds(self) -> bool:
        """Whether the totals are within the budget."""
        if min(self.room()) < ZERO:
            return False
        sums = [above(value) for value in self.totals.renyi]
        return self.filter is None or self.filter.admits(sums)


def _moved(
    totals: Iterable[Decimal], values: tuple[Decimal, ...], count: int
) -> tuple[Decimal, ...]:
    """Each total moved by count * value; nothing moves where there are no values."""
    if not values:
        return tuple(totals)
    move = add if count >= 0 else subtract  # an infinite total minus infinity stays
    pairs = zip(totals, values, strict=True)
    return tuple(move(t, times(v, abs(count))) for t, v in pairs)
