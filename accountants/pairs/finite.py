"""Events whose dominating pair has finitely many outcomes, as that pair.

`p` is the law with the record (or with its value), `q` without it (or with the null
record, or with another value). dp-accounting's low-level constructor takes the two in
the opposite order; here they always go by name.
"""

import dataclasses
import functools
import math

import numpy as np

from dpkit.accountants.answers.relations import Relation
from dpkit.accountants.pairs.arrays import Array


@dataclasses.dataclass(frozen=True)
class FinitePair:
    """Two distributions on one finite support.

    Mass that `p` (or `q`) lacks counts as infinite loss in its direction, unless it is
    no more than what rounding each mass may take.
    """

    p: Array  # probabilities with the record
    q: Array  # probabilities without it, of the same outcomes
    lost: tuple[float, float] = (0.0, 0.0)  # of p and q, not listed: infinite loss

    @property
    def infinite(self) -> tuple[float, float]:
        """Mass at infinite loss: of p where q is 0, of q where p is 0, and missing."""
        forward, backward = self.certain
        lost_p, lost_q = self.lost
        return (
            forward + lost_p + _missing(self.p, lost_p),
            backward + lost_q + _missing(self.q, lost_q),
        )

    @property
    def certain(self) -> tuple[float, float]:
        """Mass that is known to be at infinite loss, which a lower bound may count."""
        return float(self.p[self.q == 0].sum()), float(self.q[self.p == 0].sum())

    @functools.cached_property
    def finite(self) -> tuple[Array, Array, Array]:
        """(loss, p, q) of the outcomes that both sides can have, by growing loss."""
        kept = (self.p > 0) & (self.q > 0)
        p, q = self.p[kept], self.q[kept]
        loss = np.log(p) - np.log(q)
        by_loss = np.argsort(loss)
        return loss[by_loss], p[by_loss], q[by_loss]

    def delta(self, epsilon: Array) -> Array:
        """D(e) = sum of (p - e^e q)+, for each e >= 0, raised by its rounding."""
        loss, p, q = self.finite
        above_p = np.append(np.cumsum(p[::-1])[::-1], 0.0)
        above_q = np.append(np.cumsum(q[::-1])[::-1], 0.0)
        first = np.searchsorted(loss, epsilon, side="right")
        with np.errstate(divide="ignore"):
            scaled = np.exp(np.minimum(epsilon + np.log(above_q[first]), 0.0))
        pad = 4e-16 * (8 + len(loss) - first) * above_p[first]
        return np.maximum(above_p[first] - scaled, 0.0) + pad + self.infinite[0]

    def swapped(self) -> "FinitePair":
        """The same pair in the other direction."""
        return FinitePair(p=self.q, q=self.p, lost=self.lost[::-1])

    def pure_epsilon(self) -> float:
        """The largest absolute log-ratio among outcomes that both sides can have."""
        return float(np.abs(self.finite[0]).max(initial=0.0))


def randomized_response(
    probability: float, categories: int, relation: Relation
) -> FinitePair:
    """The answer is uniform with `probability`, else the truth.

    Replacing the truth swaps two categories; against the null record, whose answer is
    uniform, all other categories fall together.
    """
    share = probability / categories
    if share < 1e-300:
        share = math.nextafter(share, 0.0)  # a float has few digits of it
    truth = 1 - probability + share
    if relation is Relation.REPLACE_ONE:
        rest = (categories - 2) * share
        return _pair([truth, share, rest], [share, truth, rest])
    others = (categories - 1) * share
    return _pair([truth, others], [1 / categories, 1 - 1 / categories])


def discrete_laplace(rate: float, moved: int) -> FinitePair:
    """Mass tanh(a/2) e^(-a|k|), and the same moved by a whole number.

    Outside the interval between the two centres the ratio is constant, so all outcomes
    there fall together: one more than it is moved by remain.
    """
    edge = 1 / (1 + math.exp(-rate))
    inside = math.tanh(rate / 2) * np.exp(-rate * np.arange(1, moved))
    q = np.concatenate([[edge], inside, [edge * math.exp(-rate * moved)]])
    return FinitePair(p=q[::-1].copy(), q=q)


def discrete_gaussian(stddev: float, moved: int) -> FinitePair:
    """Mass ~ e^(-k^2 / 2 s^2), and the same moved; cut below 1e-288."""
    reach = math.ceil(36.5 * stddev) + 1
    k = np.arange(-reach, reach + moved + 1)
    weights = np.exp(-0.5 * (k / stddev) ** 2)
    weights_moved = np.exp(-0.5 * ((k - moved) / stddev) ** 2)
    total = math.fsum(weights)
    return FinitePair(weights_moved / total, weights / total, (1e-288, 1e-288))


def approximate(epsilon: float, delta: float) -> FinitePair:
    """The pair that dominates every (epsilon, delta)-private release."""
    low = (1 - delta) / (1 + math.exp(min(epsilon, 700.0)))
    high = 1 - delta - low
    if epsilon > 700:
        low = 0.0
    return _pair([high, low, delta, 0.0], [low, high, 0.0, delta])


def _pair(p: list[float], q: list[float]) -> FinitePair:
    """Lists as a pair, outcomes that never happen left out."""
    first, second = np.array(p), np.array(q)
    kept = (first > 0) | (second > 0)
    return FinitePair(p=first[kept], q=second[kept])


def _missing(p: Array, lost: float) -> float:
    """What a distribution lacks to 1, unless it is rounding."""
    missing = 1 - math.fsum(p) - lost
    return missing if missing > rounding(len(p)) else 0.0


def rounding(outcomes: int) -> float:
    """How far from 1 so many masses may sum without anything being hidden."""
    return (outcomes + 4) * 2.0**-53
