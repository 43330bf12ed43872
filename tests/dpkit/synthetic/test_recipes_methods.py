"""How MST, AIM, GSD, MWEM and MERF measure and draw, against brute force."""

import itertools
import math

import numpy as np
import pytest

from dpkit.accountants.answers.relations import Relation
from dpkit.data.codes import Codebook
from dpkit.data.schema import Schema
from dpkit.mechanisms.tables import Selection
from dpkit.synthetic import AIM, GSD, MERF, MST, MWEM, aim, gsd, mst
from dpkit.synthetic.counting import open_source
from dpkit.synthetic.queries import FAMILIES, families_of
from dpkit.synthetic.recipe import Measurement
from dpkit.synthetic.recipes import recipe_of
from tests.dpkit.synthetic.purses import Noting, Tape
from tests.dpkit.synthetic.test_pairs import BOOK, SCHEMA, counts, people, variation

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch):
    """AIM measures carefully and seldom."""
    monkeypatch.setattr("dpkit.synthetic.aim._ROUNDS", 2)


def slow(*values):
    """A case that takes long to compile."""
    return pytest.param(*values, marks=pytest.mark.slow)


SURE = {"epsilon": 1e4, "delta": 1e-6}  # hardly any noise


def source(rows=4000):
    """Some people."""
    return open_source(people(rows), BOOK)


def chain(rows=3000):
    """Four columns, each like the one before, less and less."""
    generator = np.random.default_rng(1)
    columns = [generator.integers(0, 4, rows)]
    for keep in (0.9, 0.7, 0.5):
        new = generator.integers(0, 4, rows)
        columns.append(np.where(generator.random(rows) < keep, columns[-1], new))
    table = {f"x{n}": column for n, column in enumerate(columns)}
    kinds = {name: {"kind": "ordinal", "low": 0, "high": 3} for name in table}
    return table, Codebook.of(Schema.read(kinds))


def test_the_tree_of_mst_is_the_largest():
    table, book = chain()
    made = MST(**SURE).fit(open_source(table, book), Noting(), seed=0)
    codes = book.encode({name: list(values) for name, values in table.items()})
    strength = {}
    for pair in itertools.combinations(range(4), 2):
        whole = np.zeros((4, 4))
        np.add.at(whole, tuple(codes[:, list(pair)].T), 1)
        alone = np.outer(whole.sum(1), whole.sum(0)) / len(codes)
        strength[pair] = np.abs(whole - alone).sum()
    trees = [
        tree
        for tree in itertools.combinations(strength, 3)
        if len(_component(tree, {0})) == 4
    ]
    best = max(trees, key=lambda tree: sum(strength[edge] for edge in tree))
    found = {m.columns for m in made.measurements if len(m.columns) == 2}
    assert found == set(best) == {(0, 1), (1, 2), (2, 3)}


def _component(edges, reached):
    """All nodes that edges lead to."""
    for _ in edges:
        reached = reached | {n for e in edges if reached & {*e} for n in e}
    return reached


def test_rows_of_mst_follow_the_tree():
    table, book = chain()
    made = MST(**SURE, rows=100_000).fit(open_source(table, book), Noting(), seed=0)
    codes = book.encode({name: list(values) for name, values in table.items()})
    wanted = np.zeros((4, 4, 4))  # columns 0, 1 and 2 as a chain, by the definition
    for a, b, c in itertools.product(range(4), repeat=3):
        first = ((codes[:, 0] == a) & (codes[:, 1] == b)).mean()
        second = ((codes[:, 1] == b) & (codes[:, 2] == c)).mean()
        wanted[a, b, c] = first * second / (codes[:, 1] == b).mean()
    found = np.zeros((4, 4, 4))
    np.add.at(found, tuple(made.rows[:, :3].T), 1e-5)
    # A cell of 100,000 draws deviates by at most .0016; five of these, 64 cells.
    np.testing.assert_allclose(found, wanted, atol=0.008)


def test_rare_values_are_merged_and_drawn_evenly():
    groups = mst._merged_values(Measurement((0,), np.array([9.0, 1, 5, 2.9]), 1.0))
    np.testing.assert_array_equal(groups, [0, 2, 1, 2])
    whole = mst._coarse(np.arange(8).reshape(4, 2), groups, np.array([0, 0]))
    np.testing.assert_array_equal(whole, [[1], [9], [18]])
    spread = mst._spread(
        Measurement((0, 1), whole.astype(float), 1.0), [groups, np.array([0, 0])]
    )
    np.testing.assert_array_equal(spread.values[:, 0], [0.5, 4.5, 4.5, 4.5])
    rows = np.full((1000, 1), 2, np.int32)
    drawn = mst._expanded(rows, [groups], np.random.default_rng(0))
    values, seen = np.unique(drawn, return_counts=True)
    np.testing.assert_array_equal(values, [1, 3])
    assert seen.min() > 420  # of 1,000 halves: five deviations


