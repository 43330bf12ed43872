"""The ledger in the folder of a run: found and checked, or made, or taken back.

A ledger that is there is verified before anything is created. One that a run makes for
itself, and that was never charged, goes again when the run is refused: a budget without
a release would only stand in the way of the next try.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from dpkit.accountants.answers.bounds import Budget
from dpkit.accountants.answers.errors import BudgetExceeded, LedgerCorrupt
from dpkit.accountants.ledger import Ledger
from dpkit.training.folder import RunFolder


def check_ledger(folder: RunFolder, terms: dict[str, Any]) -> None:
    """Verifies the folder's ledger, if there is one; creates nothing.

    Args:
      folder: the run's.
      terms: relation, unit and dataset, with which the ledger must agree.

    Raises:
      LedgerCorrupt: it is damaged, or not the one that the folder's unfinished run was
        charged to.
      Incompatible: it counts another relation, unit or data set.
      ValueError: the file is no ledger.
    """
    lost = LedgerCorrupt(
        f"{folder.ledger} is not the ledger that this folder's unfinished run was "
        "charged to: restore it, or start in a new folder, which is charged anew"
    )
    if not folder.ledger.exists():
        if folder.started:
            raise lost
        return
    with Ledger.open(folder.ledger, **terms) as ledger:
        ledger.verify()
        if folder.started and folder.load_state()[1].get("ledger") != ledger.id:
            raise lost


def open_ledger(
    folder: RunFolder,
    budget: Budget,
    terms: dict[str, Any],
    undo: contextlib.ExitStack,
) -> Ledger:
    """The folder's ledger; made, with this budget, where there is none.

    Args:
      folder: the run's; hold its lock.
      budget: of a new ledger.
      terms: relation, unit and dataset.
      undo: is taught to remove a ledger that was made and never charged.

    Raises:
      Incompatible, LedgerCorrupt, ValueError, OSError: from `Ledger.open`.
    """
    if folder.ledger.exists():
        return Ledger.open(folder.ledger, **terms)
    ledger = Ledger.open(folder.ledger, budget=budget, **terms)
    undo.callback(_remove_unused, folder.ledger)
    return ledger


def _remove_unused(path: Path) -> None:
    """Deletes a ledger that holds no charge."""
    with Ledger.open(path) as ledger:
        unused = len(ledger.entries()) == 1
    if unused:
        path.unlink()


def may_be_charged(folder: RunFolder, ledger: Ledger) -> bool:
    """False only if the ledger certainly doesn't know this folder's run."""
    if not folder.started:
        return False
    try:
        _, facts = folder.load_state()
        keys = {entry.body.get("key") for entry in ledger.entries()}
    except (ValueError, LedgerCorrupt, OSError):
        return True
    return facts.get("run_id") in keys


def explained(error: BudgetExceeded, ledger: Ledger) -> BudgetExceeded:
    """The refusal of a run whose folder's ledger already holds one, saying so."""
    if all(entry.kind != "reserve" for entry in ledger.entries()):
        return error
    advice = (
        f"{error.advice}; this folder's ledger already holds a run, and its private/, "
        "without which it can't be resumed, is gone: name a new folder"
    )
    return BudgetExceeded(error.asked, error.spent, error.budget, error.scope, advice)
