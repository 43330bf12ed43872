"""What noisy tables say together: a table a family, and each column by all of them.

Post-processing of released values. A table of pairs measures its two columns too: its
margin is another reading of them, with the noise of as many cells as were added. All
readings of a column are averaged by their precisions (one over the variance of a cell),
which is weighted least squares over everything measured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from dpkit.synthetic.recipe import Measurement

Columns = tuple[int, ...]


def merged(measurements: Iterable[Measurement]) -> dict[Columns, Measurement]:
    """Measurements of the same columns as one, by inverse variance.

    Example:
      >>> one, other = (Measurement((0,), np.array([x]), 1.0) for x in (2.0, 4.0))
      >>> merged([one, other])[(0,)].values, round(merged([one, other])[(0,)].stddev, 4)
      (array([3.]), 0.7071)
    """
    groups: dict[Columns, list[Measurement]] = {}
    for found in measurements:
        groups.setdefault(found.columns, []).append(found)
    whole = {}
    for columns, found in groups.items():
        weights = np.array([one.precision for one in found])
        values = sum(one.precision * one.values for one in found) / weights.sum()
        stddev = min(one.stddev for one in found) and float(weights.sum() ** -0.5)
        whole[columns] = Measurement(columns, np.asarray(values), stddev)
    return whole


@dataclasses.dataclass(frozen=True, eq=False)
class Estimate:
    """Single columns, and how many records there are.

    Args:
      records: n-hat, at least 1.
      counts: of each column's values; each sums to `records`; signed.
      precisions: of each column's counts.

    Example:
      >>> whole = merged([Measurement((0,), np.array([6.0, 4.0]), 1.0)])
      >>> Estimate.of((2,), whole).shares[0].round(2)
      array([0.6, 0.4])
    """

    records: float
    counts: tuple[np.ndarray, ...]
    precisions: tuple[float, ...]

    @classmethod
    def of(
        cls, sizes: Sequence[int], measured: Mapping[Columns, Measurement]
    ) -> Estimate:
        """Weighted least squares over all measured singles and pairs.

        Args:
          sizes: of the columns.
          measured: by columns; of more than two columns they are left aside.
        """
        known = [m for m in measured.values() if len(m.columns) <= 2]
        sums = np.array([m.values.sum() for m in known])
        trust = np.array([m.precision / m.values.size for m in known])
        records = float((trust * sums).sum() / trust.sum())
        counts, precisions = [], []
        for column, size in enumerate(sizes):
            total, precision = np.zeros(size), 0.0
            for one in known:
                if column not in one.columns:
                    continue
                at = one.columns.index(column)
                rest = tuple(axis for axis in range(one.values.ndim) if axis != at)
                added = one.precision * size / one.values.size  # cells of a margin
                total += added * one.values.sum(axis=rest)
                precision += added
            total /= precision
            counts.append(total + (records - total.sum()) / size)
            precisions.append(precision)
        return cls(records, tuple(counts), tuple(precisions))

    @property
    def shares(self) -> list[np.ndarray]:
        """The nearest distribution of each column."""
        records = max(self.records, 1.0)
        return [on_simplex(count / records) for count in self.counts]


def on_simplex(values: np.ndarray) -> np.ndarray:
    """The nearest point, by L2, whose entries are at least 0 and sum to 1.

    Example:
      >>> on_simplex(np.array([0.6, 0.5, -0.2, 0.05])).round(2)
      array([0.55, 0.45, 0.  , 0.  ])

    Reference: Held, Wolfe, Crowder, "Validation of subgradient optimization", 1974.
    """
    falling = np.sort(values)[::-1]
    excess = (np.cumsum(falling) - 1) / np.arange(1, len(values) + 1)
    last = np.flatnonzero(falling > excess)[-1]
    return np.maximum(values - excess[last], 0.0)
