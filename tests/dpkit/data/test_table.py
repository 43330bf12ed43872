"""One table, whatever it comes from; and what is refused says nothing of a record."""

import gzip
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as parquet
import pytest
from PIL import Image as Pillow

from dpkit.data import as_rows
from dpkit.data.origins import open_origin
from dpkit.data.random_access import ArrayRows
from dpkit.data.schema import Numeric, Schema
from dpkit.data.spool import FileRows, Spool
from dpkit.data.table import chosen, read

COUNT = 20_000  # several batches
DRAWS = np.random.default_rng(0)
PEOPLE = {
    "age": np.round(DRAWS.uniform(0, 120, COUNT), 1),
    "colour": DRAWS.choice(["teal", "rust", "blue"], COUNT),
    "answer": DRAWS.integers(0, 2, COUNT),
    "who": DRAWS.integers(0, 500, COUNT),
}
SCHEMA = Schema.read(
    {
        "age": {"kind": "numeric", "low": 18, "high": 90},
        "colour": {"kind": "categorical", "categories": ["teal", "rust"]},
        "answer": {"kind": "categorical", "categories": [0, 1]},
    },
    label="answer",
)


def arrow():
    return pa.table({name: pa.array(values) for name, values in PEOPLE.items()})


def as_csv(folder, delimiter=","):
    path = folder / "people.csv"
    lines = [delimiter.join(PEOPLE)]
    lines += [
        delimiter.join(map(str, row)) for row in zip(*PEOPLE.values(), strict=True)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    return path


def as_gzip(folder):
    path = folder / "people.csv.gz"
    path.write_bytes(gzip.compress(as_csv(folder).read_bytes()))
    return path


def as_parquet(folder):
    parquet.write_table(arrow(), folder / "p.parquet", row_group_size=7000)
    return folder / "p.parquet"


def as_feather(folder):
    feather.write_feather(arrow(), folder / "p.feather")
    return folder / "p.feather"


def as_stream_file(folder):
    with pa.ipc.new_stream(folder / "p.arrow", arrow().schema) as file:
        file.write_table(arrow(), max_chunksize=3000)
    return folder / "p.arrow"


def as_npz(folder):
    np.savez(folder / "p.npz", **PEOPLE)
    return folder / "p.npz"


def as_npy_folder(folder):
    (folder / "parts").mkdir()
    for name, values in PEOPLE.items():
        np.save(folder / "parts" / f"{name}.npy", values)
    return folder / "parts"


def as_parquet_folder(folder):
    (folder / "parts").mkdir()
    for start in range(0, COUNT, 6000):
        piece = arrow().slice(start, 6000)
        parquet.write_table(piece, folder / "parts" / f"{start:05}.parquet")
    (folder / "parts" / "_SUCCESS").write_text("")
    return folder / "parts"


def as_dicts(folder):
    class Source:
        def __len__(self):
            return COUNT

        def __getitem__(self, n):
            return {name: values[n] for name, values in PEOPLE.items()}

    return Source()


class Stream:
    """Anything of the protocol, and nothing else."""

    def __init__(self, table):
        self.table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self.table.__arrow_c_stream__(requested_schema)


SOURCES = {
    "csv": as_csv,
    "semicolons": lambda folder: as_csv(folder, ";"),
    "gzip": as_gzip,
    "parquet": as_parquet,
    "feather": as_feather,
    "arrow": as_stream_file,
    "npz": as_npz,
    "npy": as_npy_folder,
    "parts": as_parquet_folder,
    "rows": as_dicts,
    "dict": lambda folder: PEOPLE,
    "table": lambda folder: arrow(),
    "stream": lambda folder: Stream(arrow()),
    "reader": lambda folder: arrow().to_reader(max_chunksize=999),
}


def wanted():
    age = np.clip(PEOPLE["age"], 18, 90)
    colour = [["teal", "rust", "blue"].index(c) for c in PEOPLE["colour"]]
    return (age - 18) / 72, np.array(colour), PEOPLE["answer"]


@pytest.mark.parametrize("source", SOURCES)
def test_the_same_rows_from_anywhere(source, tmp_path):
    table = read(SOURCES[source](tmp_path), SCHEMA)
    rows = table.rows.take(np.arange(COUNT))
    age, colour, answer = wanted()
    np.testing.assert_allclose(rows["numbers"][:, 0], age, atol=1e-6)
    np.testing.assert_array_equal(rows["codes"][:, 0], colour)
    np.testing.assert_array_equal(rows["label"], answer)
    assert len(table.rows) == COUNT
    assert table.unit_ids is None


def test_a_stream_is_read_again_where_it_can_be():
    origin = open_origin(Stream(arrow()))
    for _ in range(2):
        assert sum(len(b["age"]) for b in origin.read(["age"])) == COUNT


def test_rows_on_disk_are_those_in_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("DPKIT_CACHE", str(tmp_path))
    fields = read(PEOPLE, SCHEMA).layout.fields
    whole = read(PEOPLE, SCHEMA).rows.take(np.arange(COUNT))
    for most in (0, 1000, 10**9):
        spool = Spool(fields, in_memory=most)
        for start in range(0, COUNT, 777):
            spool.add({n: v[start : start + 777] for n, v in whole.items()})
        rows = spool.rows()
        assert isinstance(rows, ArrayRows if most == 10**9 else FileRows)
        assert as_rows(rows) is rows
        some = DRAWS.integers(0, COUNT, 500)
        for name, values in rows.take(some).items():
            np.testing.assert_array_equal(values, whole[name][some])
        assert rows.example == dict(fields)
        assert len(rows) == COUNT
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]  # without a name
    blocks = b"".join(block.tobytes() for block in rows_on_disk(fields, whole).blocks())
    assert (
        len(blocks)
        == COUNT * np.dtype([(n, f.dtype, f.shape) for n, f in fields.items()]).itemsize
    )


