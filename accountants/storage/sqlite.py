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

import contextlib
import errno
import os
import random
import re
import sqlite3
import time
import uuid
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.pool import NullPool, StaticPool

from dpkit.accountants.answers.errors import LedgerCorrupt
from dpkit.accountants.storage.tables import STATEMENTS, refuse_foreign

_BUSY_SECONDS = 20.0
_BUSY_ATTEMPTS = 3
_MAGIC = b"SQLite format 3\0"


class Sqlite:
    """Transactions on one file, or on memory when `path` is None; see `Database`."""

    index_method = ""

    def __init__(self, path: Path | None):
        self.name = path
        self.engine = _engine(path)
        weakref.finalize(self, self.engine.dispose)

    def exists(self) -> bool:
        """Whether there is a file (empty or not) at the path."""
        return self.name is not None and self.name.exists()

    def create(self, write: Callable[[sa.Connection], None]) -> bool:
        """Makes the file with what `write` writes; False if one was there already."""
        if self.name is None:
            with self.transaction(writes=True) as connection:
                write(connection)
            return True
        _refuse_stale_journal(self.name)
        draft = self.name.with_name(f".{self.name.name}.{uuid.uuid4().hex}.new")
        try:
            with Sqlite(draft).transaction(writes=True) as connection:
                write(connection)
            _publish(draft, self.name)
        except FileExistsError:
            return False
        finally:
            draft.unlink(missing_ok=True)
        _sync_folder(self.name.parent)
        return True

    def check(self) -> None:
        """Raises LedgerCorrupt for an emptied, truncated or foreign file."""
        if self.name is not None:
            _check_magic(self.name)
        with self.transaction(writes=False) as connection:
            names = "select name from sqlite_master where type = 'table'"
            tables = set(connection.exec_driver_sql(names).scalars())
            if not tables & {"meta", "entries"}:
                raise LedgerCorrupt(f"path={self.name} is not a dpkit ledger")
            if self.name and _size(connection) != self.name.stat().st_size:
                raise LedgerCorrupt(f"path={self.name} was truncated or extended")

    def refuse_foreign(self, connection: sa.Connection) -> None:
        """Raises LedgerCorrupt for a trigger, a view, or any table but ours as made.

        The statistics that ANALYZE leaves are SQLite's own, and can't undo a charge.
        """
        query = "select type, name, sql from sqlite_master"
        found: dict[tuple[str, str], str] = {}
        for kind, name, sql in connection.exec_driver_sql(query):
            # Added up: a forged row may repeat a true one's name and hold a trigger.
            found[kind, name] = found.get((kind, name), "") + _normal(sql or "")
        known = _OBJECTS | {k: v for k, v in _STATISTICS.items() if k in found}
        refuse_foreign(found, known, self.name)

    def integrity(self, connection: sa.Connection) -> str:
        """SQLite's own check of its pages: "ok", or the first complaint."""
        check = connection.exec_driver_sql("PRAGMA integrity_check(1)")
        return "; ".join(check.scalar_one().splitlines())

    @contextlib.contextmanager
    def transaction(self, *, writes: bool) -> Iterator[sa.Connection]:
        """One transaction on its own connection, with SQLite's errors translated."""
        with _translated(self.name), self.engine.connect() as connection:
            _begin(connection, "BEGIN IMMEDIATE" if writes else "BEGIN")
            try:
                yield connection
                connection.exec_driver_sql("COMMIT")
            except BaseException:
                _roll_back(connection)
                raise


def _normal(sql: str) -> str:
    """A statement without the freedom of its spelling: spaces, quotes and case."""
    return re.sub(r" ?([(),]) ?", r"\1", " ".join(sql.replace('"', "").split())).lower()


def _objects() -> dict[tuple[str, str], str]:
    """What the file of a ledger holds: exactly what it was made with."""
    found = {("index", "sqlite_autoindex_meta_1"): ""}
    for statement in STATEMENTS:
        sql = statement.format(method="")
        _, kind, name, *_ = sql.lower().split()
        found[kind, name] = _normal(sql)
    return found


_OBJECTS = _objects()
_STATISTICS = {
    ("table", "sqlite_stat1"): "create table sqlite_stat1(tbl,idx,stat)",
    ("table", "sqlite_stat4"): (
        "create table sqlite_stat4(tbl,idx,neq,nlt,ndlt,sample)"
    ),
}


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


def _begin(connection: sa.Connection, statement: str) -> None:
    """BEGIN, tried again a few times when other processes hold the lock."""
    for attempt in range(1, _BUSY_ATTEMPTS + 1):
        try:
            connection.exec_driver_sql(statement)
            return
        except sa.exc.OperationalError as error:
            if _code(error.orig) != sqlite3.SQLITE_BUSY or attempt == _BUSY_ATTEMPTS:
                raise
            time.sleep(random.uniform(0.0, 0.1))


def _roll_back(connection: sa.Connection) -> None:
    """ROLLBACK, unless SQLite did it already (it does when the disk is full)."""
    driver = connection.connection.driver_connection
    if isinstance(driver, sqlite3.Connection) and driver.in_transaction:
        connection.exec_driver_sql("ROLLBACK")


def _size(connection: sa.Connection) -> int:
    """How many bytes SQLite believes that the file has."""
    pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    return pages * connection.exec_driver_sql("PRAGMA page_size").scalar_one()


@contextlib.contextmanager
def _translated(path: Path | None) -> Iterator[None]:
    """SQLite's errors as the few that callers can act on."""
    try:
        yield
    except sa.exc.DBAPIError as error:
        raise _translation(error.orig, path) from None
    except sqlite3.Error as error:
        raise _translation(error, path) from None


def _translation(error: BaseException | None, path: Path | None) -> Exception:
    """The exception that stands for one of SQLite's."""
    code = _code(error)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return TimeoutError(
            f"path={path} stayed locked by another process: nothing was written; "
            "try again"
        )
    if code == sqlite3.SQLITE_FULL:
        reason = "disk full: nothing was charged, so nothing may be released"
        return OSError(errno.ENOSPC, reason, str(path))
    if code == sqlite3.SQLITE_IOERR:
        reason = "input/output error: nothing was charged, so nothing may be released"
        return OSError(errno.EIO, reason, str(path))
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return PermissionError(
            errno.EACCES, f"can't open or write ({error})", str(path)
        )
    return LedgerCorrupt(f"path={path}: {error}")


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
