"""Ledgers that were written before: their text, their tables, their numbers.

The lines in ledgers/ were exported by the version that first had the format, one file a
filter, with entries of every kind. The format of an entry never changes its meaning.
"""

import sqlite3
from pathlib import Path

import dp_accounting as dp
import pytest

from dpkit.accountants import Ledger, PureDpEvent
from dpkit.accountants.storage.entry import KINDS
from dpkit.accountants.storage.lines import read_lines

LINES = sorted((Path(__file__).parent / "ledgers").glob("*.jsonl"))
# The statements that SQLite files of that version hold, as they stand there.
TABLES = [
    "CREATE TABLE meta (\n\tname TEXT NOT NULL, \n\tvalue TEXT NOT NULL, \n\t"
    "PRIMARY KEY (name)\n)",
    'CREATE TABLE entries (\n\tseq INTEGER NOT NULL, \n\thash TEXT NOT NULL, \n\t"key" '
    "TEXT, \n\tref INTEGER, \n\tentry TEXT NOT NULL, \n\tPRIMARY KEY (seq)\n)",
    "CREATE INDEX ix_entries_ref ON entries (ref)",
    'CREATE INDEX ix_entries_key ON entries ("key")',
]
# What that version said of them.
SPENT = {
    "approx": 2.9232723731742043,
    "pure": 2.575,
    "static": 0.8477035217074631,
    "zcdp": 1.7129049258072078,
}


def test_every_kind_of_entry_is_among_them():
    found = {entry.kind for path in LINES for entry in read_lines(path)}
    assert found == KINDS
    assert {path.stem for path in LINES} == SPENT.keys()


@pytest.mark.parametrize("path", LINES, ids=lambda path: path.stem)
def test_lines_are_read_recounted_and_written_again(tmp_path, path):
    ledger = Ledger.import_jsonl(path, tmp_path / "a.db")
    ledger.verify(recount=True)
    assert ledger.spent().upper == pytest.approx(SPENT[path.stem], rel=1e-9)
    ledger.export_jsonl(tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == path.read_bytes()
    if ledger.retired or ledger.regime == "static":
        return
    resumed = ledger.reserve(dp.GaussianDpEvent(10.0), count=2, label="held", key="k3")
    assert resumed.resumed
    ledger.charge(PureDpEvent(0.0625), label="another")
    ledger.verify(recount=True)


@pytest.mark.parametrize("path", LINES, ids=lambda path: path.stem)
def test_files_are_opened_and_charged(tmp_path, path):
    entries = read_lines(path)
    last = entries[-1]
    meta = {"schema": "1", "ledger": last.ledger, "head": f"{last.seq} {last.hash}"}
    connection = sqlite3.connect(tmp_path / "a.db")
    for statement in TABLES:
        connection.execute(statement)
    connection.executemany("insert into meta values (?, ?)", meta.items())
    connection.executemany(
        "insert into entries values (?, ?, ?, ?, ?)",
        [
            (e.seq, e.hash, e.body.get("key"), e.body.get("ref"), e.text)
            for e in entries
        ],
    )
    connection.commit()
    connection.close()
    with Ledger.open(tmp_path / "a.db") as ledger:
        ledger.verify()
        ledger.note("opened")
        ledger.verify()
        assert ledger.entries()[:-1] == entries


def test_new_files_hold_the_same_statements(tmp_path):
    """So that the version that wrote the old ones reads the new."""
    Ledger.import_jsonl(LINES[0], tmp_path / "a.db").close()
    connection = sqlite3.connect(tmp_path / "a.db")
    query = "select sql from sqlite_schema where sql is not null"
    found = {sql for (sql,) in connection.execute(query)}
    connection.close()

    def plain(sql):
        return sql.replace('"', "").replace(" ", "").replace("\n", "").replace("\t", "")

    assert {plain(sql) for sql in found} == {plain(sql) for sql in TABLES}
