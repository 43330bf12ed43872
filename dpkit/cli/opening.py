"""Ledgers and events as a command line names them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dp_accounting import DpEvent

    from dpkit.accountants import Ledger


def opened(name: str, author: str | None = None) -> "Ledger":
    """The ledger of a file, a URL or a run's folder; nothing is created.

    Raises:
      ValueError: there is none.
      LedgerCorrupt: it is no whole ledger.

    Example:
      >>> opened("/nonexistent/ledger.db")
      Traceback (most recent call last):
      ValueError: LEDGER='/nonexistent/ledger.db' doesn't exist: name a ledger's file
    """
    path = place(name)
    if isinstance(path, Path) and not path.exists():
        raise ValueError(f"LEDGER={str(path)!r} doesn't exist: name a ledger's file")
    from dpkit.accountants import Ledger

    return Ledger.open(path, author=author)


def place(name: str) -> str | Path:
    """Where a ledger is: a URL as it stands, a folder's ledger.db, or a file.

    Example:
      >>> place("sqlite:///a.db"), place("a.db")
      ('sqlite:///a.db', PosixPath('a.db'))
    """
    if "://" in name:
        return name
    path = Path(name)
    return path / "ledger.db" if path.is_dir() else path


def event_of(text: str) -> "DpEvent":
    """The event in JSON text, or in a file that holds it.

    Raises:
      ValueError: no event, or a kind, a field or a value that is not known.
      OSError: the file can't be read.

    Example:
      >>> event_of('{"kind": "pure", "epsilon": 0.5}')
      PureDpEvent(epsilon=0.5)
    """
    from dpkit.accountants import from_json

    if not text.lstrip().startswith("{"):
        text = Path(text).read_text(encoding="utf-8")
    try:
        return from_json(text)
    except ValueError as error:
        raise ValueError(f"event={shortened(text)}: {error}") from None


def shortened(text: Any) -> str:
    """A text of at most 60 characters.

    Example:
      >>> len(shortened("a" * 100))
      60
    """
    text = str(text)
    return text if len(text) <= 60 else f"{text[:59]}…"
