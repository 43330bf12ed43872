"""From released tables of singles and pairs to rows; all of it post-processing.

Columns by least squares over everything measured, pairs shrunk, a price on pairs of
values that nobody seems to hold, a start from the strongest pairs, and the search.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dpkit.synthetic.engine import Target, memory, search
from dpkit.synthetic.estimates import Estimate, merged
from dpkit.synthetic.recipe import Fitted, Measurement, OnProgress
from dpkit.synthetic.shrinkage import PairTarget, pair_target, strength, zero_chances
from dpkit.synthetic.start import drawn, edge_table, forest

if TYPE_CHECKING:
    from dpkit.data.codes import Codebook

MOST_ROWS = 250_000
_TEMPERATURE = 8.0  # times the noise of a cell
_HARD = math.inf
_BYTES = 64  # of a cell: counts, noise, targets, residuals
_MOST_BYTES = 8 * 2**30


@dataclasses.dataclass(frozen=True, eq=False)
class View:
    """What released tables say of columns and pairs.

    Args:
      codebook: public.
      measured: by columns.
      estimate: of single columns.
      shares: of single columns, distributions.
      pairs: shrunk tables.
    """

    codebook: Codebook
    measured: Mapping[tuple[int, ...], Measurement]
    estimate: Estimate
    shares: list[np.ndarray]
    pairs: Mapping[tuple[int, int], PairTarget]

    @classmethod
    def of(cls, codebook: Codebook, measurements: Sequence[Measurement]) -> View:
        """The view of some measurements of singles and pairs."""
        measured = merged(measurements)
        estimate = Estimate.of(codebook.sizes, measured)
        shares, records = estimate.shares, max(estimate.records, 1.0)
        impossible = {one.columns: one.mask for one in codebook.forbidden}
        pairs = {}
        for columns, found in measured.items():
            if len(columns) != 2:
                continue
            a, b = columns
            ordered = (codebook.ordered[a], codebook.ordered[b])
            pair = pair_target(
                found.values, found.precision, records, shares[a], shares[b], ordered
            )
            if columns in impossible:
                pair.values[impossible[columns]] = 0.0
                pair.stddev[impossible[columns]] = 0.0
            pairs[a, b] = pair
        return cls(codebook, measured, estimate, shares, pairs)

    @property
    def records(self) -> float:
        """n-hat, at least 1."""
        return max(self.estimate.records, 1.0)

    @property
    def noise(self) -> float:
        """The noise of a cell of a pair, root mean square; of a single without any."""
        chosen = self.pairs or [(n,) for n in range(len(self.shares))]
        noises = [1 / self.measured[columns].precision for columns in chosen]
        return float(np.sqrt(np.mean(noises)))

    def strength(self, pair: tuple[int, int]) -> float:
        """How far a pair is from independent."""
        a, b = pair
        return strength(self.pairs[pair].values, self.shares[a], self.shares[b])

    def targets(self, price: float, exact: Sequence[Measurement]) -> list[Target]:
        """What to search for: shares, with the price on pairs that nobody holds."""
        fixed = {one.columns for one in exact if one.stddev == 0}
        targets = [
            Target((n,), share, _HARD if (n,) in fixed else 1.0)
            for n, share in enumerate(self.shares)
        ]
        mean = float(
            np.mean([1 / self.measured[pair].precision for pair in self.pairs] or [1.0])
        )
        for (a, b), pair in self.pairs.items():
            found = self.measured[a, b]
            if found.stddev == 0:
                values = found.values / found.values.sum()
                targets.append(Target((a, b), values, _HARD))
                continue
            expected = self.records * np.outer(self.shares[a], self.shares[b])
            chances = zero_chances(found.values, expected, found.stddev)
            values = pair.values - price * self.noise / self.records * chances
            targets.append(Target((a, b), values, found.precision * mean))
        return targets

    def start(self, rows: int, generator: np.random.Generator) -> np.ndarray:
        """Rows to begin with."""
        edges, _ = forest(self.shares, self.pairs)
        tables = {
            (a, b): edge_table(self.pairs[a, b].values, self.shares[a], self.shares[b])
            for a, b in edges
        }
        return drawn(self.shares, tables, rows, generator)

    def fitted(
        self,
        measurements: Sequence[Measurement],
        *,
        price: float,
        rows: int | None,
        sweeps: int,
        cooling: float,
        seed: int,
        tell: OnProgress,
    ) -> Fitted:
        """The rows that agree best, and all that is known of them.

        Args:
          measurements: all that were released; those with stddev 0 are kept exactly.
          price: on pairs of values that nobody seems to hold.
          rows: how many; None: as many as there are estimated to be, up to a limit.
          sweeps, cooling, seed: of the search.
          tell: is told how far it has come.
        """
        exact = [one for one in measurements if one.stddev == 0]
        targets = self.targets(price, exact)
        count = rows or max(1, min(round(self.estimate.records), MOST_ROWS))
        generator = np.random.default_rng([seed, 0])
        found = search(
            self.start(count, generator),
            self.codebook.sizes,
            targets,
            seed=seed,
            sweeps=sweeps,
            temperature=_TEMPERATURE * self.noise / self.records,
            cooling=cooling,
            forbidden=self.codebook.forbidden,
            on_progress=lambda done, total: tell(done, total, "searching"),
        )
        return Fitted(
            tuple(measurements),
            tuple(targets),
            found.rows,
            self.estimate.records,
            estimates=self.estimates(),
            facts={"loss": found.loss, "pairs": len(self.pairs)},
        )

    def estimates(self) -> dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]]:
        """Counts of singles and pairs, and their deviations."""
        found: dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]] = {}
        for n, share in enumerate(self.shares):
            deviation = self.estimate.precisions[n] ** -0.5
            found[(n,)] = (self.records * share, np.full(share.shape, deviation))
        for columns, pair in self.pairs.items():
            found[columns] = (self.records * pair.values, self.records * pair.stddev)
        return found


def memory_limit() -> int:
    """Bytes that one synthesis may take: a quarter of the machine's, at most 8 GiB.

    Example:
      >>> 0 < memory_limit() <= 8 * 2**30
      True
    """
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return min(pages * size // 4, _MOST_BYTES)


def refuse_memory(
    codebook: Codebook,
    families: Sequence[tuple[int, ...]],
    limit: int | None = None,
    *,
    rows: int | None = None,
) -> None:
    """Refuses tables and searches that don't fit, before any is allocated or paid.

    Args:
      codebook: public.
      families: to be counted.
      limit: in bytes; None: `memory_limit()`.
      rows: to be searched for; None: the most that are made unasked.

    Raises:
      ValueError: names the largest family, its shape, its bytes, and remedies.
    """
    limit = memory_limit() if limit is None else limit
    cells = {
        family: math.prod(codebook.sizes[n] for n in family) for family in families
    }
    needed = _BYTES * sum(cells.values())
    if needed <= limit and max(cells.values(), default=0) < 2**31:
        _refuse_search(codebook, families, limit, rows or MOST_ROWS)
        return
    largest = max(cells, key=lambda family: cells[family])
    names = " and ".join(codebook.names[n] for n in largest)
    shape = " x ".join(str(codebook.sizes[n]) for n in largest)
    raise ValueError(
        f"memory: all tables need about {needed:,} bytes, above {limit:,}; the largest "
        f"is {names}, {shape} cells, {_BYTES * cells[largest]:,} bytes: declare fewer "
        "bins or categories, or leave the pair out by pairs="
    )


def _refuse_search(
    codebook: Codebook, families: Sequence[tuple[int, ...]], limit: int, rows: int
) -> None:
    """Refuses what would be refused when all is paid: a search that doesn't fit."""
    sizes = codebook.sizes
    singles = [(n,) for n in range(len(sizes))]
    shapes = {f: tuple(sizes[n] for n in f) for f in [*singles, *families]}
    targets = [Target(f, np.broadcast_to(0.0, shape)) for f, shape in shapes.items()]
    needed = memory(sizes, targets, rows)
    if needed > limit:
        widest = int(np.argmax(sizes))
        raise ValueError(
            f"memory: the search for {rows:,} rows needs about {needed:,} bytes, above "
            f"{limit:,}; the widest column is {codebook.names[widest]!r}, of "
            f"{sizes[widest]:,} values: declare fewer, or make fewer rows"
        )
