"""The state of a ledger after each entry: one function for writing and for verifying.

Every entry carries the state after it, so a charge needs no more than the last entry,
and the hash chain vouches for the totals. `after` computes that state from the state
before and what the entry says; `verify` replays it from the start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dpkit.accountants.rules.totals import Cost, Totals
from dpkit.accountants.storage.entry import Entry

CHARGES = ("plan", "reserve", "release", "spend")


@dataclass(frozen=True)
class State:
    """What has been spent, by scope, and what is under way.

    Fields: totals (scopes that were never charged are absent), plan (seq of the sealed
    plan of a static ledger), used (how often each of its items was charged), closed.

    Example:
      >>> State.from_json(State().to_json()) == State()
      True
    """

    totals: Mapping[str, Totals] = field(default_factory=dict)
    plan: int | None = None
    used: Mapping[str, int] = field(default_factory=dict)
    closed: bool = False

    def of(self, scope: str) -> Totals:
        """The totals of a scope."""
        return self.totals.get(scope, Totals())

    def to_json(self) -> dict[str, Any]:
        """The state as it stands in an entry."""
        totals = {scope: total.to_json() for scope, total in self.totals.items()}
        found: dict[str, Any] = {"totals": totals}
        if self.plan is not None:
            found |= {"plan": self.plan, "used": dict(self.used)}
        return found | ({"closed": True} if self.closed else {})

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> State:
        """The state written by `to_json`."""
        totals = {s: Totals.from_json(t) for s, t in value["totals"].items()}
        used = dict(value.get("used", {}))
        return cls(totals, value.get("plan"), used, value.get("closed", False))


def state_of(entry: Entry) -> State:
    """The state that an entry carries; a genesis entry starts from nothing."""
    return State() if entry.kind == "genesis" else State.from_json(entry.body["after"])


def costs(body: Mapping[str, Any]) -> dict[str, Cost]:
    """The costs in an entry's body, by scope."""
    return {scope: Cost.from_json(c) for scope, c in body["cost"].items()}


def given_back(charged: Entry, earlier: Sequence[Entry], ran: int) -> int:
    """How many steps of a reservation a commit gives back; `earlier` came in between.

    None if the charge is counted as a whole, and none once a second holder resumed the
    reservation: how far that one goes on is not known to the one that commits. A sweep
    is sealed as a whole: which of its runs were made may follow what others gave.
    """
    if "runs" in charged.body:
        return 0
    stepwise = any(cost.refundable for cost in costs(charged.body).values())
    shared = any(entry.kind == "resume" for entry in earlier)
    return charged.body["count"] - ran if stepwise and not shared else 0


def after(
    state: State,
    kind: str,
    seq: int,
    body: Mapping[str, Any],
    charged: Entry | None = None,
    earlier: Sequence[Entry] = (),
) -> State:
    """The state that an entry must carry; its own `after` is not read.

    A commit or an abort is about `charged`, with what was `earlier` entered about it.
    """
    if kind == "plan":
        state = replace(state, plan=seq, used={i["label"]: 0 for i in body["items"]})
    if kind in CHARGES:
        count = body["count"]
        return _moved(state, body, count, lambda t, cost: t.plus(cost, count, seq=seq))
    if kind == "commit" and charged:
        back = given_back(charged, earlier, body["ran"])
        return _moved(state, charged.body, 0, lambda t, cost: t.minus_steps(cost, back))
    if kind == "abort" and charged:
        count = charged.body["count"]
        return _moved(state, charged.body, -count, lambda t, cost: t.minus(cost, count))
    return replace(state, closed=True) if kind == "close" else state


def _moved(
    state: State,
    charge: Mapping[str, Any],
    used: int,
    move: Callable[[Totals, Cost], Totals],
) -> State:
    """Moves the totals that a charge touched, or how often a plan's item is used."""
    if charge["plan"] is not None:
        label = charge["label"]
        return replace(state, used={**state.used, label: state.used[label] + used})
    moved = {s: move(state.of(s), cost) for s, cost in costs(charge).items()}
    return replace(state, totals={**state.totals, **moved})
