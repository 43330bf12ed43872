"""Rows of a table as arrays, by a total function of one record and a public schema.

Whatever stands in a record has a code: an unknown category is "other", a number out of
bounds is the bound, what is missing or can't be read has its code or is the lowest. So
one record changes its own row and no other, nothing raises because of what is in a
record, and a record with an unknown label stays a record: it has the label -1 or NaN,
of which losses make zero.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dpkit.data.layout import CODES, LABEL, NUMBERS
from dpkit.data.schema import (
    Array,
    Boolean,
    Categorical,
    Datetime,
    Image,
    Numeric,
    Ordinal,
    Schema,
    Text,
    moment,
)

if TYPE_CHECKING:
    import pyarrow as pa

_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?$"
_TRUE, _FALSE = ("true", "yes", "t", "y", "1"), ("false", "no", "f", "n", "0")
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")


def encode(schema: Schema, columns: Mapping[str, pa.Array]) -> dict[str, np.ndarray]:
    """The arrays of some records, as `Layout.of(schema).fields` describes a row.

    Args:
      schema: public.
      columns: private, by name, of one length. The label may be left out.

    Returns:
      By field, a row for each record.

    Example:
      >>> import pyarrow as pa
      >>> schema = Schema.read({"age": {"kind": "numeric", "low": 0, "high": 100},
      ...                       "pet": {"kind": "categorical", "categories": ["cat"]}})
      >>> rows = encode(schema, {"age": pa.array(["50", "1e9", "?"]),
      ...                        "pet": pa.array(["cat", "newt", None])})
      >>> rows["numbers"].T.tolist(), rows["codes"].T.tolist()
      ([[0.5, 1.0, 0.0]], [[0, 1, 1]])
    """
    rows: dict[str, np.ndarray] = {}
    numbers, codes = [], []
    for name, column in schema.features.items():
        values = columns[name]
        match column:
            case Categorical() | Boolean():
                codes.append(_codes(column, values))
            case Numeric() | Ordinal() | Datetime():
                numbers += _numbers(column, values)
            case Array():
                rows[name] = _arrays(column, values)
            case Image():
                rows[name] = _images(column, values)
            case Text():
                rows[name] = _symbols(column, values)
    if numbers:
        rows[NUMBERS] = np.stack(numbers, axis=1)
    if codes:
        rows[CODES] = np.stack(codes, axis=1)
    if schema.label in columns:
        rows[LABEL] = _labels(schema.columns[schema.label], columns[schema.label])
    return rows


def known(column: Any, values: pa.Array) -> np.ndarray:
    """Which values a column can take as they are: bool, False for unknown or missing.

    Example:
      >>> import pyarrow as pa
      >>> known(Numeric(low=0, high=1), pa.array(["0.5", "2", "x"])).tolist()
      [True, False, False]
    """
    match column:
        case Categorical() | Boolean():
            return _found(column, values) >= 0
        case Numeric() | Ordinal() | Datetime():
            found = _floats(column, values)
            low, high = _bounds(column)
            return (low <= found) & (found <= high)
    return np.asarray(values.is_valid())


def missing(values: pa.Array) -> np.ndarray:
    """Which values are missing: null, NaN or blank.

    Example:
      >>> import pyarrow as pa
      >>> missing(pa.array(["a", " ", None])).tolist()
      [False, True, True]
    """
    return np.asarray(texts(values).is_null())


def texts(values: pa.Array) -> pa.Array:
    """Values as text, as categories are compared: see `schema.as_text`.

    Example:
      >>> import pyarrow as pa
      >>> texts(pa.array([1.0, 2.5, None])).to_pylist()
      ['1', '2.5', None]
    """
    import pyarrow as pa

    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    kind = values.type
    if pa.types.is_floating(kind):
        found = values.to_numpy(zero_copy_only=False).astype(np.float64)
        whole = np.isfinite(found) & (np.abs(found) < 2**63)
        whole &= np.floor(np.where(whole, found, 0.5)) == found
        plain = pa.array(found, mask=np.isnan(found)).cast(pa.string())
        short = pa.array(np.where(whole, found, 0).astype(np.int64)).cast(pa.string())
        return _compute().if_else(pa.array(whole), short, plain)
    try:
        words = values.cast(pa.large_string()) if _plain(kind) else _words(values)
        trimmed = _compute().utf8_trim_whitespace(words)
    except pa.ArrowInvalid:  # bytes that are no UTF-8
        trimmed = _compute().utf8_trim_whitespace(
            _words(values.cast(pa.large_binary()))
        )
    return _compute().if_else(_compute().equal(trimmed, ""), None, trimmed)


def _compute() -> Any:
    """Arrow's functions, which are made when the module is imported."""
    import pyarrow.compute

    return pyarrow.compute


