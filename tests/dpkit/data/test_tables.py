"""Adult: how UCI's files are read, and what its public schema makes of them."""

import numpy as np
import pyarrow as pa
import pytest

from dpkit.data import DataUnavailable, tables
from dpkit.data.codes import Codebook
from dpkit.data.inspection import inspect

ROW = (
    "39, State-gov, 77516, Bachelors, 13, Never-married, Adm-clerical, Not-in-family, "
    "White, Male, 2174, 0, 40, United-States, <=50K"
)
OTHER = ROW.replace("39", "52").replace("State-gov", "?").replace("<=50K", ">50K.")


def test_both_files_are_read_without_what_is_no_row(monkeypatch):
    given = {
        "adult.data": f"{ROW}\n{ROW}\n\n".encode(),
        "adult.test": f"|1x3 Cross validator\n{OTHER}\n".encode(),
    }
    monkeypatch.setattr(tables, "load_files", lambda name, **_: given)
    monkeypatch.setattr(tables, "ADULT_TRAIN", 2)
    parts = tables.load_adult()
    assert [len(part["age"]) for part in parts] == [2, 1]
    rows = sorted(
        tuple(part[name][n] for name in ("age", "workclass", "income"))
        for part in parts
        for n in range(len(part["age"]))
    )
    assert rows == [("39", "State-gov", "<=50K")] * 2 + [("52", "?", ">50K")]
    assert list(parts[0]) == list(tables.adult_schema().columns)


@pytest.mark.slow
@pytest.mark.needs_data
def test_the_real_one_and_its_codes():
    try:
        train, held_out = tables.load_adult()
    except DataUnavailable as error:
        pytest.skip(str(error))
    whole = {n: np.concatenate([train[n], held_out[n]]) for n in train}
    assert (len(train["age"]), len(whole["age"])) == (39_000, 48_842)
    assert (whole["income"] == ">50K").sum() == 7841 + 3846  # as UCI counts them
    _, fits = inspect(whole, tables.adult_schema())
    assert all(fit.missing == fit.strange == 0 for fit in fits.values())
    book = Codebook.of(tables.adult_schema())
    texts = {name: pa.array(values) for name, values in whole.items()}
    codes = dict(zip(book.names, book.encode(texts).T, strict=True))
    numbers = {name: whole[name].astype(int) for name in tables._ADULT_NUMBERS}
    expected = {  # the bins of the benchmark
        "age": numbers["age"] - 16,
        "fnlwgt": (numbers["fnlwgt"] - 10_000) // 14_900,
        "education-num": numbers["education-num"] - 1,
        "capital-gain": numbers["capital-gain"] // 1000,
        "capital-loss": numbers["capital-loss"] // 50,
        "hours-per-week": numbers["hours-per-week"] - 1,
    }
    for name, values in expected.items():
        np.testing.assert_array_equal(codes[name], np.clip(values, 0, None))
    assert book.sizes == (85, 9, 100, 16, 7, 15, 6, 5, 2, 100, 100, 99, 42, 2)
