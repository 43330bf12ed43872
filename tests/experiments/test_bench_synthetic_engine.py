"""The engine's bench, on a small table."""

import pytest

from experiments.bench import synthetic_engine as bench
from tests.oracles import searches as tables


@pytest.mark.slow
def test_lines_of_a_small_table(monkeypatch):
    monkeypatch.setattr("dpkit.synthetic.engine.evolving._BLOCK", 200)
    found = bench.lines((20, 3, 2), 200, 50, 16)
    assert len(found) == 5 and all(line.count("|") == 4 for line in found)


def test_shares_are_those_of_the_table():
    rows = bench.table((5, 3), 100)
    found = bench.shares(bench.Marginal((0, 1), (5, 3)), rows)
    counted = tables.counts(rows, (0, 1))
    assert found.sum() == 1 and found[2, 1] == counted[2, 1] / 100
