r"""A private choice of the best candidates: the exponential mechanism.

A candidate r with score q_r is chosen with P(r) ~ exp(epsilon q_r / (2 Delta)), which
is what argmax(q_r + Gumbel(2 Delta / epsilon)) does; the k best under one draw of noise
are k choices without replacement (Durfee and Rogers, 2019, arXiv:1905.04273). The
factor 2 stays: scores are not taken to be monotone.

Source: McSherry and Talwar, "Mechanism Design via Differential Privacy", 2007; bounded
range: Dong, Durfee, Rogers, "Optimal Differential Privacy Composition for Exponential
Mechanisms", 2019, arXiv:1909.13830.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np
from dp_accounting import DpEvent

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.relations import Relation, as_relation
from dpkit.accountants.events import repeat
from dpkit.accountants.events.own import BoundedRangeDpEvent
from dpkit.mechanisms.noise import host_generator
from dpkit.mechanisms.protocol import Key


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selection:
    """Chooses candidates by their scores.

    Privacy: `picks` choices, each epsilon-bounded-range (and so epsilon-DP), where one
    unit moves every score by at most `sensitivity` under add_remove; under replace_one
    by at most twice that, which costs twice the epsilon.

    Args:
      epsilon: of one choice.
      sensitivity: the most that one unit moves a score.
      picks: how many candidates are chosen.

    Raises:
      ValueError: a number out of range.

    Example:
      >>> import jax
      >>> sure = Selection(epsilon=50.0, sensitivity=1.0)
      >>> sure(jax.random.key(0), np.array([0.0, 9.0, 3.0]))
      (1,)
    """

    epsilon: float
    sensitivity: float = 1.0
    picks: int = 1

    draws_on_host: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuses numbers out of range."""
        checks.positive(epsilon=self.epsilon)
        checks.positive(sensitivity=self.sensitivity)
        checks.integer_at_least(1, picks=self.picks)

    def event(self, relation: Relation | str) -> DpEvent:
        """Bounded range, once a choice."""
        apart = 2 if as_relation(relation) is Relation.REPLACE_ONE else 1
        return repeat(BoundedRangeDpEvent(apart * self.epsilon), self.picks)

    def __call__(self, key: Key, scores: Any) -> tuple[int, ...]:
        """The numbers of the chosen, the best first.

        Args:
          key: used for this choice alone.
          scores: private, (candidates,); what is no number counts as the lowest.

        Raises:
          ValueError: fewer candidates than picks.
        """
        return tuple(int(n) for n in self.choices(key, np.asarray(scores)[None])[0])

    def choices(self, key: Key, scores: np.ndarray) -> np.ndarray:
        """Independent choices, (draws, picks), from scores (draws, candidates)."""
        if scores.shape[-1] < self.picks:
            raise ValueError(
                f"scores of {scores.shape[-1]} candidates: needed at least {self.picks}"
            )
        with np.errstate(all="ignore"):
            values = np.nan_to_num(scores.astype(np.float64), nan=-np.inf)
            # Shifted to the best, so that the noise isn't rounded away far from 0.
            values = values - values.max(axis=-1, keepdims=True)
        values = np.nan_to_num(values, nan=0.0, neginf=-1e300)  # all alike: any of them
        scale = 2 * self.sensitivity / self.epsilon
        noise = host_generator(key).gumbel(scale=scale, size=values.shape)
        order = np.argsort(-(values + noise), axis=-1, kind="stable")
        return order[..., : self.picks]
