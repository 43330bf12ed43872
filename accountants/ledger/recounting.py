"""Whether what an entry was charged can be true: its form, then its numbers anew."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from dpkit.accountants.answers.exact import ZERO, Number, below, exact, plus, times
from dpkit.accountants.ledger.pricing import bound_from_json
from dpkit.accountants.rules.counting import Asked, bound_of, opening
from dpkit.accountants.rules.filters import RenyiFilter
from dpkit.accountants.rules.totals import Account, Cost

# What another machine, or a later version, may find a number to be less.
_SLACK = 1e-6
_NEAR = 1.25  # orders of a filter, less 1: three in its grid


def check_form(account: Account, cost: Cost) -> None:
    """Refuse a cost that the rules of an account, as it was before, never enter.

    Raises:
      ValueError: counted otherwise than the ledger's filter counts.
    """
    filter, shared = account.filter, False
    if cost.opens:
        filter = RenyiFilter.from_json(cost.opens)
        shared = filter.shared
        if account.filter is not None or account.rule not in ("auto", "approx"):
            raise ValueError("opens a filter where one is open, or none may be")
        if shared and not (account.rule == "auto" and account.undecided):
            raise ValueError("opens a filter for a ledger that was charged before")
    if account.rule in ("pure", "zcdp"):
        allowed = [account.rule]
    elif filter is not None and filter.shared:
        allowed = ["renyi"]
    else:
        allowed = ["approx", "renyi"] if filter is not None else ["approx"]
    orders = 0
    if filter is not None and cost.how in ("renyi", "zcdp"):
        orders = len(filter.orders)
    if cost.how not in allowed or len(cost.values) != orders:
        raise ValueError(f"counted as {cost.how!r}, as the ledger's filter never does")
    if cost.values and cost.epsilon:
        raise ValueError("counted twice")
    if min(cost.epsilon, cost.delta, cost.missed, *cost.values) < ZERO:
        raise ValueError("costs less than nothing")


def check_numbers(
    account: Account, asked: Asked, cost: Cost, body: Mapping[str, Any]
) -> None:
    """Refuse numbers below what the accountants say now, but for rounding.

    Args:
      account: as it was before.
      asked: what was asked, by prices of now.
      cost: what it was charged there.
      body: of the entry.

    Raises:
      ValueError: something costs less than is certified.
    """
    if cost.opens and RenyiFilter.from_json(cost.opens).shared:
        _check_opening(account, asked, RenyiFilter.from_json(cost.opens))
    pairs = list(_pairs(account.after(cost, asked.count, seq=0), asked, cost))
    if "bound" in body:
        told = bound_from_json(body["bound"])
        anew = bound_of(account, asked, cost)
        pairs += [(_upper(told.upper), _upper(anew.upper))]
        pairs += [(exact(told.delta), exact(anew.delta))]
        if told.certified and not anew.certified:
            raise ValueError("certified where nothing is")
    if any(charged < _less(least) for charged, least in pairs):
        raise ValueError(f"costs less in {account.scope!r} than is possible")


def _pairs(
    account: Account, asked: Asked, cost: Cost
) -> Iterator[tuple[Number, Number]]:
    """Each number of a cost beside what it is now."""
    prices, count, filter = asked.prices, asked.count, account.filter
    values: tuple[Number, ...] | None = ()
    epsilon = delta = missed = ZERO
    if cost.how == "zcdp":
        xi, rho = prices.zcdp() or (math.inf, math.inf)
        values = (exact(xi + rho * filter.orders[0]),) if filter else None
    elif filter is not None and filter.shared:
        one = prices.shared(filter.orders)
        values = one.values if one else None
        lost = (one.lost, one.missed) if one else (math.inf, math.inf)
        delta, missed = (times(number, count) for number in lost)
    elif cost.how == "renyi":
        found = prices.curve(filter.orders) if filter else None
        values = found and tuple(map(exact, found))
    elif asked.sealed:
        epsilon = _upper(prices.bound(count, below(cost.delta)).upper)
    else:
        direct = prices.direct() or (math.inf, math.inf)
        epsilon, delta = (times(number, count) for number in direct)
    yield from [(cost.delta, delta), (cost.missed, missed)]
    yield plus(cost.epsilon, ZERO), epsilon  # sums beyond all floats are infinite
    yield from zip(cost.values, values or (math.inf,) * len(cost.values), strict=True)


def _check_opening(account: Account, asked: Asked, opened: RenyiFilter) -> None:
    """Refuse a filter for a whole ledger that its first charge did not choose.

    Any orders are as valid, so a small difference is none; nor is it one if the charge
    would open no filter now.
    """
    anew = opening(account.budget, asked)
    if anew is None:
        return
    near = len(anew.orders) == len(opened.orders) and all(
        a == b or max(a - 1, b - 1) <= _NEAR * min(a - 1, b - 1)
        for a, b in zip(anew.orders, opened.orders, strict=True)
    )
    names = ("epsilon", "delta", "shares", "approximate", "coupled")
    if not near or any(getattr(anew, n) != getattr(opened, n) for n in names):
        raise ValueError("opens another filter than its first charge chooses")


def _upper(epsilon: float | None) -> Number:
    """An upper bound; what is none is infinite."""
    return math.inf if epsilon is None else exact(epsilon)


def _less(number: Number) -> Number:
    """The number, less what may be rounding."""
    return number * (1 - exact(_SLACK)) if number < math.inf else number
