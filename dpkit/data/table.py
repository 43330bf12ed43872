"""The rows of a source, encoded once by a public schema, to be taken by number.

Larger than memory works: the source is read as a stream, and its encoded rows go to a
file without a name (`dpkit.data.spool`).
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from dpkit.data.encoding import encode
from dpkit.data.layout import Layout
from dpkit.data.origins import NothingReadable, Origin, open_origin
from dpkit.data.random_access import Rows
from dpkit.data.schema import Schema
from dpkit.data.spool import Spool, packed
from dpkit.data.values import missing, texts


@dataclasses.dataclass(frozen=True)
class Table:
    """Encoded rows.

    Attributes:
      layout: what a row looks like; public.
      rows: private, unless the source is public.
      unit_ids: whose each row is, by a number; None where the schema names no unit.
      public: the rows that were declared public, or None.

    Example:
      >>> schema = Schema.read({"x": {"kind": "numeric", "low": 0, "high": 4}})
      >>> table = read({"x": np.arange(4)}, schema)
      >>> table.rows.take(np.array([3]))["numbers"].tolist()
      [[0.75]]
    """

    layout: Layout
    rows: Rows
    unit_ids: np.ndarray | None = None
    public: Rows | None = None


def read(
    source: Any,
    schema: Schema | Mapping[str, Any],
    *,
    public_fraction: float = 0.0,
    labelled: bool = True,
    strict: bool = False,
    on_progress: Callable[[str], None] | None = None,
) -> Table:
    """Reads and encodes all rows of a source.

    Privacy: one record of the source is one row, which depends on that record and the
    schema alone (`dpkit.data.encoding`); nothing is released here. Rows that don't say
    whose they are belong to nobody, and are left out.

    Args:
      source: a path, an object of the Arrow C stream protocol, a dict of arrays, or
        rows by number; see `dpkit.data.origins`.
      schema: public; as `Schema.read` takes it.
      public_fraction: this share of the rows is declared public: no guarantee covers
        it, and it isn't in `rows`. A hash of the record decides, or of whose it is, so
        that no record decides about another; equal ones are on one side.
      labelled: whether the label's column must be there, and the unit's.
      strict: whether a line of CSV with another number of values raises; else it is no
        record.
      on_progress: told in one line how far it has come.

    Returns:
      The table.

    Raises:
      ValueError: a column of the schema isn't there; a file that can't be read.
      TypeError: an object that has no rows.

    Example:
      >>> table = read({"x": ["a", "b", "b"], "who": [7, 8, 7]}, Schema.read(
      ...     {"x": {"kind": "categorical", "categories": ["a", "b"]}},
      ...     unit_column="who"))
      >>> table.rows.take(np.arange(3))["codes"].T.tolist(), table.unit_ids.tolist()
      ([[0, 1, 1]], [0, 1, 0])
    """
    schema = Schema.read(schema)
    if not labelled:
        schema = _unlabelled(schema)
    origin = open_origin(source, strict=strict)
    layout = Layout.of(schema)
    wanted = list(schema.columns)
    if schema.unit_column is not None:
        wanted.append(schema.unit_column)
    check_columns(origin, wanted)
    spool, public, people = Spool(layout.fields), Spool(layout.fields), _People()
    for batch in followed(origin, wanted, on_progress):
        rows, unit = encode(schema, batch), batch.get(schema.unit_column or "")
        words = packed(layout.fields, rows) if unit is None else texts(unit).to_pylist()
        open_to_all = chosen(words, public_fraction)
        kept = ~open_to_all
        if unit is not None:
            kept &= people.add(unit, kept)
        spool.add({name: values[kept] for name, values in rows.items()})
        if public_fraction:
            public.add({name: values[open_to_all] for name, values in rows.items()})
    return Table(
        layout,
        spool.rows(),
        None if schema.unit_column is None else people.numbers(),
        public.rows() if public_fraction else None,
    )


def check_columns(origin: Origin, wanted: list[str]) -> None:
    """Refuses a source that lacks a column of the schema.

    What the source calls its columns is not repeated: a file without a first line of
    names has a person's record there.

    Raises:
      ValueError: names the columns that it lacks, or has twice.

    Example:
      >>> check_columns(open_origin({"x": np.arange(2)}), ["x"])
    """
    twice = [name for name in wanted if origin.names.count(name) > 1]
    if twice:
        raise ValueError(f"schema: the source has two columns {twice[0]!r}: rename one")
    lacking = [name for name in wanted if name not in origin.names]
    if lacking:
        raise ValueError(
            f"schema: the source has no column {', '.join(map(repr, lacking))}; names "
            "must agree letter by letter, and a CSV file must begin with them"
        )


def chosen(words: Any, fraction: float) -> np.ndarray:
    """Which records are among a fraction that is drawn by hash: each by itself.

    Args:
      words: what each record is, or whose: the same words share their fate.
      fraction: in [0, 1].

    Example:
      >>> chosen(["ann", "bob", "ann"], 1.0).tolist()
      [True, True, True]
    """
    if not fraction:
        return np.zeros(len(words), bool)
    limit = int(fraction * 2**64)
    return np.array([_number(word) < limit for word in words], bool)


def _number(word: Any) -> int:
    """A hash of 64 bits."""
    content = word if isinstance(word, bytes) else str(word).encode()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def _unlabelled(schema: Schema) -> Schema:
    """The same schema without label and unit."""
    return Schema(columns=schema.features)


def followed(
    origin: Origin, wanted: list[str], on_progress: Callable[[str], None] | None
) -> Iterator[Mapping[str, Any]]:
    """The batches of a source; the share that was read is told in tenths.

    Raises:
      ValueError: the source is damaged; nothing of a record is repeated.

    Example:
      >>> [len(batch["x"]) for batch in
      ...  followed(open_origin({"x": np.arange(3)}), ["x"], None)]
      [3]
    """
    done, told = 0, 0
    try:
        for batch in origin.read(wanted):
            yield batch
            done += len(batch[wanted[0]])
            share = 10 * done // (origin.total or 2**62)
            if on_progress is not None and share > told:
                on_progress(f"read {10 * share} % of the rows")
                told = share
    except NothingReadable:
        raise
    except Exception as error:  # what it says may quote a record
        raise ValueError(
            f"the source can't be read to its end ({type(error).__name__}): is the "
            "file damaged, does a line have another number of values than the first, "
            "or more than 16 MB?"
        ) from None


class _People:
    """Numbers for the people behind rows, in the order in which they come."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}
        self._parts: list[np.ndarray] = [np.zeros(0, np.int64)]

    def add(self, ids: Any, wanted: np.ndarray) -> np.ndarray:
        """Takes the ids of some rows; returns which rows are somebody's."""
        words = texts(ids)
        somebody = ~missing(ids) & wanted
        coded = words.filter(somebody).dictionary_encode()
        table = np.array(
            [self._number(word) for word in coded.dictionary.to_pylist()], np.int64
        )
        self._parts.append(table[coded.indices.to_numpy()])
        return somebody

    def numbers(self) -> np.ndarray:
        """A number for each row."""
        return np.concatenate(self._parts)

    def _number(self, word: str) -> int:
        """The number of one person."""
        return self._known.setdefault(word, len(self._known))
