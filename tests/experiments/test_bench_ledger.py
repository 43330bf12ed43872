"""The timing of ledgers, on a tiny scale."""

import sys

from dpkit.accountants import Ledger
from dpkit.accountants.storage.store import Store
from experiments.bench import ledger as bench


def test_a_table_is_printed(tmp_path, monkeypatch, capsys):
    arguments = ["--folder", str(tmp_path), "--entries", "30", "--rounds", "3"]
    arguments += ["--markdown", str(tmp_path / "docs" / "ledger.md")]
    monkeypatch.setattr(sys, "argv", ["ledger", *arguments])
    bench.main()
    head, _, row = capsys.readouterr().out.splitlines()
    assert head.count("|") == row.count("|")
    assert row.startswith("| SQLite | 30 | ")
    assert row in (tmp_path / "docs" / "ledger.md").read_text()


def test_the_ledgers_that_are_timed_are_whole(tmp_path):
    assert Store(tmp_path / "a.db").create(*bench.entries(40))
    with Ledger.open(tmp_path / "a.db") as ledger:
        ledger.verify(recount=True)
        assert len(ledger.entries()) == 40
        assert ledger.spent().upper == 39 / 8
