"""Proof-reading a ledger: pages, chain, form of each entry, and every total again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dp_accounting import DpEvent

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.errors import LedgerCorrupt
from dpkit.accountants.answers.exact import exact
from dpkit.accountants.events.notation import from_json, to_json
from dpkit.accountants.ledger.book import terms_of
from dpkit.accountants.ledger.pricing import EventPrices
from dpkit.accountants.ledger.recounting import check_form, check_numbers
from dpkit.accountants.ledger.request import flat, together, whole
from dpkit.accountants.ledger.state import CHARGES, State, after, costs
from dpkit.accountants.rules.counting import Asked
from dpkit.accountants.rules.terms import ALL
from dpkit.accountants.rules.totals import Account, Cost
from dpkit.accountants.storage.entry import Entry, canonical, check_link
from dpkit.accountants.storage.store import Session

PricesOf = Callable[[DpEvent], EventPrices]

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
            touched = costs(body) if kind in CHARGES else ()
            over = [scope for scope in touched if not self._account(scope).holds()]
        except _MALFORMED as error:
            raise LedgerCorrupt(
                f"entry seq={entry.seq}: malformed ({error!r})"
            ) from None
        if not found:
            raise LedgerCorrupt(f"entry seq={entry.seq}: its totals are not the sum")
        if over:
            raise LedgerCorrupt(f"entry seq={entry.seq}: over budget in {over[0]!r}")

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
        if body["adaptive"] != (entry.kind not in ("plan", "reserve")):
            raise ValueError("sealed and chosen along the way at once")
        found = costs(body)
        touched = self._terms.touched(body["scope"])
        if found.keys() != set(touched) or self._state.closed:
            raise ValueError("charged to other scopes, or after the close")
        if body["counted"] != found[ALL].how:
            raise ValueError("counted otherwise than it says")
        if entry.kind == "plan" and (body["plan"], self._state.plan) != (None, None):
            raise ValueError("a second sealed plan, or one paid by another")
        if entry.kind == "plan" and (whole(body["items"]), body["count"]) != (event, 1):
            raise ValueError("its event is not that of its items")
        if body["plan"] is not None:
            self._check_item(body, found)
        elif self._terms.regime == "static" and entry.kind != "plan":
            raise ValueError("outside the sealed plan")
        else:
            self._check_costs(entry, event, found)
        self._filters |= {s: c.opens for s, c in found.items() if c.opens}

    def _check_costs(self, entry: Entry, event: DpEvent, found: Mapping[str, Cost]):
        """Checks how a charge was counted, and with prices each of its numbers."""
        body, asked = entry.body, None
        if self._prices is not None:
            delta = exact(body["delta"]) if "delta" in body else None
            sealed = entry.kind in ("plan", "reserve")
            asked = Asked(self._prices(event), body["count"], sealed, delta)
        for scope, cost in found.items():
            account = self._account(scope)
            check_form(account, cost)
            if asked is not None:
                only = body if scope == ALL else {}  # the bound is that of all
                check_numbers(account, asked, cost, only)

    def _account(self, scope: str) -> Account:
        """A scope's account as it is by now."""
        opened = self._filters.get(scope)
        return self._terms.account(scope, self._state.of(scope), opened)

    def _check_item(self, body: Mapping[str, Any], found: Mapping[str, Cost]) -> None:
        """Checks that a sealed plan has paid for a charge."""
        plan = self._session.get(body["plan"])
        items = {item["label"]: item for item in plan.body["items"]}
        item = items[body["label"]]
        used = self._state.used[body["label"]] + body["count"]
        paid = self._state.plan == plan.seq and used <= item["count"]
        free = all(cost == Cost("planned") for cost in found.values())
        free &= body.get("bound", plan.body["bound"]) == plan.body["bound"]
        if not (paid and free and item["event"] == body["event"]):
            raise ValueError("not an item of the sealed plan")
