r"""A law of sums of lognormals that is below the true one in convex order.

Outcomes are merged into cells, of which only the mass and the mean are kept; that
lowers E f for every convex f, and so both privacy profiles of random allocation. Which
outcomes share a cell is a matter of sharpness alone: here, those that are near e^(i h).
"""

import dataclasses
import math

import numpy as np

from dpkit.accountants.pairs.allocation import atoms, lognormal
from dpkit.accountants.pairs.arrays import Array


@dataclasses.dataclass(frozen=True)
class Cells:
    """Masses and first moments of cells around e^(i h), i = start, start + 1, ..."""

    step: float  # h
    start: int  # the first index
    mass: Array  # (n,)
    moment: Array  # E[S; S in the cell], (n,)
    rounding: float  # a bound on the relative error of each mass and moment

    @classmethod
    def single(cls, noise: float, step: float, low: int, high: int) -> "Cells":
        """One W, on the indices from `low` to `high`."""
        edges = (np.arange(low, high + 1) - 0.5) * step
        shares = lognormal.cell_masses(edges, step, noise)
        values = np.exp(edges[:, None] + step * lognormal.nodes()[0])
        mass, moment = shares.sum(axis=1), (shares * values).sum(axis=1)
        under = lognormal.below((low - 0.5) * step, noise)
        over = lognormal.above((high + 0.5) * step, noise)
        for end, (more, more_moment) in ((0, under), (-1, over)):
            mass[end] += more
            moment[end] += more_moment
        rounding = lognormal.cell_rounding(low * step, high * step, noise)
        return cls(step, low, mass, moment, rounding)

    def doubled(self, step: float, low: int, high: int) -> "Cells":
        """The sum of two independent copies, on a grid as fine or twice as fine."""
        ratio, size = round(self.step / step), len(self.mass)
        out = np.zeros((2, ratio * (size - 1) + 2))
        near = min(size, max(1, math.ceil(-math.log(math.expm1(step / 2)) / self.step)))
        places = np.rint(atoms.offsets(np.arange(near), ratio, self.step, step))
        base = int(places[0])
        for d in range(near):
            lower, higher = slice(size - d), slice(d, size)
            pairs = self.mass[lower] * self.mass[higher]
            moments = self.moment[lower] * self.mass[higher]
            moments += self.mass[lower] * self.moment[higher]
            place, length = int(places[d]) - base, ratio * (size - d - 1) + 1
            times = 2 if d else 1
            out[0, place : place + length : ratio] += times * pairs
            out[1, place : place + length : ratio] += times * moments
        if near < size:
            masses, moments = np.cumsum(self.mass), np.cumsum(self.moment)
            masses, moments = masses[:-near], moments[:-near]
            far = slice(ratio * near - base, ratio * size - base, ratio)
            mass, moment = 2 * self.mass[near:], 2 * self.moment[near:]
            out[0, far] += mass * masses
            out[1, far] += mass * moments + moment * masses
        rounding = 2 * self.rounding + atoms.sum_rounding(2 * size)
        law = Cells(step, ratio * self.start + base, out[0], out[1], rounding)
        return law._within(low, high)

    def plus(self, other: "Cells", low: int, high: int) -> "Cells":
        """The sum with an independent law whose step is a multiple of this one's."""
        ratio = round(other.step / self.step)
        mine = self.start + np.arange(len(self.mass))
        theirs = ratio * (other.start + np.arange(len(other.mass)))
        first, size = atoms.sum_range(mine, theirs, self.step)
        out = np.zeros((2, size))
        nearest, gaps = atoms.gap_range(mine, theirs)
        places = np.rint(atoms.offsets(gaps, 1, self.step, self.step)).astype(np.int64)
        for block in atoms.blocks(len(theirs), len(mine)):
            lower = np.minimum(theirs[block, None], mine) - first
            gap = np.abs(theirs[block, None] - mine) - nearest
            place = (lower + places[gap]).ravel()
            mass, moment = other.mass[block, None], other.moment[block, None]
            moments = (moment * self.mass + mass * self.moment).ravel()
            out[0] += np.bincount(place, (mass * self.mass).ravel(), size)
            out[1] += np.bincount(place, moments, size)
        rounding = (
            self.rounding + other.rounding + atoms.sum_rounding(2 * len(other.mass))
        )
        law = Cells(self.step, first, out[0], out[1], rounding)
        return law._within(low, high)

    def _within(self, low: int, high: int) -> "Cells":
        """The same on the indices from `low` to `high` at most: ends are merged."""
        low, high = max(low, self.start), min(high, self.start + len(self.mass) - 1)
        cut, end = low - self.start, high - self.start
        kept = []
        for values in (self.mass, self.moment):
            inner = values[cut : end + 1].copy()
            inner[0] += values[:cut].sum()
            inner[-1] += values[end + 1 :].sum()
            kept.append(inner)
        total = float(kept[0].sum())  # 1 but for rounding, as in `Atoms`
        mass, moment = (values / total for values in kept)
        return Cells(self.step, low, mass, moment, self.rounding)
