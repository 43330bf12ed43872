"""Exact counts of a table, from wherever its rows are: private, without noise.

A table is read in batches, encoded by its public schema and counted, all families of
cells in one pass; rows are kept as small whole numbers where they fit, for recipes that
count again and again. What comes out goes to a mechanism and to nobody else.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from dpkit.accountants.answers import checks
from dpkit.data.codes import Codebook
from dpkit.data.inspection import inspect
from dpkit.data.origins import Origin, open_origin
from dpkit.data.table import check_columns, followed
from dpkit.data.values import floats, missing, texts

STEPS = 2**16  # of a row's weight
HELD = 2**28  # bytes of codes that stay in memory
_MOST_CELLS = 2**31
_CHUNK = 2**18
_GOLDEN = 0x9E3779B97F4A7C15
_MIXING = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


@runtime_checkable
class Source(Protocol):
    """Where counts come from.

    Attributes:
      codebook: public.
      unit: what one step of a count is worth, in rows: 1, or less where rows weigh.
      reach: the most steps that one unit of privacy adds to any one family of cells.
    """

    codebook: Codebook
    unit: float
    reach: int

    def count(self, families: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
        """Exact counts in steps, int64, shaped by the families' columns: private."""
        ...

    def rows(self) -> np.ndarray:
        """All rows as codes, (n, d): private.

        Raises:
          ValueError: they don't fit, or rows have weights.
        """
        ...


def open_source(
    table: Any,
    codebook: Codebook,
    *,
    rows_per_unit: int | None = None,
    on_invalid: str = "map",
    on_progress: Callable[[str], None] | None = None,
) -> Source:
    """A table as a source of counts; no row is read before the first count.

    Args:
      table: anything with `__arrow_c_stream__` (pandas, Polars, DuckDB, datasets), the
        path of a CSV, Parquet or Arrow file or a folder of them, a dict of arrays; or
        a `Source`, which is given back.
      codebook: of the public schema.
      rows_per_unit: the most rows of one unit, public; needed with a unit column. More
        are left out, by a hash of the unit's own, and rows of nobody.
      on_invalid: "map", what no code stands for has the code that the schema says; or
        "raise", for the owner at the desk: that a table raises tells something of it.
      on_progress: is told in one line how far reading has come.

    Raises:
      ValueError: columns that the table lacks or has twice; "raise", and a value that
        no code stands for: the message counts, and never repeats one.

    Example:
      >>> book = Codebook.of({"pet": {"kind": "categorical", "categories": ["cat"]}})
      >>> open_source({"pet": ["cat", "cat", "newt"]}, book).count([(0,)])
      [array([2, 1])]
    """
    if isinstance(table, Source):
        if table.codebook.schema != codebook.schema:
            raise ValueError("table: the source was opened with another schema")
        return table
    checks.one_of(("map", "raise"), on_invalid=on_invalid)
    schema = codebook.schema
    if (schema.unit_column is None) != (rows_per_unit is None):
        raise ValueError(
            f"rows_per_unit={rows_per_unit!r} with unit_column="
            f"{schema.unit_column!r}: give both, or neither"
        )
    if rows_per_unit is not None:
        checks.integer_at_least(1, rows_per_unit=rows_per_unit)
    origin = open_origin(table, strict=True)
    beside = [schema.unit_column, schema.weight_column]
    check_columns(origin, [*codebook.names, *(name for name in beside if name)])
    if on_invalid == "raise":
        _refuse_invalid(table, codebook)
    return _Stream(origin, codebook, rows_per_unit, on_progress)


