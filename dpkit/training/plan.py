"""The plan of a DP-SGD run: sampling, clipping, noise and steps that cannot disagree.

A plan is one frozen object. The batches that a run draws, the noise that it adds, the
constant that it divides by and the event that it is charged for are all read off the
same fields, so what is accounted is what runs. Everything in a plan is public.

Source: Abadi et al., "Deep Learning with Differential Privacy", 2016,
arXiv:1607.00133, Algorithm 1; with any of the samplers in `dpkit.mechanisms.sampler`,
each with an event of its own.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, cast

import dp_accounting
import jax

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.bounds import PrivacyBound
from dpkit.accountants.events import Relation, as_relation
from dpkit.accountants.readings.best import epsilon as epsilon_of
from dpkit.accountants.readings.calibration import calibrate
from dpkit.mechanisms._check import typed_key
from dpkit.mechanisms.adaptive import AdaptiveGaussianSum
from dpkit.mechanisms.clipping import GaussianSum
from dpkit.mechanisms.clips import Clip, Flat
from dpkit.mechanisms.correlated import CorrelatedSum
from dpkit.mechanisms.sampler import Batch, Sampler
from dpkit.training.noising import Noising, check_participation, renoised
from dpkit.training.plan_json import numbers_from_json, plan_to_json
from dpkit.training.planning import Batching, check_delta, check_rate, count_steps
from dpkit.training.schedule import (
    ChangingSum,
    PiecewiseSampler,
    aligned,
    check_pieces,
    joined,
    lookup,
)

__all__ = ["NOISE_BRANCH", "SAMPLING_BRANCH", "DPSGDPlan", "check_delta"]

# Keys for batches and keys for noise come from different branches of a root, so a
# caller who hands both the same root still gets independent streams.
SAMPLING_BRANCH = 0x5A4D
NOISE_BRANCH = 0x4E53
Number = float | Sequence[tuple[int, float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DPSGDPlan:
    """A fixed number of sampled, clipped and noised gradient sums.

    One step releases y = sum_{i in batch} clip(g_i) + N(0, (sigma C)^2) and updates
    with y / b. The divisor b is a constant of the plan, never the realised batch.

    A plan may follow a schedule: then its pieces are plans without one, taken in turn,
    and `stddev`, `clip_at` and `divisor` say what holds at a step. There is no one
    mechanism then, and reading one is an error.

    Privacy: `event(relation)` is the cost of all `steps` releases together, for an
    adversary who sees every one of them. It holds for any optimiser and any loss of
    one example, chosen before the run or in the light of released values only.

    Args:
      sampler: draws the batches and amplifies the event.
      mechanism: clips one gradient and noises the sum.
      steps: T >= 1, the number of optimiser updates.
      expected_batch_size: b > 0, public; what the noised sum is divided by. With a
        schedule the mean over the run.
      pieces: of a schedule; made by `create`.

    Raises:
      ValueError: expected_batch_size above sampler.max_batch_size, or a number out of
        range; pieces that don't hold whole epochs of their sampler.

    Example:
      >>> plan = DPSGDPlan.create(
      ...     max_records=60_000, expected_batch_size=256, steps=100,
      ...     clip_norm=1.0, noise_multiplier=1.1)
      >>> round(plan.sampler.sampling_rate, 6)
      0.004267
      >>> bound = plan.epsilon(1e-5, relation="add_remove")
      >>> bound.certified and 0.1 < bound.upper < 1.0
      True
    """

    sampler: Any  # a Sampler, whose own fields its users know
    mechanism: Any  # what `Noising` makes: a GaussianSum, unless other words say so
    steps: int
    expected_batch_size: float
    pieces: tuple[DPSGDPlan, ...] = ()

    def __post_init__(self) -> None:
        """Refuses numbers that contradict each other."""
        checks.integer_at_least(1, steps=self.steps)
        b = checks.positive(expected_batch_size=self.expected_batch_size)
        if not isinstance(self.sampler, Sampler):
            raise TypeError(
                f"sampler={type(self.sampler).__name__}: needed a sampler of "
                "dpkit.mechanisms, which knows its event"
            )
        if self.pieces:
            if any(isinstance(p.mechanism, CorrelatedSum) for p in self.pieces):
                raise ValueError(
                    "noise: correlated over one run, so nothing may change during it; "
                    "give numbers instead of schedules"
                )
            if any(isinstance(p.mechanism, AdaptiveGaussianSum) for p in self.pieces):
                raise ValueError(
                    "quantile: the clip norm follows the norms, so nothing else may "
                    "change during the run; give numbers instead of schedules"
                )
            return check_pieces(self)
        if self.mechanism.max_summands < self.sampler.max_batch_size:
            raise ValueError(
                f"max_summands={self.mechanism.max_summands} is below "
                f"max_batch_size={self.sampler.max_batch_size}: the noise must cover "
                "the rounding of the largest batch"
            )
        if isinstance(self.mechanism, CorrelatedSum):
            check_participation(self.mechanism, self.sampler, self.steps)
        if b > self.sampler.max_batch_size:
            raise ValueError(
                f"expected_batch_size={b:g} is above "
                f"max_batch_size={self.sampler.max_batch_size}: most batches would be "
                "cut; raise max_batch_size"
            )

    @classmethod
    def create(
        cls,
        *,
        max_records: int,
        expected_batch_size: Number | None = None,
        clip_norm: Number | None = None,
        noise_multiplier: Number,
        steps: int | None = None,
        epochs: float | None = None,
        sampling_rate: float | None = None,
        max_batch_size: int | None = None,
        sampling: str = "poisson",
        bins: int | None = None,
        clip: Clip | None = None,
        quantile: float | None = None,
        noise: str = "independent",
        bands: int | None = None,
    ) -> DPSGDPlan:
        """A plan from the numbers that people name.

        The three that may change during a run, expected_batch_size, clip_norm and
        noise_multiplier, are numbers or schedules ((steps, value), ...), equally long.

        Args:
          max_records: N, a public number that the data set never exceeds; with
            "fixed_size" exactly the number of records.
          expected_batch_size: b, the divisor; the Poisson sampling rate is b / N.
            Where an epoch has whole steps, b becomes N / bins.
          clip_norm: C, the largest L2 norm of one gradient; or `clip`.
          noise_multiplier: sigma, noise standard deviation divided by C.
          steps: T; or
          epochs: T = ceil(epochs * N / b). Exactly one of the two, unless a schedule
            says how long it lasts.
          sampling_rate: only to be checked against b / N.
          max_batch_size: B, slots of a padded batch; the default leaves room so that
            a batch is practically never cut (and the event counts the cut anyway).
          sampling: "poisson", "fixed_size", "full_batch", "balls_in_bins" or "cyclic".
          bins: steps of an epoch in the last two; default: N / b rounded.
          clip: another clipping function, instead of clip_norm.
          quantile: the clip norm starts at clip_norm and follows this quantile of the
            norms; noise_multiplier pays for both.
          noise: "independent", or correlated over the steps of the whole run:
            "banded", "square_root" or "buffered"; with sampling="cyclic",
            "full_batch", or "balls_in_bins", whose slots are then max_records.
          bands: of "banded"; default: the steps of an epoch, 32 at most.

        Raises:
          ValueError: a number out of range, both or neither of steps and epochs, or
            numbers that contradict each other.

        Example:
          >>> plan = DPSGDPlan.create(
          ...     max_records=1000, expected_batch_size=100, clip_norm=1.0,
          ...     noise_multiplier=((50, 2.0), (50, 1.0)))
          >>> plan.steps, plan.stddev(49) > plan.stddev(50)
          (100, True)
        """
        settings: dict[str, Any] = {
            "expected_batch_size": expected_batch_size,
            "clip_norm": clip_norm,
            "noise_multiplier": noise_multiplier,
        }
        noising = Noising(clip=clip, quantile=quantile, noise=noise, bands=bands)
        if noising.correlated and sampling == "balls_in_bins":
            # None may be left out for the sake of others.
            max_batch_size = max_records if max_batch_size is None else max_batch_size
        batching = Batching(
            sampling=sampling,
            max_records=checks.integer_at_least(1, max_records=max_records),
            bins=bins,
            max_batch_size=max_batch_size,
        )
        parts = aligned(steps, **settings)
        if parts and epochs is not None:
            raise ValueError(
                f"epochs={epochs}: a schedule says itself how long it lasts; give "
                "steps, or nothing"
            )
        if not parts:
            size = batching.size(settings["expected_batch_size"])
            parts = [(count_steps(steps, epochs, max_records, size), settings)]
        for _, values in parts:
            b = batching.size(values["expected_batch_size"])
            values["expected_batch_size"] = b
        parts = joined(parts)  # whole epochs may round two sizes to the same one
        sizes = [values["expected_batch_size"] for _, values in parts]
        for b in sizes:
            check_rate(sampling_rate, max_records, b)
        samplers = batching.samplers(sizes, sum(length for length, _ in parts))
        pieces = [
            cls(
                sampler=sampler,
                mechanism=noising.mechanism(
                    values["clip_norm"],
                    values["noise_multiplier"],
                    sampler=sampler,
                    steps=length,
                    expected_batch_size=b,
                ),
                steps=length,
                expected_batch_size=b,
            )
            for (length, values), b, sampler in zip(parts, sizes, samplers, strict=True)
        ]
        return pieces[0] if len(pieces) == 1 else cls.of_pieces(pieces)

    @classmethod
    def of_pieces(cls, pieces: Sequence[DPSGDPlan]) -> DPSGDPlan:
        """Plans without a schedule, one after the other, as one.

        Raises:
          ValueError: fewer than two, or plans that don't go together.
        """
        steps = sum(piece.steps for piece in pieces)
        samplers = [(piece.steps, piece.sampler) for piece in pieces]
        same = len({sampler for _, sampler in samplers}) == 1
        return cls(
            sampler=samplers[0][1] if same else PiecewiseSampler(tuple(samplers)),
            mechanism=cast(GaussianSum, ChangingSum()),
            steps=steps,
            expected_batch_size=sum(p.steps * p.expected_batch_size for p in pieces)
            / steps,
            pieces=tuple(pieces),
        )

    @classmethod
    def for_budget(
        cls,
        *,
        epsilon: float,
        delta: float,
        relation: Relation | str,
        allow_large_delta: bool = False,
        **numbers: Any,
    ) -> DPSGDPlan:
        """The plan with the least noise whose certified epsilon is within the target.

        Args:
          epsilon: the most that the whole run may cost, > 0.
          delta: in (0, 1), and below 1 / max_records unless `allow_large_delta`.
          relation: which data sets count as neighbours.
          allow_large_delta: accepts a delta of 1 / max_records or more, at which a
            mechanism that publishes a record outright can still qualify.
          **numbers: as for `create`, without noise_multiplier; or with a schedule of
            it, whose shape is kept: all its values are scaled by one factor.

        Returns:
          A plan whose `epsilon(delta, relation=relation).upper` is at most epsilon.

        Raises:
          ValueError: no noise multiplier reaches the target, or delta is too large.

        Example:
          >>> plan = DPSGDPlan.for_budget(
          ...     epsilon=3.0, delta=1e-5, relation="add_remove", max_records=60_000,
          ...     expected_batch_size=1024, epochs=2, clip_norm=0.1)
          >>> 2.99 < plan.epsilon(1e-5, relation="add_remove").upper <= 3.0
          True
        """
        if isinstance(numbers.get("noise_multiplier", ()), int | float):
            raise TypeError("noise_multiplier is what for_budget solves for")
        relation = as_relation(relation)
        settings: dict[str, Any] = {"noise_multiplier": 1.0, **numbers}
        start = cls.create(**settings)
        check_delta(delta, start.sampler.max_records, allow_large_delta)
        solved = calibrate(
            lambda factor: start.scaled(factor).event(relation),
            epsilon=epsilon,
            delta=delta,
            relation=relation,
        )
        return start.scaled(solved.value)

    def scaled(self, factor: float) -> DPSGDPlan:
        """The same plan with every noise multiplier times a factor."""
        if not self.pieces:
            return self.with_noise(factor * self.mechanism.noise_multiplier)
        return self.of_pieces([piece.scaled(factor) for piece in self.pieces])

    def with_noise(self, noise_multiplier: float) -> DPSGDPlan:
        """The same plan with another noise multiplier.

        Raises:
          ValueError: the plan follows a schedule; use `scaled`.
        """
        if self.pieces:
            raise ValueError("the plan follows a schedule of noise: use scaled(factor)")
        mechanism = renoised(self.mechanism, noise_multiplier)
        return dataclasses.replace(self, mechanism=mechanism)

    def step_event(self, relation: Relation | str) -> dp_accounting.DpEvent:
        """What one step costs, where all steps are draws of their own with one law.

        Raises:
          UnsupportedEvent, ValueError: steps that belong together, or a schedule; only
            `event` says what they cost. `charge` works for every plan.
        """
        relation = as_relation(relation)
        if self.pieces:
            raise ValueError("the steps of a schedule differ: use charge or event")
        if isinstance(self.mechanism, CorrelatedSum):
            raise ValueError("steps with correlated noise belong together: use charge")
        return self.sampler.amplify(self.mechanism.event(relation), relation)

    def event(self, relation: Relation | str) -> dp_accounting.DpEvent:
        """What the whole run costs, all `steps` releases together."""
        return self.event_until(self.steps, relation)

    def event_until(
        self, steps: int, relation: Relation | str
    ) -> dp_accounting.DpEvent:
        """What the first `steps` steps cost together.

        Raises:
          ValueError: steps outside 1..T.
        """
        relation = as_relation(relation)
        if checks.integer_at_least(1, steps=steps) > self.steps:
            raise ValueError(f"steps={steps} is more than the plan's {self.steps}")
        if not self.pieces:
            event = self.mechanism.event(relation)
            if isinstance(self.mechanism, CorrelatedSum):
                return event  # of the whole run: its beginning is no dearer
            return self.sampler.run_event(event, steps, relation)
        found = []
        for piece in self.pieces:
            if steps > 0:
                found.append(piece.event_until(min(steps, piece.steps), relation))
            steps -= piece.steps
        return found[0] if len(found) == 1 else dp_accounting.ComposedDpEvent(found)

    def charge(self, relation: Relation | str) -> tuple[dp_accounting.DpEvent, int]:
        """(event, count) to reserve in a ledger: `count` times it is the whole run."""
        together = self.pieces or isinstance(self.mechanism, CorrelatedSum)
        if together or self.sampler.steps_per_epoch > 1:
            return self.event(relation), 1
        return self.step_event(relation), self.steps

    def epsilon(self, delta: float, *, relation: Relation | str) -> PrivacyBound:
        """The certified epsilon of the whole run at `delta`."""
        return epsilon_of(self.event(relation), delta, relation=relation)

    def batch(self, key: jax.Array, step: int, num_records: int) -> Batch:
        """The padded batch of one step, a function of (key, step) alone.

        Privacy: the indices and the mask are private; nothing here is a release.

        Raises:
          ValueError: step outside 0..steps-1: more was never accounted for.
        """
        if not 0 <= step < self.steps:
            raise ValueError(
                f"step={step} is outside the plan's 0..{self.steps - 1}: more steps "
                "than were accounted for; make a plan with more"
            )
        branch = jax.random.fold_in(typed_key(key), SAMPLING_BRANCH)
        return self.sampler.batch(branch, step, num_records)

    def batches(self, key: jax.Array, num_records: int) -> Iterator[Batch]:
        """The padded batches of all steps, in order; then it ends."""
        for step in range(self.steps):
            yield self.batch(key, step, num_records)

    def stddev(self, step: int | jax.Array) -> Any:
        """Standard deviation of the noise at a step; a step may be traced."""
        return self._at(step, [p.mechanism.stddev for p in self._parts])

    def divisor(self, step: int | jax.Array) -> Any:
        """b at a step, what the noised sum is divided by; a step may be traced."""
        return self._at(step, [p.expected_batch_size for p in self._parts])

    def clip_at(self, step: int | jax.Array) -> Any:
        """What clips a gradient at a step: C, or the clipping function if not flat."""
        clip = self._parts[0].mechanism.clip
        if not isinstance(clip, Flat):
            return clip
        return self._at(step, [p.mechanism.clip_norm for p in self._parts])

    def _at(self, step: int | jax.Array, values: list[float]) -> Any:
        """The value at a step: a constant if nothing changes it, even under jit."""
        if len(set(values)) == 1:
            return values[0]
        ends = list(itertools.accumulate(piece.steps for piece in self._parts))
        return lookup(step, ends, values)

    @property
    def _parts(self) -> tuple[DPSGDPlan, ...]:
        """The pieces, or the plan itself."""
        return self.pieces or (self,)

    def to_json(self) -> dict[str, Any]:
        """The plan's numbers by their field names; schedules as [[steps, value], ...].

        Raises:
          ValueError: a clip that holds a function of the user's own.
        """
        return plan_to_json(self)

    @classmethod
    def from_json(cls, numbers: dict[str, Any]) -> DPSGDPlan:
        """The plan that `to_json` wrote."""
        return cls.create(**numbers_from_json(numbers))
