"""`dpkit synth`: a table that may be shared, out of one that may not."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpkit.cli import data, jobs
from dpkit.cli.errors import Command
from dpkit.cli.files import beside, place, write_new
from dpkit.cli.opening import opened
from dpkit.cli.options import Delta, Json, Relation
from dpkit.cli.output import confirm, emit, facts, line, note, table

if TYPE_CHECKING:
    from dpkit.jobs import JobConfig
    from dpkit.synthetic.forecast import Family

app = typer.Typer(help="Synthetic tables: measured once, drawn for ever.")
schemas = typer.Typer(help="What is publicly known of a table.")
app.add_typer(schemas, name="schema")
schemas.command("init", cls=Command)(data.schema)
schemas.command("check", cls=Command)(data.check)

_ENDINGS = (".csv", ".parquet", ".arrow")
_NEEDED = {
    "data.schema": "the public schema; `dpkit synth schema init` drafts one",
    "privacy.epsilon": "what the release may cost, such as 1",
    "privacy.delta": "at which that is meant, such as 1e-6",
    "privacy.relation": "add_remove protects whether a row is there, replace_one its "
    "values alone",
}
_OWNER = "these numbers are about the private table: for its owner alone"
_LISTED = 12
_EXPECTED = (
    "expected variation is of columns that use all their values; where few values hold "
    "most rows, as in most real tables, it comes out two to four times better"
)
_REMEDIES = (
    "of noise alone nothing is learnt: declare fewer bins or categories, measure fewer "
    "pairs (synthetic.settings.pairs), or give more epsilon"
)
_FREE = "nothing was charged: rows are post-processing of what was released"

Schema = Annotated[
    Path | None, typer.Option(metavar="FILE", help="The public schema, in JSON.")
]
Epsilon = Annotated[
    float | None, typer.Option(help="What the release may cost. No default.")
]
Mechanism = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="pairs, independent, mst, aim, gsd, mwem or merf. [default: pairs]",
    ),
]


@app.command(cls=Command)
def fit(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG.toml|TABLE",
            help="A configuration; or a table (.csv, .parquet, .arrow, a folder of "
            "such), with the options below.",
        ),
    ],
    schema: Schema = None,
    epsilon: Epsilon = None,
    delta: Delta = None,
    relation: Relation = None,
    mechanism: Mechanism = None,
    rows: Annotated[
        int | None, typer.Option(help="How many to make. [default: as many as there]")
    ] = None,
    impossible: Annotated[
        str | None,
        typer.Option(
            metavar="HOW", help="few, fewer or free: pairs of values nobody holds."
        ),
    ] = None,
    unit: Annotated[
        str | None, typer.Option(help="What is protected. [default: record, a row]")
    ] = None,
    rows_per_unit: Annotated[
        int | None, typer.Option(help="The most rows of a unit, where it isn't a row.")
    ] = None,
    out: jobs.Out = None,
    ledger: jobs.Ledger = None,
    changes: jobs.Changes = None,
    offline: jobs.Offline = False,
    dry_run: jobs.DryRun = False,
    json: Json = False,
) -> None:
    """Make a synthetic table, with a ledger and a report.

    Options take the place of the CONFIG's settings; a table needs --schema, --epsilon,
    --delta and --relation. An unfinished run goes on where it stopped, and is paid for
    once. DIR/synthetic.csv may be shared, and so may everything else there.
    """
    jobs.need_folder(out, dry_run)
    given = _given(schema, epsilon, delta, relation, mechanism)
    given |= {
        "synthetic.rows": rows,
        "synthetic.impossible": impossible,
        "privacy.unit": unit,
        "privacy.rows_per_unit": rows_per_unit,
    }
    read = _config(source, given, changes or [], out)
    jobs.run_or_tell("synth", read, out, ledger, offline, dry_run, json)


@app.command(cls=Command)
def plan(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="[SCHEMA|TABLE|CONFIG.toml]",
            help="What is publicly known, in JSON; or as for fit: no table is opened,"
            " and it need not be there.",
        ),
    ] = None,
    *,
    schema: Schema = None,
    records: Annotated[
        int, typer.Option(help="About how many rows there are; public, a guess.")
    ],
    epsilon: Epsilon = None,
    delta: Delta = None,
    relation: Relation = None,
    mechanism: Mechanism = None,
    json: Json = False,
) -> None:
    """What to expect of a synthetic table; reads no table and spends nothing."""
    from dpkit.synthetic.forecast import forecast
    from dpkit.synthetic.job import SYNTH

    if source is not None and source.suffix == ".json":
        source, schema = None, schema or source
    given = _given(schema, epsilon, delta, relation, mechanism)
    read: Any = _config(source or Path("table.csv"), given, [], None, opens=False)
    made = SYNTH.prepare(read, offline=True, tell=None, data=False)
    privacy = read.privacy
    found = forecast(
        made.codebook,
        made.recipe,
        privacy.relation,
        records=records,
        rows_per_unit=privacy.rows_per_unit,
    )
    if json:
        emit({**found.short(), "families": [_family(one) for one in found.families]})
        return
    facts([(k.replace("_", " "), jobs.shown(k, v)) for k, v in found.short().items()])
    line()
    worst = sorted(found.families, key=lambda one: one.variation, reverse=True)
    rows = [
        (
            " and ".join(one.columns),
            f"{one.cells:,}",
            f"{one.stddev:.1f}",
            f"{one.variation:.3f}",
            f"{one.expected:.3f}",
            "this pair will be noise" if one.noisy else "",
        )
        for one in worst[:_LISTED]
    ]
    heads = ["columns", "cells:", "noise of a count:", "noise alone:", "expected:", ""]
    table(heads, rows)
    hidden = sum(one.noisy for one in worst[_LISTED:])
    if hidden:
        note(f"dpkit: {hidden} more pairs will be noise; --json lists them all")
    if any(one.noisy for one in worst):
        note(f"dpkit: {_REMEDIES}")
    if found.pairs:
        note(f"dpkit: {_EXPECTED}")
    note("dpkit: no table was read and nothing was spent")


def _family(one: "Family") -> dict[str, Any]:
    """What is foretold of one family, for machines."""
    return {
        "columns": list(one.columns),
        "cells": one.cells,
        "stddev": one.stddev,
        "noise_variation": one.variation,
        "expected_variation": one.expected,
        "noise": one.noisy,
    }


@app.command(cls=Command)
def sample(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="The folder of a run, or its model.safetensors."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(metavar="FILE", help="A new file, .csv, .parquet or .arrow."),
    ],
    rows: Annotated[
        int | None, typer.Option(help="How many. [default: all of the model]")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN=VALUE",
            help="A condition; several of one column are alternatives.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draw; not of any noise.")] = 0,
    json: Json = False,
) -> None:
    """Draw rows from a model; needs neither ledger nor key, and costs no privacy."""
    if out.suffix not in _ENDINGS:
        raise ValueError(f"out={str(out)!r} must end in {', '.join(_ENDINGS)}")
    _refuse_taken(out=out)
    from dpkit.accountants.answers import checks
    from dpkit.synthetic import Model

    if rows is not None:
        checks.integer_at_least(1, rows=rows)

    found = Model.load(model)
    drawn = found.sample(rows, where=_conditions(where or []), seed=seed, kind="arrow")
    _write(drawn, out)
    if found.receipt.get("insecure_seed"):
        note(f"dpkit: {model}: NO PRIVACY: its noise came from a known seed")
    told = {"rows": drawn.num_rows, "out": str(out)}
    names = ("mechanism", "epsilon", "delta", "relation", "unit")
    told |= {name: found.receipt.get(name) for name in names}
    if json:
        emit(told)
    else:
        facts([*told.items(), ("privacy", _FREE)])


@app.command(cls=Command)
def evaluate(
    real: Annotated[
        Path,
        typer.Argument(
            metavar="REAL",
            help="The private table, as for fit; or adult, beside the demo's.",
        ),
    ],
    synthetic: Annotated[
        Path,
        typer.Argument(metavar="SYNTHETIC", help="The made-up one, or its run's DIR."),
    ],
    schema: Schema = None,
    owner: Annotated[
        bool,
        typer.Option(
            "--owner",
            help="I may see the private table, and will show these numbers to nobody"
            " else.",
        ),
    ] = False,
    held_out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Real rows that were not synthesised from."),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Two classes, to learn; with --held-out."),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A new file: the same as a page."),
    ] = None,
    json: Json = False,
) -> None:
    """How near a synthetic table is to the real one; for the owner's eyes alone.

    These numbers are computed from private rows without noise: published, they would be
    a release that nobody paid for.
    """
    public = str(real) == "adult" and not real.exists()
    if not owner and not public:
        raise ValueError(
            "evaluate compares with the private table, outside any guarantee: say that "
            "you may see it, by --owner; what may be published is in the run's report"
        )
    if label is not None and held_out is None and not public:
        raise ValueError(f"label={label!r} needs --held-out: rows to be tested on")
    if html is not None:
        _refuse_taken(html=html)
    from dpkit.data.codes import Codebook
    from dpkit.data.schema import Schema as Public
    from dpkit.data.tables import adult_schema, load_adult
    from dpkit.synthetic.evaluation import evaluate as compared
    from dpkit.synthetic.evaluation import page

    made = synthetic / "synthetic.csv" if synthetic.is_dir() else synthetic
    if public:
        book = Codebook.of(adult_schema())
        train, others = load_adult()
        found = compared(train, made, book, held_out=others, label="income")
    elif schema is None:
        raise ValueError(f"missing option --schema: {_NEEDED['data.schema']}")
    else:
        book = Codebook.of(Public.load(schema))
        found = compared(real, made, book, held_out=held_out, label=label)
    if not public:
        note(f"dpkit: {_OWNER}")
    if html is not None:
        write_new(page(found, real.name, public=public), html=html)
        confirm(f"written: {html}")
    if json:
        emit(found)
    else:
        facts([(name.replace("_", " "), value) for name, value in found.items()])


@schemas.command("discover", cls=Command)
def discover(
    source: Annotated[
        Path, typer.Argument(metavar="TABLE", help="The private table, as for fit.")
    ],
    columns: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="A schema in JSON whose kinds are declared; categories, low and high "
            "may be left out, and are found.",
        ),
    ],
    ledger: Annotated[
        str, typer.Option(metavar="LEDGER", help="It is charged; see dpkit ledger.")
    ],
    epsilon: Annotated[float, typer.Option(help="What it may cost.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The schema, a new file.")],
    delta: Delta = None,
    json: Json = False,
) -> None:
    """Find categories and bounds in private rows, for a part of the budget.

    It is charged to the LEDGER before anything is found. Columns that noise hid are
    named, and the others written: the charge stays.
    """
    from json import loads

    from dpkit.synthetic.discovery import Undiscovered
    from dpkit.synthetic.discovery import discover as found

    _refuse_taken(out=out)
    try:
        declared = loads(columns.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ValueError(f"columns={str(columns)!r} can't be read: {error}") from None
    if not isinstance(declared, dict):
        raise ValueError(f"columns={str(columns)!r} must hold columns by name")
    lost = None
    with opened(ledger) as book, jobs.shown_progress() as (_, tell):
        try:
            given = found(
                source, declared, book, epsilon=epsilon, delta=delta, on_progress=tell
            )
        except Undiscovered as error:
            given, lost = error.schema, error
        head = book.head
    if given is not None:
        write_new(given.text, out=out)
        confirm(f"written: {out}; what it says was charged, and is public")
    if lost is not None:
        rest = (
            "no others were declared" if given is None else f"the others are in {out}"
        )
        raise ValueError(f"{lost}; {rest}, and the charge stays")
    if json and given is not None:
        emit({"out": str(out), "schema_sha256": given.sha256, "head": head})


def _refuse_taken(**option: Path) -> None:
    """Refuses a file that is there, or that can't be made, before any work."""
    ((name, path),) = option.items()
    if path.exists():
        raise ValueError(f"{name}={str(path)!r} exists already: name a new file")
    if not path.parent.is_dir():
        raise ValueError(f"{name}={str(path)!r}: there is no folder {path.parent}")


