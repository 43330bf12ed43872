"""What a finished run shows: its result, its report and its files."""

from __future__ import annotations

import json
from typing import Any

from dpkit.accountants.ledger import Ledger
from dpkit.jobs.config import JobConfig
from dpkit.jobs.folder import RunFolder, write
from dpkit.jobs.progress import Outcome
from dpkit.jobs.session import Session, now, versions

SCHEMA_VERSION = 1


def summary(
    name: str, config: JobConfig, session: Session, ledger: Ledger, done: Outcome
) -> dict[str, Any]:
    """What `result.json` says; nothing in it is private.

    Args:
      name: of the job.
      config: what was asked for.
      session: knows the run and when it started.
      ledger: that was charged.
      done: what came of it; its facts can't take the place of these.
    """
    bound = done.bound
    told = {} if bound is None else {
        "epsilon": bound.upper,
        "certified": bound.certified,
        "delta": bound.delta,
        "accountant": bound.method_upper,
    }  # fmt: skip
    return {
        "schema_version": SCHEMA_VERSION,
        "job": name,
        **done.facts,
        **told,
        "relation": str(ledger.relation),
        "unit": ledger.unit,
        "dataset": ledger.dataset,
        "ledger": ledger.id,
        "ledger_head": ledger.head,
        "run_id": session.run_id,
        "started": session.facts["started"],
        "finished": done.facts.get("finished", now()),
        "insecure_seed": config.test is not None,
        "config_sha256": config.sha256,
        "versions": versions(),
        "shown": [list(row) for row in done.shown],
        **({"falsified": True} if done.falsified else {}),
    }


def publish(
    folder: RunFolder, config: JobConfig, done: Outcome, result: dict[str, Any]
) -> None:
    """Writes what may be shown; the result last, since it marks the end.

    Args:
      folder: where to.
      config: whose text the report shows.
      done: has the files and what the report says.
      result: from `summary`.
    """
    text = json.dumps(result, indent=1, allow_nan=False)
    for name, content in done.files.items():
        write(folder.path / name, content)
    write(folder.report, page(result, done, config.text).encode())
    write(folder.result, text.encode())


def page(result: dict[str, Any], done: Outcome, config_text: str) -> str:
    """The report of a run."""
    from dpkit.report import render

    return render(result, result.get("history", []), config_text)
