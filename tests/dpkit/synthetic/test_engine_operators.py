"""The genetic search's operators, against counting anew."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpkit.synthetic.engine import evolving
from dpkit.synthetic.engine import generations as program
from dpkit.synthetic.engine.problem import Asked
from tests.dpkit.synthetic.engine_cases import (
    SIZES,
    START,
    TARGETS,
    asked_of,
    squares,
    with_regions,
)

pytestmark = pytest.mark.slow

OPERATORS = {
    "one": program._one_cell,
    "swap": program._swapped,
    "cross": program._crossed,
}


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_rise_is_that_of_counting_anew(operator):
    """Of random candidates, many of which share cells; marginals, groups, regions."""
    start, sizes, asked = with_regions(3)
    start[20:] = start[:20]
    problem = Asked.of(sizes, **asked, forbidden=()).posed(start, None, 0)
    run = evolving._Run(problem, None, 1, 0)
    before, state = squares(start, asked), run.state
    best = jax.jit(OPERATORS[operator])
    rng = np.random.default_rng(1)
    for _ in range(30):
        column = rng.choice([0, 1, 3, 4], 2)
        code = np.repeat(rng.integers(0, sizes[column[0]]), 2)
        given = (rng.integers(0, len(start), 2), column, code)
        change = program.Changes(
            *(jax.device_put(x[None].astype(np.int32)) for x in given)
        )
        found = best(run.tables, run.state, change)
        rows = start.copy()
        for row, where, new in zip(*map(np.asarray, found.change), strict=True):
            rows[row, where] = new
        rise = (squares(rows, asked) - before) * len(start) ** 2
        assert float(found.rise) == pytest.approx(rise, abs=2e-3)
        parts = [np.array(part) for part in run.state[:2]]
        for n, part in enumerate(parts):
            at, units = map(np.asarray, found[2 + 2 * n : 4 + 2 * n])
            np.add.at(part.reshape(-1), at, units)
        first, second = map(jnp.asarray, parts)
        run.state = program.State(first, second, state.codes, state.odds)
        assert run.residuals() == pytest.approx(problem.residuals(rows), abs=1e-4)
        run.state = state


@pytest.mark.parametrize(
    ("rows", "columns", "codes", "rise"),
    [
        ((1, 1), (1, 1), (0, 0), 0.1),
        ((1, 1), (1, 1), (2, 2), -0.01),
        ((3, 3), (2, 2), (1, 1), -0.1),
        ((0, 2), (1, 1), (0, 0), 0.14),
    ],
)
def test_changes_of_the_small_table(rows, columns, codes, rise):
    """Single changes and an exchange, computed by hand."""
    given = asked_of(TARGETS, SIZES)
    problem = Asked.of(SIZES, **given, forbidden=()).posed(START, None, 0)
    run = evolving._Run(problem, None, 1, 0)
    pairs = (jnp.asarray([x], jnp.int32) for x in (rows, columns, codes))
    operator = program._one_cell if rows[0] == rows[1] else program._swapped
    found = jax.jit(operator)(run.tables, run.state, program.Changes(*pairs))
    assert float(found.rise) / 25 == pytest.approx(rise, abs=1e-6)
