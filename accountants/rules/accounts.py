"""One scope's budget: what it has spent, and whether it still holds."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from dpkit.accountants.answers.bounds import Budget
from dpkit.accountants.rules.filters import RenyiFilter, adaptive_filter, zcdp_filter
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

FILTERS = ("approx", "pure", "zcdp")


@dataclass(frozen=True)
class Account:
    """One scope's budget and what it has spent.

    Fields: scope, budget, rule (one of `FILTERS`), totals, filter (the open one or
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
        filter = filter_from_json(cost.opens) if cost.opens else self.filter
        totals = self.totals.plus(cost, count, seq=seq)
        return replace(self, totals=totals, filter=filter)

    def holds(self) -> bool:
        """Whether the totals are within the budget."""
        epsilon, delta = self.room()
        if min(epsilon, delta) < ZERO:
            return False
        sums = [above(value) for value in self.totals.renyi]
        return self.filter is None or self.filter.admits(sums)


def opening_filter(rule: str, budget: Budget, adaptive: Budget | None) -> dict | None:
    """The filter that is open from the start, as JSON, or None.

    Args:
      rule: one of `FILTERS`.
      budget: the account's.
      adaptive: the part of it declared for charges chosen along the way, or None.

    Returns:
      JSON for `filter_from_json`, or None.

    Raises:
      ValueError: the rule has no use for `adaptive`, or needs delta or epsilon above 0.
    """
    if adaptive is not None and rule != "approx":
        raise ValueError(f"adaptive= is for filter='approx', not filter={rule!r}")
    if rule == "zcdp":
        if not (0.0 < budget.epsilon < math.inf and budget.delta > 0.0):
            raise ValueError("filter='zcdp' needs a finite epsilon > 0 and a delta > 0")
        return filter_to_json(zcdp_filter(budget.epsilon, budget.delta))
    if adaptive is None:
        return None
    if adaptive.epsilon > budget.epsilon or adaptive.delta > budget.delta:
        raise ValueError(f"adaptive={adaptive} must be within budget={budget}")
    if adaptive.epsilon <= 0.0 or adaptive.delta <= 0.0:
        raise ValueError(f"adaptive={adaptive} needs an epsilon > 0 and a delta > 0")
    return filter_to_json(adaptive_filter(adaptive.epsilon, adaptive.delta))


def filter_to_json(filter: RenyiFilter) -> dict[str, Any]:
    """A filter as it stands in an entry: decimal strings."""
    return {
        "epsilon": repr(filter.epsilon),
        "delta": repr(filter.delta),
        "orders": [repr(order) for order in filter.orders],
        "shares": [repr(share) for share in filter.shares],
    }


def filter_from_json(value: Any) -> RenyiFilter:
    """The filter that `filter_to_json` wrote."""
    orders, shares = value["orders"], value["shares"]
    return RenyiFilter(
        float(value["epsilon"]),
        float(value["delta"]),
        tuple(float(order) for order in orders),
        tuple(float(share) for share in shares),
    )
