"""A ledger in one SQLite file, or in memory: durable, patient, whole or absent.

A writer begins with BEGIN IMMEDIATE, which takes the file's one write lock before
anything is read, so that two processes never decide on the same state; a COMMIT returns
only after the operating system has confirmed that the entry is on disk (rollback
journal, synchronous=EXTRA). SQLite relies on the locks of the file system: keep ledgers
off network file systems.

A new file is written under another name and then linked to its own, so it is never
seen half made, and of two processes that create it at once only one succeeds.
"""

from __future__ import annotations

import errno
import os
import random
import re
import shlex
import sqlite3
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import NullPool, StaticPool

from dpkit.accountants.answers.errors import LedgerCorrupt
from dpkit.accountants.storage.database import NOTHING, STATEMENTS, Database, Objects

_BUSY_SECONDS = 20.0
_BUSY_ATTEMPTS = 3
_MAGIC = b"SQLite format 3\0"


def _normal(sql: str) -> str:
    """A statement without the freedom of its spelling: spaces, quotes and case."""
    return re.sub(r" ?([(),]) ?", r"\1", " ".join(sql.replace('"', "").split())).lower()


# "CREATE TABLE meta …" makes ("table", "meta").
_MADE: Objects = {
    (sql.split()[1].lower(), sql.split()[2]): _normal(sql.format(method=""))
    for sql in STATEMENTS
} | {("index", "sqlite_autoindex_meta_1"): ""}
_STATISTICS = {
    ("table", "sqlite_stat1"): "create table sqlite_stat1(tbl,idx,stat)",
    ("table", "sqlite_stat4"): "create table sqlite_stat4(tbl,idx,neq,nlt,ndlt,sample)",
}
# Of these an OSError is made, of the class that the number has.
_SYSTEM = {
    sqlite3.SQLITE_FULL: (errno.ENOSPC, "disk full"),
    sqlite3.SQLITE_IOERR: (errno.EIO, "input/output error"),
} | dict.fromkeys(
    (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM),
    (errno.EACCES, "can't open or write"),
)


class Sqlite(Database):
    """One file, or memory when the path is None."""

    made = _MADE

    def __init__(self, path: Path | None):
        self._path = path
        super().__init__(path, _engine(path))

    def exists(self) -> bool:
        """Whether there is a file (empty or not) at the path."""
        return self._path is not None and self._path.exists()

    def create(self, write: Callable[[sa.Connection], None]) -> bool:
        """Makes the file with what `write` writes; False if one was there already."""
        if self._path is None:
            with self.transaction(writes=True) as connection:
                write(connection)
            return True
        _refuse_stale_journal(self._path)
        draft = self._path.with_name(f".{self._path.name}.{uuid.uuid4().hex}.new")
        try:
            with Sqlite(draft).transaction(writes=True) as connection:
                write(connection)
            _publish(draft, self._path)
        except FileExistsError:
            return False
        finally:
            draft.unlink(missing_ok=True)
        _sync_folder(self._path.parent)
        return True

    def check(self) -> None:
        """Raises LedgerCorrupt for an emptied, truncated or foreign file."""
        if self._path is not None:
            _check_magic(self._path)
        super().check()

    def integrity(self, connection: sa.Connection) -> str:
        """SQLite's own check of its pages: "ok", or the first complaint."""
        check = connection.exec_driver_sql("PRAGMA integrity_check(1)")
        return "; ".join(check.scalar_one().splitlines())

    def _refuse_unsafe(self, connection: sa.Connection) -> None:
        """Refuse a file of another size than SQLite believes."""
        ask = "select page_count * page_size from pragma_page_count, pragma_page_size"
        size = connection.exec_driver_sql(ask).scalar_one()
        if self._path is not None and self._path.stat().st_size != size:
            raise LedgerCorrupt(f"path={self.name} was truncated or extended")

    def _found(self, connection: sa.Connection) -> Objects:
        """The schema, but for statistics of ANALYZE, which can't undo a charge."""
        query = "select type, name, sql from sqlite_master"
        found: dict[tuple[str, str], str] = {}
        for kind, name, sql in connection.exec_driver_sql(query):
            # Added up: a forged row may repeat a true one's name and hold a trigger.
            found[kind, name] = found.get((kind, name), "") + _normal(sql or "")
        return {k: v for k, v in found.items() if _STATISTICS.get(k) != v}

    def _begin(self, connection: sa.Connection, writes: bool, creates: bool) -> None:
        """BEGIN, tried again a few times when other processes hold the lock."""
        for attempt in range(1, _BUSY_ATTEMPTS + 1):
            try:
                connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
                return
            except sa.exc.OperationalError as error:
                busy = _code(error.orig) == sqlite3.SQLITE_BUSY
                if not busy or attempt == _BUSY_ATTEMPTS:
                    raise
                time.sleep(random.uniform(0.0, 0.1))

    def _is_open(self, connection: sa.Connection) -> bool:
        """Whether it was not undone already, as SQLite does when the disk is full."""
        driver: Any = connection.connection.driver_connection
        return driver.in_transaction

    def _give_up(self, connection: sa.Connection) -> None:
        """ROLLBACK."""
        if self._is_open(connection):
            connection.exec_driver_sql("ROLLBACK")

    def _translated(
        self, error: BaseException | None, ending: bool, creates: bool
    ) -> Exception:
        """As a lock that others keep, a disk that refuses, or a damaged file."""
        code = _code(error)
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return TimeoutError(
                f"path={self.name} stayed locked by another process: nothing was "
                "written; try again"
            )
        if code not in _SYSTEM:
            return LedgerCorrupt(f"path={self.name}: {error}")
        number, reason = _SYSTEM[code]
        return OSError(number, f"{reason} ({error}): {NOTHING}", str(self.name))


