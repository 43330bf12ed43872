"""The encoding is a total function of one record, and the one that is documented."""

import datetime
import io
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from dpkit.data.encoding import encode, known, unscaled
from dpkit.data.layout import Layout
from dpkit.data.schema import (
    Array,
    Boolean,
    Categorical,
    Datetime,
    Image,
    Numeric,
    Ordinal,
    Schema,
    Text,
)
from dpkit.data.values import entries, missing


def one(column, values, field):
    return encode(Schema(columns={"x": column}), {"x": values})[field]


CODES = [
    (Categorical(categories=("a", "b")), ["a", " b ", "c", "", None], [0, 1, 2, 2, 2]),
    (
        Categorical(categories=("a", "b"), nullable=True),
        ["a", "c", "", None],
        [0, 2, 3, 3],
    ),
    (Categorical(categories=("a", "b"), other=False), ["b", "c", None], [1, 0, 0]),
    (
        Categorical(categories=("a",), other=False, nullable=True),
        ["a", "c", None],
        [0, 1, 1],
    ),
    (Categorical(categories=(0, 1)), [1, 0, 7], [1, 0, 2]),
    (Categorical(categories=(0, 1)), [1.0, 0.0, float("nan"), 0.5], [1, 0, 2, 2]),
    (Categorical(categories=("0", "1.5")), [1.5, 0.0], [1, 0]),
    (Categorical(categories=(True, False)), [False, True, None], [1, 0, 2]),
    (Boolean(), ["Yes", "no", "TRUE", "0", "1", "maybe", None], [1, 0, 1, 0, 1, 0, 0]),
    (Boolean(nullable=True), [True, False, None], [1, 0, 2]),
    (Boolean(nullable=True), ["t", "x", None], [1, 2, 2]),
    (Boolean(), [1, 0, 5], [1, 0, 0]),
]


@pytest.mark.parametrize(("column", "values", "codes"), CODES)
def test_codes(column, values, codes):
    assert one(column, pa.array(values), "codes")[:, 0].tolist() == codes
    assert max(codes) < column.size


NUMBERS = [
    (Numeric(low=0, high=10), ["5", " 2.5 ", "1e1", "-3", "99", "x", "", None, "inf"],
     [0.5, 0.25, 1, 0, 1, 0, 0, 0, 0]),
    (Numeric(low=0, high=10), [5.0, np.inf, -np.inf, np.nan], [0.5, 1, 0, 0]),
    (Numeric(low=-10, high=10), [0, -10], [0.5, 0]),
    (Numeric(low=0, high=10), [True, False], [0.1, 0]),
    (Numeric(low=0, high=np.expm1(4), scale="log1p"), [np.expm1(2), 0], [0.5, 0]),
    (Numeric(low=10, high=10 + np.expm1(4), scale="log1p"), [10 + np.expm1(1)], [0.25]),
    (Numeric(low=-1e308, high=1e308), [0.0, 1e308], [0.5, 1]),
    (Numeric(low=3, high=3), [3, 9], [0, 0]),
    (Ordinal(low=1, high=5), ["1", "3", "9", "?"], [0, 0.5, 1, 0]),
    (Datetime(low="2020-01-01", high="2020-01-03"),
     ["2020-01-02", "2020-01-02T12:00:00Z", "2020-01-02T13:00:00+01:00", "2020-02-31",
      "1999-01-01", None], [0.5, 0.75, 0.75, 0, 0, 0]),
    (Datetime(low="2020-01-01", high="2020-01-03"), [datetime.date(2020, 1, 2)], [0.5]),
    (Datetime(low="2020-01-01", high="2020-01-03"),
     [datetime.datetime(2020, 1, 1, 12), None], [0.25, 0]),
]  # fmt: skip


@pytest.mark.parametrize(("column", "values", "numbers"), NUMBERS)
def test_numbers(column, values, numbers):
    found = one(column, pa.array(values), "numbers")[:, 0]
    np.testing.assert_allclose(found, numbers, atol=1e-6)


def test_what_lacks_is_told_beside_the_number():
    column = Numeric(low=0, high=10, nullable=True)
    found = one(column, pa.array([5.0, None, np.nan]), "numbers")
    assert found.tolist() == [[0.5, 0], [0, 1], [0, 1]]


def test_moments_of_every_unit_and_zone():
    column = Datetime(low="2020-01-01", high="2020-01-03")
    moment = datetime.datetime(2020, 1, 2)
    for unit in ("s", "ms", "us", "ns"):
        values = pa.array([moment], pa.timestamp(unit, tz="UTC"))
        assert one(column, values, "numbers").tolist() == [[0.5]]
    days = pa.array([moment.date()], pa.date64())
    assert one(column, days, "numbers").tolist() == [[0.5]]


