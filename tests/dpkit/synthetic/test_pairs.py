"""PAIRS: what it costs, what it keeps, and how near it comes."""

import itertools
import math
from typing import Any

import jax
import numpy as np
import pytest
from dp_accounting import GaussianDpEvent

from dpkit.accountants import Budget, BudgetExceeded, Ledger
from dpkit.accountants import epsilon as epsilon_of
from dpkit.accountants.answers.relations import as_relation
from dpkit.accountants.events import sequential
from dpkit.data.codes import Codebook
from dpkit.data.schema import Schema
from dpkit.synthetic import PAIRS, Known, Model, Synthesizer
from dpkit.synthetic.counting import open_source
from dpkit.synthetic.pairs import PAIRS_AGAIN, PAIRS_ONCE, SINGLES
from dpkit.synthetic.recipe import Sealed
from dpkit.synthetic.recipes import recipe_of

SCHEMA = Schema.read(
    {
        "sex": {"kind": "categorical", "categories": ["F", "M"], "other": False},
        "age": {"kind": "ordinal", "low": 20, "high": 39},
        "job": {"kind": "categorical", "categories": ["a", "b", "c", "d"]},
        "same": {"kind": "categorical", "categories": ["x"], "other": False},
    }
)
BOOK = Codebook.of(SCHEMA)


def people(count=4000, seed=0):
    """Rows in which jobs depend on age and sex."""
    generator = np.random.default_rng(seed)
    sex = generator.integers(0, 2, count)
    age = 20 + generator.binomial(19, 0.3 + 0.2 * sex)
    job = (age // 6 + sex + (generator.random(count) < 0.1)) % 4
    return {
        "sex": np.array(["F", "M"])[sex],
        "age": age,
        "job": np.array(list("abcd"))[job],
        "same": np.array(["x"] * count),
    }


def counts(rows, columns):
    """A table of counts."""
    sizes = tuple(BOOK.sizes[n] for n in columns)
    cells = np.ravel_multi_index([rows[:, n] for n in columns], sizes)
    return np.bincount(cells, minlength=math.prod(sizes)).reshape(sizes)


def variation(real, made):
    """Mean total variation over pairs."""
    found = []
    for pair in itertools.combinations(range(3), 2):
        one, other = counts(real, pair) / len(real), counts(made, pair) / len(made)
        found.append(np.abs(one - other).sum() / 2)
    return np.mean(found)


def fitted(recipe, table=None, seed=0, key=0):
    """What a recipe makes of some people."""
    maker = Synthesizer(SCHEMA, recipe)
    return maker.fit(table or people(), key=jax.random.key(key), seed=seed)


@pytest.mark.parametrize("relation", ["add_remove", "replace_one"])
@pytest.mark.parametrize("reach", [1, 3])
def test_everything_costs_just_the_budget(relation, reach):
    recipe = PAIRS(epsilon=1.0, delta=1e-6)
    releases = recipe.releases(BOOK, as_relation(relation), reach)
    event = sequential(list(releases.values()))
    bound = epsilon_of(event, 1e-6, relation=relation)
    assert bound.upper is not None and 0.9999 < bound.upper <= 1.0


def test_events_paid_are_the_events_granted():
    recipe = PAIRS(epsilon=1.0, delta=1e-6)
    relation = as_relation("add_remove")
    releases: dict[str, Any] = {**recipe.releases(BOOK, relation, 1)}
    paid: dict[str, Any] = {}

    class Recording(Sealed):
        """Notes what is paid."""

        def pay(self, event, name):
            paid[name] = event
            return super().pay(event, name)

    purse = Recording(releases, relation, lambda name: jax.random.key(len(name)))
    found = recipe.fit(open_source(people(), BOOK), purse, seed=0)
    assert list(paid) == [SINGLES, PAIRS_ONCE, PAIRS_AGAIN]
    total = sum(event.noise_multiplier**-2 for event in paid.values())
    granted = sum(event.noise_multiplier**-2 for event in releases.values())
    assert granted * (1 - 1e-8) < total <= granted
    noise = sum(one.stddev**-2 for one in found.measurements)
    assert noise == pytest.approx(total, rel=1e-9)
    # Of each stage, whatever the table was.
    others = recipe.fit(
        open_source(people(50, seed=9), BOOK),
        Sealed(releases, relation, lambda name: jax.random.key(len(name))),
        seed=0,
    )
    assert len(others.measurements) == len(found.measurements)


def test_a_sealed_purse_refuses_more():
    paid = Sealed(
        {"one": GaussianDpEvent(2.0)},
        as_relation("add_remove"),
        lambda name: jax.random.key(0),
    )
    with pytest.raises(ValueError, match="another release"):
        paid.pay(GaussianDpEvent(1.999), "one")
    paid.pay(GaussianDpEvent(2.0), "one")
    with pytest.raises(ValueError, match="another release"):
        paid.pay(GaussianDpEvent(2.0), "one")


def test_the_rows_come_near():
    model = fitted(PAIRS(epsilon=2.0, delta=1e-6))
    real = open_source(people(), BOOK).rows()
    generator = np.random.default_rng(0)
    shuffled = np.stack([generator.permutation(column) for column in real.T], axis=1)
    assert variation(real, model.fitted.rows) < 0.5 * variation(real, shuffled)
    assert abs(model.records - 4000) < 6 * 20
    assert (model.fitted.rows[:, 3] == 0).all()


def test_noise_hangs_on_the_key_and_rows_on_both():
    recipe = PAIRS(epsilon=2.0, delta=1e-6, sweeps=2)
    one, same, other, third = (
        fitted(recipe, seed=seed, key=key)
        for seed, key in [(0, 0), (0, 0), (1, 0), (0, 1)]
    )
    first = [model.fitted.measurements[0].values for model in (one, same, other, third)]
    np.testing.assert_array_equal(first[0], first[1])
    np.testing.assert_array_equal(first[0], first[2])
    assert (first[0] != first[3]).any()
    np.testing.assert_array_equal(one.fitted.rows, same.fitted.rows)
    assert (one.fitted.rows[:100] != other.fitted.rows[:100]).any()


def test_the_same_key_over_other_rows_gives_other_noise():
    recipe = PAIRS(epsilon=2.0, delta=1e-6, sweeps=1)
    table = people()
    less = {name: values[1:] for name, values in table.items()}
    first, second = (fitted(recipe, rows).fitted.measurements for rows in (table, less))
    moved = np.abs(first[0].values - second[0].values)
    assert (moved > 1e-6).all()  # of one noise, only one cell would have moved


def test_totals_that_are_known_are_kept():
    known = Known(("sex",), [1000.0, 3000.0])
    model = fitted(PAIRS(epsilon=2.0, delta=1e-6, known=[known], rows=400))
    assert np.bincount(model.fitted.rows[:, 0]).tolist() == [100, 300]


def test_what_the_rules_forbid_never_comes():
    schema = Schema.read(
        {**SCHEMA.to_json(), "rules": [{"forbid": {"sex": "F", "job": "b"}}]}
    )
    model = Synthesizer(schema, PAIRS(epsilon=2.0, delta=1e-6)).fit(
        people(), key=jax.random.key(0)
    )
    rows = model.fitted.rows
    assert not ((rows[:, 0] == 0) & (rows[:, 2] == 1)).any()
    assert ((rows[:, 0] == 1) & (rows[:, 2] == 1)).any()


def test_fewer_impossible_pairs_for_a_price():
    table = people()
    real = open_source(table, BOOK).rows()
    shares = []
    for price in ("free", "few", "fewer"):
        made = fitted(PAIRS(epsilon=0.5, delta=1e-6, impossible=price), table)
        rows, bad = made.fitted.rows, np.zeros(len(made.fitted.rows), bool)
        for a, b in itertools.combinations(range(3), 2):
            bad |= (counts(real, (a, b)) == 0)[rows[:, a], rows[:, b]]
        shares.append(bad.mean())
    assert shares[0] > shares[1] > shares[2]


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"epsilon": 0.0}, "epsilon"),
        ({"delta": 0.0}, "delta"),
        ({"delta": 1.0}, "delta"),
        ({"rows": 0}, "rows"),
        ({"sweeps": 0}, "sweeps"),
        ({"singles_share": 1.0}, "singles_share"),
        ({"impossible": "none"}, "impossible"),
    ],
)
def test_what_is_no_recipe(settings, word):
    with pytest.raises(ValueError, match=word):
        recipe_of("pairs", **{"epsilon": 1.0, "delta": 1e-6, **settings})


