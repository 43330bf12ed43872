"""A release over a Parquet file in one pass, and the most memory that it took.

The file is written by a process of its own, and read by another: its peak is that of
the interpreter, JAX and all. Printed as JSON.

    python -m experiments.bench.density_parquet 10000000
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
from pyarrow import parquet

from dpkit.density import release
from experiments import density_data
from experiments.baselines.release import Array
from experiments.bench.density_times import FEATURES, chunks
from experiments.density_sums import DIM, rng

NAMES = [f"x{j}" for j in range(DIM)]
_ROWS = 65_536  # of a record batch


def write(path: Path, rows: int) -> None:
    """Writes points in row groups of 100,000."""
    schema = pa.schema([(name, pa.float32()) for name in NAMES])
    drawn = density_data.Mixture.drawn(DIM, rng(0))
    with parquet.ParquetWriter(path, schema) as writer:
        for points in chunks(rows, drawn):
            columns = [pa.array(column) for column in points.T]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def batches(path: Path) -> Iterator[Array]:
    """Points of the file, (some, 16) float32, one row group after another.

    One iterator over all groups would keep what it has read of each until the end.
    """
    with parquet.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            for batch in file.iter_batches(_ROWS, [group], NAMES):
                yield np.stack([column.to_numpy() for column in batch.columns], axis=1)


def read(path: Path) -> dict[str, float]:
    """One release over the whole file."""
    begun = time.perf_counter()
    made = release(
        batches(path),
        dimension=DIM,
        bandwidth=1.0,
        features=FEATURES,
        epsilon=1.0,
        delta=1e-6,
        key=jax.random.key(0),
    )
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"count": float(made.count.values[0]), "seconds": seconds, "peak_mib": peak}


def main() -> None:
    """Writes and reads, each in a process of its own."""
    kind, *rest = sys.argv[1:]
    if kind == "write":
        write(Path(rest[0]), int(rest[1]))
    elif kind == "read":
        print(json.dumps(read(Path(rest[0]))))
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "points.parquet")
            command = [sys.executable, "-m", "experiments.bench.density_parquet"]
            subprocess.run([*command, "write", path, kind], check=True)
            subprocess.run([*command, "read", path], check=True)


if __name__ == "__main__":
    main()
