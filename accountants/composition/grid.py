r"""Pairs of distributions on a grid of losses, one above a profile and one below it.

Above, connect the dots: the profile, as a function of u = e^e, is convex, so the
polygon through its values at u_i = e^(ih) lies above it and is the profile of a pair
whose losses are multiples of h. Q_i is the change of slope at u_i and P_i = u_i Q_i.
Values at e < 0 are not differenced, since slopes there are near -1 and would cancel;
the reversed profile gives the same chords with P and Q exchanged. A finite pair needs
no differences: splitting an outcome between its two neighbours on the grid, so that
both its masses stay, gives the same polygon.

Below, merging outcomes is post-processing: all losses in ((k-1/2)h, (k+1/2)h] become
one outcome, whose loss is the log-ratio of the two masses of that cell.

Reference: Doroshenko et al., "Connect the Dots: Tighter Discrete Approximations of
Privacy Loss Distributions", 2022, arXiv:2207.04380.
"""

import dataclasses
import functools

import numpy as np

from dpkit.accountants.pairs.arrays import Array
from dpkit.accountants.pairs.finite import FinitePair
from dpkit.accountants.pairs.profiles import Profile, Side

_SCAN = np.concatenate([[0.0], np.geomspace(1e-9, 1e5, 700)])
_FAINT = 1e-300
_ROUNDING = 4e-16
_LACKING = 1e-9


@dataclasses.dataclass(frozen=True)
class Losses:
    """A distribution of the privacy loss: masses at (first + k) h, and at infinity."""

    first: int  # grid index of the first mass
    masses: Array  # at least 0, one for each grid point
    infinite: float  # mass at infinite loss
    # How far each grid point lies above the loss it stands for: a lower bound pays.
    excess: Array | None = None

    @property
    def last(self) -> int:
        """Grid index of the last mass."""
        return self.first + len(self.masses) - 1

    @functools.cached_property
    def index(self) -> Array:
        """Grid indices, as floats."""
        return self.first + np.arange(len(self.masses), dtype=float)

    @functools.cached_property
    def logs(self) -> Array:
        """Logarithms of the masses."""
        with np.errstate(divide="ignore"):
            return np.log(self.masses)

    @functools.cached_property
    def variance(self) -> float:
        """Variance of the finite losses, in grid steps squared."""
        total = float(self.masses.sum())
        if total <= 0:
            return 0.0
        centre = float(self.masses @ self.index) / total
        return float(self.masses @ (self.index - centre) ** 2) / total


@dataclasses.dataclass(frozen=True)
class Extent:
    """How far a profile's losses go, and how they spread."""

    forward: float  # loss beyond which D(P || Q) is negligible or constant
    backward: float  # the same for D(Q || P)
    variance: float  # KL both ways together: the loss's, where losses are small


def extent(profile: Profile, tail: float) -> Extent:
    """Scan both directions for where they fall below `tail`."""
    forward = profile.forward(_SCAN)
    backward = forward if profile.symmetric else profile.backward(_SCAN)
    excess = (1 + np.exp(-_SCAN)) * (forward - forward[-1] + backward - backward[-1])
    variance = float(np.trapezoid(np.maximum(excess, 0.0), _SCAN))
    return Extent(_reach(forward, tail), _reach(backward, tail), variance)


def _reach(values: Array, tail: float) -> float:
    """The first scanned loss from which on the profile is within `tail` of its end."""
    above = np.flatnonzero(values - values[-1] > tail)
    return float(_SCAN[min(above[-1] + 1, len(_SCAN) - 1)]) if len(above) else 0.0


def above(profile: Profile, step: float, reach: Extent) -> tuple[Losses, Losses]:
    """Losses that dominate: of P against Q under P, and of Q against P under Q."""
    ahead = max(1, int(np.ceil(reach.forward / step)))
    behind = max(1, int(np.ceil(reach.backward / step)))
    if profile.upper is not None:
        return (
            _split(profile.upper, step, -behind, ahead),
            _split(profile.upper.swapped(), step, -ahead, behind),
        )
    forward = _values(profile.forward, step, ahead)
    backward = forward if profile.symmetric else _values(profile.backward, step, behind)
    # D(0) is one total variation, which both values bound: unshared, mass is lost.
    start, growth = min(forward[0], backward[0]), np.expm1(step)
    forward[0] = backward[0] = start
    fall = forward[1] + backward[1] - 2 * start
    middle = np.array([max(0.0, 1 + fall / growth - start)])
    up, down = _masses(forward, step), _masses(backward, step)
    up_q = up * np.exp(-step * np.arange(1, len(up) + 1))
    down_p = down * np.exp(-step * np.arange(1, len(down) + 1))
    with_record = np.concatenate([down_p[::-1], middle, up])
    without = np.concatenate([up_q[::-1], middle, down])
    return (
        _whole(Losses(-len(down), with_record, float(forward[-1]) + _FAINT)),
        _whole(Losses(-len(up), without, float(backward[-1]) + _FAINT)),
    )


