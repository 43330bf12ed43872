r"""Sums of clipped records, step after step, with correlated Gaussian noise.

    y_t = x_t + stddev (C^-1 z)_t,   z_t ~ N(0, I) independent,   t = 0 ... T - 1

Later noise takes back part of earlier noise, so that the sums of steps 1..t, which are
what training follows, are far less noisy than with independent noise at equal privacy.
What is paid for: one record takes part in several steps, so it moves C x, by `radius`
times the sensitivity of C. Hence the batches must keep to the declared participation;
`participation_of` reads it off a sampler.

The noise w = C^-1 z is made row by row as it is needed.

Sources: Kairouz et al., "Practical and Private (Deep) Learning without Sampling or
Shuffling", 2021, arXiv:2103.00039; Denisov et al., "Improved Differential Privacy for
SGD via Optimal Private Linear Operators on Adaptive Streams", 2022, arXiv:2202.08312;
and those of `strategies`.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from dp_accounting import DpEvent

from dpkit.accountants.answers import checks as _numbers
from dpkit.accountants.answers.relations import Relation
from dpkit.mechanisms import _check
from dpkit.mechanisms._clip import Clip
from dpkit.mechanisms._correlation import empty_memory, next_row
from dpkit.mechanisms.balls_in_bins import BallsInBinsSampler
from dpkit.mechanisms.clipping import GaussianSum
from dpkit.mechanisms.cyclic import CyclicSampler
from dpkit.mechanisms.factorisation import (
    Cyclic,
    MinSeparation,
    Participation,
    SinglePass,
    checked_participation,
    sensitivity,
)
from dpkit.mechanisms.full_batch import FullBatchSampler
from dpkit.mechanisms.noise import GENERATORS, checked_key, gaussian_noise
from dpkit.mechanisms.protocol import Key, PyTree
from dpkit.mechanisms.sampler import Sampler
from dpkit.mechanisms.strategies import Banded, Buffered, SquareRoot, Strategy
from dpkit.mechanisms.stream import Steady


class CorrelatedState(NamedTuple):
    """Where a stream is. Secret: it holds noise that was used, or its keys.

    Example:
      >>> from dpkit.mechanisms import Banded, CorrelatedSum, Cyclic
      >>> stream = CorrelatedSum(
      ...     1.0, 2.0, steps=9, participation=Cyclic(3), strategy=Banded((1.0, 0.5))
      ... )
      >>> int(stream.init(jnp.zeros(4)).step)
      0
    """

    step: jax.Array
    """int32: steps that are done."""
    memory: PyTree
    """float32 (bands - 1, ...) or (buffers, ...) a leaf; of a square root the keys."""


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=(),
    meta_fields=(
        "clip",
        "noise_multiplier",
        "steps",
        "participation",
        "strategy",
        "generator",
        "max_summands",
    ),
)
@dataclasses.dataclass(frozen=True, init=False)
class CorrelatedSum(Steady):
    r"""A stream of sums of clipped records with correlated noise; one event for all.

    y_t = sum_i x_{t,i} phi(||x_{t,i}||) + stddev (C^-1 z)_t,
    stddev = noise_multiplier * C_phi * sensitivity(C) * (1 + n 2^-18),
    C_phi the clip's radius, n = max_summands.

    Privacy: multiplied by C, the outputs are C x + stddev z, a Gaussian mechanism with
    independent noise. In the steps that it takes part in, a record adds vectors of norm
    C_phi at most; by the participation, it moves C x by C_phi * sensitivity(C) at most.
    So the whole run, all T outputs together, is one Gaussian whose noise is
    `noise_multiplier` times the contribution radius, also if the records of later steps
    depend on earlier outputs, C being lower triangular. Under every relation: replacing
    a record by another moves twice as much, which accountants know. Nothing is
    amplified by sampling. The excess n 2^-18 pays for float32 rounding, as in
    `GaussianSum`: totals of steps without the record are the same on both neighbours,
    those with it are moved by C_phi (1 + n 2^-18) at most.

    **The guarantee needs the participation**: no record in steps that it doesn't allow.
    Steps beyond the plan are published as NaN.

    Args:
      clip_norm: C of flat clipping, in the unit of the records.
      noise_multiplier: >= 0, no unit; zero publishes the sums (NonPrivateDpEvent).
      steps: T >= 1, of the whole run.
      participation: SinglePass, Cyclic or MinSeparation.
      strategy: Banded, Buffered or SquareRoot: the matrix C.
      clip: any clipping function, instead of clip_norm.
      generator: of `gaussian_noise`.
      max_summands: n >= 1, the most records in a total that is summed in float32.

    Raises:
      ValueError: a number out of range, or another generator.
      TypeError: a value of the wrong kind.

    Example:
      >>> from dpkit.mechanisms import Cyclic, optimal_bands
      >>> stream = CorrelatedSum(
      ...     clip_norm=1.0,
      ...     noise_multiplier=2.0,
      ...     steps=64,
      ...     participation=Cyclic(16),
      ...     strategy=optimal_bands(64, 16, Cyclic(16)),
      ... )
      >>> stream.event("add_remove")
      GaussianDpEvent(noise_multiplier=2.0)
      >>> total = {"w": jnp.zeros(3)}
      >>> state = stream.init(total)
      >>> noisy, state = stream.step(jax.random.key(0), total, state)
      >>> noisy["w"].shape, int(state.step)
      ((3,), 1)

    Reference: Denisov et al., 2022, arXiv:2202.08312, Theorem 2.1 (adaptive streams);
    Choquette-Choo et al., 2023, arXiv:2306.08153.
    """

    clip: Clip
    noise_multiplier: float
    steps: int
    participation: Participation
    strategy: Strategy
    generator: str
    max_summands: int

    def __init__(
        self,
        clip_norm: float | None = None,
        noise_multiplier: float | None = None,
        *,
        steps: int,
        participation: Participation,
        strategy: Strategy,
        clip: Clip | None = None,
        generator: str = "threefry",
        max_summands: int = 4,
    ) -> None:
        if not isinstance(strategy, Banded | Buffered | SquareRoot):
            raise TypeError(
                f"strategy={strategy!r}: needed Banded, Buffered or SquareRoot"
            )
        one = GaussianSum(clip_norm, noise_multiplier, max_summands, clip=clip)
        fields = {
            "clip": one.clip,
            "noise_multiplier": one.noise_multiplier,
            "steps": _numbers.integer_at_least(1, steps=steps),
            "participation": checked_participation(participation),
            "strategy": strategy,
            "generator": _numbers.one_of(GENERATORS, generator=generator),
            "max_summands": one.max_summands,
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)
        # Refuses noise that float32 can't carry.
        GaussianSum(
            noise_multiplier=self.noise_multiplier * self.sensitivity,
            max_summands=self.max_summands,
            clip=self.clip,
        )

    @property
    def alike(self) -> bool:
        """False: the steps are one release."""
        return False

    @property
    def clip_norm(self) -> float:
        """The clip's radius: the norm that one contribution never passes."""
        return self.clip.radius

    @property
    def sensitivity(self) -> float:
        """What a record of clip norm 1 moves C x by, at most."""
        return _sensitivity(self.strategy, self.steps, self.participation)

    @property
    def stddev(self) -> float:
        """Standard deviation of stddev z, in the unit of a contribution."""
        return self._one_sum.stddev * self.sensitivity

    @property
    def _one_sum(self) -> GaussianSum:
        """A sum on its own with this clip and noise."""
        return GaussianSum(
            noise_multiplier=self.noise_multiplier,
            max_summands=self.max_summands,
            clip=self.clip,
        )

    def event(self, relation: Relation | str) -> DpEvent:
        """One Gaussian for the whole run, under every relation."""
        return self._one_sum.event(relation)

    def check(self, sampler: Sampler, steps: int) -> None:
        """Refuses batches, or a run, that the noise was not made for.

        Raises:
          ValueError: another number of steps, a record in other steps than declared, or
            too large batches.
          TypeError: a sampler that bounds no record's number of steps.
        """
        super().check(sampler, steps)
        if self.steps != steps:
            raise ValueError(
                f"steps={steps}: the correlated noise is for {self.steps} steps"
            )
        found = participation_of(sampler, steps)
        if found != self.participation:
            raise ValueError(
                f"stream is for participation={self.participation}, the batches of "
                f"{sampler} have {found}, and only that is accepted: use create"
            )

    def run_event(
        self, sampler: Sampler, steps: int, relation: Relation | str
    ) -> DpEvent:
        """That of the whole run: its beginning is no dearer."""
        del sampler, steps
        return self.event(relation)

    def step_event(self, sampler: Sampler, relation: Relation | str) -> DpEvent:
        """Refused.

        Raises:
          ValueError: always.
        """
        raise ValueError("steps with correlated noise belong together: use charge")

    def with_noise(self, noise_multiplier: float) -> CorrelatedSum:
        """The same stream with another noise multiplier."""
        return dataclasses.replace(self, noise_multiplier=noise_multiplier)

    def words(self) -> dict[str, Any]:
        """The clip, the noise multiplier, and the kind of noise."""
        kind: dict[str, Any] = {"noise": "square_root"}
        if isinstance(self.strategy, Buffered):
            kind = {"noise": "buffered"}
        if isinstance(self.strategy, Banded):
            kind = {"noise": "banded", "bands": len(self.strategy.bands)}
        return {"clip": self.clip, **kind, "noise_multiplier": self.noise_multiplier}

    def contribute(self, key: Key, record: PyTree) -> PyTree:
        """The record, clipped; the key is not used."""
        return self._one_sum.contribute(key, record)

    def init(self, total_like: PyTree) -> CorrelatedState:
        """The state before the first step, for totals of these shapes and dtypes.

        Args:
          total_like: arrays, or anything with a `shape` and a floating `dtype`.

        Raises:
          TypeError: a leaf is not floating.
        """
        _check.floating(total_like=total_like)
        memory = empty_memory(self.strategy, self.steps, total_like)
        return CorrelatedState(jnp.zeros((), jnp.int32), memory)

    def step(
        self,
        key: Key,
        total: PyTree,
        state: CorrelatedState,
        statistics: PyTree = (),
        *,
        generator: str | None = None,
    ) -> tuple[PyTree, CorrelatedState]:
        """What is published about one step's total, and the next state. Pure.

        Args:
          key: a key used for this step alone, such as `fold_in(root, step)`.
          total: the sum of the step's contributions, floating; zeros for an empty
            batch.
          state: of `init`, or of the step before.
          statistics: not used.
          generator: instead of the stream's own.

        Returns:
          The total plus noise, in float32 or wider (NaN beyond `steps`); the state.
        """
        del statistics
        generator = generator or self.generator
        checked_key(key, generator)
        _check.floating(total=total)
        number = state.step
        draw = functools.partial(gaussian_noise, stddev=1.0, generator=generator)
        noise, memory = next_row(self.strategy, draw, key, total, number, state.memory)
        planned = number < self.steps

        def publish(x: jax.Array, w: jax.Array) -> jax.Array:
            noisy = x.astype(w.dtype) + w * self.stddev
            return jnp.where(planned, noisy, jnp.full_like(noisy, jnp.nan))

        published = jax.tree.map(publish, total, noise)
        return published, CorrelatedState(number + 1, memory)

    def run(self, key: Key, totals: PyTree) -> PyTree:
        """All steps at once, for totals that are known: leaves (steps, ...).

        Args:
          key: a key used for this run alone.
          totals: at most `steps` totals, stacked on axis 0.

        Returns:
          What `step` publishes, stacked.

        Raises:
          ValueError: no totals, or more than `steps`.

        The step with number t has the key fold_in(split(key, 1)[0], t).
        """
        number = _check.same_length(totals=totals)
        if not 1 <= number <= self.steps:
            raise ValueError(
                f"totals has {number} steps: needed 1 to steps={self.steps}"
            )
        first = jax.tree.map(lambda leaf: leaf[0], totals)
        (root,) = jax.random.split(checked_key(key, self.generator), 1)

        def one(state: CorrelatedState, total: Any) -> tuple[CorrelatedState, PyTree]:
            at = jax.random.fold_in(root, state.step)
            noisy, state = self.step(at, total, state)
            return state, noisy

        return jax.lax.scan(one, self.init(first), totals)[1]


