"""How rows fit a schema, for their owner's eyes alone: the counts are private."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from dpkit.data.encoding import known
from dpkit.data.origins import open_origin
from dpkit.data.schema import Array, Image, Numeric, Ordinal, Schema, Text
from dpkit.data.table import check_columns
from dpkit.data.values import absent, floats, missing


@dataclasses.dataclass
class Fit:
    """How the values of one column fit: counts of records, private.

    Attributes:
      missing: null, NaN or blank; of numbers also what is none.
      strange: not among the categories, or out of bounds.
      meaning: what becomes of strange ones.

    Example:
      >>> Fit("clamped to the bounds").strange
      0
    """

    meaning: str
    missing: int = 0
    strange: int = 0


def inspect(source: Any, schema: Schema) -> tuple[int, dict[str, Fit]]:
    """Reads all rows and counts what doesn't fit.

    Privacy: none; every count is about people. It is for whoever may see the rows.

    Args:
      source: as for `dpkit.data.table.read`.
      schema: by which the rows would be encoded.

    Returns:
      The number of records, and how each column fits, with the unit's column.

    Raises:
      ValueError: a column that isn't there.

    Example:
      >>> schema = Schema.read({"x": {"kind": "numeric", "low": 0, "high": 1}})
      >>> count, fits = inspect({"x": [0.5, 3.0, float("nan")]}, schema)
      >>> count, fits["x"].missing, fits["x"].strange
      (3, 1, 1)
    """
    origin = open_origin(source)
    wanted = list(schema.columns)
    if schema.unit_column is not None:
        wanted.append(schema.unit_column)
    check_columns(origin, wanted)
    fits = {name: Fit(_meaning(schema, name)) for name in wanted}
    total = 0
    for batch in origin.read(wanted):
        total += len(batch[wanted[0]])
        for name, fit in fits.items():
            whole = isinstance(schema.columns.get(name), Array | Image | Text)
            lost = absent(batch[name]) if whole else missing(batch[name])
            if isinstance(schema.columns.get(name), Numeric | Ordinal):
                lost |= np.isnan(floats(batch[name]))
            fit.missing += int(lost.sum())
            if name in schema.columns:
                found = known(schema.columns[name], batch[name])
                fit.strange += int((~found & ~lost).sum())
    return total, fits


def _meaning(schema: Schema, name: str) -> str:
    """What becomes of values that don't fit."""
    if name == schema.unit_column:
        return "left out: nobody's"
    column = schema.columns[name]
    kind = type(column).__name__.lower()
    if name == schema.label and kind in ("categorical", "boolean"):
        return "contributes nothing: an unknown label"
    unknown = "other" if getattr(column, "other", True) else "the first"
    return {
        "categorical": unknown,
        "tree": unknown,
        "boolean": "missing" if column.nullable else "false",
        "array": "all low",
        "image": "black",
        "text": "blank",
    }.get(kind, "clamped to the bounds")
