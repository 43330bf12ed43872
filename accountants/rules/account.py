"""One scope's budget: what it has spent, and whether it still holds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal

from dpkit.accountants.answers.bounds import Budget
from dpkit.accountants.rules.filters import RenyiFilter
from dpkit.accountants.rules.totals import (
    ZERO,
    Cost,
    Totals,
    above,
    add,
    at_least,
    exact,
    subtract,
)


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
        epsilon, delta = exact(self.budget.epsilon), exact(self.budget.delta)
        if self.filter:
            epsilon = subtract(epsilon, exact(self.filter.epsilon))
            delta = subtract(delta, exact(self.filter.delta))
        return subtract(epsilon, self.totals.epsilon), subtract(
            delta, self.totals.delta
        )

    def spent(self, *, scale: float = 1.0) -> Decimal:
        """Epsilon of the filter's report, plus that of plans and direct charges."""
        total = self.totals.epsilon
        if self.filter:
            sums = [above(value) for value in self.totals.renyi]
            report = self.filter.spent(sums, scale=scale)
            whole = report == self.filter.epsilon
            total = add(total, exact(report) if whole else at_least(report))
        return total

    def after(self, cost: Cost, count: int, *, seq: int) -> Account:
        """The account once an entry was charged."""
        filter = RenyiFilter.from_json(cost.opens) if cost.opens else self.filter
        totals = self.totals.plus(cost, count, seq=seq)
        return replace(self, totals=totals, filter=filter)

    def holds(self) -> bool:
        """Whether the totals are within the budget."""
        epsilon, delta = self.room()
        if min(epsilon, delta) < ZERO:
            return False
        sums = [above(value) for value in self.totals.renyi]
        return self.filter is None or self.filter.admits(sums)
