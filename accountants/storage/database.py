"""What databases that hold a ledger share: two tables, transactions, and distrust.

A database can hold code, and code can undo a charge: a trigger that deletes the entry
just written, a rule or a policy that hides it. So all that stands in a ledger's file or
schema is compared with what was put there, on opening and again under the lock of each
writer, for it may have been added since.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import sqlalchemy as sa

from dpkit.accountants.answers.errors import LedgerCorrupt

META = sa.table("meta", sa.column("name", sa.Text), sa.column("value", sa.Text))
ENTRIES = sa.table(
    "entries",
    sa.column("seq", sa.Integer),
    sa.column("hash", sa.Text),
    sa.column("key", sa.Text),
    sa.column("ref", sa.Integer),
    sa.column("entry", sa.Text),
)
# The method of the index on keys is the database's: keys may be longer than
# PostgreSQL's B-trees allow.
STATEMENTS: tuple[str, ...] = (
    "CREATE TABLE meta (name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (name))",
    "CREATE TABLE entries (seq INTEGER NOT NULL, hash TEXT NOT NULL, key TEXT, "
    "ref INTEGER, entry TEXT NOT NULL, PRIMARY KEY (seq))",
    "CREATE INDEX ix_entries_key ON entries {method}(key)",
    "CREATE INDEX ix_entries_ref ON entries (ref)",
)
NOTHING = "nothing was charged, so nothing may be released"

# (kind, name) -> definition of what a database holds.
Objects = Mapping[tuple[str, str], str]


class Database(Protocol):
    """A place for one ledger; sqlite.py and postgres.py complete it.

    Fields: name (for messages and reports, never with a password; None for memory),
    engine (its transactions are begun and ended here alone), index_method, made (the
    objects of a ledger that nobody touched).
    """

    name: Path | str | None
    engine: sa.Engine
    index_method: str = ""
    made: Objects

    def __init__(self, name: Path | str | None, engine: sa.Engine):
        self.name = name
        self.engine = engine
        weakref.finalize(self, engine.dispose)

    def exists(self) -> bool:
        """Whether anything is there, a ledger or not."""

    def create(self, write: Callable[[sa.Connection], None]) -> bool:
        """Makes the ledger with what `write` writes, as a whole; False if taken."""

    def check(self) -> None:
        """Raises LedgerCorrupt where this can't be a ledger, OSError if not safe."""
        with self.transaction(writes=False) as connection:
            self._refuse_unsafe(connection)
            if not {name for _, name in self._found(connection)} >= {"meta", "entries"}:
                raise LedgerCorrupt(
                    f"path={self.name} is not a dpkit ledger, or a table is missing"
                )

    def refuse_foreign(self, connection: sa.Connection) -> None:
        """Raises LedgerCorrupt, naming one object that is foreign, gone or altered."""
        found = self._found(connection)
        for kind, name in sorted(found.keys() | self.made.keys()):
            there, made = found.get((kind, name)), self.made.get((kind, name))
            if there == made:
                continue
            fault = "is missing" if there is None else "was altered"
            if made is None:
                fault = "is not the ledger's, and could undo charges"
            raise LedgerCorrupt(
                f"path={self.name}: {kind} {name!r} {fault}: nothing is charged here "
                "until somebody finds out who did it and puts it right"
            )

    def integrity(self, connection: sa.Connection) -> str:
        """The database's own check of its pages: "ok", or the first complaint."""
        return "ok"

    @contextlib.contextmanager
    def transaction(
        self, *, writes: bool, creates: bool = False
    ) -> Iterator[sa.Connection]:
        """One state, and for a writer no other writer until the end, which is durable.

        Args:
          writes: False for a reader.
          creates: whether the tables are only about to be made.
        """
        ending = False
        try:
            with self.engine.connect() as connection:
                try:
                    self._begin(connection, writes, creates)
                    yield connection
                    # The COMMIT of a failed transaction may report success.
                    if not self._is_open(connection):
                        raise OSError(f"the transaction had failed: {NOTHING}")
                    ending = writes
                    connection.exec_driver_sql("COMMIT")
                except BaseException:
                    self._give_up(connection)
                    raise
        except sa.exc.DBAPIError as error:
            raise self._translated(error.orig, ending, creates) from None

    def _refuse_unsafe(self, connection: sa.Connection) -> None:
        """Refuse a file that was cut, or a server that may forget."""

    def _found(self, connection: sa.Connection) -> Objects:
        """All that the database holds beside the rows of tables."""

    def _begin(self, connection: sa.Connection, writes: bool, creates: bool) -> None:
        """Begins a transaction; a writer's takes the lock before it reads."""

    def _is_open(self, connection: sa.Connection) -> bool:
        """Whether a transaction is under way that can still be committed."""

    def _give_up(self, connection: sa.Connection) -> None:
        """Undoes a transaction after an exception."""

    def _translated(
        self, error: BaseException | None, ending: bool, creates: bool
    ) -> Exception:
        """A driver's error as one that callers can act on; `ending`: of the COMMIT."""
