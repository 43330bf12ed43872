"""Code in the database that could undo a charge: refused before anything is charged.

A trigger that deletes what was just written leaves a chain without a fault.
"""

import sqlite3
from typing import Any

import psycopg
import pytest

from dpkit.accountants import Budget, Ledger, LedgerCorrupt, PureDpEvent
from dpkit.accountants.storage.postgres import Postgres
from dpkit.accountants.storage.sqlite import Sqlite
from tests.accountants.toy_ledgers import TERMS

BUDGET = Budget(1.0, 0.0)
EIGHTH = PureDpEvent(0.125)

UNDO = """
create trigger undo after insert on entries begin
  delete from entries where seq = new.seq; end;
create trigger noted after update on meta when new.value <> old.value begin
  update meta set value = old.value where name = old.name; end"""
IGNORE = """
create trigger ignored before insert on entries begin select raise(ignore); end;
create trigger noted before update on meta begin select raise(ignore); end"""
# What is done to the file, how it is taken back, and what is named.
FILE = [
    (UNDO, "drop trigger undo; drop trigger noted", "trigger 'noted' is not"),
    (IGNORE, "drop trigger ignored; drop trigger noted", "trigger 'ignored' is not"),
    ("create view v as select 1", "drop view v", "view 'v' is not"),
    ("create table t (x)", "drop table t", "table 't' is not"),
    ("create unique index i on entries (hash)", "drop index i", "index 'i' is not"),
    (
        "alter table entries add column x",
        "alter table entries drop column x",
        "table 'entries' was altered",
    ),
    (
        "drop index ix_entries_ref",
        "create index ix_entries_ref on entries (ref)",
        "index 'ix_entries_ref' is missing",
    ),
    (
        "drop index ix_entries_key;"
        "create index ix_entries_key on entries (key) where ref > 1",
        'drop index ix_entries_key; CREATE INDEX "ix_entries_key"\n ON entries( key )',
        "index 'ix_entries_key' was altered",
    ),
    (
        "alter table meta rename to old; create table meta (name text not null, value "
        "text not null, primary key (name) on conflict ignore); "
        "insert into meta select * from old; drop table old",
        "alter table meta rename to old; create table meta (name text not null, value "
        "text not null, primary key (name)); insert into meta select * from old; "
        "drop table old",
        "table 'meta' was altered",
    ),
]
NOTHING = "create function {0}.nothing() returns trigger language plpgsql as "
NOTHING += "'begin return null; end'; "
TRIGGER = "create trigger t before insert on {0}.entries "
TRIGGER += "for each row execute function {0}.nothing()"
SERVER = [
    (NOTHING, "drop function {0}.nothing", "function '.*nothing.*' is not"),
    (
        NOTHING.replace("{0}.", "public.") + TRIGGER.replace("{0}.n", "public.n"),
        "drop trigger t on {0}.entries; drop function public.nothing",
        "trigger 't' is not",
    ),
    (
        "create rule r as on insert to {0}.entries do instead nothing",
        "drop rule r on {0}.entries",
        "rule 'r' is not",
    ),
    (
        "create rule r as on update to {0}.meta do also select 1",
        "drop rule r on {0}.meta",
        "rule 'r' is not",
    ),
    (
        "create policy p on {0}.entries using (seq < 3)",
        "drop policy p on {0}.entries",
        "policy 'p' is not",
    ),
    (
        "alter table {0}.entries enable row level security",
        "alter table {0}.entries disable row level security",
        "relation 'entries' was altered",
    ),
    (
        "alter table {0}.entries force row level security",
        "alter table {0}.entries no force row level security",
        "relation 'entries' was altered",
    ),
    (
        "create table public.child () inherits ({0}.entries)",
        "drop table public.child",
        "child 'public.child' is not",
    ),
    (
        "alter table {0}.entries set unlogged",
        "alter table {0}.entries set logged",
        "relation 'entries",
    ),
    (
        "alter table {0}.entries alter column key set default 'x'",
        "alter table {0}.entries alter column key drop default",
        "relation 'entries' was altered",
    ),
    (
        "alter table {0}.entries add column x int",
        "alter table {0}.entries drop column x",
        "relation 'entries' was altered",
    ),
    (
        "alter table {0}.entries add constraint c check (seq < 1000)",
        "alter table {0}.entries drop constraint c",
        "constraint 'c' is not",
    ),
    ("create view {0}.v as select 1", "drop view {0}.v", "relation 'v' is not"),
    ("create table {0}.t (x int)", "drop table {0}.t", "relation 't' is not"),
    (
        "create operator {0}.=== (leftarg=int, rightarg=int, function=int4eq)",
        "drop operator {0}.=== (int, int)",
        "operator '===' is not",
    ),
    (
        "drop index {0}.ix_entries_ref",
        "create index ix_entries_ref on {0}.entries (ref)",
        "relation 'ix_entries_ref' is missing",
    ),
]


