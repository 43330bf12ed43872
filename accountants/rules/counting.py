"""How a ledger counts one charge: the rules of each filter, for one account.

An account is what one scope of data may lose: its budget, its totals, its open filter.
`cost` decides how a request enters it (filters.py has the proofs):

- filter "auto": the first charge decides. If it fits by its Rényi curve, more often
  than by adding up epsilons, all of the budget is one Rényi filter, which everything
  enters that has a curve, or an (epsilon, delta), or a batch that can overflow. Else as
  "approx".
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
from typing import NamedTuple, Protocol

from dpkit.accountants.answers.bounds import Budget, PrivacyBound
from dpkit.accountants.answers.errors import UnsupportedEvent
from dpkit.accountants.answers.exact import (
    ZERO,
    Number,
    above,
    at_least,
    below,
    times,
)
from dpkit.accountants.rules.filters import (
    RenyiFilter,
    adaptive_filter,
    shared_filter,
)
from dpkit.accountants.rules.totals import Account, Cost

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

    def direct(self) -> tuple[Number, Number] | None:
        """(epsilon, delta) of one copy by itself, or None where there is none."""

    def curve(self, orders: tuple[float, ...]) -> tuple[float, ...] | None:
        """Rényi bounds of one copy, or None where there are none."""

    def shared(self, orders: tuple[float, ...]) -> SharedCost | None:
        """What one copy costs a filter for a whole ledger, or None: it can't enter."""

    def zcdp(self) -> tuple[float, float] | None:
        """(xi, rho) of one copy, or None where it is not concentrated."""

    def noisier(self, factor: float) -> tuple[Prices, str] | None:
        """With so much more noise: the prices, and it in words; None: it has no one."""

    def answer(self, delta: float, upper: float, method: str) -> PrivacyBound:
        """A certified bound with the relation and unit of these prices."""


class SharedCost(NamedTuple):
    """One copy in a filter for a whole ledger.

    Fields: values (Rényi bounds, one for each order), lost (its delta), missed (the
    probability that its batch overflows).
    """

    values: tuple[Number, ...]
    lost: Number
    missed: Number


class Asked(NamedTuple):
    """What is to be counted: copies of an event, by its prices.

    Fields: prices (of one copy), count, sealed (whether it is a plan whose parameters
    are all fixed), delta (the plan's share; None takes all that is left), runs (how
    many a sealed sweep has, else 0), shorter (the prices of its first runs).
    """

    prices: Prices
    count: int
    sealed: bool
    delta: Number | None
    runs: int = 0
    shorter: Callable[[int], Prices] | None = None

    def as_plan(self) -> Asked:
        """The same as a sealed plan that takes what is left."""
        return self._replace(sealed=True, delta=None)

    def first(self, n: int, *, quick: bool = False) -> Asked:
        """The first n of its copies, or of its runs."""
        prices, count = (self.shorter(n), 1) if self.shorter else (self.prices, n)
        return self._replace(prices=prices.quick() if quick else prices, count=count)


def cost(account: Account, asked: Asked) -> Cost | None:
    """How a request enters one account, which then holds; None if it would not.

    Raises:
      UnsupportedEvent: as `costs`.
    """
    refuse_uncountable(account.rule, asked.prices, sealed=asked.sealed)
    if account.rule == "zcdp":
        return if_fits(account, asked, _as_zcdp(account, asked.prices))
    if account.rule == "pure":
        return _directly(account, asked, "pure")
    if account.filter is not None and account.filter.shared:
        return _shared(account, asked)
    if asked.prices.direct() == (ZERO, ZERO):
        return Cost("approx")  # nothing, which decides nothing
    if account.rule == "auto" and account.undecided:
        opened = opening(account.budget, asked)
        if opened is not None:
            found = _shared(replace(account, filter=opened), asked)
            if found is not None:
                return replace(found, opens=opened.to_json())
    if asked.sealed:
        plan = if_fits(account, asked, _as_plan(account, asked))
        if plan is not None and plan.epsilon < math.inf:
            return plan
        return _inside(account, asked) or plan
    # Inside the open filter, else directly, else by opening the filter.
    found = _inside(account, asked) or _directly(account, asked)
    epsilon, delta = account.room()
    if found is None and account.filter is None and min(epsilon, delta) > ZERO:
        opened = adaptive_filter(below(epsilon), below(delta))
        found = _inside(replace(account, filter=opened), asked)
        found = found and replace(found, opens=opened.to_json())
    return found


