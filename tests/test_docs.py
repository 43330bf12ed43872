"""Examples in the documentation run as they stand, those of a page in turn."""

import re
from pathlib import Path

import jax
import pytest

DOCS = Path(__file__).parent.parent / "docs"
CODE = {
    page.stem: re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
    for page in sorted(DOCS.glob("*.md"))
}


def pages():
    """Pages with examples; training's are long."""
    for page, code in CODE.items():
        if code and page != "rewrite":
            long = page in ("data", "density_scale", "training")
            marks = [pytest.mark.slow] if long else []
            yield pytest.param(page, marks=marks)


@pytest.mark.parametrize("page", list(pages()))
def test_examples_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope = {"__name__": page}
    with jax.numpy_rank_promotion("allow"):
        for code in CODE[page]:
            exec(compile(code, page, "exec"), scope)
