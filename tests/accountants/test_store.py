"""The file: durable, whole or absent, and loud when it was touched."""

import errno
import os
import resource
import sqlite3
from typing import Any

import pytest
import sqlalchemy as sa

from dpkit.accountants import Budget, Ledger, LedgerCorrupt, PureDpEvent
from dpkit.accountants.storage import sqlite as sqlite_module

TERMS: dict[str, Any] = {
    "budget": Budget(3.0, 1e-5),
    "relation": "add_remove",
    "unit": "example",
    "dataset": "toy 1.0",
}


@pytest.fixture
def path(tmp_path):
    """A ledger with a few entries of several kinds."""
    path = tmp_path / "ledger.db"
    with Ledger.open(path, filter="pure", **TERMS) as ledger:
        ledger.charge(PureDpEvent(0.25), label="one", key="k1")
        with ledger.reserve(PureDpEvent(0.125), count=4, label="loop", key="k2") as g:
            g.checkpoint(2)
            g.commit(3)
        ledger.note("half way")
        ledger.charge(PureDpEvent(0.5), count=2, label="two")
    return path


def _execute(path, statement, *values):
    connection = sqlite3.connect(path)
    connection.execute("pragma synchronous=off")
    with connection:
        connection.execute(statement, values)
    connection.close()


def _rows(path):
    connection = sqlite3.connect(path)
    rows = connection.execute("select * from entries order by seq").fetchall()
    names = [item[1] for item in connection.execute("pragma table_info(entries)")]
    connection.close()
    return [dict(zip(names, row, strict=True)) for row in rows]


def _broken(path):
    """Whether opening or verifying refuses the file."""
    try:
        with Ledger.open(path) as ledger:
            ledger.verify()
    except LedgerCorrupt as error:
        assert "\n" not in str(error)
        return True
    return False


def test_an_untouched_ledger_verifies(path):
    assert not _broken(path)


def test_one_file_and_nothing_beside_it(path):
    assert [item.name for item in path.parent.iterdir()] == ["ledger.db"]


def _edits(path, places):
    """Each stored value of each row with one character changed, at some places."""
    for row in _rows(path):
        yield row["seq"], "seq", row["seq"] + 1000
        yield row["seq"], "ref", 77 if row["ref"] is None else row["ref"] ^ 1
        for name in ("hash", "key", "entry"):
            text = row[name] or "-"
            for place in range(0, len(text), max(1, len(text) // places)):
                other = chr(ord(text[place]) ^ 1)
                yield row["seq"], name, text[:place] + other + text[place + 1 :]


@pytest.mark.parametrize(
    "places", [4, pytest.param(10**6, marks=pytest.mark.slow, id="everywhere")]
)
def test_every_column_of_every_row_is_protected(path, places):
    """One character changed anywhere in a stored row: verify raises."""
    original = path.read_bytes()
    for seq, name, value in list(_edits(path, places)):
        _execute(path, f"update entries set {name}=? where seq=?", value, seq)
        assert _broken(path), (seq, name, value)
        path.write_bytes(original)
    assert not _broken(path)


@pytest.mark.parametrize("name", ["schema", "ledger", "head"])
def test_every_character_of_meta_is_protected(path, name):
    original = path.read_bytes()
    connection = sqlite3.connect(path)
    (value,) = connection.execute(
        "select value from meta where name=?", (name,)
    ).fetchone()
    connection.close()
    for place in range(len(value)):
        edited = value[:place] + chr(ord(value[place]) ^ 1) + value[place + 1 :]
        _execute(path, "update meta set value=? where name=?", edited, name)
        assert _broken(path)
        path.write_bytes(original)


EDITS = [
    "delete from entries where seq = (select max(seq) from entries)",
    "delete from entries where seq = 2",
    "delete from entries where seq = 0",
    "delete from entries",
    "delete from meta",
    "drop table entries",
    "drop table meta",
    "insert into meta values ('more', 'x')",
    "insert into entries select seq + 1, hash, key, ref, entry from entries "
    "where seq = (select max(seq) from entries)",
    "update entries set key = null where seq = 1",
    "update entries set ref = 1 where seq = 1",
]
RETYPED = "update entries set entry = cast(entry as blob) where seq = 1"


@pytest.mark.parametrize("statement", [*EDITS, RETYPED])
def test_rows_taken_away_added_or_retyped_are_noticed(path, statement):
    _execute(path, statement)
    assert _broken(path)


def test_missing_rows_are_noticed_on_opening(path):
    _execute(path, "delete from entries where seq = 2")
    with pytest.raises(LedgerCorrupt):
        Ledger.open(path)


def test_a_cut_tail_is_noticed_on_opening(path):
    _execute(path, "delete from entries where seq = (select max(seq) from entries)")
    with pytest.raises(LedgerCorrupt, match="head"):
        Ledger.open(path)


def test_truncation_at_any_length_is_noticed(path):
    whole = path.read_bytes()
    for size in [0, 1, 15, 16, 99, 100, 4095, 4096, 8192, len(whole) - 1]:
        path.write_bytes(whole[:size])
        assert _broken(path), size
    path.write_bytes(whole + b"\0" * 4096)
    assert _broken(path)


def test_an_emptied_file_is_never_taken_for_a_new_ledger(path):
    path.write_bytes(b"")
    with pytest.raises(LedgerCorrupt, match="empty"):
        Ledger.open(path, **TERMS)


@pytest.mark.slow
def test_bytes_flipped_anywhere_are_noticed_or_harmless(path):
    """A flipped byte is refused, or lies where nothing is stored."""
    whole = bytearray(path.read_bytes())
    with Ledger.open(path) as ledger:
        before = [entry.text for entry in ledger.entries()]
    for place in range(0, len(whole), 199):
        edited = bytearray(whole)
        edited[place] ^= 0x20
        path.write_bytes(bytes(edited))
        if not _broken(path):
            with Ledger.open(path) as ledger:
                assert [entry.text for entry in ledger.entries()] == before


@pytest.mark.parametrize(
    "content", [b"not a ledger\n" * 100, b"PK\x03\x04" + b"\0" * 4096, b"{}"]
)
def test_other_files_are_no_ledgers(tmp_path, content):
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(LedgerCorrupt, match="not a dpkit ledger"):
        Ledger.open(path, **TERMS)
    assert path.read_bytes() == content


def test_another_sqlite_file_is_no_ledger(tmp_path):
    path = tmp_path / "other.db"
    _execute(path, "create table t (x)")
    with pytest.raises(LedgerCorrupt, match="not a dpkit ledger"):
        Ledger.open(path, **TERMS)


def test_a_newer_version_is_refused(path):
    _execute(path, "update meta set value = '2' where name = 'schema'")
    with pytest.raises(LedgerCorrupt, match="update dpkit"):
        Ledger.open(path)


def test_a_vanished_ledger_with_its_journal_left_is_not_replaced(tmp_path):
    (tmp_path / "ledger.db-journal").write_bytes(b"x" * 512)
    with pytest.raises(LedgerCorrupt, match="journal"):
        Ledger.open(tmp_path / "ledger.db", **TERMS)


def test_a_missing_folder_and_a_folder_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="folder"):
        Ledger.open(tmp_path / "none" / "ledger.db", **TERMS)
    with pytest.raises(ValueError, match="folder"):
        Ledger.open(tmp_path, **TERMS)


def test_a_file_is_not_called_memory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="None is a ledger in memory"):
        Ledger.open(":memory:", **TERMS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "url", ["mysql://host/db", "sqlite:///x.db?mode=ro", "sqlite+other:///x.db"]
)
def test_other_databases_are_refused(url):
    with pytest.raises(ValueError, match="sqlite"):
        Ledger.open(url, **TERMS)


