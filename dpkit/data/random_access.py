"""Rows by number, from arrays or from any source that is too large for memory.

A sampler names the rows of a batch; `as_rows` gives them, whether the records are a
tree of arrays, a data source of TensorFlow Datasets (`tfds.data_source`), or any object
with a length and rows that can be asked for one by one. Only the rows of a batch are
ever read.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np


@runtime_checkable
class Rows(Protocol):
    """Records that can be taken by number.

    Example:
      >>> isinstance(as_rows({"x": np.zeros((3, 2))}), Rows)
      True
    """

    def __len__(self) -> int:
        """How many records there are: private, under add_remove."""
        ...

    @property
    def example(self) -> Any:
        """Shapes and dtypes of one record, as jax.ShapeDtypeStruct; public."""
        ...

    def take(self, indices: np.ndarray) -> Any:
        """The rows of these numbers, stacked on axis 0; zeros if there are none."""
        ...


class ArrayRows:
    """A tree of arrays that agree on axis 0.

    Args:
      records: arrays, or what NumPy reads as such; memory-mapped ones stay on disk.

    Raises:
      ValueError: no leaves, a leaf without axes, or leaves of unequal length.

    Example:
      >>> rows = ArrayRows({"x": np.arange(6).reshape(3, 2)})
      >>> rows.take(np.array([2, 0]))["x"].tolist()
      [[4, 5], [0, 1]]
    """

    def __init__(self, records: Any) -> None:
        self.records = jax.tree.map(np.asanyarray, records)
        shapes = [leaf.shape for leaf in jax.tree.leaves(self.records)]
        lengths = {shape[:1] for shape in shapes}
        if len(lengths) != 1 or () in lengths:
            raise ValueError(
                f"records has leaves of {len(lengths)} different lengths: needed "
                "arrays with one row for each record"
            )
        self._length = shapes[0][0]

    def __len__(self) -> int:
        return self._length

    @property
    def example(self) -> Any:
        """Shapes and dtypes of one record."""
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), self.records
        )

    def take(self, indices: np.ndarray) -> Any:
        """The rows of these numbers, stacked; zeros if there are no records."""
        indices = checked_indices(indices, self._length)
        if self._length == 0:
            return empty_rows(self.example, len(indices))
        return jax.tree.map(lambda leaf: np.take(leaf, indices, 0), self.records)


class SourceRows:
    """An object with `len(source)` and `source[i]`, or `source[[i, j]]` in one go.

    Args:
      source: rows by number. If it has `__getitems__` (as data sources of TensorFlow
        Datasets have), a batch is asked for at once. A row is a tree of numbers and
        arrays of the same shapes and dtypes in every row.
      keep: the keys that are kept of rows that are dicts; None keeps all.

    Raises:
      TypeError: no length, or no rows by number.
      ValueError: no rows at all, so that their shape is unknown; a key that is missing;
        on `take`, a row of another shape.

    Example:
      >>> rows = SourceRows([{"x": [1.0, 2.0], "id": 7}, {"x": [3.0, 4.0], "id": 8}])
      >>> rows.take(np.array([1, 1, 0]))["id"].tolist()
      [8, 8, 7]
    """

    def __init__(self, source: Any, *, keep: Sequence[str] | None = None) -> None:
        if not (hasattr(source, "__len__") and hasattr(source, "__getitem__")):
            raise TypeError(
                f"source={type(source).__name__}: needed len(source) and source[i]; "
                "an iterator can't be sampled from"
            )
        self._source, self._keep = source, None if keep is None else tuple(keep)
        self._length = operator.index(len(source))
        if self._length == 0:
            raise ValueError("source is empty, so nobody knows the shape of its rows")
        self._example = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), self._row(0)
        )

    def __len__(self) -> int:
        return self._length

    @property
    def example(self) -> Any:
        """Shapes and dtypes of one record, as its first row has them."""
        return self._example

    def take(self, indices: np.ndarray) -> Any:
        """The rows of these numbers, stacked; each is read once."""
        indices = checked_indices(indices, self._length)
        if len(indices) == 0:
            return empty_rows(self.example, 0)
        # Padding points at one row again and again.
        unique, places = np.unique(indices, return_inverse=True)
        rows = self._rows(unique.tolist())
        for row in rows:
            self._check(row)
        return jax.tree.map(lambda *leaves: np.stack(leaves)[places], *rows)

    def _rows(self, numbers: list[int]) -> list[Any]:
        """Several rows, in one request where the source takes one."""
        if hasattr(self._source, "__getitems__"):
            return [self._clean(row) for row in self._source.__getitems__(numbers)]
        return [self._row(number) for number in numbers]

    def _row(self, number: int) -> Any:
        """One row as arrays."""
        return self._clean(self._source[number])

    def _clean(self, row: Any) -> Any:
        """What is kept of a row, as arrays."""
        if self._keep is not None:
            missing = [key for key in self._keep if key not in row]
            if missing:
                raise ValueError(f"keep={missing[0]!r}: the rows have {sorted(row)}")
            row = {key: row[key] for key in self._keep}
        # A list of numbers is an array here, not a tree.
        return jax.tree.map(np.asarray, row, is_leaf=lambda x: isinstance(x, list))

    def _check(self, row: Any) -> None:
        """Refuses a row that can't be stacked with the first; tells no values."""
        same = jax.tree.structure(row) == jax.tree.structure(self._example)
        pairs = zip(jax.tree.leaves(row), jax.tree.leaves(self._example), strict=False)
        if not same or any((a.shape, a.dtype) != (b.shape, b.dtype) for a, b in pairs):
            raise ValueError(
                "a row of the source has another structure, shape or dtype than its "
                "first one: make all rows alike, padded to one shape"
            )