def _spent(place) -> Any:
    """A ledger with a charge and an open reservation."""
    ledger = Ledger.open(place, budget=BUDGET, **TERMS)
    ledger.charge(EIGHTH, label="one")
    return ledger, ledger.reserve(EIGHTH, count=2, label="loop")


def _execute(path, script):
    connection = sqlite3.connect(path)
    connection.executescript(script)
    connection.close()


class _Never:
    """A mechanism that must not be called."""

    def event(self, relation):
        return EIGHTH

    def __call__(self, key, records):
        raise AssertionError


def _refused(named, ledger, grant, *looks):
    """Everything that writes is refused, by name, and nothing is written."""
    before = ledger.head
    for write in (
        lambda: ledger.charge(EIGHTH, label="two"),
        lambda: ledger.reserve(EIGHTH, label="two"),
        lambda: ledger.release(_Never(), None, None, label="two"),
        lambda: ledger.note("two"),
        lambda: grant.commit(1),
        *looks,
    ):
        with pytest.raises(LedgerCorrupt, match=named) as caught:
            write()
        assert "\n" not in str(caught.value)
    assert (ledger.head, ledger.spent().upper) == (before, 0.375)


@pytest.mark.parametrize(("done", "undone", "named"), FILE)
def test_what_somebody_put_into_a_file_is_refused(tmp_path, done, undone, named):
    ledger, grant = _spent(tmp_path / "a.db")
    _execute(ledger.path, done)
    _refused(named, ledger, grant, ledger.verify, lambda: Ledger.open(ledger.path))
    _execute(ledger.path, undone)
    ledger.charge(EIGHTH, label="two")
    grant.commit(1)
    with Ledger.open(ledger.path) as again:
        again.verify(recount=True)
        assert again.spent().upper == 0.5


@pytest.mark.parametrize(("done", "undone", "named"), SERVER)
def test_what_somebody_put_into_a_schema_is_refused(postgres, done, undone, named):
    ledger, grant = _spent(postgres.url())
    schema = ledger.path.rpartition("ledger=")[2]
    postgres.sql(done.format(schema))
    _refused(named, ledger, grant, ledger.verify, lambda: Ledger.open(ledger.path))
    postgres.sql(undone.format(schema))
    ledger.charge(EIGHTH, label="two")
    grant.commit(1)
    Ledger.open(ledger.path).verify(recount=True)
    assert ledger.spent().upper == 0.5


