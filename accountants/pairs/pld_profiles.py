"""The privacy profile of each kind of event, under each relation that has a proof.

Events give noise in contribution radii. Replacing a record moves a sum by two of them,
which is applied here, in one place: s / 2 and b / 2.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from dp_accounting import DpEvent

from dpkit.accountants.answers.errors import UnsupportedEvent, UnsupportedRelation
from dpkit.accountants.answers.relations import Relation, shift
from dpkit.accountants.events.allocation import (
    Part,
    RandomAllocationDpEvent,
    parts,
)
from dpkit.accountants.events.kinds import kind_of
from dpkit.accountants.events.warrant import check_relation
from dpkit.accountants.pairs import finite, profiles
from dpkit.accountants.pairs import noise as noise_pairs
from dpkit.accountants.pairs.allocation import law as allocation_law
from dpkit.accountants.pairs.allocation.law import (
    LEAST_NOISE,
    MOST_NOISE,
    AllocationLaw,
)
from dpkit.accountants.pairs.finite import FinitePair
from dpkit.accountants.pairs.profiles import Profile

NAME = "pld"

_FINENESS = 1 / 100
_SMALLEST_TAIL = 1e-220  # what its grid can hold; the rest counts as infinite loss
_DIRECTED = (Relation.ADD_REMOVE, Relation.ZERO_OUT)
RELATIONS: dict[str, tuple[Relation, ...]] = {
    "poisson_laplace": _DIRECTED,
    "mixture_gaussian": _DIRECTED,
    "truncated_poisson_gaussian": _DIRECTED,
    "random_allocation": _DIRECTED,
    "wor_gaussian": (Relation.REPLACE_ONE,),
    "randomized_response": (Relation.REPLACE_ONE, Relation.ZERO_OUT),
}


def profiles_of(
    event: DpEvent, relation: Relation, spare: float = 0.0
) -> list[tuple[Profile, int]]:
    """The profiles of one release, with counts; refuses what has no proof.

    `spare` is a probability so small that the release may lose all privacy with it.
    """
    kind = kind_of(event)
    check_supported(event, relation)
    if kind.name == "truncated_poisson_gaussian":
        return [(_truncated(kind.read(event), spare), 1)]
    if isinstance(event, RandomAllocationDpEvent):
        return [(_allocated(part, event, spare), part.count) for part in parts(event)]
    return [(_PROFILES[kind.name](kind.read(event), relation), 1)]


def check_supported(event: DpEvent, relation: Relation) -> None:
    """Refuse a release (or a parallel event, not its children) without a proof."""
    kind = kind_of(event)
    allowed = RELATIONS.get(kind.name, tuple(Relation))
    if relation not in allowed:
        raise UnsupportedRelation(NAME, relation, event, allowed)
    check_relation(NAME, event, relation)
    if kind.name not in _PROFILES and kind.name not in _ELSEWHERE:
        raise UnsupportedEvent(NAME, event, _ADVICE)


def _gaussian(fields: Mapping[str, Any], relation: Relation) -> Profile:
    """Gaussian noise, moved by one radius or two."""
    return noise_pairs.gaussian(fields["noise_multiplier"] / shift(relation))


def _poisson_gaussian(fields: Mapping[str, Any], relation: Relation) -> Profile:
    """Poisson-sampled Gaussian noise; replaced, the two values pull both ways."""
    pair = noise_pairs.poisson_gaussian
    if relation is Relation.REPLACE_ONE:
        pair = noise_pairs.poisson_gaussian_replaced
    return pair(fields["noise_multiplier"], fields["sampling_rate"])


def _truncated(fields: Mapping[str, Any], spare: float) -> Profile:
    """Its own event, read exactly but for `spare`."""
    return noise_pairs.truncated_poisson_gaussian(
        fields["noise_multiplier"],
        fields["sampling_rate"],
        fields["dataset_size"],
        fields["max_batch_size"],
        spare,
    )


def _allocated(part: Part, event: RandomAllocationDpEvent, spare: float) -> Profile:
    """One random step of some; where no grid holds its law, a plain Gaussian."""
    noise, steps, last = part[:3]
    if steps == 1 or not LEAST_NOISE <= noise <= MOST_NOISE:
        return noise_pairs.gaussian(noise)
    tail = min(1e-16, max(spare, _SMALLEST_TAIL))
    upper = law(noise, steps, last, tail, allocation_law.upper)
    if event.selected > 1:
        return profiles.between(upper, None)
    return profiles.between(
        upper, lambda: law(noise, steps, last, tail, allocation_law.lower)
    )


@functools.lru_cache(maxsize=16)
def law(
    noise: float,
    steps: int,
    last: int | None,
    tail: float,
    make: Callable[..., AllocationLaw],
) -> FinitePair:
    """A law of random allocation as a pair, its rounding on the safe side.

    All deltas are sums over masses of q, whose errors are relative.
    """
    found = make(noise, steps, _FINENESS, tail, last)
    scale = 1 + found.rounding
    if make is allocation_law.lower:
        scale = 1 / scale
    return FinitePair(
        found.p * scale, found.q * scale, (found.infinite_p, found.infinite_q)
    )


def _wor_gaussian(fields: Mapping[str, Any], relation: Relation) -> Profile:
    """A batch of fixed size, one record replaced."""
    return noise_pairs.without_replacement(
        fields["noise_multiplier"] / shift(relation),
        fields["batch_size"] / fields["dataset_size"],
    )


def _laplace(fields: Mapping[str, Any], relation: Relation) -> Profile:
    """Laplace noise, moved by one radius or two."""
    return noise_pairs.laplace(fields["scale"] / shift(relation))


def _poisson_laplace(fields: Mapping[str, Any], relation: Relation) -> Profile:
    """Poisson-sampled Laplace noise."""
    return noise_pairs.poisson_laplace(fields["scale"], fields["sampling_rate"])


def _mixture_gaussian(fields: Mapping[str, Any], relation: Relation) -> Profile:
    """Gaussian noise under a random shift."""
    return noise_pairs.mixture_gaussian(
        fields["noise_multiplier"], fields["shifts"], fields["probabilities"]
    )


def _discrete_gaussian(fields: Mapping[str, Any], relation: Relation) -> Profile:
    """Its finite pair."""
    return profiles.finite(
        finite.discrete_gaussian(fields["stddev"], fields["sensitivity"], relation)
    )


def _discrete_laplace(fields: Mapping[str, Any], relation: Relation) -> Profile:
    """Its finite pair, whose losses are all multiples of the rate."""
    pair = finite.discrete_laplace(fields["rate"], fields["sensitivity"], relation)
    return profiles.finite(pair, lattice=fields["rate"])


def _randomized_response(fields: Mapping[str, Any], relation: Relation) -> Profile:
    """Its finite pair."""
    pair = finite.randomized_response(
        fields["probability"], fields["categories"], relation
    )
    loss = pair.pure_epsilon()
    symmetric = relation is Relation.REPLACE_ONE and 0 < loss < np.inf
    return profiles.finite(pair, lattice=loss if symmetric else None)


def _pmf_pair(fields: Mapping[str, Any], relation: Relation) -> Profile:
    """The pair that the mechanism gave."""
    pair = FinitePair(p=np.array(fields["p"]), q=np.array(fields["q"]))
    profile = profiles.finite(pair)
    replaces = relation is Relation.REPLACE_ONE
    return profiles.either_way(profile) if replaces else profile


def _approx_dp(fields: Mapping[str, Any], relation: Relation) -> Profile:
    """The pair that dominates every release with this guarantee."""
    loss = fields["epsilon"]
    pair = finite.approximate(loss, fields.get("delta", 0.0))
    return profiles.finite(pair, lattice=loss if 0 < loss <= 700 else None)


def _bounded_range(fields: Mapping[str, Any], relation: Relation) -> Profile:
    """Read as pure, a pair that dominates it but is more than it ever is."""
    pair = finite.approximate(fields["epsilon"], 0.0)
    loss = fields["epsilon"]
    return profiles.between(pair, None, lattice=loss if 0 < loss <= 700 else None)


_ELSEWHERE = (
    "parallel",
    "non_private",
    "truncated_poisson_gaussian",
    "random_allocation",
)
_ADVICE = "it has no known dominating pair; use accountant='rdp'"
_PROFILES: dict[str, Callable[[Mapping[str, Any], Relation], Profile]] = {
    "gaussian": _gaussian,
    "poisson_gaussian": _poisson_gaussian,
    "wor_gaussian": _wor_gaussian,
    "laplace": _laplace,
    "poisson_laplace": _poisson_laplace,
    "mixture_gaussian": _mixture_gaussian,
    "discrete_gaussian": _discrete_gaussian,
    "discrete_laplace": _discrete_laplace,
    "randomized_response": _randomized_response,
    "pmf_pair": _pmf_pair,
    "approx_dp": _approx_dp,
    "pure": _approx_dp,
    "bounded_range": _bounded_range,
}
