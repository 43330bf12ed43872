"""Whether a charge enters every account that it touches, and what to say if not.

A refusal names what is the matter here, and a remedy only where it was tried.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from dpkit.accountants.answers.errors import BudgetExceeded, UnsupportedEvent
from dpkit.accountants.answers.exact import ZERO, above, below, exact, times
from dpkit.accountants.rules.counting import Asked, cost, if_fits, largest_count
from dpkit.accountants.rules.filters import RenyiFilter
from dpkit.accountants.rules.totals import Account, Cost

_AS_PLAN = "as a sealed plan it fits: ledger.reserve"
_MOST_NOISE = 20_000  # a thousand times


def costs(accounts: Sequence[Account], asked: Asked) -> dict[str, Cost]:
    """How a request enters all accounts that it touches, by scope; each then holds.

    Raises:
      BudgetExceeded: an account would not hold.
      UnsupportedEvent: the filter has no proof for the event, whatever the budget.
    """
    found = {}
    for account in accounts:
        try:
            entered = cost(account, asked)
        except UnsupportedEvent as error:
            if asked.sealed or not _fits(accounts, asked.as_plan()):
                raise
            reason = f"{error.reason}; {_AS_PLAN}"
            raise UnsupportedEvent("ledger", asked.prices.event, reason) from None
        if entered is None:
            raise _refusal(accounts, account, asked)
        found[account.scope] = entered
    return found


def _fits(accounts: Sequence[Account], asked: Asked) -> bool:
    """Whether a request would enter every account."""
    try:
        return all(cost(account, asked) is not None for account in accounts)
    except ValueError:
        return False


def _refusal(
    accounts: Sequence[Account], account: Account, asked: Asked
) -> BudgetExceeded:
    """The exception for a request that doesn't fit one account."""
    prices, count, sealed, delta = asked[:4]
    advice = _cause(account, asked)
    whole = asked.runs or count
    where = "in one sealed plan, " if sealed and not _shares(account) else ""
    fitting = largest_count(
        lambda n: _fits(accounts, asked.first(n, quick=sealed)), whole
    )
    if fitting and asked.runs:
        fitting = largest_count(
            lambda n: _fits(accounts, asked.first(n)), whole, fitting
        )
        advice += f"; the first {fitting} of its {whole} runs would fit"
    elif fitting:
        least = "at least " if where else ""
        advice += f"; {where}{least}{fitting} of count={count} would fit"
    elif not sealed and _fits(accounts, asked.as_plan()):
        advice += f"; {_AS_PLAN}"
    elif words := _noise(accounts, asked):
        advice += f"; {where}with {words} it would fit"
    elif all(_fits_uncut(each, asked) for each in accounts):
        advice += "; with a larger max_batch_size it would fit"
    share = account.budget.delta if delta is None else float(delta)
    try:
        upper = (prices if sealed else prices.quick()).bound(count, share).upper
    except ValueError:
        upper = None
    asks = math.inf if upper is None else upper
    spent = above(account.spent())
    return BudgetExceeded(asks, spent, account.budget, account.scope, advice)


def _noise(accounts: Sequence[Account], asked: Asked) -> str | None:
    """The least noise with which a request would fit, in words; None: none would do."""

    def fits(step: int) -> bool:
        found = asked.prices.noisier(1.0 + step / 20)
        if found is None:
            return False
        prices = found[0].quick() if asked.sealed else found[0]
        return _fits(accounts, asked._replace(prices=prices))

    if asked.runs or not fits(_MOST_NOISE):
        return None
    step = largest_count(lambda n: not fits(n), _MOST_NOISE) + 1
    found = asked.prices.noisier(1.0 + step / 20)
    return found and found[1]


def _fits_uncut(account: Account, asked: Asked) -> bool:
    """Whether a filter for a whole ledger had room, if no batch could overflow."""
    if account.filter is None or not account.filter.shared:
        return False
    one = asked.prices.shared(account.filter.orders)
    if one is None:
        return False
    whole = Cost("renyi", delta=times(one.lost, asked.count), values=one.values)
    return bool(one.missed) and if_fits(account, asked, whole) is not None


def _shares(account: Account) -> bool:
    """Whether one Rényi filter counts all of the account."""
    return account.filter is not None and account.filter.shared


def _cause(account: Account, asked: Asked) -> str:
    """Why a request doesn't fit an account."""
    epsilon, left = account.room()
    delta, direct = asked.delta, asked.prices.direct()
    if account.filter and account.filter.shared:
        return _shared_cause(account, account.filter, asked)
    if account.filter and epsilon <= ZERO:
        return "what is left is in the filter for charges, which has no room for it"
    if account.filter and not asked.sealed:
        return "the filter for charges has no room for it"
    if epsilon <= ZERO:
        return "nothing is left"
    if asked.sealed and delta is not None and delta > left:
        return f"delta={float(delta):g} was asked for, delta={above(left):g} is left"
    if left <= ZERO and (direct is None or direct[1] > ZERO):
        if account.budget.delta > 0.0:
            return (
                "its delta is all taken: a plan without delta= takes all that is left"
            )
        return "the budget has no delta, and without one its epsilon is infinite"
    return f"epsilon={above(epsilon):.6g}, delta={above(left):.6g} is left for it"


def _shared_cause(account: Account, filter: RenyiFilter, asked: Asked) -> str:
    """Which part of a filter for a whole ledger a request doesn't fit."""
    one = asked.prices.shared(filter.orders)
    if one is None:
        return "the ledger counts by Rényi curves, and it has none"
    lost = account.totals.delta + times(one.lost, asked.count)
    if not filter.covers(lost, ZERO):
        part = exact(filter.approximate) - account.totals.delta
        return (
            "the ledger counts by Rényi curves, with a part of delta for releases that "
            f"have one: delta={below(part):g} is left of that"
        )
    if filter.covers(lost, account.totals.missed + times(one.missed, asked.count)):
        return "the ledger counts by Rényi curves, in which too little is left for it"
    return (
        "the ledger counts by Rényi curves, and its batches overflow too often for the "
        "part of delta that is left for that"
    )
