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

A refusal names what is the matter here, and a remedy only where it was tried.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any, Protocol

from dpkit.accountants.answers.bounds import PrivacyBound
from dpkit.accountants.answers.errors import BudgetExceeded, UnsupportedEvent
from dpkit.accountants.rules.account import Account
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

_AS_PLAN = "as a sealed plan it fits: ledger.reserve"
_UNCOUNTABLE = {
    "approx": "a charge is counted by its Rényi curve or its own (epsilon, delta), and "
    "it has neither",
    "pure": "filter='pure' counts releases with delta=0, and it has no such bound",
    "zcdp": "filter='zcdp' counts concentrated and pure releases, and it is neither",
}


class Prices(Protocol):
    """What one event costs: all that the rules know of accountants and events.

    Answers are remembered: under the lock of a ledger the same questions cost nothing.
    """

    @property
    def event(self) -> object:
        """The event, for messages."""

    def quick(self) -> Prices:
        """The same, with bounds that are found sooner and may be higher."""

    def bound(self, count: int, delta: float) -> PrivacyBound:
        """The static bound for `count` copies; raises UnsupportedEvent."""

    def direct(self) -> tuple[Decimal, Decimal] | None:
        """(epsilon, delta) of one copy by itself, or None where there is none."""

    def curve(self, orders: tuple[float, ...]) -> tuple[float, ...] | None:
        """Rényi bounds of one copy, or None where there are none."""

    def zcdp(self) -> tuple[float, float] | None:
        """(xi, rho) of one copy, or None where it is not concentrated."""

    def answer(self, delta: float, upper: float, method: str) -> PrivacyBound:
        """A certified bound with the relation and unit of these prices."""


def costs(
    accounts: Sequence[Account],
    prices: Prices,
    count: int,
    *,
    sealed: bool,
    delta: float | None,
) -> dict[str, Cost]:
    """How a request enters every account that it touches.

    Args:
      accounts: before the request.
      prices: of one copy of the event.
      count: copies.
      sealed: whether it is a plan whose parameters are all fixed.
      delta: the plan's share of delta; None takes all that is left.

    Returns:
      The costs by scope, after which every account still holds.

    Raises:
      BudgetExceeded: an account would not hold.
      UnsupportedEvent: the filter has no proof for the event, whatever the budget.
    """
    found = {}
    for account in accounts:
        try:
            entered = cost(account, prices, count, sealed=sealed, delta=delta)
        except UnsupportedEvent as error:
            if sealed or not _fits(accounts, prices, count, sealed=True, delta=None):
                raise
            reason = f"{error.reason}; {_AS_PLAN}"
            raise UnsupportedEvent("ledger", prices.event, reason) from None
        if entered is None:
            raise _refusal(accounts, account, prices, count, sealed=sealed, delta=delta)
        found[account.scope] = entered
    return found


def cost(
    account: Account, prices: Prices, count: int, *, sealed: bool, delta: float | None
) -> Cost | None:
    """How a request enters one account: the cost, after which it still holds, or None.

    Arguments and errors are those of `costs`.
    """
    refuse_uncountable(account.rule, prices, sealed=sealed)
    if account.rule == "zcdp":
        return _if_fits(account, count, _as_zcdp(account, prices))
    if account.rule == "pure":
        return _directly(account, prices, count, "pure")
    if sealed:
        plan = _if_fits(account, count, _as_plan(account, prices, count, delta))
        if plan is not None and plan.epsilon.is_finite():
            return plan
        return _inside(account, prices, count) or plan
    return _as_charge(account, prices, count)


def refuse_uncountable(rule: str, prices: Prices, *, sealed: bool) -> None:
    """Raise UnsupportedEvent for what a filter can't count, whatever the budget."""
    if rule == "zcdp":
        countable = prices.zcdp() is not None
    elif rule == "pure":
        direct = prices.direct()
        countable = direct is not None and direct[1] == ZERO
    elif sealed:
        return  # the accountants say what they can't read
    else:
        countable = prices.direct() is not None or prices.curve((2.0,)) is not None
    if not countable:
        raise UnsupportedEvent("ledger", prices.event, _UNCOUNTABLE[rule])


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
    xi, rho = prices.zcdp() or (math.inf, math.inf)
    value = xi + rho * account.filter.orders[0] if account.filter else math.inf
    return Cost("zcdp", values=(at_least(_up(value)),))


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
    epsilon, delta = account.room()
    if found is None and account.filter is None and min(epsilon, delta) > ZERO:
        opened = adaptive_filter(below(epsilon), below(delta))
        found = _inside(replace(account, filter=opened), prices, count)
        found = found and replace(found, opens=opened.to_json())
    return found


def _directly(
    account: Account, prices: Prices, count: int, how: str = "approx"
) -> Cost | None:
    """As the (epsilon, delta) that the event has by itself."""
    direct = prices.direct()
    if direct is None:
        return None
    epsilon, delta = (times(value, count) for value in direct)
    return _if_fits(account, count, Cost(how, epsilon=epsilon, delta=delta))


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


def _fits(accounts: Sequence[Account], prices: Prices, count: int, **how: Any) -> bool:
    """Whether a request would enter every account."""
    try:
        return all(cost(a, prices, count, **how) is not None for a in accounts)
    except ValueError:
        return False


def _refusal(
    accounts: Sequence[Account],
    account: Account,
    prices: Prices,
    count: int,
    *,
    sealed: bool,
    delta: float | None,
) -> BudgetExceeded:
    """The exception for a request that doesn't fit one account."""
    quick = prices.quick() if sealed else prices
    advice = _cause(account, sealed, delta)
    fitting = largest_count(
        lambda n: _fits(accounts, quick, n, sealed=sealed, delta=delta), count
    )
    if fitting:
        where = "in one sealed plan, " if sealed else ""
        advice += f"; {where}{fitting} of count={count} would fit"
    elif not sealed and _fits(accounts, prices, count, sealed=True, delta=None):
        advice += f"; {_AS_PLAN}"
    share = account.budget.delta if delta is None else delta
    try:
        asked = (prices if sealed else prices.quick()).bound(count, share).upper
    except ValueError:
        asked = None
    return BudgetExceeded(
        math.inf if asked is None else asked,
        above(account.spent()),
        account.budget,
        account.scope,
        advice,
    )


def _cause(account: Account, sealed: bool, delta: float | None) -> str:
    """What is left for such a request in an account where it doesn't fit."""
    epsilon, left = account.room()
    if account.filter and (epsilon <= ZERO or not sealed):
        return "what is left is in the filter for charges, which has no room for it"
    if epsilon <= ZERO:
        return "nothing is left"
    if sealed and delta is not None and exact(delta) > left:
        return f"delta={delta:g} was asked for, delta={above(left):g} is left"
    if sealed and left <= ZERO < exact(account.budget.delta):
        return "its delta is all taken: a plan without delta= takes all that is left"
    return f"epsilon={above(epsilon):.6g}, delta={above(left):.6g} is left for it"


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
