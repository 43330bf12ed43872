"""The two tables of a ledger, and the refusal of anything beside them.

A database can hold code, and code can undo a charge: a trigger that deletes the entry
just written, a rule or a policy that hides it. So all that stands in a ledger's file or
schema is compared with what was put there, on opening and again under the lock of each
writer, for it may have been added since.
"""

from __future__ import annotations

from collections.abc import Mapping

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
STATEMENTS = (
    "CREATE TABLE meta (name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (name))",
    "CREATE TABLE entries (seq INTEGER NOT NULL, hash TEXT NOT NULL, key TEXT, "
    "ref INTEGER, entry TEXT NOT NULL, PRIMARY KEY (seq))",
    "CREATE INDEX ix_entries_key ON entries {method}(key)",
    "CREATE INDEX ix_entries_ref ON entries (ref)",
)

Objects = Mapping[tuple[str, str], str]


def refuse_foreign(found: Objects, expected: Objects, place: object) -> None:
    """Refuse a database that holds anything but a ledger's own tables and indexes.

    Args:
      found: (kind, name) -> definition of all that is there.
      expected: the same of a ledger that nobody touched.
      place: the database, for the message.

    Raises:
      LedgerCorrupt: naming one object that is foreign, missing or altered.

    Example:
      >>> refuse_foreign({("trigger", "t"): "..."}, {}, "a.db")
      Traceback (most recent call last):
      dpkit.accountants.answers.errors.LedgerCorrupt: path=a.db: trigger 't' is not ...
    """
    for kind, name in sorted(found.keys() | expected.keys()):
        if found.get((kind, name)) == expected.get((kind, name)):
            continue
        if (kind, name) not in found:
            fault = "is missing"
        elif (kind, name) in expected:
            fault = "was altered"
        else:
            fault = "is not the ledger's, and could undo charges"
        raise LedgerCorrupt(
            f"path={place}: {kind} {name!r} {fault}: nothing is charged here until "
            "somebody finds out who did it and puts it right"
        )
