"""The columns of a table as whole numbers, and back: public, by the schema alone.

`encode` is a total function of one record, in the sense of `dpkit.data.encoding`:
whatever stands in a cell has a code. `decode` makes values of codes: a label, a whole
number, or a number drawn evenly from its bin; never one that a record has.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dpkit.data.encoding import category_codes, each, known, numbers_of
from dpkit.data.rules import Forbidden, compiled, kept
from dpkit.data.schema import (
    Boolean,
    Categorical,
    Datetime,
    Kind,
    Numeric,
    Ordinal,
    Schema,
    Tree,
    as_text,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from dpkit.data.values import Values

_BINS = 32
_MOST = 4096  # codes of an ordinal
OTHER = "(other)"
_DAY = 86400.0


@dataclasses.dataclass(frozen=True)
class Codebook:
    """The codes of a schema's columns.

    Args:
      schema: public.

    Raises:
      ValueError: a column whose values can't be counted.

    Example:
      >>> book = Codebook.of(Schema.read({
      ...     "age": {"kind": "ordinal", "low": 18, "high": 20},
      ...     "pet": {"kind": "categorical", "categories": ["cat"], "nullable": True}}))
      >>> book.sizes, book.labels("pet")
      ((3, 3), ['cat', '(other)', ''])
      >>> book.encode({"age": [20, 99], "pet": ["cat", None]}).tolist()
      [[2, 0], [2, 2]]
    """

    schema: Schema

    @classmethod
    def of(cls, schema: Schema | Mapping[str, Any]) -> Codebook:
        """The codebook of a schema; refused if a column can't be counted."""
        book = cls(Schema.read(schema))
        for name, column in book.schema.columns.items():
            _check_countable(name, column)
        _ = book.forbidden
        return book

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """The columns, in order."""
        return tuple(self.schema.columns)

    @functools.cached_property
    def sizes(self) -> tuple[int, ...]:
        """How many codes each has, that of missing values included."""
        return tuple(_size(column) for column in self.schema.columns.values())

    @functools.cached_property
    def ordered(self) -> tuple[bool, ...]:
        """Which columns have neighbouring values."""
        return tuple(
            isinstance(column, Numeric | Ordinal | Datetime)
            for column in self.schema.columns.values()
        )

    @functools.cached_property
    def forbidden(self) -> tuple[Forbidden, ...]:
        """Combinations of codes that the rules leave no value for."""
        return compiled(self)

    def encode(self, columns: Mapping[str, Values]) -> np.ndarray:
        """The codes of records, (n, d) int32.

        Args:
          columns: private, by name, of one length: arrays or lists.
        """
        import pyarrow as pa

        given = {
            name: pa.array(values) if isinstance(values, np.ndarray) else values
            for name, values in columns.items()
        }
        parts = [
            each(_codes, column, given[name])
            for name, column in self.schema.columns.items()
        ]
        return np.stack(parts, axis=1)

    def decode(self, codes: np.ndarray, generator: np.random.Generator) -> pa.Table:
        """Values of codes: public, and of no record in particular.

        Args:
          codes: (n, d).
          generator: draws numbers inside their bins.

        Returns:
          A table whose rows keep the rules.
        """
        import pyarrow as pa

        columns: Mapping[str, Any] = self.schema.columns
        numbers = {
            name: _drawn(column, codes[:, n], generator)
            for n, (name, column) in enumerate(columns.items())
            if self.ordered[n]
        }
        kept(
            self,
            codes,
            numbers,
            lambda name, some: _drawn(columns[name], some, generator),
        )
        return pa.table(
            {
                name: _numbers_shown(column, numbers[name])
                if name in numbers
                else _labels_shown(column, codes[:, n])
                for n, (name, column) in enumerate(columns.items())
            }
        )

    def code(self, name: str, value: Any) -> int:
        """The code of a value; None or "" is a missing one.

        Raises:
          ValueError: a name or a value outside the schema.
        """
        if name not in self.names:
            raise ValueError(f"{name!r} is no column: needed one of {list(self.names)}")
        column = self.schema.columns[name]
        if value is None or value == "":
            if column.nullable:
                return self.sizes[self.names.index(name)] - 1
            raise ValueError(f"{name!r} has no missing values: it isn't nullable")
        if isinstance(column, Categorical) and value == OTHER and column.other:
            return len(column.texts)
        if not known(column, [value])[0]:
            raise ValueError(f"{name}={value!r} is outside the schema")
        return int(_codes(column, [value])[0])

    def labels(self, name: str) -> list[str]:
        """What each code stands for."""
        column = self.schema.columns[name]
        if isinstance(column, Categorical | Boolean):
            found = list(column.texts)
            found += [OTHER] * (isinstance(column, Categorical) and column.other)
        elif isinstance(column, Ordinal):
            found = [str(n) for n in range(column.low, column.high + 1)]
        else:
            found = [_interval(column, *pair) for pair in self.ranges(name)]
        return found + [""] * column.nullable

    def ranges(self, name: str) -> np.ndarray:
        """The least and the largest value of each code of an ordered column, (s, 2).

        Without the code of missing values. Moments are seconds since 1970.
        """
        column = self.schema.columns[name]
        if isinstance(column, Ordinal):
            values = np.arange(column.low, column.high + 1, dtype=float)
            return np.stack([values, values], axis=1)
        edges, step = _edges(column), _granularity(column)
        most = edges[1:].copy()  # a bin's end is the next one's beginning
        if step is None:
            most[:-1] = np.nextafter(most[:-1], edges[:-2])
        else:
            most[:-1] = np.maximum(np.ceil(most[:-1] / step - 1) * step, edges[:-2])
        return np.stack([edges[:-1], most], axis=1)

    def levels(self, name: str) -> tuple[np.ndarray, ...]:
        """Coarser and coarser maps from a code to its group, for tree families.

        A tree's codes by their prefixes, from the finest level on; an ordered column's
        by halves. Missing and other values keep groups of their own.
        """
        column, size = self.schema.columns[name], self.sizes[self.names.index(name)]
        if isinstance(column, Tree):
            return tuple(
                _grouped([text[:length] for text in column.texts], size)
                for length in reversed(column.prefixes)
            )
        if not isinstance(column, Numeric | Ordinal | Datetime):
            return ()
        values = size - column.nullable
        halvings = range(1, max(1, (values - 1).bit_length()))
        return tuple(
            _grouped([str(code >> k) for code in range(values)], size) for k in halvings
        )