def _plain(kind: pa.DataType) -> bool:
    """Whether every value of a type has a text."""
    import pyarrow as pa

    asked = ("string", "large_string", "string_view", "binary", "large_binary")
    asked += ("binary_view", "boolean", "integer", "decimal", "null")
    return any(getattr(pa.types, f"is_{name}")(kind) for name in asked)


def _words(values: pa.Array) -> pa.Array:
    """The texts of values of a type that is seldom one."""
    import pyarrow as pa

    return pa.array([_read(v) for v in values.to_pylist()], pa.large_string())


def _read(value: Any) -> str | None:
    """The text of one such value."""
    if value is None:
        return None
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _found(column: Categorical | Boolean, values: pa.Array) -> np.ndarray:
    """The category of each value, int32; -1 where it is none of them."""
    import pyarrow as pa

    words = texts(values)
    if isinstance(column, Boolean):
        words = _compute().utf8_lower(words)
        places = _compute().index_in(words, pa.array([*_FALSE, *_TRUE], words.type))
        found = np.asarray(_compute().fill_null(places, -1), np.int32)
        return np.where(found >= len(_FALSE), 1, np.minimum(found, 0))
    places = _compute().index_in(words, pa.array(column.texts, words.type))
    return np.asarray(_compute().fill_null(places, -1), np.int32)


def _codes(column: Categorical | Boolean, values: pa.Array) -> np.ndarray:
    """The code of each value, int32."""
    found = _found(column, values)
    count = len(column.texts)
    other = count if isinstance(column, Categorical) and column.other else 0
    codes = np.where(found < 0, other, found)
    if column.nullable:
        lost = missing(values) if other else found < 0
        codes = np.where(lost, column.size - 1, codes)
    return codes.astype(np.int32)


def _numbers(column: Numeric | Ordinal | Datetime, values: pa.Array) -> list[Any]:
    """Each value in [0, 1] by the bounds; beside it, if it may be, whether it lacks."""
    found = _floats(column, values)
    scaled = np.nan_to_num(_scaled(column, found), nan=0.0).astype(np.float32)
    lost = np.isnan(found).astype(np.float32)
    return [scaled, lost] if column.nullable else [scaled]


def _labels(column: Any, values: pa.Array) -> np.ndarray:
    """What is predicted: a class, -1 for unknown; or a number, NaN for missing."""
    if isinstance(column, Categorical | Boolean):
        return _found(column, values).astype(np.int32)
    return _scaled(column, _floats(column, values)).astype(np.float32)


def _bounds(column: Numeric | Ordinal | Datetime) -> tuple[float, float]:
    """The bounds as numbers."""
    if isinstance(column, Datetime):
        return column.seconds
    return float(column.low), float(column.high)


def _scaled(column: Numeric | Ordinal | Datetime, found: np.ndarray) -> np.ndarray:
    """Numbers brought into [0, 1]; NaN stays."""
    low, high = _bounds(column)
    # The halves can't overflow.
    offset, width = np.clip(found, low, high) / 2 - low / 2, high / 2 - low / 2
    if column.scale == "log1p":
        offset, width = np.log1p(2 * offset), np.log1p(2 * width)
    return offset / width if width > 0 else 0.0 * offset


def unscaled(column: Numeric | Ordinal, scaled: Any) -> np.ndarray:
    """Predictions in [0, 1] as values of the label; others count as the bound.

    Example:
      >>> unscaled(Numeric(low=10, high=20), np.array([0.5, 7.0])).tolist()
      [15.0, 20.0]
    """
    low, high = _bounds(column)
    share = np.clip(np.asarray(scaled, np.float64), 0.0, 1.0)
    if column.scale == "log1p":
        share = np.expm1(share * np.log1p(high - low)) / max(high - low, 1e-300)
    found = np.clip(low * (1 - share) + high * share, low, high)
    return np.rint(found) if isinstance(column, Ordinal) else found


def _floats(column: Any, values: pa.Array) -> np.ndarray:
    """Values as float64; NaN where one is missing or no number."""
    import pyarrow as pa

    if isinstance(column, Datetime):
        return _moments(values)
    kind = values.type
    if pa.types.is_floating(kind) or pa.types.is_integer(kind):
        return values.to_numpy(zero_copy_only=False).astype(np.float64)
    if pa.types.is_decimal(kind) or pa.types.is_boolean(kind):
        doubles = values.cast(pa.int8() if pa.types.is_boolean(kind) else pa.float64())
        return doubles.to_numpy(zero_copy_only=False).astype(np.float64)
    words = texts(values)
    usable = _compute().match_substring_regex(words, _NUMBER)
    doubles = _compute().if_else(usable, words, None).cast(pa.float64())
    return doubles.to_numpy(zero_copy_only=False)


