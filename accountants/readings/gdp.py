r"""The Gaussian-DP accountant: one number mu, exact for Gaussians, else an estimate.

A release is mu-GDP if telling two neighbours apart is no easier than telling N(mu, 1)
from N(0, 1). Gaussians with noise s_i compose to exactly

    mu^2 = sum of (shift / s_i)^2,

and the answers come from the closed form of pairs/gaussian.py, certified both ways.
Sampled Gaussians only tend to mu^2 = T q^2 (e^(1/s^2) - 1) as T grows (a central limit
theorem). Their tails are heavier, so this under-reports: it is given as an estimate,
with a warning, and never as a bound.

Reference: Dong, Roth, Su, "Gaussian Differential Privacy", 2019, arXiv:1905.02383; Bu,
Dong, Long, Su, "Deep Learning with Gaussian Differential Privacy", 2019,
arXiv:1911.11607 (the limit).
"""

import dataclasses
import math
from typing import Any

from dp_accounting import DpEvent
from scipy import optimize

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.errors import UnsupportedEvent
from dpkit.accountants.answers.relations import Relation
from dpkit.accountants.events.composing import flatten
from dpkit.accountants.pairs import gaussian
from dpkit.accountants.pairs.laws import law_of
from dpkit.accountants.readings.reading import Answer, Reading

UNDER_REPORTS = "a central limit: it under-reports sampled releases"
_ROUNDING = 1e-12
NO_AMPLIFICATION = "no amplification: a sampled release is counted as an unsampled one"


class GaussianDp(Reading["Shift"]):
    """Exact for Gaussians, both ways; an estimate for Poisson-sampled ones.

    Other sampling is bounded by an unsampled Gaussian, with a warning.

    Example:
      >>> from dp_accounting import GaussianDpEvent
      >>> round(epsilon(GaussianDpEvent(1.0), 1e-5, relation="add_remove").upper, 6)
      4.377178

    Reference: Balle & Wang 2018, arXiv:1805.06530 (the number above).
    """

    name = "gdp"

    def read(self, event: DpEvent, relation: Relation) -> "Shift":
        """The shift of everything together."""
        shift, others = gaussian.total_shift(flatten(event), relation)
        shifts, limit, loose = [shift], False, False
        for release, count in others:
            law = law_of(release, relation)
            tends_to, dominated_by = law.limit(), law.shift()
            if tends_to is not None:
                shifts.append(tends_to * math.sqrt(count))
                limit = True
            elif dominated_by is not None:
                shifts.append(dominated_by * math.sqrt(count))
                loose = True
            else:
                raise UnsupportedEvent(self.name, release, "it reads Gaussians only")
        return Shift(math.hypot(*shifts), limit, loose)

    def epsilon_at(self, read: "Shift", delta: float, *, lower: bool) -> Answer:
        """By the closed form."""
        return read.answer(*gaussian.epsilon(read.shift, delta))

    def delta_at(self, read: "Shift", epsilon: float, *, lower: bool) -> Answer:
        """By the closed form."""
        return read.answer(*gaussian.delta(read.shift, epsilon))

    def worth_asking(self, event: DpEvent, delta: float, known: bool) -> bool:
        """Never: where it is exact, the loss distributions use the same form."""
        return False


@dataclasses.dataclass(frozen=True)
class Shift:
    """The shift of a whole event, and what it is worth.

    Example:
      >>> Shift(1.0, limit=True, loose=False).answer(0.5, 0.6).upper is None
      True
    """

    shift: float  # in standard deviations
    limit: bool  # whether a part is a central limit
    loose: bool  # whether a part is only dominated

    def answer(self, lower: float, upper: float) -> Answer:
        """What the Gaussian with this shift has, as far as it bounds the event."""
        warnings = (NO_AMPLIFICATION,) if self.loose else ()
        if self.limit:
            return Answer(estimate=upper, warnings=(UNDER_REPORTS, *warnings))
        least = None if self.loose else lower
        return Answer(lower=least, estimate=upper, upper=upper, warnings=warnings)


def gdp_of_budget(epsilon: float, delta: float) -> float:
    r"""The mu that a release of Gaussians alone may have: all of (epsilon, delta).

    The root of Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu) = delta, less
    what rounding may take: 1e-12 of it, more where epsilon is small. Gaussians whose
    shifts (1 / noise multiplier, or twice that if a record is replaced) have squares
    that sum to mu^2 have a certified epsilon within the budget.

    Args:
      epsilon: in [1e-4, 1e6]; below, rounding would take too much.
      delta: in [1e-250, 1).

    Returns:
      mu, which is to be spent as a sum of squares.

    Raises:
      ValueError, TypeError: a budget out of range.

    Example:
      >>> round(gdp_of_budget(1.0, 1e-6), 9)
      0.236704381

    Reference: Balle & Wang 2018, arXiv:1805.06530, Theorem 8; Dong, Roth, Su 2019,
    arXiv:1905.02383, Corollary 1.
    """
    if not 1e-4 <= checks.positive(epsilon=epsilon) <= 1e6:
        raise ValueError(f"epsilon={epsilon!r} must be in [1e-4, 1e6]")
    if checks.open_probability(delta=delta) < 1e-250:
        raise ValueError(f"delta={delta!r} must be at least 1e-250")

    def excess(exponent: float) -> float:
        """By how much a mu passes the budget; proven, so by its upper side."""
        high = gaussian.log_delta(math.exp(exponent), epsilon)[1]
        return max(high, -1e300) - math.log(delta)

    ends = math.log(1e-260), math.log(1e4)
    root: Any = optimize.brentq(excess, *ends, xtol=1e-15)
    mu, less = math.exp(root), _ROUNDING
    while True:
        low, high = gaussian.epsilon(mu, delta)
        if high + (high - low) <= epsilon:  # so also for sums that round elsewhere
            return mu
        mu, less = mu * (1 - less), 2 * less


GDP = GaussianDp()
epsilon, delta_of, supports = GDP.epsilon, GDP.delta_of, GDP.supports
