"""What a finished run shows: its result, its report and its files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from dpkit.accountants.ledger import Ledger
from dpkit.accountants.ledger.state import CHARGES
from dpkit.jobs.config import JobConfig
from dpkit.jobs.folder import RunFolder, write
from dpkit.jobs.progress import Outcome
from dpkit.jobs.session import Session, now, versions
from dpkit.report import Guarantee, Section, Table, Text, not_covered, render
from dpkit.report.identity import budget_json
from dpkit.report.sections import Part
from dpkit.report.words import as_float, number

SCHEMA_VERSION = 1
_CHARGED = "The ledger was charged before anything was released."
_CHAINED = (
    "The ledger's entries are chained by hashes: `dpkit ledger verify` finds an entry"
    " that was edited or cut off, and a ledger that was rewritten as a whole has"
    " another head than this one."
)
NO_CLAIM = (
    "This run charged nothing to its ledger, and makes no claim about privacy: as far"
    " as what it shows depends on private data, nothing protects them."
)


def summary(
    name: str, config: JobConfig, session: Session, ledger: Ledger, done: Outcome
) -> dict[str, Any]:
    """What `result.json` says; nothing in it is private.

    What the run cost, the ledger says; nothing charged, no claim: `epsilon` is None.

    Raises:
      ValueError: a fact of the job's has a name that is said here.
    """
    bound = ledger.charged(session.run_id)
    told = {} if bound is None else bound.to_json()
    total = ledger.spent().to_json()
    charges = [e for e in ledger.entries() if e.kind in CHARGES and e.kind != "plan"]
    own = [e for e in charges if str(e.body.get("key")).startswith(session.run_id)]
    said = {
        "schema_version": SCHEMA_VERSION,
        "job": name,
        "epsilon": told.get("upper"),
        "certified": told.get("certified"),
        "delta": told.get("delta"),
        "accountant": told.get("method_upper"),
        "relation": str(ledger.relation),
        "unit": ledger.unit,
        "dataset": ledger.dataset,
        "ledger": ledger.id,
        "ledger_head": ledger.head,
        "ledger_spent": {
            "epsilon": total["upper"],
            "delta": total["delta"],
            "budget": budget_json(ledger.budget),
            "others": len(charges) - len(own),
        },
        "run_id": session.run_id,
        "started": session.facts["started"],
        "finished": now() if done.timed else None,
        "insecure_seed": config.test is not None,
        "config_sha256": config.sha256,
        "config_file_sha256": session.folder and session.folder.config_sha256,
        "versions": versions(),
        "shown": [list(row) for row in done.shown],
        "falsified": done.falsified,
    }
    taken = sorted(set(said) & set(done.facts))
    if taken:
        raise ValueError(
            f"facts[{taken[0]!r}] is what every run says, and no job's to say: choose "
            "another name"
        )
    return {**said, **done.facts}


def publish(
    folder: RunFolder, config: JobConfig, done: Outcome, result: dict[str, Any]
) -> None:
    """Writes what may be shown; the result last, since it marks the end."""
    text = json.dumps(result, indent=1, allow_nan=False)
    for name, content in done.files.items():
        write(folder.path / name, content(result) if callable(content) else content)
    write(folder.report, page(result, done, config.text).encode())
    write(folder.result, text.encode())


def page(result: Mapping[str, Any], done: Outcome, config_text: str) -> str:
    """The report of a run as one self-contained HTML page.

    Args:
      result: from `summary`, or as read from result.json.
      done: what the job says in it.
      config_text: the configuration as the user wrote it.

    Returns:
      The page. The same input gives the same text.
    """
    claimed = guarantee(result, done.released)
    no_claim = [] if claimed else [Section("No claim about privacy", Text(NO_CLAIM))]
    return render(
        done.title,
        claimed,
        [*no_claim, *_beside(result, claimed), *done.sections],
        dates=_dates(result),
        shown=done.shown,
        not_covered=not_covered(str(result.get("unit", "example")), *done.not_covered),
        evidence=_evidence(result),
        config_text=config_text,
    )


def guarantee(result: Mapping[str, Any], released: str = "") -> Guarantee | None:
    """What a run guarantees, out of its result; None: it charged nothing.

    Args:
      result: as for `page`.
      released: what the guarantee is about and rests on.

    Raises:
      KeyError: one of the needed facts is missing.

    Example:
      >>> guarantee({"epsilon": "inf", "certified": True, "delta": 1e-5,
      ...   "unit": "user", "relation": "add_remove", "accountant": "pld"}).headline
      'no privacy: epsilon is infinite, to add or remove one user'
    """
    if result["epsilon"] is None:
        return None
    told = {
        **{name: result[name] for name in ("certified", "delta", "relation", "unit")},
        "upper": result["epsilon"],
        "method_upper": result["accountant"],
    }
    insecure = "the noise of this run" if result.get("insecure_seed") else ""
    return Guarantee.read(told, insecure=insecure, released=released)


def ledger_total(result: Mapping[str, Any]) -> str | None:
    """What a ledger counts, in words; None: no more than the run costs by itself.

    Example:
      >>> spent = {"epsilon": 1.25, "delta": 1e-5, "others": 2,
      ...          "budget": {"epsilon": 3.0, "delta": 1e-5}}
      >>> ledger_total({"ledger_spent": spent})
      'epsilon ≤ 1.25 of 3, at delta 1e-5, with 2 charges beside this run'
    """
    spent = result.get("ledger_spent") or {}
    others, own = spent.get("others", 0), as_float(result.get("epsilon")) or 0.0
    if not others and (as_float(spent.get("epsilon")) or 0.0) <= own * (1 + 1e-9):
        return None
    limit, total = (
        number(as_float(told["epsilon"]) or 0.0, side=side)
        for told, side in ((spent["budget"], "down"), (spent, "up"))
    )
    at = f"at delta {number(spent['delta'], side='up')}"
    charges = f"{others:,} charge{'' if others == 1 else 's'}"
    return f"epsilon ≤ {total} of {limit}, {at}, with {charges} beside this run"


def _beside(result: Mapping[str, Any], own: Guarantee | None) -> list[Section]:
    """What else was charged to the run's ledger, and what all of it costs."""
    total = ledger_total(result)
    if total is None or not result["ledger_spent"]["others"]:
        return []
    by_itself = "" if own is None else f"By itself this run cost {own.headline}. "
    text = (
        f"{by_itself}Its ledger is shared: when the run ended, everything on it"
        f" together had spent {total}."
    )
    return [Section("The ledger that it shares", Text(text))]


