"""`dpkit ledger report`: the account that a privacy officer reads."""

from pathlib import Path
from typing import Annotated, Any

import typer

from dpkit.cli.bounds import refuse_uncertified
from dpkit.cli.files import write
from dpkit.cli.opening import opened
from dpkit.cli.options import Json
from dpkit.cli.output import confirm, dumps, emit, facts, line, plain, table

_FORMATS = ("text", "json", "html")


def report(
    what: Annotated[
        str,
        typer.Argument(
            metavar="LEDGER|CONFIG",
            help="A ledger's file or URL, or the folder of a run; or a .toml or .json"
            " file that declares one.",
        ),
    ],
    format: Annotated[
        str, typer.Option(metavar="FORMAT", help="text, json or html.")
    ] = "text",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write it there instead of printing it."),
    ] = None,
    delta: Annotated[
        float | None,
        typer.Option(help="The delta of a CONFIG's report, where it names none."),
    ] = None,
    json: Json = False,
) -> None:
    """What was spent and released, under which assumptions, and what it means.

    The HTML is one file with its plots, and asks for nothing from anywhere.
    """
    from dpkit.accountants.answers import checks
    from dpkit.report import render_account

    form = checks.one_of(_FORMATS, format="json" if json else format)
    if form == "text" and out is not None:
        raise ValueError(
            f"out={out}: text is printed; --format html and json can be written"
        )
    document = _document(what, delta)
    if form == "html":
        _give(render_account(document), out)
    elif form == "json" and out is not None:
        _give(dumps(document), out)
    elif form == "json":
        emit(document)
    else:
        _show(document)
    refuse_uncertified(document["bound"]["certified"])


def _give(text: str, out: Path | None) -> None:
    """Write a text to a file, or print it."""
    if out is None:
        typer.echo(text, nl=False)
        return
    write(out, text)
    confirm(f"written: {out}")


def _show(document: dict[str, Any]) -> None:
    """Print the facts."""
    from dpkit.report.statement import (
        CHARGE_HEADS,
        attack_rows,
        block_rows,
        charge_rows,
        guarantee,
    )

    told = guarantee(document)
    names = ("ledger", "head", "dataset", "regime", "relation", "unit")
    rows = [(name, document.get(name)) for name in names]
    facts([("guarantee", told.headline), *rows, *_budget(document)])
    line()
    for text in told.sentences():
        line(plain(text))
    line()
    adaptive = document["bound"]["regime"] == "adaptive"
    second = "if all had been fixed in advance" if adaptive else "by the whole profile"
    table(["an attacker, at most", "certified:", f"{second}:"], attack_rows(document))
    line()
    table(CHARGE_HEADS, charge_rows(document["charges"]))
    if document["scopes"]:
        line()
        table(["block", "budget", "epsilon"], block_rows(document["scopes"]))
    for title in ("assumed", "not_covered"):
        for text in document[title]:
            facts([(title.replace("_", " "), text)])


def _budget(document: dict[str, Any]) -> list[tuple[str, Any]]:
    """The limit, and what was read of the regime."""
    budget = document.get("budget")
    words = budget and f"epsilon {budget['epsilon']} at delta {budget['delta']}"
    seeds = ", ".join(str(seq) for seq in document["insecure"])
    warning = f"entries {seeds} used a known seed: NO PRIVACY" if seeds else None
    return [("budget", words), ("warning", warning)]


def _document(what: str, delta: float | None) -> dict[str, Any]:
    """The facts."""
    from dpkit.report import of_ledger, of_run

    if what.lower().endswith((".toml", ".json")):
        from dpkit.cli.jobs import declared

        run = declared(what, delta=delta)
        if run.delta is None:
            raise ValueError("missing option --delta; or a CONFIG that names it")
        return of_run(run, run.delta)
    if delta is not None:
        raise ValueError(f"delta={delta!r}: a ledger's report is at its budget's delta")
    with opened(what) as book:
        return of_ledger(book)
