"""What the search is given, what it finds, and what is refused before it starts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from dpkit.synthetic.engine.families import Family, Marginal, Region, checked_columns


@dataclasses.dataclass(frozen=True, eq=False)
class Target:
    """Shares of rows that a marginal of the table should have.

    Args:
      columns: whose combinations are counted.
      values: shares of all rows, shaped by the columns' sizes (by the numbers of groups
        where `maps` are given). Signed and unclipped is right for noisy ones.
      weight: of the squared differences, at least 0. `math.inf`: met exactly, in whole
        rows; for public totals.
      maps: for each column None, or code -> group; see `Marginal`.

    Example:
      >>> Target((0, 1), np.full((2, 3), 1 / 6)).weight
      1.0
    """

    columns: tuple[int, ...]
    values: np.ndarray
    weight: float = 1.0
    maps: tuple[np.ndarray | None, ...] | None = None

    def family(self, sizes: Sequence[int]) -> Marginal:
        """The statistics that are meant.

        Raises:
          ValueError: columns or maps don't fit the sizes.
        """
        return Marginal(self.columns, tuple(sizes), self.maps)


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """A table, and how far it is from its targets.

    Attributes:
      rows: (N, d) int32 codes.
      loss: sum over targets of weight times squared differences of shares, in float64;
        of targets that had to be met exactly, none.
      sweeps: how many were done; of `evolve`, generations.
    """

    rows: np.ndarray
    loss: float
    sweeps: int


class Impossible(Protocol):
    """Combinations of codes that no row may hold."""

    @property
    def columns(self) -> tuple[int, ...]:
        """Which columns."""
        ...

    @property
    def mask(self) -> np.ndarray:
        """Of the columns' sizes; True: impossible."""
        ...


def checked_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    """Sizes as whole numbers of at least 1."""
    if not len(sizes) or min(sizes) < 1:
        raise ValueError(f"sizes={tuple(sizes)}: needed at least one column, and codes")
    return tuple(int(size) for size in sizes)


def checked_shares(family: Family, shares: np.ndarray, weight: float) -> np.ndarray:
    """Shares of a family's cells, float64; refuses what isn't shaped like them."""
    named = family.categorical if isinstance(family, Region) else family
    if np.shape(shares) != family.shape:
        raise ValueError(
            f"values of columns {named.columns}: shape {np.shape(shares)}, needed "
            f"{family.shape}"
        )
    if not np.isfinite(shares).all():
        raise ValueError(f"values of columns {named.columns}: needed finite shares")
    if not weight >= 0:
        raise ValueError(f"weight={weight}: needed at least 0")
    return np.asarray(shares, np.float64)


def checked_start(start: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    """A copy of the rows as int32, all codes within the sizes."""
    rows = np.asarray(start)
    if rows.ndim != 2 or rows.shape[1] != len(sizes) or not len(rows):
        raise ValueError(f"start: shape {rows.shape}, needed (N >= 1, {len(sizes)})")
    if not np.issubdtype(rows.dtype, np.integer):
        raise TypeError(f"start: needed whole numbers, not {rows.dtype}")
    if (rows < 0).any() or (rows >= np.array(sizes)).any():
        raise ValueError("start: a code is outside its column's size")
    return rows.astype(np.int32)


def checked_frozen(frozen: np.ndarray | None, shape: tuple[int, int]) -> np.ndarray:
    """Which cells may not change, (N, d) bool; for whole columns a view."""
    if frozen is None:
        return np.broadcast_to(False, shape)
    given = np.asarray(frozen)
    if given.dtype != bool or given.shape not in (shape, shape[1:]):
        raise ValueError(
            f"frozen: {given.dtype} of shape {given.shape}, needed bool of shape "
            f"{shape[1:]} or {shape}"
        )
    return np.broadcast_to(given, shape)


def checked_rules(rules: Sequence[Impossible], sizes: tuple[int, ...]) -> None:
    """Refuse masks that don't fit, or leave no row possible."""
    for rule in rules:
        checked_columns(rule.columns, sizes)
        needed = tuple(sizes[column] for column in rule.columns)
        if rule.mask.shape != needed or rule.mask.dtype != bool:
            raise ValueError(
                f"forbidden {rule.columns}: {rule.mask.dtype} of shape "
                f"{rule.mask.shape}, needed bool of shape {needed}"
            )
        if rule.mask.all():
            raise ValueError(f"forbidden {rule.columns}: no combination is left")


def broken(rules: Sequence[Impossible], rows: np.ndarray) -> np.ndarray:
    """(rules, N) bool: which rows hold what no row may hold."""
    found = [rule.mask[tuple(rows[:, c] for c in rule.columns)] for rule in rules]
    return np.array(found, bool).reshape(len(rules), len(rows))
