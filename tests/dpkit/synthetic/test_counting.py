"""Counts of cells, against a dictionary filled row by row."""

import itertools
import subprocess
import sys
from collections import Counter
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from dpkit.data.codes import Codebook
from dpkit.data.schema import Schema
from dpkit.synthetic import counting, stored
from dpkit.synthetic.counting import open_source

pytestmark = [pytest.mark.guard, pytest.mark.slow]

COLUMNS = {
    "a": {"kind": "ordinal", "low": 0, "high": 9},
    "b": {"kind": "categorical", "categories": ["x", "y"], "nullable": True},
    "c": {"kind": "numeric", "low": 0, "high": 1, "bins": 300},
}
FAMILIES = [(0,), (2,), (1, 0), (2, 0, 1)]


def book_of(columns=None, **more):
    return Codebook.of(Schema.read({"columns": columns or COLUMNS, **more}))


def table_of(n, seed=0):
    draws = np.random.default_rng(seed)
    return {
        "a": draws.integers(-1, 12, n),
        "b": [["x", " y", None, "z"][i] for i in draws.integers(0, 4, n)],
        "c": draws.normal(0.5, 0.5, n),
        "w": draws.choice([-1.0, 0.0, 0.3, 1.5, 3.0, 7.0, np.nan, np.inf], n),
        "who": [
            [1, "1", None, " "][i] if i < 4 else i for i in draws.integers(0, n, n)
        ],
    }


def by_hand(codebook, table, families, steps=None):
    """Counts out of a dictionary, a row at a time."""
    columns = {n: list(values) for n, values in table.items()}
    codes = codebook.encode(columns).tolist()
    found = []
    for family in families:
        cells = Counter()
        for row, step in zip(codes, steps or [1] * len(codes), strict=True):
            cells[tuple(row[n] for n in family)] += step
        counts = np.zeros([codebook.sizes[n] for n in family], np.int64)
        for cell, count in cells.items():
            counts[cell] = count
        found.append(counts)
    return found


def assert_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == np.int64
        np.testing.assert_array_equal(one, other)


def as_kinds(table, folder):
    """The same table as objects and files of all kinds."""
    arrow = pa.table({name: list(table[name]) for name in COLUMNS})
    parquet.write_table(arrow, folder / "t.parquet", row_group_size=700)
    csv.write_csv(arrow, folder / "t.csv")
    (folder / "parts").mkdir()
    for n, part in enumerate((arrow[:999], arrow[999:])):
        parquet.write_table(part, folder / "parts" / f"{n}.parquet")
    types = [("a", "i8"), ("b", object), ("c", "f8")]
    rows = zip(*(table[name] for name in COLUMNS), strict=True)
    return {
        "dict": table,
        "structured": np.array(list(rows), types),
        "arrow": arrow,
        "stream": pa.RecordBatchReader.from_batches(arrow.schema, arrow.to_batches()),
        "parquet": folder / "t.parquet",
        "csv": folder / "t.csv",
        "folder": folder / "parts",
    }


def test_all_doors_give_the_counts_made_by_hand(tmp_path):
    table, book = table_of(2000), book_of()
    expected = by_hand(book, table, FAMILIES)
    rows = book.encode({name: list(values) for name, values in table.items()})
    for kind, source in as_kinds(table, tmp_path).items():
        opened = open_source(source, book)
        assert (opened.unit, opened.reach) == (1.0, 1), kind
        assert_equal(opened.count(FAMILIES), expected)
        assert_equal(opened.count(FAMILIES[2:]), expected[2:])  # and once more
        np.testing.assert_array_equal(opened.rows(), rows)


@pytest.mark.parametrize("package", ["pandas", "duckdb"])
def test_frames_and_relations(package):
    frames = pytest.importorskip(package)
    table, book = table_of(500), book_of()
    named = {name: table[name] for name in COLUMNS}
    arrow = pa.table(named)
    source = arrow.to_pandas() if package == "pandas" else frames.from_arrow(arrow)
    counts = open_source(source, book).count(FAMILIES)
    assert_equal(counts, by_hand(book, table, FAMILIES))


def test_codes_in_a_file_are_those_in_memory(monkeypatch):
    table, book = table_of(3000), book_of(weight_column="w", max_weight=3.0)
    expected = open_source(table, book).count(FAMILIES)
    monkeypatch.setattr(stored, "BLOCK", 128)
    monkeypatch.setattr(stored.Columns.__init__, "__kwdefaults__", {"in_memory": 5000})
    source: Any = open_source(table, book)
    assert_equal(source.count(FAMILIES), expected)
    assert source._columns._filed == 3000 // 128


