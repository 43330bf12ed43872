"""From the numbers that people name to samplers and mechanisms."""

from __future__ import annotations

import dataclasses
import math
from typing import cast

from dpkit.accountants.answers import checks
from dpkit.mechanisms.balls_in_bins import BallsInBinsSampler
from dpkit.mechanisms.cyclic import CyclicSampler
from dpkit.mechanisms.fixed_size import FixedSizeSampler
from dpkit.mechanisms.full_batch import FullBatchSampler
from dpkit.mechanisms.sampler import Sampler
from dpkit.mechanisms.sampling import PoissonSampler, choose_max_batch_size

SAMPLINGS = {
    "poisson": PoissonSampler,
    "fixed_size": FixedSizeSampler,
    "full_batch": FullBatchSampler,
    "balls_in_bins": BallsInBinsSampler,
    "cyclic": CyclicSampler,
}
# Whose batches can be cut, and whose steps make up epochs.
CUT = ("poisson", "balls_in_bins")
IN_EPOCHS = ("balls_in_bins", "cyclic")
# Batches get room for the fluctuations that would matter at this strict a budget.
_ROOM = {"epsilon": 10.0, "delta": 1e-8}
# How far N / t may be from the batch size that was asked for.
_MOST_ROUNDING = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batching:
    """How batches are made, apart from their expected size, which may change.

    Args:
      sampling: a name of SAMPLINGS.
      max_records: N.
      bins: steps of an epoch, for "balls_in_bins" and "cyclic"; default: N / b rounded.
      max_batch_size: slots, for "poisson" and "balls_in_bins"; default: so many that a
        batch is hardly ever cut.

    Raises:
      ValueError: an unknown name, or a setting that means nothing with it.

    Example:
      >>> batching = Batching(sampling="cyclic", max_records=60_000)
      >>> size = batching.size(2048)
      >>> round(size, 2), batching.samplers([size], steps=290)
      (2068.97, [CyclicSampler(bins=29, max_records=60000)])
    """

    sampling: str
    max_records: int
    bins: int | None = None
    max_batch_size: int | None = None

    def __post_init__(self) -> None:
        """Refuses settings that mean nothing together."""
        check_name(self.sampling)
        checks.integer_at_least(1, max_records=self.max_records)
        if self.sampling not in CUT and self.max_batch_size is not None:
            raise ValueError(
                f"max_batch_size={self.max_batch_size!r} means nothing with sampling="
                f"{self.sampling!r}, which says itself how large batches are: drop it"
            )
        if self.sampling not in IN_EPOCHS and self.bins is not None:
            raise ValueError(
                f"bins={self.bins!r} means nothing with sampling={self.sampling!r}: "
                "drop it"
            )

    def size(self, expected_batch_size: float | None) -> float:
        """The divisor b: what was asked for, or what an epoch of whole steps gives.

        Raises:
          ValueError: a size out of range, missing, or contradicted by other numbers.
        """
        n = self.max_records
        if self.sampling in IN_EPOCHS:
            return n / _bins(n, expected_batch_size, self.bins)
        if self.sampling == "full_batch":
            if expected_batch_size is not None:
                b = checks.positive(expected_batch_size=expected_batch_size)
                _agree(b, float(n), "max_records: everyone is in every batch")
            return float(n)
        b = _expected(n, expected_batch_size)
        if self.sampling == "fixed_size" and b != int(b):
            raise ValueError(f"expected_batch_size={b!r}: needed an integer")
        return b

    def samplers(self, sizes: list[float], steps: int) -> list[Sampler]:
        """A sampler for each size, all with the slots that the largest needs.

        Args:
          sizes: as `size` gives them.
          steps: T of the whole run, for the default number of slots.
        """
        slots = self.max_batch_size
        if self.sampling in CUT and slots is None:
            slots = max(
                choose_max_batch_size(
                    b / self.max_records, self.max_records, steps=steps, **_ROOM
                )
                for b in sizes
            )
        return [self._sampler(b, slots) for b in sizes]

    def _sampler(self, b: float, slots: int | None) -> Sampler:
        """The sampler of one size."""
        n = self.max_records
        if self.sampling == "poisson":
            return PoissonSampler(b / n, cast(int, slots), n)
        if self.sampling == "balls_in_bins":
            return BallsInBinsSampler(round(n / b), cast(int, slots), n)
        if self.sampling == "cyclic":
            return CyclicSampler(round(n / b), n)
        if self.sampling == "fixed_size":
            return FixedSizeSampler(int(b), n)
        return FullBatchSampler(n)


