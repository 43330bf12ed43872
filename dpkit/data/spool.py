"""Encoded rows by number: in memory while they are few, else in a file without a name.

The file is private: only this process can reach it, and the system frees it when the
process ends, however it ends.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from dpkit.data.cache import open_cache
from dpkit.data.random_access import ArrayRows, Rows, checked_indices, empty_rows

_IN_MEMORY = 256 * 2**20
_BLOCK = 8 * 2**20


def packed(
    fields: Mapping[str, jax.ShapeDtypeStruct], rows: Mapping[str, np.ndarray]
) -> list[bytes]:
    """The bytes of each row.

    Example:
      >>> x = jax.ShapeDtypeStruct((), np.uint8)
      >>> packed({"x": x}, {"x": np.array([1, 2], np.uint8)})
      [b'\\x01', b'\\x02']
    """
    return [row.tobytes() for row in _table(_dtype(fields), rows)]


def _dtype(fields: Mapping[str, jax.ShapeDtypeStruct]) -> np.dtype:
    """A row as one block of bytes."""
    return np.dtype([(name, f.dtype, f.shape) for name, f in fields.items()])


def _table(dtype: np.dtype, rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """Rows as such blocks."""
    table = np.empty(len(next(iter(rows.values()))), dtype)
    for name in dtype.names or ():
        table[name] = rows[name]
    return table


class Scratch:
    """A file without a name, on the disk of the cache, closed when nobody needs it."""

    def __init__(self) -> None:
        folder = open_cache(None).root
        folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder)
        self.number = self._file.fileno()

    def __del__(self) -> None:
        self._file.close()

    def append(self, content: bytes) -> None:
        """Writes at the end."""
        self._file.write(content)
        self._file.flush()

    def read(self, into: memoryview, start: int) -> None:
        """Fills a buffer from a place in the file."""
        while len(into):
            count = os.preadv(self.number, [into], start)
            if count == 0:
                raise OSError("the file of encoded rows was cut short")
            into, start = into[count:], start + count


class Spool:
    """Takes rows as they come, and gives them back by number.

    Args:
      fields: shape and dtype of each array of a row; public.
      in_memory: bytes that are kept in memory at most.

    Example:
      >>> spool = Spool({"x": jax.ShapeDtypeStruct((2,), np.float32)})
      >>> spool.add({"x": np.ones((3, 2), np.float32)})
      >>> len(spool.rows())
      3
    """

    def __init__(
        self,
        fields: Mapping[str, jax.ShapeDtypeStruct],
        *,
        in_memory: int = _IN_MEMORY,
    ) -> None:
        self._fields = dict(fields)
        self._most = in_memory
        self._parts: list[np.ndarray] = []
        self._bytes = 0
        self._file: Scratch | None = None
        self._dtype = _dtype(fields)

    def add(self, rows: Mapping[str, np.ndarray]) -> None:
        """Appends rows.

        Raises:
          OSError: the disk is full.
        """
        part = _table(self._dtype, rows)
        self._parts.append(part)
        self._bytes += part.nbytes
        if self._bytes > self._most:
            self._flush()

    def rows(self) -> Rows:
        """All rows by number; nothing can be added after."""
        if self._file is not None:
            self._flush()
            return FileRows(self._file, self._dtype, self._fields)
        whole = np.concatenate([np.empty(0, self._dtype), *self._parts])
        self._parts = []
        return ArrayRows({n: np.ascontiguousarray(whole[n]) for n in self._fields})

    def _flush(self) -> None:
        """Moves what is in memory to the file."""
        if self._file is None:
            self._file = Scratch()
        for part in self._parts:
            self._file.append(part.tobytes())
        self._parts, self._bytes = [], 0


class FileRows:
    """Rows of one size in a file; only those that are asked for are read.

    Args:
      file: of which all is rows.
      dtype: of a row.
      fields: shape and dtype of each array of a row.
    """

    def __init__(
        self, file: Scratch, dtype: np.dtype, fields: Mapping[str, jax.ShapeDtypeStruct]
    ) -> None:
        self._file, self._dtype = file, dtype
        self._fields = dict(fields)
        self._length = os.fstat(file.number).st_size // dtype.itemsize

    def __len__(self) -> int:
        return self._length

    @property
    def example(self) -> Any:
        """Shapes and dtypes of one record."""
        return dict(self._fields)

    def take(self, indices: np.ndarray) -> Any:
        """The rows of these numbers, stacked.

        Each number is read, also where padding repeats it: else the time would tell how
        many rows a batch holds.
        """
        indices = checked_indices(indices, self._length)
        if self._length == 0:
            return empty_rows(self.example, len(indices))
        found = np.empty(len(indices), self._dtype)
        size, view = self._dtype.itemsize, memoryview(found.data).cast("B")
        for place, number in enumerate(indices.tolist()):
            self._file.read(view[place * size : (place + 1) * size], number * size)
        return {name: np.ascontiguousarray(found[name]) for name in self._fields}

    def blocks(self) -> Iterator[np.ndarray]:
        """All bytes, piece by piece, to be compared with those of a later day."""
        total = self._length * self._dtype.itemsize
        for start in range(0, total, _BLOCK):
            block = np.empty(min(_BLOCK, total - start), np.uint8)
            self._file.read(block.data, start)
            yield block
