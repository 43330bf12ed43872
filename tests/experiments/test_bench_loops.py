"""What a private loop costs in lines, counted on programs that run."""

import re
import runpy
from pathlib import Path

import pytest

from experiments.bench.loops import __main__ as loops

ROOT = Path(__file__).parents[2]


def test_a_loop_is_private_by_few_lines_and_the_pages_say_how_many():
    _, new, _ = loops.changes(loops.HERE / "private.py")
    assert new <= 10
    readme = (ROOT / "README.md").read_text()
    assert re.findall(r"\[(\d+) lines differ\]", readme) == [str(new)]
    assert (ROOT / "docs" / "bench" / "loops.md").read_text() == loops.table()


def test_wrapping_and_comments_do_not_count(tmp_path):
    code = (
        '"""Words."""\n\nx = 1  # one\ny = max(\n    x,\n    2,\n)\nif y:\n    x = 2\n'
    )
    (tmp_path / "some.py").write_text(code)
    assert loops.code(tmp_path / "some.py") == [
        "x = 1",
        "y = max(x, 2)",
        "if y:",
        "    x = 2",
    ]


@pytest.mark.slow
def test_the_private_loop_runs_and_learns(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(loops.HERE / "private.py"))
    accuracy, epsilon = map(float, capsys.readouterr().out.split())
    assert accuracy > 0.7
    assert 2.9 < epsilon <= 3.0
