"""`dpkit density`: release a structure over points once, then ask it for ever."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpkit.cli import jobs
from dpkit.cli.errors import Command
from dpkit.cli.files import beside, place
from dpkit.cli.options import Delta, Json, Relation
from dpkit.cli.output import emit, facts, note

if TYPE_CHECKING:
    from dpkit.density import Answers, Release

app = typer.Typer(
    help="Kernel densities and distances of private points, released once."
)

_ENDINGS = (".csv", ".parquet")
_PRIVACY = (
    "nothing was charged: answers are post-processing of what was released, which "
    "protects the points, not the queries"
)
_NEEDED = {
    "privacy.epsilon": "what the release may cost, such as 1",
    "privacy.delta": "at which that is meant, such as 1e-6, or 0 for pure noise",
    "privacy.relation": "add_remove protects whether a point is there, replace_one its "
    "values alone, zero_out is as add_remove with an empty point",
}


@app.command(cls=Command)
def build(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG.toml|POINTS",
            help="A configuration; or a file of points (.csv, .parquet, .arrow, .npz, "
            ".npy, a folder of such), with the options below.",
        ),
    ],
    kernel: Annotated[
        str | None,
        typer.Option(metavar="KERNEL", help="gaussian, laplacian, …, l1, l2, …"),
    ] = None,
    bandwidth: Annotated[
        str | None,
        typer.Option(metavar="H", help="In the unit of the points; public."),
    ] = None,
    domain: Annotated[
        str | None,
        typer.Option(
            metavar="LOW:HIGH,…", help="Low and high of every axis; public: 0:9,-1:1."
        ),
    ] = None,
    epsilon: Annotated[
        float | None, typer.Option(help="What the release may cost. No default.")
    ] = None,
    delta: Delta = None,
    relation: Relation = None,
    unit: Annotated[
        str | None, typer.Option(help="What is protected. [default: example, a point]")
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,…", help="The coordinates. [default: all columns of numbers]"
        ),
    ] = None,
    structure: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="spline, sketch or landmarks. [default: what is to err least]",
        ),
    ] = None,
    records: Annotated[
        int | None, typer.Option(help="About how many points there are; public.")
    ] = None,
    landmarks: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Public points, such as the queries."),
    ] = None,
    landmarks_public: Annotated[
        bool, typer.Option("--landmarks-public", help="I say that these are public.")
    ] = False,
    out: jobs.Out = None,
    ledger: jobs.Ledger = None,
    changes: jobs.Changes = None,
    offline: jobs.Offline = False,
    dry_run: jobs.DryRun = False,
    json: Json = False,
) -> None:
    """Release a structure over private points, with a ledger and a report.

    Options take the place of the CONFIG's settings; a file of points needs --epsilon,
    --delta and --relation. An unfinished build goes on where it stopped, and is paid
    for once. Queries cost nothing.
    """
    jobs.need_folder(out, dry_run)
    given: dict[str, Any] = {
        "density.kernel": kernel,
        "density.bandwidth": None if bandwidth is None else _numbers(bandwidth),
        "density.domain": None if domain is None else _numbers(domain, pairs=True),
        "density.structure": structure,
        "density.records": records,
        "density.landmarks": landmarks,
        "density.landmarks_public": landmarks_public or None,
        "privacy.epsilon": epsilon,
        "privacy.delta": delta,
        "privacy.relation": relation,
        "privacy.unit": unit,
        "data.columns": None if columns is None else columns.split(","),
    }
    name = "classes" if jobs.job_of_file(source) == "classes" else "density"
    read = jobs.config_of(
        name,
        source,
        given,
        changes or [],
        out,
        needed=_NEEDED,
        sections=("density", "privacy"),
        called="POINTS",
    )
    jobs.run_or_tell(name, read, out, ledger, offline, dry_run, json)


@app.command(cls=Command)
def query(
    release: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="The folder of a build, or its density.safetensors."
        ),
    ],
    queries: Annotated[
        Path,
        typer.Argument(
            metavar="QUERIES", help="Public points, a row each, as for a build."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="OUT", help="A new file, .csv or .parquet: a row for each query."
        ),
    ],
    json: Json = False,
) -> None:
    """Ask what was released; needs neither ledger nor key, and costs no privacy.

    Columns: value, the sum over all points; stddev and bias_bound, its error. In some
    95 of 100 rows the truth is within 2 stddev + bias_bound of the value.
    """
    if out.suffix not in _ENDINGS:
        raise ValueError(f"out={str(out)!r} must end in {' or '.join(_ENDINGS)}")
    if out.exists():
        raise ValueError(f"out={str(out)!r} exists already: name a new file")
    if not out.parent.is_dir():
        raise ValueError(f"out={str(out)!r}: there is no folder {str(out.parent)!r}")
    from dpkit.density import load

    found = load(release)
    if "classes" in found.facts:
        raise ValueError(
            f"{release} was released by class: ask it in Python, by "
            f"dpkit.density.Classifier.load({str(release)!r}).predict(rows)"
        )
    answers = found.query(_read(queries, found))
    _write(answers, out)
    if found.facts.get("insecure_seed"):
        note(f"dpkit: {release}: NO PRIVACY: its noise came from a known seed")
    told = {"queries": len(answers.values), "out": str(out)}
    named = ("structure", "kernel", "epsilon", "delta", "relation", "unit")
    told |= {name: found.facts.get(name) for name in named}
    if json:
        emit({**told, "release": str(release), "head": found.facts.get("ledger_head")})
    else:
        facts([*told.items(), ("privacy", _PRIVACY)])


def _numbers(text: str, *, pairs: bool = False) -> Any:
    """A number, or pairs of them; what is neither is text, left to be refused."""
    try:
        if not pairs:
            return float(text)
        return [[float(x) for x in axis.split(":")] for axis in text.split(",")]
    except ValueError:
        return text


def _read(path: Path, release: "Release") -> Any:
    """Queries out of a file, by the names of the build's columns where it has them."""
    import numpy as np

    from dpkit.density.points import open_points

    names, dimension = release.facts.get("columns"), release.structure.dimension
    points = open_points(path, strict=True)
    if names and set(names) <= set(points.origin.names):
        points = open_points(path, columns=names, strict=True)
    if points.dimension != dimension:
        raise ValueError(
            f"QUERIES={str(path)!r} has {points.dimension} columns of numbers: needed "
            f"{dimension}, one for each coordinate of a point"
        )
    parts = [batch.points for batch in points.batches()]
    rows = np.concatenate([np.zeros((0, dimension)), *parts])
    wrong = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(wrong):
        raise ValueError(
            f"QUERIES={str(path)!r}: row {wrong[0] + 1:,} of {len(rows):,} is not of "
            f"finite numbers alone (names are no row): {rows[wrong[0]].tolist()}"
        )
    return rows


def _write(answers: "Answers", out: Path) -> None:
    """Write the answers, whole or not at all."""
    import pyarrow as pa
    from pyarrow import csv, parquet

    names = ("value", "stddev", "bias_bound")
    table = pa.table(dict(zip(names, answers, strict=True)))
    temporary = beside(out)
    try:
        with temporary.open("xb") as file:
            if out.suffix == ".csv":
                file.write(",".join(names).encode() + b"\n")  # Arrow would quote them
                csv.write_csv(table, file, csv.WriteOptions(include_header=False))
            else:
                parquet.write_table(table, file)
            file.flush()
            os.fsync(file.fileno())
        place(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)
