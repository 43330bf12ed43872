"""A Parquet file of 3 GB goes all the way in less than 2 GB of memory."""

import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

GIGABYTES = 3e9
NUMBERS = 12
HEAD = """
model = { name = "linear" }
training = { steps = 5, expected_batch_size = 2048, learning_rate = 1.0 }
[privacy]
epsilon = 0.5
delta = 1e-9
relation = "add_remove"
unit = "example"
sampling = "poisson"
clip_norm = 1.0
[data]
path = "train.parquet"
test = "test.parquet"
evaluation = "public"
label = "y"
max_records = 40000000
[data.schema]
y = { kind = "categorical", categories = ["no", "yes"] }
city = { kind = "categorical", categories = ["Rome", "Oslo", "Bern"] }
"""


def some_rows(draws, count=500_000):
    x = draws.normal(size=(count, NUMBERS))
    columns = {f"x{n}": x[:, n] for n in range(NUMBERS)}
    columns["city"] = np.array(["Rome", "Oslo", "Bern"])[draws.integers(0, 3, count)]
    columns["y"] = np.where(x[:, 0] + x[:, 1] > 0, "yes", "no")
    return pa.table(columns)


def peak_megabytes(folder, *words):
    """The largest memory that one command held; it must succeed."""
    environment = {**os.environ, "DPKIT_CACHE": str(folder / "cache")}
    child = subprocess.Popen(
        [sys.executable, "-m", "dpkit", *words], cwd=folder, env=environment
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0
    return usage.ru_maxrss / 1024


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_three_gigabytes_in_less_than_two(tmp_path):
    draws = np.random.default_rng(0)
    path = tmp_path / "train.parquet"
    first = some_rows(draws)
    with parquet.ParquetWriter(path, first.schema, compression="none") as file:
        while path.stat().st_size < GIGABYTES:
            file.write_table(first, row_group_size=len(first))
            first = some_rows(draws)
    parquet.write_table(first.slice(0, 10_000), tmp_path / "test.parquet")
    columns = (
        f'x{n} = {{ kind = "numeric", low = -4, high = 4 }}' for n in range(NUMBERS)
    )
    (tmp_path / "run.toml").write_text(HEAD + "\n".join(columns))
    train = ("train", "run.toml", "--out", "out", "--json")
    assert peak_megabytes(tmp_path, *train) < 2000
    predict = ("predict", "out", "train.parquet", "--out", "predicted.csv")
    assert peak_megabytes(tmp_path, *predict) < 2000
    rows = parquet.ParquetFile(path).metadata.num_rows
    with (tmp_path / "predicted.csv").open("rb") as file:
        assert (
            sum(block.count(b"\n") for block in iter(lambda: file.read(2**20), b""))
            == rows + 1
        )