def rows_on_disk(fields, whole) -> Any:
    spool = Spool(fields, in_memory=0)
    spool.add(whole)
    return spool.rows()


def test_one_row_changed_on_disk_is_another_fingerprint(tmp_path, monkeypatch):
    from dpkit.jobs.roots import Roots

    monkeypatch.setenv("DPKIT_CACHE", str(tmp_path))
    fields = read(PEOPLE, SCHEMA).layout.fields
    whole = read(PEOPLE, SCHEMA).rows.take(np.arange(COUNT))
    roots = Roots.insecure(1)
    first = roots.fingerprint(rows_on_disk(fields, whole))
    assert roots.fingerprint(rows_on_disk(fields, whole)) == first
    whole["label"][12_345] ^= 1
    assert roots.fingerprint(rows_on_disk(fields, whole)) != first


def test_no_rows_at_all(tmp_path):
    (tmp_path / "none.csv").write_text("age,colour,answer\n")
    table = read(tmp_path / "none.csv", SCHEMA)
    assert len(table.rows) == 0
    assert table.rows.take(np.zeros(3, int))["numbers"].shape == (3, 1)


def test_users_are_numbered_and_nobodys_rows_left_out(tmp_path):
    path = tmp_path / "u.csv"
    path.write_text("who,age,colour,answer\nann,20,teal,0\n,30,teal,0\nbob,40,teal,0\n"
                    " ann ,50,teal,0\n")  # fmt: skip
    table: Any = read(path, Schema.read(SCHEMA, unit_column="who"))
    assert table.unit_ids.tolist() == [0, 1, 0]
    assert len(table.rows) == 3
    many: Any = read(PEOPLE, Schema.read(SCHEMA, unit_column="who"))
    _, first = np.unique(PEOPLE["who"], return_index=True)
    rank = {PEOPLE["who"][n]: place for place, n in enumerate(sorted(first))}
    assert many.unit_ids.tolist() == [rank[who] for who in PEOPLE["who"]]


