r"""A law of sums of lognormals that is above the true one in convex order.

Atoms stand at e^(i h). Every step that rounds moves an atom to its two neighbours on
the grid and keeps the mean; that raises E f for every convex f, and so both privacy
profiles of random allocation (law.py). What lies below the grid is split
between its first point and an atom at zero. What lies above is cut down to its last
point, and the mean that is lost there is counted.
"""

import dataclasses
import math

import numpy as np

from dpkit.accountants.pairs.allocation import lognormal
from dpkit.accountants.pairs.arrays import Array

_PAIRS = 20_000
# About how many pairs of atoms a table adds up in the time of one pass.
_PASS = 600


@dataclasses.dataclass(frozen=True)
class Atoms:
    """Masses at e^(i h), i = start, start + 1, ..."""

    step: float  # h
    start: int  # the first index
    mass: Array  # (n,)
    zero: float  # mass at 0
    lost: float  # E[S] minus the mean of this law, at least 0
    # a bound on the relative error of each mass. All sums are of positive
    # terms, so that errors add up and never cancel digits away.
    rounding: float

    @property
    def log_values(self) -> Array:
        """Where the atoms are, but for the one at zero, as logarithms."""
        return (self.start + np.arange(len(self.mass))) * self.step

    @classmethod
    def single(cls, noise: float, step: float, low: int, high: int) -> "Atoms":
        """One W, on the indices from `low` to `high`."""
        edges = np.arange(low, high) * step
        shares = lognormal.cell_masses(edges, step, noise)
        upward = np.expm1(lognormal.nodes()[0] * step) / math.expm1(step)
        mass = np.zeros(high - low + 1)
        mass[:-1] = shares @ (1 - upward)
        mass[1:] += shares @ upward
        under, mean_under = lognormal.below(low * step, noise)
        kept = mean_under * math.exp(-low * step)
        mass[0] += kept
        over, mean_over = lognormal.above(high * step, noise)
        mass[-1] += over
        lost = max(mean_over - over * math.exp(high * step), 0.0)
        lost += 1e-14 * mean_over
        rounding = lognormal.cell_rounding(low * step, high * step, noise)
        return cls(step, low, mass, max(under - kept, 0.0), lost, rounding)

    def doubled(self, step: float, low: int, high: int) -> "Atoms":
        """The sum of two independent copies, on a grid as fine or twice as fine.

        x_I + x_(I+d) lies at the fine index ratio I + f(d), so one pass over d serves
        all I at once. From some d on, f(d) stays within half a cell above
        ratio (I + d), and running sums over I finish all of those together.
        """
        ratio, mass, size = round(self.step / step), self.mass, len(self.mass)
        out = np.zeros(ratio * (size - 1) + 2)
        near = min(size, _near(step, self.step))
        places, upward = _split(np.arange(near), ratio, self.step, step)
        base = int(places[0])
        twice, ends = 2 * mass, (places - base).tolist()
        for d, share in enumerate(upward.tolist()):
            pairs = (twice if d else mass)[: size - d] * mass[d:]
            up = pairs * share
            pairs -= up
            place, length = ends[d], ratio * (size - d - 1) + 1
            out[place : place + length : ratio] += pairs
            out[place + 1 : place + 1 + length : ratio] += up
        if near < size:
            numbers = np.arange(near, size) - (near - 1)
            down, up = 2 * self._beside(
                self.mass[near:], self.log_values[near:], numbers, step
            )
            first, end = ratio * near - base, ratio * size - base
            out[first:end:ratio] += down
            out[first + 1 : end + 1 : ratio] += up
        alone = ratio * np.arange(size) - base
        zero = self.zero**2 + _lift(out, alone, 2 * self.zero * mass, step)
        first, lost = ratio * self.start + base, 2 * self.lost
        rounding = 2 * self.rounding + sum_rounding(size)
        return Atoms(step, first, out, zero, lost, rounding)._within(low, high)

    def plus(self, other: "Atoms", low: int, high: int) -> "Atoms":
        """The sum with an independent law whose step is a multiple of this one's."""
        mine = self.start + np.arange(len(self.mass))
        ratio = round(other.step / self.step)
        theirs = ratio * (other.start + np.arange(len(other.mass)))
        first, size = sum_range(mine, theirs, self.step)
        out = np.zeros(size)
        near = _near(self.step, self.step)
        if 2 * near * _PASS < len(mine) * len(theirs):
            self._add_in_passes(other, near, out, first)
        else:
            self._add_in_tables(other, mine, theirs, out, first)
        zero = self.zero * other.zero
        zero += _lift(out, mine - first, other.zero * self.mass, self.step)
        zero += _lift(out, theirs - first, self.zero * other.mass, self.step)
        lost = self.lost + other.lost
        longest = max(len(self.mass), len(other.mass))
        rounding = self.rounding + other.rounding + sum_rounding(longest)
        return Atoms(self.step, first, out, zero, lost, rounding)._within(low, high)

    def _add_in_tables(
        self, other: "Atoms", mine: Array, theirs: Array, out: Array, first: int
    ) -> None:
        """Adds the sums of all pairs, which stand at these indices, to `out`."""
        nearest, gaps = gap_range(mine, theirs)
        places, upward = _split(gaps, 1, self.step, self.step)
        for block in blocks(len(theirs), len(mine)):
            gap = np.abs(theirs[block, None] - mine) - nearest
            lower = np.minimum(theirs[block, None], mine) - first
            place = (lower + places[gap]).ravel()
            pairs = other.mass[block, None] * self.mass
            up = pairs * upward[gap]
            out += np.bincount(place, (pairs - up).ravel(), len(out))
            out += np.bincount(place + 1, up.ravel(), len(out))

    def _add_in_passes(self, other: "Atoms", near: int, out: Array, first: int) -> None:
        """The same as in `doubled`: one pass over d, and running sums beyond `near`."""
        ratio = round(other.step / self.step)
        size, count = len(self.mass), len(other.mass)
        places, upward = _split(np.arange(near), 1, self.step, self.step)
        rises, shares = places.tolist(), upward.tolist()
        offset = ratio * other.start - self.start
        for d in range(1 - near, near):
            # Of theirs, those from `begin` to `end` have one of mine d steps above.
            begin = max(0, -((offset + d) // ratio))
            end = min(count, (size - 1 - offset - d) // ratio + 1)
            if begin >= end:
                continue
            meets, length = offset + d + ratio * begin, ratio * (end - begin - 1) + 1
            pairs = other.mass[begin:end] * self.mass[meets : meets + length : ratio]
            up = pairs * shares[abs(d)]
            pairs -= up
            place = self.start + meets - max(d, 0) + rises[abs(d)] - first
            out[place : place + length : ratio] += pairs
            out[place + 1 : place + 1 + length : ratio] += up
        for small, large in ((self, other), (other, self)):
            fine = round(large.step / self.step)
            places = fine * (large.start + np.arange(len(large.mass)))
            below = (places - near) // round(small.step / self.step) - small.start + 1
            far = slice(int(np.count_nonzero(below <= 0)), None)
            numbers = np.minimum(below[far], len(small.mass))
            beside = large.mass[far], large.log_values[far], numbers
            down, up = small._beside(*beside, self.step)
            out[places[far] - first] += down
            out[places[far] - first + 1] += up

    def _beside(
        self, mass: Array, log_values: Array, numbers: Array, step: float
    ) -> Array:
        """What is left at each of some large atoms, and one step higher, by its sums
        with the first so many of these, all small beside it.

        At most half of a sum goes up, so the difference below keeps its digits.
        """
        values = np.exp(self.log_values - self.log_values[-1])
        masses = np.concatenate([[0.0], np.cumsum(self.mass)])[numbers]
        means = np.concatenate([[0.0], np.cumsum(self.mass * values)])[numbers]
        shift = np.exp(self.log_values[-1] - log_values)
        up = means * shift / math.expm1(step)
        return mass * np.array([masses - up, up])

    def _within(self, low: int, high: int) -> "Atoms":
        """The same on the indices from `low` to `high` at most."""
        low, high = max(low, self.start), min(high, self.start + len(self.mass) - 1)
        cut, end = low - self.start, high - self.start
        mass = self.mass[cut : end + 1].copy()
        under, over = self.mass[:cut], self.mass[end + 1 :]
        risen = under * np.exp(np.arange(-cut, 0) * self.step)
        mass[0] += risen.sum()
        mass[-1] += over.sum()
        excess = np.expm1(np.arange(1, len(over) + 1) * self.step)
        lost = math.exp(high * self.step) * float(over @ excess)
        zero = self.zero + float((under - risen).sum())
        # Exact sums are 1. A common factor of rounding, which doubling would square
        # time and again, is taken out.
        total = float(mass.sum()) + zero
        mass, zero, lost = mass / total, zero / total, self.lost + lost
        return Atoms(self.step, low, mass, zero, lost, self.rounding)


def sum_rounding(terms: int) -> float:
    """A bound on the relative error that adding up pairs of atoms makes.

    Each place takes at most two masses from each of `terms`, and some from the ends.
    """
    return lognormal.UNIT * (4 * terms + 64)


def blocks(rows: int, columns: int) -> list[slice]:
    """Slices of the rows of a table, each of which fits in the cache."""
    size = max(1, _PAIRS // columns)
    return [slice(start, start + size) for start in range(0, rows, size)]


def sum_range(mine: Array, theirs: Array, step: float) -> tuple[int, int]:
    """The first index that a sum of two atoms can have, and how many there are."""
    ends = []
    for one, other in ((mine[0], theirs[0]), (mine[-1], theirs[-1])):
        rest = float(offsets(np.abs(one - other), 1, step, step))
        ends.append(int(min(one, other)) + math.floor(rest))
    return ends[0] - 1, ends[1] - ends[0] + 4


def gap_range(mine: Array, theirs: Array) -> tuple[int, Array]:
    """The smallest |i - j| that may occur, and all of them from there on."""
    nearest = max(0, int(theirs[0] - mine[-1]), int(mine[0] - theirs[-1]))
    furthest = max(int(theirs[-1] - mine[0]), int(mine[-1] - theirs[0]))
    return nearest, np.arange(nearest, furthest + 1)


def offsets(gaps: Array, ratio: int, coarse: float, fine: float) -> Array:
    """f(d): log(1 + e^(d h)) in fine steps, for gaps d in coarse ones."""
    return ratio * gaps + _excess(gaps, coarse, fine)


def _excess(gaps: Array, coarse: float, fine: float) -> Array:
    """log(1 + e^(-d h)) in fine steps."""
    return np.log1p(np.exp(-gaps * coarse)) / fine


def _split(gaps: Array, ratio: int, coarse: float, fine: float) -> tuple[Array, Array]:
    """Fine indices below x_0 + x_d, and the shares that go one index higher."""
    excess = _excess(gaps, coarse, fine)
    whole = np.floor(excess)
    upward = np.expm1((excess - whole) * fine) / math.expm1(fine)
    return ratio * gaps + whole.astype(np.int64), np.clip(upward, 0.0, 1.0)


def _lift(out: Array, places: Array, mass: Array, step: float) -> float:
    """Adds atoms, none below `first` but at zero, with their mean; the mass at zero."""
    share = np.exp(np.minimum(places, 0) * step)
    np.add.at(out, np.maximum(places, 0), share * mass)
    return float(((1 - share) * mass).sum())


def _near(fine: float, coarse: float) -> int:
    """The d from which 1 + e^(-d h) is at most half way to e^fine; at least 1."""
    return max(1, math.ceil(-math.log(math.expm1(fine) / 2) / coarse))
