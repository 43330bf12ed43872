"""Random allocation (balls in bins) as an event, and the simpler events inside it."""

import functools
import math
from typing import Annotated, Any, NamedTuple

import attrs
import dp_accounting as dp
from dp_accounting import DpEvent

from dpkit.accountants.answers import checks
from dpkit.accountants.events import fields
from dpkit.accountants.events.own import OwnDpEvent

MOST_STEPS = 2**20
_PARTITION = fields.plain(functools.partial(checks.one_of, ("fresh", "kept")))


def _steps(name: str, value: Any) -> int:
    """A number of steps that accountants can hold."""
    steps = checks.integer_at_least(1, **{name: value})
    if steps > MOST_STEPS:
        raise ValueError(f"{name}={steps} must be at most {MOST_STEPS}")
    return steps


@attrs.frozen
class RandomAllocationDpEvent(OwnDpEvent):
    """Epochs of Gaussian sums in which each record has one random step, or a few.

    In each epoch each record draws `selected` of the `steps_per_epoch` steps uniformly,
    independently of all other records, epochs and outputs, and contributes to those
    alone. All steps run and all get noise, empty ones too. The draws, the batch sizes
    and the order of the records stay secret.

    Shuffling and cutting into batches of one size is another thing, for which this
    event claims too little. One draw that serves all epochs is partition "kept".

    Privacy: under add_remove and zero_out, one epoch of 1 of t steps is dominated in
    both directions by sum_i N(e_i, s^2 I) / t against N(0, s^2 I) in t dimensions, and
    k of t by k epochs of 1 of t_j steps whose t_j sum to t (`parts`). Under replace_one
    nothing is proven.

    Attributes:
      noise_multiplier: s, in [1e-100, 1e100].
      steps_per_epoch: t, from 1 to 2^20.
      selected: in how many steps of an epoch a record is, from 1 to t.
      epochs: whole epochs, at least 1; 0 if there are last steps.
      last_steps: steps of one more epoch, its first ones, fewer than t.
      partition: "fresh" draws for each epoch, or "kept" from the first one on.

    Example:
      >>> RandomAllocationDpEvent(1.0, 29, epochs=10).selected
      1

    Reference: Feldman & Shenfeld, "Privacy amplification by random allocation", 2025,
    arXiv:2502.08202; Chua et al., "Balls-and-Bins Sampling for DP-SGD", 2024,
    arXiv:2412.16802.
    """

    noise_multiplier: Annotated[float, fields.number(checks.noise)]
    steps_per_epoch: Annotated[int, fields.Field(_steps)]
    selected: Annotated[int, fields.count()] = 1
    epochs: Annotated[int, fields.count(0)] = 1
    last_steps: Annotated[int, fields.count(0)] = 0
    partition: Annotated[str, _PARTITION] = "fresh"

    def _check_together(self) -> None:
        """What belongs to one epoch fits in it, and something ran."""
        if self.selected > self.steps_per_epoch:
            raise ValueError(
                f"selected={self.selected} must be at most "
                f"steps_per_epoch={self.steps_per_epoch}"
            )
        if self.last_steps >= self.steps_per_epoch:
            raise ValueError(
                f"last_steps={self.last_steps} must be below "
                f"steps_per_epoch={self.steps_per_epoch}: count a whole epoch"
            )
        if self.epochs == self.last_steps == 0:
            raise ValueError("epochs=0 must be at least 1 if last_steps=0")
        if self.selected > 1 and (self.last_steps or self.partition == "kept"):
            raise ValueError(
                f"selected={self.selected} must be 1 with last_steps or a kept "
                "partition: nothing is proven for more"
            )
        if self.last_steps and self.partition == "kept":
            raise ValueError(
                f"last_steps={self.last_steps} must be 0 with a kept partition: "
                "count the whole epoch"
            )


