"""A genetic search for a table with given statistics of any kind.

One row or two change at a time, the best of some random candidates, so statistics need
only be counts of rows; their regions may be half-spaces and prefixes. For marginals
alone `search` is much faster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dpkit.accountants.answers import checks
from dpkit.synthetic.engine import exact, regions
from dpkit.synthetic.engine import generations as program
from dpkit.synthetic.engine.families import Family, Region
from dpkit.synthetic.engine.layout import room
from dpkit.synthetic.engine.problem import Asked, Problem
from dpkit.synthetic.engine.targets import Found, Impossible

_BLOCK = 2**17  # candidates for which random numbers are drawn at once


def evolve(
    start: np.ndarray,
    sizes: Sequence[int],
    families: Sequence[Family],
    shares: Sequence[np.ndarray],
    *,
    generations: int,
    seed: int,
    weights: Sequence[float] | None = None,
    candidates: int | None = 50,
    ordered: Sequence[bool] | None = None,
    forbidden: Sequence[Impossible] = (),
    frozen: np.ndarray | None = None,
    stop_below: float | None = None,
    memory_limit: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Found:
    """The rows of a table that has nearly the shares that are asked for.

    In every generation one of four operators makes candidates (a new code; in ordered
    columns, one between neighbouring quantiles; two rows exchange a code; a row takes
    one or two codes over from another), and the best is taken if it lowers F, the sum
    of weights times squared differences. Operators that succeed are drawn more often.

    Args:
      start: (N, d) whole numbers, what it begins with.
      sizes: codes of each column.
      families: what is counted; regions must agree on a column's values.
      shares: of all rows in the cells of each family, signed, shaped like it.
      generations: at least 0.
      seed: of the search; no noise hangs on it.
      weights: of families, 1 by default; `math.inf` (marginals only): met exactly.
      candidates: in each generation; None: all changes of one cell, the steepest
        descent. For small tables.
      ordered: (d,) columns whose codes are in order; none by default.
      forbidden, frozen, stop_below, memory_limit: see `search`.
      on_progress: is told the generations that are done, and `generations`.

    Raises:
      ValueError, TypeError: as `search`.

    Example:
      >>> from dpkit.synthetic.engine import Marginal
      >>> half = Marginal((0,), (2,))
      >>> start = np.zeros((4, 1), int)
      >>> shares = [np.array([0.5, 0.5])]
      >>> found = evolve(start, (2,), [half], shares, generations=100, seed=0)
      >>> found.loss, sorted(found.rows[:, 0].tolist())
      (0.0, [0, 0, 1, 1])

    Reference: Liu, Tang, Vietri, Wu, "Generating Private Synthetic Data with Genetic
    Algorithms", 2023, arXiv:2306.03257, in the form of a hill climb.
    """
    checks.integer_at_least(0, generations=generations)
    if candidates is not None:
        checks.integer_at_least(1, candidates=candidates)
    weights = [1.0] * len(families) if weights is None else weights
    if not len(families) == len(shares) == len(weights):
        raise ValueError(
            f"shares, weights: {len(shares)}, {len(weights)}; needed one for each of "
            f"{len(families)} families"
        )
    asked = Asked.of(sizes, families, shares, weights, forbidden)
    size = np.shape(start)[0] * sum(sizes) if candidates is None else candidates
    asked.refuse_memory(_memory(asked, len(start), size), len(start), memory_limit)
    run = _Run(asked.posed(start, frozen, seed), ordered, candidates, seed)
    done = 0
    while done < generations:
        done = run.advance(done, generations)
        if on_progress:
            on_progress(done, generations)
        if stop_below is not None and run.problem.loss(run.residuals()) <= stop_below:
            break
    rows = run.rows()
    residuals = run.problem.checked(run.residuals(), rows)
    run.problem.refuse_impossible(rows)
    return Found(rows, run.problem.loss(residuals), done)


def _memory(asked: Asked, rows: int, candidates: int) -> int:
    """Bytes at the peak: residuals, scores of regions, candidates, rows."""
    layout = asked.layout
    beside, scores = regions.entries(layout)
    own = 40 * len(layout.counted) + 24 * len(layout.view_maps)
    return (
        32 * layout.length
        + 8 * (scores + beside)
        + 4 * candidates * own
        + 24 * max(_BLOCK, candidates)
        + 4 * rows * (3 * len(layout.view_maps) + 3 * len(layout.sizes))
    )


class _Run:
    """A search under way: what is on the device, and its bookkeeping."""

    def __init__(
        self,
        problem: Problem,
        ordered: Sequence[bool] | None,
        candidates: int | None,
        seed: int,
    ) -> None:
        layout = problem.asked.layout
        self.problem, self.key = problem, jax.random.key(seed)
        movable = (np.array(layout.sizes) > 1) & ~problem.frozen.all(axis=0)
        if ordered is not None and len(ordered) != len(movable):
            raise ValueError(f"ordered: {len(ordered)} columns, needed {len(movable)}")
        sorted_ = movable & np.array(ordered or [False] * len(movable))
        self.tables = jax.tree.map(
            jnp.asarray, _tables(problem, np.flatnonzero(movable), sorted_)
        )
        everything = None if candidates else _everything(layout.sizes, problem.start)
        self.everything = everything
        self.candidates = candidates or 1
        self.block = max(1, min(_BLOCK // self.candidates, 2**12))
        self.allowed = jnp.array(
            [1, 0, 0, 0] if everything else [1, sorted_.any(), 1, 1], jnp.float32
        )
        self.moves = bool(movable.any())
        residuals = problem.residuals(problem.start)
        self.state = program.State(
            jnp.asarray(residuals, jnp.float32),
            jnp.asarray(regions.beside(layout, residuals)),
            jnp.asarray(layout.viewed(problem.start)),
            jnp.full(len(program.OPERATORS), 0.25, jnp.float32),
        )

    def advance(self, done: int, generations: int) -> int:
        """Some more generations; how many are done then."""
        count = min(self.block, generations - done)
        if self.moves:
            self.key, key = jax.random.split(self.key)
            self.state = program.generations(
                self.tables,
                self.state,
                self.allowed,
                jnp.int32(count),
                key,
                self.everything,
                block=self.block,
                candidates=self.candidates,
            )
            jax.block_until_ready(self.state)
        return done + count

    def rows(self) -> np.ndarray:
        """The table as it is, (N, d)."""
        return np.array(self.state.codes[:, : len(self.problem.asked.layout.sizes)])

    def residuals(self) -> np.ndarray:
        """Residuals of all families in a row."""
        found = np.array(self.state.residuals)
        beside = np.asarray(self.state.regions)
        for part, place in regions.places(self.problem.asked.layout):
            found[part] = beside[place]
        return found


def _everything(sizes: Sequence[int], start: np.ndarray) -> program.Changes:
    """All changes of one cell: row by row, column by column, code by code."""
    columns = np.repeat(np.arange(len(sizes)), sizes)
    codes = np.concatenate([np.arange(size) for size in sizes])
    rows = np.repeat(np.arange(len(start)), len(codes))
    found = rows, np.tile(columns, len(start)), np.tile(codes, len(start))
    pairs = (jnp.asarray(np.stack([one, one], axis=1), jnp.int32) for one in found)
    return program.Changes(*pairs)


def _tables(
    problem: Problem, movable: np.ndarray, ordered: np.ndarray
) -> program.Tables:
    """What the program reads."""
    layout = problem.asked.layout
    count, depth = len(layout.families), len(layout.sizes)
    longest = max([1, *(len(family.columns) for family in layout.families)])
    # Families beyond those there are stand for none: all at the last cell.
    whole = room(count + 1)
    offsets = np.full(whole, layout.length - 1, np.int32)
    offsets[:count] = layout.offsets[:-1]
    views, strides = np.zeros((2, whole, longest), np.int32)
    own, steps = np.zeros((2, depth, whole), np.int32)
    for number, family in enumerate(layout.families):
        for n, pair in enumerate(family.mapped()):
            views[number, n] = layout.view_of(*pair)
            strides[number, n] = np.prod(layout.shapes[number][n + 1 :])
            if not isinstance(layout.counted[number], Region):
                own[pair[0], number] = views[number, n]
                steps[pair[0], number] = strides[number, n]
    holds = steps > 0
    most = room(int(holds.sum(axis=1).max()))
    touching = np.full((depth, most), count, np.int32)
    for column in range(depth):
        found = np.flatnonzero(holds[column])
        touching[column, : len(found)] = found
    maps = np.zeros((len(layout.view_maps), max(layout.sizes)), np.int32)
    for number, (_, chosen) in enumerate(layout.view_maps):
        maps[number, : len(chosen)] = chosen
    return program.Tables(
        offsets,
        np.pad(np.array(layout.weights, np.float32), (0, whole - count)),
        np.pad(np.array(layout.live, np.float32), (0, whole - count)),
        views,
        strides,
        touching,
        own,
        steps,
        np.array([column for column, _ in layout.view_maps], np.int32),
        maps,
        regions.tables(layout),
        np.array(layout.sizes, np.int32),
        movable.astype(np.int32),
        (np.flatnonzero(ordered) if ordered.any() else movable).astype(np.int32),
        exact.held(problem.asked.hard, depth),
        exact.alike(problem.asked.hard, depth),
        problem.frozen,
    )
