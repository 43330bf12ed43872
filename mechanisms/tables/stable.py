r"""Which values occur: a histogram of which only what is well above its noise is told.

Of every value that some row has, the count gets discrete Laplace noise of scale 1 /
epsilon, and the value is told if that reaches a threshold. A value that one unit alone
has comes out with probability at most delta, which is what its being there costs at
most; of the others the noisy count is told, an ordinary histogram.

Source: Korolova, Kenthapadi, Mishra, Ntoulas, "Releasing Search Queries and Clicks
Privately", 2009; Bun, Nissim, Stemmer, "Simultaneous Private Learning of Multiple
Concepts", 2016, arXiv:1511.08552 (stability).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from dp_accounting import DpEvent

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.errors import UnsupportedRelation
from dpkit.accountants.answers.relations import Relation, as_relation
from dpkit.accountants.events.own import ApproxDpEvent
from dpkit.mechanisms.noise import host_generator
from dpkit.mechanisms.protocol import Key


@dataclasses.dataclass(frozen=True, kw_only=True)
class StableHistogram:
    """The values of a column that many have, with noisy counts.

    Privacy: (epsilon, delta) under add_remove of one row. (A unit of several rows may
    be alone with several values: cap it to one first.)

    Args:
      epsilon: of the noise.
      delta: of a value that one row alone has.

    Example:
      >>> StableHistogram(epsilon=1.0, delta=1e-6).threshold
      15
    """

    epsilon: float
    delta: float

    draws_on_host: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuses numbers out of range."""
        checks.positive(epsilon=self.epsilon)
        checks.open_probability(delta=self.delta)

    @property
    def threshold(self) -> int:
        """The least noisy count that is told.

        1 + k for the least whole k with P(noise >= k) <= delta; the noise has
        P(noise >= k) = p^k / (1 + p), p = exp(-epsilon).
        """
        alone = math.log(1 / self.delta) - math.log1p(math.exp(-self.epsilon))
        return 1 + max(1, math.ceil(alone / self.epsilon * (1 + 1e-12)))

    def event(self, relation: Relation | str) -> DpEvent:
        """(epsilon, delta)."""
        relation = as_relation(relation)
        if relation is not Relation.ADD_REMOVE:
            raise UnsupportedRelation(
                "StableHistogram", relation, "values that one row has", ["add_remove"]
            )
        return ApproxDpEvent(self.epsilon, self.delta)

    def __call__(self, key: Key, counts: Mapping[str, int]) -> dict[str, float]:
        """The values above the threshold, sorted, with noisy counts.

        Args:
          key: used for this release alone.
          counts: private: how many rows have each value; 0 counts as absent.
        """
        seen = sorted(value for value, count in counts.items() if count > 0)
        generator = host_generator(key)
        # Discrete, on the integers: whole counts with whole noise.
        success = -math.expm1(-self.epsilon)
        first, second = (generator.geometric(success, size=len(seen)) for _ in range(2))
        noisy = np.array([counts[value] for value in seen]) + first - second
        kept = noisy >= self.threshold
        return {
            value: float(count)
            for value, count, told in zip(seen, noisy, kept, strict=True)
            if told
        }
