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
from collections.abc import Iterator, Sequence
from typing import Any, cast, overload

import dp_accounting
import jax

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.bounds import PrivacyBound
from dpkit.accountants.events import Relation, as_relation
from dpkit.accountants.ledger import Ledger
from dpkit.accountants.readings.best import epsilon as epsilon_of
from dpkit.accountants.readings.calibration import calibrate
from dpkit.data.random_access import as_rows
from dpkit.mechanisms._check import typed_key
from dpkit.mechanisms.changing import ChangingSum, PiecewiseSampler, piecewise
from dpkit.mechanisms.clips import Clip
from dpkit.mechanisms.sampler import Batch, Sampler
from dpkit.mechanisms.stream import Stream
from dpkit.training.gradients import LossFn
from dpkit.training.matching import MaskedRows, PlanGradient, gradient_of
from dpkit.training.noising import Noising
from dpkit.training.plan_json import numbers_from_json, plan_to_json
from dpkit.training.planning import Batching, check_delta, check_rate, count_steps
from dpkit.training.schedule import aligned, check_pieces, joined

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
    and `stddev`, `clip_at` and `divisor` say what holds at a step.

    Privacy: `event(relation)` is the cost of all `steps` releases together, for an
    adversary who sees every one of them. It holds for any optimiser and any loss of
    one example, chosen before the run or in the light of released values only.

    Args:
      sampler: draws the batches and amplifies the event.
      stream: clips gradients and noises their sums; a `GaussianSum`, unless other words
        say so. See `dpkit.mechanisms.Stream`.
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
    stream: Any  # a Stream, whose own fields its users know
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
        if not isinstance(self.stream, Stream):
            raise TypeError(
                f"stream={type(self.stream).__name__}: needed a stream of "
                "dpkit.mechanisms, such as GaussianSum(clip_norm, noise_multiplier)"
            )
        if self.pieces:
            return check_pieces(self)
        self.stream.check(self.sampler, self.steps)
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
                stream=noising.stream(
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
            stream=ChangingSum(tuple((p.steps, p.stream) for p in pieces)),
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
        return dataclasses.replace(
            self,
            stream=self.stream.scaled(factor),
            pieces=tuple(piece.scaled(factor) for piece in self.pieces),
        )

    def with_noise(self, noise_multiplier: float) -> DPSGDPlan:
        """The same plan with another noise multiplier.

        Raises:
          ValueError: the plan follows a schedule; use `scaled`.
        """
        stream = self.stream.with_noise(noise_multiplier)
        return dataclasses.replace(self, stream=stream)

    def step_event(self, relation: Relation | str) -> dp_accounting.DpEvent:
        """What one step costs, where all steps are draws of their own with one law.

        Raises:
          UnsupportedEvent, ValueError: steps that belong together, or a schedule; only
            `event` says what they cost. `charge` works for every plan.
        """
        return self.stream.step_event(self.sampler, as_relation(relation))

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
        return self.stream.run_event(self.sampler, steps, relation)

    def charge(self, relation: Relation | str) -> tuple[dp_accounting.DpEvent, int]:
        """(event, count) to reserve in a ledger: `count` times it is the whole run."""
        if self.stream.alike and self.sampler.steps_per_epoch == 1:
            return self.step_event(relation), self.steps
        return self.event(relation), 1

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

    @overload
    def batches(self, key: jax.Array, *, num_records: int) -> Iterator[Batch]: ...

    @overload
    def batches(
        self,
        key: jax.Array,
        records: Any,
        *,
        ledger: Ledger | None = None,
        label: str = "train",
    ) -> Iterator[MaskedRows]: ...

    def batches(
        self,
        key: jax.Array,
        records: Any = None,
        *,
        num_records: int | None = None,
        ledger: Ledger | None = None,
        label: str = "train",
    ) -> Iterator[Any]:
        """The padded batches of all steps, in order; then it ends.

        Privacy: with a ledger, the whole plan is charged before the first batch is
        drawn, and stays spent however far the loop gets; `BudgetExceeded` if it doesn't
        fit. Without one, charge `charge(relation)` before.

        Args:
          key: the root; the noise may have the same.
          records: a tree of arrays (num_records, ...), or any source of rows by number;
            batches are then `MaskedRows`, for `gradient`. Or:
          num_records: how many there are; batches are then indices and mask.
          ledger: to be charged; has the relation.
          label: of the charge.
        """
        if (records is None) == (num_records is None) or isinstance(records, int):
            raise TypeError(
                f"num_records={num_records}: give records, or their number as "
                "num_records=, and not both"
            )
        rows = None if records is None else as_rows(records)
        count = num_records if rows is None else len(rows)
        return self._batches(key, rows, cast(int, count), ledger, label)

    def _batches(
        self, key: jax.Array, rows: Any, count: int, ledger: Any, label: str
    ) -> Iterator[Any]:
        """Charge, draw all batches, settle."""
        if ledger is not None:
            event, times = self.charge(ledger.relation)
            with ledger.reserve(event, count=times, label=label) as grant:
                yield from self._batches(key, rows, count, None, label)
                grant.commit(times)
            return
        for step in range(self.steps):
            batch = self.batch(key, step, count)
            if rows is None:
                yield batch
            else:
                yield MaskedRows(rows.take(batch.indices), batch.mask)

    def gradient(self, loss_fn: LossFn, **execution: Any) -> PlanGradient:
        """Clipped gradient sums of a loss, as this plan clips them.

        Args:
          loss_fn: (params, example, key) -> the loss of ONE example.
          **execution: of `clipped_grad`: mode, microbatch, kappa, keep_batch_axis,
            mesh, constant_time, allow_effects.

        Returns:
          f(params, batch, keys=None, *, state=None) -> (clipped_sum, private_aux), for
          the batches of `batches(root, records)` and the noise of `as_optax`.

        Raises:
          TypeError: a clip norm or a clip: the plan has its own.
        """
        return gradient_of(self.stream, loss_fn, execution)

    def stddev(self, step: int | jax.Array) -> Any:
        """Standard deviation of the noise at a step; a step may be traced."""
        return self.stream.stddev_at(step)

    def divisor(self, step: int | jax.Array) -> Any:
        """b at a step, what the noised sum is divided by; a step may be traced."""
        parts = self.pieces or (self,)
        lengths = [piece.steps for piece in parts]
        return piecewise(step, lengths, [p.expected_batch_size for p in parts])

    def clip_at(self, step: int | jax.Array) -> Any:
        """What clips a gradient at a step: C, or the clipping function if not flat.

        Where the clip norm follows the norms, only its start is known beforehand.
        """
        return self.stream.clip_at(step)

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
