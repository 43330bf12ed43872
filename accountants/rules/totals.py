"""What a scope of a ledger has spent: exact running totals, carried by its entries."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dpkit.accountants.answers.bounds import Budget
from dpkit.accountants.answers.exact import (
    ZERO,
    Number,
    above,
    at_least,
    exact,
    plus,
    text,
    times,
)
from dpkit.accountants.rules.filters import RenyiFilter


@dataclass(frozen=True)
class Cost:
    """What one entry adds to one account.

    Fields: how ("approx", "renyi", "zcdp", "pure", or "planned" for what a sealed plan
    has paid already), epsilon and delta (for all of the entry), values (Rényi, one for
    each order of the filter, for ONE of `count`), opens (the filter that starts with
    this entry, as JSON), missed (the probability that what ran is not what is charged,
    for all of the entry; never given back, as is delta).
    """

    how: str
    epsilon: Number = ZERO
    delta: Number = ZERO
    values: tuple[Number, ...] = ()
    opens: Mapping[str, Any] | None = None
    missed: Number = ZERO

    @property
    def refundable(self) -> bool:
        """Whether what did not run may be given back: it was counted step by step."""
        return bool(self.values)

    def to_json(self) -> dict[str, Any]:
        """The cost as it stands in an entry."""
        found: dict[str, Any] = {"as": self.how}
        if self.values:
            found["values"] = [text(value) for value in self.values]
            beside = {"delta": self.delta, "missed": self.missed}
            found |= {name: text(value) for name, value in beside.items() if value}
        else:
            found |= {"epsilon": text(self.epsilon), "delta": text(self.delta)}
        return found | ({"opens": dict(self.opens)} if self.opens else {})

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Cost:
        """The cost written by `to_json`."""
        numbers = {n: exact(value.get(n, "0")) for n in ("epsilon", "delta", "missed")}
        values = tuple(exact(item) for item in value.get("values", ()))
        return cls(value["as"], values=values, opens=value.get("opens"), **numbers)


@dataclass(frozen=True)
class Totals:
    """What one account has spent after an entry.

    Fields: epsilon, delta and missed (summed over charges), renyi (one sum for
    each order of the filter; empty while nothing is in it), opened (seq of the entry
    that opened the filter), charges (how many entries have been charged and not
    aborted), sole (seq of the only charge there has ever been, while that is so).

    Example:
      >>> spent = Totals().plus(Cost("pure", epsilon=exact(0.1)), 1, seq=4)
      >>> spent.to_json()
      {'charges': 1, 'delta': '0', 'epsilon': '0.1', 'sole': 4}
    """

    epsilon: Number = ZERO
    delta: Number = ZERO
    renyi: tuple[Number, ...] = ()
    opened: int | None = None
    charges: int = 0
    sole: int | None = None
    missed: Number = ZERO

    def plus(self, cost: Cost, count: int, *, seq: int) -> Totals:
        """The totals after the entry `seq` that costs `cost`, `count` times."""
        return Totals(
            plus(self.epsilon, cost.epsilon),
            self.delta + cost.delta,
            _moved(self.renyi or (ZERO,) * len(cost.values), cost.values, count),
            seq if cost.opens else self.opened,
            self.charges + 1,
            None if self.charges else seq,
            self.missed + cost.missed,
        )

    def minus_steps(self, cost: Cost, unused: int) -> Totals:
        """The totals after `unused` steps of a refundable cost were given back."""
        return replace(self, renyi=_moved(self.renyi, cost.values, -unused))

    def minus(self, cost: Cost, count: int) -> Totals:
        """The totals as if the entry had never been charged; a filter stays open."""
        epsilon = _less(self.epsilon, cost.epsilon)
        delta = _less(self.delta, cost.delta)
        renyi = self.minus_steps(cost, count).renyi
        missed = self.missed - cost.missed
        return Totals(
            epsilon, delta, renyi, self.opened, self.charges - 1, None, missed
        )

    def to_json(self) -> dict[str, Any]:
        """The totals as they stand in an entry."""
        sums = {"delta": text(self.delta), "epsilon": text(self.epsilon)}
        found: dict[str, Any] = {"charges": self.charges, **sums}
        places = {"opened": self.opened, "sole": self.sole}
        found |= {name: seq for name, seq in places.items() if seq is not None}
        found |= {"missed": text(self.missed)} if self.missed else {}
        renyi = [text(value) for value in self.renyi]
        return found | ({"renyi": renyi} if renyi else {})

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Totals:
        """The totals written by `to_json`."""
        renyi = tuple(exact(item) for item in value.get("renyi", ()))
        sums = exact(value["epsilon"]), exact(value["delta"]), renyi
        places = value.get("opened"), value["charges"], value.get("sole")
        return cls(*sums, *places, exact(value.get("missed", "0")))


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

    @property
    def undecided(self) -> bool:
        """Whether nothing was charged that costs anything: P = Q so far."""
        return self.filter is None and not (self.totals.epsilon or self.totals.delta)

    def room(self) -> tuple[Number, Number]:
        """(epsilon, delta) that plans and direct charges may still take."""
        epsilon = _less(exact(self.budget.epsilon), self.totals.epsilon)
        delta = _less(exact(self.budget.delta), self.totals.delta)
        if self.filter is None:
            return epsilon, delta
        taken = exact(self.filter.epsilon), exact(self.filter.delta)
        if self.filter.shared:  # approximate releases have a part of their own in it
            beside = exact(self.filter.approximate) + exact(self.filter.coupled)
            delta = exact(self.budget.delta) - beside
        return _less(epsilon, taken[0]), _less(delta, taken[1])

    def spent(self) -> Number:
        """Epsilon of the filter's report, plus that of plans and direct charges."""
        if self.filter is None:
            return self.totals.epsilon
        report = self.filter.spent([above(value) for value in self.totals.renyi])
        whole = report == self.filter.epsilon
        return plus(self.totals.epsilon, exact(report) if whole else at_least(report))

    def after(self, cost: Cost, count: int, *, seq: int) -> Account:
        """The account once an entry was charged."""
        filter = RenyiFilter.from_json(cost.opens) if cost.opens else self.filter
        totals = self.totals.plus(cost, count, seq=seq)
        return replace(self, totals=totals, filter=filter)

    def holds(self) -> bool:
        """Whether the totals are within the budget."""
        if min(self.room()) < ZERO:
            return False
        if self.filter is None:
            return True
        shared, totals = self.filter.shared, self.totals
        if shared and not self.filter.covers(totals.delta, totals.missed):
            return False
        return self.filter.admits([above(value) for value in totals.renyi])


def _moved(
    totals: Iterable[Number], values: tuple[Number, ...], count: int
) -> tuple[Number, ...]:
    """Each total moved by count * value; nothing moves where there are no values."""
    if not values:
        return tuple(totals)
    pairs = zip(totals, values, strict=True)
    return tuple(
        plus(t, times(v, count)) if count >= 0 else _less(t, times(v, -count))
        for t, v in pairs
    )


def _less(left: Number, right: Number) -> Number:
    """left - right; an infinite left stays infinite."""
    return left if left == math.inf else left - right