@attrs.frozen
class TruncatedAllocationDpEvent(OwnDpEvent):
    """Random allocation to batches that hold a limited number of records.

    As `RandomAllocationDpEvent` with one step of each epoch a record, fresh each time.
    Where more than `max_batch_size` records draw the same step, a uniformly random
    subset of that size contributes; the others sit that epoch out.

    Privacy: the run differs from the one without a limit with probability at most
    T Psi on each of two neighbours, T all steps, Psi = P[Binomial(N, 1/t) > B], N the
    public upper bound on the number of records. So (eps, delta) of random allocation
    gives (eps, delta + T (1 + e^eps) Psi), under add_remove and zero_out.

    Attributes:
      noise_multiplier, steps_per_epoch, epochs, last_steps: as there.
      dataset_size: N, at least 1; not below the number of records.
      max_batch_size: B, from 1 to N.

    Example:
      >>> TruncatedAllocationDpEvent(1.0, 29, 60_000, 2388, epochs=10).plain
      RandomAllocationDpEvent(noise_multiplier=1.0, steps_per_epoch=29, ..., epochs=10,
                              last_steps=0, partition='fresh')

    Reference: Ganesh et al., "Tighter Privacy Analysis for Truncated Poisson Sampling",
    2025, arXiv:2508.15089, for Poisson sampling; the coupling is folklore.
    """

    noise_multiplier: Annotated[float, fields.number(checks.noise)]
    steps_per_epoch: Annotated[int, fields.Field(_steps)]
    dataset_size: Annotated[int, fields.count()]
    max_batch_size: Annotated[int, fields.count()]
    epochs: Annotated[int, fields.count(0)] = 1
    last_steps: Annotated[int, fields.count(0)] = 0

    def _check_together(self) -> None:
        """The allocation is one, and the batch no larger than everybody."""
        _ = self.plain
        if self.max_batch_size > self.dataset_size:
            raise ValueError(
                f"max_batch_size={self.max_batch_size} must be at most "
                f"dataset_size={self.dataset_size}"
            )

    @property
    def plain(self) -> RandomAllocationDpEvent:
        """The same run without a limit."""
        return RandomAllocationDpEvent(
            self.noise_multiplier,
            self.steps_per_epoch,
            epochs=self.epochs,
            last_steps=self.last_steps,
        )

    @property
    def steps(self) -> int:
        """T, all steps of the run."""
        return self.epochs * self.steps_per_epoch + self.last_steps


class Part(NamedTuple):
    """`count` draws of one of `steps`, of which `last_steps` ran, if not all."""

    noise_multiplier: float
    steps: int
    last_steps: int | None
    count: int


def released(event: RandomAllocationDpEvent) -> list[tuple[DpEvent, int]]:
    """The event in normal form: single epochs with their counts.

    Equal releases have one form: one step in an epoch of one is a Gaussian, and so is
    all of them; a kept partition is one epoch with noise s / sqrt(epochs), since the
    sum over the epochs is sufficient. Whole epochs have epochs=1, last_steps=0, and
    started ones epochs=0.

    Example:
      >>> released(RandomAllocationDpEvent(2.0, 1, epochs=3))
      [(GaussianDpEvent(noise_multiplier=2.0), 3)]
    """
    noise, steps = event.noise_multiplier, event.steps_per_epoch
    if event.selected == steps:
        return [(dp.GaussianDpEvent(noise), steps * event.epochs)]
    if event.partition == "kept":
        if event.epochs > 1:
            noise = noise / math.sqrt(event.epochs) * (1 - 2.0**-51)
        return [(RandomAllocationDpEvent(noise, steps), 1)]
    found: list[tuple[DpEvent, int]] = []
    if event.epochs:
        whole = RandomAllocationDpEvent(noise, steps, event.selected)
        found.append((whole, event.epochs))
    if event.last_steps:
        started = RandomAllocationDpEvent(
            noise, steps, epochs=0, last_steps=event.last_steps
        )
        found.append((started, 1))
    return found


def parts(event: RandomAllocationDpEvent) -> list[Part]:
    """Draws of one step whose composition dominates the event, in both directions.

    A uniform choice of k steps is a uniform permutation, cut into k blocks of nearly
    equal size, with one draw in each. Given the permutation the draws are independent;
    the side without the record doesn't depend on it; divergences are jointly convex.
    For `selected` > 1 this is an upper bound alone: there is no certified lower one.
    A part of one step is a plain Gaussian.

    Example:
      >>> for part in parts(RandomAllocationDpEvent(1.0, 10, selected=3, epochs=2)):
      ...     print(part.steps, part.count)
      4 2
      3 4

    Reference: Feldman & Shenfeld 2025, arXiv:2502.08202.
    """
    found = []
    for release, count in released(event):
        noise: float = getattr(release, "noise_multiplier")  # noqa: B009
        if not isinstance(release, RandomAllocationDpEvent):
            found.append(Part(noise, 1, None, count))
            continue
        size, larger = divmod(release.steps_per_epoch, release.selected)
        last = release.last_steps or None
        if larger:
            found.append(Part(noise, size + 1, last, larger * count))
        found.append(Part(noise, size, last, (release.selected - larger) * count))
    return found
