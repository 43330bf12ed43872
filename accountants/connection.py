"""Connections to SQLite: durable, patient, with errors that callers can act on."""

from __future__ import annotations

import contextlib
import errno
import random
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.pool import NullPool, StaticPool

from dpkit.accountants.errors import LedgerCorrupt

_BUSY_SECONDS = 20.0
_BUSY_ATTEMPTS = 3


def engine_for(path: Path | None) -> sa.Engine:
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


def begin_with(connection: sa.Connection, statement: str) -> None:
    """BEGIN, tried again a few times when other processes hold the lock."""
    for attempt in range(1, _BUSY_ATTEMPTS + 1):
        try:
            connection.exec_driver_sql(statement)
            return
        except sa.exc.OperationalError as error:
            if _code(error.orig) != sqlite3.SQLITE_BUSY or attempt == _BUSY_ATTEMPTS:
                raise
            time.sleep(random.uniform(0.0, 0.1))


def roll_back(connection: sa.Connection) -> None:
    """ROLLBACK, unless SQLite did it already (it does when the disk is full)."""
    driver = connection.connection.driver_connection
    if isinstance(driver, sqlite3.Connection) and driver.in_transaction:
        connection.exec_driver_sql("ROLLBACK")


@contextlib.contextmanager
def translated(path: Path | None) -> Iterator[None]:
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