def test_labels_have_no_code_for_others():
    columns: dict[str, Any] = {
        "y": Categorical(categories=("no", "yes")),
        "x": Boolean(),
    }
    schema = Schema(columns=columns, label="y")
    values = pa.array(["yes", "no", "YES", "", None])
    rows = encode(schema, {"y": values, "x": values})
    assert rows["label"].tolist() == [1, 0, -1, -1, -1]
    number = Schema(columns=columns | {"y": Numeric(low=0, high=4)}, label="y")
    rows = encode(number, {"y": pa.array(["1", "9", "x"]), "x": values[:3]})
    assert rows["label"].tolist()[:2] == [0.25, 1.0]
    assert np.isnan(rows["label"][2])
    assert "label" not in encode(number, {"x": values})


def test_predictions_return_to_the_units_of_the_label():
    for column in (
        Numeric(low=-3, high=9),
        Numeric(low=1, high=1e5, scale="log1p"),
        Ordinal(low=1, high=9),
    ):
        values = np.array([column.low, 5, column.high], float)
        schema = Schema(columns={"y": column, "x": Boolean()}, label="y")
        rows = encode(schema, {"y": pa.array(values), "x": pa.array(values)})
        np.testing.assert_allclose(unscaled(column, rows["label"]), values, rtol=1e-5)
        assert unscaled(column, [-8.0, 8.0]).tolist() == [column.low, column.high]


def test_arrays_are_clamped_and_scaled():
    column = Array(shape=(2,), low=-1, high=1)
    lists = [[0.0, 3.0], [np.nan, -1.0], [1.0], None, [1.0, 1.0]]
    found = one(column, pa.array(lists), "x").tolist()
    assert found == [[0.5, 1], [0, 0], [0, 0], [0, 0], [1, 1]]
    whole = Array(shape=(2, 2), low=0, high=9, integer=True)
    nested = pa.array([[[1, 2], [3, 99]], [[1], [2]]])
    found = one(whole, nested, "x")
    assert found.dtype == np.int32
    assert found.tolist() == [[[1, 2], [3, 9]], [[0, 0], [0, 0]]]
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(4.0)), 2)
    assert entries(fixed, 2, 0.0).tolist() == [[0, 1], [2, 3]]
    assert entries(fixed[1:], 2, 0.0).tolist() == [[2, 3]]


def png(pixels, mode=None):
    file = io.BytesIO()
    Pillow.fromarray(pixels, mode).save(file, "PNG")
    return file.getvalue()


def test_pictures():
    column = Image(shape=(4, 6, 1))
    pixels = np.arange(24, dtype=np.uint8).reshape(4, 6)
    colour = np.stack([pixels] * 3, axis=2)
    large = np.full((9, 9), 7, np.uint8)
    files = [png(pixels), png(colour), png(large), b"no picture", b"", None]
    found = one(column, pa.array(files, pa.binary()), "x")
    assert found.dtype == np.uint8
    assert (found[0, ..., 0] == pixels).all()
    assert (found[1, ..., 0] == pixels).all()
    assert (found[2] == 7).all()
    assert not found[3:].any()
    structs = pa.array([{"bytes": png(pixels), "path": "a.png"}, None])
    found = one(column, structs, "x")
    assert (found[0, ..., 0] == pixels).all()
    assert not found[1].any()
    raw = pa.array([pixels.reshape(-1).tolist(), [300] * 24, [1]])
    found = one(column, raw, "x")
    assert (found[0, ..., 0] == pixels).all()
    assert (found[1] == 255).all()
    assert not found[2].any()


def test_pictures_of_16_bits_views_and_dictionaries():
    column = Image(shape=(4, 6, 1))
    deep = (np.arange(24, dtype=np.uint16) * 257).reshape(4, 6)
    flat = np.arange(24, dtype=np.uint8).reshape(4, 6)
    content = png(deep)
    for values in (
        [content],
        pa.array([content], pa.binary_view()),
        pa.array([content]).dictionary_encode(),
        pa.array([{"bytes": content, "path": None}]),
        pa.array([content], pa.binary(len(content))),
    ):
        assert (one(column, values, "x")[0, ..., 0] == flat).all()
    assert (one(column, [flat[..., None]], "x")[0, ..., 0] == flat).all()


