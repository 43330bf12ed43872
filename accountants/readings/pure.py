r"""Basic composition: epsilons add up, deltas add up; the only answer at delta = 0.

It reads events that are (epsilon, delta)-private by themselves, sums exactly, and is
the smallest bound for a few releases of pure noise.

Reference: Dwork, McSherry, Nissim, Smith, "Calibrating Noise to Sensitivity in Private
Data Analysis", 2006.
"""

import math

from dp_accounting import DpEvent

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.exact import Number, above, exact
from dpkit.accountants.answers.relations import Relation
from dpkit.accountants.pairs.laws import composed_guarantee
from dpkit.accountants.readings.reading import Answer, Reading

Guarantee = tuple[Number, Number]


class Basic(Reading[Guarantee]):
    """Sums of epsilons and of deltas, in any regime; at delta = 0 too.

    Example:
      >>> from dp_accounting import LaplaceDpEvent
      >>> epsilon(LaplaceDpEvent(2.0), 0, relation="replace_one").upper
      1.0
    """

    name = "pure"

    def check_delta(self, delta: float) -> float:
        """In [0, 1)."""
        return checks.half_open_probability(delta=delta)

    def read(self, event: DpEvent, relation: Relation) -> Guarantee:
        """The sums."""
        return composed_guarantee(event, relation)

    def epsilon_at(self, read: Guarantee, delta: float, *, lower: bool) -> Answer:
        """The sum of the epsilons; inf if the deltas exceed `delta`."""
        total, spent = read
        return Answer(upper=above(total) if spent <= exact(delta) else math.inf)

    def delta_at(self, read: Guarantee, epsilon: float, *, lower: bool) -> Answer:
        """The sum of the deltas; 1 if the epsilons exceed `epsilon`."""
        total, spent = read
        within = total <= exact(epsilon) and spent < 1
        return Answer(upper=above(spent) if within else 1.0)


PURE = Basic()
epsilon, delta_of, supports = PURE.epsilon, PURE.delta_of, PURE.supports
guarantee = composed_guarantee
