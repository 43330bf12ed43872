"""Numbers that change during a run in a way that is fixed beforehand.

A schedule is a list of pieces (steps, value): the first value for so many steps, then
the next. It is public and part of the plan, so every piece is accounted for exactly.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable
from typing import Any

from dpkit.accountants.answers import checks
from dpkit.mechanisms.changing import ChangingSum, PiecewiseSampler


def is_schedule(value: Any) -> bool:
    """Whether a setting is a list of pieces rather than one number.

    Example:
      >>> is_schedule(((10, 1.0), (5, 2.0))), is_schedule(1.0)
      (True, False)
    """
    return isinstance(value, list | tuple)


def checked(name: str, pieces: Any) -> tuple[tuple[int, Any], ...]:
    """The pieces of one setting, those next to each other with one value joined.

    Raises:
      ValueError, TypeError: no pieces, or one that is not (steps, value).

    Example:
      >>> checked("noise_multiplier", [(10, 1.0), (5, 1.0), [5, 2]])
      ((15, 1.0), (5, 2))
    """
    given: list[tuple[int, Any]] = []
    for piece in pieces:
        if not is_schedule(piece) or len(piece) != 2:
            raise ValueError(f"{name}={piece!r}: needed pieces (steps, value)")
        steps = checks.integer_at_least(1, **{f"{name} steps": piece[0]})
        given.append((steps, piece[1]))
    if not given:
        raise ValueError(f"{name}=(): needed at least one piece (steps, value)")
    return tuple(joined(given))


def joined(pieces: Iterable[tuple[int, Any]]) -> list[tuple[int, Any]]:
    """The pieces, with those next to each other that have the same value as one.

    Example:
      >>> joined([(10, 1.0), (5, 2.0), (5, 2.0)])
      [(10, 1.0), (10, 2.0)]
    """
    merged: list[tuple[int, Any]] = []
    for steps, value in pieces:
        if merged and merged[-1][1] == value:
            steps += merged.pop()[0]
        merged.append((steps, value))
    return merged


def aligned(steps: int | None, **settings: Any) -> list[tuple[int, dict[str, Any]]]:
    """All settings, cut where any of them changes.

    Args:
      steps: T, if it was given too; it must be what the schedules last.
      **settings: numbers, or lists of pieces that are equally long.

    Returns:
      (steps, settings) of each piece; one piece if nothing changes.

    Raises:
      ValueError: schedules of different lengths, or of another than `steps`.

    Example:
      >>> for piece in aligned(None, a=((2, 1.0), (3, 4.0)), b=7.0):
      ...     print(piece)
      (2, {'a': 1.0, 'b': 7.0})
      (3, {'a': 4.0, 'b': 7.0})
    """
    lists = {n: checked(n, v) for n, v in settings.items() if is_schedule(v)}
    ends = {
        name: list(itertools.accumulate(length for length, _ in pieces))
        for name, pieces in lists.items()
    }
    lasts = {name: end[-1] for name, end in ends.items()}
    if steps is not None:
        lasts["steps"] = checks.integer_at_least(1, steps=steps)
    if len(set(lasts.values())) > 1:
        lengths = ", ".join(f"{name}: {last}" for name, last in lasts.items())
        raise ValueError(f"schedules of different lengths ({lengths}): make them equal")
    cuts = sorted({end for each in ends.values() for end in each})
    parts, start = [], 0
    for end in cuts:
        values = {
            name: pieces[bisect.bisect_right(ends[name], start)][1]
            for name, pieces in lists.items()
        }
        parts.append((end - start, {**settings, **values}))
        start = end
    return parts


def check_pieces(plan: Any) -> None:
    """Refuses a plan that is not what its pieces, plans as well, make one by one.

    Raises:
      ValueError: pieces that don't add up to the plan, or that cut an epoch.
    """
    pieces = plan.pieces
    if any(piece.pieces for piece in pieces) or len(pieces) < 2:
        raise ValueError("pieces: needed two or more plans without pieces")
    if plan.steps != sum(piece.steps for piece in pieces):
        raise ValueError(f"steps={plan.steps} is not what the pieces last")
    parts = tuple((piece.steps, piece.sampler) for piece in pieces)
    same = all(sampler == plan.sampler for _, sampler in parts)
    if not same and plan.sampler != PiecewiseSampler(parts):
        raise ValueError("sampler is not that of the pieces: use create")
    if plan.stream != ChangingSum(tuple((p.steps, p.stream) for p in pieces)):
        raise ValueError("stream is not that of the pieces: use create")
    plan.stream.check(plan.sampler, plan.steps)
