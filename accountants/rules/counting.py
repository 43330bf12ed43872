"""How a ledger counts one charge: the rules of each filter, for one account.

An account is what one scope of data may lose: its budget, its totals, its open filter.
`cost` decides how a request enters it (filters.py has the proofs):

- filter "approx": a sealed plan is one (epsilon, delta) by the best certified
  accountant at its share of delta. A charge goes into the account's Rényi filter if one
  is open and it fits; else, if it is (epsilon, delta)-DP by itself, directly; else it
  opens the filter with everything that is left. A plan that doesn't fit beside the
  filter is counted inside it, by its Rényi curve.
- filter "zcdp": everything is counted as zCDP, in one filter with the whole budget.
- filter "pure": epsilons add up; nothing that needs a delta may enter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Protocol

from dp_accounting import DpEvent

from dpkit.accountants.answers.bounds import PrivacyBound
from dpkit.accountants.answers.errors import BudgetExceeded, UnsupportedEvent
from dpkit.accountants.rules.accounts import Account, filter_to_json
from dpkit.accountants.rules.filters import adaptive_filter
from dpkit.accountants.rules.totals import (
    ZERO,
    Cost,
    above,
    at_least,
    below,
    exact,
    times,
)


class Prices(Protocol):
    """What one event costs, by the accountants (`pricing.EventPrices`)."""

    event: DpEvent

    def bound(self, count: int, delta: float, how: str = "best") -> PrivacyBound:
        """The static bound for `count` copies by one accountant, or the best."""

    def direct(self) -> tuple[Decimal, Decimal] | None:
        """(epsilon, delta) of one copy by itself, or None where there is none."""

    def curve(self, orders: tuple[float, ...]) -> tuple[float, ...] | None:
        """Rényi bounds of one copy, or None where there are none."""

    def zcdp(self) -> tuple[float, float]:
        """(xi, rho) of one copy; raises UnsupportedEvent."""

    def answer(self, delta: float, upper: float, method: str) -> PrivacyBound:
        """A certified bound with the relation and unit of these prices."""


def cost(
    account: Account, prices: Prices, count: int, *, sealed: bool, delta: float | None
) -> Cost | None:
    """How a request enters an account.

    Args:
      account: before the request.
      prices: of one copy of the event.
      count: copies.
      sealed: whether it is a plan whose parameters are all fixed.
      delta: the plan's share of delta; None takes all that is left.

    Returns:
      The cost, after which the account still holds; None where there is none.

    Raises:
      UnsupportedEvent: the filter has no proof for the event, whatever the budget.
    """
    if account.rule == "zcdp":
        return _if_fits(account, count, _as_zcdp(account, prices))
    if account.rule == "pure":
        return _if_fits(account, count, _as_pure(prices, count))
    if sealed:
        plan = _if_fits(account, count, _as_plan(account, prices, count, delta))
        if plan is not None and plan.epsilon.is_finite():
            return plan
        return _inside(account, prices, count) or plan
    return _as_charge(account, prices, count)


def refusal(
    account: Account, prices: Prices, count: int, *, sealed: bool, delta: float | None
) -> BudgetExceeded:
    """The exception for a request that has no cost, with what it alone would cost.

    Args:
      account: before the request.
      prices: of one copy of the event.
      count: copies.
      sealed: as for `cost`.
      delta: as for `cost`.

    Returns:
      The exception, not raised.
    """
    asked_at = account.budget.delta if delta is None else delta
    try:
        asked = prices.bound(count, asked_at, "best" if sealed else "rdp").upper
    except ValueError:
        asked = None
    return BudgetExceeded(
        math.inf if asked is None else asked,
        above(account.spent()),
        account.budget,
        account.scope,
        _advice(account, prices, count, sealed, delta),
    )


def bound_of(account: Account, prices: Prices, count: int, cost: Cost) -> PrivacyBound:
    """The static bound of a request by itself, as it was counted.

    Args:
      account: the account that it entered, after it (its filter is open).
      prices: of one copy of the event.
      count: copies.
      cost: what `cost` answered.

    Returns:
      The bound.
    """
    if cost.how == "approx":
        return prices.bound(count, below(cost.delta))
    if account.filter is None:
        return prices.bound(count, 0.0)
    sums = [above(times(value, count)) for value in cost.values]
    return prices.answer(
        account.filter.delta, account.filter.spent(sums), f"{cost.how} filter"
    )


def _as_zcdp(account: Account, prices: Prices) -> Cost:
    """Counted as zCDP at the one order of the account's filter."""
    xi, rho = prices.zcdp()
    value = xi + rho * account.filter.orders[0] if account.filter else math.inf
    return Cost("zcdp", values=(at_least(_up(value)),))


