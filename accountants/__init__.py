"""How privacy is counted: events, accountants and the ledger; never imports JAX.

Names are loaded when they are first used: importing this package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpkit.accountants.answers.bounds import Budget, DeltaBound, PrivacyBound
    from dpkit.accountants.answers.errors import (
        BudgetExceeded,
        Incompatible,
        LedgerCorrupt,
        NotCertified,
        UnsupportedEvent,
        UnsupportedRelation,
    )
    from dpkit.accountants.answers.relations import Relation, as_relation
    from dpkit.accountants.events.allocation import (
        RandomAllocationDpEvent,
        TruncatedAllocationDpEvent,
    )
    from dpkit.accountants.events.composing import (
        from_json,
        repeat,
        sequential,
        to_json,
        validate,
    )
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
    from dpkit.accountants.ledger.ledger import Grant, Ledger
    from dpkit.accountants.ledger.merging import merge
    from dpkit.accountants.readings.attack import AttackRisk, attack_risk
    from dpkit.accountants.readings.best import delta_of, epsilon, epsilon_curve
    from dpkit.accountants.readings.calibration import Calibration, calibrate, solve
    from dpkit.accountants.storage.entry import Entry

_HOME = {
    "ApproxDpEvent": "events.own",
    "AttackRisk": "readings.attack",
    "BoundedRangeDpEvent": "events.own",
    "Budget": "answers.bounds",
    "BudgetExceeded": "answers.errors",
    "Calibration": "readings.calibration",
    "DeltaBound": "answers.bounds",
    "DiscreteGaussianDpEvent": "events.own",
    "Entry": "storage.entry",
    "Grant": "ledger.ledger",
    "Incompatible": "answers.errors",
    "Ledger": "ledger.ledger",
    "LedgerCorrupt": "answers.errors",
    "MetricLocalPureDpEvent": "events.own",
    "NotCertified": "answers.errors",
    "ParallelDpEvent": "events.own",
    "PmfPairDpEvent": "events.own",
    "PrivacyBound": "answers.bounds",
    "PureDpEvent": "events.own",
    "RandomAllocationDpEvent": "events.allocation",
    "RdpCurveDpEvent": "events.own",
    "Relation": "answers.relations",
    "TruncatedAllocationDpEvent": "events.allocation",
    "UnsupportedEvent": "answers.errors",
    "UnsupportedRelation": "answers.errors",
    "as_relation": "answers.relations",
    "attack_risk": "readings.attack",
    "calibrate": "readings.calibration",
    "delta_of": "readings.best",
    "epsilon": "readings.best",
    "epsilon_curve": "readings.best",
    "from_json": "events.composing",
    "merge": "ledger.merging",
    "repeat": "events.composing",
    "sequential": "events.composing",
    "solve": "readings.calibration",
    "to_json": "events.composing",
    "validate": "events.composing",
}

_READINGS = ("edgeworth", "gdp", "pld", "pure", "rdp", "zcdp")

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
    if name in _READINGS:
        return importlib.import_module(f"{__name__}.readings.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    """Public names, for completion."""
    return list(__all__)
