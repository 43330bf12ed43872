"""`dpkit ledger merge | export | import`: whole ledgers, from here to there."""

from pathlib import Path
from typing import Annotated

import typer

from dpkit.cli.files import beside, place
from dpkit.cli.opening import opened
from dpkit.cli.opening import place as place_of
from dpkit.cli.options import Json, LedgerFile
from dpkit.cli.output import emit, facts
from dpkit.report.guarantee import stated
from dpkit.report.identity import identity, identity_in_words


def merge(
    ledgers: Annotated[
        list[str],
        typer.Argument(
            metavar="LEDGER...", help="Ledgers about the same people's data."
        ),
    ],
    into: Annotated[
        str, typer.Option(metavar="LEDGER", help="The new ledger; not there yet.")
    ],
    epsilon: Annotated[
        float | None,
        typer.Option(help="The new budget, with --delta. [default: the sum]"),
    ] = None,
    delta: Annotated[float | None, typer.Option(help="The new budget's delta.")] = None,
    json: Json = False,
) -> None:
    """One ledger that holds what all of them have spent; they are closed.

    Relation, unit and data set must agree (else exit code 5); forks of one ledger are
    refused, for they hold the same entries.
    """
    from contextlib import ExitStack

    from dpkit.accountants import Budget
    from dpkit.accountants import merge as merge_all

    if (epsilon is None) != (delta is None):
        raise ValueError(
            f"epsilon={epsilon}: --epsilon and --delta are given together, or neither"
        )
    budget = None
    if epsilon is not None and delta is not None:
        budget = Budget(epsilon, delta)
    with ExitStack() as stack:
        books = [stack.enter_context(opened(name)) for name in ledgers]
        merged = stack.enter_context(merge_all(books, place_of(into), budget=budget))
        spent = merged.spent()
        ids = [book.id for book in books]
        if json:
            document = {"merged": ids, "spent": spent.to_json()}
            emit({**identity(merged), **document})
            return
        words = f"epsilon {stated(spent)}"
        rows = [("merged", f"{len(ids)} ledgers into {into}"), ("spent", words)]
        facts([*rows, *identity_in_words(merged)])


def export(
    ledger: LedgerFile,
    out: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="JSON lines; nothing may be there yet."),
    ],
    json: Json = False,
) -> None:
    """Write every entry as a line of JSON, lossless; the last line names the head."""
    with opened(ledger) as book:
        book.verify()
        if out.exists():
            raise FileExistsError(f"FILE={out} is there already; choose another name")
        temporary = beside(out)
        try:
            book.export_jsonl(temporary)
            place(temporary, out)
        finally:
            temporary.unlink(missing_ok=True)
        if json:
            emit({"exported": str(out), **identity(book)})
        else:
            facts([("exported", out), *identity_in_words(book)])


def import_(
    lines: Annotated[Path, typer.Argument(metavar="FILE", help="What export wrote.")],
    ledger: Annotated[
        str,
        typer.Argument(metavar="LEDGER", help="The new ledger; not there yet."),
    ],
    json: Json = False,
) -> None:
    """Make a ledger of exported lines, entry for entry, and verify it.

    The copy has the same id: it is a fork as soon as either is charged, and `merge`
    refuses the two. Charge one of them only.
    """
    from dpkit.accountants import Ledger

    with Ledger.import_jsonl(lines, place_of(ledger)) as book:
        if json:
            emit({"imported": str(lines), **identity(book)})
        else:
            facts([("imported", lines), *identity_in_words(book)])
