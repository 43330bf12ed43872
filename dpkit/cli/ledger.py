"""`dpkit ledger`: make a ledger, look at it, check it, close it.

What charges one is in charging.py, what moves whole ledgers in transfer.py.
"""

import re
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpkit.cli import charging, reporting, transfer
from dpkit.cli.bounds import bound_in_words
from dpkit.cli.errors import Command
from dpkit.cli.opening import opened, place
from dpkit.cli.options import Json, LedgerFile
from dpkit.cli.output import emit, facts, line, table
from dpkit.report.identity import author, identity, identity_in_words, insecure, sweep

if TYPE_CHECKING:
    from dpkit.accountants import Budget
    from dpkit.accountants.ledger import Entry

app = typer.Typer(help="One durable account of what was spent, and what it refuses.")
for command in (charging.spend, charging.reserve, charging.commit, charging.abort):
    app.command(cls=Command)(command)
for command in (charging.remaining, reporting.report, transfer.merge, transfer.export):
    app.command(cls=Command)(command)
app.command("import", cls=Command)(transfer.import_)


_COUNTED = {
    "auto": "as the first charge decides: by shared Rényi curves, or by plans",
    "approx": "sealed plans one by one, other charges in a Rényi filter",
    "zcdp": "by concentration",
    "pure": "epsilons add up, without a delta",
}


@app.command(cls=Command)
def init(
    ledger: Annotated[
        str, typer.Argument(metavar="LEDGER", help="The file or URL to be made.")
    ],
    epsilon: Annotated[
        float, typer.Option(help="The budget; inf, to count only, must be written.")
    ],
    delta: Annotated[float, typer.Option(help="The budget's delta, in [0, 1).")],
    relation: Annotated[
        str,
        typer.Option(
            metavar="RELATION",
            help="Which data sets are neighbours: add_remove, replace_one or zero_out.",
        ),
    ],
    unit: Annotated[
        str, typer.Option(help="What one record stands for: example, user, …")
    ],
    dataset: Annotated[
        str,
        typer.Option(help="A name and version of the data; nothing computed from it."),
    ] = "unnamed",
    regime: Annotated[
        str,
        typer.Option(
            metavar="REGIME",
            help="adaptive, or static: one sealed plan, fixed before any output.",
        ),
    ] = "adaptive",
    filter: Annotated[
        str,
        typer.Option(
            metavar="FILTER",
            help="How it is counted: auto (many runs share a Rényi filter, unless the "
            "first needs a tighter accountant), approx, zcdp or pure.",
        ),
    ] = "auto",
    adaptive: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="EPSILON DELTA",
            help="Part of the budget, kept for charges chosen along the way.",
        ),
    ] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=EPSILON,DELTA",
            help="A budget for a block of the data; may be given several times.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Make a new ledger. Nothing may be there yet."""
    from dpkit.accountants import Budget, Ledger

    budget = Budget(epsilon, delta)
    kept = None if adaptive is None else Budget(*adaptive)
    scopes = dict(_scope(text) for text in scope or [])
    _refuse_present(ledger)
    with Ledger.open(
        place(ledger),
        budget=budget,
        relation=relation,
        unit=unit,
        dataset=dataset,
        regime=regime,
        filter=filter,
        adaptive=kept,
        scopes=scopes or None,
    ) as book:
        if json:
            emit({"created": True, **identity(book)})
        else:
            counted = ("counted", _COUNTED[filter])
            facts([("created", ledger), *identity_in_words(book), counted])


@app.command(cls=Command)
def close(
    ledger: LedgerFile,
    reason: Annotated[str, typer.Option(help="Why, in one line.")] = "closed by hand",
    json: Json = False,
) -> None:
    """Close the books for ever: every later charge is refused."""
    with opened(ledger) as book:
        book.verify()
        if book.retired:
            raise ValueError(f"LEDGER={ledger}: it is closed already")
        entry = book.retire(reason)
        if json:
            emit({"closed": True, **identity(book), "seq": entry.seq})
        else:
            facts([("closed", reason), *identity_in_words(book)])


@app.command(cls=Command)
def show(ledger: LedgerFile, json: Json = False) -> None:
    """The budget, what is spent of it, and every entry; the same of each scope."""
    from dpkit.report.account import scopes
    from dpkit.report.statement import block_rows

    with opened(ledger) as book:
        spent, entries = book.spent(), book.entries()
        if json:
            emit(
                {
                    **identity(book),
                    "spent": spent.to_json(),
                    "scopes": scopes(book),
                    "entries": [{**e.to_json(), "hash": e.hash} for e in entries],
                }
            )
            return
        known = dict(bound_in_words(spent))
        words = f"epsilon {known['epsilon']} at delta {known['delta']}, {spent.regime}"
        warnings = [("warning", text) for text in spent.warnings]
        seeded = ", ".join(str(e.seq) for e in entries if insecure(e))
        if seeded:
            text = f"the noise of entry {seeded} came from a known seed: NO PRIVACY"
            warnings.append(("warning", text))
        facts(
            [
                *identity_in_words(book),
                ("spent", words),
                *(
                    (f"scope {name}", f"epsilon {spent} spent of {budget}")
                    for name, budget, spent in block_rows(scopes(book))
                ),
                *warnings,
                ("entries", len(entries)),
            ]
        )
        line()
        heads = ["seq:", "time", "who", "kind", "label", "cost", "what"]
        table(heads, _rows(entries))


