"""Points out of files: columns of numbers as coordinates, one batch at a time.

A record is one row, and depends on nothing else: a cell that is missing or no number is
NaN, so that its point counts for none, silently. How many columns a file has, what they
are called and of what type they are is public; of the rest no message tells anything.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from dpkit.data.origins import Origin, open_origin
from dpkit.data.table import followed
from dpkit.data.values import entries, floats, missing, texts


class Batch(NamedTuple):
    """Some records, private: points (n, d), and (n,) weights and owners, or None."""

    points: np.ndarray
    weights: np.ndarray | None
    owners: Any


@dataclasses.dataclass(frozen=True)
class Points:
    """A source of points.

    Attributes:
      origin: where they come from.
      columns: which columns are coordinates, and how many each has; None: one number.
      weight: the column that says how much a point counts, or None.
      owner: the column that says whose it is, or None.

    Example:
      >>> found = open_points({"x": np.arange(3), "y": np.ones(3), "name": ["a"] * 3})
      >>> found.dimension, [batch.points.shape for batch in found.batches()]
      (2, [(3, 2)])
    """

    origin: Origin
    columns: dict[str, int | None]
    weight: str | None = None
    owner: str | None = None

    @property
    def dimension(self) -> int:
        """d: how many coordinates a point has."""
        return sum(1 if size is None else size for size in self.columns.values())

    def batches(self, tell: Callable[[str], None] | None = None) -> Iterator[Batch]:
        """All records in order; the source is read once.

        Args:
          tell: is told in one line how far it has come.

        Raises:
          ValueError: the source is damaged.
        """
        beside = [name for name in (self.weight, self.owner) if name is not None]
        for found in followed(self.origin, [*self.columns, *beside], tell):
            parts = [
                floats(found[name])[:, None]
                if size is None
                else entries(found[name], size, np.nan)
                for name, size in self.columns.items()
            ]
            yield Batch(
                np.concatenate(parts, axis=1),
                None if self.weight is None else floats(found[self.weight]),
                None if self.owner is None else found[self.owner],
            )

    def capped(
        self, most: int, tell: Callable[[str], None] | None = None
    ) -> Iterator[Batch]:
        """The same, at most so many points of each owner; the source is read twice.

        Which ones is decided by a hash of owner and record: by each owner's records
        alone. Points without an owner belong to nobody, and are left out.
        """
        marks = [_marked(batch) for batch in self.batches(tell)]
        kept = _kept(np.concatenate([np.zeros((0, 3), np.uint64), *marks]), most)
        start = 0
        for batch in self.batches():
            rows = kept[start : start + len(batch.points)]
            if len(rows) != len(batch.points):
                break
            weights = None if batch.weights is None else batch.weights[rows]
            yield Batch(batch.points[rows], weights, None)
            start += len(rows)
        if start != len(kept):
            raise ValueError("the source changed while it was read: try again")


def open_points(
    source: Any,
    *,
    columns: Sequence[str] | None = None,
    weight: str | None = None,
    owner: str | None = None,
    strict: bool = False,
) -> Points:
    """A source of points: any kind of `dpkit.data.origins` that has columns of numbers.

    Args:
      columns: which are coordinates, in this order; None: all columns of numbers, and
        of a CSV, whose columns have no type, all.
      weight, owner: further columns.
      strict: whether a line of CSV with another number of values raises; else it is no
        record.

    Raises:
      ValueError: no such source, or no such columns.

    Example:
      >>> open_points({"x": np.zeros((3, 4))}).dimension
      4
    """
    origin = open_origin(source, strict=strict, nameless=True)
    types = None if origin.types is None else origin.types()
    beside = [name for name in (weight, owner) if name is not None]
    if columns is None:
        names = [name for name in origin.names if name not in beside]
        found = {name: _size(types, name) for name in names}
        if types is not None:
            found = {name: size for name, size in found.items() if size != 0}
    else:
        names = list(columns)
        found = {n: _size(types, n) for n in names if n in origin.names}
    _refuse_lacking(origin, [*names, *beside])
    if 0 in found.values():
        raise ValueError(
            "columns: one of them holds neither numbers nor lists of one public length"
        )
    if not found:
        raise ValueError(
            "columns: the source has none of numbers; name the coordinates"
        )
    return Points(origin, found, weight, owner)


def _refuse_lacking(origin: Origin, wanted: Sequence[str]) -> None:
    """Refuses columns that aren't there, or twice; those that are aren't told."""
    for name in wanted:
        if name not in origin.names:
            raise ValueError(
                f"columns: the source has no column {name!r}; names must agree letter "
                "by letter; of a CSV whose first line is all numbers they are 1, 2, …"
            )
        if origin.names.count(name) > 1 or wanted.count(name) > 1:
            raise ValueError("columns: two have the same name: rename one")


def _size(types: Any, name: str) -> int | None:
    """How many coordinates a column has: None a number, 0 none that are told."""
    import pyarrow as pa

    if types is None:
        return None
    kind, of = types.get(name, pa.null()), pa.types
    if of.is_fixed_size_list(kind) and _is_number(kind.value_type):
        return kind.list_size
    return None if _is_number(kind) else 0


def _is_number(kind: Any) -> bool:
    """Whether a type is of numbers."""
    import pyarrow as pa

    of = pa.types
    return of.is_integer(kind) or of.is_floating(kind) or of.is_decimal(kind)


def _marked(batch: Batch) -> np.ndarray:
    """Of each record its owner, 128 bits of a hash, and its rank among the owner's.

    The rank is a hash as well; a record that counts for none comes last, and one of
    nobody has the owner 0.
    """
    coded = texts(batch.owners).dictionary_encode()
    digests = [
        hashlib.blake2b(word.encode(), digest_size=16).digest()
        for word in coded.dictionary.to_pylist()
        if word is not None
    ]
    table = np.frombuffer(b"".join(digests), np.uint64).reshape(-1, 2)
    table = np.concatenate([table, np.zeros((1, 2), np.uint64)])
    places = coded.indices.fill_null(len(digests)).to_numpy(zero_copy_only=False)
    marks = np.zeros((len(batch.points), 3), np.uint64)
    marks[:, :2] = np.where(missing(batch.owners)[:, None], 0, table[places])
    record = batch.points
    if batch.weights is not None:
        record = np.column_stack([record, batch.weights])
    rank = marks[:, 0].copy()
    for column in np.ascontiguousarray(record.T, np.float64).view(np.uint64):
        rank = _mixed(rank ^ column)
    unusable = ~np.isfinite(record).all(axis=1)
    marks[:, 2] = np.where(unusable, np.iinfo(np.uint64).max, rank)
    return marks


def _mixed(words: np.ndarray) -> np.ndarray:
    """Steele, Lea and Flood's mix of 64 bits (SplitMix, 2014)."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _kept(marks: np.ndarray, most: int) -> np.ndarray:
    """Which records are among their owner's first by rank."""
    order = np.lexsort(marks.T[::-1])
    owners = marks[order, :2]
    new = np.ones(len(marks), bool)
    new[1:] = (owners[1:] != owners[:-1]).any(axis=1)
    starts = np.maximum.accumulate(np.where(new, np.arange(len(marks)), 0))
    kept = np.zeros(len(marks), bool)
    kept[order] = np.arange(len(marks)) - starts < most
    return kept & (marks[:, :2] != 0).any(axis=1)