def test_refusals_before_anything_is_spent():
    with Ledger.open(
        None,
        budget=Budget(1.0, 1e-6),
        relation="add_remove",
        unit="record",
        dataset="people",
    ) as ledger:
        maker = Synthesizer(SCHEMA, PAIRS(epsilon=1.0, delta=1e-6))
        with pytest.raises(ValueError, match="job"):
            maker.fit({k: v for k, v in people().items() if k != "job"}, ledger)
        wrong = PAIRS(epsilon=1.0, delta=1e-6, pairs=[("sex", "hat")])
        with pytest.raises(ValueError, match="hat"):
            Synthesizer(SCHEMA, wrong).fit(people(), ledger)
        bad = PAIRS(epsilon=1.0, delta=1e-6, known=[Known(("sex",), [1.0])])
        with pytest.raises(ValueError, match="sex"):
            Synthesizer(SCHEMA, bad).fit(people(), ledger)
        assert ledger.spent().upper == 0
        maker.fit(people(), ledger, key=jax.random.key(0))
        spent = ledger.spent().upper
        assert spent is not None and 0.999 < spent <= 1.0
        with pytest.raises(ValueError, match="fitted"):
            maker.fit(people(), ledger)
        with pytest.raises(BudgetExceeded):
            Synthesizer(SCHEMA, PAIRS(epsilon=1.0, delta=1e-6)).fit(people(), ledger)


def test_a_ledger_without_budget_is_asked_before_the_table():
    class Untouchable(dict):
        """Rows that say when they are read."""

        def __getitem__(self, name):
            raise AssertionError("read")

    with Ledger.open(
        None,
        budget=Budget(0.5, 1e-6),
        relation="add_remove",
        unit="record",
        dataset="people",
    ) as ledger:
        maker = Synthesizer(SCHEMA, PAIRS(epsilon=1.0, delta=1e-6))
        with pytest.raises(BudgetExceeded):
            maker.fit(Untouchable(people()), ledger)


def test_one_column_and_no_rows():
    schema = Schema.read({"sex": SCHEMA.columns["sex"]})
    empty = Synthesizer(schema, PAIRS(epsilon=1.0, delta=1e-6)).fit(
        {"sex": np.array([], "U1")}, key=jax.random.key(3)
    )
    assert len(empty.fitted.rows) >= 1
    assert isinstance(empty, Model)
