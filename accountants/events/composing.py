"""Events put together and taken apart: checked, repeated, in sequence, flat.

Events are dp-accounting's own classes where one exists and ours where it has no word.
They describe the mathematics of a release and nothing about the data.
"""

from collections.abc import Iterable
from typing import Any, cast

import dp_accounting as dp
from dp_accounting import DpEvent

from dpkit.accountants.answers import checks
from dpkit.accountants.events import allocation
from dpkit.accountants.events.allocation import RandomAllocationDpEvent
from dpkit.accountants.events.fields import check_all
from dpkit.accountants.events.kinds import Kind, kind_of, parts_of


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
    pending: list[tuple[object, int]] = [(event, 1)]
    while pending:
        node, times = pending.pop()
        values = checked(kind_of(node), node)
        if isinstance(node, dp.SelfComposedDpEvent):
            times = checks.count(
                **{"count, multiplied over its repeats,": times * values["count"]}
            )
        pending.extend((part, times) for part in parts_of(node))


def sequential(events: DpEvent | Iterable[DpEvent]) -> DpEvent:
    """All of the events, one after the other, on the same data.

    Args:
      events: one event, or any number of them, of any kinds.

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
    listed = [events] if isinstance(events, DpEvent) else list(events)
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
    count = checks.count(count=count)
    return event if count == 1 else dp.SelfComposedDpEvent(event, count)


def flatten(event: DpEvent) -> list[tuple[DpEvent, int]]:
    """The releases that a valid event is made of, with exact counts.

    Equal releases are merged, sequential and repeat disappear, sampling at rate 1 is no
    sampling, random allocation comes in single epochs; parallel and repeat_and_select
    stay whole. The order is that of first use.

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
        return kind.build(**checked(kind, event))
    parts = tuple(_normal_whole(part) for part in parts_of(event))
    return kind.build(parts=parts, **checked(kind, event))


def _normal_whole(event: DpEvent) -> DpEvent:
    """A child of parallel or repeat_and_select, flat, in a form that can be hashed."""
    parts = tuple(
        release if count == 1 else dp.SelfComposedDpEvent(release, count)
        for release, count in flatten(event)
    )
    return parts[0] if len(parts) == 1 else dp.ComposedDpEvent(cast(Any, parts))


def checked(kind: Kind, event: object) -> dict[str, Any]:
    """An event's fields, checked and coerced; errors carry the kind's name."""
    try:
        values = check_all(kind.fields, kind.read(event))
        kind.check(**values)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{kind.name}: {error}") from None
    return values