def _given(
    schema: Path | None,
    epsilon: float | None,
    delta: float | None,
    relation: Any,
    mechanism: str | None,
) -> dict[str, Any]:
    """The settings that several commands have."""
    return {
        "data.schema": schema,
        "privacy.epsilon": epsilon,
        "privacy.delta": delta,
        "privacy.relation": relation,
        "synthetic.mechanism": mechanism,
    }


def _config(
    source: Path,
    given: dict[str, Any],
    changes: list[str],
    out: Path | None,
    *,
    opens: bool = True,
) -> "JobConfig":
    """The configuration of a file or a table, and what was given."""
    return jobs.config_of(
        "synth",
        source,
        given,
        changes,
        out,
        needed=_NEEDED,
        sections=("synthetic", "privacy"),
        called="TABLE",
        opens=opens,
    )


def _conditions(words: list[str]) -> dict[str, Any]:
    """Conditions by column."""
    found: dict[str, Any] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign or not name:
            raise ValueError(f"where={word!r} must be COLUMN=VALUE")
        found.setdefault(name.strip(), []).append(value.strip())
    return found


def _write(drawn: Any, out: Path) -> None:
    """Write a table, whole or not at all."""
    import os

    from pyarrow import feather, parquet

    from dpkit.synthetic.files import csv

    temporary = beside(out)
    try:
        with temporary.open("xb") as file:
            if out.suffix == ".csv":
                file.write(csv(drawn))
            elif out.suffix == ".parquet":
                parquet.write_table(drawn, file)
            else:
                feather.write_feather(drawn, file)
            file.flush()
            os.fsync(file.fileno())
        place(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)
    confirm(f"written: {out}")