def _check_countable(name: str, column: Kind) -> None:
    """Refuses a column whose values can't be counted."""
    if not isinstance(column, Categorical | Boolean | Numeric | Ordinal | Datetime):
        kind = type(column).__name__.lower()
        raise ValueError(
            f"schema.{name} is {kind}: a table of counts needs categories, numbers or "
            "moments; leave the column out of the schema"
        )
    if isinstance(column, Ordinal) and column.high - column.low >= _MOST:
        raise ValueError(
            f"schema.{name} has {column.high - column.low + 1} whole numbers, more "
            f"than {_MOST}: declare it numeric, with bins"
        )


def _size(column: Any) -> int:
    """How many codes a column has."""
    if isinstance(column, Categorical | Boolean):
        return column.size
    if isinstance(column, Ordinal):
        return column.high - column.low + 1 + column.nullable
    return len(_edges(column)) - 1 + column.nullable


def _codes(column: Any, values: Values) -> np.ndarray:
    """The code of each value, int32."""
    if isinstance(column, Categorical | Boolean):
        distinct, places = _distinct(values)
        return category_codes(column, distinct)[places]
    found = numbers_of(column, values)
    if isinstance(column, Ordinal):
        clipped = np.clip(np.nan_to_num(found, nan=column.low), column.low, column.high)
        codes = np.rint(clipped).astype(np.int64) - column.low
    else:
        inner = _edges(column)[1:-1]
        codes = np.searchsorted(inner, np.nan_to_num(found, nan=-np.inf), side="right")
    if column.nullable:
        codes = np.where(np.isnan(found), _size(column) - 1, codes)
    return codes.astype(np.int32)


def _distinct(values: Values) -> tuple[Values, Any]:
    """The texts that differ, and which of them each is: each is looked at once."""
    import pyarrow as pa

    if isinstance(values, list):
        return values, slice(None)
    if not pa.types.is_dictionary(values.type):
        texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary)
        if not any(one(values.type) for one in texts):
            return values, slice(None)
        values = values.dictionary_encode()
    known: Any = values.dictionary
    if len(known) > len(values):
        return values, slice(None)
    places = values.indices.cast(pa.int64()).fill_null(len(known))
    missing = pa.nulls(1, known.type)
    return pa.concat_arrays([known, missing]), places.to_numpy(zero_copy_only=False)


@functools.lru_cache(maxsize=4096)
def _edges(column: Numeric | Datetime) -> np.ndarray:
    """Where bins begin, and the last one ends."""
    if isinstance(column, Numeric) and column.edges is not None:
        return np.array(column.edges)
    low, high = (
        column.seconds
        if isinstance(column, Datetime)
        else (float(column.low), float(column.high))
    )
    if isinstance(column, Datetime) and column.form == "mm/yyyy":
        return _months(low, high)
    bins = column.bins or _BINS
    if low == high:
        return np.array([low, high])
    share = np.arange(bins + 1) / bins
    if column.scale == "log1p":
        edges = low + np.expm1(np.log1p(high - low) * share)
    else:  # exact for whole numbers
        edges = (low * np.arange(bins, -1, -1) + high * np.arange(bins + 1)) / bins
    edges[0], edges[-1] = low, high
    return edges


