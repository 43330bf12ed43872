"""Noise, clip norms and batches that change during a run, by a public schedule.

A schedule is a list of pieces (steps, what holds for so many steps), fixed beforehand:
every piece is priced as what it is.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from collections.abc import Hashable, Sequence
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from dp_accounting import ComposedDpEvent, DpEvent

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.relations import Relation
from dpkit.mechanisms._drawing import folded
from dpkit.mechanisms.clipping import GaussianSum
from dpkit.mechanisms.clips import Clip, Flat
from dpkit.mechanisms.cyclic import CyclicSampler
from dpkit.mechanisms.noise import gaussian_noise
from dpkit.mechanisms.protocol import Key, PyTree
from dpkit.mechanisms.sampler import Batch, Sampler, checked_step, refuse_step
from dpkit.mechanisms.stream import Steady

_PIECE = 0x50494543


@dataclasses.dataclass(frozen=True)
class ChangingSum(Steady):
    """One Gaussian sum after another, each for so many steps. See `Stream`.

    Privacy: `run_event` is the composition of the pieces, each on the sampler's batches
    of its steps. The state is the number of the step, which is public.

    Args:
      parts: (steps, GaussianSum) pairs. Clip norms may change if clipping is flat.

    Raises:
      ValueError: no parts; another kind of noise, whose steps hang together; clips that
        differ in more than the norm of flat clipping.

    Example:
      >>> stream = ChangingSum(((3, GaussianSum(1.0, 2.0)), (5, GaussianSum(1.0, 1.0))))
      >>> stream.stddev_at(2) > stream.stddev_at(3), stream.clip_at(7)
      (True, 1.0)
    """

    parts: tuple[tuple[int, GaussianSum], ...]

    def __post_init__(self) -> None:
        """Refuses parts that don't go together."""
        if not self.parts:
            raise ValueError("parts=(): needed (steps, GaussianSum) pairs")
        for steps, one in self.parts:
            checks.integer_at_least(1, steps=steps)
            if not isinstance(one, GaussianSum):
                raise ValueError(
                    f"{type(one).__name__} goes by earlier steps, so nothing else may "
                    "change during the run; give numbers instead of schedules"
                )
        clips = [one.clip for _, one in self.parts]
        flat = all(isinstance(clip, Flat) for clip in clips)
        if not flat and any(clip != clips[0] for clip in clips):
            raise ValueError(
                f"parts: they clip by {clips}; only the norm of flat clipping may "
                "change"
            )

    def __getattr__(self, name: str) -> NoReturn:
        """There is no one number for all steps."""
        raise AttributeError(
            f"{name}: this plan follows a schedule; ask plan.clip_at(step), "
            "plan.stddev(step), plan.divisor(step) or plan.pieces"
        )

    @property
    def max_summands(self) -> int:
        """The most records that every part's noise covers."""
        return min(one.max_summands for _, one in self.parts)

    @property
    def alike(self) -> bool:
        """False: pieces differ."""
        return False

    @property
    def clip_moves(self) -> bool:
        """Whether the clip norm changes."""
        return len({one.clip_norm for _, one in self.parts}) > 1

    @property
    def clipping(self) -> Hashable:
        """The clip, or words for norms that change."""
        first = self.parts[0][1].clip
        if not self.clip_moves:
            return first
        norms = [(steps, one.clip_norm) for steps, one in self.parts]
        return f"flat clipping with the norms {norms}"

    def check(self, sampler: Sampler, steps: int) -> None:
        """Refuses batches, or a run, that the parts are not made for."""
        if steps != sum(length for length, _ in self.parts):
            raise ValueError(f"steps={steps} is not what the parts last")
        samplers = self._samplers(sampler)
        for (length, one), own in zip(self.parts, samplers, strict=True):
            one.check(own, length)
        for (length, _), own in zip(self.parts[:-1], samplers, strict=False):
            if length % own.steps_per_epoch:
                raise ValueError(
                    f"a piece of {length} steps needs whole epochs of "
                    f"{own.steps_per_epoch} steps: the steps of an epoch belong "
                    "together; lengthen or shorten it"
                )

    def run_event(
        self, sampler: Sampler, steps: int, relation: Relation | str
    ) -> DpEvent:
        """The composition of the pieces that the first steps are in."""
        found: list[DpEvent] = []
        samplers = self._samplers(sampler)
        for (length, one), own in zip(self.parts, samplers, strict=True):
            if steps > 0:
                found.append(one.run_event(own, min(steps, length), relation))
            steps -= length
        return found[0] if len(found) == 1 else ComposedDpEvent(found)

    def step_event(self, sampler: Sampler, relation: Relation | str) -> DpEvent:
        """Refused.

        Raises:
          ValueError: always.
        """
        raise ValueError("the steps of a schedule differ: use charge or event")

    def clip_at(self, step: Any) -> Any:
        """C at a step, or the clip if it isn't flat."""
        if not isinstance(self.parts[0][1].clip, Flat):
            return self.parts[0][1].clip
        return self._at(step, [one.clip_norm for _, one in self.parts])

    def stddev_at(self, step: Any) -> Any:
        """Standard deviation of the noise at a step."""
        return self._at(step, [one.stddev for _, one in self.parts])

    def init(self, total_like: PyTree) -> jax.Array:
        """Step 0."""
        del total_like
        return jnp.zeros((), jnp.int32)

    def limit(self, state: jax.Array) -> Any:
        """The clip norm of the step, if it is not always the same."""
        return self.clip_at(state) if self.clip_moves else ()

    def clip_for(self, state: jax.Array) -> Clip:
        """The clip of the step."""
        return Flat(self.clip_at(state)) if self.clip_moves else self.parts[0][1].clip

    def step(
        self,
        key: Key,
        total: PyTree,
        state: jax.Array,
        statistics: PyTree = (),
        *,
        generator: str | None = None,
    ) -> tuple[PyTree, jax.Array]:
        """The total plus the noise of this step; see `Stream`."""
        del statistics
        noise = gaussian_noise(
            key, total, self.stddev_at(state), generator=generator or "threefry"
        )
        noisy = jax.tree.map(lambda x, z: x.astype(z.dtype) + z, total, noise)
        return noisy, state + 1

    def scaled(self, factor: float) -> ChangingSum:
        """All parts with their noise multipliers times a factor."""
        return ChangingSum(tuple((n, one.scaled(factor)) for n, one in self.parts))

    def with_noise(self, noise_multiplier: float) -> ChangingSum:
        """Refused: there are several.

        Raises:
          ValueError: always.
        """
        raise ValueError("the plan follows a schedule of noise: use scaled(factor)")

    def words(self) -> dict[str, Any]:
        """Each setting as [(steps, value), ...]."""
        parts = [(steps, one.words()) for steps, one in self.parts]
        return {name: [(n, words[name]) for n, words in parts] for name in parts[0][1]}

    def _samplers(self, sampler: Sampler) -> list[Sampler]:
        """The sampler of each part."""
        if not isinstance(sampler, PiecewiseSampler):
            return [sampler] * len(self.parts)
        lengths = [steps for steps, _ in sampler.parts]
        if lengths != [steps for steps, _ in self.parts]:
            raise ValueError(
                f"sampler has pieces of {lengths} steps: needed those of the noise, "
                f"{[steps for steps, _ in self.parts]}"
            )
        return [own for _, own in sampler.parts]

    def _at(self, step: Any, values: list[float]) -> Any:
        """The value at a step: a constant if nothing changes it, even under jit."""
        return piecewise(step, [steps for steps, _ in self.parts], values)


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


def piecewise(step: Any, lengths: Sequence[int], values: Sequence[float]) -> Any:
    """The value at a step: a constant if nothing changes it, even under jit.

    Args:
      step: from 0; may be traced.
      lengths: steps of each piece.
      values: one for each piece.

    Example:
      >>> piecewise(2, (2, 3), (1.0, 4.0)), piecewise(jnp.int32(1), (2, 3), (4.0, 4.0))
      (4.0, 4.0)
    """
    if len(set(values)) == 1:
        return values[0]
    return lookup(step, list(itertools.accumulate(lengths)), values)


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
