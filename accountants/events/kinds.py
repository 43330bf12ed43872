"""The closed registry: every kind of event that can be written, read and counted.

An event is found by its exact class (and, for sampled ones, by what is sampled), never
by importing a name from a file. A new event is one more `Kind` here, with at least one
accountant that reads it.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import dp_accounting as dp
from dp_accounting import dp_event

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.relations import Relation
from dpkit.accountants.events import fields, own
from dpkit.accountants.events.allocation import (
    RandomAllocationDpEvent,
    TruncatedAllocationDpEvent,
)

_DIRECTED = (Relation.ADD_REMOVE, Relation.ZERO_OUT)
_NOISE = fields.number(checks.noise)
_RATE = fields.number(checks.rate)


@dataclasses.dataclass(frozen=True)
class Kind:
    """One entry of the registry.

    Attributes:
      name: the `kind` in JSON.
      fields: JSON name -> field; children are not among them.
      read: event -> its fields by JSON name.
      build: fields (and `parts`, for kinds with children) -> event.
      check: refuses fields that don't fit together.
      parts: the JSON name under which children stand, or None.
      single: whether `parts` is one child rather than a list.
      relations: those under which somebody can read it; `relations_of` knows more.
    """

    name: str
    fields: Mapping[str, fields.Field]
    read: Callable[[Any], Mapping[str, Any]]
    build: Callable[..., dp.DpEvent]
    check: Callable[..., None] = lambda **values: None
    parts: str | None = None
    single: bool = False
    relations: tuple[Relation, ...] = tuple(Relation)


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
        raise ValueError(f"{event!r} is not an event that dpkit knows; see KINDS")
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
    if isinstance(event, dp.SelfComposedDpEvent | dp_event.RepeatAndSelectDpEvent):
        return (event.event,)
    if isinstance(event, own.ParallelDpEvent):
        return tuple(event.children)
    children = event.events
    if not isinstance(children, list | tuple):
        raise TypeError(f"events of sequential must be a list, not {children!r}")
    return tuple(children)


def _own(
    name: str,
    cls: type[own.OwnDpEvent],
    relations: tuple[Relation, ...] = tuple(Relation),
) -> tuple[Any, Kind]:
    """The entry of one of our classes: JSON names are attribute names."""
    names = own.fields_of(cls)

    def read(event: own.OwnDpEvent) -> dict[str, Any]:
        return {field: getattr(event, field) for field in names}

    return cls, Kind(name, names, read, cls, relations=relations)


def _renamed(
    name: str,
    cls: type[dp.DpEvent],
    attributes: Mapping[str, tuple[str, fields.Field]],
    check: Callable[..., None] = lambda **values: None,
    relations: tuple[Relation, ...] = tuple(Relation),
) -> tuple[Any, Kind]:
    """The entry of a dp-accounting class: JSON name -> (attribute, field)."""

    def read(event: dp.DpEvent) -> dict[str, Any]:
        return {key: getattr(event, attr) for key, (attr, _) in attributes.items()}

    def build(**values: Any) -> dp.DpEvent:
        return cls(**{attributes[key][0]: value for key, value in values.items()})

    names = {key: field for key, (_, field) in attributes.items()}
    return cls, Kind(name, names, read, build, check, relations=relations)


def _poisson(
    name: str, base: type[Any], parameter: str, relations: tuple[Relation, ...]
) -> tuple[Any, Kind]:
    """The entry of a Poisson-sampled noise."""

    def read(event: Any) -> dict[str, Any]:
        noise = event.event.noise_multiplier
        return {parameter: noise, "sampling_rate": event.sampling_probability}

    def build(sampling_rate: float, **noise: float) -> dp.DpEvent:
        return dp.PoissonSampledDpEvent(sampling_rate, base(noise[parameter]))

    names = {parameter: _NOISE, "sampling_rate": _RATE}
    kind = Kind(name, names, read, build, relations=relations)
    return (dp.PoissonSampledDpEvent, base), kind


def _without_replacement() -> tuple[Any, Kind]:
    """The entry of a Gaussian on a batch of fixed size, without replacement."""

    def read(event: Any) -> dict[str, Any]:
        noise = event.event.noise_multiplier
        return {
            "noise_multiplier": noise,
            "batch_size": event.sample_size,
            "dataset_size": event.source_dataset_size,
        }

    def build(noise_multiplier: float, batch_size: int, dataset_size: int) -> Any:
        noise = dp.GaussianDpEvent(noise_multiplier)
        return dp.SampledWithoutReplacementDpEvent(dataset_size, batch_size, noise)

    def check(batch_size: int, dataset_size: int, **rest: Any) -> None:
        _fits(batch_size=batch_size, dataset_size=dataset_size)

    names = {
        "noise_multiplier": _NOISE,
        "batch_size": fields.count(),
        "dataset_size": fields.count(),
    }
    replaced = (Relation.REPLACE_ONE,)
    kind = Kind("wor_gaussian", names, read, build, check, relations=replaced)
    return (dp.SampledWithoutReplacementDpEvent, dp.GaussianDpEvent), kind


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


def _composites() -> list[tuple[Any, Kind]]:
    """The kinds that hold other events."""
    sequential = Kind(
        "sequential",
        {},
        read=lambda event: {},
        build=lambda parts: dp.ComposedDpEvent(list(parts)),
        parts="children",
    )
    repeat = Kind(
        "repeat",
        {"count": fields.count()},
        read=lambda event: {"count": event.count},
        build=lambda parts, count: dp.SelfComposedDpEvent(parts[0], count),
        parts="child",
        single=True,
    )
    parallel = Kind(
        "parallel",
        own.fields_of(own.ParallelDpEvent),
        read=lambda event: {"index_based": event.index_based},
        build=lambda parts, index_based: own.ParallelDpEvent(parts, index_based),
        parts="children",
    )
    select = Kind(
        "repeat_and_select",
        {
            "mean": fields.number(checks.positive),
            "shape": fields.number(checks.non_negative_or_inf),
        },
        read=lambda event: {"mean": event.mean, "shape": event.shape},
        build=lambda parts, **values: dp_event.RepeatAndSelectDpEvent(
            parts[0], **values
        ),
        check=_mean_fits,
        parts="event",
        single=True,
    )
    return [
        (dp.ComposedDpEvent, sequential),
        (dp.SelfComposedDpEvent, repeat),
        (own.ParallelDpEvent, parallel),
        (dp_event.RepeatAndSelectDpEvent, select),
    ]


def _releases() -> list[tuple[Any, Kind]]:
    """The kinds of one release, in dp-accounting's vocabulary."""
    probabilities = fields.numbers(checks.probability)
    shifts = fields.numbers(checks.non_negative)
    return [
        _renamed(
            "gaussian",
            dp.GaussianDpEvent,
            {"noise_multiplier": ("noise_multiplier", _NOISE)},
        ),
        _poisson(
            "poisson_gaussian", dp.GaussianDpEvent, "noise_multiplier", tuple(Relation)
        ),
        _renamed(
            "truncated_poisson_gaussian",
            dp.TruncatedSubsampledGaussianDpEvent,
            {
                "noise_multiplier": ("noise_multiplier", _NOISE),
                "sampling_rate": ("sampling_probability", _RATE),
                "dataset_size": ("dataset_size", fields.count()),
                "max_batch_size": ("truncated_batch_size", fields.count()),
            },
            check=lambda max_batch_size, dataset_size, **rest: _fits(
                max_batch_size, dataset_size
            ),
        ),
        _without_replacement(),
        _renamed("laplace", dp.LaplaceDpEvent, {"scale": ("noise_multiplier", _NOISE)}),
        _poisson("poisson_laplace", dp.LaplaceDpEvent, "scale", _DIRECTED),
        _renamed(
            "discrete_laplace",
            dp_event.DiscreteLaplaceDpEvent,
            {
                "rate": ("noise_parameter", fields.number(checks.noise)),
                "sensitivity": ("sensitivity", fields.count()),
            },
        ),
        _renamed(
            "randomized_response",
            dp.RandomizedResponseDpEvent,
            {
                "probability": ("noise_parameter", fields.number(checks.probability)),
                "categories": ("num_buckets", fields.count(2)),
            },
            relations=(Relation.REPLACE_ONE, Relation.ZERO_OUT),
        ),
        _renamed(
            "mixture_gaussian",
            dp_event.MixtureOfGaussiansDpEvent,
            {
                "noise_multiplier": ("standard_deviation", _NOISE),
                "shifts": ("sensitivities", shifts),
                "probabilities": ("sampling_probs", probabilities),
            },
            check=_mixture_fits,
            relations=_DIRECTED,
        ),
        _renamed(
            "zcdp",
            dp.ZCDpEvent,
            {
                "rho": ("rho", fields.number(checks.non_negative)),
                "xi": ("xi", fields.number(checks.non_negative, default=0.0)),
            },
        ),
        _renamed(
            "tree",
            dp.SingleEpochTreeAggregationDpEvent,
            {
                "noise_multiplier": ("noise_multiplier", _NOISE),
                "step_counts": ("step_counts", fields.Field(_step_counts)),
            },
            relations=(Relation.ZERO_OUT,),
        ),
        _renamed("non_private", dp.NonPrivateDpEvent, {}),
    ]


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
        *_releases(),
        _own("random_allocation", RandomAllocationDpEvent, _DIRECTED),
        _own("truncated_random_allocation", TruncatedAllocationDpEvent, _DIRECTED),
        _own("discrete_gaussian", own.DiscreteGaussianDpEvent),
        _own("pmf_pair", own.PmfPairDpEvent),
        _own("rdp_curve", own.RdpCurveDpEvent),
        _own("approx_dp", own.ApproxDpEvent),
        _own("pure", own.PureDpEvent),
        _own("bounded_range", own.BoundedRangeDpEvent),
        _own("metric_local_pure", own.MetricLocalPureDpEvent),
        *_composites(),
    ]
)
KINDS: dict[str, Kind] = {kind.name: kind for kind in _BY_CLASS.values()}
_BY_CLASS |= _newer(dp_event)
