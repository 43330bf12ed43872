r"""Numbers counted in cells that are fixed before any number is seen.

Without bounds, cells are powers of two: [2^(e-1), 2^e) for e from -60 to 60, the same
below zero, and zero; each is cut into 256. With bounds, 4096 cells lie between them.
Counts of these, of their sixteens and of the sixteens of those are released together,
and tell bounds and quantiles: a coarse count has the noise of one cell, where the sum
of its fine ones has that of all.

Source: Hay, Rastogi, Miklau, Suciu, "Boosting the Accuracy of Differentially Private
Histograms Through Consistency", 2010 (hierarchies); bounds as in Wilson et al.,
"Differentially Private SQL with Bounded User Contribution", 2020, arXiv:1909.01917.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np

_FINE, _MIDDLE = 256, 16  # leaves in a cell of the first level, and of the second
_LEAST, _LARGEST = -60, 60  # exponents
_SPARE = 16  # cells of the first level between declared bounds
FALSE_CELLS = 0.01  # chance that noise alone makes an empty cell seem full


@dataclasses.dataclass(frozen=True)
class Ladder:
    """The cells of a column of numbers.

    Args:
      bounds: public; None: powers of two.
      scale: of the cells between bounds, "linear" or "log1p".
      fine: whether quantiles are asked; else the first level alone is counted.

    Example:
      >>> ladder = Ladder(None)
      >>> cells = ladder.leaves(np.array([18.0, 90.0])) // 256
      >>> ladder.bounds_of(np.bincount(cells, minlength=243), threshold=1)
      (16.0, 128.0)
    """

    bounds: tuple[float, float] | None
    scale: str = "linear"
    fine: bool = False

    @functools.cached_property
    def edges(self) -> np.ndarray:
        """Where leaves begin, and the last one ends."""
        if self.bounds is None:
            exponents = np.arange(_LEAST, _LARGEST + 1)
            binades = np.ldexp(0.5 + np.arange(_FINE) / (2 * _FINE), exponents[:, None])
            above = np.append(binades.ravel(), math.ldexp(1.0, _LARGEST))
            middle = np.linspace(-above[0], above[0], _FINE + 1)
            return np.concatenate([-above[:0:-1], middle, above[1:]])
        low, high = self.bounds
        share = np.linspace(0, 1, _SPARE * _FINE + 1)
        if self.scale == "log1p":
            share = np.expm1(np.log1p(high - low) * share) / (high - low)
        return low * (1 - share) + high * share

    @property
    def divisors(self) -> tuple[int, ...]:
        """How many leaves make a cell, a level, from the coarsest on."""
        return (_FINE, _MIDDLE, 1) if self.fine else (_FINE,)

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many cells each level has."""
        return tuple((len(self.edges) - 1) // divisor for divisor in self.divisors)

    def leaves(self, values: np.ndarray) -> np.ndarray:
        """The leaf of each number, int64; what lies outside is in the outermost."""
        return np.searchsorted(self.edges[1:-1], values, side="right")

    def bounds_of(
        self, counts: np.ndarray, threshold: float
    ) -> tuple[float, float] | None:
        """Between which powers of two there is something; None if nothing is told.

        Args:
          counts: of the first level, noisy.
          threshold: from which on a cell isn't empty.
        """
        told = np.flatnonzero(counts >= threshold)
        if not len(told):
            return None
        low, high = self.edges[_FINE * told[0]], self.edges[_FINE * (told[-1] + 1)]
        tiny = math.ldexp(1.0, _LEAST)
        low, high = (0.0 if abs(end) < tiny else float(end) for end in (low, high))
        return low, high

    def quantiles(
        self, levels: Sequence[np.ndarray], noise: float, bins: int
    ) -> list[float]:
        """Numbers that part the column into about equally full bins, rising.

        What a coarse cell holds is shared among its fine ones as their counts say,
        evenly where noise hides them.

        Args:
          levels: noisy counts, from the coarsest level on.
          noise: the scale of their Laplace noise.
          bins: one more than the numbers that are asked.
        """
        first = levels[0]
        held = np.where(first >= threshold_of(noise, len(first)), first, 0.0)
        for counts in levels[1:]:
            counts = np.where(counts >= 4 * noise, counts, 0.0).reshape(len(held), -1)
            sums = counts.sum(axis=1, keepdims=True)
            even = np.full_like(counts, 1 / counts.shape[1])
            shares = np.divide(counts, sums, out=even, where=sums > 0)
            held = (held[:, None] * shares).ravel()
        full = np.flatnonzero(held)
        if not len(full):
            return []
        ends = np.append(self.edges[full], self.edges[full[-1] + 1])
        sums = np.concatenate([[0.0], np.cumsum(held[full])])
        wanted = np.interp(np.arange(1, bins) / bins * sums[-1], sums, ends)
        return [float(f"{number:.6g}") for number in np.unique(wanted)]


def threshold_of(noise: float, cells: int) -> float:
    """The count above which no empty cell's noise comes, but once in a hundred times.

    Example:
      >>> round(threshold_of(1.0, 243), 3)
      10.098
    """
    return noise * math.log(cells / FALSE_CELLS)
