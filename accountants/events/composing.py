"""What was released: one vocabulary of events, checked, and JSON both ways.

Events are dp-accounting's own classes where one exists and ours where it has no word.
They describe the mathematics of a release and nothing about the data. In JSON an event
is `{"kind": ..., "v": 1, parameters...}`; parameters that are physical numbers stand as
decimal strings, so that what is hashed never depends on how a float is printed.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, cast

import dp_accounting as dp
from dp_accounting import DpEvent

from dpkit.accountants.answers import checks
from dpkit.accountants.events import allocation
from dpkit.accountants.events.allocation import (
    RandomAllocationDpEvent,
)
from dpkit.accountants.events.fields import REQUIRED, check_all, encode
from dpkit.accountants.events.kinds import KINDS, Kind, kind_of, parts_of

VERSION = 1
_Node = TypeVar("_Node")
_Out = TypeVar("_Out")


def validate(event: object) -> None:
    """Refuse an event, or any part of it, that is no honest description of a release.

    dp-accounting's own classes check nothing when they are made: NaN noise would count
    as free. Every accountant and the ledger call this before any work.

    Args:
      event: an event of a known kind, nested to any depth.

    Raises:
      ValueError: an unknown class, or a parameter out of its range.
      TypeError: no event at all, or a parameter that is no plain number.

    Example:
      >>> validate(dp.GaussianDpEvent(float("nan")))
      Traceback (most recent call last):
      ValueError: gaussian: noise_multiplier=nan must be in [1e-100, 1e100]
    """
    pending = [event]
    while pending:
        node = pending.pop()
        _checked(kind_of(node), node)
        pending.extend(parts_of(node))


def to_json(event: DpEvent) -> dict[str, Any]:
    """An event as JSON values, with its kind and version.

    Args:
      event: an event of a known kind, nested to any depth; it is validated.

    Returns:
      A dict of strings, integers, booleans, lists and dicts.

    Raises:
      ValueError: an unknown class, or a parameter out of its range.
      TypeError: no event at all, or a parameter that is no plain number.

    Example:
      >>> to_json(dp.PoissonSampledDpEvent(0.01, dp.GaussianDpEvent(1.0)))
      {'kind': 'poisson_gaussian', 'v': 1, 'noise_multiplier': '1.0',
       'sampling_rate': '0.01'}
    """

    def write(node: DpEvent, parts: list[Any]) -> dict[str, Any]:
        kind = kind_of(node)
        values = {name: encode(v) for name, v in _checked(kind, node).items()}
        data: dict[str, Any] = {"kind": kind.name, "v": VERSION}
        if kind.parts is not None:
            data[kind.parts] = parts[0] if kind.single else parts
        return data | values

    return _fold(event, parts_of, write)


def from_json(data: dict[str, Any] | str) -> DpEvent:
    """The event that JSON describes: what `to_json` wrote, or a person by hand.

    Plain numbers are accepted for decimal strings, a missing `v` means 1, and `count`
    beside any kind wraps that event in a repeat.

    Args:
      data: a dict, or JSON text.

    Returns:
      The event; `from_json(to_json(event)) == event`.

    Raises:
      ValueError: unknown kind or field, a newer version, a bad value; it is named.

    Example:
      >>> from_json('{"kind": "gaussian", "noise_multiplier": 2, "count": 3}')
      SelfComposedDpEvent(event=GaussianDpEvent(noise_multiplier=2.0), count=3)
    """
    if isinstance(data, str):
        try:
            data = json.loads(data)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"event is not readable JSON: {error}") from None
    return _fold(data, _json_parts, _read)


def sequential(events: Iterable[DpEvent]) -> DpEvent:
    """All of the events, one after the other, on the same data.

    Args:
      events: any number of events, of any kinds.

    Returns:
      The one event, if there is one, else their composition; validated.

    Raises:
      ValueError: an unknown class, or a parameter out of its range.
      TypeError: something that is no event.

    Example:
      >>> from dpkit.accountants.events import PureDpEvent
      >>> sequential([PureDpEvent(0.1), dp.GaussianDpEvent(1.0)])
      ComposedDpEvent(events=[PureDpEvent(epsilon=0.1), GaussianDpEvent(...)])
    """
    listed = list(events)
    composed = listed[0] if len(listed) == 1 else dp.ComposedDpEvent(listed)
    validate(composed)
    return composed


def repeat(event: DpEvent, count: int) -> DpEvent:
    """The same event `count` times; the event itself if that is once.

    Args:
      event: any event.
      count: at least 1.

    Returns:
      The repeated event, validated.

    Raises:
      ValueError: count below 1, or an event that `validate` refuses.
      TypeError: count is no integer.

    Example:
      >>> from dpkit.accountants.events import PureDpEvent
      >>> repeat(PureDpEvent(0.1), 20)
      SelfComposedDpEvent(event=PureDpEvent(epsilon=0.1), count=20)
    """
    validate(event)
    count = checks.integer_at_least(1, count=count)
    return event if count == 1 else dp.SelfComposedDpEvent(event, count)


def flatten(event: DpEvent) -> list[tuple[DpEvent, int]]:
    """The releases that a composition is made of, each with how often it happens.

    Equal releases are merged, sequential and repeat disappear, sampling at rate 1 is no
    sampling, random allocation comes in single epochs; parallel and repeat_and_select
    stay whole. The order is that of first use.

    Args:
      event: any event that `validate` accepts.

    Returns:
      (release, count) pairs, counts as exact integers.

    Example:
      >>> twice = repeat(dp.PoissonSampledDpEvent(1.0, dp.GaussianDpEvent(1.0)), 2)
      >>> flatten(sequential([twice, dp.GaussianDpEvent(1.0)]))
      [(GaussianDpEvent(noise_multiplier=1.0), 3)]
    """
    counts: dict[DpEvent, int] = {}
    pending = [(event, 1)]
    while pending:
        node, times = pending.pop()
        if isinstance(node, dp.SelfComposedDpEvent):
            pending.append((node.event, times * int(node.count)))
        elif isinstance(node, dp.ComposedDpEvent):
            pending.extend((part, times) for part in reversed(node.events))
        elif isinstance(node, RandomAllocationDpEvent):
            for release, count in allocation.released(node):
                counts[release] = counts.get(release, 0) + times * count
        else:
            release = _normal(node)
            counts[release] = counts.get(release, 0) + times
    return list(counts.items())


def _normal(event: DpEvent) -> DpEvent:
    """A release in its hashable normal form, sampling at rate 1 taken away."""
    kind = kind_of(event)
    sampled = isinstance(event, dp.PoissonSampledDpEvent)
    if sampled and event.sampling_probability == 1:
        return _normal(event.event)
    if kind.parts is None:
        return kind.build(**_checked(kind, event))
    parts = tuple(_normal_whole(part) for part in parts_of(event))
    return kind.build(parts=parts, **_checked(kind, event))


def _normal_whole(event: DpEvent) -> DpEvent:
    """A child of parallel or repeat_and_select, flat, in a form that can be hashed."""
    parts = tuple(
        release if count == 1 else dp.SelfComposedDpEvent(release, count)
        for release, count in flatten(event)
    )
    return parts[0] if len(parts) == 1 else dp.ComposedDpEvent(cast(Any, parts))


def _checked(kind: Kind, event: object) -> dict[str, Any]:
    """An event's fields, checked and coerced; errors carry the kind's name."""
    try:
        values = check_all(kind.fields, kind.read(event))
        kind.check(**values)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{kind.name}: {error}") from None
    return values


def _read(data: dict[str, Any], parts: list[DpEvent]) -> DpEvent:
    """One event from its JSON and its children, already read."""
    kind = KINDS[data["kind"]]
    given = {k: v for k, v in data.items() if k not in ("kind", "v", kind.parts)}
    count = None if "count" in kind.fields else given.pop("count", None)
    if unknown := sorted(set(given) - set(kind.fields)):
        raise ValueError(f"{kind.name}: unknown field {', '.join(unknown)}")
    try:
        values = {
            name: _field_value(name, field, given)
            for name, field in kind.fields.items()
        }
        kind.check(**values)
        event = kind.build(**values, **({"parts": parts} if kind.parts else {}))
        return event if count is None else repeat(event, count)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{kind.name}: {error}") from None


def _field_value(name: str, field: Any, given: dict[str, Any]) -> Any:
    """A field's checked value, or its default."""
    if name in given:
        return field.decode(name, given[name])
    if field.default is REQUIRED:
        raise ValueError(f"field {name} is missing")
    return field.default


