r"""Cumulants of a composition's loss under any tilt, in both directions.

In one direction a release is a pair (P, Q) with loss L = log dP/dQ. Its cumulants under
P_t, proportional to e^(tL) P, are the derivatives of K(t) = log E_P[e^(tL)] at t; t = 0
is P, t = -1 is Q. They add up over releases, however different those are. Unsampled
Gaussians enter exactly; everything else by the points of pairs/points.py, one array for
many releases, and tilts reuse the points up to the next power of two.
"""

import dataclasses
import functools
import math
from collections.abc import Iterable

import numpy as np
from dp_accounting import DpEvent

from dpkit.accountants.answers.relations import Relation
from dpkit.accountants.events.composing import flatten
from dpkit.accountants.pairs import gaussian, points
from dpkit.accountants.pairs.arrays import Array
from dpkit.accountants.pairs.finite import FinitePair
from dpkit.accountants.pairs.laws import law_of
from dpkit.accountants.pairs.points import Nodes, OutOfReach, Points, SampledGaussian

_UNIT = 2.0**-53
_FAINTEST = 1e-300
_CHUNK = 2**15
_BLOCK = 2**12
_REMEMBERED = 2**14
_KINK = 1.005  # the rule's error on |L - m|^3, which has a kink, is 0.3 % at most


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cumulants:
    """A composition's loss under P_t."""

    tilt: float  # t
    log_moment: float  # K(t)
    mean: float  # K'(t)
    variance: float  # K''(t)
    higher: tuple[float, float, float, float] = (0.0,) * 4  # cumulants 3 to 6
    ratio: float = 0.0  # Lyapunov's: third absolute moments over variance^(3/2)
    # no less than the largest difference between its distribution function and
    # the normal one of equal mean and variance; 1 says nothing
    distance: float = 0.0
    slack: float = 0.0  # how far K(t) may be off by rounding
    drift: float = 0.0  # how far K'(t) may be


@dataclasses.dataclass(frozen=True)
class _Sorted:
    """Releases by how their points are found, and their mass of infinite loss."""

    sampled: Array
    growing: list[tuple[Points, int]]
    fixed: list[Nodes]
    escaped: tuple[float, float]
    certain: tuple[float, float]


