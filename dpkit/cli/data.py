"""`dpkit data`: a schema for rows of your own, and how they fit it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpkit.cli.errors import Command
from dpkit.cli.files import write_new
from dpkit.cli.options import Json
from dpkit.cli.output import confirm, emit, facts, line, note, table

if TYPE_CHECKING:
    from dpkit.data.schema import Schema

app = typer.Typer(help="Rows of your own: draft a public schema, see how they fit it.")

File = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="A table, a folder of tables or of pictures, or a text, as data.path.",
    ),
]

_LEAK = (
    "categories and bounds that are read from private rows are a leak: they tell what "
    "somebody's record holds, and no epsilon covers that"
)
_OWNER = "these counts are about people: they are for the owner of the rows alone"


@app.command(cls=Command)
def schema(
    file: File,
    public_sample: Annotated[
        bool,
        typer.Option(
            "--public-sample",
            help="I say that every row of FILE is public: made up, published, or of "
            "people whom the guarantee need not cover.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write it there; else it is printed."),
    ] = None,
) -> None:
    """Draft a schema from a PUBLIC sample, for you to edit. Never from private rows."""
    from dpkit.data.draft import draft

    if not public_sample:
        raise ValueError(
            f"FILE={str(file)!r}: {_LEAK}; write the schema by hand, or draft it from "
            "other rows and say that they are public, by --public-sample"
        )
    drafted, notes = draft(file)
    note(f"dpkit: a draft from a sample that you declared public; {_LEAK}")
    for text in [*notes, "label, unit_column and max_records are yours to add"]:
        note(f"dpkit: {text}")
    if out is None:
        typer.echo(drafted.text, nl=False)
        return
    write_new(drafted.text, out=out)
    confirm(f"written: now edit {out}")


@app.command(cls=Command)
def check(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="As data.path; or a CONFIG.toml, for its own rows and schema.",
        ),
    ],
    schema: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The schema, in JSON.")
    ] = None,
    label: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="What is predicted.")
    ] = None,
    json: Json = False,
) -> None:
    """How rows fit a schema, for the eyes of their owner: counts of what doesn't fit.

    Exits with 2 where training would refuse them: a column that isn't there, or more
    rows than max_records.
    """
    from dpkit.data.inspection import inspect

    source, known = _asked(file, schema, label)
    total, fits = inspect(source, known)
    note(f"dpkit: {_OWNER}")
    if json:
        counts = {
            name: {"missing": fit.missing, "strange": fit.strange}
            for name, fit in fits.items()
        }
        emit({"records": total, "columns": counts, "schema_sha256": known.sha256})
    else:
        facts([("records", f"{total:,}"), ("most", known.max_records)])
        line()
        columns = ["column", "missing:", "strange:", "what becomes of strange ones"]
        table(columns, _rows(fits))
    most = known.max_records
    if most is not None and known.unit_column is None and total > most:
        raise ValueError(
            f"max_records={most} is below the number of records: raise it to a public "
            "number that they never exceed"
        )


def _asked(file: Path, schema: Path | None, label: str | None) -> "tuple[Path, Schema]":
    """The rows and the schema that are meant."""
    from dpkit.data.schema import Schema

    if file.suffix == ".toml":
        from dpkit.training import load_config
        from dpkit.training.input import Own

        config = load_config(file)
        if config.data.path is None:
            raise ValueError(f"FILE={str(file)!r} has no data.path to check")
        return config.folder / config.data.path, Own(
            config.data, config.folder, None
        ).schema
    if schema is None:
        raise ValueError(
            "missing option --schema: the columns and what they may hold, in JSON"
        )
    return file, Schema.load(schema, label=label)


def _rows(fits: Any) -> list[tuple[Any, ...]]:
    """A row a column."""
    return [
        (name, f"{fit.missing:,}", f"{fit.strange:,}", fit.meaning)
        for name, fit in fits.items()
    ]