def test_columns_come_back_in_order(monkeypatch):
    monkeypatch.setattr(stored, "BLOCK", 10)
    columns = stored.Columns([np.dtype(np.uint8), np.dtype(np.int64)], in_memory=100)
    sizes = [3, 0, 25, 10, 1, 40, 6]
    values = np.arange(sum(sizes))
    at = 0
    for size in sizes:
        part = values[at : at + size]
        columns.add([part % 256, part * 10**6])
        at += size
        assert len(columns) == at
    blocks = list(columns.blocks())
    assert max(len(block[0]) for block in blocks) == 10
    assert np.concatenate([block[0] for block in blocks]).tolist() == values.tolist()
    assert (np.concatenate([b[1] for b in blocks]) == values * 10**6).all()
    assert columns._filed >= 7


def test_weights_are_cut_and_rounded_to_steps():
    table, book = table_of(1000), book_of(weight_column="w", max_weight=3.0)
    source = open_source(table, book)
    assert source.unit == 3.0 / 2**16 and source.reach == 2**16
    # 0.3 / 3 of 65536 steps are 6553.6.
    worth = {-1.0: 0, 0.0: 0, 0.3: 6554, 1.5: 2**15, 3.0: 2**16, 7.0: 2**16}
    steps = [2**16 if w == np.inf else worth.get(w, 0) for w in table["w"].tolist()]
    assert_equal(source.count(FAMILIES), by_hand(book, table, FAMILIES, steps))
    with pytest.raises(ValueError, match="rows: rows have weights"):
        source.rows()
    whole = open_source(table, book_of(weight_column="w", max_weight=2.0**16))
    assert whole.unit == 1.0 and whole.count([(0,)])[0].sum() > 2**16


def kept_of(table, most, seed):
    """Which rows count, told by a column that numbers them."""
    book = book_of(
        {"n": {"kind": "ordinal", "low": 0, "high": len(table["who"]) - 1}},
        unit_column="who",
    )
    numbered = {"n": np.arange(len(table["who"])), "who": table["who"]}
    key = jax.random.key(seed)
    source = open_source(numbered, book, rows_per_unit=most, key=key)
    assert source.reach == most
    (counts,) = source.count([(0,)])
    assert set(counts.tolist()) <= {0, 1}
    return np.flatnonzero(counts)


def units_of(table):
    """Whose each row is: by hand, for 1 and "1" are one, and blanks are nobody."""
    return [str(w).strip() or None if w is not None else None for w in table["who"]]


@pytest.mark.parametrize("most", [1, 2, 5, 10**6])
def test_each_unit_keeps_so_many_rows_and_nobody_none(most):
    table = table_of(3000)
    table["who"] = [
        w if isinstance(w, str) or w is None else w % 400 for w in table["who"]
    ]
    units = units_of(table)
    kept = Counter(units[n] for n in kept_of(table, most, seed=0))
    rows = Counter(unit for unit in units if unit is not None)
    assert kept == {unit: min(count, most) for unit, count in rows.items()}


def test_which_rows_count_is_fair():
    # 600 units of four rows, 500 of three: a hash chooses, of a salt for each key.
    units = [f"u{n}" for n in range(1100) for _ in range(4 if n < 600 else 3)]
    kept = np.isin(np.arange(len(units)), kept_of({"who": units}, 2, seed=0))
    fours, threes = kept[:2400].reshape(-1, 4), kept[2400:].reshape(-1, 3)
    # Seven binomial counts within five deviations: false alarm below 1e-5.
    assert (abs(fours.sum(0) - 300) <= 5 * np.sqrt(600 / 4)).all()
    assert (abs(threes.sum(0) - 1000 / 3) <= 5 * np.sqrt(500 * 2 / 9)).all()
    again = kept_of({"who": units}, 2, seed=0)
    assert (np.flatnonzero(kept) == again).all()
    # With another key about half of the pairs of fours are others.
    other = np.isin(np.arange(len(units)), kept_of({"who": units}, 2, seed=1))
    assert (other != kept).sum() > 1000


def test_what_others_have_does_not_decide_which_of_mine_count(monkeypatch):
    monkeypatch.setattr(stored, "BLOCK", 64)
    monkeypatch.setattr(stored, "_TOGETHER", 50)
    mine = ["me"] * 7
    chosen = set()
    for others in ([], ["a"] * 90, [None] * 50 + list("abc") * 40):
        kept = kept_of({"who": [*others, *mine, *others]}, 3, seed=4)
        places = kept - len(others)
        chosen.add(tuple(places[(places >= 0) & (places < 7)].tolist()))
    assert len(chosen) == 1 and len(chosen.pop()) == 3