@app.command(cls=Command)
def verify(
    ledger: LedgerFile,
    recount: Annotated[
        bool,
        typer.Option("--recount", help="Ask the accountants again as well; slower."),
    ] = False,
    head: Annotated[
        str | None,
        typer.Option(
            metavar="HASH",
            help="A head that was noted before: the ledger must still hold it.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Recompute every hash, link and total; exit code 3 if anything is wrong.

    With --head, also if the chain doesn't hold that hash. One that more entries have
    followed is no fault: a ledger in use grows, and all that was noted is still in it.
    """
    with opened(ledger) as book:
        book.verify(recount=recount)
        entries = book.entries()
        added = None if head is None else _added_since(head, entries)
        if json:
            told = {} if added is None else {"added_since_head": added}
            emit({"verified": True, **identity(book), "entries": len(entries), **told})
            return
        rows = [("verified", f"{len(entries)} entries"), *identity_in_words(book)]
        if added is not None:
            noted = f"an ancestor: entries added since: {added}"
            rows.append(("--head", noted if added else "is the head"))
        facts(rows)


def _added_since(head: str, entries: list["Entry"]) -> int:
    """How many entries follow the one with this hash; LedgerCorrupt: none has it."""
    from dpkit.accountants import LedgerCorrupt

    if not re.fullmatch("[0-9a-fA-F]{64}", head):
        raise ValueError(f"head={head!r} must be a hash of 64 hexadecimal digits")
    for added, entry in enumerate(reversed(entries)):
        if entry.hash == head.lower():
            return added
    raise LedgerCorrupt(
        f"no entry has the hash {head}: it is another ledger, or was rewritten or cut"
    )


def _refuse_present(name: str) -> None:
    """Raise FileExistsError where a ledger, or any file, is there already."""
    from dpkit.accountants import Ledger

    path = place(name)
    if isinstance(path, str):
        try:
            Ledger.open(path).close()
        except ValueError:
            return
    elif not path.exists():
        return
    raise FileExistsError(f"LEDGER={name} is there already; choose another name")


def _scope(text: str) -> "tuple[str, Budget]":
    """A scope's name and budget out of NAME=EPSILON,DELTA."""
    from dpkit.accountants import Budget

    name, _, numbers = text.rpartition("=")
    epsilon, _, delta = numbers.partition(",")
    try:
        return name, Budget(float(epsilon), float(delta))
    except ValueError as error:
        raise ValueError(
            f"scope={text!r} must be NAME=EPSILON,DELTA ({error})"
        ) from None


def _rows(entries: list["Entry"]) -> list[tuple[Any, ...]]:
    """A row an entry; checkpoints that follow each other share the row of the last."""
    rows = []
    for is_checkpoint, group in groupby(entries, _is_step):
        members = list(group)
        shown = members[-1:] if is_checkpoint else members
        for e in shown:
            place = str(e.seq)
            if is_checkpoint and len(members) > 1:
                place = f"{members[0].seq}-{e.seq}"
            told = (e.kind, e.label, _cost(e.body), _gist(e))
            rows.append((place, e.ts, author(e), *told))
    return rows


def _is_step(entry: "Entry") -> bool:
    """Whether an entry only says how far a reservation has come."""
    return entry.kind == "checkpoint" and "run" not in entry.body


# What a reader wants of an entry; the rest, totals above all, is in --json.
_TELLING = (
    "count",
    "event",
    "counted",
    "scope",
    "delta",
    "run",
    "ran",
    "step",
    "ref",
    "text",
)


def _cost(body: dict[str, Any]) -> str:
    """What an entry took from the budget of everybody, where that is an epsilon."""
    from dpkit.report.words import number

    cost = body.get("cost", {}).get("all", {})
    return ", ".join(
        f"{name} {number(float(cost[name]), side='up')}"
        for name in ("epsilon", "delta")
        if name in cost
    )


def _gist(entry: "Entry") -> str:
    """The telling fields of an entry's body."""
    from dpkit.report.words import in_short

    parts = [
        f"{name} {in_short(entry.body[name])}"
        for name in _TELLING
        if entry.body.get(name) not in (None, "all")
    ]
    if "runs" in entry.body:
        parts.insert(0, f"{sweep(entry)} runs sealed together")
    if insecure(entry):
        parts.insert(0, "INSECURE SEED, no privacy")
    return ", ".join(parts)
