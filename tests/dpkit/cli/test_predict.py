"""`dpkit predict`: one row a row, whole or not at all, and no code of the folder."""

import csv
import json
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from typer.testing import CliRunner

from dpkit import load_run
from dpkit.cli.app import app
from tests.trained import ROWS, as_csv, by_hand, config_of, table, table_by_hand

pytestmark = pytest.mark.usefixtures("quick_compilation")
RUN = CliRunner()
YES = 'yes, "indeed"'


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return table_by_hand(tmp_path_factory.mktemp("predict") / "run")


@pytest.fixture(autouse=True)
def somewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def predict(*words):
    return RUN.invoke(app, ["predict", *map(str, words)])


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def answers(ages):
    """What the model says of an age."""
    return [YES if age > 53 else "no" for age in ages]


def test_a_row_is_written_for_each_row(run, somewhere):
    as_csv(ROWS, somewhere / "new.csv")
    done = predict(run, "new.csv", "--out", "found.csv")
    assert done.exit_code == 0, done.stderr
    rows = rows_of(somewhere / "found.csv")
    assert [row["answer"] for row in rows] == answers(ROWS["age"])
    shares = load_run(run).probabilities(table()).max(axis=1)
    told = [float(row["probability"]) for row in rows]
    np.testing.assert_allclose(told, shares, rtol=1e-6)
    assert [path.name for path in somewhere.iterdir() if "found" in path.name] == [
        "found.csv"
    ]
    for word in ("300", "nothing was charged", "not those of FILE"):
        assert word in done.stdout


def test_every_kind_of_file_gives_the_same(run, somewhere):
    unlabelled = {name: ROWS[name] for name in ("calm", "age", "pet")}
    as_csv(ROWS, somewhere / "a.csv")
    as_csv(unlabelled, somewhere / "b.csv")
    parquet.write_table(table(), somewhere / "c.parquet")
    texts: dict[str, Any] = {n: v.astype(str) for n, v in unlabelled.items()}
    np.savez(somewhere / "d.npz", **texts)
    found = set()
    for name in ("a.csv", "b.csv", "c.parquet", "d.npz"):
        done = predict(run, name, "--out", f"{name}.found.csv")
        assert done.exit_code == 0, done.stderr
        found.add((somewhere / f"{name}.found.csv").read_text())
    assert len(found) == 1
    assert predict(run, "a.csv", "--out", "found.parquet").exit_code == 0
    read = parquet.read_table(somewhere / "found.parquet")
    assert read.schema.types == [pa.string(), pa.float32()]
    assert read["answer"].to_pylist() == answers(ROWS["age"])


def test_order_and_number_are_kept_over_batches_and_blank_lines(run, somewhere):
    ages = np.random.default_rng(1).integers(18, 91, 20_000)
    lines = [
        f"{age},cat,yes" + "\n" * (1 + (n % 997 == 0)) for n, age in enumerate(ages)
    ]
    (somewhere / "a.csv").write_text("age,pet,calm\n" + "".join(lines))
    done = predict(run, "a.csv", "--out", "found.csv", "--json")
    assert json.loads(done.stdout)["rows"] == 20_000
    found = [row["answer"] for row in rows_of(somewhere / "found.csv")]
    assert found == answers(ages)


def test_no_rows_make_a_file_without_rows(run, somewhere):
    (somewhere / "a.csv").write_text("age,pet,calm\n")
    done = predict(run, "a.csv", "--out", "found.csv")
    assert done.exit_code == 0, done.stderr
    assert (somewhere / "found.csv").read_text() == '"answer","probability"\n'


def test_a_number_is_told_in_the_labels_units(somewhere):
    run = table_by_hand(somewhere / "run", label="pay")
    (somewhere / "a.csv").write_text("age,pet,calm\n36,cat,1\n36,dog,0\n?,emu,\n")
    assert predict(run, "a.csv", "--out", "found.csv").exit_code == 0
    assert (somewhere / "found.csv").read_text() == '"pay"\n100\n110\n0\n'


