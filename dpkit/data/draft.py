"""A draft of a schema, from a sample of rows that is public.

A draft reads categories and bounds out of the rows. From private rows that would be a
release without a charge: it would tell that somebody has the rare category, or is the
oldest. So the sample must be public, and its owner edits the draft: widens bounds,
completes categories, drops columns.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from dpkit.data.origins import open_origin
from dpkit.data.schema import (
    Array,
    Boolean,
    Categorical,
    Datetime,
    Image,
    Kind,
    Numeric,
    Schema,
    Text,
    moment,
)
from dpkit.data.values import entries, floats, missing, stored, texts

if TYPE_CHECKING:
    import pyarrow as pa

    from dpkit.data.values import Values

_BATCHES = 16  # of the sample that are looked at
_FEW = 50  # categories
_YES_NO = ({"true", "false"}, {"yes", "no"}, {"t", "f"}, {"y", "n"})


def draft(source: Any) -> tuple[Schema, list[str]]:
    """A schema that fits a public sample, and what its owner should look at.

    Privacy: none. Everything in the answer is read from the rows: call it with rows
    that are public, and never with those to train on.

    Args:
      source: as for `dpkit.data.table.read`; public.

    Returns:
      The schema without label and max_records, and a note for each doubtful column.

    Raises:
      ValueError: a sample without rows or usable columns.

    Example:
      >>> schema, notes = draft({"pet": ["cat", "dog"] * 30, "age": np.arange(60) / 2})
      >>> schema.columns["pet"].categories, schema.columns["age"].high
      (('cat', 'dog'), 30.0)
    """

    origin = open_origin(source)
    batches = list(itertools.islice(origin.read(origin.names), _BATCHES))
    if not batches:
        raise ValueError("the sample has no rows to draft a schema from")
    columns: dict[str, Kind] = {}
    notes = []
    for name in origin.names:
        column, note = _drafted(_joined([batch[name] for batch in batches]))
        if column is not None:
            columns[name] = column
        if note:
            notes.append(f"{name}: {note}")
    return Schema(columns=columns), notes


def _joined(parts: list[Values]) -> pa.Array:
    """One array of all parts; of Python's values, if they have a type together."""
    import pyarrow as pa

    arrays = []
    for part in parts:
        try:
            arrays.append(stored(pa.array(part) if isinstance(part, list) else part))
        except pa.ArrowException:
            arrays.append(texts(part))
    if len({array.type for array in arrays}) > 1:
        arrays = [texts(array) for array in arrays]
    return pa.concat_arrays(arrays)


def _drafted(values: pa.Array) -> tuple[Kind | None, str]:
    """A column that fits some values, and a note."""
    import pyarrow as pa

    kind = values.type
    if pa.types.is_struct(kind) or _is_picture(values):
        return _picture(values)
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return _array(values)
    words = texts(values)
    found = words.drop_null().unique().to_pylist()
    lost = bool(missing(values).any()) or any(_says_missing(word) for word in found)
    found = [word for word in found if not _says_missing(word)]
    if not found:
        return None, "left out: no value in the sample"
    if any({w.lower() for w in found} == pair for pair in _YES_NO):
        return Boolean(nullable=lost), ""
    numbers = [number for number in map(_number, found) if number is not None]
    countable = len(numbers) == len(found)
    if countable and (len(found) > 20 or not _whole(numbers)):
        low, high = _outward(min(numbers), -1), _outward(max(numbers), 1)
        return Numeric(low=low, high=high, nullable=lost), "widen the bounds if needed"
    moments = [] if countable else [(moment(word), word) for word in found]
    if moments and all(when is not None for when, _ in moments):
        low, high = min(moments)[1], max(moments)[1]
        return Datetime(low=low, high=high, nullable=lost), "widen the bounds if needed"
    if len(found) <= _FEW:
        kinds = sorted(found, key=lambda w: (_number(w) is None, _number(w) or 0, w))
        return Categorical(categories=tuple(kinds), nullable=lost), ""
    if len(found) == len(values):
        return None, "left out: every value differs, as names and numbers of people do"
    length = max(2, min(max(map(len, found)), 65536))
    return Text(length=length), "text: only a decoder or a factory reads it"


def _array(values: pa.Array) -> tuple[Kind | None, str]:
    """An array column, if all are of one length."""
    try:
        first = np.asarray(values[0].as_py() or [], np.float64)
    except (TypeError, ValueError):
        return None, "left out: lists of other things than numbers"
    found = entries(values, first.size, math.nan)
    if not first.size or not np.isfinite(found).any():
        return None, "left out: lists that differ in length"
    low, high = float(np.nanmin(found)), float(np.nanmax(found))
    bounds = {"low": _outward(low, -1), "high": _outward(high, 1)}
    return Array(shape=first.shape, **bounds), "widen the bounds if needed"


def _is_picture(values: pa.Array) -> bool:
    """Whether values are the bytes of pictures."""
    import pyarrow as pa

    if not pa.types.is_binary(values.type) or not len(values):
        return False
    head = values[0].as_py() or b""
    return head.startswith((b"\x89PNG", b"\xff\xd8\xff", b"BM", b"GIF8", b"RIFF"))


def _picture(values: pa.Array) -> tuple[Kind | None, str]:
    """An image column of the first picture's size."""
    import io

    from PIL import Image as Pillow

    first: Any = values[0].as_py()
    content: Any = first.get("bytes") if isinstance(first, dict) else first
    try:
        with Pillow.open(io.BytesIO(content)) as picture:
            grey = picture.mode in ("1", "L", "I", "I;16")
            shape = (picture.height, picture.width, 1 if grey else 3)
            return Image(shape=shape), "the size of the sample's first picture"
    except (OSError, TypeError, ValueError):
        return None, "left out: no picture that can be read"


def _says_missing(word: str) -> bool:
    """Whether a text stands for a missing value."""
    return word.lower() in ("na", "n/a", "nan", "null", "none", "?", "-")


def _number(word: str) -> float | None:
    """A finite number, or None."""
    found = float(floats([word])[0])
    return found if math.isfinite(found) else None


def _whole(numbers: list[float]) -> bool:
    """Whether all numbers are whole."""
    return all(n.is_integer() for n in numbers)


def _outward(value: float, sign: int) -> float:
    """A bound rounded outward to two digits."""
    if value == 0:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(abs(value))) - 1)
    return float(f"{math.ceil(sign * value / step) * step * sign:.12g}")
