"""Exact counts of a table's cells, from wherever its rows are: private.

The source is read once, in batches: rows become codes, which stay in memory while they
are few, else in a file without a name; every question after that is asked of the codes.
Nothing is released here. What one unit of privacy can add to a count is bounded here,
though: at most `rows_per_unit` rows of each count at all, each with at most the
schema's `max_weight`.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from dpkit.accountants.answers import checks
from dpkit.data.codes import Codebook
from dpkit.data.encoding import each
from dpkit.data.inspection import inspect
from dpkit.data.origins import Origin, open_origin
from dpkit.data.table import check_columns, followed
from dpkit.data.values import floats, missing, texts
from dpkit.mechanisms.noise import host_generator
from dpkit.synthetic.stored import BLOCK, Columns, capped

STEPS = 2**16  # of the largest weight
_MOST = 8 * 2**30  # bytes
_CELLS = 2**31  # of one family


@runtime_checkable
class Source(Protocol):
    """Whatever can count the cells of a table: private.

    Attributes:
      codebook: of the columns; public.
      unit: what one whole step of a count is worth, in rows.
      reach: the most steps that one unit of privacy adds to any one family.

    Example:
      >>> from dpkit.data.schema import Schema
      >>> book = Codebook.of(Schema.read({"a": {"kind": "boolean"}}))
      >>> source = open_source({"a": [True, False, True]}, book)
      >>> [counts.tolist() for counts in source.count([(0,)])], source.reach
      ([[1, 2]], 1)
    """

    codebook: Codebook
    unit: float
    reach: int

    def count(self, families: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
        """Rows, or steps of weight, in each cell of each family.

        Args:
          families: columns, by number.

        Returns:
          int64, shaped by the sizes of the family's columns.
        """
        ...

    def rows(self) -> np.ndarray:
        """The codes of all rows, (n, d) int32, in memory.

        Raises:
          ValueError: they don't fit, or have weights, which rows can't show.
        """
        ...


def open_source(
    table: Any,
    codebook: Codebook,
    *,
    rows_per_unit: int | None = None,
    key: jax.Array | None = None,
    on_invalid: str = "map",
    memory_limit: int | None = None,
    on_progress: Callable[[str], None] | None = None,
) -> Source:
    """A table whose cells can be counted. Its names are looked at; no row is read yet.

    Privacy: a row counts by its own codes alone (`Codebook.encode`). Of a unit with
    more than `rows_per_unit` rows that many count, chosen by a hash of the unit and of
    the order of its own rows, so that what other units have decides nothing; rows that
    don't say whose they are don't count. A weight is cut to [0, max_weight] and rounded
    to whole steps.

    Args:
      table: a path of CSV, Parquet, Arrow files or a folder of them; anything with
        `__arrow_c_stream__` (pandas, Polars, DuckDB, datasets); a dict of arrays or a
        structured array; or a `Source`, which is returned as it is.
      codebook: public.
      rows_per_unit: L, public. Needed with the schema's unit_column; without one only
        1 is possible: each row is another unit's.
      key: secret, of its own: with it nobody knows which rows of a unit count.
      on_invalid: "map": what has no code of its own has the code that the schema says;
        or "raise", for the owner at the desk: that a table raises tells something of
        it.
      memory_limit: bytes of counts, or of rows, at most; by default a quarter of the
        machine's, at most 8 GiB.
      on_progress: told in one line how far reading has come.

    Raises:
      ValueError: no such table, or columns of the schema that it lacks; "raise", and a
        value without a code: the message counts, and never repeats one.
      TypeError: an object without rows; a key that is none.

    Example:
      >>> book = Codebook.of({"pet": {"kind": "categorical", "categories": ["cat"]}})
      >>> source = open_source({"pet": ["cat", "cat", "newt"]}, book)
      >>> source.count([(0,)])[0].tolist()
      [2, 1]
    """
    checks.one_of(("map", "raise"), on_invalid=on_invalid)
    if memory_limit is not None:
        checks.integer_at_least(1, memory_limit=memory_limit)
    if rows_per_unit is not None:
        checks.integer_at_least(1, rows_per_unit=rows_per_unit)
    if isinstance(table, Source) and isinstance(table.codebook, Codebook):
        return _same(table, codebook, rows_per_unit)
    reach, unit = bounded(codebook, rows_per_unit)
    if isinstance(table, np.ndarray) and table.dtype.names:
        table = {name: table[name] for name in table.dtype.names}
    origin = open_origin(table, strict=True)
    check_columns(origin, _wanted(codebook))
    if on_invalid == "raise":
        _refuse_invalid(table, codebook)
    salt = 0
    if key is not None:
        salt = int(host_generator(key).integers(2**64, dtype=np.uint64))
    return _Table(origin, codebook, unit, reach, salt, memory_limit, on_progress)


def bounded(codebook: Codebook, rows_per_unit: int | None) -> tuple[int, float]:
    """Reach and unit of a table.

    Raises:
      ValueError: the schema names a unit, and nobody says of how many rows; or the
        other way round.

    Example:
      >>> from dpkit.data.schema import Schema
      >>> book = Codebook.of(Schema.read({"a": {"kind": "boolean"}},
      ...                                weight_column="w", max_weight=4.0))
      >>> bounded(book, None)
      (65536, 6.103515625e-05)
    """
    schema = codebook.schema
    if schema.unit_column is not None and rows_per_unit is None:
        raise ValueError(
            f"rows_per_unit is missing: schema.unit_column={schema.unit_column!r} may "
            "have several rows; say how many of one count at most"
        )
    if schema.unit_column is None and (rows_per_unit or 1) > 1:
        raise ValueError(
            f"rows_per_unit={rows_per_unit} needs schema.unit_column: the column that "
            "says whose a row is"
        )
    rows = rows_per_unit or 1
    if schema.max_weight is None:
        return rows, 1.0
    return rows * STEPS, schema.max_weight / STEPS


def _same(source: Any, codebook: Codebook, rows_per_unit: int | None) -> Source:
    """A source that is one already; refused if it was opened for other terms."""
    if source.codebook != codebook:
        raise ValueError("table: this source was opened with another schema")
    steps = 1 if codebook.schema.max_weight is None else STEPS
    if rows_per_unit is not None and source.reach != rows_per_unit * steps:
        raise ValueError(
            f"rows_per_unit={rows_per_unit}: this source was opened with "
            f"{source.reach // steps}"
        )
    return source


def fingerprint(source: Source) -> np.ndarray:
    """A hash of all rows that count, in order: private. The table is read here.

    Raises:
      ValueError: the rows are elsewhere, in a database.

    Example:
      >>> from dpkit.data.schema import Schema
      >>> book = Codebook.of(Schema.read({"a": {"kind": "boolean"}}))
      >>> one, other = (open_source({"a": a}, book) for a in ([True], [False]))
      >>> bool((fingerprint(one) == fingerprint(other)).all())
      False
    """
    if not isinstance(source, _Table):
        raise ValueError("table: its rows are not here, so nobody can hash them")
    return source.fingerprint()


def _wanted(codebook: Codebook) -> list[str]:
    """The columns of a table that are read."""
    schema = codebook.schema
    beside = [n for n in (schema.unit_column, schema.weight_column) if n is not None]
    return list(dict.fromkeys([*codebook.names, *beside]))


class _Table:
    """A table that is read as a stream, once."""

    def __init__(
        self,
        origin: Origin,
        codebook: Codebook,
        unit: float,
        reach: int,
        salt: int,
        memory_limit: int | None,
        on_progress: Callable[[str], None] | None,
    ) -> None:
        self.codebook, self.unit, self.reach = codebook, unit, reach
        self._origin, self._salt, self._tell = origin, salt, on_progress
        self._memory = memory_limit

    def count(self, families: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
        """See `Source`."""
        sizes = self.codebook.sizes
        shapes = checked(families, self.codebook, self._memory)
        totals = [np.zeros(math.prod(shape), np.int64) for shape in shapes]
        weighted = self.codebook.schema.weight_column is not None
        for block in self._columns.blocks():
            steps = block[-1] if weighted else 1
            for family, total in zip(families, totals, strict=True):
                np.add.at(total, _cells(block, family, sizes), steps)
        return [t.reshape(shape) for t, shape in zip(totals, shapes, strict=True)]

    def rows(self) -> np.ndarray:
        """See `Source`."""
        columns, width = self._columns, len(self.codebook.sizes)
        if self.codebook.schema.weight_column is not None:
            raise ValueError("rows: rows have weights, which must be counted instead")
        limit = _limit(self._memory)
        if 4 * width * len(columns) > limit:
            raise ValueError(f"rows: they need more than memory_limit={limit} bytes")
        found, at = np.empty((len(columns), width), np.int32), 0
        for block in columns.blocks():
            for number, column in enumerate(block[:width]):
                found[at : at + len(column), number] = column
            at += len(block[0])
        return found

    def fingerprint(self) -> np.ndarray:
        """See `fingerprint`."""
        found = hashlib.sha256()
        for block in self._columns.blocks():
            for column in block:
                found.update(np.ascontiguousarray(column).data)
        return np.frombuffer(found.digest(), np.uint8)

    @functools.cached_property
    def _columns(self) -> Columns:
        """The codes of all rows that count, and their steps of weight if they have any.

        The source is read here.
        """
        schema = self.codebook.schema
        dtypes = [_narrow(size) for size in self.codebook.sizes]
        dtypes += [np.dtype(np.int64)] * (schema.weight_column is not None)
        owned = schema.unit_column is not None
        rows = Columns([*dtypes, *[np.dtype(np.uint64)] * (2 * owned)])
        for coded in self._coded():
            rows.add(coded)
        if not owned:
            return rows
        steps = 1 if schema.weight_column is None else STEPS
        return capped(rows, self.reach // steps, self._salt)

    def _coded(self) -> Iterator[list[np.ndarray]]:
        """Codes, weights and owners, batch by batch, of which some are made at once."""
        wanted = _wanted(self.codebook)
        batches = _pieces(followed(self._origin, wanted, self._tell), wanted[0])
        coded = functools.partial(_coded, self.codebook)
        workers = min(4, os.cpu_count() or 1)
        with ThreadPoolExecutor(workers) as pool:
            while some := list(itertools.islice(batches, 2 * workers)):
                yield from pool.map(coded, some)


def _pieces(
    batches: Iterator[Mapping[str, Any]], name: str
) -> Iterator[Mapping[str, Any]]:
    """The same rows, at most a block at a time: a frame may come as one batch."""
    for batch in batches:
        for at in range(0, len(batch[name]), BLOCK):
            yield {n: values[at : at + BLOCK] for n, values in batch.items()}


class Held:
    """A source whose counts are kept once they were made; private like it.

    Args:
      source: is asked for what wasn't counted yet.
    """

    def __init__(self, source: Source) -> None:
        self.codebook, self.unit = source.codebook, source.unit
        self.reach, self._source = source.reach, source
        self._known: dict[tuple[int, ...], np.ndarray] = {}

    def count(self, families: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
        """Counted in one pass, or before."""
        new = [family for family in families if family not in self._known]
        if new:
            self._known.update(zip(new, self._source.count(new), strict=True))
        return [self._known[family] for family in families]

    def rows(self) -> np.ndarray:
        """All rows as codes."""
        return self._source.rows()


def checked(
    families: Sequence[tuple[int, ...]], codebook: Codebook, memory_limit: int | None
) -> list[tuple[int, ...]]:
    """The shapes of families; refused before anything is allocated.

    Raises:
      ValueError: names the family and its size.

    Example:
      >>> from dpkit.data.schema import Schema
      >>> book = Codebook.of(Schema.read({"a": {"kind": "boolean"}}))
      >>> checked([(0, 0)], book, None)
      Traceback (most recent call last):
      ValueError: families has (0, 0): needed distinct columns from 0 to 0
    """
    limit, sizes = _limit(memory_limit), codebook.sizes
    for family in families:
        inside = all(0 <= n < len(sizes) for n in family)
        if not family or not inside or len(set(family)) < len(family):
            raise ValueError(
                f"families has {tuple(family)!r}: needed distinct columns from 0 to "
                f"{len(sizes) - 1}"
            )
    shapes = [tuple(sizes[n] for n in family) for family in families]
    cells = [math.prod(shape) for shape in shapes]
    if shapes and (max(cells) > _CELLS or 8 * sum(cells) > limit):
        largest = int(np.argmax(cells))
        names = [codebook.names[n] for n in families[largest]]
        raise ValueError(
            f"memory_limit={limit}: the counts need {8 * sum(cells)} bytes; the "
            f"largest family, {names}, has {cells[largest]} cells; take fewer bins, or "
            "leave it out"
        )
    return shapes


def _limit(memory_limit: int | None) -> int:
    """Bytes that may be allocated."""
    if memory_limit is not None:
        return memory_limit
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return min(pages * size // 4, _MOST)


def _narrow(size: int) -> np.dtype:
    """The smallest type that holds so many codes."""
    return np.dtype(np.min_scalar_type(size - 1))


def _cells(
    block: list[np.ndarray], family: tuple[int, ...], sizes: Sequence[int]
) -> np.ndarray:
    """The cell of each row, int64: codes as digits of one number."""
    cells = block[family[0]].astype(np.int64)
    for n in family[1:]:
        np.multiply(cells, sizes[n], out=cells)
        np.add(cells, block[n], out=cells)
    return cells


def _coded(codebook: Codebook, batch: Mapping[str, Any]) -> list[np.ndarray]:
    """The columns of a batch's rows: codes, steps of weight, and owners."""
    schema = codebook.schema
    columns = list(codebook.encode(batch).T)
    if schema.weight_column is not None and schema.max_weight is not None:
        columns.append(_steps(batch[schema.weight_column], schema.max_weight))
    if schema.unit_column is None:
        return columns
    somebody, owners = owners_of(batch[schema.unit_column])
    return [*(column[somebody] for column in columns), *owners.T]


