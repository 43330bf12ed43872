r"""Statistics of a table: families of cells, of which a row falls into one, or none.

Private rows are counted by `cells` in chunks (`np.bincount` of what isn't -1), so what
is measured and what the search matches is the same by construction.

Sensitivity of the counts of one family, in L2: a row lights at most one cell, so 1
under add_remove; a replaced row moves one unit between two cells, sqrt(2). In L1: 1
and 2. Of k families stacked: sqrt(k), sqrt(2 k); k, 2 k. Thresholds and directions must
not come from the private rows.

Source of prefixes and half-spaces: Liu, Tang, Vietri, Wu, "Generating Private Synthetic
Data with Genetic Algorithms", 2023, arXiv:2306.03257; the counts of coarser codes are
the levels of a tree of ranges.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np


class Family(Protocol):
    """Statistics that one row can move by one unit in one cell."""

    @property
    def shape(self) -> tuple[int, ...]:
        """How many cells there are along each axis."""
        ...

    def cells(self, rows: np.ndarray) -> np.ndarray:
        """The cell of each row (n, d), (n,) int64; -1: in none."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Marginal:
    """Counts of the combinations of some columns, maybe of coarser codes.

    Args:
      columns: which, in increasing or any other order; none twice.
      sizes: of all columns of the table.
      maps: for each of `columns`, None or an int array (size,), code -> group, groups
        from 0 on: a level of a tree, a range of bins.

    Raises:
      ValueError: columns or maps that don't fit the sizes.

    Example:
      >>> halves = Marginal((0, 1), (4, 2), (np.array([0, 0, 1, 1]), None))
      >>> halves.shape, halves.cells(np.array([[3, 0], [1, 1]]))
      ((2, 2), array([2, 1]))
    """

    columns: tuple[int, ...]
    sizes: tuple[int, ...]
    maps: tuple[np.ndarray | None, ...] | None = None

    def __post_init__(self) -> None:
        """Refuses what doesn't fit together."""
        checked_columns(self.columns, self.sizes)
        if self.maps is not None and len(self.maps) != len(self.columns):
            raise ValueError(f"maps: needed one a column, {len(self.columns)}")
        for column, chosen in zip(self.columns, self.maps or (), strict=False):
            if chosen is not None and (
                chosen.shape != (self.sizes[column],)
                or not np.issubdtype(chosen.dtype, np.integer)
                or chosen.min() < 0
            ):
                raise ValueError(
                    f"maps: needed {self.sizes[column]} integers from 0 on for column "
                    f"{column}"
                )

    @property
    def shape(self) -> tuple[int, ...]:
        """Groups of each column."""
        return tuple(
            self.sizes[column] if chosen is None else int(chosen.max()) + 1
            for column, chosen in self.mapped()
        )

    def mapped(self) -> Sequence[tuple[int, np.ndarray | None]]:
        """Each column with its map."""
        maps = self.maps or (None,) * len(self.columns)
        return list(zip(self.columns, maps, strict=True))

    def cells(self, rows: np.ndarray) -> np.ndarray:
        """The cell of each row (n, d), (n,) int64."""
        found = np.zeros(len(rows), np.int64)
        for (column, chosen), size in zip(self.mapped(), self.shape, strict=True):
            codes = rows[:, column] if chosen is None else chosen[rows[:, column]]
            found = found * size + codes
        return found


