r"""Choosing the best of a public list by private scores: the exponential mechanism.

P(r) ~ exp(epsilon q_r / (2 Delta)), drawn as the largest of q_r + G_r, G_r Gumbel of
scale 2 Delta / epsilon. If one record moves every score by at most Delta, the log of
P(r) / P'(r) spans at most epsilon over all r. That is less than epsilon-private, and
accounted as such (`BoundedRangeDpEvent`). The K largest of one draw are K draws one
after another, each from what is left (Durfee and Rogers, 2019, arXiv:1905.04273).

The factor 2 stays: scores that all move the same way would do with half the noise, and
distances between tables, which these are for, do not.

Source: McSherry and Talwar, "Mechanism Design via Differential Privacy", 2007; Dong,
Durfee, Rogers, "Optimal Differential Privacy Composition for Exponential Mechanisms",
2020, arXiv:1909.13830.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np
from dp_accounting import DpEvent

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.relations import Relation, as_relation
from dpkit.accountants.events.composing import repeat
from dpkit.accountants.events.own import BoundedRangeDpEvent
from dpkit.mechanisms.noise import host_generator
from dpkit.mechanisms.protocol import Key, static


@static
@dataclasses.dataclass(frozen=True, kw_only=True)
class Selection:
    r"""The exponential mechanism: one candidate, or several at once.

    Privacy: `picks` releases of bounded range epsilon, one after another, where every
    score moves by at most `sensitivity` if a record comes or goes. Under replace_one
    epsilon grows by `replaced_sensitivity / sensitivity`.

    Args:
      epsilon: of one pick; above 0.
      sensitivity: Delta, the most that any score moves; above 0, in its unit.
      picks: K, how many different candidates are chosen.
      replaced_sensitivity: the most that any score moves if a record is replaced; None:
        twice the sensitivity, which is always enough.

    Raises:
      ValueError, TypeError: a field out of range.

    Example:
      >>> import jax
      >>> best = Selection(epsilon=0.5, sensitivity=1.0)
      >>> best.event("add_remove")
      BoundedRangeDpEvent(epsilon=0.5)
      >>> best.choose(jax.random.key(0), [10.0, 500.0, 20.0])
      (1,)
    """

    epsilon: float
    sensitivity: float
    picks: int = 1
    replaced_sensitivity: float | None = None

    draws_on_host: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuses what is no number."""
        checks.noise(epsilon=self.epsilon)
        checks.noise(sensitivity=self.sensitivity)
        checks.integer_at_least(1, picks=self.picks)
        far = self.replaced_sensitivity
        if far is not None and checks.positive(replaced_sensitivity=far) > (
            2 * self.sensitivity
        ):
            raise ValueError(
                f"replaced_sensitivity={far}: needed at most twice "
                f"sensitivity={self.sensitivity}"
            )

    def event(self, relation: Relation | str) -> DpEvent:
        """What all picks cost."""
        factor = 1.0
        if as_relation(relation) is Relation.REPLACE_ONE:
            far = self.replaced_sensitivity
            factor = 2.0 if far is None else far / self.sensitivity
        return repeat(BoundedRangeDpEvent(self.epsilon * factor), self.picks)

    def choose(self, key: Key, scores: Any) -> tuple[int, ...]:
        """The chosen candidates, the first pick first.

        Args:
          key: used for this release alone.
          scores: private, (candidates,); the larger, the likelier. One that is not
            finite is never chosen before one that is; which are not must be public.

        Raises:
          TypeError: a legacy key, a tracer, or scores that are not real numbers.
          ValueError: fewer candidates than picks, or no list.
        """
        scores = np.asarray(scores)
        if scores.ndim != 1:
            raise ValueError(f"scores of shape {scores.shape}: needed (candidates,)")
        return tuple(self.privatize(key, scores).tolist())

    def privatize(self, key: Key, scores: Any) -> np.ndarray:
        """The same for scores (..., candidates): (..., picks) int64.

        Each row along the last axis is a release of its own.
        """
        scores = np.asarray(scores)
        if scores.dtype.kind not in "iuf":
            raise TypeError(f"scores={scores.dtype}: needed real numbers")
        if scores.shape[-1:] < (self.picks,):
            raise ValueError(
                f"scores of shape {scores.shape}: needed picks={self.picks} candidates"
            )
        noisy = self._shifted(scores.astype(np.float64))
        noisy += _gumbel(host_generator(key), noisy.shape)
        # Stable, so that equals, and what can't be chosen, come by their numbers.
        return np.argsort(-noisy, axis=-1, kind="stable")[..., : self.picks]

    def _shifted(self, scores: np.ndarray) -> np.ndarray:
        """Scores below the largest, in scales of the noise; -inf for what is none."""
        usable = np.isfinite(scores)
        least = -np.finfo(np.float64).max
        low = np.where(usable, scores, least)
        with np.errstate(over="ignore"):  # no warning may depend on a score
            below = low - low.max(axis=-1, keepdims=True)
            below = np.maximum(below * (self.epsilon / 2 / self.sensitivity), least)
        return np.where(usable, below, -np.inf)


def _gumbel(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Standard Gumbel numbers, -log E for E exponential, fine in both tails.

    From 128 bits each: E is as small as 2^-129, so that no candidate within 89 scales
    of the best is impossible; by 53 bits those beyond 37 would be.
    """
    words = generator.integers(2**64, size=(2, *shape), dtype=np.uint64)
    upper = words[0] >= 2**63
    high, low = np.where(upper, ~words, words).astype(np.float64)
    near = (high + (low + 0.5) * 2.0**-64) * 2.0**-64
    return -np.log(np.where(upper, -np.log(near), -np.log1p(-near)))
