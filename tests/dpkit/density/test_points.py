"""Points out of files of every kind; a record is a row, and is never told."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from dpkit.density.points import open_points

ROWS = np.array([[1.5, 2.0], [-3.0, 4.25], [0.5, 1e3]])
TEXT = "1.5,2\n-3,4.25\n.5,1e3\n"


def points(source, **options):
    found = open_points(source, **options)
    return np.concatenate([batch.points for batch in found.batches()])


def table(rows=ROWS):
    return pa.table({"x": rows[:, 0], "name": ["a", "b", "c"], "y": rows[:, 1]})


def arrow(path):
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table().schema) as w:
        w.write_table(table())


WRITERS = {
    "points.csv": lambda path: path.write_text("x,y\n" + TEXT),
    "bare.csv": lambda path: path.write_text(TEXT),
    "marked.csv": lambda path: path.write_text("\ufeff" + TEXT),
    "quoted.csv": lambda path: path.write_text('"1.5","2"\r\n-3,4.25\r\n.5,1e3\r\n'),
    "points.tsv": lambda path: path.write_text(TEXT.replace(",", "\t")),
    "points.parquet": lambda path: pyarrow.parquet.write_table(table(), path),
    "points.arrow": arrow,
    "points.npy": lambda path: np.save(path, ROWS),
    "points.npz": lambda path: np.savez(
        path, x=ROWS[:, 0], name=["a", "b", "c"], y=ROWS[:, 1]
    ),
    "both.npz": lambda path: np.savez(path, both=ROWS),
}


@pytest.mark.parametrize("name", WRITERS)
def test_all_kinds_of_files_hold_the_same_points(tmp_path, name):
    WRITERS[name](tmp_path / name)
    assert points(tmp_path / name).tolist() == ROWS.tolist()


@pytest.mark.parametrize("name", ["points.csv", "bare.csv", "points.parquet"])
def test_a_folder_of_them(tmp_path, name):
    for part in ("a", "b"):
        WRITERS[name](tmp_path / f"{part}-{name}")
    assert points(tmp_path).tolist() == [*ROWS.tolist()] * 2


def test_columns_by_name_in_the_order_that_is_asked_for(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("x,who,y\n1,ann,2\n")
    assert points(path, columns=["y", "x"]).tolist() == [[2.0, 1.0]]
    assert open_points(path).dimension == 3  # nothing tells that names are none
    path.write_text("2020_1,2020_2\n1,2\n")
    assert points(path).tolist() == [[1.0, 2.0]]
    path.write_text("5,6,7\n")
    assert points(path, columns=["3", "1"]).tolist() == [[7.0, 5.0]]
    wide = {"x": np.ones(3), "e": np.zeros((3, 4))}
    assert points(wide, columns=["e", "x"]).shape == (3, 5)


def test_whatever_is_no_number_is_nan_and_a_line_of_another_length_is_no_record(
    tmp_path,
):
    path = tmp_path / "a.csv"
    path.write_text("1,2\n3,x\n,4\n5\n6,7,8\n nan,1\n 9 , 1 \nTrue,0x10\n1e999,1\n")
    found = points(path)
    nan = np.nan
    assert np.array_equal(
        found,
        [[1, 2], [3, nan], [nan, 4], [nan, 1], [9, 1], [1, nan], [np.inf, 1]],
        equal_nan=True,
    )


def test_a_row_is_read_as_it_would_be_alone(tmp_path):
    """Whichever way a batch is read, by all cells at once or one by one."""
    cells = ["1", "-2.5", "1e-3", ".5", "7.", "+4", "12345678901234567890", "1e400"]
    cells += ["", "x", " 3", "0x1", "inf", "nan", "true", "1_0", "\u0661"]
    path = tmp_path / "a.csv"

    def one(lines):
        path.write_text("x,y\n" + "".join(f"{cell},0\n" for cell in lines))
        return points(path)[:, 0]

    # Infinite or no number: both count for none.
    together, alone = one(cells), np.concatenate([one([cell]) for cell in cells])
    finite = np.isfinite(alone)
    assert (np.isfinite(together) == finite).all()
    assert (together[finite] == alone[finite]).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"columns": ["z"]}, "has no column 'z'"),
        ({"columns": ["x", "x"]}, "the same name"),
        ({"columns": ["name"]}, "neither numbers nor lists"),
        ({"weight": "w"}, "has no column 'w'"),
    ],
)
def test_columns_that_are_not_there(options, words):
    with pytest.raises(ValueError, match=words):
        open_points(table(), **options)


def test_a_source_without_numbers_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("words\n")
    for source in ({"name": ["a"]}, tmp_path / "a.txt"):
        with pytest.raises(ValueError, match="has none of numbers"):
            open_points(source)


def test_no_error_quotes_a_record(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("4711,13\n5,6\n")
    with pytest.raises(ValueError) as caught:
        open_points(path, columns=["x"])
    assert "4711" not in str(caught.value)
    broken = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pa.table({"x": np.arange(9000.0)}), broken)
    content = bytearray(broken.read_bytes())
    content[100:20000] = b"4711" * (len(content[100:20000]) // 4)
    broken.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="can't be read to its end") as caught:
        points(broken)
    assert "4711" not in str(caught.value)


def owned(rows):
    """Rows (owner, x, weight) as a source."""
    owners, x, weights = zip(*rows, strict=True)
    return {"who": list(owners), "x": np.array(x, float), "w": np.array(weights, float)}


def capped(rows, most=2):
    found = open_points(owned(rows), columns=["x"], weight="w", owner="who")
    batches = list(found.capped(most))
    x = np.concatenate([batch.points[:, 0] for batch in batches])
    weights = [batch.weights for batch in batches if batch.weights is not None]
    return sorted(zip(x, np.concatenate(weights), strict=True))


def test_which_points_of_a_unit_count_depends_on_that_unit_alone():
    rng = np.random.default_rng(0)
    rows = [(f"p{rng.integers(40)}", rng.normal(), 1.0) for _ in range(300)]
    rows += [("", 99.0, 1.0), (None, 98.0, 1.0)]
    whole = capped(rows)
    by_owner = {
        owner: capped([row for row in rows if row[0] == owner])
        for owner in {row[0] for row in rows if row[0]}
    }
    assert all(1 <= len(kept) <= 2 for kept in by_owner.values())
    assert whole == sorted(pair for kept in by_owner.values() for pair in kept)
    assert capped(rows[::-1]) == whole
    assert capped(rows, most=300) == sorted((x, w) for o, x, w in rows if o)


def test_points_that_count_for_none_take_no_place_and_others_are_drawn_fairly():
    kept = [
        capped([(f"p{n}", 1, 1), (f"p{n}", 2, 1), (f"p{n}", np.nan, 1)], 1)[0][0]
        for n in range(400)
    ]
    # Of 400 fair coins fewer than 140 or more than 260 heads: 2e-9.
    assert 140 < kept.count(1.0) < 260 and set(kept) == {1.0, 2.0}


def test_a_source_that_changes_between_both_readings_is_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("who,x\na,1\na,2\n")
    found = open_points(path, columns=["x"], owner="who")
    batches = found.capped(1, lambda text: None)
    real = type(found).batches

    def grows(self, tell=None):
        yield from real(self, tell)
        path.write_text("who,x\na,1\n")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(found), "batches", grows)
        with pytest.raises(ValueError, match="changed while it was read"):
            list(batches)