@dataclasses.dataclass(frozen=True, eq=False)
class Prefix:
    """Rows below a threshold in each of some numeric columns, by other columns' codes.

    Args:
      columns: numeric ones.
      thresholds: (len(columns),); a row counts if every value is below its own.
      values: for each of `columns`, code -> value, (size,), scaled to [0, 1]: the
        middles of public bins.
      categorical: whose columns' combinations are the cells.

    Raises:
      ValueError: what doesn't fit together.

    Example:
      >>> middles = (np.arange(4) + 0.5) / 4
      >>> low = Prefix((0,), np.array([0.5]), (middles,), Marginal((1,), (4, 2)))
      >>> low.cells(np.array([[0, 1], [2, 1]]))
      array([ 1, -1])
    """

    columns: tuple[int, ...]
    thresholds: np.ndarray
    values: tuple[np.ndarray, ...]
    categorical: Marginal

    def __post_init__(self) -> None:
        """Refuses what doesn't fit together."""
        _check_values(self.columns, self.values, self.categorical)
        _check_numbers("thresholds", self.thresholds, len(self.columns))

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the categorical marginal."""
        return self.categorical.shape

    def cells(self, rows: np.ndarray) -> np.ndarray:
        """The cell of each row (n, d), (n,) int64; -1 above a threshold."""
        inside = (_numbers(rows, self) < self.thresholds).all(axis=1)
        return np.where(inside, self.categorical.cells(rows), -1)


@dataclasses.dataclass(frozen=True, eq=False)
class HalfSpace:
    """Rows on one side of a plane through numeric columns, by other columns' codes.

    Args:
      columns: numeric ones.
      direction: w, (len(columns),).
      offset: b; a row counts if w.x > b.
      values: as of `Prefix`.
      categorical: whose columns' combinations are the cells.

    Raises:
      ValueError: what doesn't fit together.

    Example:
      >>> middles = (np.arange(4) + 0.5) / 4
      >>> high = HalfSpace((0,), np.ones(1), 0.5, (middles,), Marginal((1,), (4, 2)))
      >>> high.cells(np.array([[0, 1], [2, 1]]))
      array([-1,  1])
    """

    columns: tuple[int, ...]
    direction: np.ndarray
    offset: float
    values: tuple[np.ndarray, ...]
    categorical: Marginal

    def __post_init__(self) -> None:
        """Refuses what doesn't fit together."""
        _check_values(self.columns, self.values, self.categorical)
        _check_numbers("direction", self.direction, len(self.columns))
        _check_numbers("offset", np.array([self.offset]), 1)

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the categorical marginal."""
        return self.categorical.shape

    def cells(self, rows: np.ndarray) -> np.ndarray:
        """The cell of each row (n, d), (n,) int64; -1 on the other side."""
        # Not a product of matrices: a row's answer must not hang on rows beside it.
        inside = (_numbers(rows, self) * self.direction).sum(axis=1) > self.offset
        return np.where(inside, self.categorical.cells(rows), -1)


def checked_columns(columns: tuple[int, ...], sizes: Sequence[int]) -> None:
    """Refuse columns that aren't there, or are there twice."""
    if not columns or len(set(columns)) < len(columns):
        raise ValueError(f"columns={columns}: needed at least one, and none twice")
    if min(columns) < 0 or max(columns) >= len(sizes):
        raise ValueError(
            f"columns={columns}: needed numbers from 0 to {len(sizes) - 1}"
        )


def _numbers(rows: np.ndarray, family: Prefix | HalfSpace) -> np.ndarray:
    """The values of the numeric columns, (n, len(columns))."""
    pairs = zip(family.columns, family.values, strict=True)
    return np.stack([values[rows[:, column]] for column, values in pairs], axis=1)


def _check_values(
    columns: tuple[int, ...], values: tuple[np.ndarray, ...], categorical: Marginal
) -> None:
    """Refuse values of codes that don't fit the columns."""
    checked_columns(columns, categorical.sizes)
    needed = [(categorical.sizes[column],) for column in columns]
    if [np.shape(one) for one in values] != needed:
        raise ValueError(f"values: needed arrays of shapes {needed}")
    for one in values:
        _check_numbers("values", one, len(one))


def _check_numbers(name: str, given: np.ndarray, length: int) -> None:
    """Refuse anything but so many finite numbers."""
    if np.shape(given) != (length,) or not np.isfinite(given).all():
        raise ValueError(f"{name}: needed {length} finite numbers")