def test_the_document_says_what_the_model_cost(run, somewhere):
    as_csv(ROWS, somewhere / "new.csv")
    done = predict(run, "new.csv", "--out", "found.csv", "--json")
    told = json.loads(done.stdout)
    assert (told["rows"], told["column"], told["out"]) == (300, "answer", "found.csv")
    assert (told["bound"]["upper"], told["bound"]["certified"]) == (1.5, True)
    assert told["head"] == "7f" * 32


def refused(done, words):
    assert done.exit_code == 2, done.stdout
    assert re.search(words, done.stderr), done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["RUN", "new.csv", "--out", "a.txt"], "--out: .*must end in .csv or .parquet"),
        (["RUN", "new.csv", "--out", "new.csv"], "--out: .*exists already"),
        (["RUN", "new.csv", "--out", "no/a.csv"], "--out: .*no folder 'no'"),
        (["RUN", "none.csv", "--out", "a.csv"], "'none.csv' doesn't exist"),
        (["RUN", "new.csv"], "--out"),
        ([".", "new.csv", "--out", "a.csv"], "no finished training"),
        (["RUN", "bad.csv", "--out", "a.csv"], "another number of values"),
        (["RUN", "few.csv", "--out", "a.csv"], "no column 'pet'"),
        (["RUN", "new.csv", "--out", "a.csv", "--factory", "a:b"], "--factory: .*ours"),
    ],
)
def test_what_is_refused_leaves_nothing(run, somewhere, words, told):
    as_csv(ROWS, somewhere / "new.csv")
    (somewhere / "bad.csv").write_text("age,pet,calm\n" + "20,cat,1\n" * 9000 + "20\n")
    (somewhere / "few.csv").write_text("age,calm\n20,1\n")
    before = {path: path.read_bytes() for path in somewhere.iterdir()}
    refused(predict(*(run if word == "RUN" else word for word in words)), told)
    assert {path: path.read_bytes() for path in somewhere.iterdir()} == before


def test_a_file_that_fails_along_the_way_leaves_nothing(run, somewhere, monkeypatch):
    as_csv(ROWS, somewhere / "new.csv")

    def some(self, source):
        yield np.array(["no"], object), np.array([[0.9, 0.1]], np.float32)
        raise OSError(28, "No space left on device", "found.csv")

    monkeypatch.setattr("dpkit.training.use.TrainedRun.predictions", some)
    refused(predict(run, "new.csv", "--out", "found.csv"), "No space left")
    assert [path.name for path in somewhere.iterdir()] == ["new.csv"]


OWN = """
import jax.numpy as jnp
from dpkit.models import Model

def make(layout, key):
    start = {"w": jnp.ones(2)}
    return Model(lambda key: start, lambda params, x, key: params["w"] * x["numbers"])
"""


def test_a_factory_is_the_users_own(somewhere):
    done = table_by_hand(somewhere / "other")
    text = config_of(model='factory = "own:make"')
    schema = load_run(done).schema
    params = {"w": np.array([-1.0, 1.0], np.float32)}
    run = by_hand(somewhere / "run", text, params, schema=schema)
    as_csv(ROWS, somewhere / "new.csv")
    (run / "own.py").write_text(OWN)
    words = "--factory: factory=None: .*give factory='own:make'"
    refused(predict(run, "new.csv", "--out", "found.csv"), words)
    given = ("--out", "found.csv", "--factory", "own:make")
    refused(predict(run, "new.csv", *given), "no module 'own'")
    (somewhere / "own.py").write_text(OWN)
    done = predict(run, "new.csv", *given)
    assert done.exit_code == 0, done.stderr
    found = [row["answer"] for row in rows_of(somewhere / "found.csv")]
    assert found == [YES if age > 18 else "no" for age in ROWS["age"]]