def test_a_public_fraction_is_drawn_by_hash_and_no_record_moves_another():
    ages = [float(age) for age in PEOPLE["age"]]
    rows = {"age": ages, "colour": ["teal"] * COUNT, "answer": [0] * COUNT}
    wide = {**SCHEMA.columns, "age": Numeric(low=0, high=120)}
    schema = Schema(columns=wide, label="answer")
    table: Any = read(rows, schema, public_fraction=0.3)
    assert len(table.rows) + len(table.public) == COUNT
    # Of 1,201 ages each is public with probability .3; 6 standard deviations.
    assert abs(len(table.public) - 6000) < 6 * np.sqrt(0.21 / 1201) * COUNT
    without = {name: values[1:] for name, values in rows.items()}
    less: Any = read(without, schema, public_fraction=0.3)
    for part in ("rows", "public"):
        before, after = (
            sorted(t.take(np.arange(len(t)))["numbers"][:, 0].tolist())
            for t in (getattr(table, part), getattr(less, part))
        )
        extra = len(before) - len(after)
        assert extra in (0, 1)
        for value in after:
            before.remove(value) if extra else None
        assert len(before) == (1 if extra else len(after))


def test_a_persons_rows_are_on_one_side():
    table: Any = read(
        PEOPLE, Schema.read(SCHEMA, unit_column="who"), public_fraction=0.5
    )
    private = len(np.unique(table.unit_ids))
    assert 180 < private < 320  # of 500
    public = chosen([str(who) for who in PEOPLE["who"]], 0.5)
    assert len(table.public) == public.sum()
    assert private == len(set(PEOPLE["who"][~public]))


def encoded(rows, schema=SCHEMA) -> tuple[Any, Any]:
    table = read(rows, schema)
    return table, table.rows.take(np.arange(len(table.rows)))


STRANGERS = [
    "n/a",
    None,
    True,
    10**30,
    b"\xff",
    [1],
    {"a": 1},
    object(),
    "\ud800",
    1e400,
]


@pytest.mark.parametrize("stranger", STRANGERS, ids=range(len(STRANGERS)))
@pytest.mark.parametrize("form", ["dict", "rows"])
def test_a_stranger_changes_nobody_elses_row(stranger, form):
    schema = Schema.read(
        {
            "grade": {"kind": "categorical", "categories": [1, 2.5, True]},
            "age": {"kind": "numeric", "low": 0, "high": 10, "nullable": True},
            "born": {"kind": "datetime", "low": "1900-01-01", "high": "2100-01-01"},
            "trace": {"kind": "array", "shape": [2], "low": 0, "high": 1},
            "note": {"kind": "text", "length": 4},
            "ok": {"kind": "boolean"},
        },
        unit_column="who",
    )
    rows = {
        "grade": [1.0, 1, "1.00", 2.5, True] * 2000,
        "age": [7, 7.0, "7", 2**53 + 1, False] * 2000,
        "born": ["2000-01-01"] * 10_000,
        "trace": [[0.5, 1], [0, 0.25], None, [1], [1, 1]] * 2000,
        "note": ["a", "b", "", "c", "d"] * 2000,
        "ok": [True, "yes", 1, 0, "no"] * 2000,
        "who": [7.0, 7, "7", "7.0", 8] * 2000,
    }

    def source(columns):
        if form == "dict":
            return columns
        return [
            dict(zip(columns, row, strict=True))
            for row in zip(*columns.values(), strict=True)
        ]

    table, before = encoded(source(rows), schema)
    more = {name: [*values, stranger] for name, values in rows.items()}
    more["who"][-1] = "stranger"
    other, after = encoded(source(more), schema)
    for name, values in before.items():
        np.testing.assert_array_equal(values, after[name][: len(values)], err_msg=name)
    assert table.unit_ids.tolist() == other.unit_ids[:-1].tolist()
    assert set(table.unit_ids) == {0, 1}
    assert all(np.isfinite(values).all() for values in after.values())


def test_a_number_is_the_same_person_and_category_however_it_is_written(tmp_path):
    (tmp_path / "a.csv").write_text("who,grade\n7,1\n7.0,1.0\n 7.00 ,01\n")
    schema = Schema.read(
        {"grade": {"kind": "categorical", "categories": [1, "True"]}}, unit_column="who"
    )
    table, rows = encoded(tmp_path / "a.csv", schema)
    assert table.unit_ids.tolist() == [0, 0, 0]
    assert rows["codes"][:, 0].tolist() == [0, 0, 2]  # 01 is a code, no number
    for values in (["true"], ["True"], [True], pa.array([True])):
        _, rows = (
            encoded({"who": [1], "grade": values}, schema)
            if isinstance(values, list)
            else encoded(pa.table({"who": [1], "grade": values}), schema)
        )
        assert rows["codes"].tolist() == [[1]]


