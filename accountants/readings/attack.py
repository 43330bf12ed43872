r"""What an attacker gains who tries to tell whether one record was there.

For a release with profile D(e) = sup_S P(S) - e^e Q(S), any real e, a test that accuses
wrongly with probability x accuses rightly with probability at most

    T(x) = min over e of e^e x + D(e),

where for e < 0 the profile is 1 - e^e + e^e D_reversed(-e); and the largest T(x) - x is
D(0), the total variation. Every e gives a valid bound, so a grid of them loses
tightness, never soundness.

Reference: Dong, Roth, Su, "Gaussian Differential Privacy", 2022, arXiv:1905.02383, for
trade-offs and profiles; Gomez et al., "(epsilon, delta) considered harmful", 2025,
arXiv:2503.10945, for reporting a Gaussian parameter.
"""

import dataclasses
import functools
import math
from collections.abc import Iterable

import numpy as np
from dp_accounting import DpEvent
from scipy import special

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.relations import Relation, as_relation
from dpkit.accountants.composition.rounds import Rounds
from dpkit.accountants.events.composing import sequential
from dpkit.accountants.events.warrant import warrant
from dpkit.accountants.pairs.arrays import Array
from dpkit.accountants.pairs.profiles import Profile, Side
from dpkit.accountants.readings import pld, rdp

_SMALLEST = 1e-12
_FLOOR = 1e-10
_POINTS = 2000
_LARGEST = 700.0
_ROUNDING = 1e-14
_RENYI_POINTS = 60


@dataclasses.dataclass(frozen=True)
class AttackRisk:
    """Bounds on every attack that guesses one record from all that was released.

    Attributes:
      losses: the grid of e >= 0, (n,).
      forward: D(e) of the data with the record against those without it, (n,).
      backward: the reverse, (n,).
      relation: the neighbouring relation.
      certified: whether every part of the event is proven.
      method: the accountant behind it.

    Example:
      >>> from dp_accounting import GaussianDpEvent
      >>> risk = attack_risk(GaussianDpEvent(1.0), relation="add_remove")
      >>> round(risk.advantage, 6), round(risk.tpr_at(0.01), 5)
      (0.382925, 0.09236)
    """

    losses: Array
    forward: Array
    backward: Array
    relation: Relation
    certified: bool
    method: str

    @property
    def advantage(self) -> float:
        """The largest true-positive rate less false-positive rate, from above."""
        return float(min(self.forward[0], self.backward[0], 1.0))

    @property
    def posterior(self) -> float:
        """How sure an attacker can be on average who starts from evens, from above."""
        return (1 + self.advantage) / 2

    def tpr_at(self, fpr: float) -> float:
        """The largest true-positive rate at a false-positive rate, from above.

        Args:
          fpr: in [0, 1].

        Returns:
          T(fpr), in [fpr, 1].
        """
        fpr = checks.probability(fpr=fpr)
        ahead = np.array(self.forward)
        if fpr > 0:
            ahead += np.exp(np.minimum(self.losses + math.log(fpr), _LARGEST))
        falls = np.exp(-self.losses)
        behind = falls * fpr + 1 - falls + falls * self.backward
        least = min(float(ahead.min()), float(behind.min())) * (1 + _ROUNDING)
        return min(1.0, max(fpr, least))

    @functools.cached_property
    def gaussian_parameter(self) -> float:
        """The smallest mu whose Gaussian profile is above D wherever D >= 1e-10.

        An estimate: below 1e-10 nothing is claimed. inf where D stays above that.
        """
        highest = np.maximum(self.forward, self.backward)
        shown = highest >= _FLOOR
        if not shown.any():
            return 0.0
        if shown[-1]:
            return math.inf
        e, wanted = self.losses[shown], highest[shown]

        def covers(mu: float) -> bool:
            first = special.log_ndtr(mu / 2 - e / mu)
            second = e + special.log_ndtr(-mu / 2 - e / mu)
            reached = np.exp(first) * -np.expm1(np.minimum(second - first, 0.0))
            return bool(np.all(reached >= wanted * (1 - 1e-9)))

        low, high = 1e-9, 1e3
        if not covers(high):
            return math.inf
        for _ in range(100):
            middle = math.sqrt(low * high)
            low, high = (low, middle) if covers(middle) else (middle, high)
        return high


def attack_risk(
    event: DpEvent | Iterable[DpEvent], *, relation: Relation | str
) -> AttackRisk:
    """Certified limits of membership attacks, once all of these events have happened.

    Privacy: static regime (every parameter fixed before any output is seen).

    Args:
      event: one event, or several that all touch the same data.
      relation: "add_remove", "replace_one" or "zero_out"; it has no default.

    Returns:
      The profile from above, with what follows from it.

    Raises:
      ValueError: a bad event or relation.
      UnsupportedEvent: a part that no accountant has a proof for.
      UnsupportedRelation: a part that has no proof under the relation.

    Example:
      >>> from dp_accounting import GaussianDpEvent
      >>> attack_risk(GaussianDpEvent(2.0), relation="zero_out").posterior < 0.6
      True
    """
    whole, relation = sequential(event), as_relation(relation)
    composes = pld.composes(whole, relation)
    profile = (_by_losses if composes else _by_renyi)(whole, relation)
    method = (pld.PLD if composes else rdp.RDP).name
    return AttackRisk(*profile, relation, warrant(whole).certified, method)


def _by_losses(event: DpEvent, relation: Relation) -> tuple[Array, Array, Array]:
    """The composed profile, from the privacy loss distribution."""
    rounds = Rounds(event, relation, (1,), _SMALLEST)
    profile = rounds.profile()
    losses = _grid(_end(profile), _POINTS)
    return losses, _capped(profile.forward, losses), _capped(profile.backward, losses)


def _by_renyi(event: DpEvent, relation: Relation) -> tuple[Array, Array, Array]:
    """The profile that the Rényi accountant proves, the same both ways."""

    def delta(e: float) -> float:
        upper = rdp.delta_of(event, e, relation=relation).upper
        return 1.0 if upper is None else upper

    end = 1.0
    while delta(end) > _SMALLEST and end < 1e5:
        end *= 2
    losses = _grid(end, _RENYI_POINTS)
    values = np.array([delta(float(e)) for e in losses])
    return losses, values, values


def _end(profile: Profile) -> float:
    """A loss beyond which both profiles are negligible or constant."""
    end = 1.0
    while end < 1e5:
        at = np.array([end, 1e5])
        pairs = profile.forward(at), profile.backward(at)
        if all(near - far <= _SMALLEST for near, far in pairs):
            break
        end *= 2
    return end


def _grid(end: float, points: int) -> Array:
    """Losses from 0 to `end`, close together near 0 as well."""
    near = np.geomspace(1e-6, end, points // 2)
    return np.unique(np.concatenate([[0.0], near, np.linspace(0.0, end, points // 2)]))


def _capped(side: Side, losses: Array) -> Array:
    """A profile as probabilities."""
    return np.clip(side(losses), 0.0, 1.0)
