"""The timing of accountants, on the cheapest of its questions."""

import sys

import pytest

from experiments.bench import accounting as bench


@pytest.mark.slow
def test_a_table_and_a_page_are_made(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        sys,
        "argv",
        ["accounting", "--rounds", "1", "--markdown", str(tmp_path / "page.md")],
    )
    bench.main()
    printed = capsys.readouterr().out
    assert "| random allocation | pld |" in printed
    assert printed.strip() in (tmp_path / "page.md").read_text()
