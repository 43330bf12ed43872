"""Drafts of schemas fit their sample, and counts of misfits are right."""

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image as Pillow
from sklearn import datasets

from dpkit.data.draft import draft
from dpkit.data.inspection import inspect
from dpkit.data.schema import (
    Array,
    Boolean,
    Categorical,
    Datetime,
    Image,
    Numeric,
    Schema,
    Text,
)


def picture(mode):
    file = io.BytesIO()
    Pillow.new(mode, (6, 4)).save(file, "PNG")
    return file.getvalue()


SAMPLE = {
    "id": [f"person {n}" for n in range(60)],
    "pet": ["cat", "dog", None] * 20,
    "floor": [1, 2, 10] * 20,
    "age": list(np.linspace(18.3, 89.9, 60)),
    "smoker": ["yes", "no", "no"] * 20,
    "seen": ["2020-01-02", "2021-03-04T05:06:07", "2019-12-31"] * 20,
    "trace": [[0.5, -1.25, 3.0]] * 60,
    "face": [picture("L")] * 60,
    "note": [f"{n % 59} things were said" for n in range(60)],
    "empty": [None] * 60,
}


def test_a_draft_fits_its_sample():
    schema, notes = draft(pa.table(SAMPLE))
    assert dict(schema.columns) == {
        "pet": Categorical(categories=("cat", "dog"), nullable=True),
        "floor": Categorical(categories=("1", "2", "10")),
        "age": Numeric(low=18, high=90),
        "smoker": Boolean(),
        "seen": Datetime(low="2019-12-31", high="2021-03-04T05:06:07"),
        "trace": Array(shape=(3,), low=-1.3, high=3),
        "face": Image(shape=(4, 6, 1)),
        "note": Text(length=len("58 things were said")),
    }
    told = " ".join(notes)
    assert "id: left out: every value differs" in told
    assert "empty: left out" in told
    assert "age: widen the bounds" in told
    assert schema.label is schema.max_records is None
    assert Schema.read(schema.to_json()) == schema
    total, fits = inspect(pa.table(SAMPLE), schema)
    assert total == 60
    assert all(fit.strange == 0 for fit in fits.values())
    assert fits["pet"].missing == 20


def test_a_draft_of_real_measurements():
    wine: Any = datasets.load_wine()
    rows = dict(zip(wine.feature_names, wine.data.T, strict=True))
    schema, _ = draft(rows | {"class": wine.target})
    for name, values in rows.items():
        column = schema.columns[name]
        assert isinstance(column, Numeric), name
        assert column.low <= values.min()
        assert values.max() <= column.high
    kind: Any = schema.columns["class"]
    assert kind.texts == ("0", "1", "2")


def test_a_sample_without_rows():
    with pytest.raises(ValueError, match="no rows"):
        draft({"x": []})


def test_misfits_are_counted():
    schema = Schema.read(
        {
            "age": {"kind": "numeric", "low": 18, "high": 90},
            "pet": {"kind": "categorical", "categories": ["cat"]},
            "ill": {"kind": "boolean"},
        },
        label="ill",
        unit_column="who",
    )
    rows = {
        "age": ["17", "20", "x", "", "91"],
        "pet": ["cat", "cow", "", "cat", "cat"],
        "ill": ["yes", "no", "perhaps", "", "1"],
        "who": ["a", "", "b", "c", "d"],
    }
    total, fits = inspect(rows, schema)
    counts = {name: (fit.missing, fit.strange) for name, fit in fits.items()}
    assert total == 5
    assert counts == {"age": (2, 2), "pet": (1, 1), "ill": (1, 1), "who": (1, 0)}
    assert "contributes nothing" in fits["ill"].meaning
    assert "nobody" in fits["who"].meaning
