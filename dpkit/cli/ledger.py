"""`dpkit ledger`: look at a ledger, and check it. Neither command changes it."""

import math
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpkit.cli.budget import bound_in_words
from dpkit.cli.errors import Command
from dpkit.cli.options import Json
from dpkit.cli.output import emit, facts, table

if TYPE_CHECKING:
    from dpkit.accountants import Ledger
    from dpkit.accountants.ledger import Entry

app = typer.Typer(help="Show and check a ledger; neither changes it.")

File = Annotated[
    str,
    typer.Argument(metavar="LEDGER", help="A ledger.db, or the folder of a run."),
]


@app.command(cls=Command)
def show(ledger: File, json: Json = False) -> None:
    """The budget, what is spent of it, and every entry."""
    with _opened(ledger) as book:
        spent, entries = book.spent(), book.entries()
        if json:
            emit(
                {
                    **_identity(book),
                    "spent": spent.to_json(),
                    "entries": [{**e.to_json(), "hash": e.hash} for e in entries],
                }
            )
            return
        known = dict(bound_in_words(spent))
        words = f"epsilon {known['epsilon']} at delta {known['delta']}, {spent.regime}"
        warnings = [("warning", text) for text in spent.warnings]
        seeded = ", ".join(str(e.seq) for e in entries if _insecure(e.body))
        if seeded:
            text = f"the noise of entry {seeded} came from a known seed: NO PRIVACY"
            warnings.append(("warning", text))
        facts([*_header(book), ("spent", words), *warnings, ("entries", len(entries))])
        typer.echo()
        table(["seq:", "time", "kind", "label", "cost", "what"], _rows(entries))


@app.command(cls=Command)
def verify(
    ledger: File,
    recount: Annotated[
        bool,
        typer.Option("--recount", help="Ask the accountants again as well; slower."),
    ] = False,
    json: Json = False,
) -> None:
    """Recompute every hash, link and total; exit code 3 if anything is wrong."""
    with _opened(ledger) as book:
        book.verify(recount=recount)
        count = len(book.entries())
        if json:
            emit({"verified": True, **_identity(book), "entries": count})
        else:
            facts([("verified", f"{count} entries"), *_header(book)])


def _opened(name: str) -> "Ledger":
    """The ledger of a file or of a run's folder; nothing is created."""
    path = Path(name)
    if path.is_dir():
        path = path / "ledger.db"
    if "://" not in name and not path.exists():
        raise ValueError(f"LEDGER={str(path)!r} doesn't exist: name a ledger's file")
    from dpkit.accountants import Ledger

    return Ledger.open(name if "://" in name else path)


def _identity(book: "Ledger") -> dict[str, Any]:
    """What tells this ledger from others."""
    budget = book.budget
    finite = math.isfinite(budget.epsilon)
    return {
        "ledger": book.id,
        "budget": {
            "epsilon": budget.epsilon if finite else "inf",
            "delta": budget.delta,
        },
        "relation": str(book.relation),
        "unit": book.unit,
        "dataset": book.dataset,
        "regime": book.regime,
        "head": book.head,
    }


def _header(book: "Ledger") -> list[tuple[str, Any]]:
    """The same, for people."""
    budget = book.budget
    words = f"epsilon {budget.epsilon!r} at delta {budget.delta!r}"
    return list((_identity(book) | {"budget": words}).items())


def _rows(entries: list["Entry"]) -> list[tuple[Any, ...]]:
    """A row an entry; checkpoints that follow each other share the row of the last."""
    rows = []
    for is_checkpoint, group in groupby(entries, lambda e: e.kind == "checkpoint"):
        members = list(group)
        shown = members[-1:] if is_checkpoint else members
        for e in shown:
            place = str(e.seq)
            if is_checkpoint and len(members) > 1:
                place = f"{members[0].seq}-{e.seq}"
            rows.append((place, e.ts, e.kind, e.label, _cost(e.body), _gist(e.body)))
    return rows


# What a reader wants of an entry; the rest, totals above all, is in --json.
_TELLING = ("count", "event", "counted", "scope", "delta", "ran", "step", "ref", "text")


def _cost(body: dict[str, Any]) -> str:
    """What an entry took from the budget of everybody, where that is an epsilon."""
    from dpkit.report.words import number

    cost = body.get("cost", {}).get("all", {})
    return ", ".join(
        f"{name} {number(float(cost[name]), side='up')}"
        for name in ("epsilon", "delta")
        if name in cost
    )


def _gist(body: dict[str, Any]) -> str:
    """The telling fields of an entry's body."""
    parts = [
        f"{name} {_short(body[name])}"
        for name in _TELLING
        if body.get(name) not in (None, "all")
    ]
    if _insecure(body):
        parts.insert(0, "INSECURE SEED, no privacy")
    return ", ".join(parts)


def _insecure(body: dict[str, Any]) -> bool:
    """Whether anybody who knows a seed can take this entry's noise away."""
    return bool((body.get("provenance") or {}).get("insecure_seed"))


def _short(value: Any) -> str:
    """A field as text: an event as its kind and parameters, long lists as a number."""
    if isinstance(value, dict):
        inside = [
            f"{name} {_short(item)}"
            for name, item in value.items()
            if name not in ("kind", "v")
        ]
        return f"{value.get('kind', '')}({', '.join(inside)})"
    if isinstance(value, list):
        short = ", ".join(_short(item) for item in value[:4])
        return f"[{short}]" if len(value) <= 4 else f"[{short}, … {len(value)} in all]"
    return str(value)
