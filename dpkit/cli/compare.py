"""`dpkit budget compare`: every accountant on the same run, with its time."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from dpkit.cli.options import Accountants, ConfigFile, Deltas, Json, Relation, Unit
from dpkit.cli.output import emit, facts, line, note, table

if TYPE_CHECKING:
    from dpkit.accountants import PrivacyBound
    from dpkit.budget.comparison import Answer
    from dpkit.budget.declaration import Declaration


def compare(
    config: ConfigFile,
    delta: Deltas = None,
    relation: Relation = None,
    unit: Unit = None,
    accountants: Accountants = None,
    tolerance: Annotated[
        float,
        typer.Option("--tol", help="The relative difference that is not flagged."),
    ] = 1e-6,
    peers: Annotated[
        bool,
        typer.Option("--peers", help="Ask dp-accounting's accountants too; slow."),
    ] = False,
    json: Json = False,
) -> None:
    """All accountants side by side: bounds, estimates, times, contradictions.

    Exit code 4 where none of them certifies an epsilon.
    """
    from dpkit.accountants import NotCertified
    from dpkit.cli.jobs import declared

    run = declared(config, relation=relation, unit=unit)
    deltas = delta or ([run.delta] if run.delta is not None else [])
    if not deltas:
        raise ValueError("missing option --delta; or a CONFIG that names it")
    readings = _readings(run, deltas, names(accountants), tolerance, peers=peers)
    if json:
        emit(
            {
                **run.to_json(),
                "assumed": list(run.assumed),
                "readings": [reading.to_json() for reading in readings],
            }
        )
    else:
        told = [("relation", run.relation), ("unit", run.unit), ("regime", "static")]
        facts([*told, *(("assumed", text) for text in run.assumed)])
        line()
        show(readings)
    for reading in readings:
        for flag in reading.flags:
            note(f"{reading.accountant} at delta {reading.delta!r}: {flag}")
    if not any(r.bound is not None and r.bound.certified for r in readings):
        raise NotCertified("no accountant certifies an epsilon for this run")


def names(text: str | None) -> list[str]:
    """Names separated by commas; none for all.

    Example:
      >>> names("rdp, pld")
      ['rdp', 'pld']
    """
    return [] if text is None else [name.strip() for name in text.split(",")]


def asked(
    run: "Declaration", deltas: Sequence[float], accountants: list[str]
) -> "tuple[list[PrivacyBound], list[Answer]]":
    """The best bound at each delta by the accountants named, and all their readings.

    Raises:
      UnsupportedEvent, UnsupportedRelation, NotCertified: by `dpkit.accountants`, where
        none of them has an answer.

    Example:
      >>> asked(run, [1e-5], ["rdp", "pld"])  # doctest: +SKIP
    """
    from dpkit.accountants import NotCertified

    readings = _readings(run, deltas, accountants, 1e-6)
    bounds = []
    for delta in deltas:
        here = [r for r in readings if r.delta == delta]
        found = [r.bound for r in here if r.bound is not None]
        if not found:
            raise NotCertified(here[0].unsupported or "no accountant has an answer")
        bounds.append(min(found, key=_rank))
    return bounds, readings


def show(readings: "Sequence[Answer]") -> None:
    """Print readings as a table.

    Example:
      >>> show([])
       delta   accountant   at least   estimate   at most   certified   seconds   remark
      ───────────────────────────────────────────────────────────────────────────────────
    """
    heads = "delta: accountant at·least: estimate: at·most: certified seconds: remark"
    columns = [head.replace("·", " ") for head in heads.split()]
    table(columns, (_row(reading) for reading in readings))


def _readings(
    run: "Declaration",
    deltas: Sequence[float],
    names: list[str],
    tolerance: float,
    *,
    peers: bool = False,
) -> "list[Answer]":
    """All readings at all deltas."""
    from dpkit.budget.comparison import compare as compare_all

    return [
        reading
        for delta in deltas
        for reading in compare_all(
            run.event,
            delta,
            relation=run.relation,
            unit=run.unit,
            accountants=names,
            tolerance=tolerance,
            peers=peers,
        )
    ]


def _row(reading: "Answer") -> list[str]:
    """A reading as cells."""
    from dpkit.report.words import number

    bound, seconds = reading.bound, f"{reading.seconds:.3f}"
    head = [number(reading.delta, side="up"), reading.accountant]
    if bound is None:
        return [*head, "", "", "", "no", seconds, reading.unsupported or ""]
    numbers = [
        "" if value is None else number(value, digits=7, side=side)
        for value, side in (
            (bound.lower, "down"),
            (bound.estimate, "nearest"),
            (bound.upper, "up"),
        )
    ]
    certified = "yes" if bound.certified else "no"
    remarks = "; ".join([*reading.flags, *bound.warnings])
    return [*head, *numbers, certified, seconds, remarks]


def _rank(bound: "PrivacyBound") -> tuple[bool, float]:
    """The smallest certified upper bound; where there is none, the largest estimate."""
    if bound.certified and bound.upper is not None:
        return False, bound.upper
    value = bound.estimate if bound.estimate is not None else bound.upper
    return True, -(value or 0.0)