def participation_of(sampler: Sampler, steps: int) -> Participation:
    """How records take part in the steps of a run on this sampler's batches.

    | sampler | participation |
    |---|---|
    | `CyclicSampler` | Cyclic(bins); SinglePass if steps <= bins |
    | `FullBatchSampler` | MinSeparation(1, steps) |
    | `BallsInBinsSampler` | MinSeparation(1, epochs), without amplification |

    A record's last step of one epoch and its first of the next may be neighbours where
    bins are drawn afresh; a cyclic sampler needs less noise.

    Args:
      sampler: one of these; balls in bins only with max_batch_size = max_records, since
        an overflowing batch drops records for the sake of others.
      steps: T >= 1.

    Raises:
      ValueError: batches that may overflow, or steps below 1.
      TypeError: a sampler that bounds no record's number of steps, such as Poisson.

    Example:
      >>> participation_of(CyclicSampler(bins=4, max_records=8), steps=12)
      Cyclic(period=4)
    """
    steps = _numbers.integer_at_least(1, steps=steps)
    match sampler:
        case CyclicSampler():
            return SinglePass() if steps <= sampler.bins else Cyclic(sampler.bins)
        case FullBatchSampler():
            return MinSeparation(1, steps)
        case BallsInBinsSampler():
            if sampler.max_batch_size < sampler.max_records:
                raise ValueError(
                    f"max_batch_size={sampler.max_batch_size}: correlated noise needs "
                    f"batches that hold everybody, max_records={sampler.max_records}, "
                    "since one that overflows drops records for the sake of others; or "
                    "cyclic batches, which never overflow"
                )
            return MinSeparation(1, -(-steps // sampler.bins))
    raise TypeError(
        f"sampler={type(sampler).__name__}: needed one that bounds in how many steps a "
        "record is; use CyclicSampler"
    )


@functools.lru_cache(maxsize=64)
def _sensitivity(strategy: Strategy, steps: int, participation: Participation) -> float:
    """Of a strategy; computed once."""
    return sensitivity(strategy.coefficients(steps), steps, participation)
