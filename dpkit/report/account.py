"""The facts of an account, of a ledger or of a declared run, as one JSON document.

The page and the text are made of this document alone. Two regimes stay apart: what a
ledger certifies holds also where later releases were chosen on earlier outputs; what
the accountants say of the same list of events holds if everything had been fixed in
advance, and is labelled so.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dpkit.report.guarantee import not_covered
from dpkit.report.identity import author, budget_json, identity, insecure, sweep
from dpkit.report.words import largest_advantage, most_recognised

if TYPE_CHECKING:
    from dpkit.accountants import Ledger, PrivacyBound
    from dpkit.accountants.storage.entry import Entry
    from dpkit.budget.declaration import Declaration

FALSE_POSITIVES = (0.001, 0.01, 0.05)
_FEW = 50
_CHARGES = ("plan", "reserve", "release", "spend")
_CANARIES = (
    "Canaries that an audit inserts: the guarantee is about the data with them, and a"
    " published result of such an audit is a release of its own."
)


def of_ledger(ledger: Ledger) -> dict[str, Any]:
    """What a ledger certifies, entry by entry, and what it means.

    Args:
      ledger: verified first: a broken one has no report.

    Raises:
      LedgerCorrupt: it was edited or cut off.

    Example:
      >>> from dpkit.accountants import Budget, Ledger, PureDpEvent
      >>> terms = {"relation": "zero_out", "unit": "user", "dataset": "toy"}
      >>> ledger = Ledger.open(None, budget=Budget(1.0, 0.0), **terms)
      >>> entry = ledger.charge(PureDpEvent(0.5), label="look")
      >>> of_ledger(ledger)["bound"]["upper"]
      0.5
    """
    ledger.verify()
    entries = ledger.entries()
    bound, parts = ledger.spent(), ledger.parts()
    charged = [entry for entry in entries if _charges(entry)]
    run = _declared(ledger, entries)
    return {
        "source": "ledger",
        **identity(ledger),
        "filter": ledger.terms.filter,
        "created": entries[0].ts,
        "written": entries[-1].ts,
        "closed": ledger.retired,
        "delta": bound.delta,
        "bound": bound.to_json(),
        "charges": [
            {**_charge(entry, entries), "own": own, "part": parts.get(entry.seq)}
            for entry, own in zip(charged, _own(ledger, charged), strict=True)
        ],
        "scopes": scopes(ledger),
        "insecure": [e.seq for e in entries if insecure(e)],
        "notes": [e.body["text"] for e in entries if e.kind == "note"],
        "assumed": [],
        "attack": _attack(bound),
        "if_fixed_in_advance": _static(run, bound.delta),
        "not_covered": _limits(ledger.unit),
    }


def of_run(run: Declaration, delta: float) -> dict[str, Any]:
    """What a declared run costs, and what it means.

    Args:
      run: what will be released.
      delta: in [0, 1).

    Raises:
      UnsupportedEvent, UnsupportedRelation, ValueError: by `dpkit.accountants.epsilon`.

    Example:
      >>> from dpkit.budget.declaration import declare
      >>> run = declare({"relation": "zero_out", "events":
      ...                [{"kind": "pure", "epsilon": 0.5}]})
      >>> of_run(run, 1e-5)["attack"]["posterior"] < 0.63
      True
    """
    from dpkit.accountants import epsilon

    options: Any = {"relation": run.relation, "unit": run.unit}
    bound = epsilon(run.event, delta, **options)
    return {
        "source": "declaration",
        "relation": str(run.relation),
        "unit": run.unit,
        "regime": "static",
        "delta": delta,
        "bound": bound.to_json(),
        "charges": [_item(item) for item in run.to_json()["events"]],
        "scopes": [],
        "insecure": [],
        "notes": [],
        "assumed": list(run.assumed),
        "attack": _attack(bound),
        "if_fixed_in_advance": _static(run, delta),
        "not_covered": _limits(run.unit),
    }


def _declared(ledger: Ledger, entries: list[Entry]) -> Declaration | None:
    """Everything charged as one list of events, reservations whole; None for nothing.

    What an aborted reservation held was never released; what a sealed plan holds is
    charged by the plan, and its items not again. Scopes are not told apart: all of it
    is counted as if it touched the same data.
    """
    from dpkit.budget.declaration import Declaration

    aborted = {entry.body["ref"] for entry in entries if entry.kind == "abort"}
    items = [
        {"kind": "repeat", "child": e.body["event"], "count": e.body["count"]}
        for e in entries
        if _charges(e) and e.body["plan"] is None and e.seq not in aborted
    ]
    if not items:
        return None
    return Declaration(relation=ledger.relation, unit=ledger.unit, items=items)


def _charges(entry: Entry) -> bool:
    """Whether an entry charges something."""
    return entry.kind in _CHARGES


def _charge(entry: Entry, entries: list[Entry]) -> dict[str, Any]:
    """One charge, with what became of it."""
    body = entry.body
    about = [e for e in entries if e.body.get("ref") == entry.seq]
    last = about[-1] if about else None
    state = "planned" if body["plan"] is not None else "spent"
    if last is not None and last.kind in ("commit", "abort"):
        state = {"commit": "committed", "abort": "given back"}[last.kind]
    cost = body["cost"].get("all", {})
    return {
        "seq": entry.seq,
        "time": entry.ts,
        "kind": entry.kind,
        "author": author(entry),
        "label": entry.label,
        "scope": body["scope"],
        "count": body["count"],
        "runs": sweep(entry),
        "event": body["event"],
        "counted": body["counted"],
        "epsilon": cost.get("epsilon"),
        "delta": cost.get("delta"),
        "state": state,
        "ran": last.body["ran"] if last is not None and last.kind == "commit" else None,
    }


def _item(event: Mapping[str, Any]) -> dict[str, Any]:
    """One event of a declaration, in the form of a charge."""
    repeated = event["kind"] == "repeat"
    return {
        "label": event["child"]["kind"] if repeated else event["kind"],
        "count": event["count"] if repeated else 1,
        "event": event["child"] if repeated else event,
        "state": "declared",
    }


def _own(ledger: Ledger, charged: list[Entry]) -> list[dict[str, Any] | None]:
    """What each charge costs by itself: as it was entered, else at the budget's delta.

    Where there are many of them the Rényi accountant is asked, a little above the best.
    """
    from dpkit.accountants import epsilon, from_json, repeat
    from dpkit.accountants.ledger.pricing import bound_from_json

    @functools.cache
    def bound(event: str, count: int) -> dict[str, Any] | None:
        options: Any = {"relation": ledger.relation, "accountant": accountant}
        delta = ledger.budget.delta
        try:
            return epsilon(repeat(from_json(event), count), delta, **options).to_json()
        except ValueError:
            return None

    asked = [(json.dumps(e.body["event"]), e.body["count"]) for e in charged]
    accountant = "best" if len(set(asked)) <= _FEW else "rdp"
    return [
        bound_from_json(entry.body["bound"]).to_json()
        if "bound" in entry.body and entry.body["plan"] is None
        else bound(*each)
        for entry, each in zip(charged, asked, strict=True)
    ]


def scopes(ledger: Ledger) -> list[dict[str, Any]]:
    """The blocks of the data with budgets of their own, and what is spent of each.

    Example:
      >>> scopes(ledger)  # doctest: +SKIP
      [{"name": "north", "budget": {"epsilon": 1.0, "delta": 0.0}, "bound": {...}}]
    """
    return [
        {
            "name": name,
            "budget": budget_json(budget),
            "bound": ledger.spent(scope=name).to_json(),
        }
        for name, budget in ledger.terms.scopes.items()
    ]


def _attack(bound: PrivacyBound) -> dict[str, Any] | None:
    """What (epsilon, delta) alone allows an attacker; valid in both regimes."""
    if not bound.certified or bound.upper is None:
        return None
    epsilon, delta = bound.upper, bound.delta
    advantage = largest_advantage(epsilon, delta)
    rates = {x: most_recognised(epsilon, delta, x) for x in FALSE_POSITIVES}
    return _risk(advantage, rates)


def _static(run: Declaration | None, delta: float) -> dict[str, Any]:
    """What the accountants say of the events, had all been fixed in advance."""
    from dpkit.accountants import (
        UnsupportedEvent,
        UnsupportedRelation,
        attack_risk,
        epsilon,
    )
    from dpkit.budget import curves

    if run is None:
        return {"reason": "nothing was charged"}
    try:
        options: Any = {"relation": run.relation, "unit": run.unit}
        bound = epsilon(run.event, delta, **options)
        risk = attack_risk(run.event, relation=run.relation)
    except (UnsupportedEvent, UnsupportedRelation) as error:
        return {"reason": str(error)}
    except ValueError:
        if delta > 0:
            raise
        return {"reason": "not all of it is pure, and the budget's delta is 0"}
    drawn = [curves.profile(risk), curves.trade_off(risk)]
    if delta > 0:
        count = 40 if len(run.items) == 1 else 15
        drawn.insert(0, curves.against_steps(run, delta, count=count))
    told: dict[str, Any] = {"bound": bound.to_json()}
    if risk.certified:
        rates = {x: risk.tpr_at(x) for x in FALSE_POSITIVES}
        told["attack"] = _risk(risk.advantage, rates)
    return told | {"curves": [curve.to_json() for curve in drawn]}


def _risk(advantage: float, recognised: Mapping[float, float]) -> dict[str, Any]:
    """An attacker's success: certified upper bounds."""
    return {
        "advantage": advantage,
        "posterior": (1.0 + advantage) / 2.0,
        "recognised": [
            {"false_positives": x, "true_positives": rate}
            for x, rate in recognised.items()
        ],
    }


def _limits(unit: str) -> list[str]:
    """What the guarantee leaves open."""
    return [*not_covered(unit), _CANARIES]
