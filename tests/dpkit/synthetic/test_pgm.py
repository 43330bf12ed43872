"""Graphical models as generators: with mbi, if it is there; a clear word if not."""

import importlib.util
import itertools
import sys

import numpy as np
import pytest

from dpkit.synthetic import AIM, MST
from dpkit.synthetic.counting import open_source
from dpkit.synthetic.pgm import Graph
from dpkit.synthetic.recipe import Measurement
from tests.dpkit.synthetic.purses import Noting
from tests.dpkit.synthetic.test_pairs import BOOK, counts, people, variation

pytestmark = pytest.mark.slow

needs_mbi = pytest.mark.skipif(
    importlib.util.find_spec("mbi") is None, reason="pip install 'dpkit-jax[pgm]'"
)
SIZES = (3, 4, 2, 1)


def joint():
    """Counts over all columns that a chain 0 - 1 - 2 explains."""
    generator = np.random.default_rng(2)
    first = generator.dirichlet(np.ones(12)).reshape(3, 4)
    second = generator.dirichlet(np.ones(2), 4)
    return 1000 * (first[:, :, None] * second[None])[..., None]


@pytest.mark.parametrize("make", [AIM, MST])
def test_without_mbi_the_message_names_the_extra(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "mbi", None)
    with pytest.raises(ImportError, match=r"pip install 'dpkit-jax\[pgm\]'"):
        make(epsilon=1.0, delta=1e-6, generator="pgm")
    make(epsilon=1.0, delta=1e-6)


@needs_mbi
@pytest.mark.slow  # each graph is compiled: 10 s
def test_a_graph_is_the_chain_that_was_measured():
    true, graph = joint(), Graph(SIZES)
    measured = [
        Measurement((0, 1), true.sum((2, 3)), 1.0),
        Measurement((1, 2), true.sum((0, 3)), 1.0),
        Measurement((3,), true.sum((0, 1, 2)), 1.0),
    ]
    graph.fit(measured, 1000.0)
    np.testing.assert_allclose(graph.table((0, 1)), true.sum((2, 3)), atol=0.1)
    np.testing.assert_allclose(graph.table((2, 0)), true.sum((1, 3)).T, atol=0.1)
    assert graph.implied((1,))
    assert not graph.implied((0, 2))
    assert graph.size((0, 2)) == 3 * 4 * 2 + 1  # the triangle is one clique
    rows = graph.drawn(100_000, np.random.default_rng(0))
    found = np.zeros(SIZES)
    np.add.at(found, tuple(rows.T), 1e-2)
    # Of 1,000: a cell deviates by at most 1.6; five of these, 24 cells.
    np.testing.assert_allclose(found, true, atol=8)
    again = graph.drawn(100_000, np.random.default_rng(0))
    np.testing.assert_array_equal(rows, again)
    graph.fit([*measured, Measurement((0, 2), true.sum((1, 3)), 1.0)], 1000.0)
    assert graph.implied((0, 2))


@needs_mbi
@pytest.mark.slow  # each graph is compiled: 20 s
@pytest.mark.parametrize("make", [AIM, MST])
def test_recipes_with_a_graph(make, monkeypatch):
    monkeypatch.setattr("dpkit.synthetic.aim._ROUNDS", 2)
    purse = Noting()
    recipe = make(epsilon=5.0, delta=1e-6, generator="pgm")
    made = recipe.fit(open_source(people(), BOOK), purse, seed=0)
    real = open_source(people(), BOOK).rows()
    assert variation(real, made.rows) < 0.12
    for pair in itertools.combinations(range(3), 2):
        assert counts(made.rows, pair).sum() == len(made.rows)
