"""The pair of distributions by which the Edgeworth accountant reads each kind of event.

Events give noise in contribution radii. Replacing a record moves a sum by two of them,
which is applied here and in exact_gaussian.py: s / 2 and b / 2. Kinds whose tilted law
moves to where there were no points yet give their points for any reach (`GROWING`);
the others are finite pairs (`PAIRS`).
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from dp_accounting import DpEvent
from numpy.typing import NDArray

from dpkit.accountants.answers.errors import UnsupportedEvent, UnsupportedRelation
from dpkit.accountants.answers.relations import Relation, shift
from dpkit.accountants.events.kinds import kind_of
from dpkit.accountants.events.warrant import check_relation
from dpkit.accountants.pairs import finite, points
from dpkit.accountants.pairs.finite import FinitePair
from dpkit.accountants.pairs.pld_profiles import RELATIONS

Array = NDArray[Any]
Points = Callable[[float], tuple[Array, Array]]
NAME = "edgeworth"


def check_supported(event: DpEvent, relation: Relation) -> None:
    """Refuse a release without a known pair, or without a proof under the relation."""
    name = kind_of(event).name
    allowed = RELATIONS.get(name, tuple(Relation))
    if relation not in allowed:
        raise UnsupportedRelation(NAME, relation, event, allowed)
    check_relation(NAME, event, relation)
    known = name in PAIRS or name in GROWING or name in ("gaussian", "non_private")
    one_sided = name == "pmf_pair" and relation is Relation.REPLACE_ONE
    if not known or one_sided:
        raise UnsupportedEvent(NAME, event, "use accountant='pld' or 'rdp'")


def _poisson_gaussian(fields: Mapping[str, Any], relation: Relation) -> Points:
    """Sampled Gaussian noise, a record replaced."""
    return functools.partial(
        points.sampled_gaussian_replaced,
        fields["noise_multiplier"],
        fields["sampling_rate"],
    )


def _laplace(fields: Mapping[str, Any], relation: Relation) -> Points:
    """Laplace noise, sampled or not, moved by one radius or two."""
    scale, rate = fields["scale"] / shift(relation), fields.get("sampling_rate", 1.0)
    return functools.partial(points.sampled_laplace, scale, rate)


def _mixture_gaussian(fields: Mapping[str, Any], relation: Relation) -> Points:
    """Gaussian noise under a random shift."""
    return functools.partial(
        points.mixture,
        fields["noise_multiplier"],
        np.array(fields["shifts"], dtype=float),
        np.array(fields["probabilities"], dtype=float),
    )


def _discrete_gaussian(fields: Mapping[str, Any], relation: Relation) -> FinitePair:
    """Its finite pair."""
    return finite.discrete_gaussian(fields["stddev"], fields["sensitivity"], relation)


def _discrete_laplace(fields: Mapping[str, Any], relation: Relation) -> FinitePair:
    """Its finite pair."""
    return finite.discrete_laplace(fields["rate"], fields["sensitivity"], relation)


def _randomized_response(fields: Mapping[str, Any], relation: Relation) -> FinitePair:
    """Its finite pair."""
    return finite.randomized_response(
        fields["probability"], fields["categories"], relation
    )


def _pmf_pair(fields: Mapping[str, Any], relation: Relation) -> FinitePair:
    """The pair that the mechanism gave."""
    return FinitePair(p=np.array(fields["p"]), q=np.array(fields["q"]))


def _approx_dp(fields: Mapping[str, Any], relation: Relation) -> FinitePair:
    """The pair that dominates every release with this guarantee."""
    return finite.approximate(fields["epsilon"], fields.get("delta", 0.0))


GROWING: dict[str, Callable[[Mapping[str, Any], Relation], Points]] = {
    "poisson_gaussian": _poisson_gaussian,
    "laplace": _laplace,
    "poisson_laplace": _laplace,
    "mixture_gaussian": _mixture_gaussian,
}
PAIRS: dict[str, Callable[[Mapping[str, Any], Relation], FinitePair]] = {
    "discrete_gaussian": _discrete_gaussian,
    "discrete_laplace": _discrete_laplace,
    "randomized_response": _randomized_response,
    "pmf_pair": _pmf_pair,
    "approx_dp": _approx_dp,
    "pure": _approx_dp,
    "bounded_range": _approx_dp,
}
