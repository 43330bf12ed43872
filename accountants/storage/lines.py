"""Ledgers as files that people name: locations, and lines of JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import sqlalchemy as sa

from dpkit.accountants.answers.errors import LedgerCorrupt
from dpkit.accountants.storage.entry import Entry, canonical, check_link, parse


def location(path: str | Path | None) -> Path | sa.URL | None:
    """The file or the PostgreSQL URL that a path or a URL names; None for memory.

    Raises:
      ValueError: a URL of another database, or a folder.
      FileNotFoundError: the folder does not exist.

    Example:
      >>> location("sqlite:////tmp/ledger.db").name, location("sqlite://")
      ('ledger.db', None)
    """
    if isinstance(path, str) and "://" in path:
        url = _url(path)
        if url.drivername == "postgresql":
            return url
        path = None if url.database in (None, "", ":memory:") else url.database
    if path is None:
        return None
    if not isinstance(path, str | Path) or not str(path).strip():
        raise TypeError(f"path={path!r} must be a path, a URL or None")
    if str(path) == ":memory:":
        raise ValueError(f"path={path!r} would be a file: None is a ledger in memory")
    found = Path(path).absolute()
    if found.is_dir():
        raise ValueError(f"path={path} is a folder; name a file in it")
    if not found.parent.is_dir():
        raise FileNotFoundError(
            f"path={path}: the folder {found.parent} does not exist"
        )
    return found


def _url(text: str) -> sa.URL:
    """A URL that a ledger can have; refusals don't repeat it, nor its password."""
    try:
        url = sa.make_url(text)
    except (ValueError, sa.exc.ArgumentError):
        raise ValueError(
            "path: a URL that can't be read; special characters are written %40 and "
            "the like"
        ) from None
    plain = url.drivername == "sqlite" and not url.query and not url.host
    if not plain and url.drivername != "postgresql":
        scheme = text.partition("://")[0]
        raise ValueError(
            f"path={scheme}://…: only plain sqlite:/// and postgresql:// URLs are "
            "supported"
        )
    return url


def write_lines(entries: Sequence[Entry], path: Path) -> None:
    """Writes entries as JSON lines, durably; the last line names the head."""
    last = {"entries": len(entries), "head": entries[-1].hash}
    with path.open("x", encoding="utf-8", newline="\n") as file:
        for entry in entries:
            line = {"entry": entry.to_json(), "hash": entry.hash}
            file.write(canonical(line) + "\n")
        file.write(canonical(last) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> list[Entry]:
    """The entries that `write_lines` wrote, each checked, in one unbroken chain."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        last = json.loads(lines[-2]) if len(lines) > 2 and not lines[-1] else {}
        entries: list[Entry] = []
        for number, line in enumerate(lines[:-2]):
            pair = json.loads(line)
            text = canonical(pair["entry"])
            if canonical(pair) != line:
                raise ValueError("not in canonical form")
            entry = parse(text, pair["hash"], number)
            check_link(entries[-1] if entries else None, entry)
            entries.append(entry)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise LedgerCorrupt(f"path={path}: no export of a ledger ({error})") from None
    if not entries or last != {"entries": len(entries), "head": entries[-1].hash}:
        raise LedgerCorrupt(
            f"path={path} was cut short: its last line must name the head"
        )
    return entries