class LossSum:
    """The loss of a valid event under a relation, ready to be tilted.

    Attributes:
      private: False if a part gives no guarantee at all.
      shift: of all unsampled Gaussians together, in deviations.
      only_gaussian: whether that is everything.
      attained: whether each pair is reached, not only never exceeded: else nothing is
        bounded from below.

    Example:
      >>> import dp_accounting as dp
      >>> step = dp.PoissonSampledDpEvent(0.01, dp.GaussianDpEvent(1.0))
      >>> round(LossSum(step, Relation.ADD_REMOVE).at(0.0).mean, 9)
      8.3812e-05
    """

    def __init__(self, event: DpEvent, relation: Relation):
        releases = flatten(event)
        laws = {release: law_of(release, relation) for release, _ in releases}
        for law in laws.values():
            law.check("points")
        self.private = all(law.private for law in laws.values())
        self.shift, others = gaussian.total_shift(releases, relation)
        self._others = [(laws[event], count) for event, count in others]
        self._others = [each for each in self._others if not each[0].trivial]
        self.only_gaussian = not self._others
        self.attained = all(law.attained for law in laws.values())
        self._identical = self.shift == 0 and len(self._others) == 1
        self._points: dict[float, list[Nodes]] = {}

    def at(self, tilt: float, *, backward: bool = False) -> Cumulants | None:
        """The loss under P_t, t >= -1; `backward` swaps the pair's sides.

        None where the tilt needs too many points.
        """
        power = -tilt if backward else 1 + tilt
        counts, rows = [np.empty(0)], [np.empty((8, 0))]
        try:
            for group in self._nodes(4.0 ** math.ceil(math.log(max(tilt, 1.0), 4))):
                counts.append(group.counts)
                rows.append(_moments(group, power))
        except OutOfReach:
            return None
        table = np.concatenate(rows, axis=1)
        sign = -1 if backward else 1
        return self._total(tilt, power, sign, np.concatenate(counts), table)

    @property
    def escaped(self) -> tuple[float, float]:
        """The mass of infinite loss in each direction, from above."""
        return self._sorted.escaped

    @property
    def certain(self) -> tuple[float, float]:
        """The same from below."""
        return self._sorted.certain

    @property
    def smooth(self) -> bool:
        """Whether no release has finitely many outcomes.

        Sums of such losses can lie on a lattice, which a series doesn't see.
        """
        return not self._sorted.fixed

    @functools.cached_property
    def _sorted(self) -> "_Sorted":
        """The releases by how their points are found."""
        sampled: list[tuple[float, float, int]] = []
        growing: list[tuple[Points, int]] = []
        fixed: list[points.Row] = []
        log_kept, log_certain = [0.0, 0.0], [0.0, 0.0]
        for law, count in self._others if self.private else ():
            found = law.points()
            if isinstance(found, SampledGaussian):
                sampled.append((found.noise, found.rate, count))
            elif isinstance(found, FinitePair):
                for side, mass in enumerate(found.infinite):
                    log_kept[side] += count * math.log1p(-mass) if mass < 1 else -np.inf
                for side, mass in enumerate(found.certain):
                    log_certain[side] += count * math.log1p(-min(mass, 0.5))
                if max(found.infinite) < 1:
                    fixed.append((*points.finite(found), count))
            else:
                growing.append((found, count))
        return _Sorted(
            sampled=np.array(sampled, dtype=float).reshape(-1, 3).T,
            growing=growing,
            fixed=points.packed(fixed),
            escaped=(-math.expm1(log_kept[0]), -math.expm1(log_kept[1])),
            certain=(-math.expm1(log_certain[0]), -math.expm1(log_certain[1])),
        )

    def _nodes(self, reach: float) -> Iterable[Nodes]:
        """All points, good for tilts up to `reach`; remembered unless too many."""
        if reach in self._points:
            return self._points[reach]
        if self._sorted.sampled.shape[1] > _REMEMBERED:
            return self._built(reach)
        return self._points.setdefault(reach, list(self._built(reach)))

    def _built(self, reach: float) -> Iterable[Nodes]:
        """All points, found anew."""
        yield from self._sorted.fixed
        yield from points.packed(
            (*row(reach), count) for row, count in self._sorted.growing
        )
        for start in range(0, self._sorted.sampled.shape[1], _BLOCK):
            noises, rates, counts = self._sorted.sampled[:, start : start + _BLOCK]
            yield from points.sampled_gaussians(noises, rates, counts, reach)

    def _total(
        self, tilt: float, power: float, sign: int, counts: Array, table: Array
    ) -> Cumulants:
        """Sums over the releases, with the Gaussians and the allowances for rounding.

        Of one release's K(t), what rounding can do is a few units for each of the
        exponent's terms; the same share of its mean and deviations goes into the mean.
        """
        logs, means, variances, c3, c4, c5, c6, cubes = table
        square = self.shift**2
        # A variance that no float can hold is no larger than the least that one does.
        spread = np.sqrt(np.maximum(variances, _FAINTEST))
        rounding = 16 * _UNIT * (16 + abs(power) * (abs(means) + spread) + abs(logs))
        variance = float(counts @ variances) + square
        k4 = c4 - 3 * variances**2
        k5 = c5 - 10 * c3 * variances
        k6 = c6 - 15 * c4 * variances - 10 * c3**2 + 30 * variances**3
        higher = [float(counts @ k) for k in (c3, k4, k5, k6)]
        drift = float(counts @ (rounding * (abs(means) + 2 * spread)))
        ratio, distance = math.inf, 1.0
        if variance > 1e-200:
            deviation = math.sqrt(variance)
            ratio = _KINK * float(counts @ cubes) / deviation**3
            distance = _berry_esseen(ratio, float(sum(counts)), self._identical)
            distance += drift / deviation + 4 * float(rounding.max(initial=0.0))
        exact = tilt * (tilt + 1) * square / 2
        return Cumulants(
            tilt=tilt,
            log_moment=float(counts @ logs) + exact,
            mean=sign * float(counts @ means) + (tilt + 0.5) * square,
            variance=variance,
            higher=(sign * higher[0], higher[1], sign * higher[2], higher[3]),
            ratio=ratio,
            distance=min(distance, 1.0),
            slack=float(counts @ rounding) + 1e-15 * (1 + exact),
            drift=drift + 1e-15 * abs(tilt + 0.5) * square,
        )


def _berry_esseen(ratio: float, count: float, identical: bool) -> float:
    """Distance of a sum from the normal law, given Lyapunov's ratio.

    Gaussian parts add to the variance alone: they are sums of arbitrarily many parts.

    Reference: Shevtsova 2010 (0.56, any summands); Shevtsova 2013 (equal ones).
    """
    if not identical:
        return 0.56 * ratio
    rest = 1 / math.sqrt(count)
    return min(
        0.4690 * ratio, 0.3322 * (ratio + 0.429 * rest), 0.3031 * (ratio + 0.646 * rest)
    )


def _moments(nodes: Nodes, power: float) -> Array:
    """For each release under Q e^(s l), s = `power`: eight numbers, one column each.

    They are the log of its mass, the mean of l, its central moments 2 to 6, and the
    absolute third one.
    """
    releases, size = nodes.loss.shape
    rows = max(1, _CHUNK // size)
    found = np.empty((8, releases))
    for start in range(0, releases, rows):
        part = slice(start, start + rows)
        loss = nodes.loss[part]
        weights = power * loss
        weights += nodes.log_mass[part]
        top = weights.max(axis=1)
        weights -= top[:, None]
        np.exp(weights, out=weights)
        total = weights.sum(axis=1)
        weights /= total[:, None]
        mean = np.einsum("ij,ij->i", weights, loss)
        centred = loss - mean[:, None]
        second = centred * centred
        third = second * centred
        weighted = weights * second
        found[0, part] = top + np.log(total)
        found[1, part] = mean
        found[2, part] = weighted.sum(axis=1)
        found[3, part] = np.einsum("ij,ij->i", weighted, centred)
        found[4, part] = np.einsum("ij,ij->i", weighted, second)
        found[5, part] = np.einsum("ij,ij->i", weighted, third)
        weights *= third
        found[6, part] = np.einsum("ij,ij->i", weights, third)
        found[7, part] = np.abs(weights).sum(axis=1)
    return found