def test_a_unit_less_changes_nothing_of_others():
    table = table_of(900)
    table["who"] = [
        w if w is None or isinstance(w, str) else w % 70 for w in table["who"]
    ]
    book = book_of(unit_column="who")
    left = [n for n, unit in enumerate(units_of(table)) if unit != "5"]
    fewer = {name: [values[n] for n in left] for name, values in table.items()}
    for most in (2, 5):
        counts, less = (
            open_source(one, book, rows_per_unit=most).count(FAMILIES)
            for one in (table, fewer)
        )
        for one, other in zip(counts, less, strict=True):
            assert (one - other).min() >= 0 and (one - other).sum() == most


def test_units_with_weights():
    table = {"a": [1] * 6, "b": ["x"] * 6, "c": [0.5] * 6, "w": [9.0] * 6, "u": [7] * 6}
    book = book_of(unit_column="u", weight_column="w", max_weight=2.0)
    source = open_source(table, book, rows_per_unit=4, key=jax.random.key(0))
    (counts,) = source.count([(0,)])
    assert source.reach == counts.sum() == 4 * 2**16


def test_nobody_in_it():
    book = book_of()
    source = open_source({"a": [], "b": [], "c": []}, book)
    assert [counts.sum() for counts in source.count(FAMILIES)] == [0] * 4
    assert source.rows().shape == (0, 3)
    empty = pa.table({"a": pa.array([], pa.int64()), "b": pa.array([], pa.string())})
    book = book_of({name: COLUMNS[name] for name in "ab"})
    assert open_source(empty, book).count([(0, 1)])[0].sum() == 0


@pytest.mark.parametrize("end", ["3,x", "3,x,0.5,9\n"])
def test_a_file_that_ends_in_a_line(tmp_path, end):
    path = tmp_path / "t.csv"
    path.write_text(f"a,b,c\n1,x,0.5\n2,y,0.25\n{end}")
    source = open_source(path, book_of())
    with pytest.raises(ValueError, match="read to its end") as caught:
        source.count([(0,)])
    assert "0.5" not in str(caught.value) and caught.value.__suppress_context__


def test_values_of_several_types_in_one_column():
    table = {"a": [1, "1", 1.0, b"1", True, None, [2], {}, "?"]}
    book = book_of({"a": COLUMNS["a"]})
    # true is 1, as everywhere; what is no number is the lowest.
    assert open_source(table, book).count([(0,)])[0].tolist() == [4, 5] + [0] * 8


@pytest.mark.slow
def test_a_million_categories():
    many = {"kind": "categorical", "categories": [f"c{n}" for n in range(10**6)]}
    book = book_of({"m": many, "n": {"kind": "ordinal", "low": 0, "high": 4095}})
    source = open_source({"m": ["c999999", "c0", "?"], "n": [1, 2, 3]}, book)
    (counts,) = source.count([(0,)])
    assert np.flatnonzero(counts).tolist() == [0, 999999, 10**6]
    with pytest.raises(ValueError, match=r"\['m', 'n'\], has 4096004096 cells"):
        source.count([(0,), (0, 1)])


@pytest.mark.parametrize(
    ("more", "given", "message"),
    [
        ({}, {"rows_per_unit": 0}, "rows_per_unit=0"),
        ({}, {"rows_per_unit": 2}, "rows_per_unit=2 needs schema.unit_column"),
        ({}, {"memory_limit": 0}, "memory_limit=0"),
        ({"unit_column": "who"}, {}, "rows_per_unit is missing"),
        ({}, {"on_invalid": "drop"}, "on_invalid='drop'"),
        ({"unit_column": "who"}, {"rows_per_unit": 1, "key": 0}, "key"),
        ({"weight_column": "v", "max_weight": 2.0}, {}, "no column 'v'"),
    ],
)
def test_refused_before_a_row_is_read(more, given, message):
    with pytest.raises((ValueError, TypeError), match=message):
        open_source(table_of(10), book_of(**more), **given)


@pytest.mark.parametrize(
    ("line", "message"),
    [("a,a,b,c", "two columns 'a'"), ("a,b", "no column 'c'")],
)
def test_headers_that_do_not_fit(tmp_path, line, message):
    path = tmp_path / "t.csv"
    path.write_text(f"{line}\n1,1,x,0.5\n")
    with pytest.raises(ValueError, match=message):
        open_source(path, book_of())