def _months(low: float, high: float) -> np.ndarray:
    """Where the months from one moment's to another's begin, and the last one ends."""
    days = [
        datetime.datetime.fromtimestamp(at, datetime.UTC).date() for at in (low, high)
    ]
    first, last = (np.datetime64(f"{day:%Y-%m}", "M") for day in days)
    months = np.arange(first, last + 2)
    return months.astype("datetime64[s]").astype(np.float64)


def _drawn(
    column: Any, codes: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """A number inside each code's bin, float64; NaN for missing."""
    missing = codes == (_size(column) - 1 if column.nullable else -1)
    if isinstance(column, Ordinal):
        return np.where(missing, np.nan, column.low + codes.astype(float))
    edges = _edges(column)
    place = np.minimum(codes, len(edges) - 2)
    low, high = edges[place], edges[place + 1]
    last = place == len(edges) - 2
    found = _drawn_between(low, high, last, _granularity(column), generator)
    return np.where(missing, np.nan, found)


def _drawn_between(
    low: np.ndarray,
    high: np.ndarray,
    closed: np.ndarray,
    step: float | None,
    generator: np.random.Generator,
) -> np.ndarray:
    """Numbers drawn evenly from low to high, without high unless closed.

    Whole multiples of the step, where there is one in the range; else its low end.
    """
    share = generator.random(len(low))
    if step is None:
        return np.minimum(low + share * (high - low), np.nextafter(high, low))
    first, last = np.ceil(low / step - 1e-9), np.floor(high / step + 1e-9)
    last = np.where(~closed & (last * step >= high), last - 1, last)
    drawn = (first + np.floor(share * (last - first + 1))) * step
    digits = max(0, -math.floor(math.log10(step))) + 2
    return np.where(last >= first, np.round(drawn, digits), low)


def _granularity(column: Any) -> float | None:
    """To what numbers are rounded."""
    if not isinstance(column, Datetime):
        return column.granularity
    return column.step or (_DAY if _is_date(column) else 1.0)


def _is_date(column: Datetime) -> bool:
    """Whether a column has days, without a time."""
    return len(column.low) == len(column.high) == 10


def _numbers_shown(column: Any, found: np.ndarray) -> pa.Array:
    """Numbers as they are written: whole, or not, or as moments."""
    import pyarrow as pa

    missing = np.isnan(found)
    if isinstance(column, Datetime):
        texts = [None if math.isnan(x) else _moment(column, x) for x in found]
        return pa.array(texts, pa.string())
    whole = isinstance(column, Ordinal) or _is_whole(column)
    if whole:
        return pa.array(
            np.where(missing, 0, found).astype(np.int64), pa.int64(), mask=missing
        )
    return pa.array(found, pa.float64(), mask=missing)


def _is_whole(column: Numeric) -> bool:
    """Whether all made-up numbers of a column are whole."""
    step = column.granularity
    return step is not None and step == int(step) and column.low == int(column.low)


def _moment(column: Datetime, seconds: float) -> str:
    """A moment as it is written in its column."""
    when = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    if column.form == "mm/yyyy":
        return f"{when:%m/%Y}"
    if _is_date(column):
        return when.date().isoformat()
    return when.replace(tzinfo=None).isoformat(timespec="seconds")


def _labels_shown(column: Categorical | Boolean, codes: np.ndarray) -> pa.Array:
    """Labels of codes, in the type that the schema has them in."""
    import pyarrow as pa

    if isinstance(column, Boolean):
        labels: list[Any] = [False, True]
    else:
        labels = list(column.categories)
        if column.other:
            labels = [*map(_plain, labels), OTHER]
        elif len({type(label) for label in labels}) > 1:
            labels = [*map(_plain, labels)]
    table = pa.array([*labels, None] if column.nullable else labels)
    return table.take(pa.array(codes, pa.int32()))


def _plain(label: Any) -> str:
    """A label as text, as it was written."""
    return label if isinstance(label, str) else as_text(label)


def _interval(column: Any, low: float, high: float) -> str:
    """A bin, for people."""
    if isinstance(column, Datetime):
        return f"{_moment(column, low)} to {_moment(column, high)}"
    return f"{low:g} to {high:g}"


def _grouped(keys: list[str], size: int) -> np.ndarray:
    """Groups by number in order of first appearance; further codes by themselves."""
    numbers: dict[str, int] = {}
    groups = [numbers.setdefault(key, len(numbers)) for key in keys]
    rest = range(len(numbers), len(numbers) + size - len(keys))
    return np.array([*groups, *rest], np.int32)
