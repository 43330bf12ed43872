"""Counts the lines by which private loops differ from a loop without privacy.

    python -m experiments.bench.loops --markdown docs/bench/loops.md

The files beside this one are complete programs that run as they are. Lines of code are
counted, however they are wrapped: no docstrings, comments or blank lines.
"""

from __future__ import annotations

import argparse
import ast
import difflib
from pathlib import Path

HERE = Path(__file__).parent
LOOPS = {"dpkit": "private.py", "jax-privacy 2.0.0": "jax_privacy_loop.py"}
_HEAD = """\
# What a private loop costs in lines

    python -m experiments.bench.loops --markdown docs/bench/loops.md

[plain.py](../../experiments/bench/loops/plain.py) trains a network on digits in a loop
of its own, without privacy. The others are the same program made private, to epsilon 3:
each runs as it is, as `python -m experiments.bench.loops.private`. Lines of code are
counted, without docstrings, comments and blank lines; a wrapped statement is one line.

| loop | lines | new or changed | no longer there |
|---|---|---|---|
"""
_TAIL = """
dpkit's new lines charge a durable ledger before the first batch. Those for jax-privacy
calibrate the noise, and keep no account of other releases from the same data; padding,
noise and clipping are matched by hand there.
"""


def code(path: Path) -> list[str]:
    """The lines of code of a file."""
    lines = ast.unparse(ast.parse(path.read_text())).splitlines()
    return [line for line in lines if line and not line.startswith('"""')]


def changes(private: Path) -> tuple[int, int, int]:
    """Lines of a loop, those that the plain one hasn't, and those that it had."""
    plain, lines = code(HERE / "plain.py"), code(private)
    difference = list(difflib.ndiff(plain, lines))
    new = sum(line.startswith("+ ") for line in difference)
    return len(lines), new, sum(line.startswith("- ") for line in difference)


def table() -> str:
    """The page."""
    rows = [f"| none (plain.py) | {len(code(HERE / 'plain.py'))} | | |\n"]
    for name, file in LOOPS.items():
        lines, new, gone = changes(HERE / file)
        link = f"[{name}](../../experiments/bench/loops/{file})"
        rows.append(f"| {link} | {lines} | {new} | {gone} |\n")
    return _HEAD + "".join(rows) + _TAIL


def main() -> None:
    """Prints or writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--markdown", type=Path)
    page, where = table(), parser.parse_args().markdown
    if where is None:
        print(page)
    else:
        where.write_text(page)


if __name__ == "__main__":
    main()
