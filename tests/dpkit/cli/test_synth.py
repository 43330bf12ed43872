"""`dpkit synth`: the documented commands, as documented, and what they refuse."""

import csv
import json
import re
import shlex
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from dpkit import Ledger
from dpkit.cli.app import app
from dpkit.data.errors import DataUnavailable
from dpkit.data.schema import Schema
from dpkit.data.tables import adult_schema, load_adult
from dpkit.synthetic import Model
from tests.dpkit.synthetic.test_pairs import SCHEMA, people

RUN = CliRunner()
DOCS = (Path(__file__).parents[3] / "docs" / "cli.md").read_text()
SECTION = DOCS.split("## `dpkit synth`")[1].split("\n## ")[0]
COMMANDS = re.findall(r"^    dpkit (.*)$", SECTION, flags=re.MULTILINE)
FIT, SAMPLE, PLAN = COMMANDS[:3]
BUDGET = "--epsilon 1 --delta 1e-6 --relation add_remove"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("quick_compilation", "no_curves"),
]


def bring(folder):
    pyarrow.csv.write_csv(pa.table(dict(people(600))), folder / "people.csv")
    (folder / "schema.json").write_text(SCHEMA.text)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bring(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, quick_compilation):
    """A folder with a finished run, in the words of the documentation."""
    folder = tmp_path_factory.mktemp("fitted")
    bring(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        invoke(FIT)
    return folder / "runs" / "people"


def invoke(line, code=0):
    done = RUN.invoke(app, shlex.split(line))
    assert done.exit_code == code, done.output
    if code:
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    return done


def rows_of(path):
    with Path(path).open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_the_documented_commands_run_in_order(here):
    (here / "kinds.json").write_text(json.dumps(KINDS))
    invoke(terms(1))
    for line in COMMANDS:
        invoke(line)
    assert set(Schema.load("found.json").columns) == {"sex", "age"}
    told = json.loads((here / "runs" / "people" / "result.json").read_text())
    assert (told["epsilon"] <= 1, told["delta"]) == (True, 1e-6)
    assert [row["sex"] for row in rows_of("women.csv")] == ["F"] * 100


@pytest.mark.slow
def test_the_commands_of_the_page_run_in_order(here, monkeypatch):
    """From a CSV to a shared table, and on one ledger with discovery."""
    table = dict(people(2000))
    table["sex"] = np.where(table["sex"] == "F", "Female", "Male")
    for name in ("people", "sample"):
        pyarrow.csv.write_csv(pa.table(table), here / f"{name}.csv")
    (here / "kinds.json").write_text(json.dumps(KINDS))
    (here / "schema.json").unlink()
    page = (Path(__file__).parents[3] / "docs" / "synthetic.md").read_text()
    lines = re.findall(r"^    dpkit (.*)$", page, flags=re.MULTILINE)
    assert len(lines) == 9
    for line in lines:
        if not line.startswith("demo"):
            invoke(line)
    assert {row["sex"] for row in rows_of("women.csv")} == {"Female"}
    assert {row["sex"] for row in rows_of("runs/found/synthetic.csv")} >= {"Male"}
    assert "Not to be published" in (here / "owner.html").read_text()


def test_a_finished_run_is_left_as_it_is(fitted, monkeypatch):
    monkeypatch.chdir(fitted.parents[1])
    before = (fitted / "model.safetensors").read_bytes()
    assert "already finished; nothing was changed" in invoke(FIT).stderr
    assert (fitted / "model.safetensors").read_bytes() == before
    invoke(FIT.replace("--epsilon 1", "--epsilon 2"), code=2)


@pytest.mark.parametrize("kind", ["csv", "parquet", "arrow"])
def test_samples_need_the_model_alone(fitted, here, kind):
    (here / "moved.safetensors").write_bytes(
        (fitted / "model.safetensors").read_bytes()
    )
    line = f"synth sample moved.safetensors --rows 50 --seed 4 --out a.{kind}"
    told = json.loads(invoke(f"{line} --where job=a --where job=b --json").stdout)
    assert (told["rows"], told["epsilon"] <= 1, told["mechanism"]) == (
        50,
        True,
        "pairs",
    )
    expected = Model.load(fitted).sample(
        50, where={"job": ["a", "b"]}, seed=4, kind="arrow"
    )
    if kind == "csv":
        found = rows_of("a.csv")
        plain = [{k: str(v) for k, v in row.items()} for row in expected.to_pylist()]
        assert found == plain
    else:
        reader = pyarrow.parquet.read_table
        if kind == "arrow":
            reader = pyarrow.feather.read_table
        assert reader(f"a.{kind}").equals(expected)
    assert set(expected["job"].to_pylist()) == {"a", "b"}


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("synth sample {run} --out a.txt", ".csv, .parquet, .arrow"),
        ("synth sample {run} --out people.csv", "exists already"),
        ("synth sample {run} --out no/a.csv", "no folder"),
        ("synth sample {run} --rows 0 --out a.csv", "--rows"),
        ("synth sample {run} --where sex --out a.csv", "COLUMN=VALUE"),
        ("synth sample {run} --where pay=1 --out a.csv", "pay"),
        ("synth sample {run} --where age=200 --out a.csv", "outside the schema"),
        ("synth sample nowhere --out a.csv", "doesn't exist"),
        ("synth sample people.csv --out a.csv", "no synthetic model"),
        ("synth evaluate people.csv {run} --schema schema.json", "--owner"),
        ("synth evaluate people.csv {run} --owner", "--schema"),
        (
            "synth evaluate people.csv {run} --schema schema.json --owner --label sex",
            "--held-out",
        ),
        (
            "synth evaluate people.csv {run} --schema schema.json --owner --html no/a",
            "no folder",
        ),
        ("synth plan schema.json --records 0 " + BUDGET, "--records"),
        ("synth plan --records 9 " + BUDGET, "--schema"),
        ("synth plan schema.json --records 9 --epsilon 1 --delta 1e-6", "--relation"),
        ("synth fit people.csv --out a " + BUDGET, "--schema"),
        ("synth fit people.csv --schema schema.json " + BUDGET, "--out"),
        ("synth fit none.csv --schema schema.json --out a " + BUDGET, "none.csv"),
        (
            "synth fit people.csv --schema schema.json --out a --mechanism mst "
            "--impossible few " + BUDGET,
            "no setting of mst",
        ),
    ],
)
def test_what_is_refused_in_one_line(fitted, here, line, word):
    done = invoke(line.format(run=fitted), code=2)
    assert word in done.stderr
    assert sorted(path.name for path in here.iterdir()) == ["people.csv", "schema.json"]


