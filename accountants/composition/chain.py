r"""The loss of many releases, composed under an exponential tilt: any delta, certified.

For one direction of a composition let L = log dP/dQ, K(t) = log E_P[e^(tL)] and P_t the
law with density e^(tL - K(t)) against P, all where L is finite. For every t > 0

    delta(eps) = E_P[(1 - e^(eps-L))_+] = e^(K(t) - t eps) E_t[g(L - eps)],
    g(y) = e^(-ty) (1 - e^-y) for y > 0, else 0;   max g = (t/(1+t))^t / (1+t).

Losses of independent releases add up under P_t as well, so their laws on a grid are
convolved by one FFT for each kind. What the window cuts off (Chernoff bounds) and what
the transforms round is a small mass of P_t, so it counts relative to the Rényi bound
e^(K - t eps) max g, which is of the order of delta where t is chosen well: a delta of
1e-100 is as precise as one of 1e-5.
"""

import dataclasses
import math
import operator
from typing import Any

import numpy as np
from scipy import fft, signal

from dpkit.accountants.composition.concentration import log_peak
from dpkit.accountants.composition.grid import Losses
from dpkit.accountants.pairs.arrays import Array, power

Summands = list[tuple[Losses, int]]

MAX_WIDTH = 2**21
_WIDEST = 2**24
_UNIT = 2.0**-53
_TAIL = 2e-16
_LOG_TAIL = 37.0
_SPANS = np.geomspace(0.01, 60.0, 28)
_MOST_BLOCKS, _BLOCK_BUDGET = 2048, 16_000
_MARGIN = 4
_LARGEST = 700.0
_WORSE = math.log(30.0)
_DROPPED = 1e-13


@dataclasses.dataclass(frozen=True)
class Tilt:
    """The tilted law of a number of rounds, before it is computed."""

    slope: float  # t h, the tilt for each grid step
    log_moment: float  # K(t)
    mean: float  # of P_t, in grid steps

    def log_bound(self, place: float, step: float) -> float:
        """log of the Rényi bound on delta at a loss, given in grid steps."""
        return self.log_moment - self.slope * place + log_peak(self.slope / step)


