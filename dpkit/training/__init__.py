"""Private training: plans, clipped gradients, noise, the trainer and its runs."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpkit.jobs.folder import RunFolder
    from dpkit.jobs.lifecycle import Run
    from dpkit.jobs.roots import secret_key
    from dpkit.training.config import Config, load_config
    from dpkit.training.examples import augmented, per_user
    from dpkit.training.execution import Execution
    from dpkit.training.gradients import ClippedGrad, PrivateAux, clipped_grad
    from dpkit.training.job import run
    from dpkit.training.matching import MaskedRows, PlanGradient
    from dpkit.training.optimizer import as_optax
    from dpkit.training.plan import DPSGDPlan
    from dpkit.training.trainer import Evaluation, FitResult, Progress, fit

_HOME = {
    "ClippedGrad": "gradients",
    "Config": "config",
    "DPSGDPlan": "plan",
    "Evaluation": "trainer",
    "Execution": "execution",
    "FitResult": "trainer",
    "MaskedRows": "matching",
    "PlanGradient": "matching",
    "PrivateAux": "gradients",
    "Progress": "trainer",
    "Run": "dpkit.jobs.lifecycle",
    "RunFolder": "dpkit.jobs.folder",
    "as_optax": "optimizer",
    "augmented": "examples",
    "clipped_grad": "gradients",
    "fit": "trainer",
    "load_config": "config",
    "per_user": "examples",
    "run": "job",
    "secret_key": "dpkit.jobs.roots",
}

__all__ = [
    "ClippedGrad",
    "Config",
    "DPSGDPlan",
    "Evaluation",
    "Execution",
    "FitResult",
    "MaskedRows",
    "PlanGradient",
    "PrivateAux",
    "Progress",
    "Run",
    "RunFolder",
    "as_optax",
    "augmented",
    "clipped_grad",
    "fit",
    "load_config",
    "per_user",
    "run",
    "secret_key",
]


def __getattr__(name: str) -> Any:
    """Loads a public name when it is first used."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOME[name]
    module = home if "." in home else f"{__name__}.{home}"
    return getattr(importlib.import_module(module), name)
