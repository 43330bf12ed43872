r"""AIM: measure, where the model is worst, again and again, on a budget of zCDP.

All columns first. Then each round chooses the set of columns whose table the model has
worst, by the exponential mechanism; measures it; and makes the model agree with
everything measured. Where a measurement moved the model less than its own noise, noise
is halved from then on. How much is measured, and how often, hangs on what came out, so
each release is charged to a ledger with a filter.

Source: McKenna, Mullins, Sheldon, Miklau, "AIM: An Adaptive and Iterative Mechanism for
Differentially Private Synthetic Data", 2022, arXiv:2201.12677. Their model is a Markov
random field (generator="pgm"); here it is rows, found by search. The factor 1/2 in the
exponent of a choice stays, for its scores are not monotone.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.relations import Relation
from dpkit.mechanisms.tables import Marginals, Selection
from dpkit.synthetic.budgets import apart, sums_and_scores, zcdp
from dpkit.synthetic.engine import Target, search
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
from dpkit.synthetic.view import MOST_ROWS, View, refuse_memory

if TYPE_CHECKING:
    from dpkit.data.codes import Codebook
    from dpkit.synthetic.counting import Source

Columns = tuple[int, ...]

_ROUNDS = 16  # a column, if noise were never halved
_TO_MEASURE = 0.9  # of a round's budget
_MODEL_ROWS = 10_000  # that stand for the table during the rounds
_SWEEPS, _WARM, _HOT = 4, 2.0, 8.0  # of a round; times a cell's noise; the same, last
_SAFE = 1 - 1e-7  # of rho, so that sums of rounded numbers stay below
_ABSOLUTE = math.sqrt(2 / math.pi)  # mean of a standard normal's absolute value


@dataclasses.dataclass(frozen=True, kw_only=True)
class AIM:
    """Adaptive choice of tables.

    Args:
      epsilon, delta: what everything may cost.
      workload: sets of columns, by name, whose tables shall come out well; one that is
        given twice counts twice. None: all pairs. These and their subsets are measured.
      max_cells: how large the model may become: cells of all tables measured, or of
        the junction tree. At first it may be as large as the share of the budget used.
      generator: "search" for rows, or "pgm" (the extra `pgm`; slow) for a graph.
      rows: how many to make; None: as many as there are estimated to be, at most
        250,000.
      sweeps, cooling: of the last search.

    Raises:
      ValueError: a number out of range.
      ImportError: "pgm", without mbi.

    Example:
      >>> [round(x, 4) for x in AIM(epsilon=1.0, delta=1e-6).schedule(14)]
      [71.4801, 0.0093]
    """

    epsilon: float
    delta: float
    workload: Sequence[Sequence[str]] | None = None
    max_cells: int = 10_000_000
    generator: Literal["search", "pgm"] = "search"
    rows: int | None = None
    sweeps: int = 8
    cooling: float = 0.7

    name: ClassVar[str] = "aim"

    def __post_init__(self) -> None:
        """Refuses numbers out of range."""
        checks.positive(epsilon=self.epsilon)
        checks.open_probability(delta=self.delta)
        checks.integer_at_least(1, max_cells=self.max_cells)
        checks.integer_at_least(1, sweeps=self.sweeps)
        checks.open_probability(cooling=self.cooling)
        checks.one_of(("search", "pgm"), generator=self.generator)
        if self.generator == "pgm":
            library()
        if self.rows is not None:
            checks.integer_at_least(1, rows=self.rows)

    def schedule(self, columns: int) -> tuple[float, float]:
        """Noise of a table, in units of reach, and epsilon of a choice; at first."""
        return _split(zcdp(self.epsilon, self.delta) / (_ROUNDS * columns))

    def releases(self, codebook: Codebook, relation: Relation, reach: int) -> None:
        """None: they are chosen along the way."""
        del reach
        sums_and_scores(relation, "AIM")
        refuse_memory(codebook, list(_weights(codebook, self.workload)))

    def fit(
        self,
        source: Source,
        purse: Purse,
        *,
        seed: int,
        on_progress: OnProgress | None = None,
    ) -> Fitted:
        """Rounds until the budget is used, then the rows."""
        tell, book = on_progress or quiet, source.codebook
        tell(0, 1, "counting tables")
        model: _Model = _Rows(book, seed)
        if self.generator == "pgm":
            model = Graph(book.sizes)
        run = _Rounds(source, purse, _weights(book, self.workload), model)
        rho = purse.affordable(zcdp(self.epsilon, self.delta)) * _SAFE
        noise, epsilon = _split(rho / (_ROUNDS * len(book.sizes)))
        left = rho - run.columns(noise)
        number, last = 0, False
        while not last:
            number += 1
            tell(round(1000 * (1 - left / rho)), 1000, "measuring")
            if left < 2 * _cost(noise, epsilon):
                noise, epsilon = _split(left)
                last = True
            left -= _cost(noise, epsilon)
            cells = self.max_cells * (1 - left / rho)
            if run.round(number, noise, epsilon, cells):
                noise, epsilon = noise / 2, epsilon * 2
        return self._made(book, run, seed, tell)

    def _made(
        self, book: Codebook, run: _Rounds, seed: int, tell: OnProgress
    ) -> Fitted:
        """The rows."""
        view = _view(book, run.measured)
        targets = _targets(view, run.measured)
        count = self.rows or max(1, min(round(view.records), MOST_ROWS))
        generator = np.random.default_rng([seed, 0])
        facts = {"tables": len(run.measured)}
        if isinstance(run.model, Graph):
            rows = run.model.drawn(count, generator)
            rows = ruled(rows, book, view.measured, seed)
        else:
            rows = search(
                view.start(count, generator),
                book.sizes,
                targets,
                seed=seed,
                sweeps=self.sweeps,
                temperature=_HOT * view.noise / view.records,
                cooling=self.cooling,
                forbidden=book.forbidden,
                on_progress=lambda done, total: tell(done, total, "searching"),
            ).rows
        return Fitted(
            tuple(run.measured),
            tuple(targets),
            rows,
            view.estimate.records,
            view.estimates(),
            facts,
        )


class _Model(Protocol):
    """What is thought of the table; made of public values."""

    def fit(self, measured: Sequence[Measurement], records: float) -> None:
        """Agrees with everything measured."""
        ...

    def table(self, columns: Columns) -> np.ndarray:
        """Counts."""
        ...

    def implied(self, columns: Columns) -> bool:
        """Whether the model has this table without growing."""
        ...

    def size(self, more: Columns) -> int:
        """Its cells, were a table added."""
        ...


class _Rows:
    """Rows as a model."""

    def __init__(self, book: Codebook, seed: int) -> None:
        self._book, self._seed, self._records = book, seed, 1.0
        self._rows = np.zeros((0, len(book.sizes)), np.int32)
        self._known: dict[Columns, int] = {}

    def fit(self, measured: Sequence[Measurement], records: float) -> None:
        """Goes on from the rows at hand; begins with columns alone."""
        view = _view(self._book, measured)
        self._records = records
        self._known = {one.columns: one.values.size for one in measured}
        if not len(self._rows):
            count = max(1, min(round(records), _MODEL_ROWS))
            generator = np.random.default_rng([self._seed, 2])
            self._rows = view.start(count, generator)
            return
        self._rows = search(
            self._rows,
            self._book.sizes,
            _targets(view, measured),
            seed=self._seed + len(measured),
            sweeps=_SWEEPS,
            temperature=_WARM * view.noise / records,
            forbidden=self._book.forbidden,
        ).rows

    def table(self, columns: Columns) -> np.ndarray:
        """Counts of the rows, scaled to the records."""
        shape = tuple(self._book.sizes[n] for n in columns)
        cells = np.ravel_multi_index([self._rows[:, n] for n in columns], shape)
        counts = np.bincount(cells, minlength=math.prod(shape)).reshape(shape)
        return self._records / len(self._rows) * counts

    def implied(self, columns: Columns) -> bool:
        """Whether it is part of a table measured."""
        return any({*columns} <= {*known} for known in self._known)

    def size(self, more: Columns) -> int:
        """Cells of all tables."""
        added = math.prod(self._book.sizes[n] for n in more)
        return sum((self._known | {more: added}).values())


class _Rounds:
    """The table, what was measured of it, and the model."""

    def __init__(
        self, source: Source, purse: Purse, weights: dict[Columns, float], model: _Model
    ) -> None:
        self._source, self._purse, self._weights = source, purse, weights
        self.model = model
        self.measured: list[Measurement] = []
        self._columns = [(n,) for n in range(len(source.codebook.sizes))]
        families = list(dict.fromkeys([*self._columns, *weights]))
        found = source.count(families)
        self._counts: dict[Columns, np.ndarray] = dict(
            zip(families, found, strict=True)
        )

    def columns(self, noise: float) -> float:
        """Measures all columns; what that costs, in rho."""
        self._measure(self._columns, noise, "columns")
        return len(self._columns) / (2 * noise**2)

    def round(self, number: int, noise: float, epsilon: float, cells: float) -> bool:
        """One choice, one table, one fit; whether the model moved less than noise."""
        allowed = [
            columns
            for columns in self._weights
            if self.model.implied(columns) or self.model.size(columns) <= cells
        ]
        scores = [self._score(columns, noise) for columns in allowed]
        step = self._source.reach * self._source.unit
        choice = Selection(
            epsilon=epsilon / apart(self._purse.relation) ** 2,
            sensitivity=max(self._weights[columns] for columns in allowed) * step,
        )
        (best,) = select(choice, np.array(scores), self._purse, f"choice {number}")
        columns = allowed[best]
        before = self.model.table(columns)
        self._measure([columns], noise, f"table {number}")
        moved = np.abs(self.model.table(columns) - before).sum()
        return float(moved) <= self._bias(columns, noise)

    def _score(self, columns: Columns, noise: float) -> float:
        """How far the model is from a table, beyond what noise would be: private."""
        true = self._counts[columns] * self._source.unit
        off = float(np.abs(true - self.model.table(columns)).sum())
        return self._weights[columns] * (off - self._bias(columns, noise))

    def _bias(self, columns: Columns, noise: float) -> float:
        """How far noise alone would be."""
        return _ABSOLUTE * self._stddev(noise) * self._counts[columns].size

    def _stddev(self, noise: float) -> float:
        """Of a cell, in rows."""
        steps = noise * apart(self._purse.relation) * self._source.reach
        return steps * self._source.unit

    def _measure(self, families: list[Any], noise: float, name: str) -> None:
        """Releases tables, and fits the model."""
        unit, reach = self._source.unit, self._source.reach
        sums = Marginals(
            families=tuple(families),
            sizes=tuple(self._source.codebook.sizes),
            stddevs=(self._stddev(noise) / unit,) * len(families),
            reach=reach,
        )
        total = np.concatenate([self._counts[family].ravel() for family in families])
        tables = sums.split(measure(sums, total, self._purse, name))
        self.measured += [
            Measurement(family, table * unit, self._stddev(noise))
            for family, table in zip(families, tables, strict=True)
        ]
        sizes = self._source.codebook.sizes
        records = Estimate.of(sizes, merged(self.measured)).records
        self.model.fit(self.measured, max(records, 1.0))


def _weights(
    book: Codebook, workload: Sequence[Sequence[str]] | None
) -> dict[Columns, float]:
    """What may be measured: subsets of the workload, and how much each tells of it.

    Raises:
      ValueError: a set that is none of the schema's columns.
    """
    wide = [n for n, size in enumerate(book.sizes) if size > 1]
    wanted: list[Columns] = list(itertools.combinations(wide, 2))
    if workload is not None:
        wanted = []
        for names in workload:
            if not names or len({*names}) < len(names) or not {*names} <= {*book.names}:
                raise ValueError(
                    f"workload has {tuple(names)!r}: needed columns of the schema"
                )
            wanted.append(tuple(sorted(book.names.index(name) for name in names)))
    if not wanted:
        wanted = [(n,) for n in range(len(book.sizes))]
    parts = {
        part: 0.0
        for columns in wanted
        for count in range(1, len(columns) + 1)
        for part in itertools.combinations(columns, count)
    }
    for part in parts:
        parts[part] = float(sum(len({*part} & {*columns}) for columns in wanted))
    return parts


def _view(book: Codebook, measured: Sequence[Measurement]) -> View:
    """Columns and pairs; larger tables tell of theirs, too."""
    margins = []
    for one in measured:
        for pair in itertools.combinations(range(len(one.columns)), 2):
            if len(one.columns) > 2:
                rest = tuple(n for n in range(len(one.columns)) if n not in pair)
                values = one.values.sum(axis=rest)
                stddev = one.stddev * math.sqrt(one.values.size / values.size)
                columns = tuple(one.columns[n] for n in pair)
                margins.append(Measurement(columns, values, stddev))
    return View.of(book, [*measured, *margins])


def _targets(view: View, measured: Sequence[Measurement]) -> list[Target]:
    """Columns and pairs as estimated, larger tables as measured."""
    mean = float(np.mean([view.measured[p].stddev ** 2 for p in view.pairs] or 1.0))
    wide = merged(one for one in measured if len(one.columns) > 2)
    return view.targets(0.0, ()) + [
        Target(columns, one.values / view.records, one.precision * mean)
        for columns, one in wide.items()
    ]


def _split(rho: float) -> tuple[float, float]:
    """Noise and epsilon of a round that costs so much."""
    return (
        math.sqrt(1 / (2 * _TO_MEASURE * rho)),
        math.sqrt(8 * (1 - _TO_MEASURE) * rho),
    )


def _cost(noise: float, epsilon: float) -> float:
    """What a round costs."""
    return 1 / (2 * noise**2) + epsilon**2 / 8
