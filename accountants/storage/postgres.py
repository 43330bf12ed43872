"""A ledger in a PostgreSQL database, for teams; one schema holds one ledger.

No two writers decide on the same state. Each takes an exclusive lock on the table
`meta` before its first read and keeps it to the end; its snapshot is taken by that
first read, so it shows all that the writer before has committed: writers come strictly
one after another. They are serializable as well: should the lock ever be lost (by a
pooler that splits transactions), the server refuses one of two. Readers wait for nobody
and see one snapshot.

A COMMIT returns once the server has flushed the entry: synchronous_commit is on here,
whatever the defaults say, and a server with fsync=off is refused. A standby that lags
behind when it takes over has forgotten charges: replicate synchronously.

An open ledger keeps one connection, idle between calls; a child process that inherits
the ledger opens its own.

A writer needs usage of the schema, select and insert on `entries`, and select and
update on `meta`; nobody needs to update or delete entries. An administrator may make
the schema, empty, beforehand.
"""

from __future__ import annotations

import errno
import os
import re
import weakref
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import QueuePool

from dpkit.accountants.answers.errors import LedgerCorrupt
from dpkit.accountants.storage.database import NOTHING, Database, Objects

_WAIT_SECONDS = 20
# A client that hangs, or lost its network, holds the lock no longer than this.
_IDLE_SECONDS = 120
_PATIENCE: dict[str, int | str] = {
    "connect_timeout": _WAIT_SECONDS,
    "tcp_user_timeout": 1000 * _WAIT_SECONDS,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "application_name": "dpkit",
}
_OPTIONS = frozenset(
    "ledger host port sslmode sslrootcert sslcert sslkey passfile channel_binding "
    "connect_timeout application_name target_session_attrs".split()
)
_LEDGER = re.compile(r"(?!pg_|public$|information_schema$)[a-z][a-z0-9_]{0,62}")

# SQLSTATEs. Somebody created it first: unique_violation, duplicate schema or table.
_TAKEN = ("23505", "42P06", "42P07")
# Lock timeout, serialization failure, deadlock, cancelled or statement timeout.
_BUSY = ("55P03", "40", "57014")
_FORBIDDEN = ("28", "42501", "25006")
# Data, constraints, schema, undefined and retyped things, damaged pages.
_BROKEN = ("22", "23", "3F", "42", "XX")
# Errors of a COMMIT after which it is certain that nothing was written.
_UNDONE = ("23", "40", "57014")

_UNKNOWN = (
    "the entry may have been written or not: count it as spent and release nothing; "
    "the same call with the same key charges it once"
)


# (kind, name, definition) of all that stands in a schema, or acts on its tables;
# tables show their columns.
_FOUND = """
WITH ours AS (
  SELECT c.* FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace WHERE nspname = '{schema}')
SELECT 'relation', relname::text, concat_ws(' ', relkind, relpersistence,
  CASE WHEN relrowsecurity OR relforcerowsecurity THEN 'security' END,
  (SELECT string_agg(concat_ws(' ', attname, format_type(atttypid, atttypmod),
     CASE WHEN attnotnull THEN 'not null' END,
     CASE WHEN atthasdef OR attidentity <> '' OR attgenerated <> '' THEN 'made' END,
     CASE WHEN attcollation NOT IN (0, 100) THEN 'collated' END), ', ' ORDER BY attnum)
   FROM pg_catalog.pg_attribute
   WHERE attrelid = ours.oid AND attnum > 0 AND NOT attisdropped AND relkind <> 'i'))
FROM ours
UNION ALL SELECT 'trigger', tgname::text, '' FROM pg_catalog.pg_trigger
  JOIN ours ON ours.oid = tgrelid
UNION ALL SELECT 'rule', rulename::text, '' FROM pg_catalog.pg_rewrite
  JOIN ours ON ours.oid = ev_class
UNION ALL SELECT 'policy', polname::text, '' FROM pg_catalog.pg_policy
  JOIN ours ON ours.oid = polrelid
UNION ALL SELECT 'constraint', conname::text, '' FROM pg_catalog.pg_constraint
  JOIN ours ON ours.oid = conrelid WHERE contype NOT IN ('p', 'n')
UNION ALL SELECT 'child', inhrelid::regclass::text, '' FROM pg_catalog.pg_inherits
  JOIN ours ON ours.oid IN (inhparent, inhrelid)
UNION ALL SELECT 'function', p.oid::regprocedure::text, ''
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = pronamespace
  WHERE nspname = '{schema}'
UNION ALL SELECT 'operator', oprname::text, ''
  FROM pg_catalog.pg_operator JOIN pg_catalog.pg_namespace n ON n.oid = oprnamespace
  WHERE nspname = '{schema}'"""
