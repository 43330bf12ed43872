"""Where a ledger's entries are kept: one SQLite file, or memory.

A write is one transaction, BEGIN IMMEDIATE → read → check → append → COMMIT, so that
two processes never decide on the same state; a COMMIT returns only after the operating
system has confirmed that the entry is on disk (rollback journal, synchronous=EXTRA).
Every transaction opens its own connection: nothing is carried across a fork.

A new file is written under another name and then linked to its own, so it is never
seen half made, and of two processes that create it at once only one succeeds. SQLite
relies on the locks of the file system: keep ledgers off network file systems.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.pool import NullPool, StaticPool

from dpkit.accountants import chain
from dpkit.accountants.chain import Entry
from dpkit.accountants.errors import LedgerCorrupt

SCHEMA = "1"

_BUSY_SECONDS = 20.0
_BUSY_ATTEMPTS = 3
_MAGIC = b"SQLite format 3\0"

_tables = sa.MetaData()
_meta = sa.Table(
    "meta",
    _tables,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
_entries = sa.Table(
    "entries",
    _tables,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("hash", sa.Text, nullable=False),
    sa.Column("key", sa.Text, index=True),
    sa.Column("ref", sa.Integer, index=True),
    sa.Column("entry", sa.Text, nullable=False),
)


class Session:
    """The entries inside one transaction; made by `Store.reading` and `Store.writing`.

    Each entry is checked against its own hash when it is read.
    """

    def __init__(self, connection: sa.Connection):
        self._connection = connection

    def meta(self) -> dict[str, str]:
        """The rows of the table `meta`."""
        return {name: value for name, value in self._connection.execute(_meta.select())}

    def count(self) -> int:
        """The number of stored entries."""
        query = sa.select(sa.func.count()).select_from(_entries)
        return self._connection.execute(query).scalar_one()

    def head(self) -> Entry:
        """The last entry, after checking that `meta` names the same head."""
        rows = self._rows(_entries.select().order_by(_entries.c.seq.desc()).limit(1))
        last = next(rows, None)
        noted = self.meta().get("head")
        if last is None or noted != _position(last):
            found = "no entry" if last is None else f"entry seq={last.seq}"
            raise LedgerCorrupt(f"{found} is last, but the head noted is {noted!r}")
        return last

    def get(self, seq: int) -> Entry:
        """The entry at `seq`."""
        found = next(self._rows(_entries.select().where(_entries.c.seq == seq)), None)
        if found is None:
            raise LedgerCorrupt(f"entry seq={seq} is missing")
        return found

    def with_key(self, key: str) -> list[Entry]:
        """Entries that carry this idempotency key, in order."""
        where = _entries.c.key == key
        return list(self._rows(_entries.select().where(where).order_by(_entries.c.seq)))

    def about(self, seq: int) -> list[Entry]:
        """Entries that refer to the entry at `seq` (commit, checkpoint, …), in order."""
        where = _entries.c.ref == seq
        return list(self._rows(_entries.select().where(where).order_by(_entries.c.seq)))

    def all(self) -> Iterator[Entry]:
        """Every entry, in order."""
        yield from self._rows(_entries.select().order_by(_entries.c.seq))

    def append(self, entry: Entry) -> None:
        """Adds `entry`; it counts once the transaction is committed."""
        row = {"seq": entry.seq, "hash": entry.hash, "entry": entry.text}
        row |= {"key": entry.body.get("key"), "ref": entry.body.get("ref")}
        self._connection.execute(_entries.insert(), row)
        self._connection.execute(
            _meta.update().where(_meta.c.name == "head").values(value=_position(entry))
        )

    def found(self, entry: Entry) -> None:
        """Starts the file: its schema, and its first entry."""
        _tables.create_all(self._connection)
        rows = {"schema": SCHEMA, "ledger": entry.ledger, "head": ""}
        self._connection.execute(
            _meta.insert(), [{"name": n, "value": v} for n, v in rows.items()]
        )
        self.append(entry)

    def integrity(self) -> str:
        """SQLite's own check of its pages: "ok", or the first complaint."""
        return self._connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar_one()

    def size(self) -> int:
        """How many bytes SQLite believes that the file has."""
        pages = self._connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        return pages * self._connection.exec_driver_sql("PRAGMA page_size").scalar_one()

    def _rows(self, query: sa.Select) -> Iterator[Entry]:
        """Parsed entries, after checking the columns that only repeat the text."""
        for row in self._connection.execute(query):
            if not isinstance(row.entry, str) or not isinstance(row.hash, str):
                raise LedgerCorrupt(f"entry seq={row.seq}: a column is not text")
            entry = chain.parse(row.entry, row.hash, row.seq)
            repeated = (entry.body.get("key"), entry.body.get("ref"))
            if (row.key, row.ref) != repeated:
                raise LedgerCorrupt(f"entry seq={row.seq}: an index column was edited")
            yield entry


