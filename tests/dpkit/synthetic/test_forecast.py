"""Forecasts beside what then happens."""

import itertools

import jax
import numpy as np
import pytest

from dpkit import Budget, Ledger
from dpkit.data.codes import Codebook
from dpkit.data.schema import Schema
from dpkit.synthetic import AIM, PAIRS, Independent, Synthesizer
from dpkit.synthetic.forecast import forecast
from dpkit.synthetic.scores import variation

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]
SIZES = (2, 5, 12, 30)
COLUMNS = {
    f"c{n}": {"kind": "ordinal", "low": 0, "high": size - 1}
    for n, size in enumerate(SIZES)
}
BOOK = Codebook.of(COLUMNS)


def drawn(count, seed=1):
    """Columns that depend on a class that nobody sees."""
    generator = np.random.default_rng(seed)
    hidden = generator.integers(0, 5, count)
    table = {}
    for name, size in zip(COLUMNS, SIZES, strict=True):
        chances = generator.dirichlet(np.full(size, 0.5), size=5).cumsum(axis=1)
        above = generator.random(count)[:, None] > chances[hidden][:, :-1]
        table[name] = above.sum(axis=1)
    return table


def told(recipe, **options):
    return forecast(BOOK, recipe, "add_remove", **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "epsilon"), [(2000, 0.5), (20_000, 0.2), (20_000, 1.0)]
)
def test_errors_come_out_within_a_factor_of_two(count, epsilon):
    recipe, table = PAIRS(epsilon=epsilon, delta=1e-6), drawn(count)
    expected = told(recipe, records=count)
    model = Synthesizer(BOOK.schema, recipe).fit(table, key=jax.random.key(5))
    real = np.stack(list(table.values()), axis=1)
    for width in (1, 2):
        families = [one for one in expected.families if len(one.columns) == width]
        found = [
            variation(real, model.fitted.rows, [int(c[1]) for c in one.columns], SIZES)
            for one in families
        ]
        mean = np.mean([one.expected for one in families])
        assert np.mean(found) / 2 < mean < 2 * np.mean(found)


@pytest.mark.parametrize("weight", [None, 8.0])
@pytest.mark.parametrize("relation", ["add_remove", "replace_one"])
def test_noise_is_what_is_added(weight, relation):
    """Of columns exactly; of pairs were all as strong: the mean precision."""
    options = {} if weight is None else {"weight_column": "w", "max_weight": weight}
    schema = Schema.read(COLUMNS, **options)
    table = drawn(400) | {"w": np.full(400, 2.0)}
    recipe = PAIRS(epsilon=1.0, delta=1e-6, rows=10, sweeps=1)
    expected = forecast(Codebook.of(schema), recipe, relation, records=400)
    noises = {one.columns: one.stddev for one in expected.families}
    ledger = Ledger.open(
        None,
        budget=Budget(1.0, 1e-6),
        relation=relation,
        unit="record",
        dataset="toy",
    )
    made = Synthesizer(schema, recipe).fit(table, ledger, key=jax.random.key(5))
    precisions = {}
    for one in made.fitted.measurements:
        precisions.setdefault(one.columns, []).append(one.precision)
    for n, name in enumerate(COLUMNS):
        assert precisions[(n,)][0] ** -0.5 == pytest.approx(noises[(name,)], rel=1e-6)
    pairs = list(itertools.combinations(range(len(SIZES)), 2))
    mean = np.mean([sum(precisions[pair]) for pair in pairs])
    assert mean**-0.5 == pytest.approx(noises["c0", "c1"], rel=1e-6)


def test_more_records_and_more_epsilon_are_less_noise():
    few, many = (told(PAIRS(epsilon=1.0, delta=1e-6), records=n) for n in (100, 10_000))
    assert [one.stddev for one in few.families] == [one.stddev for one in many.families]
    assert few.families[-1].variation == pytest.approx(
        100 * many.families[-1].variation
    )
    assert few.families[-1].noisy and not many.families[-1].noisy
    assert 0 < many.families[-1].expected < few.families[-1].expected <= 1
    assert few.families[-1].expected < few.families[-1].variation
    sure = told(PAIRS(epsilon=10.0, delta=1e-6), records=100)
    assert sure.families[0].stddev < few.families[0].stddev / 5


def test_several_rows_of_a_person_are_more_noise():
    one, three = (
        told(PAIRS(epsilon=1.0, delta=1e-6), records=100, rows_per_unit=rows)
        for rows in (1, 3)
    )
    assert three.families[0].stddev == pytest.approx(3 * one.families[0].stddev)


def test_recipes_without_pairs_or_without_a_plan():
    short = told(Independent(epsilon=1.0, delta=1e-6), records=1000).short()
    assert (short["measured"], short["expected_pair_variation"]) == ("4 tables", None)
    short = told(AIM(epsilon=1.0, delta=1e-6), records=1000).short()
    assert "along the way" in short["measured"]
    assert short["noise_of_a_count"] is None and short["search_bytes"] > 0


@pytest.mark.parametrize("records", [0, -1, 1.5, True])
def test_a_guess_must_be_a_number_of_records(records):
    with pytest.raises((ValueError, TypeError), match="records"):
        told(PAIRS(epsilon=1.0, delta=1e-6), records=records)
