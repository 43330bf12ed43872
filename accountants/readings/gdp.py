r"""The Gaussian-DP accountant: one number mu, exact for Gaussians, else an estimate.

A release is mu-GDP if telling two neighbours apart is no easier than telling N(mu, 1)
from N(0, 1). Gaussians with noise s_i compose to exactly

    mu^2 = sum of (shift / s_i)^2,

and the answers come from the closed form of exact_gaussian.py, certified both ways.
Sampled Gaussians only tend to mu^2 = T q^2 (e^(1/s^2) - 1) as T grows (a central limit
theorem). Their tails are heavier, so this under-reports: it is given as an estimate,
with a warning, and never as a bound.

Reference: Dong, Roth, Su, "Gaussian Differential Privacy", 2019, arXiv:1905.02383; Bu,
Dong, Long, Su, "Deep Learning with Gaussian Differential Privacy", 2019,
arXiv:1911.11607 (the limit).
"""

import dataclasses
import math

from dp_accounting import DpEvent

from dpkit.accountants.answers.errors import UnsupportedEvent, UnsupportedRelation
from dpkit.accountants.answers.relations import Relation, shift
from dpkit.accountants.events.composing import flatten
from dpkit.accountants.events.kinds import kind_of
from dpkit.accountants.pairs import gaussian
from dpkit.accountants.readings.reading import Answer, Reading

UNDER_REPORTS = "a central limit: it under-reports sampled releases"
NO_AMPLIFICATION = "no amplification: a sampled release is counted as an unsampled one"

_DIRECTED = (Relation.ADD_REMOVE, Relation.ZERO_OUT)
_UNSAMPLED: dict[str, tuple[Relation, ...]] = {
    "gaussian": tuple(Relation),
    "poisson_gaussian": tuple(Relation),
    "wor_gaussian": (Relation.REPLACE_ONE,),
    "mixture_gaussian": _DIRECTED,
    "random_allocation": _DIRECTED,
}


class GaussianDp(Reading["Shift"]):
    """Exact for Gaussians, both ways; an estimate for Poisson-sampled ones.

    Random allocation is bounded by an unsampled Gaussian, with a warning.

    Example:
      >>> from dp_accounting import GaussianDpEvent
      >>> round(epsilon(GaussianDpEvent(1.0), 1e-5, relation="add_remove").upper, 6)
      4.377178

    Reference: Balle & Wang 2018, arXiv:1805.06530 (the number above).
    """

    name = "gdp"

    def read(self, event: DpEvent, relation: Relation) -> "Shift":
        """The shift of everything together."""
        return _read(event, relation)

    def epsilon_at(self, read: "Shift", delta: float, *, lower: bool) -> Answer:
        """By the closed form."""
        return read.answer(*gaussian.epsilon(read.shift, delta))

    def delta_at(self, read: "Shift", epsilon: float, *, lower: bool) -> Answer:
        """By the closed form."""
        return read.answer(*gaussian.delta(read.shift, epsilon))

    def worth_asking(self, event: DpEvent, delta: float, known: bool) -> bool:
        """Never: where it is exact, the loss distributions use the same form."""
        return False


def unsampled_shift(
    accountant: str, event: DpEvent, relation: Relation
) -> float | None:
    """The shift m of a Gaussian N(m, 1) that dominates a sampled one.

    Given what was sampled, a release is a plain Gaussian or the same on both sides.
    Divergences are quasi-convex, so the mixture over what is sampled is dominated by
    its worst component. A record that is allocated to k steps is in at most k of them,
    so its component has shift sqrt(k).

    Args:
      accountant: whose name a refusal carries.
      event: one release of `flatten`.
      relation: the neighbouring relation.

    Returns:
      m in standard deviations of the noise, or None for what is no Gaussian.

    Raises:
      UnsupportedRelation: a Gaussian that has no proof under the relation.

    Example:
      >>> from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
      >>> step = PoissonSampledDpEvent(0.01, GaussianDpEvent(2.0))
      >>> unsampled_shift("zcdp", step, Relation.ADD_REMOVE)
      0.5

    Reference: van Erven & Harremoës, "Rényi Divergence and Kullback-Leibler
    Divergence", 2012, arXiv:1206.2459, Theorem 13 (quasi-convexity).
    """
    kind = kind_of(event)
    if kind.name not in _UNSAMPLED:
        return None
    if relation not in _UNSAMPLED[kind.name]:
        raise UnsupportedRelation(accountant, relation, event, _UNSAMPLED[kind.name])
    fields = kind.read(event)
    radii = float(shift(relation))
    if kind.name == "mixture_gaussian":
        pairs = zip(fields["shifts"], fields["probabilities"], strict=True)
        radii = max(moved for moved, share in pairs if share > 0)
    if kind.name == "random_allocation":
        chosen, last = fields["selected"], fields["last_steps"]
        radii = math.sqrt(fields["epochs"] * chosen + min(chosen, last))
    return radii / fields["noise_multiplier"]


@dataclasses.dataclass(frozen=True)
class Shift:
    """The shift of a whole event, and what it is worth.

    Attributes:
      shift: in standard deviations.
      limit: whether a part is a central limit.
      loose: whether a part is only dominated.

    Example:
      >>> Shift(1.0, limit=True, loose=False).answer(0.5, 0.6).upper is None
      True
    """

    shift: float
    limit: bool
    loose: bool

    def answer(self, lower: float, upper: float) -> Answer:
        """What the Gaussian with this shift has, as far as it bounds the event."""
        warnings = (NO_AMPLIFICATION,) if self.loose else ()
        if self.limit:
            return Answer(estimate=upper, warnings=(UNDER_REPORTS, *warnings))
        least = None if self.loose else lower
        return Answer(lower=least, estimate=upper, upper=upper, warnings=warnings)


def _read(event: DpEvent, relation: Relation) -> Shift:
    """The reading of a valid event."""
    moved, others = gaussian.total_shift(flatten(event), relation)
    shifts, limit, loose = [moved], False, False
    for release, count in others:
        kind = kind_of(release).name
        if kind == "poisson_gaussian":
            shifts.append(_limit(release, relation) * math.sqrt(count))
            limit = True
        elif kind == "random_allocation":
            dominating = unsampled_shift(GaussianDp.name, release, relation) or 0.0
            shifts.append(dominating * math.sqrt(count))
            loose = True
        else:
            raise UnsupportedEvent(
                GaussianDp.name, release, "it reads Gaussian noise only"
            )
    return Shift(math.hypot(*shifts), limit, loose)


def _limit(event: DpEvent, relation: Relation) -> float:
    """q sqrt(e^(1/s^2) - 1), one step's part of the limit."""
    if relation not in _DIRECTED:
        raise UnsupportedRelation(GaussianDp.name, relation, event, _DIRECTED)
    fields = kind_of(event).read(event)
    exponent = fields["noise_multiplier"] ** -2.0
    if exponent > 700:
        return math.inf
    return fields["sampling_rate"] * math.sqrt(math.expm1(exponent))


GDP = GaussianDp()
epsilon, delta_of, supports = GDP.epsilon, GDP.delta_of, GDP.supports
