"""What discovery tells, what it costs, and what it never tells."""

import math
from typing import Any

import jax
import numpy as np
import pytest

from dpkit.accountants import Budget, BudgetExceeded, Ledger, UnsupportedRelation
from dpkit.accountants.answers.errors import Incompatible
from dpkit.accountants.events import flatten
from dpkit.accountants.events.notation import from_json
from dpkit.data.codes import Codebook
from dpkit.synthetic.counting import open_source
from dpkit.synthetic.discovery import Undiscovered, discover
from dpkit.synthetic.ladders import Ladder, threshold_of

pytestmark = pytest.mark.slow

WORD, NUMBER = {"kind": "categorical"}, {"kind": "numeric"}


def ledger_of(epsilon=1.0, delta=1e-6, **more):
    told: Any = {"relation": "add_remove", "unit": "record", "dataset": "t"} | more
    return Ledger.open(None, budget=Budget(epsilon, delta), **told)


def spent(ledger) -> Any:
    return ledger.spent().upper


def found(table, columns, epsilon=1.0, delta: Any = 1e-6, seed=0, **more) -> Any:
    key = jax.random.key(seed)
    book = ledger_of(epsilon, delta or 0.0, **more)
    return discover(table, columns, book, epsilon=epsilon, delta=delta, key=key)


def people(n=20_000, seed=0):
    draws = np.random.default_rng(seed)
    return {
        "city": [
            *draws.choice(["Ulm", "Bonn", "Kiel"], n - 1, p=[0.6, 0.39, 0.01]),
            "X",
        ],
        "pay": np.append(draws.lognormal(8, 1, n - 1), 1e12),
        "age": draws.integers(18, 90, n),
        "debt": -draws.exponential(100, n),
        "born": draws.normal(1970, 10, n),
    }


def test_numbers_lie_in_their_leaves():
    draws = np.random.default_rng(0)
    values = draws.normal(size=2000) * 10.0 ** draws.integers(-17, 17, 2000)
    special = [0.0, -0.0, 1.0, -1.0, 2.0, -8.0, 0.75, 5e-324, -5e-324, 2.0**59]
    values = np.append(values, special)
    for ladder in (Ladder(None), Ladder((-3.0, 7.0)), Ladder((2.0, 1e6), "log1p")):
        edges, leaves = ladder.edges, ladder.leaves(values)
        assert (np.diff(edges) > 0).all()
        assert len(edges) - 1 == ladder.sizes[0] * 256
        inside = np.clip(values, edges[0], edges[-2])
        assert (edges[leaves] <= inside).all()
        assert (inside < edges[leaves + 1]).all()
    assert Ladder((-3.0, 7.0)).edges[[0, -1]].tolist() == [-3.0, 7.0]
    both = Ladder(None).leaves(np.array([np.inf, -np.inf, 1e300]))
    assert both.tolist() == [243 * 256 - 1, 0, 243 * 256 - 1]


@pytest.mark.parametrize(
    ("values", "bounds"),
    [
        ([18, 90], (16, 128)),
        ([0], (0, 0)),
        ([0, 1], (0, 2)),
        ([-8, 3], (-8, 4)),
        ([-0.3], (-0.5, -0.25)),
        ([0.25, 1e30], (0.25, 2.0**60)),
        ([], None),
    ],
)
def test_bounds_are_powers_of_two_around_what_is_there(values, bounds):
    ladder = Ladder(None)
    cells = ladder.leaves(np.array(values, float)) // 256
    assert ladder.bounds_of(np.bincount(cells, minlength=243), 1) == bounds


def levels_of(ladder, values):
    leaves = np.bincount(ladder.leaves(values), minlength=len(ladder.edges) - 1)
    return [leaves.reshape(-1, d).sum(axis=1) for d in ladder.divisors]


@pytest.mark.parametrize(
    "ladder", [Ladder(None, fine=True), Ladder((0, 9e4), "log1p", True)]
)
def test_without_noise_bins_are_about_equally_full(ladder):
    values = np.random.default_rng(1).lognormal(8, 1, 50_000)
    inner = ladder.quantiles(levels_of(ladder, values), 1e-9, 20)
    shares = np.histogram(values, [0, *inner, np.inf])[0] / len(values)
    # A leaf between powers of two is 1/256 to 1/512 of a value wide.
    assert len(inner) == 19 and abs(shares - 0.05).max() < 0.002