def _steps(weights: Any, most: float) -> np.ndarray:
    """Weights in whole steps; a missing one counts for nothing."""
    found = np.nan_to_num(each(lambda _, values: floats(values), None, weights))
    # The quotient is at most 1, however it is rounded.
    return np.rint(np.clip(found, 0.0, most) / most * STEPS).astype(np.int64)


def owners_of(ids: Any) -> tuple[np.ndarray, np.ndarray]:
    """Which rows are somebody's, and of those the owner, 128 bits of a hash.

    Example:
      >>> somebody, owners = owners_of(["ann", None, "ann"])
      >>> somebody.tolist(), bool((owners[0] == owners[1]).all())
      ([True, False, True], True)
    """
    somebody = ~missing(ids)
    coded = texts(ids).filter(somebody).dictionary_encode()
    digests = [
        hashlib.blake2b(word.encode(), digest_size=16).digest()
        for word in coded.dictionary.to_pylist()
    ]
    table = np.frombuffer(b"".join(digests), np.uint64).reshape(-1, 2)
    return somebody, table[coded.indices.to_numpy()]


def _refuse_invalid(table: Any, codebook: Codebook) -> None:
    """Refuses values that no code stands for, column by column."""
    if hasattr(table, "__arrow_c_stream__") and not hasattr(table, "__len__"):
        raise ValueError("on_invalid='raise' reads a table twice; give a file")
    _, fits = inspect(table, codebook.schema)
    for name, fit in fits.items():
        column = codebook.schema.columns.get(name)
        lost = 0 if column is None or column.nullable else fit.missing
        wrong = fit.strange + lost
        if wrong:
            raise ValueError(
                f"schema.{name}: {wrong} values have no code of their own; widen the "
                "schema, or use on_invalid='map'"
            )
