"""The frame of every run: configuration, folder, ledger, resumption, result, report.

A job says what it needs and what it does (`Job`, `Prepared`); `run` and `dry_run` do
the rest, the same for all. See `dpkit.jobs.lifecycle` for how to write one.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpkit.jobs.config import JobConfig, Settings, load
    from dpkit.jobs.folder import RunFolder
    from dpkit.jobs.lifecycle import Cost, Job, Prepared, Run, dry_run, run
    from dpkit.jobs.progress import Outcome, Progress
    from dpkit.jobs.session import Session

_HOME = {
    "Cost": "lifecycle",
    "Job": "lifecycle",
    "JobConfig": "config",
    "Outcome": "progress",
    "Prepared": "lifecycle",
    "Progress": "progress",
    "Run": "lifecycle",
    "RunFolder": "folder",
    "Session": "session",
    "Settings": "config",
    "dry_run": "lifecycle",
    "load": "config",
    "run": "lifecycle",
}

__all__ = [
    "Cost",
    "Job",
    "JobConfig",
    "Outcome",
    "Prepared",
    "Progress",
    "Run",
    "RunFolder",
    "Session",
    "Settings",
    "dry_run",
    "load",
    "run",
]


def __getattr__(name: str) -> Any:
    """Loads a public name when it is first used."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_HOME[name]}")
    return getattr(module, name)