class Nothing:
    """A source of fourteen columns without rows."""

    unit, reach = 1.0, 1
    codebook = Codebook.of(
        Schema.read({f"x{n}": {"kind": "boolean"} for n in range(14)})
    )

    def rows(self):
        """None."""
        return np.zeros((0, 14), np.int32)

    def count(self, families):
        """Zeros."""
        return [np.zeros((2,) * len(family), np.int64) for family in families]


def test_rounds_of_aim_without_halving(monkeypatch):
    monkeypatch.setattr(aim, "_ROUNDS", 16)
    monkeypatch.setattr(aim._Rows, "fit", lambda self, measured, records: None)
    monkeypatch.setattr(aim._Rows, "table", lambda self, columns: np.zeros((2, 2)))
    monkeypatch.setattr(aim._Rounds, "_score", lambda self, columns, noise: 0.0)
    monkeypatch.setattr(aim._Rounds, "_bias", lambda self, columns, noise: -1.0)
    monkeypatch.setattr(aim.AIM, "_made", lambda self, book, run, seed, tell: run)
    purse = Noting()
    AIM(epsilon=1.0, delta=1e-6).fit(Nothing(), purse, seed=0)
    assert sum(name.startswith("table") for name in purse.paid) == 211  # of the sheet
    first = purse.paid["table 1"].noise_multiplier
    assert first == pytest.approx(71.480081, rel=1e-6)
    each = 1 / (2 * first**2) + purse.paid["choice 1"].epsilon ** 2 / 8
    assert each == pytest.approx(0.000108732, rel=1e-5)


def test_aim_measures_what_its_rows_have_worst():
    tape = Tape()
    with tape.recording():
        made = AIM(**SURE).fit(source(), Noting(), seed=0)
    choice, scores = tape.seen["choice 1"]
    assert isinstance(choice, Selection)
    names = [(0,), (1,), (0, 1), (2,), (0, 2), (1, 2)]
    table = made.measurements[len(BOOK.sizes)]
    assert table.columns == (1, 2)
    assert scores.argmax() == tape.released["choice 1"][0]
    assert len(scores) == len(names)


def test_aim_halves_noise_where_it_learned_nothing(monkeypatch):
    monkeypatch.setattr(aim, "_ROUNDS", 4)
    made = AIM(epsilon=5.0, delta=1e-6, sweeps=1).fit(source(400), Noting(), seed=0)
    noises = [one.stddev for one in made.measurements[len(BOOK.sizes) :]]
    ratios = [a / b for a, b in itertools.pairwise(noises[:-1])]
    assert set(np.round(ratios, 9)) == {1.0, 2.0}


def test_a_workload_of_aim():
    weights = aim._weights(BOOK, [("job", "sex"), ("sex", "age", "job")])
    # |r and s|, over the sets: by hand.
    assert weights == {
        (0,): 2.0,
        (1,): 1.0,
        (2,): 2.0,
        (0, 1): 3.0,
        (0, 2): 4.0,
        (1, 2): 3.0,
        (0, 1, 2): 5.0,
    }
    with pytest.raises(ValueError, match=r"workload has .*: needed columns"):
        AIM(**SURE, workload=[("sex", "no")]).releases(BOOK, Relation.ADD_REMOVE, 1)
    made = AIM(**SURE, workload=[("sex", "age", "job")], sweeps=4).fit(
        source(), Noting(), seed=0
    )
    assert (0, 1, 2) in {one.columns for one in made.measurements}
    real = counts(open_source(people(), BOOK).rows(), (0, 1, 2)) / 4000
    rows = counts(made.rows, (0, 1, 2)) / len(made.rows)
    assert np.abs(real - rows).sum() / 2 < 0.12


def test_aim_keeps_to_its_size():
    made = AIM(**SURE, max_cells=30).fit(source(), Noting(), seed=0)
    cells = {m.columns: m.values.size for m in made.measurements}
    assert {*cells} == {(0,), (1,), (2,), (3,)}  # 2 + 20 + 5 + 1; a pair adds 10


