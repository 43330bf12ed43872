"""What a search starts from, checked, and within a limit of memory."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence

import numpy as np

from dpkit.accountants.answers import checks
from dpkit.synthetic.engine import exact
from dpkit.synthetic.engine.families import Family, Marginal
from dpkit.synthetic.engine.layout import BIG, Layout
from dpkit.synthetic.engine.targets import (
    Impossible,
    Target,
    broken,
    checked_frozen,
    checked_rules,
    checked_shares,
    checked_sizes,
    checked_start,
)

_MOST = 8 * 2**30


@dataclasses.dataclass(frozen=True, eq=False)
class Asked:
    """What is searched for: families with their shares and weights, and rules.

    Attributes:
      layout: families of finite weight; behind them, rules as prices.
      shares: of the families of finite weight.
      hard: those that are met exactly.
      rules: what no row may hold.
    """

    layout: Layout
    shares: tuple[np.ndarray, ...]
    hard: tuple[exact.Exact, ...]
    rules: tuple[Impossible, ...]

    @classmethod
    def of(
        cls,
        sizes: Sequence[int],
        families: Sequence[Family],
        shares: Sequence[np.ndarray],
        weights: Sequence[float],
        forbidden: Sequence[Impossible],
    ) -> Asked:
        """Refuses what doesn't fit together.

        Raises:
          ValueError: names the argument.
        """
        sizes = checked_sizes(sizes)
        checked_rules(forbidden, sizes)
        soft, hard = [], []
        for family, given, weight in zip(families, shares, weights, strict=True):
            values = checked_shares(family, given, weight)
            if weight < math.inf:
                soft.append((family, values, float(weight)))
            elif isinstance(family, Marginal):
                hard.append(exact.Exact(family, values))
            else:
                raise ValueError("weight=inf: needed a marginal, not a region")
        soft = [one for one in soft if one[2] > 0]
        prices = [Marginal(tuple(rule.columns), sizes) for rule in forbidden]
        layout = Layout(
            sizes,
            (*(family for family, _, _ in soft), *prices),
            (*(weight for _, _, weight in soft), *(1.0 for _ in prices)),
            (True,) * len(soft) + (False,) * len(prices),
        )
        values = tuple(values for _, values, _ in soft)
        return cls(layout, values, tuple(hard), tuple(forbidden))

    @classmethod
    def targets(
        cls,
        sizes: Sequence[int],
        targets: Sequence[Target],
        forbidden: Sequence[Impossible],
        hard_singles: bool,
    ) -> Asked:
        """The same of targets; those of one column met exactly if `hard_singles`."""
        weights = [
            math.inf if hard_singles and len(target.columns) == 1 else target.weight
            for target in targets
        ]
        families = [target.family(sizes) for target in targets]
        values = [target.values for target in targets]
        return cls.of(sizes, families, values, weights, forbidden)

    def refuse_memory(self, needed: int, rows: int, limit: int | None) -> None:
        """Refuse what is too large, before any of it is allocated.

        Raises:
          ValueError: names the largest family, its shape, its bytes, and remedies.
        """
        if limit is None:
            pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
            limit = min(pages * size // 4, _MOST)
        cells = [math.prod(shape) for shape in self.layout.shapes]
        fits = needed <= checks.integer_at_least(1, memory_limit=limit)
        if fits and sum(cells) < 2**31:
            return
        largest = int(np.argmax([*cells, 0]))
        named = f"{rows} rows take most of it"
        if sum(cells) > rows and cells:
            named = (
                f"the largest family, columns {self.layout.families[largest].columns} "
                f"of shape {self.layout.shapes[largest]}, has {4 * cells[largest]} "
                "bytes; take fewer bins, leave it out, or count coarser codes of it"
            )
        raise ValueError(
            f"memory_limit={limit}: the search needs about {needed} bytes; {named}"
        )

    def posed(self, start: np.ndarray, frozen: np.ndarray | None, seed: int) -> Problem:
        """The problem of changing `start`, repaired.

        Raises:
          ValueError, TypeError: start or frozen don't fit; exact totals can't be met.
        """
        sizes = self.layout.sizes
        rows = checked_start(start, sizes)
        cells = checked_frozen(frozen, rows.shape)
        generator = np.random.default_rng(seed)
        rows = exact.met(rows, self.hard, cells, generator)
        kept = cells | exact.held(self.hard, len(sizes))[None]
        rows = exact.repaired(rows, sizes, self.rules, kept, generator)
        goals = np.zeros(self.layout.length)
        parts = [values * len(rows) for values in self.shares]
        parts += [-float(BIG) * rule.mask for rule in self.rules]
        for begin, part in zip(self.layout.offsets, parts, strict=False):
            goals[begin : begin + part.size] = part.reshape(-1)
        return Problem(self, rows, cells, goals, generator)


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """Rows to begin with, (N, d), cells that stay, and what counts should be."""

    asked: Asked
    start: np.ndarray
    frozen: np.ndarray
    goals: np.ndarray
    generator: np.random.Generator

    def residuals(self, rows: np.ndarray) -> np.ndarray:
        """Counts less goals, in rows, float64."""
        return self.asked.layout.counts(rows) - self.goals

    def loss(self, residuals: np.ndarray) -> float:
        """F of residuals."""
        return self.asked.layout.loss(residuals, len(self.start))

    def checked(self, residuals: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Residuals counted anew; those given may differ by float32's rounding.

        Raises:
          RuntimeError: they weren't those of the rows.
        """
        counted = self.residuals(rows)
        drift = np.abs(residuals - counted)[np.abs(counted) < BIG / 2].max(initial=0)
        if drift > max(1e-4 * math.sqrt(len(rows)), 1e-6 * len(rows)):
            raise RuntimeError(f"residuals are off by {drift:.3g} rows: a fault")
        return counted

    def refuse_impossible(self, rows: np.ndarray) -> None:
        """Refuse a result that holds what no row may hold.

        Raises:
          ValueError: names the columns.
        """
        wrong = broken(self.asked.rules, rows).any(axis=1)
        if wrong.any():
            rule = self.asked.rules[int(wrong.argmax())]
            raise ValueError(
                f"forbidden {rule.columns}: the search found no rows without them; "
                "frozen cells or exact targets leave too little room"
            )
