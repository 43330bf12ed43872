"""The state of a ledger after each entry: one function for writing and for verifying.

Every entry carries the state after it, so a charge needs no more than the last entry,
and the hash chain vouches for the totals. `after` computes that state from the state
before and what the entry says; `verify` replays it from the start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        found: dict[str, Any] = {s: t.to_json() for s, t in self.totals.items()}
        found = {"totals": found}
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
    """How many steps a commit gives back.

    None if the charge is counted as a whole, and none once a second holder resumed the
    reservation: how far that one goes on is not known to the one that commits.

    Args:
      charged: the reservation.
      earlier: what was entered about it before the commit.
      ran: the steps that ran, by the commit.

    Returns:
      The number of steps.
    """
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
    """The state after an entry.

    Args:
      state: before it.
      kind: of the entry.
      seq: of the entry.
      body: of the entry; its own `after` is not read.
      charged: the reservation that a commit or an abort is about.
      earlier: what was entered about that reservation before.

    Returns:
      The state that the entry must carry.
    """
    if kind in CHARGES:
        return _charged(state, kind, seq, body)
    if kind == "commit" and charged:
        unused = given_back(charged, earlier, body["ran"])
        return _moved(state, charged, lambda totals, c: totals.minus_steps(c, unused))
    if kind == "abort" and charged:
        count = charged.body["count"]
        state = _moved(state, charged, lambda totals, c: totals.minus(c, count))
        return _unused(state, charged)
    return replace(state, closed=True) if kind == "close" else state


def _charged(state: State, kind: str, seq: int, body: Mapping[str, Any]) -> State:
    """The state after a charge."""
    if kind == "plan":
        state = replace(state, plan=seq, used={i["label"]: 0 for i in body["items"]})
    elif body["plan"] is not None:
        label = body["label"]
        used = dict(state.used) | {label: state.used[label] + body["count"]}
        return replace(state, used=used)
    totals = dict(state.totals)
    for scope, cost in costs(body).items():
        totals[scope] = state.of(scope).plus(cost, body["count"], seq=seq)
    return replace(state, totals=totals)


def _moved(state: State, charged: Entry, move: Any) -> State:
    """The state after `move` on the totals of each scope that was charged."""
    if charged.body["plan"] is not None:
        return state
    totals = dict(state.totals)
    for scope, cost in costs(charged.body).items():
        totals[scope] = move(state.of(scope), cost)
    return replace(state, totals=totals)


def _unused(state: State, charged: Entry) -> State:
    """The state after an item of a sealed plan was put back."""
    if charged.body["plan"] is None:
        return state
    label = charged.body["label"]
    left = state.used[label] - charged.body["count"]
    return replace(state, used=dict(state.used) | {label: left})
