"""Values of records as texts, numbers and lists, whatever type they came in.

A value is read by itself: what other records hold, and which type a column has because
of them, changes nothing. What can't be read is missing. So a column is an Arrow array,
or a list of Python's own values, of which each has a type of its own.
"""

from __future__ import annotations

import datetime
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from dpkit.data.schema import WHOLE, as_text, moment

if TYPE_CHECKING:
    import pyarrow as pa

    Values = pa.Array | list[Any]

_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?$"
_SECONDS = {"s": 1, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


def missing(values: Values) -> np.ndarray:
    """Which values are missing: null, NaN or blank.

    Example:
      >>> missing(["a", " ", None]).tolist()
      [False, True, True]
    """
    import pyarrow as pa

    if isinstance(values, pa.Array) and pa.types.is_floating(values.type):
        return np.isnan(values.to_numpy(zero_copy_only=False))
    return np.asarray(texts(values).is_null())


def absent(values: Values) -> np.ndarray:
    """Which values are null.

    Example:
      >>> absent(["a", " ", None]).tolist()
      [False, False, True]
    """
    if isinstance(values, list):
        return np.array([value is None for value in values], bool)
    return np.asarray(values.is_null())


def texts(values: Values) -> pa.Array:
    """Values as text, as categories are compared: see `schema.as_text`.

    Example:
      >>> texts([1.0, "2.50", None, " x "]).to_pylist()
      ['1', '2.50', None, 'x']
    """
    import pyarrow as pa

    try:
        return _texts(values)
    except Exception:  # of a type, or of a value, that Arrow can't write
        return pa.concat_arrays(
            [_text_or_none(values[n : n + 1]) for n in range(len(values))]
        )


def _text_or_none(value: Values) -> pa.Array:
    """The text of one value, null if it has none."""
    import pyarrow as pa

    try:
        return _texts(value)
    except Exception:
        return pa.array([None], pa.large_string())


def _texts(values: Values) -> pa.Array:
    """Values as text."""
    import pyarrow as pa

    values = plain(values)
    if isinstance(values, list):
        values = pa.array(map(_scalar, values), pa.large_string())
    if pa.types.is_floating(values.type):
        return _of_floats(values)
    try:
        trimmed = compute().utf8_trim_whitespace(values.cast(pa.large_string()))
    except pa.ArrowInvalid:  # bytes that are no UTF-8
        words = map(_scalar, values.cast(pa.large_binary()).to_pylist())
        trimmed = compute().utf8_trim_whitespace(pa.array(words, pa.large_string()))
    short = compute().replace_substring_regex(trimmed, WHOLE.pattern, r"\1")
    for word in ("True", "False"):
        short = compute().if_else(compute().equal(short, word), word.lower(), short)
    return compute().if_else(compute().equal(short, ""), None, short)


def floats(values: Values) -> np.ndarray:
    """Values as float64; NaN where one is missing or no number.

    Example:
      >>> floats([True, "1e2", "x", None]).tolist()
      [1.0, 100.0, nan, nan]
    """
    import pyarrow as pa

    values = plain(values)
    if isinstance(values, pa.Array):
        kind = values.type
        if pa.types.is_boolean(kind):
            values, kind = values.cast(pa.int8()), pa.int8()
        if pa.types.is_decimal(kind):
            values, kind = values.cast(pa.float64()), pa.float64()
        if pa.types.is_floating(kind) or pa.types.is_integer(kind):
            return values.to_numpy(zero_copy_only=False).astype(np.float64)
    words = texts(values)
    for word, number in (("true", "1"), ("false", "0")):
        words = compute().if_else(compute().equal(words, word), number, words)
    usable = compute().match_substring_regex(words, _NUMBER)
    doubles = compute().if_else(usable, words, None).cast(pa.float64())
    return doubles.to_numpy(zero_copy_only=False)


def moments(values: Values) -> np.ndarray:
    """Values as seconds since 1970; NaN where one is no moment.

    Example:
      >>> moments(["1970-01-02", "soon"]).tolist()
      [86400.0, nan]
    """
    import pyarrow as pa

    values = plain(values)
    if isinstance(values, pa.Array):
        types, kind, scale = pa.types, values.type, 0.0
        if types.is_timestamp(kind):
            scale = _SECONDS[kind.unit]
        elif types.is_date(kind):
            scale = 86400 if types.is_date32(kind) else 1e-3
        if scale:
            counts = values.cast(pa.int32() if scale == 86400 else pa.int64())
            return counts.to_numpy(zero_copy_only=False).astype(np.float64) * scale
    coded = texts(values).dictionary_encode()
    found = [moment(text) for text in coded.dictionary.to_pylist()]
    table = np.array([*(math.nan if f is None else f for f in found), math.nan])
    places = coded.indices.fill_null(len(found)).to_numpy(zero_copy_only=False)
    return table[places]


def entries(values: Values, size: int, blank: float) -> np.ndarray:
    """The entries of lists, float64 (records, size); `blank` where there are others.

    Example:
      >>> entries([[1, 2], [3], None, [[4], [5]]], 2, 0.0).tolist()
      [[1.0, 2.0], [0.0, 0.0], [0.0, 0.0], [4.0, 5.0]]
    """
    import pyarrow as pa

    values = plain(values)
    if isinstance(values, pa.Array):
        kind, types = values.type, pa.types
        if types.is_fixed_size_list(kind) and not values.null_count:
            flat = values.flatten()
            numbers = types.is_floating(flat.type) or types.is_integer(flat.type)
            if numbers and len(flat) == len(values) * size:
                found = flat.to_numpy(zero_copy_only=False)
                return found.astype(np.float64).reshape(len(values), size)
        values = values.to_pylist()
    rows = np.full((len(values), size), blank, np.float64)
    for row, value in zip(rows, values, strict=True):
        try:
            found = np.asarray(value, np.float64).reshape(-1)
        except (TypeError, ValueError, OverflowError):
            continue
        if found.size == size:
            row[:] = found
    return rows


def contents(values: Values) -> list[str]:
    """Texts as they stand, blanks and all; empty where there is none.

    Example:
      >>> contents([" a", None])
      [' a', '']
    """
    import pyarrow as pa

    values = plain(values)
    if isinstance(values, pa.Array):
        if "string" in str(values.type):
            values = values.cast(pa.large_binary())  # which may be no UTF-8
        values = values.to_pylist()
    return [_scalar(value) or "" for value in values]


def plain(values: Values) -> Values:
    """An array as `stored`; a list as it is.

    Example:
      >>> plain(["a", 1])
      ['a', 1]
    """
    return values if isinstance(values, list) else stored(values)


def stored(values: pa.Array) -> pa.Array:
    """An array without dictionaries, views and names of types.

    Example:
      >>> import pyarrow as pa
      >>> str(stored(pa.array(["a"], pa.string_view())).type)
      'large_string'
    """
    import pyarrow as pa

    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    types = pa.types
    if types.is_dictionary(values.type):
        return stored(values.dictionary).take(values.indices)
    if types.is_string_view(values.type):
        return values.cast(pa.large_string())
    if types.is_binary_view(values.type) or types.is_fixed_size_binary(values.type):
        return values.cast(pa.large_binary())
    return values


def _of_floats(values: pa.Array) -> pa.Array:
    """The texts of floats, as Python writes them."""
    import pyarrow as pa

    single = str(values.type) == "float"
    coded = values.dictionary_encode()
    known = coded.dictionary.to_numpy(zero_copy_only=False)
    words = [_scalar(float(str(v)) if single else float(v)) for v in known]
    return pa.array(words, pa.large_string()).take(coded.indices)


def _scalar(value: Any) -> str | None:
    """The text of one value; None where it has none."""
    if isinstance(value, np.generic | np.ndarray):
        if value.size != 1:
            return None
        value = str(value) if value.dtype.kind in "mM" else value.item()
    if value is None or value != value or value == "NaT":
        return None
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, list | tuple | dict | set):
        return None
    return as_text(value)


def compute() -> Any:
    """Arrow's functions, which are made when the module is imported.

    Example:
      >>> compute().equal("a", "a").as_py()
      True
    """
    import pyarrow.compute

    return pyarrow.compute
