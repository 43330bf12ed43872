"""dpkit: differential privacy for learning in JAX, on one honest ledger.

Names are loaded when they are first used, so that importing dpkit costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpkit.accountants import (
        Budget,
        BudgetExceeded,
        Ledger,
        PrivacyBound,
        Relation,
        calibrate,
        delta_of,
        epsilon,
    )
    from dpkit.training import (
        DPSGDPlan,
        Evaluation,
        FitResult,
        RunFolder,
        as_optax,
        clipped_grad,
        fit,
        secret_key,
    )

_HOME = {
    "Budget": "accountants",
    "BudgetExceeded": "accountants",
    "DPSGDPlan": "training",
    "Evaluation": "training",
    "FitResult": "training",
    "Ledger": "accountants",
    "PrivacyBound": "accountants",
    "Relation": "accountants",
    "RunFolder": "training",
    "as_optax": "training",
    "calibrate": "accountants",
    "clipped_grad": "training",
    "delta_of": "accountants",
    "epsilon": "accountants",
    "fit": "training",
    "secret_key": "training",
}

__version__ = "0.1.0"
__all__ = [
    "Budget",
    "BudgetExceeded",
    "DPSGDPlan",
    "Evaluation",
    "FitResult",
    "Ledger",
    "PrivacyBound",
    "Relation",
    "RunFolder",
    "as_optax",
    "calibrate",
    "clipped_grad",
    "delta_of",
    "epsilon",
    "fit",
    "secret_key",
]


def __getattr__(name: str) -> Any:
    """Loads a public name when it is first used."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_HOME[name]}")
    return getattr(module, name)


def __dir__() -> list[str]:
    """Public names, for completion."""
    return [*__all__, "__version__"]
