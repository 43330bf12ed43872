"""JSON that a machine can read, text that a terminal can't be fooled by."""

import json

import pytest
from typer.testing import CliRunner

from dpkit.cli import output
from dpkit.cli.app import app
from dpkit.cli.jobs import shown_progress
from dpkit.cli.output import quieted
from dpkit.jobs import Progress

RUN = """
relation = "add_remove"
delta = 1e-5
[[events]]
kind = "gaussian"
noise_multiplier = 2.0
"""
TERMS = "--epsilon 3 --delta 1e-5 --relation add_remove --unit user".split()


def test_json_has_a_schema_version(capsys):
    output.emit({"upper": 1.5, "label": "é\n"})
    assert json.loads(capsys.readouterr().out) == {
        "schema_version": 1,
        "upper": 1.5,
        "label": "é\n",
    }


def test_a_document_keeps_its_own_version(capsys):
    output.emit({"schema_version": 7})
    assert json.loads(capsys.readouterr().out) == {"schema_version": 7}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_json_is_refused(value):
    with pytest.raises(ValueError, match="JSON"):
        output.emit({"upper": value})


def test_a_table_keeps_hostile_cells_harmless(capsys):
    output.table(["label"], [["[red]x[/red]\x1b[31m\nz"]])
    text = capsys.readouterr().out
    assert "[red]x[/red]\\x1b[31m z" in text
    assert "\x1b" not in text


def test_a_long_cell_is_not_cut(capsys):
    output.table(["h", "b"], [["a" * 200, "c"]])
    assert capsys.readouterr().out.count("a") == 200


def test_facts_are_aligned_and_notes_go_to_standard_error(capsys):
    output.facts([("a", 1), ("long name", "x\ty"), ("gone", None)])
    output.note("hello")
    captured = capsys.readouterr()
    assert captured.out == "a          1\nlong name  x y\n"
    assert captured.err == "hello\n"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["budget", "check", "run.toml", "--max-epsilon", "9", "--delta", "1e-5"], 0),
        (["budget", "epsilon", "run.toml", "--accountants", "rdp,gdp"], 0),
        pytest.param(["budget", "compare", "run.toml"], 0, marks=pytest.mark.slow),
        pytest.param(
            ["budget", "curve", "run.toml", "--x", "delta"], 0, marks=pytest.mark.slow
        ),
        (["ledger", "report", "run.toml"], 0),
        (["ledger", "report", "run.toml", "--out", "r.html", "--format", "html"], 0),
        (["ledger", "init", "a.db", *TERMS], 0),
        (["demo", "--write-config", "my.toml"], 0),
    ],
)
def test_quiet_commands_say_nothing(tmp_path, monkeypatch, words, code):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.toml").write_text(RUN)
    done = CliRunner().invoke(app, [*words, "--quiet"])
    assert (done.exit_code, done.output) == (code, "")
    again = [word.replace("a.db", "b.db").replace("my.", "our.") for word in words]
    assert CliRunner().invoke(app, again).output != ""


def test_quiet_commands_still_give_documents_and_errors(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.toml").write_text(RUN)
    done = CliRunner().invoke(
        app, ["budget", "--quiet", "epsilon", "run.toml", "--json"]
    )
    assert json.loads(done.stdout)["certified"]
    words = ["budget", "check", "run.toml", "--max-epsilon", "0", "--delta", "1e-5"]
    done = CliRunner().invoke(app, [*words, "--quiet"])
    assert (done.exit_code, done.stdout) == (1, "")
    assert "exceeds --max-epsilon" in done.stderr
    done = CliRunner().invoke(app, ["budget", "epsilon", "none.toml", "--quiet"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "none.toml" in done.stderr


def test_quiet_runs_show_no_progress(capsys):
    with quieted(True), shown_progress() as (on_progress, on_message):
        on_message("preparing")
        on_progress(Progress(1, 1, "training", 1.0))
    assert capsys.readouterr() == ("", "")
