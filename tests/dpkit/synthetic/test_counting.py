"""Counts from anywhere equal counts by hand."""

import itertools

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from dpkit.data.codes import Codebook
from dpkit.synthetic import counting
from dpkit.synthetic.counting import STEPS, Source, open_source

COLUMNS = {
    "a": {"kind": "categorical", "categories": ["x", "y"]},
    "b": {"kind": "ordinal", "low": 0, "high": 3},
    "c": {"kind": "numeric", "low": 0, "high": 1, "bins": 4, "nullable": True},
}
BOOK = Codebook.of(COLUMNS)
FAMILIES = [(0,), (1,), (0, 1), (1, 2), (0, 1, 2)]


def table(rows=1000, seed=0):
    """Rows with odd values among them."""
    generator = np.random.default_rng(seed)
    return {
        "a": generator.choice(["x", "y", "q"], rows),
        "b": generator.integers(-1, 6, rows),
        "c": np.where(generator.random(rows) < 0.1, np.nan, generator.random(rows)),
        "who": generator.integers(0, 200, rows),
        "weight": generator.uniform(-1, 9, rows),
    }


def by_hand(rows, weights=None):
    """Counts, one row at a time."""
    found = [np.zeros([BOOK.sizes[n] for n in family]) for family in FAMILIES]
    codes = BOOK.encode({name: pa.array(rows[name]) for name in BOOK.names})
    for n, row in enumerate(codes):
        for family, counts in zip(FAMILIES, found, strict=True):
            counts[tuple(row[list(family)])] += 1 if weights is None else weights[n]
    return found


def agree(source, expected):
    """Twice: from the origin, and from what is held."""
    for _ in range(2):
        for found, true in zip(source.count(FAMILIES), expected, strict=True):
            assert found.dtype == np.int64
            np.testing.assert_array_equal(found, true)


def test_every_kind_of_source(tmp_path):
    rows = table()
    arrow = pa.table({name: rows[name] for name in BOOK.names})
    pyarrow.csv.write_csv(arrow, tmp_path / "t.csv")
    pyarrow.parquet.write_table(arrow, tmp_path / "t.parquet", row_group_size=77)
    for source in (rows, arrow, tmp_path / "t.csv", tmp_path / "t.parquet"):
        opened = open_source(source, BOOK)
        assert isinstance(opened, Source)
        assert (opened.unit, opened.reach) == (1.0, 1)
        agree(opened, by_hand(rows))
        assert open_source(opened, BOOK) is opened


def test_rows_that_do_not_fit_are_read_again(monkeypatch):
    monkeypatch.setattr(counting, "HELD", 100)
    source = open_source(table(), BOOK)
    agree(source, by_hand(table()))
    with pytest.raises(ValueError, match="memory"):
        source.rows()


def test_at_most_so_many_rows_of_a_unit():
    rows = table()
    rows["who"] = [None if n % 7 == 0 else f"p{w}" for n, w in enumerate(rows["who"])]
    book = Codebook.of({"columns": COLUMNS, "unit_column": "who"})
    source = open_source(rows, book, rows_per_unit=2)
    assert source.reach == 2
    (counts,) = source.count([(0,)])
    owners = [who for who in rows["who"] if who is not None]
    whole = sum(min(2, owners.count(who)) for who in set(owners))
    assert counts.sum() == whole
    gone = {
        name: [v for v, w in zip(rows[name], rows["who"], strict=True) if w != "p5"]
        for name in rows
    }
    fewer = open_source(gone, book, rows_per_unit=2)
    for one, other in zip(source.count(FAMILIES), fewer.count(FAMILIES), strict=True):
        assert 0 <= (one - other).min()
        assert (one - other).sum() == 2


def test_weights_are_cut_and_counted_in_steps():
    rows = table()
    rows["weight"][3] = np.nan
    book = Codebook.of(
        {"columns": COLUMNS, "weight_column": "weight", "max_weight": 4.0}
    )
    source = open_source(rows, book)
    assert source.unit == 4.0 / STEPS
    assert source.reach == STEPS
    weights = np.clip(np.nan_to_num(rows["weight"], nan=0), 0, 4)
    steps = np.rint(weights / 4 * STEPS)
    agree(source, by_hand(rows, steps))
    with pytest.raises(ValueError, match="weight_column"):
        source.rows()


def test_no_rows_are_no_error():
    empty = {name: values[:0] for name, values in table().items()}
    assert all(counts.sum() == 0 for counts in open_source(empty, BOOK).count(FAMILIES))


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"a": ["x"], "b": [1]}, "'c'"),
        ("nowhere.csv", "nowhere"),
        ("nowhere.parquet", "nowhere"),
    ],
)
def test_tables_that_do_not_fit(given, word):
    with pytest.raises(ValueError, match=word):
        open_source(given, BOOK).count(FAMILIES)


def test_files_that_are_damaged(tmp_path):
    path = tmp_path / "t.csv"
    for text, word in [
        ("a,b,b,c\nx,1,2,0.5\n", "two columns"),
        ("a,b,c\nx,1,0.5\ny,2", "read to its end"),
    ]:
        path.write_text(text)
        with pytest.raises(ValueError, match=word) as error:
            open_source(path, BOOK).count(FAMILIES)
        assert "0.5" not in str(error.value)


def test_mixed_types_and_many_categories_have_codes():
    mixed = {"a": ["x", 5, None, "y"], "b": ["1", 2.0, "z", None], "c": [0, "1", "", 9]}
    assert open_source(mixed, BOOK).count([(0,)])[0].tolist() == [1, 1, 2]
    many = {"a": [f"v{n}" for n in range(100_000)], "b": range(100_000)}
    book = Codebook.of({name: COLUMNS[name] for name in "ab"})
    source = open_source({"a": many["a"], "b": np.arange(100_000)}, book)
    assert source.count([(0,)])[0].tolist() == [0, 0, 100_000]


def test_what_raises_at_the_desk_counts_and_repeats_nothing():
    with pytest.raises(ValueError, match=r"schema\.a: 2 values") as error:
        open_source(
            {"a": ["x", "q!", "q!"], "b": [1, 1, 1], "c": [0, 0, 0]},
            BOOK,
            on_invalid="raise",
        )
    assert "q!" not in str(error.value)
    for bad in ("drop", "coerce"):
        with pytest.raises(ValueError, match="on_invalid"):
            open_source(table(), BOOK, on_invalid=bad)


def test_units_and_weights_go_with_their_limits():
    book = Codebook.of({"columns": COLUMNS, "unit_column": "who"})
    with pytest.raises(ValueError, match="rows_per_unit"):
        open_source(table(), book)
    with pytest.raises(ValueError, match="unit_column"):
        open_source(table(), BOOK, rows_per_unit=2)
    with pytest.raises(ValueError, match="max_weight"):
        Codebook.of({"columns": COLUMNS, "weight_column": "w"})


def test_pairs_count_alike_alone_and_together():
    source = open_source(table(), BOOK)
    pairs = list(itertools.combinations(range(3), 2))
    together = source.count(pairs)
    for pair, counts in zip(pairs, together, strict=True):
        np.testing.assert_array_equal(source.count([pair])[0], counts)