@dataclasses.dataclass(frozen=True)
class ComposedLoss:
    """A composition on the grid (first + k) step, under a tilt."""

    first: int  # grid index of the first mass
    masses: Array  # of P_t, one a grid point; rounding may leave tiny negative ones
    tilt: Tilt  # t and K(t)
    step: float  # the distance of grid points
    infinite: float  # mass of P at infinite loss
    error: float  # what the masses may lack or have too much, in total
    slack: float = 0.0  # how far losses stand above the true ones in a lower bound

    def delta(self, epsilon: Array, side: int) -> Array:
        """delta at each epsilon, from above (side 1) or from below (side -1)."""
        epsilon = epsilon + self.slack
        gain, far = self._sums(side)
        at = np.ceil(epsilon / self.step - self.first).clip(0, len(gain) - 1)
        at = at.astype(int)
        gap = np.minimum(epsilon / self.step - (at + self.first), 0.0)
        share = gain[at] - np.expm1(gap * self.step) * far[at]
        finite = self._scale(at + self.first) * np.maximum(share, 0.0)
        # Where the scale is no number any more, nothing is known but 0 and 1.
        huge = self._exponent(at + self.first) > _LARGEST
        finite = np.where(huge, max(side, 0), finite)
        error = self._error(epsilon / self.step)
        return np.clip(self.infinite + finite + side * error, 0.0, 1.0)

    def epsilon(self, delta: float, side: int) -> float:
        """Where delta is met, from above (side 1) or from below (side -1); >= 0."""
        target = delta - self.infinite
        if target <= 0:
            last = (self.first + len(self.masses) - 1) * self.step
            return math.inf if side > 0 else max(0.0, last - self.slack)
        if side > 0 and self.delta(np.zeros(1), side)[0] <= delta:
            return 0.0
        gain, far = self._sums(side)
        place = self.first + np.arange(len(gain))
        error = self._error(place - 1.0)
        values = self._scale(place) * np.maximum(gain, 0.0) + side * error
        values = np.where(self._exponent(place) > _LARGEST, max(side, 0), values)
        above = np.flatnonzero(values > target)
        if side < 0 and not len(above):
            return 0.0
        if side > 0 and len(above) and above[-1] == len(gain) - 1:
            return max(0.0, self._renyi(target))  # the errors alone are too much
        cell = min(int(above[-1]) + 1, len(gain) - 1) if len(above) else 0
        high = (self.first + cell) * self.step
        scale = float(self._scale(place[cell]))
        weight = scale * far[cell]
        inside = high if side > 0 else high - self.step
        if weight > 0:
            excess = (scale * gain[cell] + side * float(error[cell]) - target) / weight
            inside = high + math.log1p(excess) if excess > -1 else high - self.step
        value = min(max(inside, high - self.step), high)
        if side > 0:
            value = min(value, self._renyi(target))
        return max(0.0, value * (1 + side * 1e-12) - self.slack)

    def _renyi(self, delta: float) -> float:
        """What the tilt's Rényi bound gives, which no error of the masses touches."""
        t = self.tilt.slope / self.step
        return (self.tilt.log_moment + log_peak(t) - math.log(delta)) / t

    def _sums(self, side: int) -> tuple[Array, Array]:
        """Sums over i >= k of p_i g((i-k)h) and of p_i e^(-(t+1)(i-k)h), each k.

        One more cell, empty, stands after the last. The first sum follows from the
        second without a difference, so that it keeps its digits where the losses are
        tiny. Both are raised (side 1) or lowered by what the recursions round: a factor
        and what it is added to are right to a few units, once for each cell.
        """
        flipped = np.append(self.masses, 0.0)[::-1]
        factor, rest = math.exp(-self.tilt.slope), math.exp(-self.step)
        far = np.asarray(signal.lfilter([1.0], [1.0, -factor * rest], flipped))
        added = -factor * math.expm1(-self.step)
        gain = signal.lfilter([0.0, added], [1.0, -factor], far)
        raised = 1 + side * 12 * _UNIT * (len(flipped) + 8)
        return np.asarray(gain)[::-1] * raised, far[::-1] * raised

    def _exponent(self, place: Array) -> Array:
        """K - t l at grid indices."""
        return self.tilt.log_moment - self.tilt.slope * place

    def _scale(self, place: Array) -> Array:
        """e^(K - t l) at grid indices."""
        return np.exp(np.minimum(self._exponent(place), _LARGEST))

    def _error(self, place: Array) -> Array:
        """What the error of the masses is worth in delta, at places in grid steps."""
        exponent = self._exponent(place) + log_peak(self.tilt.slope / self.step)
        return self.error * np.exp(np.minimum(exponent, _LARGEST))


