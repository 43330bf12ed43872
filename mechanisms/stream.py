r"""What noises the sums of a run, step after step: the contract of every kind of noise.

A run draws batches (`Sampler`), adds up clipped records, and publishes the sum with
noise: that is a stream's part. It says how records are clipped, what the steps cost,
and what is published of one step's sum; whatever a step hands on to the next is its
state. Everything that trains is written against this page alone, so a new kind of noise
is one file with one class, and a row in `tests/streams.py`.

    state = stream.init(total_like)                  before the first step
    clip = stream.clip_for(state)                    what clips the records of a step
    stats = stream.statistics(norms, state)          private, of a batch's norms
    noisy, state = stream.step(key, total, state, stats)      what is published, goes on
    stream.run_event(sampler, steps, relation)       what the first steps cost together

| stream | clip norm | noise of a step | steps |
|---|---|---|---|
| `GaussianSum` | fixed | independent | alike |
| `ChangingSum` | by a schedule | independent, by a schedule | alike within a piece |
| `AdaptiveGaussianSum` | follows a quantile of the norms | independent | alike |
| `CorrelatedSum` | fixed | takes back earlier noise | one release |

Privacy: the outputs of all steps together cost `run_event`, under these conditions: the
total of a step is a sum of records that `clip_for(state)` clipped, over the batch that
the sampler drew for it; `state` and the clip depend on released values alone; the keys
are fresh. A record is a null record where it is all zeros or not finite.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Protocol, Self, runtime_checkable

import jax
from dp_accounting import DpEvent

from dpkit.accountants.answers.relations import Relation, as_relation
from dpkit.mechanisms.clips import Clip, Flat
from dpkit.mechanisms.noise import GENERATORS
from dpkit.mechanisms.sampler import Sampler


@runtime_checkable
class Stream(Protocol):
    """What clips, noises and prices the sums of a run; a frozen dataclass.

    Example:
      >>> from dpkit.mechanisms.clipping import GaussianSum
      >>> isinstance(GaussianSum(clip_norm=1.0, noise_multiplier=1.0), Stream)
      True
    """

    @property
    def alike(self) -> bool:
        """Whether every step is a release of its own, all with one event."""
        ...

    @property
    def generators(self) -> tuple[str, ...]:
        """Where the noise can come from; see `gaussian_noise`."""
        ...

    @property
    def clipping(self) -> Hashable:
        """The identity of how records are clipped: a clip, or words for what moves."""
        ...

    def check(self, sampler: Sampler, steps: int) -> None:
        """Refuses batches, or a number of steps, that the noise is not made for."""
        ...

    def run_event(
        self, sampler: Sampler, steps: int, relation: Relation | str
    ) -> DpEvent:
        """What the first `steps` steps on this sampler's batches cost together."""
        ...

    def step_event(self, sampler: Sampler, relation: Relation | str) -> DpEvent:
        """What one step costs; ValueError where they aren't `alike`."""
        ...

    def clip_at(self, step: Any) -> Any:
        """What is known beforehand of the clip at a step: C if flat, else the clip."""
        ...

    def stddev_at(self, step: Any) -> Any:
        """Standard deviation of the noise, as far as known; a step may be traced."""
        ...

    def init(self, total_like: Any) -> Any:
        """The state before the first step, for totals of these shapes and dtypes."""
        ...

    @property
    def clip_moves(self) -> bool:
        """Whether the clip norm differs from step to step, so that the state has it."""
        ...

    def limit(self, state: Any) -> Any:
        """The clip norm of the step to come where it moves, else ()."""
        ...

    def clip_for(self, state: Any) -> Clip:
        """What clips the records of the step to come; may hold a traced norm."""
        ...

    def statistics(self, norms: jax.Array, state: Any) -> Any:
        """What a step needs beside the sum, from the norms (B,), 0 for padding."""
        ...

    def step(
        self,
        key: jax.Array,
        total: Any,
        state: Any,
        statistics: Any = (),
        *,
        generator: str | None = None,
    ) -> tuple[Any, Any]:
        """What is published about one step's total, and the next state. Pure.

        Args:
          key: a key used for this step alone, such as `fold_in(root, step)`.
          total: the sum of the step's clipped records; zeros for an empty batch.
          state: of `init`, or of the step before.
          statistics: of the batch, by `statistics(norms, state)`.
          generator: one of `generators`; None is the stream's own, Threefry.
        """
        ...

    def scaled(self, factor: float) -> Self:
        """The same with every noise multiplier times a factor."""
        ...

    def with_noise(self, noise_multiplier: float) -> Self:
        """The same with another noise multiplier; ValueError if there are several."""
        ...

    def words(self) -> dict[str, Any]:
        """The settings of `DPSGDPlan.create` that make it, defaults left out."""
        ...


class Steady:
    """Mixin: a fixed clip, steps that are alike, either generator, nothing to keep.

    A class that has it says `clip`, `stddev`, `noise_multiplier`, `max_summands`,
    `event`, `step` and `with_noise`, and whatever else is different about it.

    Example:
      >>> from dpkit.mechanisms.clipping import GaussianSum
      >>> GaussianSum(clip_norm=1.0, noise_multiplier=1.5).alike
      True
    """

    generators: tuple[str, ...] = GENERATORS

    @property
    def alike(self) -> bool:
        """True."""
        return True

    @property
    def clip_moves(self) -> bool:
        """False."""
        return False

    @property
    def clipping(self: Any) -> Hashable:
        """The clip itself."""
        return self.clip

    def check(self: Any, sampler: Sampler, steps: int) -> None:
        """Refuses batches whose rounding the noise doesn't cover.

        Raises:
          ValueError: batches of more than `max_summands` slots.
        """
        del steps
        if self.max_summands < sampler.max_batch_size:
            raise ValueError(
                f"max_summands={self.max_summands} is below "
                f"max_batch_size={sampler.max_batch_size}: the noise must cover "
                "the rounding of the largest batch"
            )

    def run_event(
        self: Any, sampler: Sampler, steps: int, relation: Relation | str
    ) -> DpEvent:
        """The sampler's event of so many releases."""
        return sampler.run_event(self.event(relation), steps, as_relation(relation))

    def step_event(self: Any, sampler: Sampler, relation: Relation | str) -> DpEvent:
        """The sampler's event of one release."""
        return sampler.amplify(self.event(relation), as_relation(relation))

    def clip_at(self: Any, step: Any) -> Any:
        """C if clipping is flat, else the clip."""
        del step
        return self.clip.clip_norm if isinstance(self.clip, Flat) else self.clip

    def stddev_at(self: Any, step: Any) -> Any:
        """The same at every step."""
        del step
        return self.stddev

    def init(self, total_like: Any) -> Any:
        """Nothing."""
        del total_like
        return ()

    def limit(self, state: Any) -> Any:
        """Nothing: the clip is fixed."""
        del state
        return ()

    def clip_for(self: Any, state: Any) -> Clip:
        """The clip."""
        del state
        return self.clip

    def statistics(self, norms: jax.Array, state: Any) -> Any:
        """Nothing."""
        del norms, state
        return ()

    def scaled(self: Any, factor: float) -> Any:
        """The same with its noise multiplier times a factor."""
        return self.with_noise(factor * self.noise_multiplier)

    def words(self) -> dict[str, Any]:
        """Refused: a noise that `DPSGDPlan.create` makes has words of its own.

        Raises:
          ValueError: always.
        """
        raise ValueError(
            f"{type(self).__name__} has no words in DPSGDPlan.create, so none in JSON"
        )
