"""Proof-reading a ledger: pages, chain, form of each entry, and every total again."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from dp_accounting import DpEvent

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.errors import LedgerCorrupt
from dpkit.accountants.answers.exact import (
    ZERO,
    Number,
    above,
    at_least,
    exact,
    times,
)
from dpkit.accountants.events.notation import from_json, to_json
from dpkit.accountants.ledger.book import terms_of
from dpkit.accountants.ledger.pricing import EventPrices
from dpkit.accountants.ledger.request import flat, together
from dpkit.accountants.ledger.state import CHARGES, State, after, costs
from dpkit.accountants.rules.terms import ALL
from dpkit.accountants.rules.totals import Cost
from dpkit.accountants.storage.entry import Entry, canonical, check_link
from dpkit.accountants.storage.store import Session

PricesOf = Callable[[DpEvent], EventPrices]

_SLACK = 1e-6
# An infinity that is subtracted, or no denominator, is an ArithmeticError.
_MALFORMED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)


def verify(session: Session, prices: PricesOf | None = None) -> None:
    """Check a whole ledger; with `prices`, also whether entered numbers can be true.

    Raises:
      LedgerCorrupt: naming the first entry that is not as it was written.
    """
    complaint = session.integrity()
    if complaint != "ok":
        raise LedgerCorrupt(f"the file is damaged: {complaint}")
    before: Entry | None = None
    reader = _Reader(session, prices)
    for entry in session.all():
        check_link(before, entry)
        reader.read(entry)
        before = entry
    if before is None or session.head().seq != before.seq:
        raise LedgerCorrupt("the ledger has no entries, or its head is missing")
    meta = session.meta()
    if meta.keys() != {"schema", "ledger", "head"} or meta["ledger"] != before.ledger:
        raise LedgerCorrupt("the table meta was edited")


class _Reader:
    """Replays entries one by one, from nothing."""

    def __init__(self, session: Session, prices: PricesOf | None):
        self._session = session
        self._terms = terms_of(session.get(0))
        self._prices = prices
        self._state = State()
        self._filters: dict[str, Any] = {}

    def read(self, entry: Entry) -> None:
        """Checks the form of one entry, the state that it carries, and the budgets."""
        if entry.kind == "genesis":
            self._filters = dict(entry.body.get("opens", {}))
            return
        before, kind, body = self._state, entry.kind, entry.body
        try:
            charged, earlier = self._about(entry)
            if kind in CHARGES:
                self._check_charge(entry)
            state = self._state = after(before, kind, entry.seq, body, charged, earlier)
            found = canonical(state.to_json()) == canonical(body["after"])
            State.from_json(body["after"])
        except _MALFORMED as error:
            raise LedgerCorrupt(
                f"entry seq={entry.seq}: malformed ({error!r})"
            ) from None
        if not found:
            raise LedgerCorrupt(f"entry seq={entry.seq}: its totals are not the sum")
        for scope in costs(body) if kind in CHARGES else ():
            opened = self._filters.get(scope)
            if not self._terms.account(scope, state.of(scope), opened).holds():
                raise LedgerCorrupt(f"entry seq={entry.seq}: over budget in {scope!r}")

    def _about(self, entry: Entry) -> tuple[Entry | None, list[Entry]]:
        """The reservation that an entry is about, checked, and what came between."""
        if entry.kind not in ("resume", "commit", "checkpoint", "abort"):
            return None, []
        charged = self._session.get(entry.body["ref"])
        about = self._session.about(charged.seq)
        earlier = [other for other in about if other.seq < entry.seq]
        kinds = {other.kind for other in earlier}
        if charged.kind != "reserve" or charged.seq >= entry.seq:
            raise ValueError("is about no reservation")
        if kinds & {"commit", "abort"}:
            raise ValueError("is about a reservation that was settled")
        if entry.kind == "abort" and "resume" in kinds:
            raise ValueError("takes back what another holder may have released")
        steps = entry.body.get("ran", entry.body.get("step", 0))
        if not 0 <= checks.integer_at_least(0, steps=steps) <= charged.body["count"]:
            raise ValueError("more steps than were reserved")
        if "run" in entry.body:
            flat(charged.body["runs"])[
                checks.integer_at_least(0, run=entry.body["run"])
            ]
        return charged, earlier

    def _check_charge(self, entry: Entry) -> None:
        """Checks that a charge is whole: event, count, scopes, plan."""
        body = entry.body
        event = from_json(body["event"])
        if canonical(to_json(event)) != canonical(body["event"]):
            raise ValueError("its event is not in canonical form")
        checks.integer_at_least(1, count=body["count"])
        checks.text(label=body["label"])
        if "runs" in body and (together(body["runs"]), body["count"]) != (event, 1):
            raise ValueError("its event is not that of its runs")
        found = costs(body)
        touched = self._terms.touched(body["scope"])
        if found.keys() != set(touched) or self._state.closed:
            raise ValueError("charged to other scopes, or after the close")
        if body["counted"] != found[ALL].how:
            raise ValueError("counted otherwise than it says")
        if entry.kind == "plan" and (body["plan"], self._state.plan) != (None, None):
            raise ValueError("a second sealed plan, or one paid by another")
        if body["plan"] is not None:
            self._check_item(body, found)
        elif self._terms.regime == "static" and entry.kind != "plan":
            raise ValueError("outside the sealed plan")
        elif self._prices is not None:
            self._recount(self._prices(event), body, found)
        self._filters |= {s: c.opens for s, c in found.items() if c.opens}

    def _check_item(self, body: Mapping[str, Any], found: Mapping[str, Cost]) -> None:
        """Checks that a sealed plan has paid for a charge."""
        plan = self._session.get(body["plan"])
        items = {item["label"]: item for item in plan.body["items"]}
        item = items[body["label"]]
        used = self._state.used[body["label"]] + body["count"]
        paid = self._state.plan == plan.seq and used <= item["count"]
        free = all(cost == Cost("planned") for cost in found.values())
        if not (paid and free and item["event"] == body["event"]):
            raise ValueError("not an item of the sealed plan")

    def _recount(
        self, prices: EventPrices, body: Mapping[str, Any], found: Mapping[str, Cost]
    ) -> None:
        """Refuses a number below what the accountants say is the least possible."""
        for scope, cost in found.items():
            if cost.values and cost.how == "renyi":
                opened = self._filters.get(scope) or cost.opens or {"orders": ()}
                orders, count = tuple(float(a) for a in opened["orders"]), body["count"]
                honest = True
                if "approximate" in opened:
                    curve, lost, missed = prices.shared(orders) or ((), ZERO, ZERO)
                    honest = cost.delta >= times(lost, count)
                    honest &= cost.missed >= times(missed, count)
                else:
                    curve = prices.curve(orders) or ()
                least = [exact(float(value) * (1.0 - _SLACK)) for value in curve]
                pairs = zip(cost.values, least, strict=True)
                honest &= all(v >= m for v, m in pairs)
            elif cost.values:
                order = float(self._filters[scope]["orders"][0])
                xi, rho = prices.zcdp() or (math.inf, math.inf)
                honest = cost.values[0] >= exact((xi + rho * order) * (1.0 - _SLACK))
            else:
                honest = cost.epsilon >= _least(prices, body, cost)
            if not honest:
                raise ValueError(f"costs less in {scope!r} than is possible")


def _least(prices: EventPrices, body: Mapping[str, Any], cost: Cost) -> Number:
    """The smallest epsilon that a direct charge, or a plan, can have."""
    direct = prices.direct()
    if direct is not None and (body["adaptive"] or cost.delta == ZERO):
        least = above(times(direct[0], body["count"]))
    else:
        least = prices.bound(body["count"], float(cost.delta)).lower or 0.0
    return at_least(least * (1.0 - _SLACK))
