"""`dpkit budget`: what a declared run costs, and the noise that a budget needs.

No data is read. A run is declared by its noise, its sampling and its steps, and, where
its batches can be cut, by their size and the bound on the records. A run's result.json
has all of them; they give its epsilon again.
"""

import dataclasses
import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpkit.cli.errors import Command
from dpkit.cli.options import (
    Accountant,
    Delta,
    Json,
    MaxBatchSize,
    MaxRecords,
    Relation,
    Sampling,
    SamplingRate,
    Steps,
    Unit,
)
from dpkit.cli.output import emit, facts

if TYPE_CHECKING:
    from dp_accounting import DpEvent

    from dpkit.accountants import PrivacyBound

app = typer.Typer(help="Epsilon of a declared run, and the noise for a budget.")

_NOT_POISSON = (
    "must not be accounted as Poisson sampling, whose epsilon is smaller; for one pass"
    " over fixed disjoint batches an epoch, under zero_out, give"
    " --sampling full_batch --sampling-rate 1 with one step an epoch"
)
_REFUSED = {
    "shuffle": f"shuffled batches {_NOT_POISSON}",
    "shuffled": f"shuffled batches {_NOT_POISSON}",
    "fixed_batches": f"batches in a fixed order {_NOT_POISSON}",
    "cyclic": f"batches in a fixed order {_NOT_POISSON}",
    "fixed_size": "batches of a fixed size have their own event, which this command"
    " can't take yet; they must not be accounted as Poisson sampling",
    "wor": "batches drawn without replacement have their own event, which this command"
    " can't take yet; they must not be accounted as Poisson sampling",
    "balls_in_bins": "random allocation has its own event, which this command can't"
    " take yet; it must not be accounted as Poisson sampling",
}


@app.command(cls=Command)
def epsilon(
    noise_multiplier: Annotated[
        float, typer.Option(help="Noise standard deviation over the clip norm.")
    ],
    sampling_rate: SamplingRate,
    steps: Steps,
    delta: Delta,
    relation: Relation,
    sampling: Sampling,
    max_batch_size: MaxBatchSize = None,
    max_records: MaxRecords = None,
    unit: Unit = "example",
    accountant: Accountant = "best",
    json: Json = False,
) -> None:
    """Epsilon of a run of noised, clipped sums, such as DP-SGD."""
    from dpkit.accountants import epsilon as epsilon_of

    declared = _Declared(sampling, sampling_rate, steps, max_batch_size, max_records)
    bound = epsilon_of(
        declared.event(noise_multiplier, relation),
        delta,
        relation=relation,
        accountant=accountant,
        unit=unit,
    )
    _show(bound, declared.facts(noise_multiplier), as_json=json)


@app.command(cls=Command)
def calibrate(
    epsilon: Annotated[float, typer.Option(help="The most that the run may cost.")],
    delta: Delta,
    sampling_rate: SamplingRate,
    steps: Steps,
    relation: Relation,
    sampling: Sampling,
    max_batch_size: MaxBatchSize = None,
    max_records: MaxRecords = None,
    unit: Unit = "example",
    accountant: Accountant = "best",
    json: Json = False,
) -> None:
    """The least noise multiplier whose certified epsilon is within a budget."""
    from dpkit.accountants import calibrate as solve

    declared = _Declared(sampling, sampling_rate, steps, max_batch_size, max_records)
    solution = solve(
        lambda noise: declared.event(noise, relation),
        epsilon=epsilon,
        delta=delta,
        relation=relation,
        accountant=accountant,
    )
    bound = dataclasses.replace(solution.bound, unit=unit)
    _show(bound, declared.facts(solution.value), as_json=json)