def test_a_url_and_a_path_name_the_same_ledger(path):
    with Ledger.open(f"sqlite:///{path}") as by_url, Ledger.open(str(path)) as by_path:
        assert by_url.head == by_path.head


def test_a_full_disk_fails_the_charge_and_nothing_is_released(path):
    """The file may not grow: SQLite meets a write error in the middle of a commit."""
    released = []

    class Mechanism:
        def event(self, relation):
            return PureDpEvent(0.001)

        def __call__(self, key, records):
            released.append(records)

    usual, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Ledger.open(path) as ledger:
        before = len(ledger.entries())
        # Python ignores the signal of this limit, so a write past it is an error.
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 12_000, hard))
        try:
            with pytest.raises(OSError) as caught:
                for _ in range(1000):
                    ledger.release(Mechanism(), None, None, label="x" * 500)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (usual, hard))
    assert "\n" not in str(caught.value)
    assert caught.value.errno in (errno.ENOSPC, errno.EIO)
    assert 0 < len(released) < 1000
    with Ledger.open(path) as ledger:
        ledger.verify()
        assert len(ledger.entries()) == before + len(released)


def test_sqlite_full_is_reported_as_no_space(path):
    """The pager's own limit on pages makes SQLite answer "database or disk is full"."""
    with Ledger.open(path) as ledger:
        before = ledger.head

        @sa.event.listens_for(ledger._store._database.engine, "connect")
        def _limit(connection, _record):
            connection.execute("PRAGMA max_page_count=1")

        with pytest.raises(OSError, match="disk full") as caught:
            for _ in range(100):
                ledger.charge(PureDpEvent(0.001), label="y" * 900)
        assert caught.value.errno == errno.ENOSPC
        ledger.verify()
        assert ledger.head == before


def test_a_read_only_file_can_be_read_but_not_charged(path):
    with Ledger.open(path) as ledger:

        @sa.event.listens_for(ledger._store._database.engine, "connect")
        def _only(connection, _record):
            connection.execute("PRAGMA query_only=1")

        ledger.verify()
        with pytest.raises(PermissionError):
            ledger.charge(PureDpEvent(0.1), label="x")


def test_a_lock_held_too_long_ends_in_a_timeout(path, monkeypatch):
    monkeypatch.setattr(sqlite_module, "_BUSY_SECONDS", 0.05)
    with Ledger.open(path) as ledger:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TimeoutError, match="locked"):
            ledger.charge(PureDpEvent(0.1), label="x")
        other.execute("ROLLBACK")
        other.close()
        ledger.charge(PureDpEvent(0.1), label="x")
        ledger.verify()


def test_a_closed_object_is_not_used_by_mistake(path):
    for ledger in (Ledger.open(path), Ledger.open(None, **TERMS)):
        ledger.close()
        with pytest.raises(ValueError, match="open the ledger again"):
            ledger.charge(PureDpEvent(0.1), label="x")


def test_a_file_system_without_hard_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "ledger.db"
    with Ledger.open(path, **TERMS) as ledger:
        ledger.verify()
    assert [item.name for item in tmp_path.iterdir()] == ["ledger.db"]