def refuse_uncountable(rule: str, prices: Prices, *, sealed: bool) -> None:
    """Raise UnsupportedEvent for what a filter can't count, whatever the budget."""
    if rule == "zcdp":
        countable = prices.zcdp() is not None
    elif rule == "pure":
        direct = prices.direct()
        countable = direct is not None and direct[1] == ZERO
    elif sealed or rule == "auto":
        return  # the accountants say what they can't read
    else:
        countable = prices.direct() is not None or prices.curve((2.0,)) is not None
    if not countable:
        raise UnsupportedEvent("ledger", prices.event, _UNCOUNTABLE[rule])


def bound_of(account: Account, asked: Asked, cost: Cost) -> PrivacyBound:
    """The static bound of a request by itself, as it was counted in the account."""
    prices, count = asked.prices, asked.count
    if cost.how == "approx":
        return prices.bound(count, below(cost.delta))
    filter = account.after(cost, count, seq=0).filter
    if filter is None:
        return prices.bound(count, 0.0)
    if filter.shared:
        share = account.budget.delta if asked.delta is None else below(asked.delta)
        return prices.bound(count, share)
    sums = [above(times(value, count)) for value in cost.values]
    return prices.answer(filter.delta, filter.spent(sums), f"{cost.how} filter")


def opening(budget: Budget, asked: Asked) -> RenyiFilter | None:
    """The filter for all of a budget that a first charge chooses, if it chooses one."""

    def curve(orders: tuple[float, ...]) -> list[float] | None:
        found = asked.prices.shared(orders)
        return None if found is None else [above(asked.count * v) for v in found.values]

    return shared_filter(budget, curve)


def _shared(account: Account, asked: Asked) -> Cost | None:
    """In the filter that counts the whole ledger, if it fits."""
    orders = account.filter.orders if account.filter else ()
    one = asked.prices.shared(orders)
    if one is None:
        raise UnsupportedEvent("ledger", asked.prices.event, _UNCOUNTABLE["approx"])
    lost, missed = (times(n, asked.count) for n in (one.lost, one.missed))
    found = Cost("renyi", delta=lost, values=one.values, missed=missed)
    return if_fits(account, asked, found)


def _as_zcdp(account: Account, prices: Prices) -> Cost:
    """Counted as zCDP at the one order of the account's filter."""
    xi, rho = prices.zcdp() or (math.inf, math.inf)
    value = xi + rho * account.filter.orders[0] if account.filter else math.inf
    return Cost("zcdp", values=(at_least(raised(value)),))


def _as_plan(account: Account, asked: Asked) -> Cost | None:
    """One (epsilon, delta), beside the filter."""
    left = account.room()[1]
    share = left if asked.delta is None else asked.delta
    if not ZERO <= share <= left:
        return None
    bound = asked.prices.bound(asked.count, below(share))
    if not bound.certified or bound.upper is None:
        return None
    epsilon = at_least(bound.upper)
    direct = asked.prices.direct()
    if direct is not None and times(direct[1], asked.count) <= share:
        epsilon = min(epsilon, times(direct[0], asked.count))
    return Cost("approx", epsilon=epsilon, delta=share)


def _directly(account: Account, asked: Asked, how: str = "approx") -> Cost | None:
    """As the (epsilon, delta) that the event has by itself."""
    direct = asked.prices.direct()
    if direct is None:
        return None
    epsilon, delta = (times(value, asked.count) for value in direct)
    return if_fits(account, asked, Cost(how, epsilon=epsilon, delta=delta))


def _inside(account: Account, asked: Asked) -> Cost | None:
    """By its Rényi curve in the open filter, where there is one and it fits."""
    values = asked.prices.curve(account.filter.orders) if account.filter else None
    if values is None:
        return None
    found = Cost("renyi", values=tuple(at_least(raised(value)) for value in values))
    return if_fits(account, asked, found)


def if_fits(account: Account, asked: Asked, cost: Cost | None) -> Cost | None:
    """The cost, if the account still holds after it."""
    fits = cost is not None and account.after(cost, asked.count, seq=0).holds()
    return cost if fits else None


def largest_count(fits: Callable[[int], bool], limit: int, start: int = 1) -> int:
    """The largest n <= limit with fits(n), 0 if there is none; `start` is a guess.

    `fits` must be true up to some number, and false from there on.

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


def raised(value: float) -> float:
    """A computed float, raised by more than its own rounding."""
    return math.nextafter(value * (1.0 + 2.0**-51), math.inf) if value else 0.0
