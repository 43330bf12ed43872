"""Tables as codes and back: total, of one record, and true to the rules."""

import numpy as np
import pyarrow as pa
import pytest

from dpkit.data.codes import OTHER, Codebook
from dpkit.data.schema import Schema

COLUMNS = {
    "pet": {"kind": "categorical", "categories": ["cat", "dog"], "nullable": True},
    "size": {"kind": "categorical", "categories": [1, 2, 5], "other": False},
    "old": {"kind": "boolean"},
    "age": {"kind": "ordinal", "low": 0, "high": 9, "nullable": True},
    "pay": {"kind": "numeric", "low": 0, "high": 100, "bins": 10, "granularity": 0.5},
    "gain": {"kind": "numeric", "low": 0, "high": 1e6, "bins": 8, "scale": "log1p"},
    "cut": {"kind": "numeric", "low": 0, "high": 8, "edges": [0, 1, 4, 8]},
    "day": {"kind": "datetime", "low": "2020-01-01", "high": "2020-12-31", "bins": 12},
    "month": {
        "kind": "datetime",
        "low": "01/2020",
        "high": "12/2021",
        "form": "mm/yyyy",
    },
    "code": {"kind": "tree", "categories": ["A01", "A02", "B10"], "prefixes": [1, 2]},
}
BOOK = Codebook.of(Schema.read(COLUMNS))
ODD = [None, "", "x", "1e400", "-3", "nan", b"\xff", 3.7, True, "2020-02-30", object()]


def encoded(**columns):
    """Codes of a table of one column."""
    ((name, values),) = columns.items()
    book = Codebook.of(Schema.read({name: COLUMNS[name]}))
    return book.encode({name: values})[:, 0].tolist()


def test_what_each_kind_makes_of_values():
    assert encoded(pet=["dog", "newt", None, " cat "]) == [1, 2, 3, 0]
    assert encoded(size=["1", 5.0, "7", None]) == [0, 2, 0, 0]
    assert encoded(old=["yes", 0, "maybe"]) == [1, 0, 0]
    assert encoded(age=[3, "9", 11, -2, None]) == [3, 9, 9, 0, 10]
    assert encoded(pay=[0, 9.99, 10, 100, 1e9, None, "x"]) == [0, 0, 1, 9, 9, 0, 0]
    assert encoded(cut=[0.5, 1, 3.9, 4, 8]) == [0, 1, 1, 2, 2]
    assert encoded(day=["2020-01-01", "2020-12-31", "1999-01-01"]) == [0, 11, 0]
    assert encoded(month=["01/2020", "12/2021"]) == [0, 23]
    assert encoded(code=["B10", "A99"]) == [2, 3]


def test_arrays_of_numpy_are_as_lists():
    assert encoded(pet=np.array(["dog", "newt", "cat"])) == [1, 2, 0]
    assert encoded(age=np.array([3.0, np.nan])) == [3, 10]