@pytest.mark.parametrize(
    "kind",
    ["prefixes", *(slow(kind) for kind in FAMILIES if kind != "prefixes")],
)
def test_families_of_gsd(kind):
    families = families_of(kind, BOOK, 5)
    rows = open_source(people(500), BOOK).rows()
    for family in families:
        cells = family.cells(rows)
        assert cells.max() < math.prod(family.shape)
    if kind == "ranges":
        assert [f.shape for f in families[:5]] == [(2, n) for n in (20, 10, 5, 3, 2)]
    made = GSD(**SURE, families=kind, count=5, rows=300, generations=1500)
    fitted = made.fit(open_source(people(500), BOOK), Noting(), seed=0)
    for family in families:
        one, other = (
            np.bincount(cells[cells >= 0], minlength=math.prod(family.shape))
            / len(cells)
            for cells in (family.cells(rows), family.cells(fitted.rows))
        )
        assert np.abs(one - other).sum() / 2 < 0.15


def test_gsd_fits_answers_as_they_were_measured(monkeypatch):
    seen = []

    def noted(rows, sizes, families, shares, **options):
        seen.append(shares)
        return evolve(rows, sizes, families, shares, **options)

    evolve = gsd.evolve
    monkeypatch.setattr(gsd, "evolve", noted)
    made = GSD(epsilon=0.5, delta=1e-6, rows=50, generations=10).fit(
        source(300), Noting(), seed=0
    )
    pairs = [m for m in made.measurements if len(m.columns) == 2]
    shares = seen[-1][len(BOOK.sizes) :]
    # Signed and all of them: cut to [0, 1] they would sum to several times the rows.
    for one, share in zip(pairs, shares, strict=True):
        assert one.values.shape == tuple(BOOK.sizes[n] for n in one.columns)
        assert one.values.min() < 0
        np.testing.assert_allclose(share, one.values / made.records)


def test_sizes_come_from_the_schema():
    table = people(200)
    table["job"][:] = "a"
    made = MST(epsilon=1.0, delta=1e-6).fit(open_source(table, BOOK), Noting(), seed=0)
    assert made.measurements[2].values.shape == (BOOK.sizes[2],)  # b, c and d are seen


def test_the_largest_number_is_counted():
    schema = {
        "x": {"kind": "numeric", "low": 0, "high": 1, "bins": 4},
        "y": {"kind": "boolean"},
    }
    book = Codebook.of(Schema.read(schema))
    rows = open_source({"x": [1.0, 0.0], "y": [True, False]}, book).rows()
    for family in families_of("ranges", book, 1):
        assert (family.cells(rows) >= 0).all()


@pytest.mark.parametrize(
    "name", ["mst", "mwem", slow("aim"), slow("gsd"), slow("merf")]
)
def test_rows_keep_rules(name):
    rules = [{"forbid": {"sex": "F", "job": "a"}}]
    book = Codebook.of(Schema.read({**SCHEMA.columns}, rules=rules))
    settings = {"gsd": {"generations": 500}, "merf": {"steps": 50}}.get(name, {})
    delta = 0.0 if name == "mwem" else 1e-6
    recipe = recipe_of(name, epsilon=1.0, delta=delta, **settings)
    rows = recipe.fit(open_source(people(1000), book), Noting(), seed=0).rows
    first, job = (
        rows[:, 0] == book.code("sex", "F"),
        rows[:, 2] == book.code("job", "a"),
    )
    assert not (first & job).any()
    assert first.any()
    assert job.any()


def test_mwem_comes_near():
    real = open_source(people(), BOOK).rows()
    made = MWEM(epsilon=50.0, rounds=60).fit(source(), Noting(), seed=0)
    even = np.random.default_rng(0).integers(0, BOOK.sizes, (4000, 4))
    assert variation(real, made.rows) < 0.2 * variation(real, even)


@pytest.mark.parametrize("features, most", [(0, 0.12), slow(200, 0.4)])
def test_merf_comes_near(features, most):
    real = open_source(people(), BOOK).rows()
    recipe = MERF(epsilon=20.0, delta=1e-6, features=features, rows=4000, steps=400)
    made = recipe.fit(source(), Noting(), seed=0)
    job = [counts(rows, (0, 2)) / len(rows) for rows in (real, made.rows)]
    assert np.abs(job[0] - job[1]).sum() / 2 < most
    assert abs(made.rows[:, 1].mean() - real[:, 1].mean()) < 1.5
