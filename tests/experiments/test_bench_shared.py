"""The numbers of a ledger that is shared: those of the page, and those promised."""

import sys
from pathlib import Path

import pytest

from experiments.bench import shared as bench

PAGE = Path(bench.__file__).parents[2] / "docs" / "bench" / "shared.md"
LEAST = [50, 68, 43, 20_000, 1, 4, 10]


def numbers(text):
    """All but the times of each row."""
    rows = [line.split("|")[1:6] for line in text.splitlines() if line.startswith("|")]
    return rows[2:]


@pytest.mark.slow
def test_the_page_says_what_is_measured(tmp_path, monkeypatch, capsys):
    arguments = ["shared", "--markdown", str(tmp_path / "docs" / "shared.md")]
    monkeypatch.setattr(sys, "argv", arguments)
    bench.main()
    found = numbers(capsys.readouterr().out)
    assert found == numbers((tmp_path / "docs" / "shared.md").read_text())
    assert found == numbers(PAGE.read_text())
    counts = [[int(cell.replace(",", "")) for cell in row[2:4]] for row in found]
    for (admitted, static), least in zip(counts, LEAST, strict=True):
        assert least <= admitted <= static
