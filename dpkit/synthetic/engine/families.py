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

import abc
import dataclasses
from collections.abc import Sequence

import numpy as np


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
class Region(abc.ABC):
    """Rows whose numeric columns lie in a region, by other columns' codes.

    A row is inside if the sum of whole scores of its codes is above a bound: whole, so
    that a row's answer is the same wherever and beside whatever it is counted.

    Args:
      columns: numeric ones.
      values: for each of them, code -> value, (size,), scaled to [0, 1]: the middles of
        public bins.
      categorical: whose columns' combinations are the cells.

    Raises:
      ValueError: what doesn't fit together.
    """

    columns: tuple[int, ...]
    values: tuple[np.ndarray, ...]
    categorical: Marginal

    def __post_init__(self) -> None:
        """Refuses what doesn't fit together."""
        checked_columns(self.columns, self.categorical.sizes)
        needed = [(self.categorical.sizes[column],) for column in self.columns]
        if [np.shape(one) for one in self.values] != needed:
            raise ValueError(f"values: needed arrays of shapes {needed}")
        for one in self.values:
            _check_numbers("values", one, len(one))

    @property
    @abc.abstractmethod
    def bound(self) -> int:
        """What the sum of scores must be above."""

    @abc.abstractmethod
    def scores(self) -> list[np.ndarray]:
        """For each of `columns`, code -> score, (size,) int32."""

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the categorical marginal."""
        return self.categorical.shape

    def cells(self, rows: np.ndarray) -> np.ndarray:
        """The cell of each row (n, d), (n,) int64; -1: outside."""
        pairs = zip(self.columns, self.scores(), strict=True)
        total = sum(scores[rows[:, column]] for column, scores in pairs)
        return np.where(total > self.bound, self.categorical.cells(rows), -1)


@dataclasses.dataclass(frozen=True, eq=False)
class Prefix(Region):
    """Rows below a threshold in each of some numeric columns, by other columns' codes.

    Args:
      columns, values, categorical: see `Region`.
      thresholds: (len(columns),); a row is inside if every value is below its own.

    Raises:
      ValueError: what doesn't fit together.

    Example:
      >>> middles = (np.arange(4) + 0.5) / 4
      >>> low = Prefix((0,), (middles,), Marginal((1,), (4, 2)), np.array([0.5]))
      >>> low.cells(np.array([[0, 1], [2, 1]]))
      array([ 1, -1])
    """

    thresholds: np.ndarray

    def __post_init__(self) -> None:
        """Refuses what doesn't fit together."""
        super().__post_init__()
        _check_numbers("thresholds", self.thresholds, len(self.columns))

    @property
    def bound(self) -> int:
        """One value that isn't below makes it -1."""
        return -1

    def scores(self) -> list[np.ndarray]:
        """-1 where a value isn't below its threshold."""
        pairs = zip(self.values, self.thresholds, strict=True)
        return [-(values >= limit).astype(np.int32) for values, limit in pairs]


@dataclasses.dataclass(frozen=True, eq=False)
class HalfSpace(Region):
    """Rows on one side of a plane through numeric columns, by other columns' codes.

    Args:
      columns, values, categorical: see `Region`.
      direction: w, (len(columns),).
      offset: b; a row is inside if w.x > b, with products in steps of 2^-20.

    Raises:
      ValueError: what doesn't fit together; products of 1,000 and more.

    Example:
      >>> middles = (np.arange(4) + 0.5) / 4
      >>> high = HalfSpace((0,), (middles,), Marginal((1,), (4, 2)), np.ones(1), 0.5)
      >>> high.cells(np.array([[0, 1], [2, 1]]))
      array([-1,  1])
    """

    direction: np.ndarray
    offset: float

    def __post_init__(self) -> None:
        """Refuses what doesn't fit together."""
        super().__post_init__()
        _check_numbers("direction", self.direction, len(self.columns))
        _check_numbers("offset", np.array([self.offset]), 1)
        pairs = zip(self.values, self.direction, strict=True)
        reach = sum(float(np.abs(values * w).max()) for values, w in pairs)
        if max(reach, abs(self.offset)) >= 1000:
            raise ValueError(
                f"direction, offset={self.offset}: products reach {reach:.3g}, needed "
                "below 1000; scale values to [0, 1]"
            )

    @property
    def bound(self) -> int:
        """b in steps."""
        return round(self.offset * 2**20)

    def scores(self) -> list[np.ndarray]:
        """w x in steps."""
        pairs = zip(self.values, self.direction, strict=True)
        return [np.rint(values * w * 2**20).astype(np.int32) for values, w in pairs]


Family = Marginal | Region


def checked_columns(columns: tuple[int, ...], sizes: Sequence[int]) -> None:
    """Refuse columns that aren't there, or are there twice."""
    if not columns or len(set(columns)) < len(columns):
        raise ValueError(f"columns={columns}: needed at least one, and none twice")
    if min(columns) < 0 or max(columns) >= len(sizes):
        raise ValueError(
            f"columns={columns}: needed numbers from 0 to {len(sizes) - 1}"
        )


def _check_numbers(name: str, given: np.ndarray, length: int) -> None:
    """Refuse anything but so many finite numbers."""
    if np.shape(given) != (length,) or not np.isfinite(given).all():
        raise ValueError(f"{name}: needed {length} finite numbers")
