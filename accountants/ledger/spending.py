"""What a ledger has spent, and how much more of an event would fit."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.bounds import PrivacyBound
from dpkit.accountants.answers.exact import (
    ZERO,
    Number,
    above,
    at_least,
    below,
    exact,
    plus,
)
from dpkit.accountants.events.notation import from_json
from dpkit.accountants.ledger.book import Book
from dpkit.accountants.ledger.pricing import bound_from_json
from dpkit.accountants.ledger.request import Request
from dpkit.accountants.ledger.state import CHARGES, costs, given_back, state_of
from dpkit.accountants.rules.counting import Prices, cost, largest_count
from dpkit.accountants.rules.terms import ALL
from dpkit.accountants.rules.totals import Account, Totals
from dpkit.accountants.storage.entry import Entry
from dpkit.accountants.storage.store import Session

MOST = 10**9


def spent(book: Book, delta: float | None, scope: str) -> PrivacyBound:
    """`Ledger.spent`."""
    with book.store.reading() as session:
        state = state_of(session.head())
        # The scope's own account is the last of those that a charge on it touches.
        names = ALL if scope == ALL else (checks.text(scope=scope),)
        account = book.accounts(session, state, names)[0 if scope == ALL else -1]
        sole = account.totals.sole
        only = session.get(sole) if sole is not None else None
    at = whole = account.budget.delta
    if delta is not None:
        at = checks.half_open_probability(delta=delta)
    # Every part of delta is scaled by this, whatever came out: what holds at a part
    # that follows the outputs is not the sum of what holds at each.
    scale = exact(1) if at >= whole else exact(at) / exact(whole)
    if only is not None and only.kind in ("plan", "reserve"):
        plan = _sole_plan(book, account, only, at, scale)
        if plan is not None:
            return plan
    return _answer(book, account, at, _report(book, account, scale))


def charged(book: Book, key: str) -> PrivacyBound | None:
    """`Ledger.charged`."""
    with book.store.reading() as session:
        account = book.accounts(session, state_of(session.head()), ALL)[0]
        live = _live(session)
    seqs = {
        # What a sealed plan has paid for costs as much as the plan.
        seq if entry.body["plan"] is None else entry.body["plan"]
        for seq, entry in live.items()
        if str(entry.body.get("key")).partition("/")[0] == key
    }
    found = [live[seq] for seq in sorted(seqs)]
    if not found:
        return None
    if len(found) == 1 and "bound" in found[0].body:
        return bound_from_json(found[0].body["bound"])
    totals = Totals()
    for entry in found:
        cost = costs(entry.body)[ALL]
        totals = totals.plus(cost, entry.body["count"], seq=entry.seq)
    delta = totals.delta
    if len(found) > 1 or totals.renyi:
        # Of several, what they took of delta may follow what came out.
        delta = exact(account.budget.delta)
    upper = above(replace(account, totals=totals).spent())
    return _answer(book, account, above(delta), upper)


def parts(book: Book) -> dict[int, float]:
    """`Ledger.parts`."""
    with book.store.reading() as session:
        account = book.accounts(session, state_of(session.head()), ALL)[0]
        live = _live(session)
        commits = [entry for entry in session.all() if entry.kind == "commit"]
        unused = {
            commit.body["ref"]: given_back(
                live[commit.body["ref"]],
                [e for e in session.about(commit.body["ref"]) if e.seq < commit.seq],
                commit.body["ran"],
            )
            for commit in commits
        }
    sums = [above(value) for value in account.totals.renyi]
    whole, held, order = account.spent(), ZERO, 0
    if account.filter is not None and any(sums):
        reports = account.filter.reports(sums)
        order, held = reports.index(min(reports)), whole - account.totals.epsilon
    if not 0 < whole < math.inf:
        return {}
    found = {}
    for seq, entry in live.items():
        cost = costs(entry.body)[ALL]
        taken = cost.epsilon
        if cost.values and held and account.totals.renyi[order]:
            count = entry.body["count"] - unused.get(seq, 0)
            taken += held * cost.values[order] * count / account.totals.renyi[order]
        found[seq] = float(taken / whole)
    return found


def remaining(book: Book, wanted: Request, sealed: bool) -> int:
    """`Ledger.remaining`: the largest count of what is wanted, as one plan or not."""
    with book.store.reading() as session:
        state = state_of(session.head())
        accounts = book.accounts(session, state, wanted.scope)
    if state.closed or (book.terms.regime == "static" and state.plan is not None):
        return 0
    asked = wanted.asked._replace(sealed=sealed)

    def fits(count: int, prices: Prices = asked.prices) -> bool:
        each = asked._replace(count=count, prices=prices)
        return all(cost(account, each) is not None for account in accounts)

    start = 1
    if sealed:
        quick = asked.prices.quick()
        start = max(1, largest_count(lambda n: fits(n, quick), MOST))
    return largest_count(fits, MOST, start)


def _sole_plan(
    book: Book, account: Account, entry: Entry, delta: float, scale: Number
) -> PrivacyBound | None:
    """The static bound of the one plan there is, at what it takes of delta for ever.

    In a filter it takes no such part: a plan alone would be reported at all of delta,
    and what follows it on other outputs once more.
    """
    cost = costs(entry.body)[account.scope]
    if cost.how != "approx":
        return None
    prices = book.prices(from_json(entry.body["event"]))
    if scale == 1 and "bound" in entry.body:
        bound = bound_from_json(entry.body["bound"])
        if exact(bound.delta) == cost.delta:
            return _at(bound, delta)
    return _at(prices.bound(entry.body["count"], below(scale * cost.delta)), delta)


def _answer(book: Book, account: Account, delta: float, upper: float) -> PrivacyBound:
    """The filter's bound on charges that were chosen along the way."""
    terms, rule = book.terms, account.rule
    if rule == "auto":
        shared = account.filter is not None and account.filter.shared
        rule = "renyi" if shared else "approx"
    method = f"ledger, filter {rule}"
    how: Any = {"relation": terms.relation, "unit": terms.unit, "regime": "adaptive"}
    how |= {"certified": True, "method_upper": method}
    return PrivacyBound(delta=delta, upper=upper, **how)


