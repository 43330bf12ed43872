"""What commands print: facts and tables by Rich, or one JSON document.

Standard output carries the answer alone. Notes, progress and errors go to standard
error. With `--json` standard output is one JSON object with a `schema_version`, or
empty when the command failed before it had an answer.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import typer

SCHEMA_VERSION = 1

# Wide enough for a row of a ledger where nobody looks at a terminal's edge.
_WIDTH_OF_A_PIPE = 160


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

    Args:
      document: as for `emit`.

    Returns:
      The text, with a line's end.

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
        typer.echo(f"{name:<{width}}  {value}")


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


def note(text: str) -> None:
    """Print one line on standard error.

    Args:
      text: the line.

    Example:
      >>> note("nothing was changed")
    """
    typer.echo(text, err=True)


def plain(text: str) -> str:
    """A text on one line, without anything that a terminal would obey.

    Args:
      text: any text, perhaps from a file that somebody else wrote.

    Returns:
      The text with runs of white space as one blank, and what can't be printed escaped.

    Example:
      >>> plain("two\\n lines \\x1b[31m")
      'two lines \\\\x1b[31m'
    """
    joined = " ".join(text.split())
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in joined)
