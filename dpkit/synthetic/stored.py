"""Columns of whole numbers, block by block: in memory while few, else in a file.

The file has no name (`dpkit.data.spool.Scratch`): only this process can reach it, and
the system frees it when the process ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from dpkit.data.spool import Scratch

BLOCK = 2**18  # rows
_IN_MEMORY = 256 * 2**20
_TOGETHER = 2**23  # rows whose owners are compared at once


class Columns:
    """Takes rows as columns of some types, and gives them back in order: private.

    Args:
      dtypes: of each column.
      in_memory: bytes that are kept in memory at most, beside one block.

    Example:
      >>> columns = Columns([np.dtype(np.uint8)])
      >>> columns.add([np.array([1, 2])])
      >>> [block[0].tolist() for block in columns.blocks()]
      [[1, 2]]
    """

    def __init__(
        self, dtypes: Sequence[np.dtype], *, in_memory: int = _IN_MEMORY
    ) -> None:
        self.dtypes = tuple(dtypes)
        self._most = in_memory
        self._loose: list[list[np.ndarray]] = []  # fewer rows than a block
        self._blocks: list[list[np.ndarray]] = []
        self._file: Scratch | None = None
        self._filed = 0  # blocks

    @property
    def width(self) -> int:
        """Bytes of a row."""
        return sum(dtype.itemsize for dtype in self.dtypes)

    def __len__(self) -> int:
        whole = self._filed + len(self._blocks)
        return whole * BLOCK + sum(len(part[0]) for part in self._loose)

    def add(self, columns: Sequence[np.ndarray]) -> None:
        """Appends rows, given as columns of one length.

        Raises:
          OSError: the disk is full.
        """
        self._loose.append(
            [
                column.astype(dtype)
                for column, dtype in zip(columns, self.dtypes, strict=True)
            ]
        )
        if sum(len(part[0]) for part in self._loose) < BLOCK:
            return
        rows = _joined(self._loose)
        whole = len(rows[0]) // BLOCK * BLOCK
        for at in range(0, whole, BLOCK):
            self._blocks.append([column[at : at + BLOCK] for column in rows])
        self._loose = [[column[whole:].copy() for column in rows]]
        if self._file or len(self._blocks) * BLOCK * self.width > self._most:
            self._flush()

    def _flush(self) -> None:
        """Moves whole blocks to the file, column after column."""
        self._file = self._file or Scratch()
        for block in self._blocks:
            self._file.append(b"".join(column.tobytes() for column in block))
        self._filed += len(self._blocks)
        self._blocks = []

    def blocks(self) -> Iterator[list[np.ndarray]]:
        """All rows in order, as columns of at most `BLOCK` rows."""
        if self._file is not None:
            yield from self._read(self._file)
        yield from self._blocks
        if self._loose:
            yield _joined(self._loose)

    def _read(self, file: Scratch) -> Iterator[list[np.ndarray]]:
        """The blocks in the file."""
        size = BLOCK * self.width
        starts = np.cumsum([0, *(BLOCK * dtype.itemsize for dtype in self.dtypes)])
        for number in range(self._filed):
            content = bytearray(size)
            file.read(memoryview(content), number * size)
            yield [
                np.frombuffer(content, dtype, BLOCK, start)
                for dtype, start in zip(self.dtypes, starts, strict=False)
            ]


def _joined(parts: list[list[np.ndarray]]) -> list[np.ndarray]:
    """Rows of several parts, column by column."""
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


def capped(rows: Columns, most: int, salt: int) -> Columns:
    """At most so many rows of each owner.

    Which ones, a hash of the owner, of the row's place among the owner's rows and of a
    salt decides: what others have changes nothing, and a second reading nothing either.

    Args:
      rows: whose last two columns are an owner, 128 bits.
      most: rows of an owner.
      salt: 64 bits.

    Returns:
      The rows that are kept, in order, without those columns.
    """
    kept = _kept(rows, most, np.uint64(salt))
    chosen, at = Columns(rows.dtypes[:-2]), 0
    for block in rows.blocks():
        mask = kept[at : at + len(block[0])]
        chosen.add([column[mask] for column in block[:-2]])
        at += len(mask)
    return chosen


def _kept(rows: Columns, most: int, salt: np.uint64) -> np.ndarray:
    """Which rows are kept; some owners at a time."""
    kept = np.zeros(len(rows), bool)
    shares = 1 + len(rows) // _TOGETHER
    for share in range(shares):
        owners, places, at = [np.zeros((0, 2), np.uint64)], [np.zeros(0, np.int64)], 0
        for block in rows.blocks():
            mine = np.flatnonzero(block[-2] % np.uint64(shares) == share)
            owners.append(np.stack([column[mine] for column in block[-2:]], axis=1))
            places.append(mine + at)
            at += len(block[0])
        first = _first(np.concatenate(owners), most, salt)
        kept[np.concatenate(places)[first]] = True
    return kept


def _first(owners: np.ndarray, most: int, salt: np.uint64) -> np.ndarray:
    """Rows that are first among their owner's, in an order by hash."""
    order = np.lexsort(owners.T)
    place = _place(owners[order])
    hashes = _mixed(_mixed(owners[order, 0] ^ salt) + place.astype(np.uint64))
    order = order[np.lexsort([hashes, *owners[order].T])]
    return order[_place(owners[order]) < most]


def _place(owners: np.ndarray) -> np.ndarray:
    """The place of each row among its owner's, where they stand together."""
    new = np.ones(len(owners), bool)
    new[1:] = (owners[1:] != owners[:-1]).any(axis=1)
    numbers = np.arange(len(owners))
    return numbers - np.maximum.accumulate(np.where(new, numbers, 0))


def _mixed(words: np.ndarray) -> np.ndarray:
    """Steele, Lea and Flood's mix of 64 bits (SplitMix, 2014)."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        words = (words ^ (words >> np.uint64(shift))) * np.uint64(factor)
    return words ^ (words >> np.uint64(31))
