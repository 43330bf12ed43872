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
import os
import threading
import uuid
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

import sqlalchemy as sa

from dpkit.accountants import chain
from dpkit.accountants.chain import Entry
from dpkit.accountants.connection import begin_with, engine_for, roll_back, translated
from dpkit.accountants.errors import LedgerCorrupt

SCHEMA = "1"

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

    def tables(self) -> set[str]:
        """The names of the file's tables."""
        names = "select name from sqlite_master where type = 'table'"
        return set(self._connection.exec_driver_sql(names).scalars())

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
        """Entries that refer to the entry at `seq` (commit, abort, …), in order."""
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

    def found(self, entries: Sequence[Entry]) -> None:
        """Starts the file: its schema, and its first entries."""
        _tables.create_all(self._connection)
        rows = {"schema": SCHEMA, "ledger": entries[0].ledger, "head": ""}
        self._connection.execute(
            _meta.insert(), [{"name": n, "value": v} for n, v in rows.items()]
        )
        for entry in entries:
            self.append(entry)

    def integrity(self) -> str:
        """SQLite's own check of its pages: "ok", or the first complaint."""
        check = self._connection.exec_driver_sql("PRAGMA integrity_check(1)")
        return "; ".join(check.scalar_one().splitlines())

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
        self._engine = engine_for(path)
        self._closed = False
        weakref.finalize(self, self._engine.dispose)

    def exists(self) -> bool:
        """Whether there is a file (empty or not) at the path."""
        return self.path is not None and self.path.exists()

    def create(self, *entries: Entry) -> bool:
        """Starts a ledger, genesis entry first; False if one was there already."""
        if self.path is None:
            with self.writing() as session:
                session.found(entries)
            return True
        _refuse_stale_journal(self.path)
        draft = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}.new")
        try:
            with Store(draft).writing() as session:
                session.found(entries)
            _publish(draft, self.path)
        except FileExistsError:
            return False
        finally:
            draft.unlink(missing_ok=True)
        _sync_folder(self.path.parent)
        return True

    def check(self) -> None:
        """Cheap checks on opening: schema, size, number of entries, head.

        Raises:
          LedgerCorrupt: truncated, edited, written by a newer dpkit, or no ledger at
            all: a damaged one can't be told from another file.
        """
        _check_magic(self.path)
        with self.reading() as session:
            tables = session.tables()
            if not tables & {"meta", "entries"}:
                raise LedgerCorrupt(f"path={self.path} is not a dpkit ledger")
            if not tables >= {"meta", "entries"}:
                raise LedgerCorrupt(f"path={self.path}: a table is missing")
            meta = session.meta()
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
        """The one writing transaction: durable when it ends, undone if it raises.

        Raises:
          TimeoutError: another process kept the file locked.
          OSError: disk full, or not writable; nothing was written.
        """
        with self._transaction("BEGIN IMMEDIATE") as session:
            yield session

    def close(self) -> None:
        """Ends the use of the store; a ledger in memory is lost."""
        self._closed = True
        self._engine.dispose()

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[Session]:
        """One transaction on its own connection, with SQLite's errors translated."""
        if self._closed:
            raise ValueError("the ledger object was closed; open the ledger again")
        with self._lock, translated(self.path), self._engine.connect() as connection:
            begin_with(connection, begin)
            try:
                yield Session(connection)
                connection.exec_driver_sql("COMMIT")
            except BaseException:
                roll_back(connection)
                raise


def _position(entry: Entry) -> str:
    """How `meta` notes the head."""
    return f"{entry.seq} {entry.hash}"


def _check_magic(path: Path | None) -> None:
    """Refuse an emptied or foreign file before SQLite sees it."""
    if path is None:
        return
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
