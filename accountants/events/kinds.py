"""The closed registry: every kind of event that can be written, read and counted.

An event is found by its exact class (and, for sampled ones, by what is sampled), never
by importing a name from a file. A new event is one more `Kind` here, with at least one
accountant that reads it.
"""

import dataclasses
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import dp_accounting as dp
from dp_accounting import dp_event

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.relations import Relation
from dpkit.accountants.events import allocation, fields, own

_DIRECTED = (Relation.ADD_REMOVE, Relation.ZERO_OUT)
_NOISE = fields.number(checks.noise)
_INSIDE = _NOISE.at("event.noise_multiplier")
_PROBABILITY = fields.number(checks.probability)
_RATE = fields.number(checks.rate).at("sampling_probability")


@dataclasses.dataclass(frozen=True)
class Kind:
    """One entry of the registry."""

    name: str  # the `kind` in JSON
    fields: Mapping[str, fields.Field]  # by JSON name; children are not among them
    read: Callable[[Any], Mapping[str, Any]]  # event -> its fields by JSON name
    build: Callable[..., dp.DpEvent]  # fields, and `parts` if it has any -> event
    check: Callable[..., None]  # refuses fields that don't fit together
    parts: str | None  # the JSON name under which children stand, or None
    holds: str  # the attribute that holds them
    single: bool  # whether that is one child rather than a list
    relations: tuple[Relation, ...]  # that have a proof; `relations_of` knows more


def kind_of(event: object) -> Kind:
    """The registry's entry for an event; ValueError if there is none.

    Example:
      >>> kind_of(dp.PoissonSampledDpEvent(0.01, dp.GaussianDpEvent(1.0))).name
      'poisson_gaussian'
    """
    if not isinstance(event, dp.DpEvent):
        raise TypeError(f"event={event!r} must be a DpEvent")
    key: Any = type(event)
    if isinstance(
        event, dp.PoissonSampledDpEvent | dp.SampledWithoutReplacementDpEvent
    ):
        key = (type(event), type(event.event))
    if key not in _BY_CLASS:
        raise ValueError(f"{event!r} is not an event that dpkit knows")
    return _BY_CLASS[key]


def relations_of(event: Any) -> tuple[Relation, ...]:
    """The relations under which an event has a proof, its children aside.

    A table holds for its own relation. Disjoint parts hold for a replaced record only
    if it can't leave one part and enter another.

    Example:
      >>> relations_of(dp.SingleEpochTreeAggregationDpEvent(1.0, 8))
      (<Relation.ZERO_OUT: 'zero_out'>,)
    """
    if isinstance(event, own.PmfPairDpEvent | own.RdpCurveDpEvent):
        return (Relation(event.relation),)
    if isinstance(event, own.ParallelDpEvent) and not event.index_based:
        return _DIRECTED
    return kind_of(event).relations


def parts_of(event: Any) -> tuple[dp.DpEvent, ...]:
    """The children of an event, in order; empty for a release."""
    kind = kind_of(event)
    if kind.parts is None:
        return ()
    held = getattr(event, kind.holds)
    if kind.single:
        return (held,)
    if not isinstance(held, list | tuple):
        raise TypeError(f"{kind.holds} of {kind.name} must be a list, not {held!r}")
    return tuple(held)


def nodes_of(event: dp.DpEvent) -> Iterator[dp.DpEvent]:
    """An event and all that it holds, at any depth."""
    pending = [event]
    while pending:
        yield (node := pending.pop())
        pending.extend(parts_of(node))


