"""Where a ledger's entries are kept: two tables of an SQLite or PostgreSQL database.

A write is one transaction, lock → read → check → append → commit, so that two processes
never decide on the same state, and it ends only once the entry is durable. How each
database keeps that promise is in sqlite.py and postgres.py; here is what they share.
No connection is carried across a fork.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa

from dpkit.accountants.answers.errors import LedgerCorrupt
from dpkit.accountants.storage import entry as chain
from dpkit.accountants.storage.entry import Entry
from dpkit.accountants.storage.postgres import Postgres
from dpkit.accountants.storage.sqlite import Sqlite

SCHEMA = "1"

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
    sa.Column("key", sa.Text),
    sa.Column("ref", sa.Integer, index=True),
    sa.Column("entry", sa.Text, nullable=False),
    # By hash, since keys may be longer than PostgreSQL's B-trees allow.
    sa.Index("ix_entries_key", "key", postgresql_using="hash"),
)


_noted = sa.select(_meta.c.value).where(_meta.c.name == "head").scalar_subquery()
_in_order = _entries.select().order_by(_entries.c.seq)
_LAST = sa.select(_entries, _noted.label("noted"))
_LAST = _LAST.order_by(_entries.c.seq.desc()).limit(1)
_AT = _entries.select().where(_entries.c.seq == sa.bindparam("wanted"))
_WITH_KEY = _in_order.where(_entries.c.key == sa.bindparam("wanted"))
_ABOUT = _in_order.where(_entries.c.ref == sa.bindparam("wanted"))
_NOTE_HEAD = _meta.update().where(_meta.c.name == "head")


class Database(Protocol):
    """What a store asks of a database; sqlite.py and postgres.py are the two."""

    engine: sa.Engine

    @property
    def name(self) -> Path | str | None:
        """How messages and reports call it: never with a password."""

    def exists(self) -> bool:
        """Whether anything is there, a ledger or not."""

    def create(self, write: Callable[[sa.Connection], None]) -> bool:
        """Makes the ledger with what `write` writes, as a whole; False if taken."""

    def check(self) -> None:
        """Raises LedgerCorrupt where the tables can't be those of a ledger."""

    def integrity(self, connection: sa.Connection) -> str:
        """The database's own check of its pages: "ok", or the first complaint."""

    def transaction(self, *, writes: bool) -> AbstractContextManager[sa.Connection]:
        """A transaction: one state, and for a writer no other writer until its end."""


class Session:
    """The entries inside one transaction; made by `Store.reading` and `Store.writing`.

    Each entry is checked against its own hash when it is read.
    """

    def __init__(self, database: Database, connection: sa.Connection):
        self._database = database
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
        row = self._connection.execute(_LAST).first()
        if row is None:
            raise LedgerCorrupt("no entry is last: the table `entries` was emptied")
        last = _entry(row)
        if row.noted != _position(last):
            raise LedgerCorrupt(
                f"entry seq={last.seq} is last, but the head noted is {row.noted!r}"
            )
        return last

    def get(self, seq: int) -> Entry:
        """The entry at `seq`."""
        found = next(self._rows(_AT, seq), None)
        if found is None:
            raise LedgerCorrupt(f"entry seq={seq} is missing")
        return found

    def with_key(self, key: str) -> list[Entry]:
        """Entries that carry this idempotency key, in order."""
        return list(self._rows(_WITH_KEY, key))

    def about(self, seq: int) -> list[Entry]:
        """Entries that refer to the entry at `seq` (commit, abort, …), in order."""
        return list(self._rows(_ABOUT, seq))

    def all(self) -> Iterator[Entry]:
        """Every entry, in order."""
        yield from self._rows(_in_order)

    def append(self, entry: Entry) -> None:
        """Adds `entry`; it counts once the transaction is committed."""
        row = {"seq": entry.seq, "hash": entry.hash, "entry": entry.text}
        row |= {"key": entry.body.get("key"), "ref": entry.body.get("ref")}
        self._connection.execute(_entries.insert(), row)
        self._connection.execute(_NOTE_HEAD, {"value": _position(entry)})

    def found(self, entries: Sequence[Entry]) -> None:
        """Starts the ledger: its tables, and its first entries."""
        _tables.create_all(self._connection)
        rows = {"schema": SCHEMA, "ledger": entries[0].ledger, "head": ""}
        self._connection.execute(
            _meta.insert(), [{"name": n, "value": v} for n, v in rows.items()]
        )
        for entry in entries:
            self.append(entry)

    def integrity(self) -> str:
        """The database's own check of its pages: "ok", or the first complaint."""
        return self._database.integrity(self._connection)

    def _rows(
        self, query: sa.Select, wanted: int | str | None = None
    ) -> Iterator[Entry]:
        """The entries that a query finds."""
        given = None if wanted is None else {"wanted": wanted}
        for row in self._connection.execute(query, given):
            yield _entry(row)


