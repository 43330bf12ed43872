"""What commands print: facts and tables by Rich, or one JSON document.

Standard output carries the answer alone. Notes, progress and errors go to standard
error. With `--json` standard output is one JSON object with a `schema_version`, or
empty when the command failed before it had an answer. With `--quiet` neither text nor
progress is shown, only documents that were asked for, warnings and errors.
"""

import json
import sys
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import typer

SCHEMA_VERSION = 1

# Wide enough for a row of a ledger where nobody looks at a terminal's edge.
_WIDTH_OF_A_PIPE = 160


_quiet: ContextVar[bool] = ContextVar("quiet", default=False)


@contextmanager
def quieted(on: bool) -> Generator[None]:
    """Run the block with or without text for people.

    Example:
      >>> with quieted(True):
      ...     facts([("delta", "1e-5")])
    """
    token = _quiet.set(on)
    try:
        yield
    finally:
        _quiet.reset(token)


def is_quiet() -> bool:
    """Whether text for people is unwanted.

    Example:
      >>> is_quiet()
      False
    """
    return _quiet.get()


def emit(document: Mapping[str, Any]) -> None:
    """Print one JSON document.

    Args:
      document: JSON values; floats are finite (an infinite bound is a string). Its own
        schema_version, if it has one, is kept.

    Raises:
      ValueError: a float is not finite.

    Example:
      >>> emit({"spent": "inf"})
      {
        "schema_version": 1,
        "spent": "inf"
      }
    """
    typer.echo(dumps(document), nl=False)


def dumps(document: Mapping[str, Any]) -> str:
    """A document as text, with the version of its form.

    Raises:
      ValueError: a float is not finite.

    Example:
      >>> dumps({}).count("schema_version")
      1
    """
    whole = {"schema_version": SCHEMA_VERSION, **document}
    return json.dumps(whole, indent=2, allow_nan=False) + "\n"


def facts(rows: Iterable[tuple[str, Any]]) -> None:
    """Print names and values, one pair a line.

    Args:
      rows: pairs; one whose value is None is left out.

    Example:
      >>> facts([("delta", "1e-5"), ("unit", "example"), ("note", None)])
      delta  1e-5
      unit   example
    """
    known = [(name, plain(str(value))) for name, value in rows if value is not None]
    width = max((len(name) for name, _ in known), default=0)
    for name, value in known:
        line(f"{name:<{width}}  {value}")


def line(text: str = "") -> None:
    """Print one line for people.

    Example:
      >>> line("what is protected")
      what is protected
    """
    if not is_quiet():
        typer.echo(text)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table with a heading.

    Args:
      columns: the headings; one that ends in a colon is set flush right.
      rows: cells, as many as columns.

    Example:
      >>> table(["kind", "count:"], [("reserve", 12)])
       kind      count
       ─────────────────
       reserve      12
    """
    if is_quiet():
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=True)
    for name in columns:
        side = "right" if name.endswith(":") else "left"
        grid.add_column(name.removesuffix(":"), justify=side, overflow="fold")
    for row in rows:
        grid.add_row(*(Text(plain(str(cell))) for cell in row))
    width = None if sys.stdout.isatty() else _WIDTH_OF_A_PIPE
    Console(file=sys.stdout, width=width, highlight=False).print(grid)


def confirm(text: str) -> None:
    """Print one line on standard error that says what was done.

    Example:
      >>> confirm("written: report.html")
    """
    if not is_quiet():
        note(text)


def note(text: str) -> None:
    """Print one line on standard error, wanted or not.

    Example:
      >>> note("nothing was changed")
    """
    typer.echo(text, err=True)


def plain(text: str) -> str:
    """A text on one line, without anything that a terminal would obey.

    Example:
      >>> plain("two\\n lines \\x1b[31m")
      'two lines \\\\x1b[31m'
    """
    joined = " ".join(text.split())
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in joined)