def test_floats_are_compared_as_they_are_written():
    categories = [1e-5, 0.1, 1.5e-7, 1e22]
    schema = Schema.read({"x": {"kind": "categorical", "categories": categories}})
    for dtype in ("float64", "float32"):
        _, rows = encoded(pa.table({"x": pa.array(categories, dtype)}), schema)
        found = rows["codes"][:, 0].tolist()
        assert found[:3] == [0, 1, 2]
        assert dtype == "float32" or found[3] == 3


def test_no_record_stops_a_run_or_is_quoted(tmp_path):
    nanoseconds = pa.array([1599999999123456789, 2**62, None], pa.timestamp("ns"))
    dates = pa.array([1599999999123, 2**60, None], pa.date64())
    zones = pa.array([1, 2, 3], pa.timestamp("s", tz="Nowhere/Land"))
    for values in (nanoseconds, dates, zones):
        for kind in (
            {"kind": "categorical", "categories": ["a"]},
            {"kind": "numeric", "low": 0, "high": 1},
            {"kind": "datetime", "low": "2020-01-01", "high": "2021-01-01"},
            {"kind": "text", "length": 3},
            {"kind": "array", "shape": [1], "low": 0, "high": 1},
            {"kind": "boolean"},
        ):
            schema = Schema.read({"x": kind}, unit_column="who")
            table, _ = encoded(pa.table({"x": values, "who": values}), schema)
            assert len(table.rows) <= 3


class Broken:
    def __arrow_c_stream__(self, requested_schema=None):
        raise pa.ArrowInvalid("Could not convert 'SECRET 4711' with type str")


def test_an_object_that_fails_is_not_quoted():
    with pytest.raises(ValueError, match="gives no Arrow stream") as caught:
        read(Broken(), SCHEMA)
    assert "SECRET" not in str(caught.value)


def test_a_first_line_may_be_long(tmp_path):
    names = [f"a_rather_long_name_of_a_column_{n}" for n in range(3000)]
    path = tmp_path / "wide.csv"
    path.write_text(",".join(names) + "\n" + ",".join(["1"] * 3000) + "\n")
    schema = Schema.read({names[-1]: {"kind": "numeric", "low": 0, "high": 2}})
    assert encoded(path, schema)[1]["numbers"].tolist() == [[0.5]]


def test_a_table_of_which_no_line_is_a_record_is_refused(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("age,colour,answer\n1,20,teal,0\n2,30,rust,1\n")
    with pytest.raises(ValueError, match="no line has as many values"):
        read(path, SCHEMA)


def test_blank_lines_of_a_single_column_are_records(tmp_path):
    path = tmp_path / "one.csv"
    path.write_text("x\n1\n\n2\n")
    schema = Schema.read({"x": {"kind": "numeric", "low": 0, "high": 2}})
    assert encoded(path, schema)[1]["numbers"].tolist() == [[0.5], [0], [1]]


def test_hidden_folders_are_not_read(tmp_path):
    for place in (tmp_path, tmp_path / ".ipynb_checkpoints"):
        place.mkdir(exist_ok=True)
        (place / "a.csv").write_text("age,colour,answer\n20,teal,0\n")
    assert len(read(tmp_path, SCHEMA).rows) == 1


def test_two_columns_of_one_name_are_refused():
    twice = pa.table([pa.array([1]), pa.array([2])], names=["x", "x"])
    with pytest.raises(ValueError, match="two columns 'x'"):
        read(twice, Schema.read({"x": {"kind": "numeric", "low": 0, "high": 2}}))


def test_a_file_without_names_is_refused_without_showing_a_person(tmp_path):
    path = tmp_path / "bare.csv"
    path.write_text("1987-secret,teal,0\n20,teal,0\n")
    with pytest.raises(
        ValueError, match="no column 'age', 'colour', 'answer'"
    ) as caught:
        read(path, SCHEMA)
    assert "secret" not in str(caught.value)


def test_lines_that_are_no_records_are_passed_over_or_refused(tmp_path):
    path = tmp_path / "odd.csv"
    path.write_text('age,colour,answer\n20,teal,0\nsecret,1\n\n30,"ru\nst",1,8\n'
                    '40,"a, b",1\n')  # fmt: skip
    assert len(read(path, SCHEMA).rows) == 2
    with pytest.raises(ValueError, match="another number of values") as caught:
        read(path, SCHEMA, strict=True)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", None, "doesn't exist"),
        ("a.xls", b"", "no known ending"),
        ("a.parquet", b"PAR1 secret", "can't be read"),
        ("a.npz", b"secret", "can't be read"),
        ("a.arrow", b"secret secret", "can't be read"),
        ("a.csv", b"age,age\n1,2\n", "two columns 'age'"),
    ],
)
def test_files_that_are_none(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path / name, SCHEMA)
    assert "secret" not in str(caught.value)


