"""JSON that a machine can read, text that a terminal can't be fooled by."""

import json

import pytest

from dpkit.cli import output


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