_MADE: Objects = {
    ("relation", "meta"): "r p name text not null, value text not null",
    ("relation", "entries"): "r p seq integer not null, hash text not null, key text, "
    "ref integer, entry text not null",
    **{
        ("relation", name): "i p"
        for name in ("meta_pkey", "entries_pkey", "ix_entries_key", "ix_entries_ref")
    },
}


class Postgres(Database):
    """One schema of a PostgreSQL database."""

    index_method = "USING hash "
    made = _MADE

    def __init__(self, url: sa.URL):
        _check_url(url)
        self.schema = str(url.query.get("ledger", "ledger"))
        self._secret = str(url.password or "")
        shown = url._replace(password=None).update_query_dict({"ledger": self.schema})
        engine = _engine(url.difference_update_query(["ledger"]))
        super().__init__(shown.render_as_string(), engine)

    def exists(self) -> bool:
        """Whether the schema holds anything, a ledger or not."""
        with self.transaction(writes=False) as connection:
            return bool(self._found(connection))

    def create(self, write: Callable[[sa.Connection], None]) -> bool:
        """Makes the tables with what `write` writes; False if anything is there."""
        try:
            with self.transaction(writes=True, creates=True) as connection:
                self._refuse_unsafe(connection)
                if self._found(connection):
                    return False
                # An administrator may have made it, for one who may not.
                query = "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = "
                if not connection.exec_driver_sql(f"{query}'{self.schema}'").first():
                    connection.exec_driver_sql(f'CREATE SCHEMA "{self.schema}"')
                write(connection)
        except FileExistsError:
            return False
        return True

    def _found(self, connection: sa.Connection) -> Objects:
        """All that could change what a statement does."""
        rows = connection.exec_driver_sql(_FOUND.format(schema=self.schema))
        return {(kind, name): text for kind, name, text in rows}

    def _begin(self, connection: sa.Connection, writes: bool, creates: bool) -> None:
        """Begins a transaction with settings that no default can weaken.

        LOCK TABLE takes no snapshot, so what is read afterwards is the present. The
        lock on `entries` lets nobody add a trigger or a rule until the end.
        """
        path = f'SET LOCAL search_path = "{self.schema}", pg_temp;'
        begin = f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {path}"
        if writes:
            begin = (
                f"BEGIN ISOLATION LEVEL SERIALIZABLE READ WRITE; {path}"
                " SET LOCAL synchronous_commit = on;"
                f" SET LOCAL lock_timeout = '{_WAIT_SECONDS}s';"
                f" SET LOCAL idle_in_transaction_session_timeout = '{_IDLE_SECONDS}s';"
            )
        if writes and not creates:
            begin += f' LOCK TABLE "{self.schema}".meta IN EXCLUSIVE MODE;'
            begin += f' LOCK TABLE "{self.schema}".entries IN ROW EXCLUSIVE MODE;'
        connection.exec_driver_sql(begin)

    def _is_open(self, connection: sa.Connection) -> bool:
        """Whether no statement of it has failed."""
        driver: Any = connection.connection.driver_connection
        return driver.info.transaction_status.name == "INTRANS"

    def _give_up(self, connection: sa.Connection) -> None:
        """Hangs up: a connection serves again only after a success."""
        connection.invalidate()

    def _refuse_unsafe(self, connection: sa.Connection) -> None:
        """Refuse a server that confirms what it may forget, or mangles text."""
        for setting, needed in {"fsync": "on", "server_encoding": "UTF8"}.items():
            found = connection.exec_driver_sql(f"SHOW {setting}").scalar_one()
            if found != needed:
                raise OSError(
                    f"path={self.name}: the server has {setting}={found}, and a ledger "
                    f"needs {setting}={needed}"
                )

    def _translated(
        self, error: BaseException | None, ending: bool, creates: bool
    ) -> Exception:
        """By its SQLSTATE; after a COMMIT without an answer nothing is certain."""
        state = getattr(error, "sqlstate", None) or ""
        reason = (str(error).splitlines() or [""])[0]
        if self._secret:
            reason = reason.replace(self._secret, "***")
        if creates and state in _TAKEN:
            return FileExistsError(f"path={self.name}: somebody else was first")
        if ending and not state.startswith(_UNDONE):
            return ConnectionError(
                f"path={self.name}: the server was lost ({reason}): {_UNKNOWN}"
            )
        if state.startswith(_BUSY):
            return TimeoutError(
                f"path={self.name} stayed locked by another writer ({reason}): "
                f"{NOTHING}; try again"
            )
        if state.startswith(_FORBIDDEN):
            return PermissionError(errno.EACCES, f"{reason}: {NOTHING}", self.name)
        if state == "53100":
            return OSError(errno.ENOSPC, f"disk full: {NOTHING}", self.name)
        if state.startswith(_BROKEN):
            return LedgerCorrupt(f"path={self.name}: {reason}")
        return ConnectionError(f"path={self.name}: {reason}: {NOTHING}")


