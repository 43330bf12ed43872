"""What was released: one vocabulary of events, checked, and JSON both ways."""

from dp_accounting import DpEvent

from dpkit.accountants.answers.relations import Relation, as_relation
from dpkit.accountants.events.allocation import (
    RandomAllocationDpEvent,
    TruncatedAllocationDpEvent,
)
from dpkit.accountants.events.composing import flatten, repeat, sequential, validate
from dpkit.accountants.events.notation import from_json, to_json
from dpkit.accountants.events.own import (
    ApproxDpEvent,
    BoundedRangeDpEvent,
    DiscreteGaussianDpEvent,
    MetricLocalPureDpEvent,
    ParallelDpEvent,
    PmfPairDpEvent,
    PureDpEvent,
    RdpCurveDpEvent,
)

__all__ = [
    "ApproxDpEvent",
    "BoundedRangeDpEvent",
    "DiscreteGaussianDpEvent",
    "DpEvent",
    "MetricLocalPureDpEvent",
    "ParallelDpEvent",
    "PmfPairDpEvent",
    "PureDpEvent",
    "RandomAllocationDpEvent",
    "RdpCurveDpEvent",
    "Relation",
    "TruncatedAllocationDpEvent",
    "as_relation",
    "flatten",
    "from_json",
    "repeat",
    "sequential",
    "to_json",
    "validate",
]
