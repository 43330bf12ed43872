"""The machinery of a ledger: decide, append and settle, each in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dp_accounting import DpEvent

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.errors import (
    LedgerCorrupt,
    NotCertified,
    UnsupportedEvent,
    UnsupportedRelation,
)
from dpkit.accountants.answers.relations import Relation
from dpkit.accountants.events.notation import from_json, to_json
from dpkit.accountants.events.warrant import warrant
from dpkit.accountants.ledger.pricing import EventPrices, bound_to_json, once
from dpkit.accountants.ledger.request import (
    Request,
    Sweep,
    flat,
    sweep_runs,
    together,
)
from dpkit.accountants.ledger.state import State, after, given_back, state_of
from dpkit.accountants.rules.counting import bound_of, refuse_uncountable
from dpkit.accountants.rules.refusing import costs
from dpkit.accountants.rules.terms import ALL, Terms
from dpkit.accountants.rules.totals import Account, Cost, Totals
from dpkit.accountants.storage.entry import Entry, canonical
from dpkit.accountants.storage.store import Session, Store


class Book:
    """Terms, entries and prices of one ledger; `Ledger` is its public face."""

    def __init__(self, store: Store):
        self.store = store
        with store.reading() as session:
            self.genesis = session.get(0)
        self.terms = terms_of(self.genesis)
        self._prices: dict[str, EventPrices] = {}
        self._opened: dict[tuple[int, str], Any] = {}

    def prices(self, event: DpEvent) -> EventPrices:
        """The prices of one event, remembered.

        Raises:
          NotCertified: the event, or a part of it, is not proven.
          UnsupportedRelation: no accountant reads it under the ledger's relation.
          UnsupportedEvent: none does under any.
          ValueError: it is no valid event.
        """
        text = canonical(to_json(event))

        def make() -> EventPrices:
            if not warrant(event).certified:
                raise NotCertified(
                    f"{event!r} is not proven: a ledger counts proofs only"
                )
            relation = self.terms.relation
            prices = EventPrices(from_json(text), Relation(relation), self.terms.unit)
            try:
                readable = prices.supported()
            except UnsupportedRelation as error:
                allowed = [r for r in error.allowed if self._countable(event, r)]
                raise UnsupportedRelation(
                    "ledger", relation, error.event, allowed
                ) from None
            if not readable:
                reason = "no accountant reads the whole of it"
                raise UnsupportedEvent("ledger", event, reason)
            return prices

        return once(self._prices, text, make)

    def request(self, kind: str, event: DpEvent | Sweep, **asked: Any) -> Request:
        """A caller's arguments as the `Request` with these fields."""
        if not isinstance(event, DpEvent):
            asked["runs"] = runs = sweep_runs(event)
            asked["shorter"] = lambda n: self.prices(together(flat(runs)[:n]))
            event = together(runs)
        prices = self.prices(event)
        return Request(kind=kind, prices=prices, terms=self.terms, **asked)

    def _countable(self, event: DpEvent, relation: str) -> bool:
        """Whether a ledger like this one, of another relation, could count an event."""
        prices = EventPrices(event, Relation(relation), self.terms.unit)
        try:
            refuse_uncountable(self.terms.filter, prices, sealed=True)
            return prices.supported()
        except (UnsupportedEvent, UnsupportedRelation):
            return False

    def enter(self, wanted: Request) -> tuple[Entry, bool]:
        """Appends a charge; or the earlier entry with its key, and True.

        The accountants are asked first, without the lock; under it, the decision is
        made again on the state found there, mostly from what is remembered.
        """
        with self.store.reading() as session:
            found = self._earlier(session, wanted)
            state = state_of(session.head())
            accounts = self.accounts(session, state, wanted.scope)
        if found is not None and found.kind != "reserve":
            return found, True
        if found is None:
            self._refuse_late(state, wanted)
            if not self._is_planned(wanted):
                costs(accounts, wanted.asked)
            elif state.plan is None:
                costs(accounts, wanted.asked._replace(sealed=True))
        with self.store.writing() as session:
            found = self._earlier(session, wanted)
            if found is not None:
                _resume(session, found)
                return found, True
            head = session.head()
            entry = head.followed_by(wanted.kind, self._body(session, head, wanted))
            session.append(entry)
        return entry, False

    def settle(self, charged: Entry, kind: str, fields: Mapping[str, Any]) -> Entry:
        """Appends a commit, checkpoint or abort of a reservation, or finds it."""
        with self.store.writing() as session:
            earlier = session.about(charged.seq)
            same = _settled_already(earlier, kind, fields)
            if same is not None:
                return same
            return _append(session, kind, fields, charged, earlier)

    def state(self) -> State:
        """What is spent now."""
        with self.store.reading() as session:
            return state_of(session.head())

    def accounts(
        self, session: Session, state: State, scope: str | Sequence[str]
    ) -> list[Account]:
        """The accounts that a charge on these scopes is checked against."""
        return [
            self.terms.account(name, totals, self._filter(session, name, totals))
            for name in self.terms.touched(scope)
            for totals in (state.of(name),)
        ]

    def committed(self, charged: Entry) -> bool:
        """Whether a reservation has been committed."""
        with self.store.reading() as session:
            return any(e.kind == "commit" for e in session.about(charged.seq))

    def _filter(self, session: Session, scope: str, totals: Totals) -> Any:
        """The filter that is open in a scope, as JSON, or None."""
        if totals.opened is None:
            return self.genesis.body.get("opens", {}).get(scope)
        place = (totals.opened, scope)
        if place not in self._opened:
            opening = session.get(totals.opened)
            self._opened[place] = opening.body["cost"][scope]["opens"]
        return self._opened[place]

    def _earlier(self, session: Session, wanted: Request) -> Entry | None:
        """The charge that has the key already, unless it was aborted."""
        entries = session.with_key(wanted.key) if wanted.key is not None else []
        for entry in entries:
            if not any(e.kind == "abort" for e in session.about(entry.seq)):
                wanted.refuse_unless_same(entry)
                return entry
        return None

    def _is_planned(self, wanted: Request) -> bool:
        """Whether a sealed plan has paid for the request."""
        return self.terms.regime == "static" and wanted.kind != "plan"

    def _refuse_late(self, state: State, wanted: Request) -> None:
        """Refuse what can't be charged any more, whatever it costs."""
        if state.closed:
            raise ValueError("the ledger is closed: nothing more can be charged to it")
        if wanted.kind == "plan" and state.plan is not None:
            raise ValueError("a static ledger has one plan, and this one has it")

    def _body(self, session: Session, head: Entry, wanted: Request) -> dict[str, Any]:
        """The body of the next entry."""
        state = state_of(head)
        self._refuse_late(state, wanted)
        body = wanted.to_body()
        if self._is_planned(wanted):
            body |= _planned(session, state, wanted)
            entered = dict.fromkeys(self.terms.touched(wanted.scope), Cost("planned"))
        else:
            accounts = self.accounts(session, state, wanted.scope)
            entered = costs(accounts, wanted.asked)
            if wanted.asked.sealed:
                bound = bound_of(accounts[0], wanted.asked, entered[ALL])
                body["bound"] = bound_to_json(bound)
        body["counted"] = entered[ALL].how
        body["cost"] = {scope: cost.to_json() for scope, cost in entered.items()}
        body["after"] = after(state, wanted.kind, head.seq + 1, body).to_json()
        return body


