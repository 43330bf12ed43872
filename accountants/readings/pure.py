r"""Basic composition: epsilons add up, deltas add up; the only answer at delta = 0.

It reads events that are (epsilon, delta)-private by themselves, sums outwards, and is
the smallest bound for a few releases of pure noise.

Reference: Dwork, McSherry, Nissim, Smith, "Calibrating Noise to Sensitivity in Private
Data Analysis", 2006.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from dp_accounting import DpEvent

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.errors import UnsupportedEvent, UnsupportedRelation
from dpkit.accountants.answers.relations import Relation, shift
from dpkit.accountants.events.composing import flatten
from dpkit.accountants.events.kinds import kind_of
from dpkit.accountants.events.own import ParallelDpEvent
from dpkit.accountants.events.warrant import check_relation
from dpkit.accountants.pairs import finite
from dpkit.accountants.pairs.finite import FinitePair
from dpkit.accountants.pairs.pld_profiles import RELATIONS
from dpkit.accountants.readings.reading import Answer, Reading

_PAD = 1 + 1e-13
Guarantee = tuple[float, float]


class Basic(Reading[Guarantee]):
    """Sums of epsilons and of deltas, in any regime; at delta = 0 too.

    Example:
      >>> from dp_accounting import LaplaceDpEvent
      >>> epsilon(LaplaceDpEvent(2.0), 0, relation="replace_one").upper.__round__(9)
      1.0
    """

    name = "pure"

    def check_delta(self, delta: float) -> float:
        """In [0, 1)."""
        return checks.half_open_probability(delta=delta)

    def read(self, event: DpEvent, relation: Relation) -> Guarantee:
        """The sums."""
        return guarantee(event, relation)

    def epsilon_at(self, read: Guarantee, delta: float, *, lower: bool) -> Answer:
        """The sum of the epsilons; inf if the deltas exceed `delta`."""
        total, spent = read
        return Answer(upper=total if spent <= delta else math.inf)

    def delta_at(self, read: Guarantee, epsilon: float, *, lower: bool) -> Answer:
        """The sum of the deltas; 1 if the epsilons exceed `epsilon`."""
        total, spent = read
        return Answer(upper=min(1.0, spent) if total <= epsilon else 1.0)


PURE = Basic()
epsilon, delta_of, supports = PURE.epsilon, PURE.delta_of, PURE.supports


def guarantee(event: DpEvent, relation: Relation) -> Guarantee:
    """(epsilon, delta) of a whole valid event, summed outwards."""
    parts = [(_single(part, relation), count) for part, count in flatten(event)]
    epsilons = math.fsum(count * part[0] for part, count in parts)
    deltas = math.fsum(count * part[1] for part, count in parts)
    return epsilons * (1 + 4e-16), deltas * (1 + 4e-16)


def _single(event: DpEvent, relation: Relation) -> Guarantee:
    """(epsilon, delta) of one release."""
    kind = kind_of(event)
    if isinstance(event, ParallelDpEvent):
        check_relation(Basic.name, event, relation)
        children = [guarantee(child, relation) for child in event.children]
        return max(e for e, _ in children), max(d for _, d in children)
    if kind.name not in _PURE:
        raise UnsupportedEvent(Basic.name, event, "it is not pure by itself")
    allowed = RELATIONS.get(kind.name, tuple(Relation))
    if relation not in allowed:
        raise UnsupportedRelation(Basic.name, relation, event, allowed)
    check_relation(Basic.name, event, relation)
    return _PURE[kind.name](kind.read(event), relation)


def _stated(fields: Mapping[str, Any], relation: Relation) -> Guarantee:
    """What the event states."""
    return fields["epsilon"], fields.get("delta", 0.0)


def _laplace(fields: Mapping[str, Any], relation: Relation) -> Guarantee:
    """Shift over scale."""
    return shift(relation) / fields["scale"] * _PAD, 0.0


def _poisson_laplace(fields: Mapping[str, Any], relation: Relation) -> Guarantee:
    """log(1 + q (e^(1/b) - 1)), amplification of pure privacy by sampling."""
    rate, width = fields["sampling_rate"], 1 / fields["scale"]
    stay = math.log1p(-rate) if rate < 1 else -math.inf
    return float(np.logaddexp(stay, math.log(rate) + width)) * _PAD, 0.0


def _discrete_laplace(fields: Mapping[str, Any], relation: Relation) -> Guarantee:
    """Rate times shift."""
    return fields["rate"] * fields["sensitivity"] * shift(relation) * _PAD, 0.0


def _randomized_response(fields: Mapping[str, Any], relation: Relation) -> Guarantee:
    """The largest log-ratio of its pair."""
    return _of_pair(
        finite.randomized_response(
            fields["probability"], fields["categories"], relation
        )
    )


def _pmf_pair(fields: Mapping[str, Any], relation: Relation) -> Guarantee:
    """The largest log-ratio, and the mass of infinite loss as delta."""
    return _of_pair(FinitePair(p=np.array(fields["p"]), q=np.array(fields["q"])))


def _of_pair(pair: FinitePair) -> Guarantee:
    """The largest finite loss of a finite pair, and the mass of the rest."""
    return pair.pure_epsilon() * _PAD, max(pair.infinite)


_PURE: dict[str, Callable[[Mapping[str, Any], Relation], Guarantee]] = {
    "pure": _stated,
    "approx_dp": _stated,
    "bounded_range": _stated,
    "laplace": _laplace,
    "poisson_laplace": _poisson_laplace,
    "discrete_laplace": _discrete_laplace,
    "randomized_response": _randomized_response,
    "pmf_pair": _pmf_pair,
    "non_private": lambda fields, relation: (math.inf, 0.0),
}
