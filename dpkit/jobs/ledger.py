"""The ledger of a run: its folder's own, or one that runs share; found, checked, made.

A ledger that is there is verified before anything is created. One that a run makes for
itself, and that was never charged, goes again when the run is refused: a budget without
a release would only stand in the way of the next try. A shared one is never made here:
its budget is a decision about all runs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dp_accounting import DpEvent

from dpkit.accountants.answers.bounds import Budget
from dpkit.accountants.answers.errors import (
    BudgetExceeded,
    LedgerCorrupt,
    NotCertified,
    UnsupportedEvent,
)
from dpkit.accountants.answers.relations import Relation
from dpkit.accountants.ledger import Ledger
from dpkit.accountants.ledger.request import Request, Sweep
from dpkit.accountants.ledger.state import CHARGES
from dpkit.accountants.readings.best import epsilon
from dpkit.accountants.storage.lines import location
from dpkit.accountants.storage.store import Store
from dpkit.jobs.config import JobConfig
from dpkit.jobs.folder import RunFolder


class RunLedger(Ledger):
    """The ledger of a run, to which the run is charged through its session alone.

    Attributes:
      run_id: the key of the run's charges; one that isn't the run's is refused, since
        the run wouldn't show it as its cost.

    Example:
      >>> from dpkit.accountants import PureDpEvent
      >>> ledger = RunLedger.open(None, budget=Budget(1.0, 0.0), relation="zero_out",
      ...                         unit="user", dataset="toy")
      >>> ledger.charge(PureDpEvent(0.5), label="look")
      Traceback (most recent call last):
      RuntimeError: label='look' is charged past its session: ...
    """

    run_id: str | None = None

    def _request(self, kind: str, event: DpEvent | Sweep, **options: Any) -> Request:
        # The plan of a static ledger takes the budget; what it releases has a key.
        key = str(options.get("key")).partition("/")[0]
        if kind != "plan" and key != self.run_id:
            raise RuntimeError(
                f"label={options['label']!r} is charged past its session: call "
                "session.reserve or session.charge, so that it counts as this run's"
            )
        return super()._request(kind, event, **options)


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a run is charged.

    Args:
      where: a file or a URL.
      shared: whether it is somebody else's than the folder's.
      author: who charges, in free text.
      names_data: whether the name of the data is a term; else a ledger has its own.

    Example:
      >>> Place.of(JobConfig(), None, RunFolder("run")).where
      PosixPath('run/ledger.db')
    """

    where: Path | str
    shared: bool
    author: str | None = None
    names_data: bool = True

    @classmethod
    def of(
        cls, config: JobConfig, given: str | Path | None, folder: RunFolder
    ) -> Place:
        """The ledger that is asked for; `given` goes before the configuration's.

        Raises:
          ValueError: a share of no ledger; a known seed on a shared one.
        """
        url, author = given, None
        if config.ledger is not None:
            author = config.ledger.author
            url = _from(config) if given is None else given
        if url is None:
            if config.share is not None:
                raise ValueError(
                    "ledger.share is a part of a shared ledger: name it by ledger.url "
                    "or --ledger, or leave the share out"
                )
            return cls(folder.ledger, shared=False, author=author)
        if config.test is not None:
            raise ValueError(
                f"test.insecure_seed={config.test.insecure_seed} with a shared ledger: "
                "anybody could take the noise away, and the budget is real; leave one "
                "of them out"
            )
        if not isinstance(url, str) or "://" not in url:
            url = Path(url)
            url = url / folder.ledger.name if url.is_dir() else url
        if location(url) is None:
            raise ValueError("ledger: one in memory is nobody's to share; name a file")
        return cls(url, shared=True, author=author)

    def check(
        self, folder: RunFolder, terms: Mapping[str, Any], budget: Budget
    ) -> None:
        """Verifies the ledger, if there is one; creates nothing.

        Raises:
          LedgerCorrupt: it is damaged, or not the one that the folder's unfinished run
            was charged to.
          Incompatible: it counts another relation, unit or data set.
          ValueError: the file is no ledger; a shared one doesn't exist.
        """
        exists, name = self._looked_up()
        lost = LedgerCorrupt(
            f"{name} is not the ledger that this folder's unfinished run was charged "
            "to: restore or name that one, or start in a new folder, which is charged "
            "anew"
        )
        if not exists:
            if folder.started:
                raise lost
            if self.shared:
                raise ValueError(_missing(name, terms, budget))
            return
        with Ledger.open(self.where, **self._agreed(terms)) as ledger:
            ledger.verify()
            if folder.started and folder.load_state()[1].get("ledger") != ledger.id:
                raise lost

    def open(
        self, budget: Budget, terms: Mapping[str, Any], undo: contextlib.ExitStack
    ) -> RunLedger:
        """The ledger; the folder's own is made, with this budget, where there is none.

        Args:
          budget: of a new ledger.
          terms: relation, unit and dataset.
          undo: is taught to remove a ledger that was made and never charged.

        Raises:
          Incompatible, LedgerCorrupt, ValueError, OSError: from `Ledger.open`.
        """
        if self.shared or Path(self.where).exists():
            agreed = self._agreed(terms)
            return RunLedger.open(self.where, author=self.author, **agreed)
        terms = {**terms, "author": self.author, "budget": budget}
        ledger = RunLedger.open(self.where, **terms)
        undo.callback(_remove_unused, Path(self.where))
        return ledger

    def dataset(self, terms: Mapping[str, Any]) -> str:
        """The name of the data by a shared ledger that is there, else by the terms.

        Raises:
          Incompatible, LedgerCorrupt, ValueError, OSError: from `Ledger.open`.
        """
        if not self.shared or not self._looked_up()[0]:
            return terms["dataset"]
        with Ledger.open(self.where, **self._agreed(terms)) as ledger:
            return ledger.dataset

    def _agreed(self, terms: Mapping[str, Any]) -> dict[str, Any]:
        """The terms that a ledger which is there must have."""
        return {**terms, **({} if self.names_data else {"dataset": None})}

    def _looked_up(self) -> tuple[bool, str]:
        """Whether anything is there, and its name without a password."""
        if not self.shared:
            return Path(self.where).exists(), str(self.where)
        store = Store(location(self.where))
        try:
            name = store.path if isinstance(self.where, str) else self.where
            return store.exists(), str(name)
        finally:
            store.close()


