"""What a job tells while it works, and what it ends with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dpkit.report.sections import Section


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a run stands; nothing here is private, unless the run's time is.

    Args:
      done: how much of the work is done.
      total: how much there is.
      doing: what is being done, a word.
      counted: the epsilon of what was released so far, as the job counts it, for those
        who watch; None: not known yet. What the run cost, the ledger says in the end.
      shown: what else may be told, short texts.
      timed: whether the time that the work takes may be told.
      at: what `counted` is meant at: delta, relation, unit; filled in by the frame.

    Example:
      >>> Progress(1, 10, "training", 0.5, ("accuracy 50.00 %",)).done
      1
    """

    done: int
    total: int
    doing: str
    counted: float | None
    shown: tuple[str, ...] = ()
    timed: bool = True
    at: str = ""


OnProgress = Callable[[Progress], None]
Tell = Callable[[str], None]
OfResult = Callable[[Mapping[str, Any]], bytes]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a run. All of it is released: nothing in it may be private.

    What it cost is asked of the ledger: a job has no say in that.

    Args:
      facts: JSON values for `result.json`, beside those that every run has, whose names
        are refused.
      files: what to write into the folder, by name: bytes, or what makes them of the
        result, for a file that says what the run cost.
      title: of the report.
      sections: of the report, the job's own.
      shown: the numbers that people look for first: name, text, remark.
      released: what the guarantee is about and rests on, in sentences.
      not_covered: what it leaves open for this job, one sentence each.
      timed: whether the time tells nothing private; if not, no end is shown.
      falsified: an audit found a claim to be wrong: the command exits with 1.

    Raises:
      ValueError: a file with a name that is taken, or outside the folder.

    Example:
      >>> Outcome(title="Nothing").files
      {}
    """

    title: str
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    files: Mapping[str, bytes | OfResult] = dataclasses.field(default_factory=dict)
    sections: Sequence[Section] = ()
    shown: Sequence[tuple[str, str, str]] = ()
    released: str = ""
    not_covered: Sequence[str] = ()
    timed: bool = True
    falsified: bool = False

    def __post_init__(self) -> None:
        """Refuses files that would take the place of others."""
        for name in self.files:
            if name in _TAKEN or "/" in name or name.startswith((".", "ledger.db")):
                raise ValueError(f"files={name!r} is no name for a file of a job")


_TAKEN = ("", "private", "config.toml", "result.json", "report.html")