class Store:
    """Transactions on one ledger: a file, a PostgreSQL URL, or memory when None.

    Example:
      >>> store = Store(None)
      >>> store.create(chain.genesis({}))
      True
      >>> with store.reading() as session:
      ...     session.head().kind
      'genesis'
      >>> store.close()
    """

    def __init__(self, place: Path | sa.URL | None):
        postgres = isinstance(place, sa.URL)
        self._database: Database = Postgres(place) if postgres else Sqlite(place)
        self._lock = threading.RLock()
        self._closed = False

    @property
    def path(self) -> Path | str | None:
        """The file, the URL without its password, or None for memory."""
        return self._database.name

    def exists(self) -> bool:
        """Whether there is anything, a ledger or not, at the path."""
        return self._database.exists()

    def create(self, *entries: Entry) -> bool:
        """Starts a ledger, genesis entry first; False if one was there already."""
        return self._database.create(
            lambda connection: Session(self._database, connection).found(entries)
        )

    def check(self) -> None:
        """Cheap checks on opening: schema, size, number of entries, head.

        Raises:
          LedgerCorrupt: truncated, edited, written by a newer dpkit, or no ledger at
            all: a damaged one can't be told from another file.
        """
        self._database.check()
        with self.reading() as session:
            meta = session.meta()
            _check_schema(meta)
            head = session.head()
            if session.count() != head.seq + 1 or meta.get("ledger") != head.ledger:
                raise LedgerCorrupt(f"path={self.path}: entries are missing or foreign")

    @contextlib.contextmanager
    def reading(self) -> Iterator[Session]:
        """A transaction that sees one state and writes nothing."""
        with self._transaction(writes=False) as session:
            yield session

    @contextlib.contextmanager
    def writing(self) -> Iterator[Session]:
        """The one writing transaction: durable when it ends, undone if it raises.

        Raises:
          TimeoutError: another process kept the ledger locked; nothing was written.
          ConnectionError: the server is gone. Where that happened in the last moment
            the entry may have been written: the message says so.
          OSError: disk full, or not writable; nothing was written.
        """
        with self._transaction(writes=True) as session:
            yield session

    def close(self) -> None:
        """Ends the use of the store; a ledger in memory is lost."""
        self._closed = True
        self._database.engine.dispose()

    @contextlib.contextmanager
    def _transaction(self, *, writes: bool) -> Iterator[Session]:
        """One transaction, one at a time in this process."""
        if self._closed:
            raise ValueError("the ledger object was closed; open the ledger again")
        with self._lock, self._database.transaction(writes=writes) as connection:
            yield Session(self._database, connection)


def _entry(row: sa.Row[Any]) -> Entry:
    """A row, parsed, after checking the columns that only repeat its text."""
    if not isinstance(row.entry, str) or not isinstance(row.hash, str):
        raise LedgerCorrupt(f"entry seq={row.seq}: a column is not text")
    entry = chain.parse(row.entry, row.hash, row.seq)
    if (row.key, row.ref) != (entry.body.get("key"), entry.body.get("ref")):
        raise LedgerCorrupt(f"entry seq={row.seq}: an index column was edited")
    return entry


def _position(entry: Entry) -> str:
    """How `meta` notes the head."""
    return f"{entry.seq} {entry.hash}"


def _check_schema(meta: dict[str, str]) -> None:
    """Refuse other versions of the tables."""
    if meta.get("schema") != SCHEMA:
        raise LedgerCorrupt(
            f"schema={meta.get('schema')}, but this dpkit reads {SCHEMA}: "
            "update dpkit, or the file was edited"
        )
