"""`dpkit density`: the documented commands, as documented, and what they refuse."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from dpkit import Ledger
from dpkit.cli.app import app
from dpkit.density import Classifier, load
from dpkit.density.released import grid_of
from tests.dpkit.density.test_job import ROWS, TEXT, write

RUN = CliRunner()
DOCS = (Path(__file__).parents[3] / "docs" / "cli.md").read_text()
SECTION = DOCS.split("## `dpkit density`")[1].split("\n## ")[0]
COMMANDS = re.findall(r"^    dpkit (.*)$", SECTION, flags=re.MULTILINE)
BUILD, QUERY = COMMANDS[:2]
QUICK = "density build points.csv --bandwidth 1 --domain 0:9,0:9 --epsilon 1 --delta 0"
pytestmark = pytest.mark.usefixtures("quick_compilation", "no_curves")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "points.csv", ROWS)
    write(tmp_path / "queries.csv", np.array([[4.0, 5.0], [1.0, 1.0], [8.5, 0.5]]))
    (tmp_path / "density.toml").write_text(TEXT)
    return tmp_path


@pytest.fixture(scope="module")
def released(tmp_path_factory, quick_compilation):
    """A folder with a finished build, in the words of the documentation."""
    folder = tmp_path_factory.mktemp("released")
    write(folder / "points.csv", ROWS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        invoke(BUILD)
    return folder / "runs" / "points"


def invoke(line, code=0):
    done = RUN.invoke(app, shlex.split(line))
    assert done.exit_code == code, done.output
    return done


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.slow
@pytest.mark.guard
def test_the_documented_commands_run_in_order(here):
    for line in COMMANDS:
        invoke(line)
    told = json.loads((here / "runs" / "points" / "result.json").read_text())
    assert (told["epsilon"] <= 1, told["delta"]) == (True, 1e-6)
    answers = (here / "answers.csv").read_text().splitlines()
    assert answers[0] == "value,stddev,bias_bound"
    assert len(answers) == 4
    release = load("runs/points")
    found = release.query([[4.0, 5.0], [1.0, 1.0], [8.5, 0.5]])
    told = [float(line.split(",")[0]) for line in answers[1:]]
    assert told == pytest.approx(found.values.tolist(), rel=1e-9)


def test_the_folder_has_a_configuration_that_can_be_run_again(here):
    invoke(BUILD)
    folder = here / "runs" / "points"
    text = (folder / "config.toml").read_text()
    assert 'path = "../../points.csv"' in text and str(here) not in text
    for again in (BUILD, "density build runs/points/config.toml --out runs/points"):
        assert "already finished; nothing was changed" in invoke(again).stderr
    invoke(BUILD.replace("--epsilon 1", "--epsilon 2"), code=2)
    invoke("density build runs/points/config.toml --out elsewhere --json")
    with Ledger.open("elsewhere/ledger.db") as ledger:
        assert (ledger.unit, ledger.dataset) == ("example", "points.csv")


@pytest.mark.parametrize("what", ["", "density.safetensors"])
def test_queries_need_the_released_file_alone(released, here, what):
    """Neither ledger nor key; from the folder or the file, wherever that is."""
    (here / "moved").mkdir()
    file = here / "moved" / "density.safetensors"
    file.write_bytes((released / "density.safetensors").read_bytes())
    done = invoke(f"density query moved/{what} queries.csv --out a.csv --json")
    told = json.loads(done.stdout)
    assert told["queries"] == 3 and told["epsilon"] <= 1
    assert len(told["head"]) == 64
    table = np.loadtxt("a.csv", delimiter=",", skiprows=1)
    expected = np.stack(load(released).query([[4, 5], [1, 1], [8.5, 0.5]]), axis=1)
    assert table == pytest.approx(expected, rel=1e-9)
    assert names(here) == [
        "a.csv",
        "density.toml",
        "moved",
        "points.csv",
        "queries.csv",
    ]


@pytest.mark.parametrize("kind", ["csv", "parquet", "npy"])
def test_queries_of_every_kind_with_names_or_without(released, here, kind):
    queries = np.array([[4.0, 5.0], [1.0, 1.0]])
    if kind == "csv":
        np.savetxt("q.csv", queries, delimiter=",")
    elif kind == "npy":
        np.save("q.npy", queries)
    else:
        table = {"x": queries[:, 0], "y": queries[:, 1], "note": ["a", "b"]}
        pyarrow.parquet.write_table(pyarrow.table(table), "q.parquet")
    invoke(f"density query {released} q.{kind} --out a.parquet")
    found = pyarrow.parquet.read_table("a.parquet")
    assert found.column_names == ["value", "stddev", "bias_bound"]
    expected = load(released).query(queries).values
    assert found["value"].to_numpy() == pytest.approx(expected, rel=1e-9)


def test_named_coordinates_are_found_by_name_in_the_queries(here):
    line = f"{QUICK} --relation add_remove --columns y,x --out run"
    invoke(line.replace("0:9,0:9", "0:9,0:8"))
    release = load("run")
    assert grid_of(release).domain == ((0.0, 9.0), (0.0, 8.0))
    invoke("density query run queries.csv --out a.csv")
    first = np.loadtxt("a.csv", delimiter=",", skiprows=1)[0, 0]
    # Sums in another order, as one query or three.
    assert first == pytest.approx(release.query([[5.0, 4.0]]).values[0], rel=1e-9)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x,y\n1,2\n3,nan\n", "row 2 of 2"),
        ("1,2\n3,\n", "row 2 of 2"),
        ("1,2,3\n", "has 3 columns of numbers: needed 2"),
        ("1,2\n3\n", "can't be read to its end"),
        ("", "has none of numbers"),
    ],
)
def test_bad_queries_are_refused_and_named(released, here, text, words):
    (here / "bad.csv").write_text(text)
    done = invoke(f"density query {released} bad.csv --out a.csv", code=2)
    assert words in done.stderr and done.stderr.count("\n") == 1
    assert "a.csv" not in names(here) and len(names(here)) == 4


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{} queries.csv --out a.txt", "must end in .csv or .parquet"),
        ("{} queries.csv --out queries.csv", "exists already"),
        ("{} queries.csv --out no/a.csv", "no folder"),
        ("{} none.csv --out a.csv", "none.csv' doesn't exist"),
        ("nowhere queries.csv --out a.csv", "doesn't exist"),
        ("points.csv queries.csv --out a.csv", "no released structure"),
    ],
)
def test_a_query_that_cannot_be(released, here, line, words):
    done = invoke(f"density query {line.format(released)}", code=2)
    assert words in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["epsilon", "delta", "relation"])
def test_what_has_no_default_is_asked_for_in_words(here, name):
    line = re.sub(rf" --{name} \S+", "", BUILD)
    done = invoke(line, code=2)
    assert f"missing option --{name}: " in done.stderr
    if name == "relation":
        assert "add_remove" in done.stderr and "replace_one" in done.stderr
    assert "runs" not in names(here)


def test_a_build_needs_a_folder(here):
    assert "missing option --out" in invoke(f"{QUICK} --relation add_remove", 2).stderr


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("--bandwidth scott", "computed from the private points"),
        ("--bandwidth -1", "must be a number above 0"),
        ("--domain minmax", "computed from the private points"),
        ("--domain 0:9", "2 coordinates"),
        ("--domain 9:0,0:9", "axis 0 needs a high above its low"),
        ("--domain 0,9", "must be pairs"),
        ("--kernel triangle", "density.kernel='triangle' is not known"),
        ("--delta 1", "must be a number in [0, 1)"),
        ("--relation both", "use add_remove or replace_one or zero_out"),
        ("--columns a,b", "no column 'a'"),
        ("--landmarks queries.csv", "landmarks_public=False: needed True"),
        ("--set density.features=x", "density.features='x'"),
    ],
)
def test_a_refused_build_leaves_nothing(here, change, words):
    line = f"{QUICK} --relation add_remove --out run {change}"
    done = invoke(line, code=2)
    assert words in done.stderr and done.stderr.count("\n") == 1
    assert names(here) == ["density.toml", "points.csv", "queries.csv"]


@pytest.mark.parametrize("form", ["--domain=-1:1,0:9", "--domain -1:1,0:9"])
def test_a_domain_below_zero(here, form):
    line = f"{QUICK} --relation add_remove {form} --dry-run --json"
    told = json.loads(invoke(line).stdout)
    assert told["bound"]["upper"] == 1.0 and told["relation"] == "add_remove"
    assert told["estimate"]["structure"] == "SplineGrid"
    assert names(here) == ["density.toml", "points.csv", "queries.csv"]


def test_options_take_the_place_of_a_configurations_settings(here):
    line = "density build density.toml --dry-run --json --epsilon 2 --relation zero_out"
    told = json.loads(invoke(line).stdout)
    assert told["relation"] == "zero_out"
    assert 1.99 < told["bound"]["upper"] <= 2
    told = json.loads(invoke("budget epsilon density.toml --json").stdout)
    assert 0.99 < told["upper"] <= 1 and told["relation"] == "add_remove"


def test_landmarks_are_meant_from_where_one_stands(here):
    line = f"{QUICK} --relation add_remove --landmarks queries.csv --landmarks-public"
    done = json.loads(invoke(f"{line} --out a/b --json").stdout)
    assert done["structure"] == "LandmarkSketch"
    assert 'landmarks = "../../queries.csv"' in Path("a/b/config.toml").read_text()


def test_a_shared_ledger_and_what_it_refuses(here):
    terms = "--relation add_remove --unit example"
    invoke(f"ledger init team.db --epsilon 1 --delta 0 {terms}")
    line = f"{QUICK} --relation add_remove --ledger team.db --out"
    invoke(f"{line} first")
    before = Path("team.db").read_bytes()
    invoke(f"{line} second", code=1)
    invoke(f"{line} second --relation zero_out", code=5)
    invoke(f"{line} second --ledger none.db", code=2)
    assert Path("team.db").read_bytes() == before
    assert "second" not in names(here)


def test_the_schema_is_for_editors(here):
    whole = json.loads(invoke("schema density").stdout)["$defs"]
    assert whole["Config"]["required"] == ["data", "density", "privacy"]
    assert whole["PrivacySection"]["required"] == ["epsilon", "delta", "relation"]


def test_the_demo_tells_classes_apart_from_one_release(here):
    invoke("demo --example density --write-config mine.toml")
    done = invoke("density build mine.toml --out run")
    told = json.loads(Path("run/result.json").read_text())
    # Ten classes: by chance .1; measured .79 to .85.
    assert told["test_accuracy"] > 0.6
    assert told["job"] == "classes" and told["epsilon"] <= 1
    assert "test accuracy" in done.stdout
    assert "by class" in invoke("density query run queries.csv --out a.csv", 2).stderr
    assert Classifier.load("run").predict(np.ones((1, 64)))[0] in range(10)
