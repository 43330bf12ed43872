"""`dpkit data`: no schema from private rows, and counts for their owner."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from dpkit.cli.app import app
from dpkit.data.schema import Schema

RUN = CliRunner()


@pytest.fixture
def rows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [f"{20 + n},{'cat' if n % 2 else 'dog'}" for n in range(40)]
    (tmp_path / "rows.csv").write_text("age,pet\n" + "\n".join([*lines, "7,newt\n"]))
    return tmp_path


def test_private_rows_make_no_schema(rows):
    done = RUN.invoke(app, ["data", "schema", "rows.csv", "--out", "s.json"])
    assert done.exit_code == 2
    assert "a leak" in done.stderr
    assert "--public-sample" in done.stderr
    assert "newt" not in done.output
    assert not (rows / "s.json").exists()


def test_a_public_sample_makes_a_draft_to_be_edited(rows):
    done = RUN.invoke(app, ["data", "schema", "rows.csv", "--public-sample"])
    assert done.exit_code == 0
    assert "a leak" in done.stderr
    assert "label, unit_column and max_records are yours" in done.stderr
    schema = Schema.read(json.loads(done.stdout))
    age: Any = schema.columns["age"]
    assert age.high == 59
    words = ["data", "schema", "rows.csv", "--public-sample", "--out", "s.json"]
    assert RUN.invoke(app, words).exit_code == 0
    assert Schema.load(rows / "s.json") == schema
    again = RUN.invoke(app, words)
    assert again.exit_code == 2
    assert "exists already" in again.stderr


SCHEMA = {
    "age": {"kind": "numeric", "low": 18, "high": 90},
    "pet": {"kind": "categorical", "categories": ["cat", "dog"]},
}


def test_how_rows_fit(rows):
    (rows / "s.json").write_text(json.dumps(SCHEMA))
    words = ["data", "check", "rows.csv", "--schema", "s.json", "--label", "pet"]
    done = RUN.invoke(app, words)
    assert done.exit_code == 0
    assert "for the owner" in done.stderr
    assert "contributes nothing" in done.stdout
    told = json.loads(RUN.invoke(app, [*words, "--json"]).stdout)
    assert told["records"] == 41
    assert told["columns"] == {
        "age": {"missing": 0, "strange": 1},
        "pet": {"missing": 0, "strange": 1},
    }


def test_what_training_would_refuse(rows):
    (rows / "s.json").write_text(json.dumps({**SCHEMA, "pay": SCHEMA["age"]}))
    done = RUN.invoke(app, ["data", "check", "rows.csv", "--schema", "s.json"])
    assert done.exit_code == 2
    assert "no column 'pay'" in done.stderr
    many = {"columns": SCHEMA, "max_records": 40}
    (rows / "s.json").write_text(json.dumps(many))
    done = RUN.invoke(app, ["data", "check", "rows.csv", "--schema", "s.json"])
    assert done.exit_code == 2
    assert "max_records=40" in done.stderr
    done = RUN.invoke(app, ["data", "check", "rows.csv"])
    assert done.exit_code == 2
    assert "--schema" in done.stderr


def test_a_configuration_names_both(rows):
    (rows / "run.toml").write_text("""
model = { name = "linear" }
training = { steps = 1, expected_batch_size = 10, learning_rate = 1.0 }
[data]
path = "rows.csv"
evaluation = "none"
label = "pet"
max_records = 50
schema.age = { kind = "numeric", low = 18, high = 90 }
schema.pet = { kind = "categorical", categories = ["cat", "dog"] }
[privacy]
epsilon = 1.0
delta = 1e-5
relation = "add_remove"
unit = "example"
sampling = "poisson"
clip_norm = 1.0
""")
    done = RUN.invoke(app, ["data", "check", "run.toml", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["records"] == 41