TRUNCATED = "sex,age,job,same\nF,21,a,x\nM,2"
TWICE = "sex,sex,age,job,same\nF,F,21,a,x\n"
ANOTHER = "sex,years,job,same\nF,21,a,x\n"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (TRUNCATED, "read to its end"),
        (TWICE, "sex"),
        (ANOTHER, "age"),
        ("", "no column"),
    ],
)
def test_bad_tables_spend_nothing(here, text, word):
    (here / "people.csv").write_text(text)
    done = invoke(FIT, code=2)
    assert word in done.stderr
    assert not (here / "runs").exists() or not list((here / "runs").iterdir())


def test_mixed_types_and_strange_values_are_mapped(here):
    lines = (here / "people.csv").read_text().splitlines()
    lines[1:6] = ["F,old,a,x", "M,,zebra,x", ",1e9,b,y", "F,-3,7,x", "12,21.7,a,"]
    (here / "people.csv").write_text("\n".join(lines) + "\n")
    invoke(FIT)
    found = rows_of("runs/people/synthetic.csv")
    assert {row["sex"] for row in found} <= {"F", "M"}
    assert {row["job"] for row in found} <= {"a", "b", "c", "d", "(other)"}


def test_a_plan_reads_no_table_and_says_what_will_be_noise(here):
    (here / "people.csv").unlink()
    line = f"synth plan people.csv --schema schema.json {BUDGET}"
    told = json.loads(invoke(f"{line} --records 600 --json").stdout)
    assert [one["noise"] for one in told["families"]] == [False] * 6 + [True]
    assert told["families"][-1]["columns"] == ["age", "job"]
    text = invoke(f"{line} --records 600").stdout
    assert text.count("this pair will be noise") == 1
    again = invoke(f"synth plan schema.json --records 600 {BUDGET} --json").stdout
    assert json.loads(again) == told
    more = json.loads(invoke(f"{line} --records 60000 --json").stdout)
    assert told["expected_pair_variation"] > 10 * more["expected_pair_variation"]


def test_an_evaluation_as_a_page_beside_a_control(fitted, here):
    other = dict(people(600, seed=9))
    pyarrow.csv.write_csv(pa.table(other), here / "others.csv")
    line = f"synth evaluate people.csv {fitted} --schema schema.json --owner"
    line += " --held-out others.csv --label sex --html a.html --json"
    done = invoke(line)
    told = json.loads(done.stdout)
    assert 0 < told["floor_pairs"] < told["pairs"] < 1
    assert "for its owner alone" in done.stderr
    text = (here / "a.html").read_text()
    assert "Not to be published" in text and "prove nothing" in text
    assert f"{told['singling_out_control']:.3g}"[:4] in text