class Store:
    """Transactions on one ledger file, or on memory when `path` is None.

    Example:
      >>> store = Store(None)
      >>> store.create(chain.genesis({}))
      True
      >>> with store.reading() as session:
      ...     session.head().kind
      'genesis'
      >>> store.close()
    """

    def __init__(self, path: Path | None):
        self.path = path
        self._lock = threading.RLock()
        self._engine = _engine(path)

    def exists(self) -> bool:
        """Whether there is a file (empty or not) at the path."""
        return self.path is not None and self.path.exists()

    def create(self, entry: Entry) -> bool:
        """Starts a ledger with its genesis entry; False if one was there already."""
        if self.path is None:
            with self.writing() as session:
                session.found(entry)
            return True
        _refuse_stale_journal(self.path)
        draft = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}.new")
        try:
            with Store(draft).writing() as session:
                session.found(entry)
            os.link(draft, self.path)
        except FileExistsError:
            return False
        finally:
            draft.unlink(missing_ok=True)
        _sync_folder(self.path.parent)
        return True

    def check(self) -> None:
        """Cheap checks on opening: schema, size, number of entries, head.

        Raises:
          LedgerCorrupt: truncated, edited, or written by a newer dpkit.
          ValueError: some other file.
        """
        _check_magic(self.path)
        with self.reading() as session:
            try:
                meta = session.meta()
            except LedgerCorrupt as error:
                if "no such table" in str(error):
                    raise ValueError(f"path={self.path} is not a dpkit ledger") from None
                raise
            _check_schema(meta)
            if self.path and session.size() != self.path.stat().st_size:
                raise LedgerCorrupt(f"path={self.path} was truncated or extended")
            head = session.head()
            if session.count() != head.seq + 1 or meta.get("ledger") != head.ledger:
                raise LedgerCorrupt(f"path={self.path}: entries are missing or foreign")

    @contextlib.contextmanager
    def reading(self) -> Iterator[Session]:
        """A transaction that sees one state and writes nothing."""
        with self._transaction("BEGIN") as session:
            yield session

    @contextlib.contextmanager
    def writing(self) -> Iterator[Session]:
        """The one writing transaction; durable when the block ends, undone if it raises.

        Raises:
          TimeoutError: another process kept the file locked.
          OSError: disk full, or not writable; nothing was written.
        """
        with self._transaction("BEGIN IMMEDIATE") as session:
            yield session

    def close(self) -> None:
        """Forgets the store; a ledger in memory is lost."""
        self._engine.dispose()

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[Session]:
        """One transaction on its own connection, with SQLite's errors translated."""
        with self._lock, _translated(self.path), self._engine.connect() as connection:
            _begin(connection, begin)
            try:
                yield Session(connection)
                connection.exec_driver_sql("COMMIT")
            except BaseException:
                if connection.connection.dbapi_connection.in_transaction:
                    connection.exec_driver_sql("ROLLBACK")
                raise


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
            f"path={path} stayed locked by another process; nothing was written, try again"
        )
    if code == sqlite3.SQLITE_FULL:
        reason = "disk full: nothing was charged, so nothing may be released"
        return OSError(errno.ENOSPC, reason, str(path))
    if code == sqlite3.SQLITE_IOERR:
        reason = "input/output error: nothing was charged, so nothing may be released"
        return OSError(errno.EIO, reason, str(path))
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return PermissionError(errno.EACCES, f"can't open or write ({error})", str(path))
    return LedgerCorrupt(f"path={path}: {error}")


def _code(error: BaseException | None) -> int:
    """SQLite's primary result code; 0 where there is none."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def _position(entry: Entry) -> str:
    """How `meta` notes the head."""
    return f"{entry.seq} {entry.hash}"


def _check_magic(path: Path | None) -> None:
    """Tell an emptied or foreign file from a SQLite one before SQLite sees it."""
    if path is None:
        return
    with path.open("rb") as file:
        start = file.read(len(_MAGIC))
    if not start:
        raise LedgerCorrupt(f"path={path} is empty: a ledger was truncated, or never was")
    if start != _MAGIC:
        kind = LedgerCorrupt if _MAGIC.startswith(start) else ValueError
        raise kind(f"path={path} is not a dpkit ledger, or its first bytes are damaged")


def _check_schema(meta: dict[str, str]) -> None:
    """Refuse other versions of the tables."""
    if meta.get("schema") != SCHEMA:
        raise LedgerCorrupt(
            f"schema={meta.get('schema')}, but this dpkit reads {SCHEMA}: "
            "update dpkit, or the file was edited"
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


def _sync_folder(folder: Path) -> None:
    """Makes the new name itself durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