def test_quantiles_hold_in_noise():
    draws = np.random.default_rng(2)
    ladder, values = Ladder(None, fine=True), draws.normal(1970, 10, 50_000)
    noise = 30.0  # epsilon = 0.1 for three levels
    noisy = [c + draws.laplace(0, noise, len(c)) for c in levels_of(ladder, values)]
    inner = ladder.quantiles(noisy, noise, 8)
    shares = np.histogram(values, [-np.inf, *inner, np.inf])[0] / len(values)
    # Leaves are four years wide there, so a bin may be off by half of one.
    assert abs(shares - 1 / 8).max() < 0.06
    assert ladder.quantiles([0 * c for c in noisy], noise, 8) == []


def test_a_whole_table():
    columns = {
        "city": WORD,
        "pay": NUMBER | {"edges": "quantiles", "bins": 8},
        "age": {"kind": "ordinal"},
        "debt": NUMBER,
        "born": NUMBER | {"low": 1900, "high": 2000, "edges": "quantiles", "bins": 4},
        "sex": {"kind": "boolean"},
    }
    table = people() | {"sex": [True] * 20_000}
    schema = found(table, {"columns": columns, "label": "sex"})
    city, pay, age, debt, born = list(schema.columns.values())[:5]
    assert list(schema.columns) == list(columns) and schema.label == "sex"
    assert city.categories == ("Bonn", "Kiel", "Ulm") and city.other
    assert pay.low < 400 and 2**16 <= pay.high <= 2**19 and len(pay.edges) == 9
    shares = np.histogram(table["pay"], pay.edges)[0] / 20_000
    assert abs(shares - 1 / 8).max() < 0.03
    assert (age.low, age.high) == (16, 127)
    assert -4096 <= debt.low <= -512 and -1 <= debt.high <= 0
    assert abs(np.array(born.edges) - [1900, 1963.26, 1970, 1976.74, 2000]).max() < 1
    counts = open_source(table, Codebook.of(schema)).count([(0,), (1,), (4,)])
    assert all(one.sum() == 20_000 for one in counts)


def test_the_sum_of_events_is_what_was_granted():
    columns = {f"w{n}": WORD for n in range(3)} | {f"x{n}": NUMBER for n in range(4)}
    table = {name: ["7"] * 3000 for name in columns}
    book = ledger_of(0.7, 1e-7)
    discover(table, columns, book, epsilon=0.7, delta=1e-7, key=jax.random.key(0))
    (entry,) = [one for one in book.entries() if one.kind == "reserve"]
    events: Any = flatten(from_json(entry.body["event"]))
    assert sum(e.epsilon * n for e, n in events) == pytest.approx(0.7, abs=1e-9)
    deltas = [getattr(event, "delta", 0.0) * n for event, n in events]
    assert sum(deltas) == pytest.approx(1e-7, rel=1e-9)
    assert spent(book) <= 0.7
    with pytest.raises(BudgetExceeded):
        discover(table, columns, book, epsilon=0.7, delta=1e-7)


def test_one_unit_alone_tells_nothing_of_itself():
    n = 5000
    table = {
        "who": [*range(n), *["loud"] * n],
        "word": [*["a"] * n, *["secret"] * n],
        "pay": [*[3.0] * n, *[1e6] * n],
    }
    columns = {"columns": {"word": WORD, "pay": NUMBER}, "unit_column": "who"}
    for seed in range(2):
        schema = found(table, columns, seed=seed)
        assert schema.columns["word"].categories == ("a",)
        assert schema.columns["pay"].high == 4.0
        assert schema.unit_column == "who"


def test_noise_alone_seldom_seems_full():
    # 0.01 a ladder at most; 30 ladders, three or more: below 4e-3 if all were at it.
    table = {f"x{n}": [1.0] * 5000 for n in range(30)}
    schema = found(table, dict.fromkeys(table, NUMBER), epsilon=3.0, delta=None)
    wrong = [c for c in schema.columns.values() if (c.low, c.high) != (1.0, 2.0)]
    assert len(wrong) < 3
    assert threshold_of(10.0, 243) == 10 * math.log(24300)