def test_bins_of_whole_numbers_are_exact():
    schema = {"x": {"kind": "numeric", "low": 0, "high": 100_000, "bins": 100}}
    values = np.arange(0, 100_000, 1000)
    codes = Codebook.of(schema).encode({"x": pa.array(values)})[:, 0]
    np.testing.assert_array_equal(codes, values // 1000)


@pytest.mark.parametrize("name", list(COLUMNS))
def test_every_value_has_a_code_whatever_stands_beside_it(name):
    alone = [encoded(**{name: [value]})[0] for value in ODD]
    assert encoded(**{name: ODD}) == alone
    size = BOOK.sizes[BOOK.names.index(name)]
    assert all(0 <= code < size for code in alone)
    assert len(BOOK.labels(name)) == size


def test_what_is_decoded_has_the_same_codes():
    generator = np.random.default_rng(0)
    codes = np.stack([generator.integers(0, s, 3000) for s in BOOK.sizes], axis=1)
    table = BOOK.decode(codes, generator)
    again = BOOK.encode({name: table[name].combine_chunks() for name in BOOK.names})
    np.testing.assert_array_equal(again, codes)
    assert table["age"].type == pa.int64()
    assert table["size"].type == pa.int64()
    assert set(table["pet"].to_pylist()) == {"cat", "dog", OTHER, None}
    assert all(value * 2 == int(value * 2) for value in table["pay"].to_pylist())
    assert all(len(text) == 7 for text in table["month"].to_pylist())


def test_numbers_fill_their_bins_evenly():
    # 20,000 draws over 20 half steps: chi-squared with 19 degrees, p = 1e-6 at 66.
    generator = np.random.default_rng(1)
    codes = np.zeros((20_000, len(BOOK.sizes)), int)
    found = np.asarray(BOOK.decode(codes, generator)["pay"])
    counts = np.bincount((found * 2).astype(int), minlength=20)
    assert len(counts) == 20
    assert ((counts - 1000) ** 2 / 1000).sum() < 66


def test_values_have_codes_by_name():
    assert BOOK.code("pet", "dog") == 1
    assert BOOK.code("pet", None) == 3
    assert BOOK.code("pay", 55) == 5
    for name, value in [("pet", "cow"), ("hat", 1), ("pay", 101), ("old", None)]:
        with pytest.raises(ValueError, match=name):
            BOOK.code(name, value)


def test_levels_group_neighbours_and_prefixes():
    coarse = BOOK.levels("code")
    assert [level.tolist() for level in coarse] == [[0, 0, 1, 2], [0, 0, 1, 2]]
    halves = BOOK.levels("age")
    assert halves[0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5]
    assert BOOK.levels("pet") == ()


@pytest.mark.parametrize(
    ("column", "word"),
    [
        ({"kind": "ordinal", "low": 0, "high": 10**6}, "bins"),
        ({"kind": "text", "length": 5}, "text"),
        ({"kind": "image", "shape": [2, 2, 1]}, "image"),
        ({"kind": "numeric", "low": 0, "high": 1, "bins": 1}, "bins"),
        ({"kind": "numeric", "low": 0, "high": 1, "bins": 5000}, "bins"),
        ({"kind": "numeric", "low": 0, "high": 1, "edges": [0, 2, 1]}, "edges"),
        ({"kind": "tree", "categories": ["a"], "prefixes": [2, 1]}, "prefixes"),
    ],
)
def test_columns_that_cannot_be_counted(column, word):
    with pytest.raises(ValueError, match=word):
        Codebook.of(Schema.read({"x": column}))


def test_old_schemas_are_written_as_before():
    schema = Schema.read({"x": {"kind": "boolean"}}, label="x")
    assert schema.to_json() == {
        "version": 1,
        "columns": {"x": {"kind": "boolean"}},
        "label": "x",
    }


@pytest.mark.parametrize("nullable", [False, True])
@pytest.mark.parametrize(
    "words", [["a", "b", None, " b ", "", "?", "A"], ["a"], [None]]
)
def test_texts_of_every_type_have_the_codes_of_their_values(words, nullable):
    column = {"kind": "categorical", "categories": ["b", "a"], "nullable": nullable}
    book = Codebook.of({"x": column})
    expected = book.encode({"x": words * 9}).tolist()
    texts = pa.array(words * 9, pa.string())
    long = pa.DictionaryArray.from_arrays([1, None, 0], ["a", "b", *map(str, range(9))])
    for array in (
        texts,
        texts.cast(pa.large_string()),
        texts.cast(pa.binary()),
        texts.cast(pa.string_view()),
        texts.dictionary_encode(),
        texts.dictionary_encode("encode"),
    ):
        assert book.encode({"x": array}).tolist() == expected
        assert book.encode({"x": array[2:5]}).tolist() == expected[2:5]
    expected = book.encode({"x": ["b", None, "a"]}).tolist()
    assert book.encode({"x": long}).tolist() == expected
