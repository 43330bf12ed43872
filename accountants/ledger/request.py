"""What a caller asks to charge, checked and written down."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dp_accounting import DpEvent

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.exact import exact
from dpkit.accountants.events.composing import repeat, sequential
from dpkit.accountants.events.notation import from_json, to_json
from dpkit.accountants.ledger.pricing import EventPrices
from dpkit.accountants.rules.counting import Asked
from dpkit.accountants.rules.terms import ALL, Terms
from dpkit.accountants.storage.entry import Entry, canonical

_MAX_TEXT = 1000
_MAX_FACTS = 50
_MAX_COUNT = 10**15

Facts = Mapping[str, str | int | float | bool]
Sweep = Sequence[DpEvent | tuple[DpEvent, int]]


@dataclass(kw_only=True)
class Request:
    """One charge before it is counted: a caller's arguments, checked.

    Fields: kind of the entry, prices of one copy, terms of the ledger, count, label,
    key (idempotency), scope ("all", or names), provenance, delta (the share asked for),
    items (of a sealed plan), runs (of a sealed sweep), shorter (the prices of its first
    runs). TypeError or ValueError where one is no such thing.
    """

    kind: str
    prices: EventPrices
    terms: Terms
    label: str
    count: int = 1
    key: str | None = None
    scope: str | Sequence[str] = ALL
    provenance: Facts | None = None
    delta: float | None = None
    items: tuple[dict[str, Any], ...] = ()
    runs: tuple[dict[str, Any], ...] = ()
    shorter: Callable[[int], EventPrices] | None = None

    def __post_init__(self):
        if self.delta is not None:
            self.delta = checks.half_open_probability(delta=self.delta)
        self.count = checks.integer_at_least(1, count=self.count)
        # More than a float can count are no honest number.
        if self.count > _MAX_COUNT:
            raise ValueError(f"count must be at most {_MAX_COUNT:,}")
        if self.runs and (self.kind, self.count) != ("reserve", 1):
            raise ValueError(
                f"count={self.count}: a list of events is one sweep, sealed by "
                "ledger.reserve alone; give (event, count) for a run of several steps"
            )
        one_line(label=self.label)
        if self.key is not None:
            one_line(key=self.key)
        self.scope = _scope(self.terms, self.scope)
        if self.provenance is not None:
            self.provenance = _facts(self.provenance)

    @property
    def asked(self) -> Asked:
        """What the rules need to know of it."""
        delta = None if self.delta is None else exact(self.delta)
        sealed = self.kind in ("plan", "reserve")
        sweep = len(flat(self.runs)), self.shorter
        return Asked(self.prices, self.count, sealed, delta, *sweep)

    def to_body(self) -> dict[str, Any]:
        """The part of the entry's body that repeats the request."""
        body: dict[str, Any] = {
            "adaptive": not self.asked.sealed,
            "count": self.count,
            "event": to_json(self.prices.event),
            "label": self.label,
            "plan": None,
            "scope": self.scope if self.scope == ALL else list(self.scope),
        }
        extra = {
            "delta": None if self.delta is None else repr(self.delta),
            "items": list(self.items) or None,
            "key": self.key,
            "provenance": self.provenance,
            "runs": list(self.runs) or None,
        }
        return body | {name: v for name, v in extra.items() if v is not None}

    def refuse_unless_same(self, entry: Entry) -> None:
        """Raise ValueError where an earlier entry with this key is another charge."""
        mine = self.to_body()
        same = entry.kind == self.kind and all(
            canonical(entry.body.get(name)) == canonical(mine.get(name))
            for name in ("event", "count", "scope", "items", "runs")
        )
        if not same:
            raise ValueError(
                f"key={self.key!r} belongs to another charge, entry seq={entry.seq} "
                f"({entry.label!r}): a key names one charge; choose a new one"
            )


def plan_items(items: Mapping[str, tuple[Any, int]]) -> tuple[Any, tuple[dict, ...]]:
    """A sealed plan's one event, and its items as they stand in the entry."""
    if not items:
        raise ValueError("items={}: a plan needs at least one")
    written = tuple(
        {"label": one_line(label=label), "event": to_json(event), "count": count}
        for label, (event, count) in items.items()
    )
    return whole(written), written


def whole(items: Sequence[Mapping[str, Any]]) -> DpEvent:
    """The event of a sealed plan, of its items as they stand in its entry."""
    return sequential([repeat(from_json(i["event"]), i["count"]) for i in items])


def sweep_runs(runs: Sweep) -> tuple[dict[str, Any], ...]:
    """The runs of a sealed sweep as they stand in its entry: equal neighbours once.

    Example:
      >>> from dpkit.accountants.events import PureDpEvent
      >>> runs = sweep_runs([PureDpEvent(0.5), (PureDpEvent(0.5), 1)])
      >>> [run["times"] for run in runs]
      [2]
    """
    if not isinstance(runs, Sequence) or not runs:
        raise TypeError(f"event={runs!r} must be an event, or a list of at least one")
    written: list[dict[str, Any]] = []
    for run in runs:
        event, count = run if isinstance(run, tuple) else (run, 1)
        count = checks.integer_at_least(1, count=count)
        one = {"event": to_json(event), "count": count}
        if written and one.items() <= written[-1].items():
            written[-1]["times"] += 1
        else:
            written.append({**one, "times": 1})
    return tuple(written)


def flat(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The runs of a sweep's entry, one by one."""
    return [{**run, "times": 1} for run in runs for _ in range(run["times"])]


def together(runs: Sequence[Mapping[str, Any]]) -> DpEvent:
    """All runs of a sweep as one event, equal releases counted together."""
    counts: dict[str, int] = {}
    for run in runs:
        event = canonical(run["event"])
        counts[event] = counts.get(event, 0) + run["count"] * run["times"]
    return sequential([repeat(from_json(e), n) for e, n in counts.items()])


def _scope(terms: Terms, scope: str | Sequence[str]) -> str | tuple[str, ...]:
    """ "all", or sorted names of declared scopes."""
    if scope == ALL:
        return ALL
    if not isinstance(scope, str | Sequence) or not scope:
        raise TypeError(f"scope={scope!r} must be 'all', a declared name or a list")
    names = (scope,) if isinstance(scope, str) else tuple(sorted(set(scope)))
    terms.touched(names)
    return names


def one_line(**value: object) -> str:
    """One line of text of bounded length."""
    text = checks.text(**value)
    if len(text) > _MAX_TEXT or not text.isprintable():
        name = next(iter(value))
        raise ValueError(f"{name} must be one line of at most {_MAX_TEXT} characters")
    return text


def _facts(provenance: Facts) -> dict[str, Any]:
    """A flat mapping of public facts; binary floats become decimal strings."""
    if not isinstance(provenance, Mapping) or len(provenance) > _MAX_FACTS:
        raise TypeError(f"provenance must be a mapping of at most {_MAX_FACTS} facts")
    facts: dict[str, Any] = {}
    for name, value in provenance.items():
        one_line(provenance=name)
        if type(value) not in (str, int, float, bool):
            raise TypeError(
                f"provenance {name}={type(value).__name__} must be str, int, float or "
                "bool: a ledger is shown to others, so no data, no keys, no arrays"
            )
        if isinstance(value, str) and len(value) > _MAX_TEXT:
            raise ValueError(f"provenance {name} is longer than {_MAX_TEXT} characters")
        facts[name] = repr(value) if isinstance(value, float) else value
    return facts
