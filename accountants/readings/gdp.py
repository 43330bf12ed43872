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
from typing import Any

from dp_accounting import DpEvent

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.bounds import DeltaBound, PrivacyBound
from dpkit.accountants.answers.errors import UnsupportedEvent, UnsupportedRelation
from dpkit.accountants.answers.relations import Relation, as_relation, shift
from dpkit.accountants.events.composing import flatten, validate
from dpkit.accountants.events.kinds import kind_of
from dpkit.accountants.pairs import gaussian

NAME = "gdp"
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


def epsilon(event: DpEvent, delta: float, *, relation: Relation | str) -> PrivacyBound:
    """Epsilon at delta of Gaussians, exactly; of Poisson-sampled ones, an estimate.

    Random allocation is bounded by an unsampled Gaussian, with a warning.

    Privacy: static regime (every parameter fixed before any output is seen).

    Args:
      event: what was released: Gaussians, plain, Poisson-sampled or allocated.
      delta: in (0, 1).
      relation: the neighbouring relation.

    Returns:
      Certified `lower` and `upper`, a rounding error apart; of sampled releases
      `estimate` alone, not certified.

    Raises:
      ValueError: a bad event or delta.
      UnsupportedEvent: a part that is no Gaussian.
      UnsupportedRelation: a part that has no reading under the relation.

    Example:
      >>> from dp_accounting import GaussianDpEvent
      >>> round(epsilon(GaussianDpEvent(1.0), 1e-5, relation="add_remove").upper, 6)
      4.377178

    Reference: Balle & Wang 2018, arXiv:1805.06530 (the number above).
    """
    relation = as_relation(relation)
    delta = checks.open_probability(delta=delta)
    validate(event)
    found = _read(event, relation)
    lower, upper = gaussian.epsilon(found.moved, delta)
    return PrivacyBound(delta=delta, relation=relation, **found.fields(lower, upper))


def delta_of(event: DpEvent, epsilon: float, *, relation: Relation | str) -> DeltaBound:
    """Delta at epsilon of Gaussians, exactly; of Poisson-sampled ones, an estimate.

    Privacy: static regime (every parameter fixed before any output is seen).

    Args:
      event: what was released: Gaussians, plain, Poisson-sampled or allocated.
      epsilon: at least 0, finite.
      relation: the neighbouring relation.

    Returns:
      As `epsilon`.

    Raises:
      ValueError: a bad event or epsilon.
      UnsupportedEvent: a part that is no Gaussian.
      UnsupportedRelation: a part that has no reading under the relation.

    Example:
      >>> from dp_accounting import GaussianDpEvent
      >>> delta_of(GaussianDpEvent(1.0), 0.0, relation="zero_out").upper.__round__(9)
      0.382924923
    """
    relation = as_relation(relation)
    epsilon = checks.non_negative(epsilon=epsilon)
    validate(event)
    found = _read(event, relation)
    lower, upper = gaussian.delta(found.moved, epsilon)
    return DeltaBound(epsilon=epsilon, relation=relation, **found.fields(lower, upper))


def supports(event: DpEvent, relation: Relation | str) -> bool:
    """Whether this accountant answers for the event under the relation.

    Args:
      event: a valid event.
      relation: the neighbouring relation.

    Returns:
      False where `epsilon` would raise UnsupportedEvent or UnsupportedRelation. True
      promises an answer, not a certified one.

    Example:
      >>> from dp_accounting import LaplaceDpEvent
      >>> supports(LaplaceDpEvent(1.0), "add_remove")
      False
    """
    validate(event)
    try:
        _read(event, as_relation(relation))
    except (UnsupportedEvent, UnsupportedRelation):
        return False
    return True


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
class _Reading:
    """The shift of a whole event, and what it is worth.

    Fields: moved (in standard deviations), limit (a part is a central limit), loose (a
    part is only dominated).
    """

    moved: float
    limit: bool
    loose: bool

    def fields(self, lower: float, upper: float) -> dict[str, Any]:
        """The fields of a bound, from what the Gaussian with this shift has."""
        warnings = (NO_AMPLIFICATION,) if self.loose else ()
        if self.limit:
            return {
                "estimate": upper,
                "method_estimate": NAME,
                "warnings": (UNDER_REPORTS, *warnings),
            }
        return {
            "lower": None if self.loose else lower,
            "estimate": upper,
            "upper": upper,
            "certified": True,
            "method_lower": None if self.loose else NAME,
            "method_upper": NAME,
            "method_estimate": NAME,
            "warnings": warnings,
        }


def _read(event: DpEvent, relation: Relation) -> _Reading:
    """The reading of a valid event."""
    moved, others = gaussian.total_shift(flatten(event), relation)
    shifts, limit, loose = [moved], False, False
    for release, count in others:
        kind = kind_of(release).name
        if kind == "poisson_gaussian":
            shifts.append(_limit(release, relation) * math.sqrt(count))
            limit = True
        elif kind == "random_allocation":
            dominating = unsampled_shift(NAME, release, relation) or 0.0
            shifts.append(dominating * math.sqrt(count))
            loose = True
        else:
            raise UnsupportedEvent(NAME, release, "it reads Gaussian noise only")
    return _Reading(math.hypot(*shifts), limit, loose)


def _limit(event: DpEvent, relation: Relation) -> float:
    """q sqrt(e^(1/s^2) - 1), one step's part of the limit."""
    if relation not in _DIRECTED:
        raise UnsupportedRelation(NAME, relation, event, _DIRECTED)
    fields = kind_of(event).read(event)
    exponent = fields["noise_multiplier"] ** -2.0
    if exponent > 700:
        return math.inf
    return fields["sampling_rate"] * math.sqrt(math.expm1(exponent))