def _kind(
    name: str,
    cls: type[Any],
    rows: Mapping[str, fields.Field] | None = None,
    check: Callable[..., None] = lambda **values: None,
    relations: tuple[Relation, ...] = tuple(Relation),
    *,
    sampled: type[Any] | None = None,
    parts: str | None = None,
    holds: str = "",
    single: bool = False,
) -> tuple[Any, Kind]:
    """The entry of a class, or of one that samples noise; `rows` are its fields."""
    rows = own.fields_of(cls) if rows is None else rows
    places = {key: field.attribute or key for key, field in rows.items()}
    getters = [(key, operator.attrgetter(place)) for key, place in places.items()]
    moved = [(key, place) for key, place in places.items() if place != key]

    def read(event: Any) -> dict[str, Any]:
        return {key: get(event) for key, get in getters}

    def build(parts: Sequence[dp.DpEvent] = (), **values: Any) -> dp.DpEvent:
        for key, place in moved:
            values[place] = values.pop(key)
        if sampled is not None:
            values["event"] = sampled(values.pop(_INSIDE.attribute))
        if holds:
            values[holds] = parts[0] if single else list(parts)
        return cls(**values)

    kind = Kind(name, rows, read, build, check, parts, holds, single, relations)
    return (cls, sampled) if sampled else cls, kind


def _fits(batch_size: int, dataset_size: int) -> None:
    """Refuse a batch larger than its data set."""
    if batch_size > dataset_size:
        raise ValueError(
            f"batch size {batch_size} must be at most dataset_size={dataset_size}"
        )


def _step_counts(name: str, value: Any) -> int | tuple[int, ...]:
    """One tree's number of steps, or a list of them."""
    if isinstance(value, list | tuple):
        if not value:
            raise ValueError(f"{name} must not be empty")
        return tuple(checks.count(**{name: item}) for item in value)
    return checks.count(**{name: value})


def _mean_fits(mean: float, shape: float) -> None:
    """dp-accounting's formulas need at least one run on average."""
    if mean < 1:
        raise ValueError(f"mean={mean!r} of repeat_and_select must be at least 1")


def _mixture_fits(
    noise_multiplier: float, shifts: tuple[float, ...], probabilities: Any
) -> None:
    """One probability for each shift, summing to one; shifts that can be squared."""
    own.check_equal_lengths(shifts=shifts, probabilities=probabilities)
    own.check_sums_to_one(probabilities=probabilities)
    if max(shifts) > 1e100 * min(1.0, noise_multiplier):
        raise ValueError(
            f"shifts: {max(shifts)!r} must be at most 1e100, and 1e100 times "
            f"noise_multiplier={noise_multiplier!r}"
        )


def _newer(module: Any) -> list[tuple[Any, Kind]]:
    """Kinds of ours that newer versions of dp-accounting have classes for as well.

    They are read as ours, and written as ours. Permute-and-flip is epsilon-private, but
    not of bounded range, as the exponential mechanism is.
    """

    def integral(event: Any) -> dict[str, Any]:
        if event.dimension != 1:
            raise ValueError(
                f"dimension={event.dimension!r} must be 1: for more use "
                "ZCDpEvent(rho), rho = sensitivity^2 / (2 sigma^2), with the "
                "sensitivity to what the relation changes"
            )
        whole = float(event.sensitivity).is_integer()
        moved = int(event.sensitivity) if whole else event.sensitivity
        return {"stddev": event.sigma, "sensitivity": moved}

    def stated(event: Any) -> dict[str, Any]:
        names = ("epsilon", "delta") if hasattr(event, "delta") else ("epsilon",)
        return {name: getattr(event, name) for name in names}

    read = {
        "DiscreteGaussianDpEvent": (own.DiscreteGaussianDpEvent, integral),
        "EpsilonDeltaDpEvent": (own.ApproxDpEvent, stated),
        "ExponentialMechanismDpEvent": (own.BoundedRangeDpEvent, stated),
        "PermuteAndFlipDpEvent": (own.PureDpEvent, stated),
    }
    return [
        (cls, dataclasses.replace(_BY_CLASS[ours], read=reader))
        for name, (ours, reader) in read.items()
        if (cls := getattr(module, name, None)) is not None
    ]


