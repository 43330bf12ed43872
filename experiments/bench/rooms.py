"""Lines of product code, room by room.

    python -m experiments.bench.rooms
    python -m experiments.bench.rooms --markdown docs/bench/rooms.md

A room is a folder of accountants/ or dpkit/, with what lies below it; mechanisms/ is
one room. Lines are those of the files as they are: code, docstrings and blank ones.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
HOUSES = ("accountants", "mechanisms", "dpkit")
_PAGE = """# Lines a room

{table}

Code, docstrings and blank lines of *.py and *.pyi. Made by

    python -m experiments.bench.rooms --markdown docs/bench/rooms.md
"""


def rooms(root: Path = ROOT) -> dict[str, list[int]]:
    """The lines of each file, by room; what stands beside the rooms goes to the house.

    Args:
      root: of the checkout.

    Example:
      >>> sorted(rooms())[:2]
      ['accountants', 'accountants/answers']
    """
    found: dict[str, list[int]] = defaultdict(list)
    for house in HOUSES:
        for path in sorted((root / house).rglob("*.py*")):
            parts = path.relative_to(root).parts
            linked = parts[0] == "dpkit" and parts[1] in HOUSES
            if path.suffix in (".py", ".pyi") and not linked:
                room = "/".join(parts[:2]) if len(parts) > 2 else house
                found[room].append(len(path.read_text().splitlines()))
    return dict(found)


def table(found: dict[str, list[int]]) -> str:
    """Rooms, houses and the whole as a table in Markdown.

    Args:
      found: by `rooms`.

    Example:
      >>> print(table({"dpkit/cli": [10, 30]}).splitlines()[-1])
      | **all** | 2 | 40 | 20 | 30 |
    """
    rows = ["| room | files | lines | median | longest |", "|---|---|---|---|---|"]
    whole: list[int] = []
    for house in HOUSES:
        of_house = {k: v for k, v in sorted(found.items()) if k.split("/")[0] == house}
        lines = [n for counts in of_house.values() for n in counts]
        if len(of_house) > 1:
            rows += [_row(room, counts) for room, counts in of_house.items()]
        if lines:
            rows.append(_row(f"**{house}**", lines))
        whole += lines
    return "\n".join([*rows, _row("**all**", whole)])


def _row(name: str, counts: list[int]) -> str:
    """One line of the table."""
    median = f"{statistics.median(counts):.0f}"
    return f"| {name} | {len(counts)} | {sum(counts):,} | {median} | {max(counts)} |"


def main() -> None:
    """Prints the table, and writes it where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    text = table(rooms())
    print(text)
    if options.markdown is not None:
        options.markdown.write_text(_PAGE.format(table=text))


if __name__ == "__main__":
    main()
