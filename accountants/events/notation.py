"""Events in JSON: `{"kind": ..., "v": 1, parameters...}`, and back.

Parameters that are physical numbers stand as decimal strings, so that what is hashed
never depends on how a float is printed.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from dp_accounting import DpEvent

from dpkit.accountants.events.composing import checked, repeat
from dpkit.accountants.events.fields import encode
from dpkit.accountants.events.kinds import KINDS, kind_of, parts_of

VERSION = 1
_Node = TypeVar("_Node")
_Out = TypeVar("_Out")


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
      >>> import dp_accounting as dp
      >>> to_json(dp.PoissonSampledDpEvent(0.01, dp.GaussianDpEvent(1.0)))
      {'kind': 'poisson_gaussian', 'v': 1, 'noise_multiplier': '1.0',
       'sampling_rate': '0.01'}
    """

    def write(node: DpEvent, parts: list[Any]) -> dict[str, Any]:
        kind = kind_of(node)
        values = {name: encode(v) for name, v in checked(kind, node).items()}
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


def _read(data: dict[str, Any], parts: list[DpEvent]) -> DpEvent:
    """One event from its JSON and its children, already read."""
    kind = KINDS[data["kind"]]
    given = {k: v for k, v in data.items() if k not in ("kind", "v", kind.parts)}
    count = None if "count" in kind.fields else given.pop("count", None)
    if unknown := sorted(set(given) - set(kind.fields)):
        raise ValueError(f"{kind.name}: unknown field {', '.join(unknown)}")
    try:
        values = {name: f.decode(name, given) for name, f in kind.fields.items()}
        kind.check(**values)
        event = kind.build(**values, **({"parts": parts} if kind.parts else {}))
        return event if count is None else repeat(event, count)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{kind.name}: {error}") from None


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
