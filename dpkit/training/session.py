"""The session of a run: its roots, what must not change, and where it left off."""

from __future__ import annotations

import dataclasses
import datetime
import os
import platform
import uuid
from importlib import metadata
from typing import Any

import jax

from dpkit.accountants.answers.errors import LedgerCorrupt
from dpkit.accountants.ledger import Ledger
from dpkit.training.checkpoint import Checkpoints
from dpkit.training.folder import RunFolder
from dpkit.training.roots import Roots

_PACKAGES = ("jax", "jaxlib", "numpy", "optax", "dpkit-jax")


@dataclasses.dataclass
class Session:
    """What one run, or its resumption, holds on to.

    Args:
      roots: secrets; drawn once, kept in the private folder.
      facts: JSON values that a resumed run must share with its beginning.
      folder: where the run lives, or None for one that can't be resumed.
      resumed: whether the folder held an unfinished run.
    """

    roots: Roots
    facts: dict[str, Any]
    folder: RunFolder | None
    resumed: bool

    @classmethod
    def begin(cls, folder: RunFolder | None, insecure_seed: int | None) -> Session:
        """Takes up the folder's unfinished run, or draws roots for a new one."""
        if folder is not None and folder.started:
            roots, facts = folder.load_state()
            return cls(roots, facts, folder, resumed=True)
        if insecure_seed is None:
            roots = Roots.draw()
        else:
            roots = Roots.insecure(insecure_seed)
        facts = {"run_id": str(uuid.uuid4()), "started": now()}
        return cls(roots, facts, folder, resumed=False)

    @property
    def run_id(self) -> str:
        """The name under which the ledger knows this run."""
        return self.facts["run_id"]

    def agree(self, **facts: Any) -> None:
        """Records facts in a new run; in a resumed one, refuses any that changed.

        Repeating steps with the same noise but other sums would reveal the sums.

        Raises:
          ValueError: names the first fact that differs.
        """
        if not self.resumed:
            self.facts.update(facts)
            return
        for name, value in facts.items():
            if self.facts.get(name) != value:
                raise ValueError(
                    f"{name} differs from the unfinished run in "
                    f"{str(self.folder and self.folder.path)!r}: resuming would reuse "
                    "its noise on other sums; restore what it was, or start in a new "
                    "folder, which is charged anew"
                )

    def save(self) -> None:
        """Makes a new run's roots and facts durable, before anything is charged."""
        if self.folder is not None and not self.resumed:
            self.folder.save_state(self.roots, self.facts)

    def checkpoints(self) -> Checkpoints | None:
        """The run's checkpoints, if it has a folder."""
        if self.folder is None:
            return None
        return Checkpoints(self.folder.checkpoints)

    def check_checkpoint(self, ledger: Ledger, step: int, run_id: str) -> None:
        """Refuses a checkpoint of another run, or one that the ledger doesn't know.

        Raises:
          LedgerCorrupt: steps were taken that this ledger has no reservation for.
          ValueError: the checkpoint was made with other roots.
        """
        if run_id != self.run_id:
            raise ValueError(
                f"the checkpoint at step {step} belongs to run {run_id}, this folder "
                f"to run {self.run_id}: two runs wrote into it; start in a new one, "
                "which is charged anew"
            )
        keys = (entry.body.get("key") for entry in ledger.entries())
        if step > 0 and self.run_id not in keys:
            raise LedgerCorrupt(
                f"the checkpoint at step {step} belongs to run {self.run_id}, which "
                "the ledger doesn't know: it was replaced or cut; restore it, or start "
                "in a new folder, which is charged anew"
            )


def environment() -> dict[str, Any]:
    """What besides the program changes the last bits of a sum."""
    return {
        "backend": jax.default_backend(),
        "machine": platform.machine(),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Versions of Python and the packages that make the numbers."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def default_devices() -> int:
    """Devices that share a batch: two at most on a CPU, else all."""
    available = len(jax.devices())
    if jax.default_backend() == "cpu":
        return min(2, available, os.cpu_count() or 1)
    return available


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
