"""How privacy is counted: events, accountants and the ledger; never imports JAX.

Names are loaded when they are first used: importing this package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpkit.accountants.accounting import delta_of, epsilon, epsilon_curve
    from dpkit.accountants.allocation_event import (
        RandomAllocationDpEvent,
        TruncatedAllocationDpEvent,
    )
    from dpkit.accountants.attack import AttackRisk, attack_risk
    from dpkit.accountants.bounds import Budget, DeltaBound, PrivacyBound
    from dpkit.accountants.calibration import Calibration, calibrate, solve
    from dpkit.accountants.chain import Entry
    from dpkit.accountants.errors import (
        BudgetExceeded,
        Incompatible,
        LedgerCorrupt,
        NotCertified,
        UnsupportedEvent,
        UnsupportedRelation,
    )
    from dpkit.accountants.event_types import (
        ApproxDpEvent,
        BoundedRangeDpEvent,
        DiscreteGaussianDpEvent,
        MetricLocalPureDpEvent,
        ParallelDpEvent,
        PmfPairDpEvent,
        PureDpEvent,
        RdpCurveDpEvent,
    )
    from dpkit.accountants.events import (
        from_json,
        repeat,
        sequential,
        to_json,
        validate,
    )
    from dpkit.accountants.ledger import Grant, Ledger
    from dpkit.accountants.merging import merge
    from dpkit.accountants.relations import Relation, as_relation

_HOME = {
    "ApproxDpEvent": "event_types",
    "AttackRisk": "attack",
    "BoundedRangeDpEvent": "event_types",
    "Budget": "bounds",
    "BudgetExceeded": "errors",
    "Calibration": "calibration",
    "DeltaBound": "bounds",
    "DiscreteGaussianDpEvent": "event_types",
    "Entry": "chain",
    "Grant": "ledger",
    "Incompatible": "errors",
    "Ledger": "ledger",
    "LedgerCorrupt": "errors",
    "MetricLocalPureDpEvent": "event_types",
    "NotCertified": "errors",
    "ParallelDpEvent": "event_types",
    "PmfPairDpEvent": "event_types",
    "PrivacyBound": "bounds",
    "PureDpEvent": "event_types",
    "RandomAllocationDpEvent": "allocation_event",
    "RdpCurveDpEvent": "event_types",
    "Relation": "relations",
    "TruncatedAllocationDpEvent": "allocation_event",
    "UnsupportedEvent": "errors",
    "UnsupportedRelation": "errors",
    "as_relation": "relations",
    "attack_risk": "attack",
    "calibrate": "calibration",
    "delta_of": "accounting",
    "epsilon": "accounting",
    "epsilon_curve": "accounting",
    "from_json": "events",
    "merge": "merging",
    "repeat": "events",
    "sequential": "events",
    "solve": "calibration",
    "to_json": "events",
    "validate": "events",
}

__all__ = [
    "ApproxDpEvent",
    "AttackRisk",
    "BoundedRangeDpEvent",
    "Budget",
    "BudgetExceeded",
    "Calibration",
    "DeltaBound",
    "DiscreteGaussianDpEvent",
    "Entry",
    "Grant",
    "Incompatible",
    "Ledger",
    "LedgerCorrupt",
    "MetricLocalPureDpEvent",
    "NotCertified",
    "ParallelDpEvent",
    "PmfPairDpEvent",
    "PrivacyBound",
    "PureDpEvent",
    "RandomAllocationDpEvent",
    "RdpCurveDpEvent",
    "Relation",
    "TruncatedAllocationDpEvent",
    "UnsupportedEvent",
    "UnsupportedRelation",
    "as_relation",
    "attack_risk",
    "calibrate",
    "delta_of",
    "epsilon",
    "epsilon_curve",
    "from_json",
    "merge",
    "repeat",
    "sequential",
    "solve",
    "to_json",
    "validate",
]


def __getattr__(name: str) -> Any:
    """Loads a public name when it is first used."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    """Public names, for completion."""
    return list(__all__)
