"""Every script under experiments/ runs, on a tiny scale."""

import pytest

from experiments.bench import step_time


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the peer's own
def test_step_time(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(step_time, "BATCH", 32)
    page = tmp_path / "docs" / "step_time.md"
    monkeypatch.setattr(
        "sys.argv", ["step_time", "--rounds", "1", "--markdown", str(page)]
    )
    step_time.main()
    rows = [line for line in page.read_text().splitlines() if line.startswith("| ")]
    steps = [row.split(" | ")[1] for row in rows[1:]]
    for name in ("ordinary", "dpkit vmap", "dpkit microbatches of 8"):
        assert steps.count(name) == len(step_time.MODELS)
    ordinary = [row for row in rows if "| ordinary |" in row]
    assert all("| 1.0 | 1.0 |" in row for row in ordinary)
    assert "dpkit vmap" in capsys.readouterr().out