def _moments(values: pa.Array) -> np.ndarray:
    """Values as seconds since 1970; NaN where one is no moment."""
    import pyarrow as pa

    kind = values.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        unit = "D" if pa.types.is_date(kind) else kind.unit
        if pa.types.is_date64(kind):
            values, unit = values.cast(pa.date32()), "D"
        counts = values.cast(pa.int32() if unit == "D" else pa.int64())
        found = counts.to_numpy(zero_copy_only=False).astype(np.float64)
        return found * {"D": 86400, "s": 1, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}[unit]
    return _once(values, moment)


def _once(values: pa.Array, of: Callable[[str], float | None]) -> np.ndarray:
    """A number for each text, each distinct one asked for once."""
    coded = texts(values).dictionary_encode()
    found = [of(text) for text in coded.dictionary.to_pylist()]
    table = np.array([*(np.nan if f is None else f for f in found), np.nan])
    places = coded.indices.fill_null(len(found)).to_numpy(zero_copy_only=False)
    return table[places]


def _arrays(column: Array, values: pa.Array) -> np.ndarray:
    """Arrays of the column's shape; another number of entries counts as missing."""
    found = entries(values, int(np.prod(column.shape)), column.low)
    found = np.where(np.isnan(found), column.low, found)
    found = np.clip(found, column.low, column.high).reshape(-1, *column.shape)
    if column.integer:
        return found.astype(np.int32)
    width = column.high - column.low
    return ((found - column.low) / (width or 1.0)).astype(np.float32)


def entries(values: pa.Array, size: int, blank: float) -> np.ndarray:
    """The entries of lists, float64 (records, size); `blank` where there are others.

    Example:
      >>> import pyarrow as pa
      >>> entries(pa.array([[1, 2], [3], None]), 2, 0.0).tolist()
      [[1.0, 2.0], [0.0, 0.0], [0.0, 0.0]]
    """
    import pyarrow as pa

    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    kind = values.type
    if pa.types.is_fixed_size_list(kind) and not values.null_count:
        flat = values.flatten()
        if pa.types.is_primitive(flat.type) and len(flat) == len(values) * size:
            found = flat.to_numpy(zero_copy_only=False)
            return found.astype(np.float64).reshape(len(values), size)
    rows = np.full((len(values), size), blank, np.float64)
    for row, value in zip(rows, values.to_pylist(), strict=True):
        try:
            found = np.asarray(value, np.float64).reshape(-1)
        except (TypeError, ValueError):
            continue
        if found.size == size:
            row[:] = found
    return rows


def _images(column: Image, values: pa.Array) -> np.ndarray:
    """Pictures of the column's shape, uint8."""
    import pyarrow as pa

    if pa.types.is_struct(values.type):  # of a file's bytes, and its path
        values = values.field("bytes")
    pixels = np.zeros((len(values), *column.shape), np.uint8)
    binary = pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type)
    if not binary:
        found = np.nan_to_num(entries(values, int(np.prod(column.shape)), 0.0))
        return np.clip(found, 0, 255).astype(np.uint8).reshape(pixels.shape)
    for place, value in enumerate(values.to_pylist()):
        if value:
            pixels[place] = _picture(column, value)
    return pixels


def _picture(column: Image, content: bytes) -> np.ndarray:
    """The pixels of one file; black if it can't be read."""
    from PIL import Image as Pillow

    height, width, channels = column.shape
    try:
        with Pillow.open(io.BytesIO(content), formats=_FORMATS) as picture:
            if picture.width * picture.height > 2**26:
                raise ValueError("too large to be read safely")
            shown = picture.convert("L" if channels == 1 else "RGB")
            if shown.size != (width, height):
                shown = shown.resize((width, height), Pillow.Resampling.BILINEAR)
            return np.asarray(shown, np.uint8).reshape(column.shape)
    except Exception:  # whatever is in a record, it has a picture
        return np.zeros(column.shape, np.uint8)


def _contents(values: pa.Array) -> list[str]:
    """Texts as they stand, blanks and all; empty where there is none."""
    import pyarrow as pa

    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if "string" in str(values.type):
        values = values.cast(pa.large_binary())  # which may be no UTF-8
    return [_read(value) or "" for value in values.to_pylist()]


def _symbols(column: Text, values: pa.Array) -> np.ndarray:
    """The symbols of texts, cut and padded to the column's length."""
    alphabet = np.frombuffer(column.alphabet.encode("utf-32-le"), "<u4")
    order = np.argsort(alphabet)
    dtype = np.uint8 if column.symbols <= 256 else np.int32
    rows = np.full((len(values), column.length), column.symbols - 1, dtype)
    for row, text in zip(rows, _contents(values), strict=True):
        cut = text[: column.length].encode("utf-32-le", "surrogatepass")
        points = np.frombuffer(cut, "<u4")
        places = np.searchsorted(alphabet, points, sorter=order)
        nearest = order[np.minimum(places, len(order) - 1)]
        row[: len(points)] = np.where(alphabet[nearest] == points, nearest + 1, 0)
    return rows