def remark(session: Session, kind: str, text: str) -> Entry:
    """Appends a note, or closes the ledger, in a transaction that was begun."""
    return _append(session, kind, {"text": checks.text(text=text)})


def _append(
    session: Session,
    kind: str,
    body: Mapping[str, Any],
    charged: Entry | None = None,
    earlier: Sequence[Entry] = (),
) -> Entry:
    """Appends an entry that is no charge, perhaps about a reservation."""
    head = session.head()
    if charged is not None:
        body = {"label": charged.label, "ref": charged.seq, **body}
    state = after(state_of(head), kind, head.seq + 1, body, charged, earlier)
    entry = head.followed_by(kind, {**body, "after": state.to_json()})
    session.append(entry)
    return entry


def _resume(session: Session, charged: Entry) -> None:
    """Notes a second holder; ValueError where steps were given back already."""
    if charged.kind != "reserve":
        return
    earlier = session.about(charged.seq)
    kinds = {entry.kind for entry in earlier}
    if "commit" not in kinds:
        if "resume" not in kinds:
            _append(session, "resume", {}, charged, earlier)
        return
    commit = next(entry for entry in earlier if entry.kind == "commit")
    ran = commit.body["ran"]
    if given_back(charged, earlier, ran):
        raise ValueError(
            f"key={charged.body['key']!r}: entry seq={commit.seq} committed ran={ran} "
            f"of {charged.body['count']} and gave the rest back, so nothing more may "
            "be released on it; choose a new key"
        )


def terms_of(genesis: Entry) -> Terms:
    """The terms in a genesis entry, or LedgerCorrupt."""
    try:
        return Terms.from_body(genesis.body)
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise LedgerCorrupt(f"entry seq=0: unreadable terms ({error})") from None


def _planned(session: Session, state: State, wanted: Request) -> dict[str, Any]:
    """What the sealed plan says of one of its items; raises where it is not one."""
    if state.plan is None:
        raise ValueError(
            "regime='static': seal a plan first (ledger.plan, or one ledger.reserve)"
        )
    plan = session.get(state.plan)
    body = wanted.to_body()
    for item in plan.body["items"]:
        same = item["label"] == wanted.label and item["event"] == body["event"]
        left = item["count"] - state.used.get(item["label"], 0)
        if same and wanted.count <= left and body["scope"] == plan.body["scope"]:
            bound = {"bound": plan.body["bound"]} if wanted.asked.sealed else {}
            return {"plan": state.plan, **bound}
    raise ValueError(
        f"label={wanted.label!r}, count={wanted.count} is not left in the sealed plan "
        f"{plan.label!r}: a static ledger takes nothing that was not fixed beforehand"
    )


def _settled_already(
    earlier: list[Entry], kind: str, fields: Mapping[str, Any]
) -> Entry | None:
    """The same settlement made before; ValueError where it contradicts one."""
    last = earlier[-1] if earlier else None
    for entry in earlier if "run" in fields else earlier[-1:]:
        same = all(entry.body.get(name) == value for name, value in fields.items())
        if entry.kind == kind and same:
            return entry
    if last is not None and last.kind in ("commit", "abort"):
        raise ValueError(f"{kind}: entry seq={last.seq} settled it ({last.kind})")
    steps = [entry.body["step"] for entry in earlier if entry.kind == "checkpoint"]
    released = max(steps, default=0)
    if kind == "abort" and any(entry.kind == "resume" for entry in earlier):
        raise ValueError(
            "abort: the reservation was resumed by its key, and its other holder may "
            "have released something; commit instead"
        )
    if kind == "abort" and released:
        raise ValueError(f"abort: a checkpoint says that step={released} was released")
    if kind == "commit" and fields["ran"] < released:
        raise ValueError(
            f"ran={fields['ran']}, but a checkpoint says step={released} was released"
        )
    return None