def _as_pure(prices: Prices, count: int) -> Cost:
    """Counted as pure epsilon."""
    direct = prices.direct()
    if direct is None or direct[1] > ZERO:
        raise UnsupportedEvent("pure", prices.event, "filter='pure' needs delta=0")
    return Cost("pure", epsilon=times(direct[0], count))


def _as_plan(
    account: Account, prices: Prices, count: int, delta: float | None
) -> Cost | None:
    """One (epsilon, delta), beside the filter."""
    left = account.room()[1]
    share = left if delta is None else exact(delta)
    if not ZERO <= share <= left:
        return None
    bound = prices.bound(count, below(share))
    if not bound.certified or bound.upper is None:
        return None
    epsilon = at_least(bound.upper)
    direct = prices.direct()
    if direct is not None and times(direct[1], count) <= share:
        epsilon = min(epsilon, times(direct[0], count))
    return Cost("approx", epsilon=epsilon, delta=share)


def _as_charge(account: Account, prices: Prices, count: int) -> Cost | None:
    """Inside the open filter, else directly, else by opening the filter."""
    found = _inside(account, prices, count) or _directly(account, prices, count)
    if found is None and account.filter is None:
        epsilon, delta = account.room()
        if min(epsilon, delta) > ZERO:
            opened = adaptive_filter(below(epsilon), below(delta))
            found = _inside(replace(account, filter=opened), prices, count)
            found = found and replace(found, opens=filter_to_json(opened))
    if found is None and prices.direct() is None and prices.curve((2.0,)) is None:
        advice = "it has no Rényi curve; reserve it as a sealed plan: ledger.reserve"
        raise UnsupportedEvent("filter", prices.event, advice)
    return found


def _directly(account: Account, prices: Prices, count: int) -> Cost | None:
    """As the (epsilon, delta) that the event has by itself."""
    direct = prices.direct()
    if direct is None:
        return None
    epsilon, delta = (times(value, count) for value in direct)
    return _if_fits(account, count, Cost("approx", epsilon=epsilon, delta=delta))


def _inside(account: Account, prices: Prices, count: int) -> Cost | None:
    """By its Rényi curve in the open filter, where there is one and it fits."""
    values = prices.curve(account.filter.orders) if account.filter else None
    if values is None:
        return None
    found = Cost("renyi", values=tuple(at_least(_up(value)) for value in values))
    return _if_fits(account, count, found)


def _if_fits(account: Account, count: int, cost: Cost | None) -> Cost | None:
    """The cost, if the account still holds after it."""
    fits = cost is not None and account.after(cost, count, seq=0).holds()
    return cost if fits else None


def _advice(
    account: Account, prices: Prices, count: int, sealed: bool, delta: float | None
) -> str:
    """What would fit, or what to do."""
    epsilon, left = account.room()
    if account.rule == "approx" and epsilon <= ZERO and account.filter is None:
        return "nothing is left"
    if sealed and account.rule == "approx" and epsilon <= ZERO:
        return (
            "what is left is in the filter of earlier charges, where it doesn't fit: "
            "take fewer steps (ledger.remaining tells how many) or more noise"
        )
    if sealed and account.rule == "approx":
        if delta is not None and exact(delta) > left:
            return f"delta={delta:g} was asked for, delta={above(left):g} is left"
        if left <= ZERO < exact(account.budget.delta):
            return (
                "its delta is all taken: give earlier plans a share with delta=, or "
                "declare adaptive= when the ledger is created"
            )
        return (
            f"epsilon={above(epsilon):.6g} is left beside its filter: take fewer steps "
            "(ledger.remaining tells how many) or more noise"
        )
    fitting = largest_count(
        lambda n: cost(account, prices, n, sealed=False, delta=None) is not None, count
    )
    return f"{fitting} of count={count} would fit; else take more noise"


def largest_count(fits: Callable[[int], bool], limit: int, start: int = 1) -> int:
    """The largest n <= limit with fits(n), for a test that is true up to some n.

    Args:
      fits: the test.
      limit: no more than this is tried.
      start: a guess.

    Returns:
      n, or 0 if not even fits(1).

    Example:
      >>> largest_count(lambda n: n <= 44, 1000)
      44
    """
    low, high, step = 0, limit + 1, min(start, limit)
    while low < limit:
        if not fits(step):
            high = step
            break
        low, step = step, min(limit, step + max(1, step if start == 1 else step // 4))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _up(value: float) -> float:
    """A computed float, raised by more than its own rounding."""
    return math.nextafter(value * (1.0 + 2.0**-51), math.inf) if value else 0.0