def test_lists_of_moments_are_no_numbers_with_or_without_a_null():
    column = Array(shape=(1,), low=0, high=10)
    some = pa.array([[3], [4]], pa.list_(pa.timestamp("s"), 1))
    null = pa.array([[3], [4], None], pa.list_(pa.timestamp("s"), 1))
    assert one(column, some, "x").tolist() == one(column, null, "x")[:2].tolist()


def test_text():
    column = Text(length=4, characters="ab")
    values = pa.array(["ab", "bxbab", "", None, " a"])
    padding = 3
    assert one(column, values, "x").tolist() == [
        [1, 2, padding, padding],
        [2, 0, 2, 1],
        [padding] * 4,
        [padding] * 4,
        [0, 1, padding, padding],
    ]
    many = Text(length=2, characters="".join(map(chr, range(0x4E00, 0x4E00 + 300))))
    assert one(many, pa.array(["一丁"]), "x").dtype == np.int32


KINDS: dict[str, Any] = {
    "categorical": Categorical(categories=("a", "1", True), nullable=True),
    "strict": Categorical(categories=("a",), other=False),
    "boolean": Boolean(nullable=True),
    "numeric": Numeric(low=-5, high=5, nullable=True),
    "log": Numeric(low=1, high=1e5, scale="log1p"),
    "ordinal": Ordinal(low=-3, high=3),
    "datetime": Datetime(low="2000-01-01", high="2030-01-01", nullable=True),
    "array": Array(shape=(2,), low=0, high=1),
    "image": Image(shape=(2, 2, 3)),
    "text": Text(length=3),
}
ODD = ["", " ", "a", "1", "1.0", "true", "nan", "-inf", "1e999", "٣", "\x00", "\ud800"]
VALUES = [
    st.lists(st.text(max_size=4) | st.sampled_from(ODD[:-1]) | st.none(), max_size=6),
    st.lists(st.binary(max_size=6) | st.none(), max_size=6),
    st.lists(st.floats() | st.none(), max_size=6),
    st.lists(st.integers(-(2**63), 2**63 - 1) | st.none(), max_size=6),
    st.lists(st.booleans() | st.none(), max_size=6),
    st.lists(st.datetimes() | st.none(), max_size=6),
    st.lists(st.dates() | st.none(), max_size=6),
    st.lists(st.lists(st.floats() | st.none(), max_size=3) | st.none(), max_size=6),
    st.lists(st.decimals(allow_nan=False, allow_infinity=False, places=2) | st.none(),
             max_size=4),
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_every_record_has_a_row_of_its_own(kind, data):
    """Total, and a function of one record: whatever else is in the batch."""
    values = data.draw(st.one_of(VALUES))
    try:
        array = pa.array(values)
    except (pa.ArrowInvalid, OverflowError):
        return  # Arrow itself has no such column
    schema = Schema(columns={"x": KINDS[kind]})
    layout = Layout.of(schema)
    rows = encode(schema, {"x": array})
    (name,) = rows
    assert rows[name].shape == (len(values), *layout.fields[name].shape)
    assert rows[name].dtype == layout.fields[name].dtype
    assert np.isfinite(rows[name]).all()
    if name == "codes":
        assert ((rows[name] >= 0) & (rows[name] < KINDS[kind].size)).all()
    if name == "numbers":
        assert ((rows[name] >= 0) & (rows[name] <= 1)).all()
    alone = [encode(schema, {"x": array[n : n + 1]})[name] for n in range(len(values))]
    if alone:
        np.testing.assert_array_equal(np.concatenate(alone), rows[name])
    assert len(known(KINDS[kind], array)) == len(missing(array)) == len(values)


def test_bytes_that_are_no_text_are_some_text():
    bad = pa.array([b"a", b"\xff\xfe"], pa.binary())
    buffers = bad.buffers()
    unchecked = pa.Array.from_buffers(pa.string(), 2, buffers)
    for values in (bad, unchecked):
        for kind in ("categorical", "numeric", "datetime", "text", "boolean"):
            (rows,) = encode(Schema(columns={"x": KINDS[kind]}), {"x": values}).values()
            assert len(rows) == 2


def test_a_dictionary_and_views_are_like_their_values():
    column = Categorical(categories=("a", "b"))
    plain = pa.array(["b", "a", None, "q"])
    for values in (
        plain.dictionary_encode(),
        plain.cast(pa.large_string()),
        plain.cast(pa.string_view()),
        plain.cast(pa.binary()),
    ):
        assert one(column, values, "codes")[:, 0].tolist() == [1, 0, 2, 2]