_BY_CLASS: dict[Any, Kind] = dict(
    [
        _kind("gaussian", dp.GaussianDpEvent, {"noise_multiplier": _NOISE}),
        _kind(
            "poisson_gaussian",
            dp.PoissonSampledDpEvent,
            {"noise_multiplier": _INSIDE, "sampling_rate": _RATE},
            sampled=dp.GaussianDpEvent,
        ),
        _kind(
            "truncated_poisson_gaussian",
            dp.TruncatedSubsampledGaussianDpEvent,
            {
                "noise_multiplier": _NOISE,
                "sampling_rate": _RATE,
                "dataset_size": fields.count(),
                "max_batch_size": fields.count().at("truncated_batch_size"),
            },
            lambda max_batch_size, dataset_size, **rest: _fits(
                max_batch_size, dataset_size
            ),
        ),
        _kind(
            "wor_gaussian",
            dp.SampledWithoutReplacementDpEvent,
            {
                "noise_multiplier": _INSIDE,
                "batch_size": fields.count().at("sample_size"),
                "dataset_size": fields.count().at("source_dataset_size"),
            },
            lambda batch_size, dataset_size, **rest: _fits(batch_size, dataset_size),
            (Relation.REPLACE_ONE,),
            sampled=dp.GaussianDpEvent,
        ),
        _kind("laplace", dp.LaplaceDpEvent, {"scale": _NOISE.at("noise_multiplier")}),
        _kind(
            "poisson_laplace",
            dp.PoissonSampledDpEvent,
            {"scale": _INSIDE, "sampling_rate": _RATE},
            relations=_DIRECTED,
            sampled=dp.LaplaceDpEvent,
        ),
        _kind(
            "discrete_laplace",
            dp_event.DiscreteLaplaceDpEvent,
            {"rate": _NOISE.at("noise_parameter"), "sensitivity": fields.count()},
        ),
        _kind(
            "randomized_response",
            dp.RandomizedResponseDpEvent,
            {
                "probability": _PROBABILITY.at("noise_parameter"),
                "categories": fields.count(2).at("num_buckets"),
            },
            relations=(Relation.REPLACE_ONE, Relation.ZERO_OUT),
        ),
        _kind(
            "mixture_gaussian",
            dp_event.MixtureOfGaussiansDpEvent,
            {
                "noise_multiplier": _NOISE.at("standard_deviation"),
                "shifts": fields.numbers(checks.non_negative).at("sensitivities"),
                "probabilities": fields.numbers(checks.probability).at(
                    "sampling_probs"
                ),
            },
            _mixture_fits,
            _DIRECTED,
        ),
        _kind(
            "zcdp",
            dp.ZCDpEvent,
            {
                "rho": fields.number(checks.non_negative),
                "xi": fields.number(checks.non_negative, default=0.0),
            },
        ),
        _kind(
            "tree",
            dp.SingleEpochTreeAggregationDpEvent,
            {"noise_multiplier": _NOISE, "step_counts": fields.Field(_step_counts)},
            relations=(Relation.ZERO_OUT,),
        ),
        _kind("non_private", dp.NonPrivateDpEvent, {}),
        _kind(
            "random_allocation", allocation.RandomAllocationDpEvent, relations=_DIRECTED
        ),
        _kind(
            "truncated_random_allocation",
            allocation.TruncatedAllocationDpEvent,
            relations=_DIRECTED,
        ),
        _kind("discrete_gaussian", own.DiscreteGaussianDpEvent),
        _kind("pmf_pair", own.PmfPairDpEvent),
        _kind("rdp_curve", own.RdpCurveDpEvent),
        _kind("approx_dp", own.ApproxDpEvent),
        _kind("pure", own.PureDpEvent),
        _kind("bounded_range", own.BoundedRangeDpEvent),
        _kind("metric_local_pure", own.MetricLocalPureDpEvent),
        _kind("sequential", dp.ComposedDpEvent, {}, parts="children", holds="events"),
        _kind(
            "repeat",
            dp.SelfComposedDpEvent,
            {"count": fields.count()},
            parts="child",
            holds="event",
            single=True,
        ),
        _kind(
            "parallel",
            own.ParallelDpEvent,
            parts="children",
            holds="children",
        ),
        _kind(
            "repeat_and_select",
            dp_event.RepeatAndSelectDpEvent,
            {
                "mean": fields.number(checks.positive),
                "shape": fields.number(checks.non_negative_or_inf),
            },
            _mean_fits,
            parts="event",
            holds="event",
            single=True,
        ),
    ]
)
KINDS: dict[str, Kind] = {kind.name: kind for kind in _BY_CLASS.values()}
_BY_CLASS |= _newer(dp_event)