def _engine(path: Path | None) -> sa.Engine:
    """An engine whose transactions are begun and ended by us alone."""
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=":memory:" if path is None else str(path)),
        poolclass=StaticPool if path is None else NullPool,
        isolation_level="AUTOCOMMIT",
        connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": path is not None},
    )

    @sa.event.listens_for(engine, "connect")
    def _durable(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA synchronous=EXTRA")

    return engine


def _code(error: BaseException | None) -> int:
    """SQLite's primary result code; 0 where there is none."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def _check_magic(path: Path) -> None:
    """Refuse an emptied or foreign file before SQLite sees it."""
    with path.open("rb") as file:
        start = file.read(len(_MAGIC))
    if not start:
        raise LedgerCorrupt(
            f"path={path} is empty: a ledger was truncated, or never was"
        )
    if start.startswith(b'{"entry":'):
        new = shlex.quote(str(path.with_name(f"{path.stem}-imported.db")))
        raise ValueError(
            f"path={path} is a ledger that was exported, as JSON lines; import it: "
            f"dpkit ledger import {shlex.quote(str(path))} {new}"
        )
    if start != _MAGIC:
        raise LedgerCorrupt(
            f"path={path} is not a dpkit ledger, or its first bytes are damaged"
        )


def _refuse_stale_journal(path: Path) -> None:
    """SQLite would replay an orphaned journal into the new file."""
    for suffix in ("-journal", "-wal"):
        journal = path.with_name(path.name + suffix)
        if journal.exists() and not path.exists():
            raise LedgerCorrupt(
                f"path={path} is gone but {journal.name} is there: restore the ledger, "
                "or move the journal away if the ledger was dropped on purpose"
            )


def _publish(draft: Path, path: Path) -> None:
    """Gives a finished file its name; FileExistsError if the name is taken."""
    try:
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError:
        # No hard links here: claim the name first. A reader that comes in between
        # finds an empty file and refuses it.
        path.touch(exist_ok=False)
        draft.replace(path)


def _sync_folder(folder: Path) -> None:
    """Makes the new name itself durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
