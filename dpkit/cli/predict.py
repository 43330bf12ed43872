"""`dpkit predict`: what the model of a run says of the rows of a file."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpkit.cli.files import beside, place
from dpkit.cli.options import Json
from dpkit.cli.output import emit, facts

if TYPE_CHECKING:
    from dpkit.training import TrainedRun

_ENDINGS = (".csv", ".parquet")
_PRIVACY = (
    "nothing was charged: this is post-processing of a released model, which protects"
    " the rows that it was trained on, not those of FILE"
)


def predict(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A finished run's folder.")
    ],
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Rows as [data] path takes them; columns beyond the schema's features"
            " are not read.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="OUT", help="A new file, .csv or .parquet: a row for each row."
        ),
    ],
    factory: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="Makes the model, where a function of yours made the run's; nothing"
            " that the folder names is run.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Predict with the model of a run; needs no ledger, and costs no privacy.

    The column of the label holds the predicted category, with its probability beside
    it, or the number; of a text, which has no label, its bits per character. The model
    protects the rows that it was trained on, not those of FILE.
    """
    if out.suffix not in _ENDINGS:
        raise ValueError(f"out={str(out)!r} must end in {' or '.join(_ENDINGS)}")
    if out.exists():
        raise ValueError(f"out={str(out)!r} exists already: name a new file")
    if not out.parent.is_dir():
        raise ValueError(f"out={str(out)!r}: there is no folder {str(out.parent)!r}")
    from dpkit.training import load_run

    found = load_run(run, factory=factory)
    temporary = beside(out)
    try:
        rows = _write(temporary, out.suffix, found, file)
        place(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)
    told = {"rows": rows, "column": found.predicted, "out": str(out)}
    if json:
        bound = None if found.bound is None else found.bound.to_json()
        emit({**told, "run": str(run), "bound": bound, "head": found.ledger_head})
    else:
        facts([*told.items(), ("privacy", _PRIVACY)])


def _write(path: Path, ending: str, run: "TrainedRun", source: Path) -> int:
    """Write the predictions, some rows at a time; how many there are."""
    import pyarrow as pa
    from pyarrow.csv import CSVWriter
    from pyarrow.parquet import ParquetWriter

    from dpkit.data.schema import Ordinal

    whole = isinstance(run.layout.target, Ordinal)
    kind = pa.string() if run.layout.classes else pa.int64() if whole else pa.float64()
    columns = [(run.predicted, kind)]
    if run.layout.classes:
        columns.append(("probability", pa.float32()))
    schema, rows = pa.schema(columns), 0
    make: Any = CSVWriter if ending == ".csv" else ParquetWriter
    with path.open("xb") as file:
        with make(file, schema) as writer:
            for values, shares in run.predictions(source):
                likeliest = [] if shares is None else [pa.array(shares.max(axis=1))]
                arrays = [pa.array(values).cast(kind), *likeliest]
                writer.write_table(pa.table(arrays, schema=schema))
                rows += len(values)
        file.flush()
        os.fsync(file.fileno())
    return rows