def _from(config: JobConfig) -> str | Path | None:
    """The configuration's ledger; a file is meant from the configuration's folder."""
    url = None if config.ledger is None else config.ledger.url
    if url is None or "://" in url or location(url) is None:
        return url
    return config.folder / url


def part_cost(
    part: Budget,
    event: DpEvent,
    relation: Relation,
    others: Sequence[Sequence[float]],
    whole: bool,
) -> list[float]:
    """Epsilon and delta that a charge takes of a run's part of a shared ledger.

    The charges of a run are added up, each at a part of delta that was fixed before it:
    basic composition, which holds for releases chosen on earlier ones as well. What the
    ledger itself refuses comes on top.

    Args:
      part: all that the run may take.
      event: all of the charge.
      relation: the ledger's.
      others: what the run's earlier charges took.
      whole: whether no other charge will follow.

    Raises:
      BudgetExceeded: more than is left.
      NotCertified: no accountant bounds it.

    Example:
      >>> from dpkit.accountants import PureDpEvent
      >>> part = Budget(1.0, 0.0)
      >>> part_cost(part, PureDpEvent(0.75), Relation.ADD_REMOVE, [], whole=True)[1]
      0.0
    """
    spent = math.fsum(e for e, _ in others)
    exact = [part.delta, *(-d for _, d in others)]
    left = math.fsum(exact)
    if math.fsum([*exact, -left]) < 0:  # the sign of fsum is exact
        left = math.nextafter(left, 0.0)
    for delta in (0.0, left if whole else left / 2):
        with contextlib.suppress(UnsupportedEvent, ValueError):
            bound = epsilon(event, delta, relation=relation)
            asked = bound.upper if bound.certified else None
            if asked is not None and math.isfinite(asked):
                break
    else:
        raise NotCertified("no accountant certifies an epsilon within ledger.share")
    if math.fsum([*(e for e, _ in others), asked, -part.epsilon]) > 0:
        advice = "ledger.share is this run's part: raise it, or ask for less"
        raise BudgetExceeded(asked, spent, part, "all", advice)
    return [asked, delta]


def may_be_charged(folder: RunFolder, ledger: Ledger) -> bool:
    """False only if the ledger certainly doesn't know this folder's run."""
    if not folder.started:
        return False
    try:
        run_id = str(folder.load_state()[1].get("run_id"))
        return ledger.charged(run_id) is not None
    except (ValueError, LedgerCorrupt, OSError):
        return True


def explained(error: BudgetExceeded, ledger: Ledger) -> BudgetExceeded:
    """The refusal of a run whose folder's ledger already holds one, saying so."""
    if all(entry.kind not in CHARGES for entry in ledger.entries()):
        return error
    advice = (
        f"{error.advice}; this folder's ledger already holds a run, and its private/, "
        "without which it can't be resumed, is gone: name a new folder"
    )
    return BudgetExceeded(error.asked, error.spent, error.budget, error.scope, advice)


def _remove_unused(path: Path) -> None:
    """Deletes a ledger that holds no charge."""
    with Ledger.open(path) as ledger:
        unused = len(ledger.entries()) == 1
    if unused:
        path.unlink()


def _missing(name: str, terms: Mapping[str, Any], budget: Budget) -> str:
    """What to say of a shared ledger that nobody made."""
    options = {"epsilon": budget.epsilon, "delta": budget.delta, **terms}
    words = [f"--{key} {shlex.quote(str(value))}" for key, value in options.items()]
    return (
        f"ledger={name!r} doesn't exist; make it once, with the epsilon and the delta "
        "that all its runs may spend together (these are what this one asks for): "
        f"dpkit ledger init {shlex.quote(name)} {' '.join(words)}"
    )
