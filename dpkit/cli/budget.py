"""`dpkit budget`: what a declared run costs, and what a budget allows.

No data is read. A run is declared by a file, or, where it is DP-SGD, by its noise, its
sampling and its steps, and, where its batches can be cut, by their size and the bound
on the records. A training run's result.json has all of those; they give its epsilon
again.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpkit.cli import compare, curve, gate
from dpkit.cli.bounds import bound_in_words, delta_in_words, refuse_uncertified
from dpkit.cli.errors import Command
from dpkit.cli.flags import RunFlags, declared
from dpkit.cli.options import (
    Accountant,
    Accountants,
    Config,
    Delta,
    Deltas,
    Epochs,
    ExpectedBatchSize,
    Json,
    MaxBatchSize,
    MaxRecords,
    NoiseMultiplier,
    Relation,
    Sampling,
    SamplingRate,
    Steps,
    Unit,
)
from dpkit.cli.output import emit, facts, line

if TYPE_CHECKING:
    from dpkit.accountants import PrivacyBound
    from dpkit.budget.declaration import Declaration

app = typer.Typer(help="What a declared run costs, and what a budget allows.")
app.command(cls=Command)(compare.compare)
app.command(cls=Command)(curve.curve)
app.command(cls=Command)(gate.check)


@app.command(cls=Command)
def epsilon(
    config: Config = None,
    noise_multiplier: NoiseMultiplier = None,
    sampling_rate: SamplingRate = None,
    steps: Steps = None,
    delta: Deltas = None,
    epsilon: Annotated[
        list[float] | None,
        typer.Option(help="Answer the delta at this epsilon instead; repeatable."),
    ] = None,
    relation: Relation = None,
    sampling: Sampling = None,
    max_batch_size: MaxBatchSize = None,
    max_records: MaxRecords = None,
    expected_batch_size: ExpectedBatchSize = None,
    epochs: Epochs = None,
    unit: Unit = None,
    accountant: Accountant = "best",
    accountants: Accountants = None,
    json: Json = False,
) -> None:
    """Epsilon at delta, or delta at epsilon, of a declared run."""
    flags = RunFlags(
        noise_multiplier=noise_multiplier,
        sampling=sampling,
        sampling_rate=sampling_rate,
        steps=steps,
        max_batch_size=max_batch_size,
        max_records=max_records,
        expected_batch_size=expected_batch_size,
        epochs=epochs,
    )
    run = declared(config, flags, relation=relation, unit=unit)
    if epsilon:
        if delta:
            raise ValueError(
                f"epsilon={epsilon}: give --delta or --epsilon, and not both"
            )
        _show_deltas(run, flags, epsilon, accountant, as_json=json)
        return
    deltas = delta or ([run.delta] if run.delta is not None else [])
    if not deltas:
        raise ValueError("missing option --delta; or a CONFIG that names it")
    if accountants is None:
        bounds, readings = [_bound(run, at, accountant) for at in deltas], None
    else:
        if accountant != "best":
            raise ValueError(
                f"accountant={accountant}: give it or --accountants, and not both"
            )
        bounds, readings = compare.asked(run, deltas, compare.names(accountants))
    _show(run, flags, bounds, {}, readings, as_json=json)


@app.command(cls=Command)
def calibrate(
    config: Config = None,
    epsilon: Annotated[
        float | None, typer.Option(help="The most that the run may cost.")
    ] = None,
    delta: Delta = None,
    solve: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What to choose: noise_multiplier, steps, sampling_rate, epsilon or"
            " delta. The CONFIG's own value of it is not read.",
        ),
    ] = "noise_multiplier",
    noise_multiplier: NoiseMultiplier = None,
    sampling_rate: SamplingRate = None,
    steps: Steps = None,
    relation: Relation = None,
    sampling: Sampling = None,
    max_batch_size: MaxBatchSize = None,
    max_records: MaxRecords = None,
    expected_batch_size: ExpectedBatchSize = None,
    epochs: Epochs = None,
    unit: Unit = None,
    accountant: Accountant = "best",
    bracket: Annotated[
        tuple[float, float] | None,
        typer.Option(help="The lowest and the highest value to consider."),
    ] = None,
    rounding: Annotated[
        int,
        typer.Option(
            metavar="DIGITS",
            help="Significant digits of the answer, 1 to 7, rounded to the private side"
            " and checked there.",
        ),
    ] = 7,
    advantage: Annotated[
        float | None,
        typer.Option(help="Instead of epsilon: the most that an attacker may gain."),
    ] = None,
    tpr: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="TPR FPR",
            help="Instead of epsilon: the largest true positive rate of an attacker,"
            " at a false positive rate.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """What a budget allows: the least noise, or the most steps, certified."""
    from dpkit.accountants.answers import checks
    from dpkit.accountants.readings.axis import DIGITS
    from dpkit.budget.solving import FREE, AttackLimit, solve_attack
    from dpkit.budget.solving import solve as solve_for

    checks.one_of(FREE, solve=solve)
    digits = checks.integer_at_least(1, rounding=rounding)
    if digits > DIGITS:
        raise ValueError(f"rounding={digits}: must be at most {DIGITS}")
    flags = RunFlags(
        noise_multiplier=noise_multiplier,
        sampling=sampling,
        sampling_rate=sampling_rate,
        steps=steps,
        max_batch_size=max_batch_size,
        max_records=max_records,
        expected_batch_size=expected_batch_size,
        epochs=epochs,
    )
    asked = {"epsilon": epsilon, "delta": delta}
    asked |= {name: getattr(flags, name) for name in flags.given}
    if asked.get(solve) is not None:
        raise ValueError(f"{solve}={asked[solve]!r}: it is what --solve asks for")
    run = declared(config, flags, relation=relation, unit=unit, free=solve)
    at = run.delta if delta is None else delta
    if at is None and solve != "delta":
        raise ValueError("missing option --delta; or a CONFIG that names it")
    targets = [t for t in (epsilon, advantage, tpr) if t is not None]
    if not targets and solve != "epsilon":
        raise ValueError("missing option --epsilon, or --advantage, or --tpr")
    if len(targets) > 1:
        raise ValueError("give one of --epsilon, --advantage and --tpr")
    limit = None
    if tpr is not None:
        if not 0 < tpr[1] < tpr[0] < 1:
            raise ValueError(f"tpr={tpr}: needed 0 < FPR < TPR < 1")
        limit = AttackLimit(*tpr)
    elif advantage is not None:
        limit = AttackLimit(checks.open_probability(advantage=advantage))
    if limit is not None:
        found, gain = solve_attack(
            run, solve, limit, delta=at, bracket=bracket, digits=digits
        )
        name = "advantage" if tpr is None else "true_positives"
        value = {solve: found.value, name: gain}
        if tpr is not None:
            value["false_positives"] = tpr[1]
        _show(found.run, flags, [found.bound], value, as_json=json)
        return
    found = solve_for(
        run,
        solve,
        epsilon=epsilon,
        delta=at,
        accountant=accountant,
        bracket=bracket,
        digits=digits,
    )
    value = {} if solve in ("epsilon", "delta") else {solve: found.value}
    _show(found.run, flags, [found.bound], value, as_json=json)


def _bound(run: "Declaration", delta: float, accountant: str) -> "PrivacyBound":
    """What one accountant, or the best, says of a run."""
    from dpkit.accountants import epsilon as epsilon_of

    options: Any = {"accountant": accountant, "unit": run.unit}
    return epsilon_of(run.event, delta, relation=run.relation, **options)


def _show(
    run: "Declaration",
    flags: RunFlags,
    bounds: "Sequence[PrivacyBound]",
    value: dict[str, Any],
    readings: Sequence[Any] | None = None,
    *,
    as_json: bool,
) -> None:
    """Print the bounds; without a certificate the command fails after that."""
    told = flags.facts() | value
    if as_json:
        listed = [bound.to_json() for bound in bounds]
        document = listed[0] if len(listed) == 1 else {"bounds": listed}
        document = {"relation": str(run.relation), "unit": run.unit} | document
        document |= _about(run, flags) | told
        if readings is not None:
            document["accountants"] = [reading.to_json() for reading in readings]
        emit(document)
    else:
        for bound in bounds:
            epsilon, *rest = bound_in_words(bound)
            chosen = [(_plain(name), repr(told[name])) for name in value]
            noise = told.get("noise_multiplier")
            if "noise_multiplier" not in value and noise is not None:
                chosen.append(("noise multiplier", repr(noise)))
            facts([epsilon, *chosen, *rest, *_described(run, flags, told, value)])
        if readings is not None:
            line()
            compare.show(readings)
    refuse_uncertified(all(bound.certified for bound in bounds))


def _show_deltas(
    run: "Declaration",
    flags: RunFlags,
    epsilons: list[float],
    accountant: str,
    *,
    as_json: bool,
) -> None:
    """Print the delta at each epsilon."""
    from dpkit.accountants import delta_of

    options: Any = {"relation": run.relation, "unit": run.unit}
    bounds = [
        delta_of(run.event, at, accountant=accountant, **options) for at in epsilons
    ]
    if as_json:
        listed = [bound.to_json() for bound in bounds]
        document = listed[0] if len(listed) == 1 else {"bounds": listed}
        document = {"relation": str(run.relation), "unit": run.unit} | document
        emit(document | _about(run, flags) | flags.facts())
    else:
        told = flags.facts()
        for bound in bounds:
            facts([*delta_in_words(bound), *_described(run, flags, told, {})])
    refuse_uncertified(all(bound.certified for bound in bounds))


def _about(run: "Declaration", flags: RunFlags) -> dict[str, Any]:
    """The events of a file, which options don't repeat."""
    if flags.given:
        return {}
    return {"events": run.to_json()["events"], "assumed": list(run.assumed)}


def _described(
    run: "Declaration", flags: RunFlags, told: dict[str, Any], value: dict[str, Any]
) -> list[tuple[str, Any]]:
    """The run, for people."""
    if not flags.given:
        from dpkit.report.words import event_in_words

        events = [("event", event_in_words(e)) for e in run.to_json()["events"]]
        return [*events, *(("assumed", text) for text in run.assumed)]
    rate = told.get("sampling_rate", math.nan)
    rows: list[tuple[str, Any]] = [("sampling", f"{told['sampling']}, rate {rate!r}")]
    for name in ("max_batch_size", "max_records", "steps"):
        if name not in value:
            rows.append((_plain(name), told.get(name)))
    return rows


def _plain(name: str) -> str:
    """A name as words."""
    return name.replace("_", " ")