def _dates(result: Mapping[str, Any]) -> list[str]:
    """When the run took place and how long it took, as far as that is known."""
    dates = [
        f"{name} {_moment(str(result[name]))}"
        for name in ("started", "finished")
        if result.get(name)
    ]
    seconds = as_float(result.get("seconds"))
    return dates if seconds is None else [*dates, f"{_duration(seconds)} of work"]


def _moment(text: str) -> str:
    """A time as people write it; a text that is no time stays as it is."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    zone = f" {moment.tzname()}" if moment.tzinfo else ""
    return f"{moment:%Y-%m-%d %H:%M}{zone}"


def _duration(seconds: float) -> str:
    """Seconds as people say them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (rest, "s")]
    return " ".join(f"{n} {name}" for n, name in parts if n) or "less than 1 s"


def _evidence(result: Mapping[str, Any]) -> list[Part]:
    """What ties the page to the ledger, the parameters and the code."""
    hashes = {
        "ledger": "ledger",
        "ledger_head": "ledger head",
        "run_id": "run",
        "params_sha256": "parameters, SHA-256",
        "config_sha256": "configuration, SHA-256",
    }
    rows = [(name, result[key]) for key, name in hashes.items() if result.get(key)]
    versions = result.get("versions") or {}
    rows += [(f"version of {name}", value) for name, value in versions.items()]
    charged = [] if result["epsilon"] is None else [_CHARGED]
    return [Text(*charged, _CHAINED), Table(rows)]
