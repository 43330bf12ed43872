"""Numbers that change during a run in a way that is fixed beforehand.

A schedule is a list of pieces (steps, value): the first value for so many steps, then
the next. It is public and part of the plan, so every piece is accounted for exactly.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from dp_accounting import ComposedDpEvent, DpEvent

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.relations import Relation
from dpkit.mechanisms._drawing import folded
from dpkit.mechanisms.clips import Flat
from dpkit.mechanisms.cyclic import CyclicSampler
from dpkit.mechanisms.sampler import Batch, Sampler, checked_step, refuse_step

_PIECE = 0x50494543


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
    found: list[tuple[int, Any]] = []
    for piece in pieces:
        if not is_schedule(piece) or len(piece) != 2:
            raise ValueError(f"{name}={piece!r}: needed pieces (steps, value)")
        steps = checks.integer_at_least(1, **{f"{name} steps": piece[0]})
        found.append((steps, piece[1]))
    if not found:
        raise ValueError(f"{name}=(): needed at least one piece (steps, value)")
    return tuple(joined(found))


def joined(pieces: Iterable[tuple[int, Any]]) -> list[tuple[int, Any]]:
    """The pieces, with those next to each other that have the same value as one.

    Example:
      >>> joined([(10, 1.0), (5, 2.0), (5, 2.0)])
      [(10, 1.0), (10, 2.0)]
    """
    found: list[tuple[int, Any]] = []
    for steps, value in pieces:
        if found and found[-1][1] == value:
            steps += found.pop()[0]
        found.append((steps, value))
    return found


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
    found, start = [], 0
    for end in cuts:
        values = {
            name: pieces[bisect.bisect_right(ends[name], start)][1]
            for name, pieces in lists.items()
        }
        found.append((end - start, {**settings, **values}))
        start = end
    return found


def lookup(step: int | jax.Array, ends: Sequence[int], values: Sequence[float]) -> Any:
    """The value of the piece that a step is in; the last one's beyond the end.

    Args:
      step: from 0; may be traced.
      ends: the first step after each piece.
      values: one for each piece.

    Returns:
      A number; a float32 scalar for a traced step.

    Example:
      >>> lookup(2, (2, 5), (1.0, 4.0)), lookup(jnp.int32(1), (2, 5), (1.0, 4.0))
      (4.0, Array(1., dtype=float32))
    """
    if not isinstance(step, jax.Array):
        return values[min(bisect.bisect_right(ends, step), len(values) - 1)]
    passed = jnp.sum(step >= jnp.asarray(ends[:-1], jnp.int32), dtype=jnp.int32)
    return jnp.asarray(values, jnp.float32)[passed]


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
    if not isinstance(plan.mechanism, ChangingSum):
        raise ValueError("mechanism is one for all steps: use create")
    for piece in pieces[:-1]:
        epoch = piece.sampler.steps_per_epoch
        if piece.steps % epoch:
            raise ValueError(
                f"a piece of {piece.steps} steps needs whole epochs of {epoch} steps: "
                "the steps of an epoch belong together; lengthen or shorten it"
            )
    clips = [piece.mechanism.clip for piece in pieces]
    flat = all(isinstance(clip, Flat) for clip in clips)
    if not flat and any(clip != clips[0] for clip in clips):
        raise ValueError(
            f"pieces: they clip by {clips}; only the norm of flat clipping may change"
        )


@dataclasses.dataclass(frozen=True)
class ChangingSum:
    """Stands where a plan's mechanism would: there is none for all steps.

    Example:
      >>> ChangingSum().clip_norm
      Traceback (most recent call last):
      AttributeError: clip_norm: this plan follows a schedule; ask plan.clip_at(step),
      plan.stddev(step), plan.divisor(step) or plan.pieces
    """

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"{name}: this plan follows a schedule; ask plan.clip_at(step), "
            "plan.stddev(step), plan.divisor(step) or plan.pieces"
        )


@dataclasses.dataclass(frozen=True)
class PiecewiseSampler:
    """One sampler after another, each for so many steps, with slots for the largest.

    Where steps are draws of their own, the key of a step is folded with its number in
    the run; otherwise every piece has its own branch of the key, so that no two pieces
    share an epoch's draws.

    Privacy: as the pieces, one after the other; `run_event` of one mechanism composes
    them.

    Args:
      parts: (steps, sampler) pairs.

    Raises:
      ValueError: pieces with different bounds on the records, or cyclic ones, whose
        partition must last.

    Example:
      >>> from dpkit.mechanisms import PoissonSampler
      >>> small, large = PoissonSampler(0.1, 20, 100), PoissonSampler(0.3, 60, 100)
      >>> PiecewiseSampler(((5, small), (5, large))).max_batch_size
      60
    """

    parts: tuple[tuple[int, Sampler], ...]

    def __post_init__(self) -> None:
        """Refuses parts that don't go together."""
        if len({sampler.max_records for _, sampler in self.parts}) > 1:
            raise ValueError("max_records must be the same in every piece of a plan")
        if any(isinstance(sampler, CyclicSampler) for _, sampler in self.parts):
            raise ValueError(
                "expected_batch_size can't change in cyclic order: its partition is "
                "drawn once; give one number"
            )

    @property
    def max_batch_size(self) -> int:
        """Slots of the largest part."""
        return max(sampler.max_batch_size for _, sampler in self.parts)

    @property
    def max_records(self) -> int:
        """The bound of every part."""
        return self.parts[0][1].max_records

    @property
    def expected_batch_size(self) -> float:
        """Records in a batch on average over the run."""
        total = sum(steps for steps, _ in self.parts)
        return sum(n * s.expected_batch_size for n, s in self.parts) / total

    @property
    def steps_per_epoch(self) -> int:
        """All steps of the run: no smaller part of it repeats."""
        return sum(steps for steps, _ in self.parts)

    def supports(self, relation: Relation | str) -> bool:
        """Whether all parts do."""
        return all(sampler.supports(relation) for _, sampler in self.parts)

    def amplify(self, event: DpEvent, relation: Relation | str) -> DpEvent:
        """Refused: steps differ; use `run_event`."""
        del relation
        return refuse_step(self, event)

    def run_event(
        self, event: DpEvent, steps: int, relation: Relation | str
    ) -> DpEvent:
        """The event of the first `steps` steps, all with the same release."""
        left, found = checks.integer_at_least(1, steps=steps), []
        for length, sampler in self.parts:
            if left > 0:
                found.append(sampler.run_event(event, min(left, length), relation))
            left -= length
        if left > 0:
            raise ValueError(f"steps={steps} is more than the parts have")
        return ComposedDpEvent(found)

    def batch(self, key: jax.Array, step: int, num_records: int) -> Batch:
        """The batch of one step, padded to the slots of the largest part."""
        ends = list(itertools.accumulate(length for length, _ in self.parts))
        number = bisect.bisect_right(ends, checked_step(step))
        if number == len(ends):
            raise ValueError(f"step={step} is beyond the last part")
        length, sampler = self.parts[number]
        if any(part.steps_per_epoch > 1 for _, part in self.parts):
            key = folded(folded(key, _PIECE), number)
            step -= ends[number] - length
        batch = sampler.batch(key, step, num_records)
        room = self.max_batch_size - batch.mask.shape[-1]
        widths = [(0, 0)] * (batch.mask.ndim - 1) + [(0, room)]
        return Batch(np.pad(batch.indices, widths), np.pad(batch.mask, widths))