def test_objects_that_have_no_rows():
    with pytest.raises(TypeError, match="__arrow_c_stream__"):
        read(7, SCHEMA)
    with pytest.raises(ValueError, match="differ in length"):
        read({"age": [1], "colour": ["a", "b"], "answer": [0]}, SCHEMA)


def test_objects_are_never_unpickled(tmp_path):
    trap = np.array([os.system], object)
    np.savez(tmp_path / "trap.npz", age=trap, colour=trap, answer=trap)
    with pytest.raises(ValueError, match="can't be read to its end"):
        read(tmp_path / "trap.npz", SCHEMA)


def pictures(folder):
    for label in ("cat", "dog", "newt"):
        (folder / label).mkdir(parents=True)
        for n in range(3):
            pixels = np.full((4, 4), 10 * n + len(label), np.uint8)
            Pillow.fromarray(pixels).save(folder / label / f"{n}.png")
    (folder / "cat" / "9.jpg").write_bytes(b"damaged")
    (folder / "cat" / ".hidden").write_bytes(b"")


def test_a_folder_of_pictures(tmp_path):
    pictures(tmp_path)
    schema = Schema.read(
        {
            "image": {"kind": "image", "shape": [4, 4, 1]},
            "label": {"kind": "categorical", "categories": ["cat", "dog"]},
        },
        label="label",
    )
    rows = read(tmp_path, schema).rows
    found = rows.take(np.arange(len(rows)))
    assert found["label"].tolist() == [0] * 4 + [1] * 3 + [-1] * 3
    assert found["image"][:, 0, 0, 0].tolist() == [3, 13, 23, 0, 3, 13, 23, 4, 14, 24]


def test_texts_line_by_line(tmp_path):
    (tmp_path / "b.txt").write_text("ba\r\n\n  \nab")
    (tmp_path / "a.md").write_bytes(b"\xff\n")
    schema = Schema.read({"text": {"kind": "text", "length": 3, "characters": "ab"}})
    rows = read(tmp_path / "b.txt", schema).rows
    assert rows.take(np.arange(2))["text"].tolist() == [[2, 1, 3], [1, 2, 3]]
    by_file: Any = read(tmp_path, Schema.read(schema, unit_column="file"))
    assert by_file.unit_ids.tolist() == [0, 1, 1]


def test_a_folder_of_several_kinds_or_columns(tmp_path):
    (tmp_path / "a.csv").write_text("x\n1\n")
    (tmp_path / "b.csv").write_text("y\n1\n")
    with pytest.raises(ValueError, match="differ in their columns"):
        open_origin(tmp_path)
    (tmp_path / "c.parquet").write_text("")
    with pytest.raises(ValueError, match=r"several kinds, \.csv, \.parquet"):
        open_origin(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty folder"):
        open_origin(tmp_path / "empty")


def test_a_schema_needs_no_arrow_and_no_arrays():
    code = (
        "import sys; import dpkit.data.schema, dpkit.data.origins;"
        "assert 'pyarrow' not in sys.modules and 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