def test_texts_are_those_that_a_schema_compares():
    table = {"w": [1, "1", 1.0, " 1 ", "1.00", None, "", np.nan] * 500}
    schema = found(table, {"w": WORD | {"nullable": True, "other": False}})
    assert schema.columns["w"].categories == ("1",)
    assert schema.columns["w"].nullable and not schema.columns["w"].other


def test_trees_keep_their_levels():
    table = {"icd": ["A01", "A02", "B05"] * 400}
    schema = found(table, {"icd": {"kind": "tree", "prefixes": [1]}})
    assert schema.columns["icd"].categories == ("A01", "A02", "B05")
    assert schema.columns["icd"].prefixes == (1,)


def test_what_noise_hides_is_named_after_the_charge():
    table = {"w": ["a", "b"] * 3, "x": [1.0] * 6, "y": [True] * 6}
    book = ledger_of()
    columns = {"w": WORD, "x": NUMBER, "y": {"kind": "boolean"}}
    with pytest.raises(Undiscovered, match="'w', 'x' can't be told") as caught:
        discover(table, columns, book, epsilon=0.5, delta=1e-7, key=jax.random.key(0))
    schema: Any = caught.value.schema
    assert list(schema.columns) == ["y"]
    assert spent(book) > 0.4
    with pytest.raises(Undiscovered) as caught:
        found({"w": []}, {"w": WORD})
    assert caught.value.schema is None


class Unreadable:
    """A table whose names are known, and whose rows fail."""

    def __len__(self):
        return 2

    def __getitem__(self, place):
        if place:
            raise RuntimeError("secret")
        return {"w": "a"}


def test_nothing_is_charged_for_a_table_that_fails():
    book = ledger_of()
    with pytest.raises(ValueError, match="read to its end") as caught:
        discover(Unreadable(), {"w": WORD}, book, epsilon=1.0, delta=1e-7)
    assert "secret" not in str(caught.value) and spent(book) == 0


def test_a_poor_ledger_is_asked_before_a_row_is_read():
    with pytest.raises(BudgetExceeded):
        discover(Unreadable(), {"w": WORD}, ledger_of(0.9), epsilon=1.0, delta=1e-7)


@pytest.mark.parametrize(
    ("columns", "given", "message"),
    [
        ({"w": {"kind": "boolean"}}, {}, "nothing is to be found"),
        ({"w": NUMBER | {"low": 0, "high": 1}}, {}, "nothing is to be found"),
        ({"w": NUMBER | {"low": 0}}, {}, "nothing is to be found"),
        ({"w": WORD, "x": NUMBER | {"low": 0}}, {}, "schema.x lacks high"),
        ({"w": WORD, "x": {"low": 0}}, {}, "schema.x lacks kind"),
        ({"w": WORD, "t": {"kind": "datetime"}}, {}, "schema.t lacks"),
        ({"w": {"kind": "ordinal", "edges": "quantiles"}}, {}, "edges"),
        ({"w": NUMBER | {"bins": 1}}, {}, "bins"),
        ({"w": NUMBER | {"low": 2, "high": 2, "edges": "quantiles"}}, {}, "low=2"),
        ({"w": WORD, "x": NUMBER}, {}, "no column 'x'"),
        ({"w": WORD}, {"delta": None}, "delta"),
        ({"w": WORD}, {"delta": 0.0}, "delta"),
        ({"w": WORD}, {"epsilon": 0.0}, "epsilon"),
    ],
)
def test_refused_before_anything_is_charged(columns, given, message):
    book = ledger_of()
    asked = {"epsilon": 1.0, "delta": 1e-7} | given
    with pytest.raises((ValueError, TypeError), match=message):
        discover({"w": ["a"]}, columns, book, **asked)
    assert spent(book) == 0


def test_relations_and_units_without_a_proof_are_refused():
    with pytest.raises(UnsupportedRelation):
        found({"w": ["a"]}, {"w": WORD}, relation="replace_one")
    with pytest.raises(Incompatible, match="unit_column is missing"):
        found({"w": ["a"]}, {"w": WORD}, unit="patient")