def _json_parts(data: Any) -> Sequence[Any]:
    """The children of an event in JSON; refuses what is no event of ours."""
    if not isinstance(data, dict):
        raise ValueError(f"event={data!r} must be an object with a kind")
    name = data.get("kind")
    if not isinstance(name, str) or name not in KINDS:
        known = ", ".join(sorted(KINDS))
        raise ValueError(f"kind={name!r} is unknown; known: {known}")
    version = data.get("v", VERSION)
    if isinstance(version, bool) or version != VERSION:
        raise ValueError(f"{name}: v={version!r} is not the version {VERSION} known")
    kind = KINDS[name]
    if kind.parts is None:
        return ()
    children = data.get(kind.parts)
    if kind.single:
        children = [children]
    if not isinstance(children, list):
        raise ValueError(f"{name}: {kind.parts} must be a list of events")
    return children


def _fold(
    root: _Node,
    parts_of_node: Callable[[_Node], Sequence[_Node]],
    build: Callable[[_Node, list[_Out]], _Out],
) -> _Out:
    """Build a tree bottom-up without recursion: nesting may be deep."""
    pending: list[tuple[_Node, int | None]] = [(root, None)]
    done: list[_Out] = []
    while pending:
        node, size = pending.pop()
        if size is None:
            parts = parts_of_node(node)
            pending.append((node, len(parts)))
            pending.extend((part, None) for part in reversed(parts))
        else:
            first = len(done) - size
            done[first:] = [build(node, done[first:])]
    return done[0]