@pytest.mark.parametrize(
    ("kind", "name"), [("index", "ix_entries_ref"), ("table", "entries")]
)
def test_a_trigger_under_the_name_of_something_of_ours(tmp_path, kind, name):
    """Old versions of SQLite run it; newer ones call the schema malformed."""
    ledger, _ = _spent(tmp_path / "a.db")
    trigger = UNDO.strip().partition("end;")[0] + "end"
    connection = sqlite3.connect(ledger.path)
    connection.execute("pragma writable_schema=on")
    connection.execute(
        "update sqlite_master set rowid = rowid + 100 where name = 'ix_entries_ref'"
    )
    row = (50, kind, name, "entries", 0, trigger)
    connection.execute(
        "insert into sqlite_master (rowid, type, name, tbl_name, rootpage, sql) "
        "values (?, ?, ?, ?, ?, ?)",
        row,
    )
    connection.commit()
    connection.close()
    for ask in (
        lambda: ledger.charge(EIGHTH, label="two"),
        ledger.verify,
        lambda: Ledger.open(ledger.path),
    ):
        with pytest.raises(LedgerCorrupt, match=f"'{name}' was altered|malformed"):
            ask()


def test_statistics_of_sqlite_are_no_foreign_tables(tmp_path):
    ledger, _ = _spent(tmp_path / "a.db")
    with sqlite3.connect(ledger.path) as connection:
        connection.execute("analyze")
    connection.close()
    ledger.charge(EIGHTH, label="two")
    Ledger.open(ledger.path).verify()
    with sqlite3.connect(ledger.path) as connection:
        connection.execute("pragma writable_schema=on")
        connection.execute(
            "update sqlite_master set sql = 'create table sqlite_stat1(tbl, idx, x)' "
            "where name = 'sqlite_stat1'"
        )
    connection.close()
    with pytest.raises(LedgerCorrupt, match=r"sqlite_stat1|malformed"):
        ledger.charge(EIGHTH, label="three")


@pytest.mark.parametrize("script", [UNDO, IGNORE])
def test_what_is_not_found_shows_when_the_entry_is_read_back(
    tmp_path, monkeypatch, script
):
    ledger, grant = _spent(tmp_path / "a.db")
    _execute(ledger.path, script)
    monkeypatch.setattr(Sqlite, "refuse_foreign", lambda *_: None)
    _refused("does not read back", ledger, grant)


def test_a_rule_that_is_not_found_shows_when_the_entry_is_read_back(
    postgres, monkeypatch
):
    ledger, grant = _spent(postgres.url())
    schema = ledger.path.rpartition("ledger=")[2]
    for table in ("entries", "meta"):
        kept = "insert" if table == "entries" else "update"
        rule = f"create rule r as on {kept} to {schema}.{table} do instead nothing"
        postgres.sql(rule)
    monkeypatch.setattr(Postgres, "refuse_foreign", lambda *_: None)
    _refused("does not read back", ledger, grant)


def test_a_trigger_added_while_a_writer_waits_is_seen(postgres):
    """It can't come between the look and the entry: a writer holds both tables."""
    ledger, _ = _spent(postgres.url())
    schema = ledger.path.rpartition("ledger=")[2]
    keep = "suppress_redundant_updates_trigger()"
    with ledger._store.writing():
        for table in ("entries", "meta"):
            with pytest.raises(psycopg.errors.LockNotAvailable):
                postgres.sql(
                    f"set lock_timeout = '100ms'; create trigger t before update on "
                    f"{schema}.{table} for each row execute function {keep}"
                )


@pytest.mark.parametrize("journal", ["delete", "wal", "persist", "off"])
def test_every_commit_waits_for_the_disk_whatever_the_journal(tmp_path, journal):
    """A mode that the file remembers (only WAL is one) is as durable."""
    ledger, _ = _spent(tmp_path / "a.db")
    _execute(ledger.path, f"pragma journal_mode={journal}")
    with ledger._store.writing() as session:
        run = session._connection.exec_driver_sql
        assert run("pragma synchronous").scalar_one() == 3
        found = run("pragma journal_mode").scalar_one()
    assert found == ("wal" if journal == "wal" else "delete")
    ledger.charge(EIGHTH, label="two")
    with Ledger.open(ledger.path) as again:
        again.verify()
        assert again.spent().upper == 0.5
