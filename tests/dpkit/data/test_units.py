"""Users as units: everyone's own rows, at most k, chosen for each alone."""

import itertools
from typing import Any

import jax
import numpy as np
import pytest

from dpkit.data import UserRows, check_one_row_each
from dpkit.data.units import number_users
from tests.dpkit.data.test_random_access import Source

IDS = np.array(["b", "a", "b", "c", "b", "a", "b"])
X = {"x": np.arange(7) * 10}


def grouped(most=4, key=None, records: Any = X):
    return UserRows(records, IDS, most, key=key)


def test_a_row_is_all_of_one_user():
    rows = grouped()
    records, mask = rows.take(np.array([0, 1, 2]))
    assert len(rows) == 3
    assert mask.tolist() == [[True] * 4, [True] * 2 + [False] * 2, [True] + [False] * 3]
    assert records["x"][0].tolist() == [0, 20, 40, 60]
    assert records["x"][1].tolist() == [10, 50, 10, 10]  # padding: the user's own
    assert records["x"][2].tolist() == [30] * 4
    example, valid = rows.example
    assert (example["x"].shape, valid.shape, valid.dtype) == ((4,), (4,), bool)


def test_users_are_numbered_by_their_first_record():
    assert number_users(IDS, 7).tolist() == [0, 1, 0, 2, 0, 1, 0]
    assert number_users([9, -4, 9], 3).tolist() == [0, 1, 0]


def test_against_a_plain_loop():
    rng = np.random.default_rng(3)
    ids = rng.integers(0, 12, 60)
    for most in (1, 3, 10):
        rows = UserRows({"x": np.arange(60)}, ids, most, key=jax.random.key(0))
        order = list(dict.fromkeys(ids.tolist()))
        assert len(rows) == len(order)
        records, mask = rows.take(np.arange(len(order)))
        for user, values, valid in zip(order, records["x"], mask, strict=True):
            own = set(np.flatnonzero(ids == user).tolist())
            kept = values[valid].tolist()
            assert set(values.tolist()) <= own
            assert kept == sorted(set(kept))
            assert len(kept) == min(most, len(own))


@pytest.mark.slow
def test_which_records_stay_is_uniform_and_independent_between_users():
    # Two of user b's 4 records: 6 pairs; one each of b's 4 and a's 2: 8 cells.
    ids = np.array(["b", "a", "b", "b", "a", "b"])
    seen: dict[Any, int] = {}
    kept_two: dict[Any, int] = {}
    for key in jax.random.split(jax.random.key(0), 1500):
        two, _ = UserRows({"x": np.arange(6)}, ids, 2, key=key).take(np.array([0]))
        pair = tuple(two["x"][0].tolist())
        kept_two[pair] = kept_two.get(pair, 0) + 1
        one, _ = UserRows(
            {"x": np.arange(6)}, ids, 1, key=jax.random.fold_in(key, 1)
        ).take(np.array([0, 1]))
        cell = tuple(one["x"][:, 0].tolist())
        seen[cell] = seen.get(cell, 0) + 1
    assert set(kept_two) == set(itertools.combinations((0, 2, 3, 5), 2))
    assert set(seen) == set(itertools.product((0, 2, 3, 5), (1, 4)))
    # Chi-squared of 5 degrees of freedom exceeds 35.9, of 7 exceeds 40.5, with
    # chance 1e-6.
    for cells, limit in ((kept_two, 35.9), (seen, 40.5)):
        mean = 1500 / len(cells)
        assert sum((n - mean) ** 2 / mean for n in cells.values()) < limit


def test_the_choice_is_the_key_s_and_a_key_is_needed_only_for_a_choice():
    first, again, other = (
        grouped(2, jax.random.key(seed)).take(np.array([0]))[0]["x"].tolist()
        for seed in (0, 0, 3)
    )
    assert first == again != other
    with pytest.raises(ValueError, match="a key of its own"):
        grouped(2)
    legacy: Any = jax.random.PRNGKey(0)
    with pytest.raises(TypeError, match="key="):
        grouped(2, legacy)


def test_records_may_be_a_source():
    source = Source({"x": np.arange(7) * 10, "label": np.arange(7)})
    rows = grouped(records=source)
    source.asked.clear()
    found, mask = rows.take(np.array([1]))
    expected, _ = grouped().take(np.array([1]))
    assert found["x"].tolist() == expected["x"].tolist()
    assert sorted(source.asked) == [1, 5]
    assert mask.shape == (1, 4)


def test_nobody_at_all():
    rows = UserRows({"x": np.zeros((0, 2))}, np.zeros(0, int), 3)
    records, mask = rows.take(np.zeros(4, np.int32))
    assert len(rows) == 0
    assert records["x"].shape == (4, 3, 2) and not mask.any()


def test_bad_ids_are_refused():
    for ids, kind in (
        (IDS[:6], ValueError),
        (IDS.reshape(7, 1), ValueError),
        (np.arange(7.0), TypeError),
        (np.array([None] * 7), TypeError),
        ([True] * 7, TypeError),
    ):
        with pytest.raises(kind, match="unit_ids"):
            UserRows(X, ids, 4)
    for most in (0, True, 1.5):
        wrong: Any = most
        with pytest.raises((ValueError, TypeError), match="max_records"):
            UserRows(X, IDS, wrong)
    with pytest.raises(ValueError, match=r"repeats an id.*UserRows"):
        check_one_row_each(IDS, 7)
    check_one_row_each(np.arange(7), 7)
