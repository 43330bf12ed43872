r"""The search for a table whose marginals are near their targets.

minimise F(X) = sum over targets m of w_m |c_m(X) / N - t_m|^2 over tables X of N rows,
by changing rows one cell at a time (`columns`). A sweep takes every column once, in
random order, and all rows. Noise of a temperature that cools from sweep to sweep gets
it out of shallow minima; F itself never rises.

All of it is a function of public values and a seed: the same on one core and on many.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dpkit.accountants.answers import checks
from dpkit.synthetic.engine import columns, exact
from dpkit.synthetic.engine.families import Marginal
from dpkit.synthetic.engine.layout import BIG, Layout, Slice, joined
from dpkit.synthetic.engine.targets import (
    Found,
    Impossible,
    Target,
    broken,
    checked_frozen,
    checked_rules,
    checked_sizes,
    checked_start,
)

BATCH = 2048
_SWAPS = 8  # rounds of partners for each row of a column that may only be exchanged
_CHECKED = 50  # sweeps after which residuals are counted anew
_MOST = 8 * 2**30


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
      hard_singles: treat targets of one column as if of infinite weight.
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
    sizes = checked_sizes(sizes)
    layout, hard = laid_out(sizes, targets, forbidden, hard_singles)
    rows = checked_start(start, sizes)
    cells = checked_frozen(frozen, rows.shape)
    refuse_memory(layout, len(rows), memory_limit)
    generator = np.random.default_rng(seed)
    rows = exact.met(rows, sizes, hard, cells, generator)
    kept = cells | exact.held(hard, len(sizes))[None]
    rows = exact.repaired(rows, sizes, forbidden, kept, generator)
    run = _Run(layout, goals(targets, forbidden, len(rows), hard_singles), rows, seed)
    partners = exact.partners(hard, len(sizes))
    done = 0
    for done in range(1, sweeps + 1):
        run.sweep(temperature * cooling ** (done - 1), cells, partners, generator)
        if on_progress:
            on_progress(done, sweeps)
        if done % _CHECKED == 0:
            run.check()
        if stop_below is not None and run.loss() <= stop_below:
            break
    run.check()
    rows = run.rows()
    if (wrong := broken(forbidden, rows).any(axis=1)).any():
        rule = forbidden[int(wrong.argmax())]
        raise ValueError(
            f"forbidden {rule.columns}: the search found no rows without them; frozen "
            "cells or exact targets leave too little room"
        )
    return Found(rows, run.loss(), done)


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
    layout, _ = laid_out(checked_sizes(sizes), targets, forbidden)
    return _memory(layout, checks.integer_at_least(1, rows=rows))


def laid_out(
    sizes: tuple[int, ...],
    targets: Sequence[Target],
    forbidden: Sequence[Impossible],
    hard_singles: bool = False,
) -> tuple[Layout, list[exact.Exact]]:
    """Families that are searched for, with prices behind them; and exact targets.

    Raises:
      ValueError: something doesn't fit together.
    """
    checked_rules(forbidden, sizes)
    soft, hard = [], []
    for target in targets:
        family = target.family(sizes)
        if target.hard or (hard_singles and len(target.columns) == 1):
            hard.append(exact.Exact(family, np.asarray(target.values, np.float64)))
        elif target.weight > 0:
            soft.append((family, float(target.weight)))
    prices = [Marginal(tuple(rule.columns), sizes) for rule in forbidden]
    layout = Layout(
        sizes,
        (*(family for family, _ in soft), *prices),
        (*(weight for _, weight in soft), *(1.0 for _ in prices)),
        (True,) * len(soft) + (False,) * len(prices),
    )
    return layout, hard


def goals(
    targets: Sequence[Target],
    forbidden: Sequence[Impossible],
    rows: int,
    hard_singles: bool = False,
) -> np.ndarray:
    """What counts are compared with, in rows, in the order of `laid_out`."""
    return joined(
        [
            *(
                np.asarray(target.values, np.float64) * rows
                for target in targets
                if 0 < target.weight < math.inf
                and not (hard_singles and len(target.columns) == 1)
            ),
            *(-BIG * rule.mask for rule in forbidden),
        ]
    )


def refuse_memory(layout: Layout, rows: int, limit: int | None) -> None:
    """Refuse what is too large, before any of it is allocated.

    Raises:
      ValueError: names the largest family, its shape, its bytes, and remedies.
    """
    if limit is None:
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
        limit = min(pages * size // 4, _MOST)
    needed = _memory(layout, rows)
    cells = [math.prod(shape) for shape in layout.shapes]
    if needed <= checks.integer_at_least(1, memory_limit=limit) and sum(cells) < 2**31:
        return
    largest = max(range(len(cells)), key=cells.__getitem__, default=None)
    named = (
        f"{rows} rows"
        if largest is None
        else f"the largest family, columns {layout.families[largest].columns} of shape "
        f"{layout.shapes[largest]}, has {4 * cells[largest]} bytes"
    )
    raise ValueError(
        f"memory_limit={limit}: the search needs about {needed} bytes; {named}; take "
        "fewer bins, leave that family out, or count coarser codes of it"
    )


def _memory(layout: Layout, rows: int) -> int:
    """Bytes at the peak: residuals, one slice and its tables, a batch, rows."""
    cells = sum(math.prod(shape) for shape in layout.shapes)
    shapes = [layout.slice_shape(column) for column in range(len(layout.sizes))]
    part = max(high * width for high, width in shapes)
    tables = sum(high for high, _ in shapes)
    width = max(width for _, width in shapes)
    batch = min(BATCH, rows)
    beside = 12 * len(layout.families)
    views = len(layout.view_maps)
    return (
        32 * cells
        + 16 * part
        + 12 * tables
        + 4 * batch * (4 * width + beside)
        + 8 * columns.NOISE_ROWS * width
        + 4 * rows * (3 * views + 2 * len(layout.sizes))
    )


class _Run:
    """A search under way: what is on the device, and its bookkeeping."""

    def __init__(
        self, layout: Layout, goals: np.ndarray, rows: np.ndarray, seed: int
    ) -> None:
        self.layout, self.goals, self.number = layout, goals, len(rows)
        self.key = jax.random.key(seed)
        self.batch = min(BATCH, len(rows))
        self.mapped = len(layout.view_maps) > len(layout.sizes)
        self.state = columns.State(
            jnp.asarray(self._counted(rows), jnp.float32),
            jnp.asarray(layout.viewed(rows)),
            jnp.full(len(layout.sizes), 0.5, jnp.float32),
            jnp.zeros((), jnp.int32),
        )

    @functools.cached_property
    def slices(self) -> dict[int, Slice]:
        """The tables of every column that has more than one code."""
        sizes = self.layout.sizes
        return {n: self.layout.slice(n) for n in range(len(sizes)) if sizes[n] > 1}

    def _counted(self, rows: np.ndarray) -> np.ndarray:
        """Residuals in float64, in rows."""
        return np.append(self.layout.counts(rows), 0) - self.goals

    def sweep(
        self,
        temperature: float,
        frozen: np.ndarray,
        partners: dict[int, list[Marginal]],
        generator: np.random.Generator,
    ) -> None:
        """Every column once, in random order."""
        heat = jnp.float32(temperature * self.number)
        for column in generator.permutation(list(self.slices)):
            table, fixed = self.slices[int(column)], frozen[:, column]
            if fixed.all():
                continue
            if column in partners:
                self._exchange(int(column), partners[int(column)], ~fixed, generator)
                continue
            self.key, key = jax.random.split(self.key)
            self.state = columns.respond(
                self.state,
                table,
                jnp.asarray(fixed),
                heat,
                key,
                batch=self.batch,
                mapped=self.mapped,
            )

    def _exchange(
        self,
        column: int,
        alike: list[Marginal],
        free: np.ndarray,
        generator: np.random.Generator,
    ) -> None:
        """Some rounds of exchanges in one column."""
        rows = self.rows()
        batch = min(BATCH // 2, len(rows) // 2 + 1)
        for _ in range(_SWAPS):
            pairs = exact.paired(rows, alike, free, generator)
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
        return self.layout.loss(np.asarray(self.state.residuals), self.number)

    def check(self) -> None:
        """Count residuals anew in float64; differences are float32's, or it is a fault.

        Raises:
          RuntimeError: residuals weren't those of the rows.
        """
        counted = self._counted(self.rows())
        live = np.abs(counted) < BIG / 2
        drift = np.abs(np.asarray(self.state.residuals) - counted)[live].max(initial=0)
        if drift > max(1e-4 * math.sqrt(self.number), 1e-6 * self.number):
            raise RuntimeError(
                f"residuals are off by {drift:.3g} rows: this is a fault"
            )
        self.state = self.state._replace(residuals=jnp.asarray(counted, jnp.float32))