def as_rows(records: Any) -> Rows:
    """Records as rows by number, whatever they are.

    Args:
      records: `Rows` already; a tree (dict, tuple, list, array) of arrays; or an object
        with a length and rows by number.

    Returns:
      `Rows`; of arrays the same rows as `np.take` on every leaf.

    Raises:
      TypeError: a list of trees, which says nothing of what is a row.
      TypeError, ValueError: as `ArrayRows` and `SourceRows`.

    Example:
      >>> len(as_rows((np.zeros((4, 2)), np.arange(4))))
      4
    """
    if isinstance(records, Rows):
        return records
    if isinstance(records, list) and any(
        isinstance(part, dict | list | tuple) for part in records
    ):
        raise TypeError(
            "records is a list of trees, which may be rows or columns: give "
            "SourceRows(records) for rows, or a dict or tuple of arrays for columns"
        )
    if hasattr(records, "__next__"):
        return SourceRows(records)  # which refuses it
    leaves = jax.tree.leaves(records)
    arrays = all(hasattr(leaf, "shape") and hasattr(leaf, "dtype") for leaf in leaves)
    return ArrayRows(records) if arrays and leaves else SourceRows(records)


def checked_indices(indices: Any, length: int) -> np.ndarray:
    """Indices from 0 to length - 1, one axis; zeros are padding where length is 0.

    Raises:
      TypeError: no integers.
      ValueError: another number of axes, or an index out of range.

    Example:
      >>> checked_indices([2, 0], 3)
      array([2, 0])
    """
    found = np.asarray(indices)
    if not np.issubdtype(found.dtype, np.integer):
        raise TypeError(f"indices={found.dtype}: needed integers")
    if found.ndim != 1:
        raise ValueError(f"indices has shape {found.shape}: needed one axis")
    # NumPy would count negative ones from the end: another record, without a word.
    if found.size and not 0 <= found.min() <= found.max() < max(length, 1):
        raise ValueError("indices: one is out of range; draw from as many rows as are")
    return found


def empty_rows(example: Any, count: int) -> Any:
    """Rows of zeros in the shape of an example.

    Example:
      >>> empty_rows({"x": jax.ShapeDtypeStruct((2,), np.float32)}, 3)["x"].shape
      (3, 2)
    """
    return jax.tree.map(
        lambda leaf: np.zeros((count, *leaf.shape), leaf.dtype), example
    )
