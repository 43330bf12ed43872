"""The plan of a DP-SGD run: sampling, clipping, noise and steps that cannot disagree.

A plan is one frozen object. The batches that a run draws, the noise that it adds, the
constant that it divides by and the event that it is charged for are all read off the
same fields, so what is accounted is what runs. Everything in a plan is public.

Source: Abadi et al., "Deep Learning with Differential Privacy", 2016,
arXiv:1607.00133, Algorithm 1, with Poisson sampling as its analysis assumes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import dp_accounting
import jax

from dpkit.accountants import _check
from dpkit.accountants.accounting import epsilon as epsilon_of
from dpkit.accountants.bounds import PrivacyBound
from dpkit.accountants.calibration import calibrate
from dpkit.accountants.events import Relation, as_relation
from dpkit.mechanisms._check import typed_key
from dpkit.mechanisms.clipping import GaussianSum
from dpkit.mechanisms.sampling import Batch, PoissonSampler, choose_max_batch_size

# Keys for batches and keys for noise come from different branches of a root, so a
# caller who hands both the same root still gets independent streams.
SAMPLING_BRANCH = 0x5A4D
NOISE_BRANCH = 0x4E53
# Batches get room for the fluctuations that would matter at this strict a budget.
_ROOM = {"epsilon": 10.0, "delta": 1e-8}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DPSGDPlan:
    """A fixed number of Poisson-sampled, clipped and noised gradient sums.

    One step releases y = sum_{i in batch} clip(g_i, C) + N(0, (sigma C)^2) and updates
    with y / b. The divisor b is a constant of the plan, never the realised batch.

    Privacy: `event(relation)` is the cost of all `steps` releases together, for a
    adversary who sees every one of them. It holds for any optimiser and any loss of
    one example, chosen before the run or in the light of released values only.

    Args:
      sampler: draws the batches and amplifies the event.
      mechanism: clips one gradient and noises the sum.
      steps: T >= 1, the number of optimiser updates.
      expected_batch_size: b > 0, public; what the noised sum is divided by.

    Raises:
      ValueError: expected_batch_size above sampler.max_batch_size, or a number out of
        range.

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

    sampler: PoissonSampler
    mechanism: GaussianSum
    steps: int
    expected_batch_size: float

    def __post_init__(self) -> None:
        """Refuses numbers that contradict each other."""
        _check.integer_at_least(1, steps=self.steps)
        b = _check.positive(expected_batch_size=self.expected_batch_size)
        if self.mechanism.max_summands < self.sampler.max_batch_size:
            raise ValueError(
                f"max_summands={self.mechanism.max_summands} is below "
                f"max_batch_size={self.sampler.max_batch_size}: the noise must cover "
                "the rounding of the largest batch"
            )
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
        expected_batch_size: float,
        clip_norm: float,
        noise_multiplier: float,
        steps: int | None = None,
        epochs: float | None = None,
        sampling_rate: float | None = None,
        max_batch_size: int | None = None,
    ) -> DPSGDPlan:
        """A plan from the numbers that people name.

        Args:
          max_records: N, a public number that the data set never exceeds.
          expected_batch_size: b, the divisor; the sampling rate is b / N.
          clip_norm: C, the largest L2 norm of one gradient.
          noise_multiplier: sigma, noise standard deviation divided by C.
          steps: T; or
          epochs: T = ceil(epochs * N / b). Exactly one of the two.
          sampling_rate: only to be checked against b / N.
          max_batch_size: B, slots of a padded batch; the default leaves room so that
            a batch is practically never cut (and the event counts the cut anyway).

        Raises:
          ValueError: a number out of range, both or neither of steps and epochs, or
            sampling_rate * max_records differs from expected_batch_size.
        """
        n = _check.integer_at_least(1, max_records=max_records)
        b = _check.positive(expected_batch_size=expected_batch_size)
        if b > n:
            raise ValueError(
                f"expected_batch_size={b:g} is above max_records={n}: a record is in "
                "a batch at most once; lower it"
            )
        rate = b / n
        if sampling_rate is not None:
            given = _check.rate(sampling_rate=sampling_rate)
            if abs(given * n - b) > 1e-6 * b:
                raise ValueError(
                    f"sampling_rate={given!r} times max_records={n} is {given * n:g}, "
                    f"but expected_batch_size={b:g}: give the two that you mean"
                )
        steps = _steps(steps, epochs, n, b)
        if max_batch_size is None:
            max_batch_size = choose_max_batch_size(rate, n, steps=steps, **_ROOM)
        sampler = PoissonSampler(rate, max_batch_size, n)
        return cls(
            sampler=sampler,
            mechanism=GaussianSum(clip_norm, noise_multiplier, sampler.max_batch_size),
            steps=steps,
            expected_batch_size=b,
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
          **numbers: as for `create`, without noise_multiplier.

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
        if "noise_multiplier" in numbers:
            raise TypeError("noise_multiplier is what for_budget solves for")
        relation = as_relation(relation)
        start = cls.create(noise_multiplier=1.0, **numbers)
        check_delta(delta, start.sampler.max_records, allow_large_delta)
        solved = calibrate(
            lambda noise: start.with_noise(noise).event(relation),
            epsilon=epsilon,
            delta=delta,
            relation=relation,
        )
        return start.with_noise(solved.value)

    def with_noise(self, noise_multiplier: float) -> DPSGDPlan:
        """The same plan with another noise multiplier."""
        mechanism = dataclasses.replace(
            self.mechanism, noise_multiplier=noise_multiplier
        )
        return dataclasses.replace(self, mechanism=mechanism)

    def step_event(self, relation: Relation | str) -> dp_accounting.DpEvent:
        """What one step costs."""
        relation = as_relation(relation)
        return self.sampler.amplify(self.mechanism.event(relation), relation)

    def event(self, relation: Relation | str) -> dp_accounting.DpEvent:
        """What the whole run costs, all `steps` releases together."""
        return dp_accounting.SelfComposedDpEvent(self.step_event(relation), self.steps)

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
        return self.sampler.draw(jax.random.fold_in(branch, step), num_records)

    def batches(self, key: jax.Array, num_records: int) -> Iterator[Batch]:
        """The padded batches of all steps, in order; then it ends."""
        for step in range(self.steps):
            yield self.batch(key, step, num_records)

    def to_json(self) -> dict[str, Any]:
        """The plan's numbers by their field names."""
        return {
            "sampling": "poisson",
            "sampling_rate": self.sampler.sampling_rate,
            "max_batch_size": self.sampler.max_batch_size,
            "max_records": self.sampler.max_records,
            "clip_norm": self.mechanism.clip_norm,
            "noise_multiplier": self.mechanism.noise_multiplier,
            "steps": self.steps,
            "expected_batch_size": self.expected_batch_size,
        }

    @classmethod
    def from_json(cls, numbers: dict[str, Any]) -> DPSGDPlan:
        """The plan that `to_json` wrote."""
        numbers = dict(numbers)
        sampling = numbers.pop("sampling")
        if sampling != "poisson":
            raise ValueError(f"sampling={sampling!r} is not known: use 'poisson'")
        return cls.create(**numbers)


def check_delta(delta: float, max_records: int, allow_large_delta: bool) -> None:
    """Refuses a delta at which publishing one record outright could qualify."""
    delta = _check.open_probability(delta=delta)
    if delta >= 1 / max_records and not allow_large_delta:
        usual = 10.0 ** math.floor(math.log10(1 / max_records))
        raise ValueError(
            f"delta={delta:g} is not below 1/n={1 / max_records:.3g} for "
            f"n={max_records} records: publishing somebody's record whole could meet "
            f"it; the usual choice here is {usual:g}, or set allow_large_delta"
        )


def _steps(steps: int | None, epochs: float | None, n: int, b: float) -> int:
    """Steps, given as such or as epochs."""
    if (steps is None) == (epochs is None):
        raise ValueError(
            f"steps={steps} and epochs={epochs}: give exactly one of the two"
        )
    if steps is not None:
        return _check.integer_at_least(1, steps=steps)
    # The small slack keeps 8 * 60000 / 256 from being rounded up past an integer.
    return math.ceil(_check.positive(epochs=epochs) * n / b - 1e-9)