def _check_url(url: sa.URL) -> None:
    """Refuse what can't be opened, or would show a secret; no value is repeated."""
    if "@" in f"{url.host}{url.database}":
        raise ValueError(
            "path: more than one @ in a postgresql:// URL; write special characters "
            "of a password as %40 and the like"
        )
    unknown = sorted(url.query.keys() - _OPTIONS)
    if unknown:
        raise ValueError(
            f"path: option {unknown[0]!r} is not one of {', '.join(sorted(_OPTIONS))}; "
            "a password belongs into ~/.pgpass or PGPASSWORD"
        )
    name = url.query.get("ledger", "ledger")
    if not isinstance(name, str) or not _LEDGER.fullmatch(name):
        raise ValueError(
            "path: ?ledger=NAME must be at most 63 lower-case letters, digits and _, "
            "from a letter on, and no schema of PostgreSQL's own"
        )


def _engine(url: sa.URL) -> sa.Engine:
    """An engine whose transactions are begun and ended by us alone."""
    options: dict[str, Any] = {
        name: value for name, value in _PATIENCE.items() if name not in url.query
    }
    # Statements prepared on one connection of a pooler are unknown on the next.
    options |= {"client_encoding": "utf8", "prepare_threshold": None}
    try:
        engine = sa.create_engine(
            url.set(drivername="postgresql+psycopg"),
            poolclass=QueuePool,
            pool_size=1,
            max_overflow=-1,
            pool_pre_ping=True,
            pool_reset_on_return=None,
            isolation_level="AUTOCOMMIT",
            use_native_hstore=False,
            connect_args=options,
        )
    except ImportError as error:
        raise ValueError(
            "path: postgresql:// URLs need the extra `postgres`: "
            f"pip install 'dpkit-jax[postgres]' ({error})"
        ) from None
    _ENGINES.add(engine)
    return engine


def _forget_connections() -> None:
    """In a child process: the parent's connections stay open, and the parent's."""
    for engine in _ENGINES:
        engine.dispose(close=False)


_ENGINES: weakref.WeakSet[sa.Engine] = weakref.WeakSet()
os.register_at_fork(after_in_child=_forget_connections)
