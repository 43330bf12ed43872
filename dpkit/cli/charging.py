"""`dpkit ledger spend | reserve | commit | abort | remaining`: charging by hand.

For releases that are made elsewhere, by any program: the charge comes first, and what
would pass the budget is refused with exit code 1, nothing written. A reservation is
named by its key, so that another process can settle it.
"""

import secrets
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpkit.cli.opening import event_of, opened
from dpkit.cli.options import Count, Event, Json, LedgerFile, Scope
from dpkit.cli.output import emit, facts
from dpkit.report.guarantee import stated
from dpkit.report.identity import entry_json, identity

if TYPE_CHECKING:
    from dpkit.accountants import Ledger
    from dpkit.accountants.storage.entry import Entry

Label = Annotated[
    str | None,
    typer.Option(
        help="What to call it, in one line. [default: the kind of the event]",
        show_default=False,
    ),
]
Author = Annotated[
    str | None,
    typer.Option(help="Who charges, in a line of free text for those who read it."),
]
_KEY = ("--key", "--id")
Key = Annotated[str, typer.Option(*_KEY, help="The key of the reservation.")]
NewKey = Annotated[
    str | None,
    typer.Option(
        *_KEY,
        help="Makes a retry safe: the same key with the same event is the same charge.",
    ),
]
Share = Annotated[
    float | None,
    typer.Option(
        "--delta",
        help="The share of delta that a sealed plan takes. [default: all that is left]",
        show_default=False,
    ),
]


def spend(
    ledger: LedgerFile,
    event: Event,
    count: Count = 1,
    label: Label = None,
    key: NewKey = None,
    scope: Scope = None,
    author: Author = None,
    json: Json = False,
) -> None:
    """Charge releases that will be made now, chosen perhaps on earlier outputs."""
    cost = event_of(event)
    with opened(ledger, author) as book:
        entry = book.charge(
            cost,
            count=count,
            label=label or _kind(cost),
            key=key,
            scope=scope or "all",
        )
        _show(book, entry, {}, as_json=json)


def reserve(
    ledger: LedgerFile,
    event: Event,
    count: Count = 1,
    delta: Share = None,
    label: Label = None,
    key: NewKey = None,
    scope: Scope = None,
    author: Author = None,
    json: Json = False,
) -> None:
    """Charge a whole plan of releases, fixed now, before its first.

    Prints the key that `commit` and `abort` need. To reserve once more with the key
    of an earlier reservation resumes that one, and from then on it gives nothing back.
    """
    cost = event_of(event)
    key = key or secrets.token_hex(8)
    with opened(ledger, author) as book:
        with book.reserve(
            cost,
            count=count,
            delta=delta,
            label=label or _kind(cost),
            key=key,
            scope=scope or "all",
        ) as grant:
            told = {"key": key, "count": grant.count, "resumed": grant.resumed}
            _show(book, grant.entry, told, as_json=json)


def commit(
    ledger: LedgerFile,
    key: Key,
    ran: Annotated[int, typer.Option(help="How many of the releases were begun.")],
    json: Json = False,
) -> None:
    """Settle a reservation, once all its releases are made."""
    with opened(ledger) as book:
        with book.granted(key) as grant:
            _show(book, grant.commit(ran), {"key": key, "ran": ran}, as_json=json)


def abort(
    ledger: LedgerFile,
    key: Key,
    nothing_released: Annotated[
        bool,
        typer.Option(
            "--nothing-released",
            help="Your word that no output was computed, seen or stored; recorded.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Give a reservation back: only if nothing at all was released."""
    with opened(ledger) as book:
        with book.granted(key) as grant:
            entry = grant.abort(nothing_released=nothing_released)
            _show(book, entry, {"key": key}, as_json=json)


def remaining(
    ledger: LedgerFile,
    event: Event,
    delta: Share = None,
    charges: Annotated[
        bool,
        typer.Option(
            "--charges",
            help="Count them as charges (spend), not as one plan (reserve).",
        ),
    ] = False,
    scope: Scope = None,
    json: Json = False,
) -> None:
    """How many more of an event would fit now."""
    from dpkit.accountants import to_json
    from dpkit.report.words import event_in_words

    cost = event_of(event)
    with opened(ledger) as book:
        count = book.remaining(
            cost, delta=delta, sealed=not charges, scope=scope or "all"
        )
        way = "spend" if charges else "reserve"
        if json:
            told = {"event": to_json(cost), "counted_as": way}
            emit({"remaining": count, **told, **identity(book)})
            return
        rows = [("event", event_in_words(to_json(cost))), ("counted as", way)]
        facts([("remaining", f"{count:,}"), *rows, *_terms(book)])


def _show(
    book: "Ledger", entry: "Entry", told: dict[str, Any], *, as_json: bool
) -> None:
    """Print an entry, and what is spent after it."""
    spent = book.spent()
    if as_json:
        document = {"entry": entry_json(entry), "spent": spent.to_json()}
        emit({**told, **identity(book), **document})
        return
    after = f"epsilon {stated(spent)}"
    rows = [("entry", f"{entry.seq}, {entry.kind}"), ("label", entry.label)]
    rows += [(name, str(value)) for name, value in told.items()]
    facts([*rows, ("spent now", after), *_terms(book), ("head", entry.hash)])


def _terms(book: "Ledger") -> list[tuple[str, str]]:
    """What the numbers are about."""
    budget = book.budget
    return [
        ("budget", f"epsilon {budget.epsilon!r} at delta {budget.delta!r}"),
        ("relation", str(book.relation)),
        ("unit", book.unit),
        ("regime", book.regime),
    ]


def _kind(event: Any) -> str:
    """The kind of an event, as a label."""
    from dpkit.accountants import to_json

    return to_json(event)["kind"]
