"""Time of one reservation in a ledger that holds many entries already.

A reservation looks for its key, reads the totals, decides, and returns once its entry
is on disk. Timed in interleaved rounds in one process, medians: a large ledger, a small
one, and what no ledger can beat, one bare row written durably to the same database. CPU
is this process's (a server's is not in it); the ratio is large to small. The folder
should be on a real disk.

    python -m experiments.bench.ledger --folder . --markdown docs/bench/ledger.md
    python -m experiments.bench.ledger --url "postgresql://me@host/db"
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from dpkit.accountants import Budget, Ledger, PureDpEvent
from dpkit.accountants.ledger.state import after, state_of
from dpkit.accountants.storage.entry import Entry
from dpkit.accountants.storage.lines import location
from dpkit.accountants.storage.store import Store

SMALL = 10
TERMS: dict[str, Any] = {
    "budget": Budget(1e6, 1e-5),
    "relation": "add_remove",
    "unit": "example",
    "dataset": "bench 1.0",
}
EVENT = PureDpEvent(0.125)


def entries(count: int) -> list[Entry]:
    """A whole ledger of `count` entries, as that many charges would have made it."""
    ledger = Ledger.open(None, **TERMS)
    for number in range(1, min(count, 3)):  # the first one opens a filter
        ledger.charge(EVENT, label="charge", key=f"key {number}")
    made = ledger.entries()
    while len(made) < count:
        last = made[-1]
        body = last.body | {"key": f"key {last.seq + 1}"}
        state = after(state_of(last), "spend", last.seq + 1, body)
        made.append(last.followed_by("spend", body | {"after": state.to_json()}))
    return made


def reserving(place: str, count: int) -> Callable[[], None]:
    """Makes a ledger of `count` entries at a place; the call makes one reservation."""
    store = Store(location(place))
    if not store.create(*entries(count)):
        raise FileExistsError(f"{store.path} is there already")
    ledger = Ledger.open(place)

    def reserve() -> None:
        ledger.reserve(EVENT, label="bench", key=uuid.uuid4().hex, delta=0.0)

    return reserve


def writing(place: str) -> Callable[[], None]:
    """Makes a ledger's tables at a place; the call writes one bare row durably."""
    store = Store(location(place))
    store.create(*entries(2))

    def write() -> None:
        with store.writing() as session:
            row = sa.text("update meta set value = :value where name = 'head'")
            session._connection.execute(row, {"value": uuid.uuid4().hex})

    return write


def measure(
    places: dict[str, str], count: int, rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """Milliseconds of wall and of CPU time, in interleaved rounds."""
    calls = {
        "bare": writing(places["bare"]),
        "small": reserving(places["small"], SMALL),
        "large": reserving(places["large"], count),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            spent = time.perf_counter() - wall, time.process_time() - cpu
            if number > 0:  # the first round fills caches
                times[name].append((1000 * spent[0], 1000 * spent[1]))
    return times


def row(database: str, count: int, times: dict[str, list[tuple[float, float]]]) -> str:
    """One row of Markdown."""
    wall = {n: statistics.median(w for w, _ in found) for n, found in times.items()}
    cpu = statistics.median(c for _, c in times["large"])
    return (
        f"| {database} | {count:,} | {wall['large']:.1f} | {cpu:.1f} "
        f"| {wall['small']:.1f} | {wall['bare']:.1f} "
        f"| {wall['large'] / wall['small']:.2f} |"
    )


def page(rows: list[str], rounds: int) -> str:
    """The whole page."""
    table = "\n".join([HEAD, *rows])
    return f"""\
# Ledger: time of a reservation

Medians of {rounds} interleaved rounds in one process, {platform.machine()}, \
{os.cpu_count()} cores,
milliseconds of wall time: `Ledger.reserve` with a new key returns once its entry is on
disk. CPU is this process's; a server's is not in it. A bare row is one row written
durably to the same database by the same library: no ledger can be faster. The ratio is
that of the large ledger to the small one. The server is on the same machine.

{table}

Made by

    python -m experiments.bench.ledger --folder . --markdown docs/bench/ledger.md

and, for PostgreSQL's row, with `--url "postgresql://me@host/db"`.
"""


HEAD = f"""\
| database | entries | reserve, ms | CPU | with {SMALL} entries | bare row | ratio |
|---|---|---|---|---|---|---|"""


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="where the SQLite files are made")
    parser.add_argument("--url", help="a PostgreSQL database, without ?ledger=")
    parser.add_argument("--markdown", type=Path, help="write the page here")
    options = parser.parse_args()
    names = ("bare", "small", "large")
    rows = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        places = {name: f"sqlite:///{folder}/{name}.db" for name in names}
        times = measure(places, options.entries, options.rounds)
        rows.append(row("SQLite", options.entries, times))
    if options.url:
        sign = "&" if "?" in options.url else "?"
        run = uuid.uuid4().hex[:8]
        places = {n: f"{options.url}{sign}ledger=bench_{run}_{n}" for n in names}
        times = measure(places, options.entries, options.rounds)
        rows.append(row("PostgreSQL", options.entries, times))
    if options.markdown:
        options.markdown.parent.mkdir(parents=True, exist_ok=True)
        options.markdown.write_text(page(rows, options.rounds))
    print("\n".join([HEAD, *rows]))


if __name__ == "__main__":
    main()
