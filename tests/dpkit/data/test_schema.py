"""Schemas: what they refuse, and that their file makes an equal one."""

import json

import pytest

from dpkit.data.layout import Layout
from dpkit.data.schema import Categorical, Numeric, Schema, as_text

COLUMNS = {
    "colour": {"kind": "categorical", "categories": ["teal", "rust"]},
    "age": {"kind": "numeric", "low": 18, "high": 90},
    "pay": {
        "kind": "numeric",
        "low": 1,
        "high": 1e5,
        "scale": "log1p",
        "nullable": True,
    },
    "level": {"kind": "ordinal", "low": 1, "high": 9},
    "born": {"kind": "datetime", "low": "1900-01-01", "high": "2020-01-01"},
    "smoker": {"kind": "boolean", "nullable": True},
    "scan": {"kind": "image", "shape": [4, 4, 3]},
    "trace": {"kind": "array", "shape": [5], "low": -1, "high": 1},
    "note": {"kind": "text", "length": 12},
    "answer": {"kind": "categorical", "categories": ["no", "yes"]},
}


def test_a_file_makes_an_equal_schema(tmp_path):
    schema = Schema.read(
        COLUMNS, label="answer", unit_column="patient", max_records=8000
    )
    path = tmp_path / "schema.json"
    path.write_text(schema.text)
    again = Schema.load(path)
    assert again == schema
    assert again.sha256 == schema.sha256
    assert list(again.columns) == list(COLUMNS)
    assert json.loads(schema.text)["label"] == "answer"
    # Without the frame of facts, too; and the configuration's word goes first.
    path.write_text(json.dumps(COLUMNS))
    facts = {"label": "answer", "unit_column": "patient", "max_records": 8000}
    assert Schema.load(path, **facts) == schema
    path.write_text(schema.text)
    assert Schema.load(path, max_records=9).max_records == 9


def test_a_column_may_be_called_columns():
    schema = Schema.read({"columns": {"kind": "boolean"}})
    assert list(schema.columns) == ["columns"]


def test_the_digest_follows_every_setting():
    digests = {
        Schema.read(COLUMNS, label="answer").sha256,
        Schema.read(COLUMNS).sha256,
        Schema.read(COLUMNS | {"age": COLUMNS["age"] | {"high": 91}}).sha256,
        Schema.read(dict(reversed(COLUMNS.items()))).sha256,
    }
    assert len(digests) == 4


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"kind": "numric", "low": 0, "high": 1}, "did you mean 'numeric'"),
        ({"low": 0, "high": 1}, "lacks kind"),
        ({"kind": "numeric", "low": 0}, "lacks high"),
        ({"kind": "numeric", "low": 2, "high": 1}, "low=2.0 must be at most high=1.0"),
        (
            {"kind": "numeric", "low": 0, "high": float("inf")},
            "high=inf must be finite",
        ),
        ({"kind": "numeric", "low": 0, "high": 1, "bin": 3}, "did you mean 'bins'"),
        ({"kind": "numeric", "low": 0, "high": 1, "scale": "log"}, "scale"),
        ({"kind": "categorical", "categories": []}, "at least one|must hold values"),
        ({"kind": "categorical", "categories": ["a", " a"]}, "'a' twice"),
        ({"kind": "categorical", "categories": [1, "1"]}, "'1' twice"),
        ({"kind": "datetime", "low": "soon", "high": "2020-01-01"}, "low='soon'"),
        ({"kind": "datetime", "low": "2021-01-01", "high": "2020-01-01"}, "after"),
        ({"kind": "image", "shape": [8, 8, 4]}, "shape"),
        (
            {"kind": "array", "shape": [8], "low": 0, "high": 1, "nullable": True},
            "null",
        ),
        ({"kind": "text", "length": 8, "characters": "aa"}, "distinct"),
        (3, "must be a column"),
        ({"kind": ["boolean"]}, "is not known"),
        ({"kind": "ordinal", "low": 0, "high": 10**400}, "high"),
        ({"kind": "image", "shape": [10**6, 10**6, 3]}, "at most 100,000,000 entries"),
    ],
)
def test_a_bad_column_is_named(column, message):
    with pytest.raises(ValueError, match=message) as caught:
        Schema.read({"pay": column})
    assert "schema.pay" in str(caught.value)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"label": "anser"}, "did you mean 'answer'"),
        ({"label": "note"}, "is text: a label must be"),
        ({"unit_column": "age"}, "who is who"),
        ({"max_records": 0}, "at least 1"),
    ],
)
def test_bad_facts_are_refused(facts, message):
    with pytest.raises(ValueError, match=message):
        Schema.read(COLUMNS, **facts)


def test_a_layout_has_one_place_for_everything():
    layout = Layout.of(Schema.read(COLUMNS, label="answer"))
    assert layout.numbers == ("age", "pay", "pay is missing", "level", "born")
    assert dict(layout.codes) == {"colour": 3, "smoker": 3}
    shapes = {name: field.shape for name, field in layout.fields.items()}
    assert shapes == {
        "scan": (4, 4, 3),
        "trace": (5,),
        "note": (12,),
        "numbers": (5,),
        "codes": (2,),
        "label": (),
    }
    assert layout.classes == ("no", "yes")  # no code for others
    with pytest.raises(ValueError, match=r"schema\.numbers: the name is taken"):
        Layout.of(Schema.read({"numbers": COLUMNS["trace"]}))


def test_a_label_alone_predicts_nothing():
    answer = {"answer": COLUMNS["answer"]}
    with pytest.raises(ValueError, match="needs a column besides the label"):
        Layout.of(Schema.read(answer, label="answer"))


def test_the_size_of_a_category_counts_other_and_missing():
    for other in (False, True):
        for nullable in (False, True):
            column = Categorical(categories=("a",), other=other, nullable=nullable)
            assert column.size == 1 + other + nullable
    assert Numeric(low=1, high=1).low == 1
    assert [as_text(v) for v in (True, 2.0, 2.5, " x ")] == ["true", "2", "2.5", "x"]
