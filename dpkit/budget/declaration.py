"""A declared run: what will be released, as a file says it before anything runs.

The file is TOML or JSON: `relation`, `unit`, `delta`, and either `events`, a list of
events as `dpkit.accountants.events.from_json` reads them, each with its `count`; or
`dpsgd`, a training run in a few numbers (shorthand.py). Unknown keys are refused, so
that a typing error can't silently leave something out of the account.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dp_accounting import DpEvent

    from dpkit.accountants import Relation

_KEYS = ("schema_version", "relation", "unit", "delta", "events", "dpsgd")
_FREE = {
    "noise_multiplier": "noise_multiplier",
    "sampling_rate": "sampling_rate",
    "steps": "count",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Declaration:
    """Everything that a run will release, with its relation and unit.

    Privacy: no more than what it says: accountants read `event` in the static regime.

    Attributes:
      relation: the neighbouring relation.
      unit: the privacy unit ("example", "user").
      delta: the delta at which epsilon is meant, or None.
      items: the events as JSON, in order; each may carry a `count`.
      assumed: what the account takes for granted, one sentence each.

    Raises:
      ValueError: no event, or one that is not valid.

    Example:
      >>> run = Declaration(relation="add_remove", unit="example",
      ...                   items=[{"kind": "laplace", "scale": 2.0, "count": 3}])
      >>> run.event
      SelfComposedDpEvent(event=LaplaceDpEvent(noise_multiplier=2.0), count=3)
    """

    relation: Relation | str
    unit: str
    delta: float | None = None
    items: Sequence[Mapping[str, Any]]
    assumed: Sequence[str] = ()

    def __post_init__(self) -> None:
        from dpkit.accountants import as_relation
        from dpkit.accountants.answers import checks

        object.__setattr__(self, "relation", as_relation(self.relation))
        object.__setattr__(self, "unit", checks.text(unit=self.unit))
        if self.delta is not None:
            delta = checks.half_open_probability(delta=self.delta)
            object.__setattr__(self, "delta", delta)
        if not isinstance(self.items, list | tuple) or not self.items:
            raise ValueError("events must be a list with at least one event")
        object.__setattr__(self, "items", tuple(dict(_object(i)) for i in self.items))
        object.__setattr__(self, "assumed", tuple(self.assumed))
        _ = self.event

    @property
    def event(self) -> DpEvent:
        """All of it as one event."""
        return self.part(len(self.items))

    def part(self, count: int) -> DpEvent:
        """The first `count` items as one event.

        Example:
          >>> items = [{"kind": "pure", "epsilon": e} for e in (0.5, 0.25)]
          >>> run = Declaration(relation="zero_out", unit="user", items=items)
          >>> run.part(1)
          PureDpEvent(epsilon=0.5)
        """
        from dpkit.accountants import from_json, sequential

        return sequential([from_json(dict(item)) for item in self.items[:count]])

    def varied(self, name: str, value: float) -> Declaration:
        """The same run with one parameter changed.

        Args:
          name: "noise_multiplier", "sampling_rate" or "steps" (how often the event
            happens). Exactly one item must have it; for steps, be the only one.
          value: its new value.

        Raises:
          ValueError: no item has the parameter, or several do.

        Example:
          >>> items = [{"kind": "gaussian", "noise_multiplier": 1.0, "count": 10}]
          >>> run = Declaration(relation="zero_out", unit="user", items=items)
          >>> run.varied("steps", 20).items
          ({'kind': 'gaussian', 'noise_multiplier': 1.0, 'count': 20},)
        """
        if name not in _FREE:
            raise ValueError(f"name={name!r} is not one of {', '.join(_FREE)}")
        having = [i for i, item in enumerate(self.items) if _has(item, name)]
        if len(having) != 1 or (name == "steps" and len(self.items) > 1):
            raise ValueError(
                f"{name}: {len(having)} events have it; one parameter can be varied"
                " only where exactly one event has it (for steps, where there is one)"
            )
        items = [dict(item) for item in self.items]
        items[having[0]][_FREE[name]] = value
        return dataclasses.replace(self, items=items)

    def asked(
        self,
        path: str | Path,
        *,
        relation: str | None = None,
        unit: str | None = None,
        delta: float | None = None,
    ) -> Declaration:
        """The run of a file, as a question that repeats its terms, or asks for a delta.

        Args:
          path: the file.
          relation: None, or the run's; neither is converted into another.
          unit: None, or the run's.
          delta: None, or what takes the place of the run's.

        Raises:
          Incompatible: another relation or unit.

        Example:
          >>> items = [{"kind": "pure", "epsilon": 0.5}]
          >>> run = Declaration(relation="zero_out", unit="user", items=items)
          >>> run.asked("run.toml", unit="user", delta=1e-6).delta
          1e-06
        """
        from dpkit.accountants import Incompatible

        for name, value in (("relation", relation), ("unit", unit)):
            own = str(getattr(self, name))
            if value is not None and value != own:
                raise Incompatible(
                    f"{name}={value!r}, but {path} declares {name}={own!r}: neither is"
                    " converted into the other"
                )
        return self if delta is None else dataclasses.replace(self, delta=delta)

    def to_json(self) -> dict[str, Any]:
        """The declaration as JSON values; `declare` reads them back."""
        from dpkit.accountants import from_json, to_json

        data: dict[str, Any] = {"relation": str(self.relation), "unit": self.unit}
        if self.delta is not None:
            data["delta"] = self.delta
        return data | {"events": [to_json(from_json(dict(i))) for i in self.items]}


def declare(declared: Mapping[str, Any]) -> Declaration:
    """The declaration that a mapping describes, as a file holds it.

    Args:
      declared: `relation`; `events` or `dpsgd`; perhaps `unit` ("example" where it is
        left out) and `delta`.

    Raises:
      ValueError: a missing or an unknown key, or a bad value; it is named.

    Example:
      >>> run = declare({"relation": "replace_one", "unit": "user",
      ...                "events": [{"kind": "pure", "epsilon": 0.5}]})
      >>> run.event
      PureDpEvent(epsilon=0.5)
    """
    from dpkit.budget.shorthand import expand

    data: dict[str, Any] = {"unit": "example", **_object(declared)}
    unknown = sorted(set(data) - set(_KEYS))
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}; known: {', '.join(_KEYS[1:])}")
    version = data.pop("schema_version", 1)
    if version != 1 or isinstance(version, bool):
        raise ValueError(f"schema_version={version!r} is not the version 1 known")
    if "relation" not in data:
        raise ValueError("relation is missing; it has no default")
    if ("events" in data) == ("dpsgd" in data):
        raise ValueError("give either events or dpsgd, and not both")
    items, assumed = data.pop("events", None), ()
    if "dpsgd" in data:
        items, assumed = expand(data.pop("dpsgd"), data["relation"])
    return Declaration(**data, items=items, assumed=assumed)


def read(path: str | Path, **given: Any) -> Declaration:
    """The declaration in a file.

    Args:
      path: a file that ends in .toml or .json.
      given: `relation`, `unit`, `delta` from elsewhere (None: not given). The first two
        fill in what the file leaves out and must not contradict it; delta is a question
        and takes the place of the file's.

    Raises:
      ValueError: not readable as TOML or JSON, or not a declaration.
      Incompatible: another relation or unit than the file's.
      OSError: the file can't be read.

    Example:
      >>> import tempfile
      >>> with tempfile.NamedTemporaryFile(suffix=".json") as file:
      ...     _ = Path(file.name).write_text(
      ...         '{"relation": "zero_out", "delta": 1e-5,'
      ...         ' "events": [{"kind": "pure", "epsilon": 0.5}]}')
      ...     read(file.name, delta=1e-6).delta
      1e-06
    """
    from dpkit.accountants import Incompatible, UnsupportedEvent, UnsupportedRelation

    path = Path(path)
    asked = dict(given)
    given.pop("delta", None)
    given = {name: value for name, value in given.items() if value is not None}
    try:
        data = dict(_object(_parsed(path)))
        run = declare(given | data)
    except (Incompatible, UnsupportedEvent, UnsupportedRelation):
        raise
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from None
    return run.asked(path, **asked)


def of_event(
    event: DpEvent,
    terms: Mapping[str, Any],
    delta: float | None,
    assumed: Sequence[str] = (),
) -> Declaration:
    """The declaration of a run whose event is known, a repeated one as its steps.

    Example:
      >>> from dpkit.accountants import PureDpEvent, repeat
      >>> terms = {"relation": "zero_out", "unit": "user"}
      >>> of_event(repeat(PureDpEvent(0.5), 3), terms, None).items
      ({'kind': 'pure', 'v': 1, 'epsilon': '0.5', 'count': 3},)
    """
    from dpkit.accountants import to_json

    whole = to_json(event)
    parts = whole["children"] if whole["kind"] == "sequential" else [whole]
    items = [
        {**part["child"], "count": part["count"]} if part["kind"] == "repeat" else part
        for part in parts
    ]
    terms = {name: terms[name] for name in ("relation", "unit")}
    return Declaration(**terms, delta=delta, items=items, assumed=assumed)


def _parsed(path: Path) -> Any:
    """The values in a file; JSON without doubled keys, NaN or infinities."""
    text = path.read_bytes().decode("utf-8")
    if path.suffix == ".toml":
        return tomllib.loads(text)
    if path.suffix == ".json":
        return json.loads(text, object_pairs_hook=_once, parse_constant=_refuse)
    raise ValueError("a declaration is a file that ends in .toml or .json")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are given once."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {twice!r} is given twice")
    return found


def _refuse(constant: str) -> Any:
    """JSON has no NaN and no infinity."""
    raise ValueError(f"{constant} is no number of JSON")


def _object(value: Any) -> Mapping[str, Any]:
    """A mapping, or ValueError."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{value!r} must be a table of names and values")
    return value


def _has(item: Mapping[str, Any], name: str) -> bool:
    """Whether an item has a parameter; everything can happen several times."""
    return name == "steps" or name in item
