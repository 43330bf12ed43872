"""The loss of many releases: sums of independent losses, one FFT for each kind.

The window that is kept is chosen by Chernoff bounds on both sides; what lies above it
has at most the mass that the caller calls negligible, and counts as infinite loss.
Rounding of the transforms is absolute, about 1e-16 for each composed release, so
answers carry an allowance for it and mean nothing for much smaller delta.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, signal

from dpkit.accountants.loss_grid import Losses

Array = NDArray[Any]

_UNIT = 2.0**-53
_TILTS = np.geomspace(0.3, 60.0, 16)
_BLOCKS = 2048
_MARGIN = 4


@dataclasses.dataclass(frozen=True)
class ComposedLoss:
    """A loss distribution on the grid (first + k) step, with mass at infinity.

    Attributes:
      first: grid index of the first mass.
      masses: one for each grid point; rounding may leave tiny negative ones.
      infinite: mass at infinite loss, with what was cut off.
      step: the distance of grid points.
      compositions: how many releases went in, for the rounding allowance.
    """

    first: int
    masses: Array
    infinite: float
    step: float
    compositions: int

    @property
    def allowance(self) -> float:
        """What rounding may hide in a delta."""
        return 4 * _UNIT * self.compositions + 1e-15

    @functools.cached_property
    def _above(self) -> tuple[Array, Array]:
        """Sums over i >= k of p_i and of p_i e^(-(i - k) h), for each k."""
        flipped = self.masses[::-1]
        decay = math.exp(-self.step)
        sums = np.cumsum(flipped)[::-1]
        weighted = signal.lfilter([1.0], [1.0, -decay], flipped)[::-1]
        return sums, np.asarray(weighted)

    def delta(self, epsilon: Array) -> Array:
        """delta at each epsilon, without the allowance."""
        sums, weighted = (np.append(values, 0.0) for values in self._above)
        place = np.ceil(epsilon / self.step - self.first).clip(0, len(self.masses))
        at = place.astype(int)
        gap = np.minimum(epsilon - (at + self.first) * self.step, 0.0)
        gap = np.where(at < len(self.masses), gap, 0.0)
        finite = sums[at] - np.exp(gap) * weighted[at]
        return np.clip(self.infinite + finite, 0.0, 1.0)

    def epsilon(self, delta: float) -> float:
        """The smallest epsilon >= 0 whose delta fits, allowance included."""
        target = delta - self.allowance
        if self.infinite >= target:
            return math.inf
        if self.delta(np.zeros(1))[0] <= target:
            return 0.0
        sums, weighted = self._above
        too_much = np.flatnonzero(self.infinite + sums - weighted > target)
        last = int(too_much[-1]) if len(too_much) else -1
        cell = min(last + 1, len(sums) - 1)
        high = (self.first + cell) * self.step
        if weighted[cell] <= 0:
            return max(0.0, high)
        share = (self.infinite + sums[cell] - target) / weighted[cell]
        inside = high + math.log(share) if share > 0 else high - self.step
        value = min(max(inside, high - self.step), high)
        return max(0.0, value + 1e-12 * abs(value))


@dataclasses.dataclass(frozen=True)
class Window:
    """The grid indices that are kept of a composition."""

    first: int
    last: int

    @property
    def width(self) -> int:
        """How many grid points."""
        return self.last - self.first + 1


def window(
    terms: Sequence[tuple[Losses, int]], negligible: float, widest: float = 0.0
) -> Window:
    """Where all but a negligible part of the composed mass lies, on each side.

    `widest` is the spread of a longer composition whose window this one has to fit in.
    """
    mean = math.fsum(count * losses.mean for losses, count in terms)
    own = spread(terms)
    low = sum(count * losses.first for losses, count in terms)
    high = sum(count * losses.last for losses, count in terms)
    if any(losses.masses.sum() == 0 for losses, _ in terms):
        return Window(low, low)
    tilts = _TILTS / own
    if widest > own:
        tilts = np.concatenate([tilts, _TILTS / widest])
    log_tail = -math.log(negligible)
    up = float(np.min((_log_mgf(terms, tilts) + log_tail) / tilts))
    down = float(np.min((_log_mgf(terms, -tilts) + log_tail) / tilts))
    first = max(low, math.floor(mean - down) - 1)
    last = min(high, math.ceil(mean + up) + 1)
    return Window(first, max(first, last))


def spread(terms: Sequence[tuple[Losses, int]]) -> float:
    """Standard deviation of a composition, in grid steps; at least 1."""
    variance = math.fsum(count * losses.variance for losses, count in terms)
    return math.sqrt(max(variance, 1.0))


class Transform:
    """The transform of one round of releases, from which any number follows."""

    def __init__(self, terms: Sequence[tuple[Losses, int]], kept: Window, step: float):
        self._length = fft.next_fast_len(kept.width + _MARGIN, real=True)
        self._step = step
        self._terms = [(losses, count, round(losses.mean)) for losses, count in terms]
        self._spectra = [
            fft.rfft(_folded(losses, centre, self._length))
            for losses, _, centre in self._terms
        ]

    def power(
        self, rounds: int, kept: Window, compositions: int, negligible: float
    ) -> ComposedLoss:
        """The loss of `rounds` rounds, in a window no wider than the transform's."""
        product = np.ones(self._length // 2 + 1, dtype=complex)
        centre, log_finite = 0, 0.0
        for (losses, count, middle), spectrum in zip(
            self._terms, self._spectra, strict=True
        ):
            times = count * rounds
            product *= spectrum ** float(times)
            centre += times * middle
            log_finite += times * math.log1p(-min(losses.infinite, 1 - _UNIT))
        circle = fft.irfft(product, self._length)
        start = (kept.first - centre) % self._length
        masses = np.roll(circle, -start)[: kept.width]
        infinite = min(1.0, -math.expm1(log_finite) + 2 * negligible)
        return ComposedLoss(kept.first, masses, infinite, self._step, compositions)


def _folded(losses: Losses, centre: int, length: int) -> Array:
    """Masses wrapped around a circle, with `centre` at 0."""
    index = (np.arange(len(losses.masses)) + losses.first - centre) % length
    return np.bincount(index, weights=losses.masses, minlength=length)


def _log_mgf(terms: Sequence[tuple[Losses, int]], tilts: Array) -> Array:
    """An upper bound on log E[e^(tilt (sum - mean))] for each tilt."""
    total = np.zeros(tilts.shape)
    for losses, count in terms:
        index, log_masses = _blocks(losses)
        exponents = np.outer(tilts, index) + log_masses
        top = exponents.max(axis=1)
        total += count * (top + np.log(np.exp(exponents.T - top).sum(axis=0)))
    return total


def _blocks(losses: Losses) -> tuple[Array, Array]:
    """Masses moved to the ends of blocks, means kept: exponential moments only grow."""
    size = -(-len(losses.masses) // _BLOCKS)
    starts = np.arange(0, len(losses.masses), size)
    ends = np.minimum(starts + size - 1, len(losses.masses) - 1)
    masses = np.add.reduceat(losses.masses, starts)
    first_moments = np.add.reduceat(
        losses.masses * np.arange(len(losses.masses)), starts
    )
    at_end = (first_moments - starts * masses) / np.maximum(ends - starts, 1)
    at_end = at_end.clip(0.0, masses)
    index = np.concatenate([starts, ends]) + losses.first - losses.mean
    split = np.concatenate([masses - at_end, at_end])
    return index[split > 0], np.log(split[split > 0])
