"""A model: drawing, conditions, error bars, and one file without a secret."""

import functools

import jax
import numpy as np
import pytest

from dpkit.synthetic import PAIRS, Model, Synthesizer
from dpkit.synthetic.counting import open_source
from tests.dpkit.synthetic.test_pairs import BOOK, SCHEMA, counts, people

pytestmark = [pytest.mark.guard, pytest.mark.slow]


@functools.cache
def model():
    """Of 4,000 people."""
    maker = Synthesizer(SCHEMA, PAIRS(epsilon=2.0, delta=1e-6))
    return maker.fit(people(), key=jax.random.key(0))


def test_a_draw_is_a_table_of_the_kind_that_came():
    table = model().sample(100, seed=1)
    assert list(table) == ["sex", "age", "job", "same"]
    assert set(table["sex"]) <= {"F", "M"}
    assert model().sample(10, kind="arrow").num_rows == 10


def test_draws_repeat_by_their_seed():
    one, same, other = (
        model().sample(50, seed=seed, kind="arrow") for seed in (1, 1, 2)
    )
    assert one.equals(same)
    assert not one.equals(other)


def test_more_rows_than_the_model_has():
    many = model().sample(9000, seed=0, kind="arrow")
    assert many.num_rows == 9000
    share = np.mean(np.asarray(many["sex"]) == "F")
    assert abs(share - 0.5) < 0.05


@pytest.mark.parametrize("size", [50, 3000])
def test_conditions_hold_and_the_rest_follows(size):
    table = model().sample(size, where={"sex": "F", "job": ["a", "b"]}, kind="arrow")
    assert table.num_rows == size
    assert set(table["sex"].to_pylist()) == {"F"}
    assert set(table["job"].to_pylist()) <= {"a", "b"}
    real = people()
    met = (real["sex"] == "F") & np.isin(real["job"], ["a", "b"])
    assert abs(np.mean(np.asarray(table["age"])) - real["age"][met].mean()) < 1.5


def test_a_condition_that_hardly_any_row_meets():
    table = model().sample(500, where={"sex": "M", "age": 20}, kind="arrow")
    assert set(table["age"].to_pylist()) == {20}


def test_conditions_outside_the_schema():
    with pytest.raises(ValueError, match="sex"):
        model().sample(5, where={"sex": "Q"})
    with pytest.raises(ValueError, match="hat"):
        model().sample(5, where={"hat": 1})


def test_marginals_have_honest_errors():
    real = open_source(people(), BOOK).rows()
    inside = []
    for columns in [("sex",), ("age",), ("age", "sex"), ("job", "age")]:
        found = model().marginal(columns)
        true = counts(real, [BOOK.names.index(name) for name in columns])
        inside.append((np.abs(found.values - true) <= 2 * found.stddev + 1e-9).ravel())
    assert np.concatenate(inside).mean() > 0.9
    unmeasured = model().marginal(["sex", "age", "job"])
    assert np.isnan(unmeasured.stddev).all()
    assert unmeasured.values.sum() == pytest.approx(model().records)


def test_errors_foretell_how_far_rows_are_off():
    real = open_source(people(), BOOK).rows()
    told, true = [], []
    for names, off in model().errors().items():
        columns = [BOOK.names.index(name) for name in names]
        one = counts(real, columns) / len(real)
        other = counts(model().fitted.rows, columns) / len(model().fitted.rows)
        told.append(off)
        true.append(np.abs(one - other).sum() / 2)
    assert 0.5 < np.mean(told) / np.mean(true) < 2


def test_a_file_keeps_everything_public_and_nothing_else(tmp_path):
    path = tmp_path / "model.safetensors"
    model().save(path)
    again = Model.load(path)
    assert again.receipt == model().receipt
    assert again.schema == SCHEMA
    one, other = (m.sample(4500, seed=3, kind="arrow") for m in (model(), again))
    assert one.equals(other)
    assert Model.load(tmp_path).errors() == model().errors()
    content = path.read_bytes()
    real = open_source(people(), BOOK).rows()
    for columns in [(1,), (0, 1), (1, 2)]:
        true = counts(real, columns)
        for kind in (np.int64, np.int32, np.float64, np.float32):
            for order in (true, true.T):
                assert np.ascontiguousarray(order, kind).tobytes() not in content


def test_files_that_are_none(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"no")
    with pytest.raises(ValueError, match="no synthetic model"):
        Model.load(path)
