r"""MST: the columns, and a tree of pairs chosen privately, drawn from root to leaf.

A third of the budget measures all columns. Values below three deviations of noise are
merged. A third chooses the pairs of a spanning tree, one by one, by how far each is
from what independent columns give; a third measures them. A tree needs no search: its
tables are made consistent, and rows are drawn.

Source: McKenna, Miklau, Sheldon, "Winning the NIST Contest: A scalable and general
approach to differentially private synthetic data", 2021, arXiv:2108.04978.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from dp_accounting import DpEvent

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.relations import Relation
from dpkit.mechanisms.tables import Marginals, Selection
from dpkit.synthetic.budgets import apart, sums_and_scores, zcdp
from dpkit.synthetic.engine import Target
from dpkit.synthetic.estimates import Estimate, merged
from dpkit.synthetic.pgm import Graph, library
from dpkit.synthetic.recipe import (
    Fitted,
    Measurement,
    OnProgress,
    Purse,
    measure,
    quiet,
    select,
)
from dpkit.synthetic.ruled import ruled
from dpkit.synthetic.start import drawn, edge_table
from dpkit.synthetic.view import MOST_ROWS, refuse_memory

if TYPE_CHECKING:
    from dpkit.data.codes import Codebook
    from dpkit.synthetic.counting import Source

_RARE = 3.0  # deviations of noise below which values are merged


@dataclasses.dataclass(frozen=True, kw_only=True)
class MST:
    """A maximum spanning tree of pairs.

    Args:
      epsilon, delta: what everything may cost.
      rows: how many to make; None: as many as there are estimated to be, at most
        250,000.
      generator: "search", for rows drawn from the tree itself, or "pgm" (the extra
        `pgm`) for those of a graph.

    Raises:
      ValueError: a number out of range.
      ImportError: "pgm", without mbi.

    Example:
      >>> MST(epsilon=1.0, delta=1e-6).name
      'mst'
    """

    epsilon: float
    delta: float
    rows: int | None = None
    generator: Literal["search", "pgm"] = "search"

    name: ClassVar[str] = "mst"

    def __post_init__(self) -> None:
        """Refuses numbers out of range."""
        checks.positive(epsilon=self.epsilon)
        checks.open_probability(delta=self.delta)
        checks.one_of(("search", "pgm"), generator=self.generator)
        if self.generator == "pgm":
            library()
        if self.rows is not None:
            checks.integer_at_least(1, rows=self.rows)

    def scales(
        self, columns: int, relation: Relation = Relation.ADD_REMOVE
    ) -> tuple[float, float, float]:
        """Noise of columns, epsilon of a choice, noise of pairs, in units of reach.

        Example:
          >>> [round(x, 4) for x in MST(epsilon=1.0, delta=1e-6).scales(14)]
          [29.3634, 0.0707, 28.2953]
        """
        far = apart(relation)
        rho, edges = zcdp(self.epsilon, self.delta), max(columns - 1, 1)
        if columns == 1:
            return far * math.sqrt(1 / (2 * rho)), 0.0, 0.0
        return (
            far * math.sqrt(3 * columns / (2 * rho)),
            math.sqrt(8 * rho / (3 * edges)) / far**2,
            far * math.sqrt(3 * edges / (2 * rho)),
        )

    def releases(
        self, codebook: Codebook, relation: Relation, reach: int
    ) -> Mapping[str, DpEvent]:
        """Columns, the choice of each edge, and the edges' tables."""
        sums_and_scores(relation, "MST")
        columns = len(codebook.sizes)
        refuse_memory(codebook, list(itertools.combinations(range(columns), 2)))
        single, chosen, pair = self.scales(columns, relation)
        events = {"columns": _sums(codebook, _singles(codebook), single, reach)}
        found = {name: sums.event(relation) for name, sums in events.items()}
        if columns > 1:
            choice = Selection(epsilon=chosen, sensitivity=float(reach))
            for edge in range(1, columns):
                found[f"edge {edge}"] = choice.event(relation)
            tables = tuple((0, n) for n in range(1, columns))  # any tree costs the same
            sums = _sums(codebook, tables, pair, reach)
            found["edges"] = sums.event(relation)
        return found

    def fit(
        self,
        source: Source,
        purse: Purse,
        *,
        seed: int,
        on_progress: OnProgress | None = None,
    ) -> Fitted:
        """Measures, chooses, measures, and draws rows."""
        book, reach = source.codebook, source.reach
        columns, tell = len(book.sizes), on_progress or quiet
        tell(0, 1, "counting pairs")
        singles, pairs = _singles(book), list(itertools.combinations(range(columns), 2))
        counted = source.count([*singles, *pairs])
        counts: dict[Any, np.ndarray] = dict(
            zip([*singles, *pairs], counted, strict=True)
        )
        single, chosen, noise = self.scales(columns, purse.relation)
        released = _released(
            _sums(book, singles, single, reach), counts, source, purse, "columns"
        )
        estimate = Estimate.of(book.sizes, merged(released))
        rare = [_merged_values(one) for one in released]
        scores = {
            (a, b): float(
                np.abs(
                    counts[a, b] * source.unit
                    - estimate.records
                    * np.outer(estimate.shares[a], estimate.shares[b])
                ).sum()
            )
            for a, b in pairs
        }
        tree = self._tree(columns, scores, chosen, source, purse)
        small = [int(groups.max()) + 1 for groups in rare]
        found = [_compressed(*one) for one in zip(released, rare, strict=True)]
        if tree:
            sums = Marginals(
                families=tuple(tree),
                sizes=tuple(small),
                stddevs=(noise * reach,) * len(tree),
                reach=reach,
            )
            coarse = {(a, b): _coarse(counts[a, b], rare[a], rare[b]) for a, b in tree}
            edges = _released(sums, coarse, source, purse, "edges")
            released += [_spread(one, rare) for one in edges]
            found += edges
        tell(0, 1, "drawing rows")
        fitted = self._drawn(book, released, tree, seed)
        rows = fitted.rows
        if self.generator == "pgm":
            graph, generator = Graph(small), np.random.default_rng([seed, 0])
            graph.fit(found, max(fitted.records, 1.0))
            rows = _expanded(graph.drawn(len(rows), generator), rare, generator)
        rows = ruled(rows, book, [*singles, *tree], seed)
        return dataclasses.replace(fitted, rows=rows)

    def _tree(
        self,
        columns: int,
        scores: Mapping[tuple[int, int], float],
        epsilon: float,
        source: Source,
        purse: Purse,
    ) -> list[tuple[int, int]]:
        """The edges, chosen one by one."""
        group, tree = list(range(columns)), []
        choice = Selection(
            epsilon=epsilon or 1.0, sensitivity=source.reach * source.unit
        )
        for number in range(1, columns):
            open_pairs = [pair for pair in scores if group[pair[0]] != group[pair[1]]]
            values = np.array([scores[pair] for pair in open_pairs])
            (best,) = select(choice, values, purse, f"edge {number}")
            a, b = open_pairs[best]
            kept, lost = group[a], group[b]
            group = [kept if one == lost else one for one in group]
            tree.append((a, b))
        return tree

    def _drawn(
        self,
        book: Codebook,
        released: list[Measurement],
        tree: list[tuple[int, int]],
        seed: int,
    ) -> Fitted:
        """Rows of the tree."""
        whole = merged(released)
        estimate = Estimate.of(book.sizes, whole)
        shares, records = estimate.shares, max(estimate.records, 1.0)
        tables = {
            (a, b): edge_table(whole[a, b].values / records, shares[a], shares[b])
            for a, b in tree
        }
        count = self.rows or max(1, min(round(estimate.records), MOST_ROWS))
        rows = drawn(shares, tables, count, np.random.default_rng([seed, 0]))
        targets = [Target((n,), share) for n, share in enumerate(shares)]
        targets += [Target(pair, table) for pair, table in tables.items()]
        estimates: dict[Any, tuple[np.ndarray, np.ndarray]] = {
            (n,): (records * share, np.full(share.shape, precision**-0.5))
            for n, (share, precision) in enumerate(
                zip(shares, estimate.precisions, strict=True)
            )
        }
        for pair, table in tables.items():
            deviation = np.full(table.shape, whole[pair].stddev)
            estimates[pair] = (records * table, deviation)
        return Fitted(
            tuple(released), tuple(targets), rows, estimate.records, estimates
        )


