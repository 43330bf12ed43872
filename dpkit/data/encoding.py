"""Rows of a table as arrays, by a total function of one record and a public schema.

Whatever stands in a record has a code: an unknown category is "other", a number out of
bounds is the bound, what is missing or can't be read has its code or is the lowest. So
one record changes its own row and no other, nothing raises because of what is in a
record, and a record with an unknown label stays a record: it has the label -1 or NaN,
of which losses make zero.
"""

from __future__ import annotations

import io
import warnings
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
)
from dpkit.data.values import (
    absent,
    compute,
    contents,
    entries,
    floats,
    missing,
    moments,
    stored,
    texts,
)

if TYPE_CHECKING:
    from dpkit.data.values import Values

TRUE, FALSE = ("true", "yes", "t", "y", "1"), ("false", "no", "f", "n", "0")
_MOST_PIXELS = 2**26
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")


def encode(schema: Schema, columns: Mapping[str, Values]) -> dict[str, np.ndarray]:
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
                codes.append(each(category_codes, column, values))
            case Numeric() | Ordinal() | Datetime():
                numbers += list(each(_numbers, column, values).T)
            case Array():
                rows[name] = each(_arrays, column, values)
            case Image():
                rows[name] = each(_images, column, values)
            case Text():
                rows[name] = each(_symbols, column, values)
    if numbers:
        rows[NUMBERS] = np.stack(numbers, axis=1)
    if codes:
        rows[CODES] = np.stack(codes, axis=1)
    if schema.label in columns:
        column = schema.columns[schema.label]
        rows[LABEL] = each(_labels, column, columns[schema.label])
    return rows


def each(
    encoded: Callable[[Any, Values], np.ndarray], column: Any, values: Values
) -> np.ndarray:
    """The rows of all values; where a value makes the library fail, it is missing."""
    try:
        return encoded(column, values)
    except Exception:
        rows = []
        for place in range(len(values)):
            try:
                rows.append(encoded(column, values[place : place + 1]))
            except Exception:
                rows.append(encoded(column, [None]))
        return np.concatenate(rows)


def known(column: Any, values: Values) -> np.ndarray:
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
            found = numbers_of(column, values)
            low, high = _bounds(column)
            return (low <= found) & (found <= high)
    return ~absent(values)


def _found(column: Categorical | Boolean, values: Values) -> np.ndarray:
    """The category of each value, int32; -1 where it is none of them."""
    import pyarrow as pa

    words = texts(values)
    if isinstance(column, Boolean):
        words = compute().utf8_lower(words)
        places = compute().index_in(words, pa.array([*FALSE, *TRUE], words.type))
        found = np.asarray(compute().fill_null(places, -1), np.int32)
        return np.where(found >= len(FALSE), 1, np.minimum(found, 0))
    places = compute().index_in(words, pa.array(column.texts, words.type))
    return np.asarray(compute().fill_null(places, -1), np.int32)


def category_codes(column: Categorical | Boolean, values: Values) -> np.ndarray:
    """The code of each value, int32."""
    found = _found(column, values)
    count = len(column.texts)
    other = count if isinstance(column, Categorical) and column.other else 0
    codes = np.where(found < 0, other, found)
    if column.nullable:
        lost = missing(values) if other else found < 0
        codes = np.where(lost, column.size - 1, codes)
    return codes.astype(np.int32)


def _numbers(column: Numeric | Ordinal | Datetime, values: Values) -> np.ndarray:
    """Each value in [0, 1] by the bounds; beside it, if it may be, whether it lacks."""
    found = numbers_of(column, values)
    scaled = np.nan_to_num(_scaled(column, found), nan=0.0).astype(np.float32)
    lost = np.isnan(found).astype(np.float32)
    return np.stack([scaled, lost][: 1 + column.nullable], axis=1)


