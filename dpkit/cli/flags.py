"""A run declared by options instead of a file."""

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpkit.budget.declaration import Declaration

_NOT_POISSON = (
    "must not be accounted as Poisson sampling, whose epsilon is smaller; for one pass"
    " over fixed disjoint batches an epoch, under zero_out, give"
    " --sampling full_batch --sampling-rate 1 with one step an epoch"
)
_OWN_EVENT = (
    "must not be accounted as Poisson sampling; declare their event in a CONFIG file"
)
_REFUSED = {
    "shuffle": f"shuffled batches {_NOT_POISSON}",
    "shuffled": f"shuffled batches {_NOT_POISSON}",
    "fixed_batches": f"batches in a fixed order {_NOT_POISSON}",
    "cyclic": f"batches in a fixed order {_NOT_POISSON}",
    "fixed_size": f"batches of a fixed size {_OWN_EVENT}",
    "wor": f"batches drawn without replacement {_OWN_EVENT}",
    "balls_in_bins": f"batches by random allocation {_OWN_EVENT}",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunFlags:
    """The options that declare a run; None: not given.

    Example:
      >>> RunFlags(steps=3).given
      ['steps']
    """

    noise_multiplier: float | None = None
    sampling: str | None = None
    sampling_rate: float | None = None
    steps: int | None = None
    max_batch_size: int | None = None
    max_records: int | None = None
    expected_batch_size: int | None = None
    epochs: float | None = None

    @property
    def count(self) -> int | None:
        """The steps: given, or as many as the epochs take.

        Example:
          >>> RunFlags(expected_batch_size=10, max_records=105, epochs=2.0).count
          21
        """
        from dpkit.accountants.answers import checks

        if self.epochs is None:
            return self.steps
        epochs, rate = checks.positive(epochs=self.epochs), self.rate
        if self.steps is not None or self.expected_batch_size is None or rate is None:
            raise ValueError(
                f"epochs={epochs} goes with --batch-size and --dataset-size, in the"
                " place of --steps"
            )
        return math.ceil(epochs / rate - 1e-9)

    @property
    def rate(self) -> float | None:
        """The sampling rate: given, or a batch's share of the records.

        Example:
          >>> RunFlags(expected_batch_size=10, max_records=100).rate
          0.1
        """
        from dpkit.accountants.answers import checks

        if self.expected_batch_size is None:
            return self.sampling_rate
        batch = checks.integer_at_least(1, expected_batch_size=self.expected_batch_size)
        if self.sampling_rate is not None or self.max_records is None:
            raise ValueError(
                f"expected_batch_size={batch} goes with --max-records, in the place of"
                " --sampling-rate"
            )
        size = checks.integer_at_least(1, max_records=self.max_records)
        if batch > size:
            raise ValueError(
                f"expected_batch_size={batch} is more than max_records={size}"
            )
        return batch / size

    @property
    def given(self) -> list[str]:
        """The names of those that are given."""
        return [name for name, v in dataclasses.asdict(self).items() if v is not None]

    def declaration(
        self, *, relation: str | None, unit: str, delta: float | None, free: str = ""
    ) -> "Declaration":
        """The run that the options declare.

        Args:
          relation: the neighbouring relation.
          unit: the privacy unit.
          delta: the delta asked about, or None.
          free: the one parameter that is the question, and need not be given.

        Raises:
          ValueError: an option is missing or bad, or is no scheme of these options.

        Example:
          >>> run = RunFlags(noise_multiplier=2.0, sampling="full_batch",
          ...                sampling_rate=1.0, steps=1)
          >>> run.declaration(relation="zero_out", unit="user", delta=None).event
          GaussianDpEvent(noise_multiplier=2.0)
        """
        from dpkit.accountants.answers import checks
        from dpkit.budget.declaration import Declaration

        needed = {
            "sampling": self.sampling,
            "relation": relation,
            "noise_multiplier": self.noise_multiplier,
            "sampling_rate": self.rate,
            "steps": self.count,
        }
        for name, value in needed.items():
            if value is None and name != free:
                option = "--" + name.replace("_", "-")
                raise ValueError(f"missing option {option}; or give a CONFIG file")
        self._refuse_other_schemes(free)
        rate = needed["sampling_rate"]
        rate = checks.rate(sampling_rate=1.0 if free == "sampling_rate" else rate)
        steps = 1 if free == "steps" else self.count
        item: dict[str, Any] = {
            "kind": "gaussian",
            "noise_multiplier": self._noise(free),
            "count": checks.integer_at_least(1, steps=steps),
        }
        if self.sampling == "poisson":
            item |= {"kind": "poisson_gaussian", "sampling_rate": rate}
        if self.max_batch_size is not None and self.max_records is not None:
            item |= self._cut(rate)
        return Declaration(
            relation=relation or "", unit=unit, delta=delta, items=[item]
        )

    def facts(self) -> dict[str, Any]:
        """The options for the answer."""
        known = {**dataclasses.asdict(self), "sampling_rate": self.rate}
        known["steps"] = self.count
        return {name: value for name, value in known.items() if value is not None}

    def _noise(self, free: str) -> float:
        """The noise; a calibration puts its own in the place of this one."""
        from dpkit.accountants.answers import checks

        if free == "noise_multiplier":
            return 1.0
        return checks.positive(noise_multiplier=self.noise_multiplier)

    def _cut(self, rate: float) -> dict[str, Any]:
        """What batches that can be cut add to the event."""
        from dpkit.accountants.answers import checks

        size = checks.integer_at_least(1, max_batch_size=self.max_batch_size)
        records = checks.integer_at_least(1, max_records=self.max_records)
        # A hair of slack for what rate * records rounds to.
        if size < rate * records * (1 - 1e-9):
            raise ValueError(
                f"max_batch_size={size} is less than sampling_rate * max_records ="
                f" {rate * records:g}, the size to be expected"
            )
        if size >= records:
            return {}
        return {
            "kind": "truncated_poisson_gaussian",
            "dataset_size": records,
            "max_batch_size": size,
        }

    def _refuse_other_schemes(self, free: str) -> None:
        """Refuses what the options can't describe, or describe by halves."""
        sampling, size, most = self.sampling, self.max_batch_size, self.max_records
        if sampling in _REFUSED:
            raise ValueError(f"sampling={sampling!r}: {_REFUSED[sampling]}")
        if sampling not in ("poisson", "full_batch"):
            raise ValueError(
                f"sampling={sampling!r} is not known: use poisson or full_batch"
            )
        if sampling == "full_batch" and (self.rate != 1 or free == "sampling_rate"):
            raise ValueError(
                f"sampling_rate={self.rate}: with sampling full_batch it must be 1"
            )
        if free == "sampling_rate" and self.expected_batch_size is not None:
            raise ValueError(
                f"expected_batch_size={self.expected_batch_size}: it tells the sampling"
                " rate, which is what --solve asks for"
            )
        if self.expected_batch_size is not None and size is None:
            return
        for name, given, other in (
            ("max_batch_size", size, most),
            ("max_records", most, size),
        ):
            if given is not None and (other is None or sampling != "poisson"):
                raise ValueError(
                    f"{name}={given}: --max-batch-size and --max-records are given"
                    " together, with --sampling poisson, or not at all"
                )


def declared(
    config: Path | None,
    flags: RunFlags,
    *,
    relation: str | None,
    unit: str | None,
    delta: float | None = None,
    free: str = "",
) -> "Declaration":
    """The run, from a file or from the options, and never from both.

    Args:
      config: a declaration, or the configuration of a job; None: the options declare.
      flags: the options.
      relation, unit, delta: as for `dpkit.budget.declaration.read`.
      free: the one parameter that is the question, and need not be given.

    Raises:
      ValueError: both, or neither whole.

    Example:
      >>> flags = RunFlags(noise_multiplier=2.0, sampling="full_batch",
      ...                  sampling_rate=1.0, steps=3)
      >>> declared(None, flags, relation="zero_out", unit=None).unit
      'example'
    """
    if config is None:
        unit = "example" if unit is None else unit
        return flags.declaration(relation=relation, unit=unit, delta=delta, free=free)
    from dpkit.cli.jobs import declared as of_file

    if flags.given:
        name = flags.given[0]
        value = dataclasses.asdict(flags)[name]
        raise ValueError(
            f"{name}={value!r}: the CONFIG declares the run, or the options do"
        )
    return of_file(config, relation=relation, unit=unit, delta=delta)