class Convolution:
    """One direction of one round of releases, from which any number of rounds follows.

    Args:
      terms: losses on one grid, with their counts in a round.
      step: the distance of grid points.
    """

    def __init__(self, terms: Summands, step: float):
        self.step = step
        self._terms = [(losses, n) for losses, n in terms if losses.masses.any()]
        self._size = sum(count for _, count in terms)
        self._log_finite = math.fsum(
            n * math.log1p(-min(losses.infinite, 1 - _UNIT)) for losses, n in terms
        )
        self._spread = math.sqrt(
            max(math.fsum(n * losses.variance for losses, n in self._terms), 1e-6)
        )
        blocks = _BLOCK_BUDGET // max(1, len(self._terms))
        blocks = min(_MOST_BLOCKS, max(64, blocks))
        self._blocks = [(*_blocks(losses, blocks), n) for losses, n in self._terms]
        self._round: tuple[float, int, Array, int] | None = None
        self._found: dict[tuple[int, float], Tilt] = {}

    def tilt_for_delta(self, rounds: int, delta: float) -> Tilt:
        """The tilt whose Rényi bound meets delta at the smallest epsilon."""

        def epsilons(slopes: Array) -> Array:
            t = slopes / self.step
            moments = rounds * self._log_moments(slopes)
            return (moments + log_peak(t) - math.log(delta)) / t

        if (rounds, delta) not in self._found:
            self._found[rounds, delta] = self._best(rounds, epsilons)
        return self._found[rounds, delta]

    def tilt_for_epsilon(self, rounds: int, epsilon: float) -> Tilt:
        """The tilt whose Rényi bound on delta at epsilon is the smallest."""

        def deltas(slopes: Array) -> Array:
            t = slopes / self.step
            return rounds * self._log_moments(slopes) + log_peak(t) - t * epsilon

        return self._best(rounds, deltas)

    def width(self, rounds: int, tilt: Tilt) -> int:
        """How many grid points the window of a composition needs."""
        first, last = self._window(rounds, tilt)
        return last - first + 1

    def composed(self, rounds: int, tilt: Tilt) -> ComposedLoss:
        """The losses of `rounds` rounds; a transform at a tilt not far off is reused.

        Not far off means that the window's and the transforms' errors grow by less than
        a factor of 30. Where the window is too wide to be computed, the answer is the
        tilt's Rényi bound: no masses, and an error of all of P_t.
        """
        infinite = min(1.0, -math.expm1(rounds * self._log_finite))
        first, last = self._window(rounds, tilt)
        if last - first >= _WIDEST:
            return ComposedLoss(0, np.zeros(1), tilt, self.step, infinite, 1.0)
        if self._round is not None:
            kept = self.tilt(rounds, self._round[0])
            place = tilt.mean
            extra = kept.log_bound(place, self.step) - tilt.log_bound(place, self.step)
            low, high = self._window(rounds, kept)
            if extra <= _WORSE and high - low < self._round[1] - _MARGIN:
                tilt, first, last = kept, low, high
            else:
                self._round = None
        if self._round is None:
            length = fft.next_fast_len(last - first + 1 + _MARGIN, real=True)
            self._round = (tilt.slope, length, *self._transform(tilt.slope, length))
        _, length, spectrum, centre = self._round
        circle = fft.irfft(power(spectrum, rounds, operator.mul), length)
        start = (first - rounds * centre) % length
        masses = np.roll(circle, -start)[: last - first + 1]
        size = rounds * self._size
        rounding = 10 * _UNIT * size * math.log2(length)
        return ComposedLoss(first, masses, tilt, self.step, infinite, _TAIL + rounding)

    def _best(self, rounds: int, objective: Any) -> Tilt:
        """The slope that makes an objective smallest, on a grid that is refined."""
        scale = 1 / (self._spread * math.sqrt(rounds))
        slopes = np.geomspace(1e-5, 300.0, 64) * scale
        for _ in range(2):
            best = int(np.argmin(objective(slopes)))
            low, high = slopes[max(best - 1, 0)], slopes[min(best + 1, len(slopes) - 1)]
            slopes = np.geomspace(low, high, 9)
        return self.tilt(rounds, float(slopes[int(np.argmin(objective(slopes)))]))

    def tilt(self, rounds: int, slope: float) -> Tilt:
        """K and the mean at a slope, exactly."""
        moments, means = [0.0], [0.0]
        for losses, count in self._terms:
            log_norm, weights = _tilted(losses, slope)
            moments.append(count * log_norm)
            means.append(count * float(weights @ losses.index))
        # Logarithms of sums round by a few units, each counted `rounds` times.
        moment = rounds * math.fsum(moments)
        moment += 32 * _UNIT * (rounds * self._size + abs(moment))
        return Tilt(slope, moment, rounds * math.fsum(means))

    def _window(self, rounds: int, tilt: Tilt) -> tuple[int, int]:
        """Grid indices beyond which P_t has mass at most 1e-16 on each side."""
        spread = self._spread * math.sqrt(rounds)
        spans = _SPANS / spread
        moments = rounds * self._log_moments(
            np.concatenate([tilt.slope + spans, tilt.slope - spans])
        )
        growth = moments - tilt.log_moment + _LOG_TAIL
        up = float(np.min(growth[: len(spans)] / spans))
        down = -float(np.min(growth[len(spans) :] / spans))
        low = rounds * sum(n * losses.first for losses, n in self._terms)
        high = rounds * sum(n * losses.last for losses, n in self._terms)
        first = min(max(low, math.floor(down) - 1), high)
        return first, max(first, min(high, math.ceil(up) + 1))

    def _log_moments(self, slopes: Array) -> Array:
        """K of one round from above, at each slope of any sign."""
        total = np.zeros(slopes.shape)
        for index, logs, count in self._blocks:
            exponents = np.outer(slopes, index) + logs
            top = exponents.max(axis=1)
            total += count * (top + np.log(np.exp(exponents.T - top).sum(axis=0)))
        return total

    def _transform(self, slope: float, length: int) -> tuple[Array, int]:
        """The transform of one round under a tilt, around its rounded mean."""
        product = np.ones(length // 2 + 1, dtype=complex)
        centre = 0
        for losses, count in self._terms:
            _, weights = _tilted(losses, slope)
            middle = round(float(weights @ losses.index))
            centre += count * middle
            folded = _folded(weights, losses.first - middle, length)
            product *= power(fft.rfft(folded), count, operator.mul)
        return product, centre


def settled(losses: Losses, slope: float, uses: int) -> tuple[Losses, float]:
    """Losses below those they stand for by moving some down, the others by a slack.

    A grid point that stands too high is either moved down by one, or all are taken to
    stand too high by as much: whichever costs less under the tilt. Points of no weight
    in so many `uses` are dropped, and so are those that stand more than one step too
    high. Returns the losses, and the slack in grid steps of each release.
    """
    excess = losses.excess
    if excess is None or not losses.masses.any():
        return losses, 0.0
    _, weights = _tilted(losses, slope)
    kept = (weights >= _DROPPED / uses) & (excess <= 1)
    excess = np.where(kept, excess, 0.0)
    order = np.argsort(excess)[::-1]
    moved = np.cumsum(np.where(kept, weights, 0.0)[order])
    costs = np.append(excess[order].clip(0.0), 0.0)
    costs += np.concatenate([[0.0], moved])
    best = int(np.argmin(costs))
    slack = float(max(0.0, excess[order[best]])) if best < len(order) else 0.0
    masses = np.where(kept, losses.masses, 0.0)
    down = kept & (excess > slack)
    shifted = np.append(np.where(down, masses, 0.0), 0.0)
    masses = np.append(0.0, np.where(down, 0.0, masses)) + shifted
    return Losses(losses.first - 1, masses, losses.infinite), slack


def _tilted(losses: Losses, slope: float) -> tuple[float, Array]:
    """log E[e^(slope i); finite loss], and the tilted law."""
    exponents = losses.logs + slope * losses.index
    top = float(exponents.max())
    weights = np.exp(exponents - top)
    total = float(weights.sum())
    return top + math.log(total), weights / total


def _folded(weights: Array, first: int, length: int) -> Array:
    """Weights wrapped around a circle, the first of them at `first`."""
    circle = np.zeros(length)
    start, done = first % length, 0
    while done < len(weights):
        part = weights[done : done + length - start]
        circle[start : start + len(part)] += part
        done, start = done + len(part), 0
    return circle


def _blocks(losses: Losses, most: int) -> tuple[Array, Array]:
    """Masses moved to the ends of blocks, means kept: exponential moments only grow."""
    masses = losses.masses
    size = -(-len(masses) // most)
    starts = np.arange(0, len(masses), size)
    ends = np.minimum(starts + size - 1, len(masses) - 1)
    sums = np.add.reduceat(masses, starts)
    first_moments = np.add.reduceat(masses * np.arange(len(masses)), starts)
    at_end = (first_moments - starts * sums) / np.maximum(ends - starts, 1)
    at_end = at_end.clip(0.0, sums)
    index = np.concatenate([starts, ends]) + float(losses.first)
    split = np.concatenate([sums - at_end, at_end])
    with np.errstate(divide="ignore"):
        return index[split > 0], np.log(split[split > 0])