def _singles(book: Codebook) -> tuple[tuple[int, ...], ...]:
    """All columns, each alone."""
    return tuple((n,) for n in range(len(book.sizes)))


def _sums(
    book: Codebook, families: tuple[tuple[int, ...], ...], scale: float, reach: int
) -> Marginals:
    """Tables with the same noise, in steps of counts."""
    return Marginals(
        families=families,
        sizes=tuple(book.sizes),
        stddevs=(scale * reach,) * len(families),
        reach=reach,
    )


def _released(
    sums: Marginals,
    counts: Mapping[Any, np.ndarray],
    source: Source,
    purse: Purse,
    name: str,
) -> list[Measurement]:
    """Tables with noise, in rows."""
    total = np.concatenate([counts[family].ravel() for family in sums.families])
    tables = sums.split(measure(sums, total, purse, name))
    return [
        Measurement(family, table * source.unit, stddev * source.unit)
        for family, table, stddev in zip(
            sums.families, tables, sums.stddevs, strict=True
        )
    ]


def _merged_values(found: Measurement) -> np.ndarray:
    """A group for each value; those that noise could have made share one."""
    seen = found.values >= _RARE * found.stddev
    groups = np.where(seen, np.cumsum(seen) - 1, seen.sum())
    return groups.astype(np.int64)


def _compressed(found: Measurement, groups: np.ndarray) -> Measurement:
    """A column by groups of values, as noisy in the mean of its cells."""
    values = np.bincount(groups, found.values)
    stddev = found.stddev * math.sqrt(len(groups) / len(values))
    return Measurement(found.columns, values, stddev)


def _expanded(
    rows: np.ndarray, groups: list[np.ndarray], generator: np.random.Generator
) -> np.ndarray:
    """Values of groups, evenly drawn inside each."""
    found = np.empty_like(rows)
    for n, group in enumerate(groups):
        members, sizes = np.argsort(group, kind="stable"), np.bincount(group)
        within = generator.integers(0, sizes[rows[:, n]])
        found[:, n] = members[(np.cumsum(sizes) - sizes)[rows[:, n]] + within]
    return found


def _coarse(counts: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """A table by groups of values."""
    whole = np.zeros((int(first.max()) + 1, int(second.max()) + 1), np.int64)
    np.add.at(whole, (first[:, None], second[None]), counts)
    return whole


def _spread(found: Measurement, groups: list[np.ndarray]) -> Measurement:
    """A table of groups as one of values, evenly inside each group."""
    a, b = found.columns
    parts = [np.bincount(groups[n])[groups[n]] for n in (a, b)]
    values = found.values[groups[a]][:, groups[b]] / np.outer(*parts)
    return Measurement(found.columns, values, found.stddev)
