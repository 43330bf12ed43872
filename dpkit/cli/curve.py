"""`dpkit budget curve`: a run's curves as numbers and as drawings."""

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dpkit.cli.files import write
from dpkit.cli.flags import RunFlags, declared
from dpkit.cli.options import (
    Config,
    Delta,
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
from dpkit.cli.output import dumps, emit, facts, line, table

if TYPE_CHECKING:
    from dpkit.budget.curves import Curve
    from dpkit.budget.declaration import Declaration

_AXES = ("steps", "delta", "noise_multiplier", "order", "fpr")
_ROWS = 15


def curve(
    config: Config = None,
    x: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="steps, delta (against epsilon), noise_multiplier, order (of the"
            " Rényi divergence) or fpr (the trade-off curve).",
        ),
    ] = "steps",
    delta: Delta = None,
    noise_multiplier: NoiseMultiplier = None,
    sampling_rate: SamplingRate = None,
    steps: Steps = None,
    sampling: Sampling = None,
    max_batch_size: MaxBatchSize = None,
    max_records: MaxRecords = None,
    expected_batch_size: ExpectedBatchSize = None,
    epochs: Epochs = None,
    relation: Relation = None,
    unit: Unit = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Write curve.csv, curve.json and curve.html there."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """A curve of the run: certified numbers, with published lines beside them."""
    from dpkit.accountants.answers import checks

    checks.one_of(_AXES, x=x)
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
    run = declared(config, flags, relation=relation, unit=unit, delta=delta)
    found = _curve(run, x)
    document = {**run.to_json(), "curve": found.to_json()}
    if out is not None:
        _write(out, found, run, dumps(document))
    if json:
        emit(document)
        return
    told = [("relation", run.relation), ("unit", run.unit), ("regime", "static")]
    warrant = "upper bounds" if x != "fpr" else "lower bounds"
    words = f"certified {warrant}" if found.certified else "an estimate"
    facts([*told, (found.y, words), ("written to", out)])
    line()
    every = max(1, -(-len(found.points) // _ROWS))
    shown = [*found.points[:-1:every], found.points[-1]]
    from dpkit.report.figures import rounded

    table([f"{found.x}:", f"{found.y}:"], rounded(found, shown, digits=6))


def _curve(run: "Declaration", x: str) -> "Curve":
    """The curve that was asked for."""
    from dpkit.budget import curves

    if x == "order":
        return curves.renyi(run)
    if x in ("delta", "fpr"):
        from dpkit.accountants import attack_risk

        risk = attack_risk(run.event, relation=run.relation)
        return curves.profile(risk) if x == "delta" else curves.trade_off(risk)
    if run.delta is None:
        raise ValueError("missing option --delta; or a CONFIG that names it")
    make = curves.against_steps if x == "steps" else curves.against_noise
    return make(run, run.delta)


def _write(folder: Path, found: "Curve", run: "Declaration", document: str) -> None:
    """The curve in three forms."""
    from dpkit.report.figures import curve_page

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["line", found.x, found.y])
    for name, points in {"": found.points, **found.references}.items():
        writer.writerows([name, repr(x), repr(y)] for x, y in points)
    page = curve_page(found, relation=str(run.relation), unit=run.unit)
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "curve.csv", text.getvalue())
    write(folder / "curve.json", document)
    write(folder / "curve.html", page)