def _labels(column: Any, values: Values) -> np.ndarray:
    """What is predicted: a class, -1 for unknown; or a number, NaN for missing."""
    if isinstance(column, Categorical | Boolean):
        return _found(column, values).astype(np.int32)
    return _scaled(column, numbers_of(column, values)).astype(np.float32)


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


def numbers_of(column: Numeric | Ordinal | Datetime, values: Values) -> np.ndarray:
    """Values as float64; NaN where one is missing or no number."""
    return moments(values) if isinstance(column, Datetime) else floats(values)


def _arrays(column: Array, values: Values) -> np.ndarray:
    """Arrays of the column's shape; another number of entries counts as missing."""
    found = entries(values, int(np.prod(column.shape)), column.low)
    found = np.where(np.isnan(found), column.low, found)
    found = np.clip(found, column.low, column.high).reshape(-1, *column.shape)
    if column.integer:
        return found.astype(np.int32)
    width = column.high - column.low
    return ((found - column.low) / (width or 1.0)).astype(np.float32)


def _images(column: Image, values: Values) -> np.ndarray:
    """Pictures of the column's shape, uint8."""
    import pyarrow as pa

    if not isinstance(values, list):
        values = stored(values)
        if pa.types.is_struct(values.type):  # of a file's bytes, and its path
            values = stored(values.field("bytes"))
        kind = values.type
        if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            return _pixels(column, values)
        values = values.to_pylist()
    return np.stack([_picture(column, v) for v in values] or [_black(column)])[
        : len(values)
    ]


def _pixels(column: Image, values: Values) -> np.ndarray:
    """Pictures that are given as numbers from 0 to 255."""
    found = np.nan_to_num(entries(values, int(np.prod(column.shape)), 0.0))
    return np.clip(found, 0, 255).astype(np.uint8).reshape(-1, *column.shape)


def _picture(column: Image, content: Any) -> np.ndarray:
    """The pixels of one file, or of one array; black if it can't be read."""
    from PIL import Image as Pillow

    if isinstance(content, dict):
        content = content.get("bytes")
    if not isinstance(content, bytes):
        return _pixels(column, [content])[0]
    height, width, channels = column.shape
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of one record, before others
            with Pillow.open(io.BytesIO(content), formats=_FORMATS) as picture:
                shown = _shown(picture, "L" if channels == 1 else "RGB")
            if shown.size != (width, height):
                shown = shown.resize((width, height), Pillow.Resampling.BILINEAR)
            return np.asarray(shown, np.uint8).reshape(column.shape)
    except Exception:  # whatever is in a record, it has a picture
        return _black(column)


def _shown(picture: Any, mode: str) -> Any:
    """A picture of 8 bits a channel."""
    from PIL import Image as Pillow

    if picture.width * picture.height > _MOST_PIXELS:
        raise ValueError("too large to be read safely")
    if picture.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
        deep = np.clip(np.asarray(picture, np.float64) / 257, 0, 255)
        return Pillow.fromarray(np.rint(deep).astype(np.uint8)).convert(mode)
    if picture.mode == "F":
        raise ValueError("floats have no range that is known")
    return picture.convert(mode)


def _black(column: Image) -> np.ndarray:
    """What a picture that can't be read counts as."""
    return np.zeros(column.shape, np.uint8)


def _symbols(column: Text, values: Values) -> np.ndarray:
    """The symbols of texts, cut and padded to the column's length."""
    alphabet = np.frombuffer(column.alphabet.encode("utf-32-le"), "<u4")
    order = np.argsort(alphabet)
    dtype = np.uint8 if column.symbols <= 256 else np.int32
    rows = np.full((len(values), column.length), column.symbols - 1, dtype)
    for row, text in zip(rows, contents(values), strict=True):
        cut = text[: column.length].encode("utf-32-le", "surrogatepass")
        points = np.frombuffer(cut, "<u4")
        places = np.searchsorted(alphabet, points, sorter=order)
        nearest = order[np.minimum(places, len(order) - 1)]
        row[: len(points)] = np.where(alphabet[nearest] == points, nearest + 1, 0)
    return rows
