r"""Where every statistic stands in memory, and the slice that a column's changes touch.

Residuals r = c - N t of all families (counts less targets, in rows, so that a change is
a whole number and float32 adds it without error) lie one after another, a family a
C-ordered block. A change of column j touches the families that hold it. For these the
block is turned so that j's codes come last: a slice (rows, width), each row one
combination of a family's other columns. Whole rows of it are added up for all codes of
j at once, and memory is read in order. Every slice has the same shape where that costs
little, so one compiled program serves all columns.

A *view* is a column seen through a map to coarser codes; the first d views are the
columns themselves. Rows are kept as the codes of all views.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import numpy as np

from dpkit.synthetic.engine.families import Family, Marginal, Region

BIG = np.float32(1e30)  # the price of what is impossible: added to it, counts vanish
_ONE_SHAPE = 2**22  # entries of a slice up to which all columns share one shape


class Slice(NamedTuple):
    """What a column's program reads. V views, M families a view, k columns beside it.

    Attributes:
      column: the view that is the column itself, and its size.
      views: (V,) which views change with it; maps: (V, width) code -> group.
      counts: (V,) families of each view; weights, live, starts: (V, M); live: 1 where
        counts change, 0 where the family is only a price.
      others, strides: (V, M, k) views that with their strides give a slice's row.
      base, step, limit: (rows,) where a slice's row stands: at base + step * code.
    """

    column: np.ndarray
    size: np.ndarray
    views: np.ndarray
    maps: np.ndarray
    counts: np.ndarray
    weights: np.ndarray
    live: np.ndarray
    starts: np.ndarray
    others: np.ndarray
    strides: np.ndarray
    base: np.ndarray
    step: np.ndarray
    limit: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """Families in a row, with their weights; `live` is False where one is a price."""

    sizes: tuple[int, ...]
    counted: tuple[Family, ...]
    weights: tuple[float, ...]
    live: tuple[bool, ...]

    @functools.cached_property
    def families(self) -> list[Marginal]:
        """The marginal in each family: of a region, that of its cells."""
        return [
            one.categorical if isinstance(one, Region) else one for one in self.counted
        ]

    @functools.cached_property
    def shapes(self) -> list[tuple[int, ...]]:
        """Cells of each family."""
        return [family.shape for family in self.families]

    @functools.cached_property
    def offsets(self) -> np.ndarray:
        """Where families begin, and where the last one ends, (M + 1,)."""
        return np.cumsum([0, *(int(np.prod(shape)) for shape in self.shapes)])

    @property
    def length(self) -> int:
        """Of all residuals with padding; its last cell counts for nothing."""
        return room(int(self.offsets[-1]) + 1, 2**14)

    @functools.cached_property
    def _views(self) -> dict[tuple[int, bytes], int]:
        """The number of each map of a column; columns themselves come first."""
        found = {(column, b""): column for column in range(len(self.sizes))}
        for family in self.families:
            for column, chosen in family.mapped():
                key = (column, b"" if chosen is None else _bytes(chosen))
                found.setdefault(key, len(found))
        return found

    @functools.cached_property
    def view_maps(self) -> list[tuple[int, np.ndarray]]:
        """The column and the map of every view."""
        return [
            (column, np.frombuffer(key, np.int32) if key else np.arange(size))
            for column, key in self._views
            for size in [self.sizes[column]]
        ]

    def view_of(self, column: int, chosen: np.ndarray | None) -> int:
        """The number of a view."""
        return self._views[column, b"" if chosen is None else _bytes(chosen)]

    def viewed(self, rows: np.ndarray) -> np.ndarray:
        """Rows as codes of all views, (N, views) int32."""
        found = np.empty((len(rows), len(self.view_maps)), np.int32)
        for number, (column, chosen) in enumerate(self.view_maps):
            found[:, number] = chosen[rows[:, column]]
        return found

    def touching(self, column: int) -> dict[int, list[tuple[int, int]]]:
        """By view of a column: the families that hold it, and at which place."""
        found: dict[int, list[tuple[int, int]]] = {column: []}
        for number, family in enumerate(self.families):
            for place, (one, chosen) in enumerate(family.mapped()):
                if one == column:
                    view = self.view_of(one, chosen)
                    found.setdefault(view, []).append((number, place))
        return found

    @functools.cached_property
    def _touching(self) -> list[dict[int, list[tuple[int, int]]]]:
        """`touching` of all columns."""
        return [self.touching(column) for column in range(len(self.sizes))]

    @functools.cached_property
    def slice_rows(self) -> list[int]:
        """Rows of each column's slice, without padding."""
        return [
            sum(
                int(np.prod(self.shapes[number])) // self.shapes[number][place]
                for places in touched.values()
                for number, place in places
            )
            for touched in self._touching
        ]

    def slice_shape(self, column: int) -> tuple[int, int]:
        """(rows, width) with padding: one for all columns, or its own if it is big."""
        most = max(self.slice_rows), max(self.sizes)
        if most[0] * most[1] <= _ONE_SHAPE:
            return room(most[0], 2**10), most[1]
        return room(self.slice_rows[column]), room(self.sizes[column])

    def slice(self, column: int) -> Slice:
        """The tables of a column."""
        touched, (rows, width) = self._touching[column], self.slice_shape(column)
        views = max(len(one) for one in self._touching)
        most = max(len(places) for one in self._touching for places in one.values())
        beside = max([2, *(len(family.columns) for family in self.families)]) - 1
        table = (views, room(most))
        found = Slice(
            np.array(column, np.int32),
            np.array(self.sizes[column], np.int32),
            np.full(views, column, np.int32),
            np.tile(np.arange(width, dtype=np.int32), (views, 1)),
            np.zeros(views, np.int32),
            np.zeros(table, np.float32),
            np.zeros(table, np.float32),
            np.zeros(table, np.int32),
            np.zeros((*table, beside), np.int32),
            np.zeros((*table, beside), np.int32),
            *(np.zeros(rows, np.int32) for _ in range(3)),
        )
        start = 0
        for v, (view, places) in enumerate(touched.items()):
            chosen = self.view_maps[view][1]
            found.views[v], found.counts[v] = view, len(places)
            found.maps[v, : len(chosen)] = chosen
            for slot, (number, place) in enumerate(places):
                found.starts[v, slot] = start
                start = self._fill(found, (v, slot), number, place, start)
        return found

    def _fill(
        self, found: Slice, at: tuple[int, int], number: int, place: int, start: int
    ) -> int:
        """Enter one family into a slice's tables; where the next one begins."""
        shape = self.shapes[number]
        after = int(np.prod(shape[place + 1 :]))
        rest = shape[:place] + shape[place + 1 :]
        found.weights[at], found.live[at] = self.weights[number], self.live[number]
        beside = [pair for n, pair in enumerate(self.families[number].mapped())]
        del beside[place]
        for n, pair in enumerate(beside):
            found.others[at][n] = self.view_of(*pair)
            found.strides[at][n] = np.prod(rest[n + 1 :])
        before = np.arange(int(np.prod(shape[:place])))[:, None] * after * shape[place]
        end = start + len(before) * after
        found.base[start:end] = self.offsets[number] + (
            before + np.arange(after)
        ).reshape(-1)
        found.step[start:end], found.limit[start:end] = after, shape[place]
        return end

    def counts(self, rows: np.ndarray) -> np.ndarray:
        """How many rows fall into each cell, (length,) float64; of prices none."""
        found = np.zeros(self.length)
        for n, family in enumerate(self.counted):
            if self.live[n]:
                begin, end = self.offsets[n : n + 2]
                cells = family.cells(rows)
                found[begin:end] = np.bincount(cells[cells >= 0], minlength=end - begin)
        return found

    def loss(self, residuals: np.ndarray, rows: int) -> float:
        """F of residuals (in rows), in shares squared, float64."""
        total = 0.0
        for n, weight in enumerate(self.weights):
            if self.live[n]:
                part = residuals[self.offsets[n] : self.offsets[n + 1]]
                total += weight * float(np.square(part, dtype=np.float64).sum())
        return total / rows**2


def _bytes(chosen: np.ndarray) -> bytes:
    """A map as a key."""
    return np.asarray(chosen, np.int32).tobytes()


def room(count: int, least: int = 16) -> int:
    """At least `count`: few different ones, so that programs are seldom compiled anew.

    A power of two; of large numbers the next eighth of one.
    """
    step = 1 << max(0, count.bit_length() - 4) if count > 2**20 else 1
    up = 1 << (count - 1).bit_length() if count > 1 else 1
    return max(least, -(-count // step) * step if step > 1 else up)
