r"""One pair of distributions on a grid of losses that dominates a privacy profile.

Connect the dots: the profile, as a function of u = e^e, is convex, so the polygon
through its values at u_i = e^(ih) lies above it and is the profile of a pair whose
losses are multiples of h. Q_i is the change of slope at u_i and P_i = u_i Q_i. Values
at e < 0 are not differenced, since slopes there are near -1 and would cancel; the
reversed profile gives the same chords with P and Q exchanged.

Reference: Doroshenko et al., "Connect the Dots: Tighter Discrete Approximations of
Privacy Loss Distributions", 2022, arXiv:2207.04380.
"""

import dataclasses
import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpkit.accountants.profiles import Curve, Profile

Array = NDArray[Any]

_SCAN = np.concatenate([[0.0], np.geomspace(1e-9, 1e5, 700)])


@dataclasses.dataclass(frozen=True)
class Losses:
    """A distribution of the privacy loss: masses at (first + k) h, and at infinity."""

    first: int
    masses: Array
    infinite: float

    @property
    def last(self) -> int:
        """Grid index of the last mass."""
        return self.first + len(self.masses) - 1

    @functools.cached_property
    def mean(self) -> float:
        """Mean of the finite losses, in grid steps."""
        return self.first + self._average(np.arange(len(self.masses), dtype=float))

    @functools.cached_property
    def variance(self) -> float:
        """Variance of the finite losses, in grid steps squared."""
        centre = self.mean - self.first
        return self._average((np.arange(len(self.masses)) - centre) ** 2)

    def _average(self, values: Array) -> float:
        """Mean of some values under the finite masses; 0 if there are none."""
        total = float(self.masses.sum())
        return float((self.masses * values).sum()) / total if total > 0 else 0.0


@dataclasses.dataclass(frozen=True)
class Extent:
    """How far a profile's losses go, and how they spread.

    Attributes:
      forward: loss beyond which D(P || Q) is negligible or constant.
      backward: the same for D(Q || P).
      variance: KL(P || Q) + KL(Q || P), the loss's variance where losses are small.
    """

    forward: float
    backward: float
    variance: float


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


def discretise(profile: Profile, step: float, reach: Extent) -> tuple[Losses, Losses]:
    """The loss of P against Q under P, and of Q against P under Q, on one grid."""
    forward = _values(profile.forward, step, reach.forward)
    backward = _values(profile.backward, step, reach.backward)
    start, growth = max(forward[0], backward[0]), np.expm1(step)
    fall = forward[1] + backward[1] - 2 * start
    middle = np.array([max(0.0, 1 + fall / growth - start)])
    up, down = _masses(forward, step), _masses(backward, step)
    up_q = up * np.exp(-step * np.arange(1, len(up) + 1))
    down_p = down * np.exp(-step * np.arange(1, len(down) + 1))
    with_record = np.concatenate([down_p[::-1], middle, up])
    without = np.concatenate([up_q[::-1], middle, down])
    return (
        Losses(-len(down), with_record, float(forward[-1])),
        Losses(-len(up), without, float(backward[-1])),
    )


def _values(curve: Curve, step: float, reach: float) -> Array:
    """The profile at 0, h, 2h, ... until past `reach`; at least two points."""
    count = max(1, int(np.ceil(reach / step)))
    return np.clip(curve(step * np.arange(count + 1)), 0.0, 1.0)


def _masses(values: Array, step: float) -> Array:
    """P_i for i >= 1 from the profile at the grid points; the last slope is 0."""
    falls = np.append(np.diff(values), 0.0)
    masses = (falls[1:] - np.exp(step) * falls[:-1]) / np.expm1(step)
    return np.maximum(masses, 0.0)