@dataclasses.dataclass(frozen=True)
class _Declared:
    """A run as the options declare it, without its noise."""

    sampling: str
    sampling_rate: float
    steps: int
    max_batch_size: int | None
    max_records: int | None

    def event(self, noise_multiplier: float, relation: str) -> "DpEvent":
        """What the run costs; a scheme that can't be described here is refused."""
        import dp_accounting

        from dpkit.accountants import _check

        self._refuse_other_schemes()
        _check.positive(noise_multiplier=noise_multiplier)
        _check.rate(sampling_rate=self.sampling_rate)
        _check.integer_at_least(1, steps=self.steps)
        if self.max_batch_size is not None and self.max_records is not None:
            sizes = self.max_batch_size, self.max_records
            return self._cut(noise_multiplier, relation, *sizes)
        step = dp_accounting.GaussianDpEvent(noise_multiplier)
        if self.sampling == "poisson":
            step = dp_accounting.PoissonSampledDpEvent(self.sampling_rate, step)
        return dp_accounting.SelfComposedDpEvent(step, self.steps)

    def _cut(
        self, noise_multiplier: float, relation: str, size: int, most: int
    ) -> "DpEvent":
        """The event of the plan itself, whose batches can be cut."""
        from dpkit.mechanisms import GaussianSum, PoissonSampler
        from dpkit.training import DPSGDPlan

        sampler = PoissonSampler(self.sampling_rate, size, most)
        plan = DPSGDPlan(
            sampler=sampler,
            mechanism=GaussianSum(1.0, noise_multiplier, sampler.max_batch_size),
            steps=self.steps,
            # Only divides, like the clip norm: neither enters the event.
            expected_batch_size=1,
        )
        return plan.event(relation)

    def _refuse_other_schemes(self) -> None:
        """Refuses what the options can't describe, or describe by halves."""
        sampling, size, most = self.sampling, self.max_batch_size, self.max_records
        if sampling in _REFUSED:
            raise ValueError(f"sampling={sampling!r}: {_REFUSED[sampling]}")
        if sampling not in ("poisson", "full_batch"):
            raise ValueError(
                f"sampling={sampling!r} is not known: use poisson or full_batch"
            )
        if sampling == "full_batch" and self.sampling_rate != 1:
            raise ValueError(
                f"sampling_rate={self.sampling_rate}: with sampling full_batch it must"
                " be 1"
            )
        for name, given, other in (
            ("max_batch_size", size, most),
            ("max_records", most, size),
        ):
            if given is not None and (other is None or sampling != "poisson"):
                raise ValueError(
                    f"{name}={given}: --max-batch-size and --max-records are given"
                    " together, with --sampling poisson, or not at all"
                )

    def facts(self, noise_multiplier: float) -> dict[str, Any]:
        """The same for the answer."""
        fields = {**dataclasses.asdict(self), "noise_multiplier": noise_multiplier}
        return {name: value for name, value in fields.items() if value is not None}


def _show(bound: "PrivacyBound", declared: dict[str, Any], *, as_json: bool) -> None:
    """Print the bound; without a certificate the command fails after that."""
    from dpkit.accountants.errors import NotCertified

    if as_json:
        emit({**bound.to_json(), **declared})
    else:
        epsilon, *rest = bound_in_words(bound)
        sampling = f"{declared['sampling']}, rate {declared['sampling_rate']!r}"
        noise = ("noise multiplier", repr(declared["noise_multiplier"]))
        others = [
            (name.replace("_", " "), declared.get(name))
            for name in ("max_batch_size", "max_records", "steps")
        ]
        facts([epsilon, noise, *rest, ("sampling", sampling), *others])
    if not bound.certified:
        raise NotCertified(
            "no accountant certifies an epsilon for this run: what was printed is an"
            " estimate"
        )


def bound_in_words(bound: "PrivacyBound") -> list[tuple[str, str | None]]:
    """A bound as facts to print; an uncertified one is called an estimate.

    Args:
      bound: what an accountant or a ledger answered.

    Returns:
      Names and values for `facts`.

    Example:
      >>> from dpkit.accountants import PrivacyBound
      >>> bound = PrivacyBound(delta=1e-5, upper=2.0, certified=True,
      ...   method_upper="pld", relation="add_remove", unit="example")
      >>> bound_in_words(bound)[0]
      ('epsilon', '≤ 2, certified (pld)')
    """
    from dpkit.report.words import number

    if bound.certified and bound.upper == math.inf:
        shown = "infinite: no guarantee"
    elif bound.certified and bound.upper is not None:
        shown = f"≤ {number(bound.upper, side='up')}, certified ({bound.method_upper})"
    else:
        value = bound.estimate if bound.estimate is not None else bound.upper
        shown = "no answer" if value is None else f"≈ {number(value)}, an estimate"
    lower = f"{number(bound.lower, side='down')}" if bound.lower else None
    return [
        ("epsilon", shown),
        ("at least", lower),
        ("delta", number(bound.delta, side="up")),
        ("relation", str(bound.relation)),
        ("unit", bound.unit),
        ("regime", bound.regime),
        *(("warning", text) for text in bound.warnings),
    ]
