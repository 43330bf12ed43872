"""Rules of a schema: what they forbid, by trying every combination of values."""

import itertools

import numpy as np
import pytest

from dpkit.data.codes import Codebook
from dpkit.data.schema import Schema

COLUMNS = {
    "sex": {"kind": "categorical", "categories": ["F", "M"], "nullable": True},
    "start": {"kind": "ordinal", "low": 0, "high": 4, "nullable": True},
    "end": {"kind": "ordinal", "low": 0, "high": 4, "nullable": True},
    "low": {"kind": "numeric", "low": 0, "high": 10, "bins": 5, "granularity": 1},
    "high": {"kind": "numeric", "low": 0, "high": 10, "bins": 5, "granularity": 1},
}


def book(*rules):
    """A codebook with some rules."""
    return Codebook.of(Schema.read({"columns": COLUMNS, "rules": list(rules)}))


def allowed(made, *names):
    """The labels of some columns that may come together."""
    numbers = [made.names.index(name) for name in names]
    found = set()
    for codes in itertools.product(*(range(made.sizes[n]) for n in numbers)):
        bad = False
        for one in made.forbidden:
            if set(one.columns) <= set(numbers):
                place = tuple(codes[numbers.index(n)] for n in one.columns)
                bad |= bool(one.mask[place])
        if not bad:
            labels = zip(names, codes, strict=True)
            found.add(tuple(made.labels(name)[code] for name, code in labels))
    return found


@pytest.mark.parametrize("sign", ["<=", "<", ">=", ">", "=="])
def test_comparisons_hold_or_a_side_is_missing(sign):
    import operator

    signs = {
        "<=": operator.le,
        "<": operator.lt,
        ">=": operator.ge,
        ">": operator.gt,
        "==": operator.eq,
    }
    found = allowed(book({"require": f"start {sign} end"}), "start", "end")
    values = ["0", "1", "2", "3", "4", ""]
    for pair in itertools.product(values, values):
        fine = "" in pair or signs[sign](int(pair[0]), int(pair[1]))
        assert (pair in found) == fine


def test_bins_are_forbidden_only_where_no_values_fit():
    made = book({"require": "low <= high"})
    (rule,) = made.forbidden
    assert not rule.mask[np.triu_indices(5)].any()
    assert rule.mask[np.tril_indices(5, -1)].all()


def test_decoded_rows_keep_comparisons_inside_bins():
    made = book({"require": "low <= high"}, {"require": "start <= end"})
    generator = np.random.default_rng(0)
    codes = np.stack([generator.integers(0, s, 4000) for s in made.sizes], axis=1)
    fine = np.ones(len(codes), bool)
    for rule in made.forbidden:
        fine &= ~rule.mask[tuple(codes[:, n] for n in rule.columns)]
    table = made.decode(codes[fine], generator)
    low, high = np.asarray(table["low"]), np.asarray(table["high"])
    assert (low <= high).all()
    again = made.encode({n: table[n].combine_chunks() for n in made.names})
    np.testing.assert_array_equal(again, codes[fine])


def test_what_is_forbidden_implied_and_missing_together():
    found = allowed(book({"forbid": {"sex": "M", "start": [3, 4]}}), "sex", "start")
    assert ("M", "3") not in found
    assert {("M", "2"), ("F", "3"), ("", "4")} <= found
    rule = {"implies": {"if": {"start": 0}, "then": {"sex": "F"}}}
    found = allowed(book(rule), "start", "sex")
    assert ("0", "M") not in found
    assert {("0", "F"), ("0", ""), ("1", "M")} <= found
    found = allowed(book({"together": ["start", "end"]}), "start", "end")
    assert ("", "1") not in found
    assert ("2", "") not in found
    assert {("", ""), ("1", "2")} <= found


def test_a_moment_may_be_any_time_of_a_day():
    schema = {
        "columns": {
            "at": {
                "kind": "datetime",
                "low": "2020-01-01T00:00:00",
                "high": "2020-01-04T00:00:00",
                "bins": 3,
                "step": 3600,
            },
            "day": {
                "kind": "datetime",
                "low": "2020-01-01",
                "high": "2020-01-04",
                "bins": 3,
                "step": 86400,
            },
        },
        "rules": [{"require": "at <= day"}],
    }
    made = Codebook.of(schema)
    codes = np.array([[0, 0], [1, 1], [2, 2], [1, 2]] * 200)
    table = made.decode(codes, np.random.default_rng(0))
    for at, day in zip(table["at"].to_pylist(), table["day"].to_pylist(), strict=True):
        assert at[:10] <= day


@pytest.mark.parametrize(
    "rule",
    [
        {"forbid": {"hat": 1}},
        {"forbid": {"sex": "Q"}},
        {"forbid": {"sex": ["F", "M", "(other)", None]}},
        {"require": "sex <= start"},
        {"require": "start ~ end"},
        {"require": "start <= start"},
        {"require": 5},
        {"implies": {"if": {"sex": "F"}}},
        {"together": ["sex", "low"]},
        {"forget": {}},
        {},
        "start <= end",
    ],
)
def test_rules_that_are_none(rule):
    with pytest.raises((ValueError, TypeError), match=r"rules|hat|sex"):
        book(rule)
