r"""The search for a table whose marginals are near their targets.

minimise F(X) = sum over targets m of w_m |c_m(X) / N - t_m|^2 over tables X of N rows,
by changing rows one cell at a time (`columns`). A sweep takes every column once, in
random order, and all rows. Noise of a temperature that cools from sweep to sweep gets
it out of shallow minima; F itself never rises.

All of it is a function of public values and a seed: the same on one core and on many.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dpkit.accountants.answers import checks
from dpkit.synthetic.engine import columns, exact
from dpkit.synthetic.engine.layout import Slice
from dpkit.synthetic.engine.problem import Asked, Problem
from dpkit.synthetic.engine.targets import Found, Impossible, Target

BATCH = 2048
_SWAPS = 4  # rounds of partners for each row of a column that may only be exchanged
_CHECKED = 50  # sweeps after which residuals are counted anew


def search(
    start: np.ndarray,
    sizes: Sequence[int],
    targets: Sequence[Target],
    *,
    seed: int,
    sweeps: int = 8,
    temperature: float = 0.0,
    cooling: float = 0.7,
    forbidden: Sequence[Impossible] = (),
    frozen: np.ndarray | None = None,
    hard_singles: bool = False,
    stop_below: float | None = None,
    memory_limit: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Found:
    """The rows of a table that has nearly the target marginals.

    Guarantee: none is needed, all arguments are released or public. F never rises from
    one batch of changes to the next; a target of infinite weight is met exactly.

    Args:
      start: (N, d) whole numbers, what the search begins with. Samples of the singles
        are much better than constant or uniform rows.
      sizes: codes of each column.
      targets: marginals of any number of columns, any of coarser codes.
      seed: of the search; no noise hangs on it.
      sweeps: at least 0; 8 is good, 16 to 40 lower the largest errors further.
      temperature: in shares; 8 times the standard deviation of a target's cell.
      cooling: the temperature's factor from one sweep to the next, in (0, 1].
      forbidden: combinations of codes that no row of the result holds.
      frozen: (d,) columns or (N, d) cells that keep what `start` has.
      hard_singles: treat targets of one column as if of infinite weight; they must be
        distributions then.
      stop_below: F at which to stop. Where targets are plain noisy shares, the sum of
        weight * cells * variance: what the true table is expected to have.
      memory_limit: in bytes; by default a quarter of the machine's, at most 8 GiB.
      on_progress: is told the sweeps that are done, and `sweeps`.

    Raises:
      ValueError: arguments don't fit together; the estimated memory is above the limit
        (before any of it is allocated); exact targets contradict each other or frozen
        cells; impossible combinations remain.
      TypeError: `start` isn't whole numbers.

    Example:
      >>> pair = np.array([[0.5, 0.0], [0.0, 0.5]])
      >>> start = np.array([[0, 1], [1, 1], [0, 0], [1, 0]])
      >>> found = search(start, (2, 2), [Target((0, 1), pair)], seed=0)
      >>> found.loss, sorted(map(tuple, found.rows.tolist()))
      (0.0, [(0, 0), (0, 0), (1, 1), (1, 1)])

    Reference: Liu, Tang, Vietri, Wu, "Generating Private Synthetic Data with Genetic
    Algorithms", 2023, arXiv:2306.03257, for rows that change one by one; best responses
    of whole columns are ours.
    """
    checks.integer_at_least(0, sweeps=sweeps)
    checks.non_negative(temperature=temperature)
    checks.rate(cooling=cooling)
    asked = Asked.targets(sizes, targets, forbidden, hard_singles)
    asked.refuse_memory(_memory(asked, len(start)), len(start), memory_limit)
    run = _Run(asked.posed(start, frozen, seed), seed)
    done = 0
    for done in range(1, sweeps + 1):
        run.sweep(temperature * cooling ** (done - 1))
        if on_progress:
            on_progress(done, sweeps)
        if done % _CHECKED == 0:
            run.check()
        if stop_below is not None and run.loss() <= stop_below:
            break
    residuals, rows = run.check(), run.rows()
    run.problem.refuse_impossible(rows)
    return Found(rows, run.problem.loss(residuals), done)


def memory(
    sizes: Sequence[int],
    targets: Sequence[Target],
    rows: int,
    *,
    forbidden: Sequence[Impossible] = (),
) -> int:
    """Bytes that a search takes at its peak, as estimated before it starts.

    Args:
      sizes: codes of each column.
      targets: what is searched for.
      rows: N.
      forbidden: combinations that no row may hold.

    Raises:
      ValueError: columns, maps or values don't fit.

    Example:
      >>> memory((2, 2), [Target((0, 1), np.full((2, 2), 0.25))], 1000) < 2**20
      True
    """
    asked = Asked.targets(sizes, targets, forbidden, False)
    return _memory(asked, checks.integer_at_least(1, rows=rows))


def _memory(asked: Asked, rows: int) -> int:
    """Bytes at the peak: residuals, one slice and all tables, a batch, rows."""
    layout = asked.layout
    shapes = [layout.slice_shape(column) for column in range(len(layout.sizes))]
    width = max(width for _, width in shapes)
    own = 4 * width + 12 * len(layout.families)  # of a row in a batch
    return (
        32 * layout.length
        + 16 * max(high * wide for high, wide in shapes)
        + 12 * sum(high for high, _ in shapes)
        + 4 * min(BATCH, rows) * own
        + 8 * columns.NOISE_ROWS * width
        + 4 * rows * (3 * len(layout.view_maps) + 2 * len(layout.sizes))
    )


class _Run:
    """A search under way: what is on the device, and its bookkeeping."""

    def __init__(self, problem: Problem, seed: int) -> None:
        self.problem, self.key = problem, jax.random.key(seed)
        self.layout, rows = problem.asked.layout, problem.start
        self.number, self.batch = len(rows), min(BATCH, len(rows))
        self.mapped = len(self.layout.view_maps) > len(self.layout.sizes)
        self.partners = exact.partners(problem.asked.hard, len(self.layout.sizes))
        self.state = columns.State(
            jnp.asarray(problem.residuals(rows), jnp.float32),
            jnp.asarray(self.layout.viewed(rows)),
            jnp.full(len(self.layout.sizes), 0.5, jnp.float32),
        )

    @functools.cached_property
    def slices(self) -> dict[int, Slice]:
        """The tables of every column that has more than one code."""
        sizes = self.layout.sizes
        return {n: self.layout.slice(n) for n in range(len(sizes)) if sizes[n] > 1}

    def sweep(self, temperature: float) -> None:
        """Every column once, in random order."""
        heat = jnp.float32(temperature * self.number)
        for column in self.problem.generator.permutation(list(self.slices)):
            fixed = self.problem.frozen[:, column]
            if column in self.partners:
                self._exchange(int(column), ~fixed)
            elif not fixed.all():
                self.key, key = jax.random.split(self.key)
                self.state = columns.respond(
                    self.state,
                    self.slices[int(column)],
                    jnp.asarray(fixed),
                    heat,
                    key,
                    batch=self.batch,
                    mapped=self.mapped,
                )

    def _exchange(self, column: int, free: np.ndarray) -> None:
        """Some rounds of exchanges in one column."""
        rows, alike = self.rows(), self.partners[column]
        batch = min(BATCH // 2, len(rows) // 2 + 1)
        for _ in range(_SWAPS):
            pairs = exact.paired(rows, alike, free, self.problem.generator)
            more = -len(pairs) % batch
            pairs = np.pad(pairs, ((0, more), (0, 0)), constant_values=len(rows))
            self.key, key = jax.random.split(self.key)
            self.state = columns.swap(
                self.state, self.slices[column], jnp.asarray(pairs), key, batch=batch
            )

    def rows(self) -> np.ndarray:
        """The table as it is, (N, d)."""
        return np.array(self.state.codes[:, : len(self.layout.sizes)])

    def loss(self) -> float:
        """F as it is."""
        return self.problem.loss(np.asarray(self.state.residuals))

    def check(self) -> np.ndarray:
        """Residuals counted anew, float64."""
        residuals = np.asarray(self.state.residuals)
        counted = self.problem.checked(residuals, self.rows())
        self.state = self.state._replace(residuals=jnp.asarray(counted, jnp.float32))
        return counted
