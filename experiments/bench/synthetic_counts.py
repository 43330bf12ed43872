"""All pairs of 20 columns counted from Parquet: time, and the most memory it took.

The file is written in chunks, seven columns of texts, seven of whole numbers and six of
floats; each row of the table is a process of its own, whose peak is that of the
interpreter, JAX and all. Beside it, where asked, DuckDB's GROUP BY of the same cells.

    python -m experiments.bench.synthetic_counts --rows 10000 1000000 \
      --markdown docs/bench/synthetic_counts.md --plot docs/images/synthetic_counts.png
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from dpkit.data.codes import Codebook
from dpkit.synthetic.counting import Source, open_source
from dpkit.synthetic.sql import sql_source
from experiments.bench.training_page import machine

LABELS = [f"label {n}" for n in range(30)]
COLUMNS = {f"text{n}": {"kind": "categorical", "categories": LABELS} for n in range(7)}
COLUMNS |= {f"whole{n}": {"kind": "ordinal", "low": 0, "high": 49} for n in range(7)}
COLUMNS |= {f"float{n}": {"kind": "numeric", "low": 0, "high": 1} for n in range(6)}
PAIRS = list(itertools.combinations(range(len(COLUMNS)), 2))
ROWS = (10**4, 10**5, 10**6, 10**7)
_CHUNK = 250_000


def write(path: Path, rows: int) -> None:
    """Writes rows in row groups of at most 250,000."""
    draws = np.random.default_rng(0)
    makers = {
        "text": lambda n: pa.array(LABELS).take(pa.array(draws.integers(0, 30, n))),
        "whole": lambda n: pa.array(draws.integers(0, 50, n)),
        "float": lambda n: pa.array(draws.random(n)),
    }
    types = {"text": pa.string(), "whole": pa.int64(), "float": pa.float64()}
    schema = pa.schema([(name, types[name[:-1]]) for name in COLUMNS])
    with parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, _CHUNK):
            size = min(_CHUNK, rows - start)
            columns = [makers[name[:-1]](size) for name in COLUMNS]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def opened(path: Path, way: str) -> Source:
    """The file as a source of counts, here or in DuckDB."""
    book = Codebook.of(COLUMNS)
    if way == "here":
        return open_source(path, book)
    import ibis

    return sql_source(ibis.duckdb.connect().read_parquet(str(path)), book)


def read(path: Path, way: str) -> dict[str, Any]:
    """Counts one column, which reads all rows, then all pairs."""
    source = opened(path, way)
    found: dict[str, Any] = {"way": way}
    counts = []
    for part, families in {"first": [(0,)], "pairs": PAIRS}.items():
        wall, cpu = time.perf_counter(), time.process_time()
        counts = source.count(families)
        found[f"{part}_cpu"] = time.process_time() - cpu
        found[f"{part}_seconds"] = time.perf_counter() - wall
    found["rows"] = int(counts[0].sum())
    found["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found


def run(sizes: list[int], most_there: int) -> list[dict[str, Any]]:
    """Every size in turn; in DuckDB up to a number of rows."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for rows in sizes:
            path = Path(folder, "rows.parquet")
            _called("write", path, rows)
            for way in ["here", "there"][: 1 + (rows <= most_there)]:
                found.append(json.loads(_called("read", path, way)))
                print(line(found[-1]), flush=True)
    return found


def _called(*arguments: object) -> bytes:
    """What this program says in a process of its own."""
    command = [sys.executable, "-m", "experiments.bench.synthetic_counts", "--do"]
    return subprocess.check_output([*command, *map(str, arguments)])


HEAD = """\
| rows | where | read and coded | all 190 pairs | CPU in all | ns a row, pair | peak |
|---|---|---|---|---|---|---|"""


def line(one: dict[str, Any]) -> str:
    """A row of the table."""
    where = "here" if one["way"] == "here" else "DuckDB"
    read_s = f"{one['first_seconds']:.2f} s" if one["way"] == "here" else "-"
    pairs_ns = one["pairs_cpu"] / one["rows"] / len(PAIRS) * 1e9
    cpu = one["first_cpu"] + one["pairs_cpu"]
    return (
        f"| {one['rows']:,} | {where} | {read_s} | {one['pairs_seconds']:.2f} s | "
        f"{cpu:.1f} s | {pairs_ns:.1f} | {one['peak_mib']:.0f} MiB |"
    )


def page(found: list[dict[str, Any]], plot: str | None) -> str:
    """The whole page."""
    facts, lines = machine(), "\n".join(map(line, found))
    picture = f"\n![Time by number of rows]({plot})\n" if plot else ""
    return f"""# Counting all pairs of a table

A Parquet file of 20 columns: seven texts of 30 labels, seven whole numbers, six floats
in 32 bins. `open_source` reads it once, in batches, and codes every value; counts of
all 190 pairs are then made from the codes, which stay in memory up to 256 MiB and lie
in a file without a name beyond. "DuckDB" is `sql_source`: a GROUP BY for each pair,
which codes its two columns anew. The peak is that of the whole process.

{HEAD}
{lines}
{picture}
On: {facts["processor"]}, {facts["cores"]} cores; Python {facts["python"]}. Other work
was done on it meanwhile.

Made by

    python -m experiments.bench.synthetic_counts --rows {
        " ".join(str(one["rows"]) for one in found if one["way"] == "here")
    } \\
      --markdown docs/bench/synthetic_counts.md --plot docs/images/synthetic_counts.png
"""


def draw(found: list[dict[str, Any]], path: Path) -> None:
    """Seconds by the number of rows."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    panel = figure.subplots()
    for way, label in {"here": "open_source", "there": "DuckDB"}.items():
        some = [one for one in found if one["way"] == way]
        seconds = [one["first_seconds"] + one["pairs_seconds"] for one in some]
        panel.plot([one["rows"] for one in some], seconds, "o-", label=label)
    panel.set(xscale="log", yscale="log", xlabel="rows (20 columns)")
    panel.set_ylabel("seconds for 190 pairs")
    panel.grid(alpha=0.3)
    panel.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, metadata={"Software": None})


def main() -> None:
    """Measures, prints the table, and writes page and plot where asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", nargs="*", type=int, default=list(ROWS))
    parser.add_argument("--duckdb", type=int, default=10**6, help="up to so many rows")
    parser.add_argument("--markdown", type=Path, help="write the page here")
    parser.add_argument("--plot", type=Path, help="draw the plot here")
    parser.add_argument("--do", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.do:
        what, path, given = options.do
        if what == "write":
            write(Path(path), int(given))
        else:
            print(json.dumps(read(Path(path), given)))
        return
    print(HEAD)
    found = run(options.rows, options.duckdb)
    if options.plot:
        draw(found, options.plot)
    if options.markdown:
        plot = options.plot and os.path.relpath(options.plot, options.markdown.parent)
        options.markdown.write_text(page(found, plot))


if __name__ == "__main__":
    main()
