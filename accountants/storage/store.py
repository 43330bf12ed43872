"""Where a ledger's entries are kept: two tables of an SQLite or PostgreSQL database.

A write is one transaction, lock → read → check → append → commit, so that two processes
never decide on the same state, and it ends only once the entry is durable. How each
database keeps that promise is in sqlite.py and postgres.py; here is what they share.
No connection is carried across a fork.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NoReturn

import sqlalchemy as sa

from dpkit.accountants.answers.errors import LedgerCorrupt
from dpkit.accountants.storage.database import ENTRIES, META, STATEMENTS, Database
from dpkit.accountants.storage.entry import Entry, parse
from dpkit.accountants.storage.postgres import Postgres
from dpkit.accountants.storage.sqlite import Sqlite

SCHEMA = "1"

_noted = sa.select(META.c.value).where(META.c.name == "head").scalar_subquery()
_in_order = ENTRIES.select().order_by(ENTRIES.c.seq)
_LAST = sa.select(ENTRIES, _noted.label("noted"))
_LAST = _LAST.order_by(ENTRIES.c.seq.desc()).limit(1)
_AT = ENTRIES.select().where(ENTRIES.c.seq == sa.bindparam("wanted"))
_WITH_KEY = _in_order.where(ENTRIES.c.key == sa.bindparam("wanted"))
_SINCE = _in_order.where(ENTRIES.c.seq >= sa.bindparam("wanted"))
_ABOUT = _in_order.where(ENTRIES.c.ref == sa.bindparam("wanted"))
_COUNT = sa.select(sa.func.count()).select_from(ENTRIES)
_NOTE_HEAD = META.update().where(META.c.name == "head")


class Session:
    """The entries inside one transaction; made by `Store.reading` and `Store.writing`.

    Each entry is checked against its own hash when it is read.
    """

    def __init__(self, database: Database, connection: sa.Connection):
        self._database = database
        self._connection = connection

    def meta(self) -> dict[str, str]:
        """The rows of the table `meta`."""
        return {row.name: row.value for row in self._connection.execute(META.select())}

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
        for entry in self._rows(_AT, seq):
            return entry
        raise LedgerCorrupt(f"entry seq={seq} is missing")

    def with_key(self, key: str) -> list[Entry]:
        """Entries that carry this idempotency key, in order."""
        return list(self._rows(_WITH_KEY, key))

    def about(self, seq: int) -> list[Entry]:
        """Entries that refer to the entry at `seq` (commit, abort, …), in order."""
        return list(self._rows(_ABOUT, seq))

    def all(self) -> Iterator[Entry]:
        """Every entry, in order."""
        yield from self._rows(_in_order)

    def append(self, *entries: Entry) -> None:
        """Adds entries; they count once the transaction is committed.

        Raises:
          LedgerCorrupt: they don't read back as they were written.
        """
        rows = [
            {"seq": entry.seq, "hash": entry.hash, "entry": entry.text}
            | {"key": entry.body.get("key"), "ref": entry.body.get("ref")}
            for entry in entries
        ]
        self._connection.execute(ENTRIES.insert(), rows)
        self._connection.execute(_NOTE_HEAD, {"value": _position(entries[-1])})
        first, last = entries[0], entries[-1]
        hashes = [first.prev] * (first.seq > 0) + [entry.hash for entry in entries]
        found = [entry.hash for entry in self._rows(_SINCE, first.seq - 1)]
        if found != hashes or self.head().hash != last.hash:
            raise LedgerCorrupt(
                f"entry seq={first.seq} does not read back as it was written: the "
                "database changes what is stored in it; nothing was charged"
            )

    def found(self, entries: Sequence[Entry]) -> None:
        """Starts the ledger: its tables, and its first entries."""
        for statement in STATEMENTS:
            text = statement.format(method=self._database.index_method)
            self._connection.exec_driver_sql(text)
        rows = {"schema": SCHEMA, "ledger": entries[0].ledger, "head": ""}
        self._connection.execute(
            META.insert(), [{"name": n, "value": v} for n, v in rows.items()]
        )
        self.append(*entries)

    def integrity(self) -> str:
        """The database's own check of its pages: "ok", or the first complaint."""
        self._database.refuse_foreign(self._connection)
        return self._database.integrity(self._connection)

    def _rows(
        self, query: sa.Select, wanted: int | str | None = None
    ) -> Iterator[Entry]:
        """The entries that a query finds."""
        given = None if wanted is None else {"wanted": wanted}
        for row in self._connection.execute(query, given):
            yield _entry(row)


class Sole:
    """What can't be copied, pickled or sent: a copy would spend the budget again."""

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__}: an open ledger can't be copied or pickled; give "
            "its path or URL, and open it there with Ledger.open"
        )


class Store(Sole):
    """Transactions on one ledger: a file, a PostgreSQL URL, or memory when None.

    Example:
      >>> from dpkit.accountants.storage.entry import genesis
      >>> store = Store(None)
      >>> store.create(genesis({}))
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
        self._process = os.getpid()
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
            if meta.get("schema") != SCHEMA:
                raise LedgerCorrupt(
                    f"schema={meta.get('schema')}, but this dpkit reads {SCHEMA}: "
                    "update dpkit, or the file was edited"
                )
            self._database.refuse_foreign(session._connection)
            head, stored = session.head(), session._connection.scalar(_COUNT)
            if stored != head.seq + 1 or meta.get("ledger") != head.ledger:
                raise LedgerCorrupt(f"path={self.path}: entries are missing or foreign")

    def reading(self) -> AbstractContextManager[Session]:
        """A transaction that sees one state and writes nothing."""
        return self._transaction(writes=False)

    def writing(self) -> AbstractContextManager[Session]:
        """The one writing transaction: durable when it ends, undone if it raises.

        Raises:
          TimeoutError: another process kept the ledger locked; nothing was written.
          ConnectionError: the server is gone. Where that happened in the last moment
            the entry may have been written: the message says so.
          OSError: disk full, or not writable; nothing was written.
        """
        return self._transaction(writes=True)

    def close(self) -> None:
        """Ends the use of the store; a ledger in memory is lost."""
        self._closed = True
        self._database.engine.dispose()

    @contextlib.contextmanager
    def _transaction(self, *, writes: bool) -> Iterator[Session]:
        """One transaction, one at a time in this process."""
        if self._closed:
            raise ValueError("the ledger object was closed; open the ledger again")
        if self._process != os.getpid():
            self._enter_child()
        with self._lock, self._database.transaction(writes=writes) as connection:
            if writes:
                self._database.refuse_foreign(connection)
            yield Session(self._database, connection)

    def _enter_child(self) -> None:
        """After a fork memory is a copy (RuntimeError); a lock may be a thread's."""
        if self.path is None:
            raise RuntimeError(
                "path=None: a ledger in memory can't be used in a forked process, for "
                "each process would spend the whole budget; give it a file"
            )
        self._lock, self._process = threading.RLock(), os.getpid()


def _entry(row: sa.Row[Any]) -> Entry:
    """A row, parsed, after checking the columns that only repeat its text."""
    if not isinstance(row.entry, str) or not isinstance(row.hash, str):
        raise LedgerCorrupt(f"entry seq={row.seq}: a column is not text")
    entry = parse(row.entry, row.hash, row.seq)
    if (row.key, row.ref) != (entry.body.get("key"), entry.body.get("ref")):
        raise LedgerCorrupt(f"entry seq={row.seq}: an index column was edited")
    return entry


def _position(entry: Entry) -> str:
    """How `meta` notes the head."""
    return f"{entry.seq} {entry.hash}"