KINDS = {"sex": {"kind": "categorical"}, "age": {"kind": "ordinal"}}


def terms(epsilon):
    return (
        f"ledger init team.db --epsilon {epsilon} --delta 2e-6 --relation add_remove "
        "--unit record --dataset people"
    )


def test_what_is_discovered_is_charged_and_then_used(here):
    rest = {"job": {"kind": "categorical", "categories": ["a", "b", "c", "d"]}}
    (here / "kinds.json").write_text(json.dumps(KINDS | rest))
    invoke(terms(11))
    line = "synth schema discover people.csv --columns kinds.json --ledger team.db"
    told = json.loads(
        invoke(f"{line} --epsilon 10 --delta 1e-6 --out found.json --json").stdout
    )
    found = Schema.load("found.json")
    assert told["schema_sha256"] == found.sha256
    columns = found.to_json()["columns"]
    assert set(columns["sex"]["categories"]) == {"F", "M"}
    assert columns["age"]["low"] <= 20 and columns["age"]["high"] >= 39
    share = "ledger.share={ epsilon = 1.0, delta = 1e-6 }"
    invoke(
        f"synth fit people.csv --schema found.json {BUDGET} --out r --ledger team.db "
        f"--set '{share}'"
    )
    with Ledger.open("team.db") as ledger:
        assert [e.kind for e in ledger.entries() if e.kind == "reserve"] == [
            "reserve",
            "reserve",
        ]
        assert 10.9 < (ledger.spent().upper or 0) <= 11
    invoke(f"{line} --epsilon 1 --delta 1e-7 --out more.json", code=1)
    assert not (here / "more.json").exists()


def test_columns_that_noise_hid_are_named_and_the_others_written(here):
    table = dict(people(600))
    table["id"] = np.arange(600).astype(str)
    pyarrow.csv.write_csv(pa.table(table), here / "people.csv")
    (here / "kinds.json").write_text(
        json.dumps(KINDS | {"id": {"kind": "categorical"}})
    )
    invoke(terms(11))
    line = "synth schema discover people.csv --columns kinds.json --ledger team.db"
    line += " --epsilon 10 --delta 1e-6 --out found.json"
    done = RUN.invoke(app, shlex.split(line))
    assert done.exit_code == 2
    assert "'id' can't be told from noise" in done.stderr
    assert set(Schema.load("found.json").columns) == {"sex", "age"}


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ("--out no/found.json", "no folder"),
        ("--out schema.json", "exists already"),
        ("--out found.json --ledger none.db", "none.db"),
        ("--out found.json --columns none.json", "none.json"),
        ("--out found.json --columns schema.json", "nothing is to be found"),
        ("--out found.json --epsilon 0", "--epsilon"),
    ],
)
def test_discovery_refuses_before_it_is_charged(here, more, word):
    (here / "kinds.json").write_text(json.dumps(KINDS))
    invoke(terms(1))
    line = "synth schema discover people.csv --columns kinds.json --ledger team.db"
    done = invoke(f"{line} --epsilon 1 --delta 1e-6 {more}", code=2)
    assert word in done.stderr
    with Ledger.open("team.db") as ledger:
        assert len(ledger.entries()) == 1


def test_the_demo_says_how_to_get_its_table(here, monkeypatch):
    def offline(*given):
        raise DataUnavailable("pip: no connection to the package index")

    monkeypatch.setenv("DPKIT_CACHE", str(here / "cache"))
    monkeypatch.setattr("dpkit.data.resolution.fetch", offline)
    done = invoke("demo --example synthetic --out demo", code=2)
    assert "adult" in done.stderr and "no connection" in done.stderr
    assert not (here / "demo").exists()


@pytest.mark.slow
@pytest.mark.needs_data
def test_the_demo_makes_a_census_as_uci_writes_it(here):
    try:
        train, _ = load_adult()
    except DataUnavailable as error:
        pytest.skip(str(error))
    began = time.process_time()
    invoke("demo --example synthetic --out demo")
    assert time.process_time() - began < 60
    rows = rows_of("demo/synthetic.csv")
    assert list(rows[0]) == list(train)
    # The number of records is measured: a deviation of some 50.
    assert abs(len(rows) - 39_000) < 500
    for name, column in adult_schema().to_json()["columns"].items():
        values = {row[name] for row in rows}
        if column["kind"] == "categorical":
            assert values <= set(column["categories"])
        else:
            numbers = [int(value) for value in values]
            assert column["low"] <= min(numbers) <= max(numbers) <= column["high"]
    told = json.loads(invoke("synth evaluate adult demo --json").stdout)
    assert told["pairs"] < 0.033 and told["auc"] > 0.9