def _at(bound: PrivacyBound, delta: float) -> PrivacyBound:
    """A bound as one at a larger delta: the upper side alone carries over."""
    if bound.delta == delta:
        return bound
    lost: Any = dict.fromkeys(("lower", "estimate", "method_lower", "method_estimate"))
    return replace(bound, delta=delta, **lost)


def _report(book: Book, account: Account, scale: Number) -> float:
    """Epsilon of everything charged, at the budget's delta or a part of it."""
    if scale == 1 or account.totals.charges == 0:
        return above(account.spent())
    sums = [above(value) for value in account.totals.renyi]
    total = ZERO
    if account.filter is not None and account.filter.shared:
        beside = account.totals.delta, account.totals.missed
        return account.filter.spent_at(scale, sums, *beside)
    if account.filter is not None:
        total = at_least(account.filter.spent(sums, scale=below(scale)))
    with book.store.reading() as session:
        live = _live(session).values()
    for entry in live:
        found = costs(entry.body).get(account.scope)
        if found is None or found.values:
            continue
        epsilon = found.epsilon
        if found.delta > ZERO:
            prices = book.prices(from_json(entry.body["event"]))
            bound = prices.bound(entry.body["count"], below(found.delta * scale))
            upper = bound.upper if bound.certified else None
            epsilon = at_least(math.inf if upper is None else upper)
        total = plus(total, epsilon)
    return above(total)


def _live(session: Session) -> dict[int, Entry]:
    """Charges that were not aborted, by seq; a plan's items cost nothing more."""
    entries = list(session.all())
    aborted = {entry.body["ref"] for entry in entries if entry.kind == "abort"}
    charges = [entry for entry in entries if entry.kind in CHARGES]
    return {entry.seq: entry for entry in charges if entry.seq not in aborted}
