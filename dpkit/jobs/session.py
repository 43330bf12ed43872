"""The session of a run: its secrets, what must not change, and where it left off.

A run that is killed and started again repeats its releases to the last bit, because
their noise is a function of secrets that were durable before the first charge; and it
pays once, because a charge is known to the ledger by the run's name. Both hold only if
everything else is repeated as well: what a release depends on must be agreed on.
"""

from __future__ import annotations

import datetime
import os
import platform
import uuid
from importlib import metadata
from typing import Any

import jax
from dp_accounting import DpEvent

from dpkit.accountants.answers.bounds import Budget
from dpkit.accountants.answers.errors import LedgerCorrupt
from dpkit.accountants.events import repeat
from dpkit.accountants.ledger import Grant, Ledger
from dpkit.jobs.checkpoint import Checkpoints
from dpkit.jobs.folder import RunFolder
from dpkit.jobs.ledger import part_cost
from dpkit.jobs.roots import Roots

_PACKAGES = ("jax", "jaxlib", "numpy", "optax", "dpkit-jax")
_PUBLISHED = ("run_id", "job", "program", "config_sha256")  # in a ledger's entry


class Session:
    """What one run, or its resumption, holds on to.

    Attributes:
      secrets: roots of all noise; drawn once, kept in the private folder.
      facts: JSON values that a resumed run must share with its beginning.
      folder: where the run lives, or None for one that can't be resumed.
      resumed: whether the folder held an unfinished run.
      part: what the run may take of the ledger's budget, or None: whatever fits.
      label: what the ledger's entries are called, or None: as the job says.

    Example:
      >>> session = Session.begin(None)
      >>> session.agree(data=session.secrets.fingerprint(rows))  # doctest: +SKIP
    """

    def __init__(
        self,
        secrets: Roots,
        facts: dict[str, Any],
        folder: RunFolder | None,
        *,
        resumed: bool,
    ) -> None:
        """Use `Session.begin`."""
        self.secrets = secrets
        self.facts = facts
        self.folder = folder
        self.resumed = resumed
        self.part: Budget | None = None
        self.label: str | None = None
        self._durable = resumed
        self._named: set[str] = set()
        self._saved: Checkpoints | None = None

    @classmethod
    def begin(
        cls, folder: RunFolder | None, insecure_seed: int | None = None
    ) -> Session:
        """Takes up the folder's unfinished run, or draws secrets for a new one."""
        if folder is not None and folder.started:
            secrets, facts = folder.load_state()
            return cls(secrets, {"charged": {}, **facts}, folder, resumed=True)
        secrets = Roots.draw()
        if insecure_seed is not None:
            secrets = Roots.insecure(insecure_seed)
        facts = {"run_id": str(uuid.uuid4()), "started": now(), "charged": {}}
        return cls(secrets, facts, folder, resumed=False)

    @property
    def run_id(self) -> str:
        """The name under which the ledger knows this run."""
        return self.facts["run_id"]

    def agree(self, **facts: Any) -> None:
        """Records facts; in a resumed run, refuses any that changed.

        Repeating releases with the same noise but other data would reveal the data:
        call it with whatever a release depends on, before the charge. `data`, the
        keyed fingerprint of the rows, is required.

        Raises:
          ValueError: names the first fact that differs.
        """
        for name, value in facts.items():
            # Killed after its first charge, a run may not have come to say this.
            new = name not in self.facts and bool(self._named)
            if self.resumed and not new and self.facts.get(name, self) != value:
                raise ValueError(
                    f"{name} differs from the unfinished run in "
                    f"{str(self.folder and self.folder.path)!r}: resuming would reuse "
                    "its noise on other sums; restore what it was, or start in a new "
                    "folder, which is charged anew"
                )
        told = self.facts | facts
        if self._durable and told != self.facts:
            self.facts = told
            self._save()
        self.facts = told

    def kept(self, like: Any) -> tuple[int, Any, dict[str, Any]] | None:
        """The newest step, state and facts that `keep` kept; None: none yet.

        Args:
          like: a tree of the expected structure, shapes and dtypes.

        Raises:
          ValueError: the checkpoint is another run's, made with other secrets.
        """
        saved = self._checkpoints
        newest = None if saved is None else saved.latest(like)
        if newest is None:
            return None
        state, facts = newest
        step, run_id = int(facts.pop("step")), facts.pop("run_id")
        if run_id != self.run_id:
            raise ValueError(
                f"the checkpoint at step {step} belongs to run {run_id}, this folder "
                f"to run {self.run_id}: two runs wrote into it; start in a new one, "
                "which is charged anew"
            )
        return step, state, facts

    def keep(self, step: int, state: Any, facts: dict[str, Any]) -> bool:
        """Keeps a state from which the run can go on, among its secrets.

        Returns:
          False where the run has no folder to keep it in.

        Raises:
          OSError: it can't be written; what was kept before stays.
        """
        if self._checkpoints is None:
            return False
        named = {"run_id": self.run_id, "step": step}
        self._checkpoints.save(step, state, {**facts, **named})
        return True

    def reserve(
        self,
        ledger: Ledger,
        event: DpEvent,
        count: int,
        *,
        label: str,
        delta: float | None = None,
    ) -> Grant:
        """Charges the run's whole plan, fixed now, before its first release.

        Args:
              event: what one step costs.
          count: how many steps.
          label: the entry's name, unless the configuration has one.
          delta: of the ledger's, unless the configuration gives the run a part.

        Raises:
          BudgetExceeded: nothing was charged. See `Ledger.reserve` for the others.
          LedgerCorrupt: the ledger has forgotten what this run was charged before.
        """
        key, cost = self._before(ledger, "", event, count)
        delta = delta if cost is None else cost[1]
        options: Any = {"key": key, "provenance": self._provenance()}
        label = self.label or label
        grant = ledger.reserve(event, count=count, label=label, delta=delta, **options)
        self._charged(key, cost)
        return grant

    def charge(self, ledger: Ledger, event: DpEvent, name: str) -> jax.Array:
        """Charges one release, chosen perhaps on earlier outputs, before it is made.

        Args:
              event: what the release costs.
          name: of the release, once a run. The same name in a resumed run is the same
            charge, not paid again, and the same noise.

        Returns:
          The secret key of its noise: a function of the run's secrets and the name.

        Raises:
          BudgetExceeded, LedgerCorrupt: as for `reserve`.
          ValueError: the name was used before, or nothing was agreed on about the data.
        """
        if not name:
            raise ValueError("name='': give each release of a run a name of its own")
        key, cost = self._before(ledger, f"/{name}", event, 1)
        label = name if self.label is None else f"{self.label}: {name}"
        ledger.charge(event, label=label, key=key, provenance=self._provenance())
        self._charged(key, cost)
        return self.secrets.key(name)

    def close(self) -> None:
        """Lets go of the files."""
        if self._saved is not None:
            self._saved.close()
            self._saved = None

    @property
    def _checkpoints(self) -> Checkpoints | None:
        """The run's checkpoints, if it has a folder."""
        if self._saved is None and self.folder is not None:
            self._saved = Checkpoints(self.folder.checkpoints)
        return self._saved

    def _before(
        self, ledger: Ledger, name: str, event: DpEvent, count: int
    ) -> tuple[str, list[float] | None]:
        """The key of a charge, and what it takes of the run's part."""
        key = self.run_id + name
        if key in self._named:
            raise ValueError(
                f"name={name[1:]!r} was charged in this run before: a second release "
                "under it would be unpaid, and its noise known"
            )
        if "data" not in self.facts:
            raise ValueError(
                "data: call agree(data=secrets.fingerprint(rows)) before a charge, so "
                "that no resumption repeats its noise on other data"
            )
        self._refuse_forgetful(ledger)
        cost = None
        charged = self.facts["charged"]
        if key in charged:  # its price doesn't depend on what was charged after it
            cost = charged[key]
        elif self.part is not None:
            others, whole = list(charged.values()), not name
            relation, whole_event = ledger.relation, repeat(event, count)
            cost = part_cost(self.part, whole_event, relation, others, whole)
        self._named.add(key)
        if not self._durable:
            self._save()
        return key, cost

    def _refuse_forgetful(self, ledger: Ledger) -> None:
        """Refuses a ledger that doesn't know what this run was charged."""
        charged = set(self.facts["charged"])
        if self._named or not charged:  # new, or looked at before
            return
        missing = charged - {entry.body.get("key") for entry in ledger.entries()}
        if missing:
            raise LedgerCorrupt(
                f"the ledger doesn't know {min(missing)}, which was charged to it: it "
                "was replaced or cut; restore it, or start in a new folder, which is "
                "charged anew"
            )

    def _charged(self, key: str, cost: list[float] | None) -> None:
        """Notes a charge, so that a ledger that forgets it is found out."""
        if self.facts["charged"].get(key, 0) != cost:
            self.facts["charged"][key] = cost
            self._save()

    def _save(self) -> None:
        """Makes secrets and facts durable."""
        if self.folder is not None:
            self.folder.save_state(self.secrets, self.facts)
        self._durable = True

    def _provenance(self) -> dict[str, Any]:
        """Public facts for the ledger's entry."""
        facts = {name: self.facts[name] for name in _PUBLISHED if name in self.facts}
        facts["dpkit"] = versions()["dpkit-jax"]
        if self.facts.get("insecure_seed") is not None:
            facts["insecure_seed"] = True
        return facts


def environment() -> dict[str, Any]:
    """What besides the program changes the last bits of a sum."""
    return {
        "backend": jax.default_backend(),
        "machine": platform.machine(),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Versions of Python and the packages that make the numbers."""
    numbers = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            numbers[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            numbers[name] = "not installed"
    return numbers


def default_devices() -> int:
    """Devices that share a batch: two at most on a CPU, else all."""
    available = len(jax.devices())
    if jax.default_backend() == "cpu":
        return min(2, available, os.cpu_count() or 1)
    return available


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
