"""The page that explains the rewrite: its code runs and prints what it shows."""

import re
from pathlib import Path

import jax
import pytest

PAGE = Path(__file__).parent.parent / "docs" / "rewrite.md"


@pytest.mark.slow
@pytest.mark.guard
@pytest.mark.usefixtures("quick_compilation")
def test_the_code_runs_and_prints_what_the_page_shows(capsys):
    text = PAGE.read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    names: dict = {"__name__": "example"}
    # The page is for people who have JAX as it comes.
    with jax.numpy_rank_promotion("allow"):
        for code in blocks:
            exec(compile(code, "docs/rewrite.md", "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "15.0"
    shown = [line.strip() for line in text.splitlines()]
    start = shown.index(printed[1])
    assert shown[start : start + len(printed) - 1] == printed[1:]
    assert len(printed) == 7
