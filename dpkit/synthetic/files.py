"""A model as one file: schema, released values, rows, receipt, and nothing else.

The format is safetensors: named arrays, and JSON beside them. There is no code in it,
and no room for a key or a record.
"""

from __future__ import annotations

import contextlib
import io
import json
from csv import writer as csv_writer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from dpkit.data.schema import Schema
from dpkit.synthetic.engine import Target
from dpkit.synthetic.recipe import Fitted, Measurement

if TYPE_CHECKING:
    import pyarrow as pa

    from dpkit.synthetic.model import Model

VERSION = 1


def content(model: Model) -> bytes:
    """What the file of a model holds."""
    fitted = model.fitted
    arrays: dict[str, np.ndarray] = {"rows": fitted.rows.astype(np.int32)}

    def kept(name: str, values: np.ndarray) -> str:
        """The name of an array that is written."""
        arrays[name] = np.ascontiguousarray(values, np.float64)
        return name

    told = {
        "version": VERSION,
        "schema": model.schema.to_json(),
        "receipt": dict(model.receipt),
        "kind": model.kind,
        "records": fitted.records,
        "facts": dict(fitted.facts),
        "measurements": [
            [list(one.columns), kept(f"measured_{n}", one.values), one.stddev]
            for n, one in enumerate(fitted.measurements)
        ],
        "targets": [
            [list(one.columns), kept(f"target_{n}", one.values), str(one.weight)]
            for n, one in enumerate(fitted.targets)
        ],
        "estimates": [
            [list(columns), kept(f"count_{n}", one), kept(f"deviation_{n}", other)]
            for n, (columns, (one, other)) in enumerate(fitted.estimates.items())
        ],
    }
    text = json.dumps(told, allow_nan=False)  # columns keep their order
    return save(arrays, metadata={"dpkit_synthetic": text})


def csv(table: pa.Table) -> bytes:
    """A table as CSV; texts are quoted where they must be."""
    import pyarrow as pa
    from pyarrow import csv as arrow

    names = io.StringIO()
    csv_writer(names, lineterminator="\n").writerow(table.column_names)
    whole = io.BytesIO(names.getvalue().encode())
    whole.seek(0, io.SEEK_END)
    begun = whole.tell()
    for style in ("none", "needed"):  # the first refuses texts that need quotes
        how = arrow.WriteOptions(include_header=False, quoting_style=style)
        with contextlib.suppress(pa.ArrowInvalid):
            arrow.write_csv(table, whole, how)
            break
        whole.seek(begun)
        whole.truncate()
    return whole.getvalue()


def parquet(table: pa.Table) -> bytes:
    """A table as Parquet."""
    from pyarrow import parquet as arrow

    whole = io.BytesIO()
    arrow.write_table(table, whole)
    return whole.getvalue()


def read(path: Path) -> tuple[Schema, Fitted, dict[str, Any], str]:
    """What `content` made: the fields of a model.

    Raises:
      ValueError: no such file of ours; a newer version; damaged.
      OSError: it can't be read.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            told = json.loads((file.metadata() or {})["dpkit_synthetic"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}
        version = told["version"]
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no synthetic model ({error})") from None
    if version != VERSION:
        raise ValueError(f"{path} is of version {version}: this dpkit reads {VERSION}")
    try:
        fitted = Fitted(
            tuple(
                Measurement(tuple(columns), arrays[name], stddev)
                for columns, name, stddev in told["measurements"]
            ),
            tuple(
                Target(tuple(columns), arrays[name], float(weight))
                for columns, name, weight in told["targets"]
            ),
            arrays["rows"],
            told["records"],
            estimates={
                tuple(columns): (arrays[one], arrays[other])
                for columns, one, other in told["estimates"]
            },
            facts=told["facts"],
        )
        return Schema.read(told["schema"]), fitted, told["receipt"], told["kind"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error})") from None