class _Stream:
    """Rows of an origin, encoded batch by batch."""

    def __init__(
        self,
        origin: Origin,
        codebook: Codebook,
        rows_per_unit: int | None,
        on_progress: Callable[[str], None] | None,
    ) -> None:
        self.codebook = codebook
        weight = codebook.schema.max_weight
        self.unit = 1.0 if weight is None else weight / STEPS
        self.reach = (rows_per_unit or 1) * (1 if weight is None else STEPS)
        self._origin, self._most = origin, rows_per_unit
        self._tell = on_progress
        self._held: list[tuple[np.ndarray, np.ndarray | None]] | None = None

    def count(self, families: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
        """In one pass."""
        sizes = self.codebook.sizes
        shapes = [tuple(sizes[n] for n in family) for family in families]
        for shape in shapes:
            if math.prod(shape) > _MOST_CELLS:
                raise ValueError(f"family of {shape} has more than {_MOST_CELLS} cells")
        totals = [np.zeros(math.prod(shape), np.int64) for shape in shapes]
        for codes, weights in self._parts():
            for begin in range(0, len(codes), _CHUNK):
                some = slice(begin, begin + _CHUNK)
                columns = codes[some].T.astype(np.intp)
                weight = None if weights is None else weights[some]
                for family, shape, total in zip(families, shapes, totals, strict=True):
                    total += _counted(columns, family, shape, weight)
        pairs = zip(totals, shapes, strict=True)
        return [total.reshape(shape) for total, shape in pairs]

    def rows(self) -> np.ndarray:
        """All of them, held in memory."""
        if self.codebook.schema.weight_column is not None:
            raise ValueError(
                "weight_column: this needs rows that all count alike; leave it out"
            )
        parts = [codes for codes, _ in self._parts()]
        if self._held is None:
            raise ValueError(
                f"table: more than {HELD >> 20} MiB of codes, but this needs all rows "
                "in memory; use a recipe of marginals, such as PAIRS"
            )
        empty = np.zeros((0, len(self.codebook.sizes)), np.int32)
        return np.concatenate([empty, *parts])

    def _parts(self) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Codes and weights, batch by batch; kept while they fit."""
        if self._held is not None:
            yield from self._held
            return
        kept: list[tuple[np.ndarray, np.ndarray | None]] | None = []
        size = 0
        for part in self._read():
            yield part
            size += part[0].nbytes
            if kept is not None and size <= HELD:
                kept.append(part)
            else:
                kept = None
        self._held = kept

    def _read(self) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Codes and weights, from the origin."""
        schema = self.codebook.schema
        wanted = list(self.codebook.names)
        if schema.weight_column is not None:
            wanted.append(schema.weight_column)
        chosen = self._chosen()
        small = np.uint8 if max(self.codebook.sizes) <= 256 else np.uint16
        small = small if max(self.codebook.sizes) <= 2**16 else np.int32
        done = 0
        for batch in followed(self._origin, wanted, self._tell):
            codes = self.codebook.encode(batch).astype(small)
            weights = None
            if schema.weight_column is not None:
                weights = _steps(batch[schema.weight_column], schema.max_weight or 1.0)
            if chosen is not None:
                mine = chosen[done : done + len(codes)]
                done += len(codes)
                codes, weights = codes[mine], None if weights is None else weights[mine]
            yield codes, weights

    def _chosen(self) -> np.ndarray | None:
        """Which rows count: at most so many of each unit, none of nobody.

        Which ones, a hash of the unit and of the row's place among its rows decides: a
        unit changes nothing about the rows of another.
        """
        column = self.codebook.schema.unit_column
        if column is None or self._most is None:
            return None
        numbers: dict[str, int] = {}
        parts = [np.zeros(0, np.int64)]
        for batch in followed(self._origin, [column], None):
            coded = texts(batch[column]).dictionary_encode()
            words = coded.dictionary.to_pylist()
            table = [numbers.setdefault(word, len(numbers)) for word in words]
            places = coded.indices.fill_null(len(table)).to_numpy(zero_copy_only=False)
            found = np.array([*table, -1], np.int64)[places]
            parts.append(np.where(missing(batch[column]), -1, found))
        hashes = np.array([_hash(word) for word in numbers], np.uint64)
        return _kept(np.concatenate(parts), hashes, self._most)


def _hash(word: str) -> int:
    """64 bits of a text."""
    digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "little")


def _kept(owners: np.ndarray, hashes: np.ndarray, most: int) -> np.ndarray:
    """Which rows to keep: of each owner those of the least hashes; none of -1."""
    order = np.argsort(owners, kind="stable")
    ranked = owners[order]
    begins = np.searchsorted(ranked, ranked)  # where each owner's rows begin
    place = np.arange(len(owners)) - begins
    mixed = np.concatenate([hashes, np.zeros(1, np.uint64)])[ranked]
    mixed = mixed + (place.astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN)
    for shift, factor in _MIXING:  # splitmix64, Steele, Lea, Flood, 2014
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    within = np.lexsort((mixed, ranked))
    first = np.arange(len(owners)) - begins < most
    chosen = np.zeros(len(owners), bool)
    chosen[order[within[first]]] = True
    return chosen & (owners >= 0)


class Held:
    """A source whose counts are kept once they were made; private like it.

    Args:
      source: is asked for what wasn't counted yet.
    """

    def __init__(self, source: Source) -> None:
        self.codebook, self.unit, self.reach = (
            source.codebook,
            source.unit,
            source.reach,
        )
        self._source = source
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


def _counted(
    columns: np.ndarray,
    family: tuple[int, ...],
    shape: tuple[int, ...],
    weights: np.ndarray | None,
) -> np.ndarray:
    """Rows by cell, int64."""
    cells = columns[family[0]]
    for n, size in zip(family[1:], shape[1:], strict=True):
        cells = cells * size + columns[n]
    length = math.prod(shape)
    if weights is None:
        return np.bincount(cells, minlength=length)
    # Below 2^53 in a chunk: sums of whole numbers in float64 are exact.
    return np.bincount(cells, weights=weights, minlength=length).astype(np.int64)


def _steps(values: Any, most: float) -> np.ndarray:
    """Weights in whole steps, cut to the largest; what is no number counts nothing."""
    found = np.clip(np.nan_to_num(floats(values), nan=0.0), 0.0, most)
    return np.rint(found / most * STEPS)


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