@pytest.mark.parametrize("family", [(), (0, 0), (3,), (-1,)])
def test_families_that_are_none(family):
    with pytest.raises(ValueError, match="families has"):
        open_source(table_of(5), book_of()).count([family])


def test_memory_is_refused_before_reading(monkeypatch):
    source = open_source(table_of(50), book_of(), memory_limit=4000)
    monkeypatch.setattr(counting, "followed", None)
    with pytest.raises(ValueError, match=r"largest family, \['a', 'c'\], has 3000"):
        source.count([(0,), (0, 2)])


def test_rows_that_do_not_fit_are_refused():
    source = open_source(table_of(500), book_of(), memory_limit=5000)
    source.count([(0,)])
    with pytest.raises(ValueError, match="need more than memory_limit=5000"):
        source.rows()


def test_a_source_is_returned_on_the_same_terms():
    book = book_of(unit_column="who")
    key = jax.random.key(0)
    source = open_source(table_of(20), book, rows_per_unit=3, key=key)
    assert open_source(source, book) is source
    assert open_source(source, book, rows_per_unit=3) is source
    with pytest.raises(ValueError, match="opened with 3"):
        open_source(source, book, rows_per_unit=2)
    with pytest.raises(ValueError, match="another schema"):
        open_source(source, book_of())


def test_the_owner_at_the_desk_is_told_how_many_have_no_code():
    table = {"a": [1, 10, 3], "b": ["x", "q!", "q!"], "c": [0.5, 0.5, 0.5]}
    book = book_of({n: {**c, "nullable": False} for n, c in COLUMNS.items()})
    with pytest.raises(ValueError, match=r"schema\.a: 1 values") as caught:
        open_source(table, book, on_invalid="raise")
    assert "10" not in str(caught.value)
    fitting = {**table, "a": [1, 9, 3], "b": ["x", "y", "x"]}
    source = open_source(fitting, book, on_invalid="raise")
    assert source.count([(1,)])[0].tolist() == [2, 1, 0]


def test_held_counts_are_made_once():
    class Counting:
        codebook, unit, reach = book_of(), 1.0, 1
        asked: list[Any] = []  # noqa: RUF012

        def count(self, families):
            self.asked += families
            return [np.array(family) for family in families]

        def rows(self):
            return np.zeros((0, 3), np.int32)

    held = counting.Held(Counting())
    held.count([(0,), (1,)])
    found = held.count([(1,), (2, 0), (0,)])
    assert [one.tolist() for one in found] == [[1], [2, 0], [0]]
    assert Counting.asked == [(0,), (1,), (2, 0)]
    assert isinstance(held, counting.Source) and held.rows().shape == (0, 3)


PROGRAM = """
import itertools, resource, sys
from dpkit.data.codes import Codebook
from dpkit.synthetic.counting import open_source
columns = {f"c{n}": {"kind": "ordinal", "low": 0, "high": 49} for n in range(20)}
source = open_source(sys.argv[1], Codebook.of(columns))
counts = source.count(list(itertools.combinations(range(20), 2)))
assert {int(one.sum()) for one in counts} == {int(sys.argv[2])}
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def peak_memory(folder, rows):
    """Megabytes of a process that counts all pairs of 20 columns."""
    draws, path = np.random.default_rng(0), folder / f"{rows}.parquet"
    names = [f"c{n}" for n in range(20)]
    schema = pa.schema([(name, pa.int64()) for name in names])
    with parquet.ParquetWriter(path, schema) as file:
        for _ in range(0, rows, 100_000):
            part = {name: draws.integers(0, 50, 100_000) for name in names}
            file.write_table(pa.table(part, schema))
    command = [sys.executable, "-c", PROGRAM, str(path), str(rows)]
    return int(subprocess.check_output(command))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_table(tmp_path):
    # As int64 the larger one has 320 MB, and its codes 40.
    small, large = (peak_memory(tmp_path, rows) for rows in (200_000, 2_000_000))
    assert large - small < 150


def test_all_pairs_are_one_reading(monkeypatch):
    opened = []
    followed = counting.followed
    monkeypatch.setattr(
        counting, "followed", lambda *given: opened.append(1) or followed(*given)
    )
    source = open_source(table_of(100), book_of())
    source.count(list(itertools.combinations(range(3), 2)))
    source.count([(0,)])
    assert opened == [1]