def check_name(sampling: object) -> None:
    """Refuses what is no name of a sampler, and says why of the usual ones.

    Raises:
      ValueError: an unknown name.

    Example:
      >>> check_name("poisson")
    """
    if sampling in SAMPLINGS:
        return
    why = ""
    if sampling in ("shuffle", "shuffled"):
        why = "shuffled epochs have no proof near Poisson sampling's: "
    raise ValueError(
        f"sampling={sampling!r} is not known: {why}use one of {', '.join(SAMPLINGS)}"
    )


def name_of(sampler: Sampler) -> str:
    """The name of a sampler's kind.

    Example:
      >>> name_of(FullBatchSampler(3))
      'full_batch'
    """
    return next(name for name, kind in SAMPLINGS.items() if type(sampler) is kind)


def check_rate(sampling_rate: float | None, n: int, b: float) -> None:
    """Refuses a sampling rate that contradicts b / N.

    Raises:
      ValueError: one that does.

    Example:
      >>> check_rate(0.1, 1000, 100.0)
    """
    if sampling_rate is None:
        return
    given = checks.rate(sampling_rate=sampling_rate)
    if abs(given * n - b) > 1e-6 * b:
        raise ValueError(
            f"sampling_rate={given!r} times max_records={n} is {given * n:g}, "
            f"but expected_batch_size={b:g}: give the two that you mean"
        )


def check_delta(delta: float, max_records: int, allow_large_delta: bool) -> None:
    """Refuses a delta at which publishing one record outright could qualify.

    Raises:
      ValueError: 1 / max_records or more, unless that is allowed.

    Example:
      >>> check_delta(1e-5, 60_000, allow_large_delta=False)
    """
    delta = checks.open_probability(delta=delta)
    if delta >= 1 / max_records and not allow_large_delta:
        usual = 10.0 ** math.floor(math.log10(1 / max_records))
        raise ValueError(
            f"delta={delta:g} is not below 1/n={1 / max_records:.3g} for "
            f"n={max_records} records: publishing somebody's record whole could meet "
            f"it; the usual choice here is {usual:g}, or set allow_large_delta"
        )


def count_steps(steps: int | None, epochs: float | None, n: int, b: float) -> int:
    """Steps, given as such or as epochs.

    Raises:
      ValueError: both or neither.

    Example:
      >>> count_steps(None, 2, 60_000, 256.0)
      469
    """
    if (steps is None) == (epochs is None):
        raise ValueError(
            f"steps={steps} and epochs={epochs}: give exactly one of the two"
        )
    if steps is not None:
        return checks.integer_at_least(1, steps=steps)
    # The small slack keeps 8 * 60000 / 256 from being rounded up past an integer.
    return math.ceil(checks.positive(epochs=epochs) * n / b - 1e-9)


def _bins(n: int, b: float | None, bins: int | None) -> int:
    """The steps of an epoch: as given, or N / b rounded."""
    if bins is not None:
        bins = checks.integer_at_least(1, bins=bins)
        if b is not None:
            b = checks.positive(expected_batch_size=b)
            _agree(b, n / bins, f"max_records / bins = {n}/{bins}")
        return bins
    b = _expected(n, b)
    bins = max(1, round(n / b))
    if abs(n / bins - b) > _MOST_ROUNDING * b:
        raise ValueError(
            f"expected_batch_size={b:g} cuts max_records={n} into {n / b:.2f} steps an "
            f"epoch: give bins, such as {bins} for batches of {n / bins:g}"
        )
    return bins


def _expected(n: int, b: float | None) -> float:
    """b, at most N."""
    if b is None:
        raise ValueError("expected_batch_size=None: give the batch size to expect")
    b = checks.positive(expected_batch_size=b)
    if b > n:
        raise ValueError(
            f"expected_batch_size={b:g} is above max_records={n}: a record is in a "
            "batch at most once; lower it"
        )
    return b


def _agree(b: float, implied: float, source: str) -> None:
    """Refuses a batch size that other numbers contradict."""
    if abs(b - implied) > 1e-6 * implied:
        raise ValueError(
            f"expected_batch_size={b:g} is not {implied:g}, which is {source}: give "
            "the one that you mean"
        )
