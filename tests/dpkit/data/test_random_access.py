"""Rows by number: a source that is never loaded whole gives the rows of the arrays."""

from typing import Any

import jax
import numpy as np
import pytest

from dpkit.data import ArrayRows, Rows, SourceRows, as_rows
from dpkit.mechanisms import PoissonSampler

ARRAYS = {
    "x": np.random.default_rng(0).normal(size=(9, 4, 2)).astype(np.float32),
    "label": np.arange(9),
}


class Source:
    """Rows one by one, remembering which were asked for."""

    def __init__(self, arrays=ARRAYS):
        self.arrays, self.asked = arrays, []

    def __len__(self):
        return len(self.arrays["label"])

    def __getitem__(self, number):
        self.asked.append(number)
        return {name: leaf[number] for name, leaf in self.arrays.items()}


class Batched(Source):
    """The same, asked for many at once."""

    def __getitems__(self, numbers):
        return [self[number] for number in numbers]


def test_a_source_gives_the_rows_of_the_arrays_and_reads_no_others():
    batch = PoissonSampler(0.4, 9, 9).batch(jax.random.key(1), 0, 9)
    expected = ArrayRows(ARRAYS).take(batch.indices)
    for kind in (Source, Batched):
        source = kind()
        rows = as_rows(source)
        assert isinstance(rows, Rows) and len(rows) == 9
        source.asked.clear()
        found = rows.take(batch.indices)
        assert sorted(source.asked) == sorted(set(batch.indices.tolist()))
        assert len(source.asked) < 9
        for name, leaf in expected.items():
            np.testing.assert_array_equal(found[name], leaf)
            assert found[name].dtype == leaf.dtype
        assert jax.tree.structure(rows.example) == jax.tree.structure(expected)
        assert rows.example["x"].shape == (4, 2)


def test_no_rows_and_no_records():
    assert as_rows(Source()).take(np.zeros(0, np.int32))["x"].shape == (0, 4, 2)
    empty = as_rows({"x": np.ones((0, 3), np.float32)})
    found = empty.take(np.zeros(5, np.int32))["x"]  # padding alone
    assert found.shape == (5, 3) and not found.any()


def test_only_what_is_kept_is_stacked():
    rows = SourceRows(Source(), keep=["label"])
    assert rows.take(np.array([8, 8, 0])).keys() == {"label"}
    assert rows.take(np.array([8, 8, 0]))["label"].tolist() == [8, 8, 0]
    with pytest.raises(ValueError, match="keep='image'"):
        SourceRows(Source(), keep=["image"])


def test_sources_that_can_not_be_sampled_from_are_refused():
    bad: Any = iter([1, 2])
    with pytest.raises(TypeError, match="iterator"):
        as_rows(bad)
    with pytest.raises(ValueError, match="empty"):
        SourceRows([])
    with pytest.raises(ValueError, match="different lengths"):
        as_rows({"x": np.zeros(3), "y": np.zeros(4)})
    with pytest.raises(ValueError, match="different lengths"):
        as_rows({"x": np.zeros(())})
    with pytest.raises(TypeError, match="rows or columns"):
        as_rows([{"x": np.zeros(3)}, {"x": np.zeros(3)}])


@pytest.mark.parametrize(
    "row",
    [
        {"x": np.zeros((4, 3), np.float32), "label": np.int64(0)},
        {"x": np.zeros((4, 2), np.float64), "label": np.int64(0)},
        {"x": np.zeros((4, 2), np.float32)},
    ],
)
def test_rows_that_differ_are_refused_without_telling_their_values(row):
    first = {"x": np.zeros((4, 2), np.float32), "label": np.int64(0)}
    rows = SourceRows([first, row])
    with pytest.raises(ValueError, match="make all rows alike"):
        rows.take(np.array([0, 1]))


@pytest.mark.parametrize("rows", [ArrayRows(ARRAYS), SourceRows(Source())])
def test_numbers_out_of_range_are_refused(rows):
    for bad in ([9], [-1], [0, 100]):
        with pytest.raises(ValueError, match="out of range"):
            rows.take(np.array(bad))
    with pytest.raises(TypeError, match="integers"):
        rows.take(np.array([0.0]))
    with pytest.raises(ValueError, match="one axis"):
        rows.take(np.array([[0]]))


@pytest.mark.slow
def test_a_data_source_of_tfds(tmp_path):
    from tests.dpkit.data.array_records import write_digits

    source, arrays = write_digits(tmp_path)
    rows = as_rows(source)
    indices = np.array([5, 0, 1436, 5])
    found = rows.take(indices)
    for name, leaf in arrays.items():
        np.testing.assert_array_equal(found[name], leaf[indices])