def below(profile: Profile, step: float, reach: Extent) -> tuple[Losses, Losses]:
    """Losses that are dominated, with their excess over the losses they stand for."""
    ahead = max(1, int(np.ceil(reach.forward / step)))
    behind = max(1, int(np.ceil(reach.backward / step)))
    if profile.lower is not None:
        pair = profile.lower()
        loss, p, q = pair.finite
        cell = np.ceil(loss / step - 0.5).clip(-behind, ahead).astype(int) + behind
        size = ahead + behind + 1
        p = np.bincount(cell, weights=p, minlength=size)
        q = np.bincount(cell, weights=q, minlength=size)
        infinite = pair.certain
        lost = np.full(size, _ROUNDING * len(loss))
    else:
        up_p, up_q, up_lost = _cells(profile.forward, step, ahead)
        down_q, down_p, down_lost = _cells(profile.backward, step, behind)
        middle = [1 - up_p.sum() - down_p.sum()], [1 - up_q.sum() - down_q.sum()]
        p = np.concatenate([down_p[::-1], middle[0], up_p])
        q = np.concatenate([down_q[::-1], middle[1], up_q])
        least = max(min(middle[0][0], middle[1][0]), _FAINT)
        lost = np.concatenate([down_lost[::-1], [_ROUNDING * 100 / least], up_lost])
        infinite = (0.0, 0.0)
    some = (p > _FAINT) & (q > _FAINT)
    p, q = np.where(some, p, 0.0), np.where(some, q, 0.0)
    loss = np.zeros(len(p))
    loss[some] = np.log(p[some] / q[some])
    excess = np.where(some, np.arange(-behind, ahead + 1) - loss / step, 0.0)
    # The masses round, so the log-ratio of a cell may be off by `lost`, either way.
    lost = lost / step
    return (
        Losses(-behind, p, infinite[0], excess + lost),
        Losses(-ahead, q[::-1].copy(), infinite[1], (lost - excess)[::-1]),
    )


def _split(pair: FinitePair, step: float, first: int, last: int) -> Losses:
    """P's losses on the grid; below `first` up to it, above `last` to infinity."""
    loss, p, q = pair.finite
    place = loss / step
    cell = np.floor(place)
    with np.errstate(over="ignore"):  # all that rounding may do is move it whole
        rounding = _ROUNDING * (1 + (np.abs(np.log(p)) + np.abs(np.log(q))) / step)
        share = np.expm1((place - cell + rounding) * step) / np.expm1(step)
    share = np.minimum(share, 1.0)
    lower = p * np.exp((cell - place) * step) * (1 - share)
    inside = cell < last
    index = (cell.clip(first, last) - first).astype(int)
    size = last - first + 1
    masses = np.bincount(index[inside], weights=lower[inside], minlength=size)
    upper = np.where(inside, p - lower, 0.0)
    masses += np.bincount(
        np.minimum(index + 1, size - 1) * (cell >= first), weights=upper, minlength=size
    )
    infinite = pair.infinite[0] + float(p[~inside].sum()) + _FAINT
    return Losses(first, masses, infinite)


def _whole(losses: Losses) -> Losses:
    """The same losses; refuses a law from above that lacks mass."""
    total = float(losses.masses.sum()) + losses.infinite
    if total < 1 - _LACKING:
        raise ArithmeticError(f"a loss distribution sums to {total!r}, not to 1")
    return losses


def _values(side: Side, step: float, count: int) -> Array:
    """The profile at 0, h, 2h, ..., count h."""
    return np.clip(side(step * np.arange(count + 1)), 0.0, 1.0)


def _masses(values: Array, step: float) -> Array:
    """P_i for i >= 1 from the profile at the grid points; the last slope is 0."""
    falls = np.append(np.diff(values), 0.0)
    masses = (falls[1:] - np.exp(step) * falls[:-1]) / np.expm1(step)
    return np.maximum(masses, 0.0)


def _cells(side: Side, step: float, count: int) -> tuple[Array, Array, Array]:
    """Masses of P and Q with losses in ((k - 1/2)h, (k + 1/2)h], k from 1 to count.

    The third array is what rounding may have done to the log-ratio of the two.
    """
    if side.tails is None:
        raise TypeError("a side without tails has no cells")
    p, q = side.tails(step * (np.arange(1, count + 1) - 0.5))
    in_p, in_q = -np.diff(p, append=0.0), -np.diff(q, append=0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        lost = 16 * _ROUNDING * (p / in_p + q / in_q)
    return in_p, in_q, np.where((in_p > 0) & (in_q > 0), lost, 0.0)
