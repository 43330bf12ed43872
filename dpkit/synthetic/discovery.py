"""A schema's categories and bounds, found in private rows, and paid for.

Which kind a column is must be declared; of what a table holds, what a schema lacks is
measured with noise: categories by a stable histogram, bounds and near-quantile edges by
counts in cells that are fixed beforehand. All that is fixed before a row is read, so it
is one plan, charged at once. What comes out is public.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import msgspec
import numpy as np
from dp_accounting import DpEvent

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.errors import Incompatible
from dpkit.accountants.events import sequential
from dpkit.accountants.ledger import Ledger
from dpkit.data.encoding import each, numbers_of
from dpkit.data.origins import Origin, open_origin
from dpkit.data.schema import Kind, Ordinal, Schema, as_column
from dpkit.data.table import check_columns, followed
from dpkit.data.values import texts
from dpkit.jobs.roots import noise_key, secret_key
from dpkit.mechanisms import _check
from dpkit.mechanisms.density import Laplace
from dpkit.mechanisms.tables import PureMarginals, StableHistogram
from dpkit.synthetic.budgets import only_add_remove
from dpkit.synthetic.counting import owners_of
from dpkit.synthetic.ladders import Ladder, threshold_of
from dpkit.synthetic.stored import Columns, capped
from dpkit.synthetic.synthesizer import RECORDS

QUANTILES = "quantiles"
_BINS = 32
_LARGEST = 2**53


class Undiscovered(ValueError):
    """Noise hid some columns; the budget is spent, and the others were found.

    Attributes:
      schema: of the columns that were found or declared; None if there are none.

    Example:
      >>> raise Undiscovered("columns 'x' can't be told from noise", None)
      Traceback (most recent call last):
      dpkit.synthetic.discovery.Undiscovered: columns 'x' can't be told from noise
    """

    def __init__(self, message: str, schema: Schema | None) -> None:
        super().__init__(message)
        self.schema = schema


def discover(
    table: Any,
    columns: Mapping[str, Any],
    ledger: Ledger,
    *,
    epsilon: float,
    delta: float | None = None,
    key: jax.Array | None = None,
    label: str = "schema",
    on_progress: Callable[[str], None] | None = None,
) -> Schema:
    """Completes a schema from private rows.

    Privacy: (epsilon, delta) for one unit, under add_remove; pure, where no categories
    are asked; charged before anything is told. Epsilon is shared equally among the
    columns that lack something, delta among those of categories. Of a unit with several
    rows (`unit_column`) one counts.

    Args:
      table: private; as for `open_source`.
      columns: as `Schema.read` takes them. A categorical or tree column may lack its
        categories, a numeric or ordinal one low and high, and a numeric one may have
        edges = "quantiles", with `bins` of them (32). Bounds are powers of two, or 0.
      ledger: is charged.
      epsilon: in all.
      delta: in all; needed where categories are asked.
      key: of the noise, secret, for this call alone; None: from the operating system.
      label: of the ledger's entry.
      on_progress: told in one line how far reading has come.

    Returns:
      The schema: public.

    Raises:
      ValueError: nothing to find, or columns that are none; nothing is charged.
      BudgetExceeded: nothing is told.
      Undiscovered: some columns have nothing above the noise; it has the others.

    Example:
      >>> from dpkit.accountants import Budget
      >>> ledger = Ledger.open(None, budget=Budget(1.0, 1e-6), relation="add_remove",
      ...                      unit="record", dataset="pets")
      >>> table = {"pet": ["cat", "dog"] * 500 + ["yak"], "age": [2.0, 3.5] * 500 + [0]}
      >>> schema = discover(table, {"pet": {"kind": "categorical"},
      ...     "age": {"kind": "numeric"}}, ledger, epsilon=1.0, delta=1e-6,
      ...     key=jax.random.key(0))
      >>> schema.columns["pet"].categories, schema.columns["age"].high
      (('cat', 'dog'), 4.0)
    """
    only_add_remove(ledger.relation, "discover")
    checks.positive(epsilon=epsilon)
    search = _Search.of(columns)
    if search.words:
        checks.open_probability(delta=delta)
    schema = search.placeholders
    if ledger.unit not in RECORDS and schema.unit_column is None:
        raise Incompatible(
            f"unit_column is missing: the ledger protects {ledger.unit!r}, which may "
            "have several rows; say which column tells whose a row is"
        )
    plan = _Plan.of(search, epsilon, delta or 0.0)
    key = secret_key() if key is None else _check.typed_key(key)
    origin = open_origin(table, strict=True)
    beside = [] if schema.unit_column is None else [schema.unit_column]
    check_columns(origin, [*schema.columns, *beside])
    share = delta if search.words else None
    event = plan.event(ledger)
    if ledger.remaining(event, delta=share) < 1:
        ledger.reserve(event, label=label, delta=share)  # says what is left
    counts = _counted(origin, search, on_progress)
    with ledger.reserve(event, label=label, delta=share) as grant:
        grant.commit(1)
    return _schema(search, plan, *plan.release(key, counts))


@dataclasses.dataclass(frozen=True)
class _Search:
    """What is declared, and what is asked.

    Attributes:
      placeholders: the schema, with something in the place of what is asked.
      words: columns whose categories are asked.
      ladders: cells of the columns whose bounds or edges are asked.
      bins: of those whose edges are asked.
    """

    placeholders: Schema
    words: tuple[str, ...]
    ladders: dict[str, Ladder]
    bins: dict[str, int]

    @classmethod
    def of(cls, columns: Mapping[str, Any]) -> _Search:
        """Refuses what can't be asked."""
        whole = columns.get("columns")
        filed = isinstance(whole, Mapping) and not isinstance(whole.get("kind"), str)
        given = dict(whole if filed and isinstance(whole, Mapping) else columns)
        words, ladders, bins = [], {}, {}
        for name, value in given.items():
            kind = value.get("kind") if isinstance(value, Mapping) else None
            if kind in ("categorical", "tree") and "categories" not in value:
                words.append(name)
                given[name] = {**value, "categories": ["?"]}
            if kind in ("numeric", "ordinal"):
                given[name], ladder = _filled(name, value)
                if ladder is not None:
                    ladders[name] = ladder
                    bins[name] = value.get("bins", _BINS)
        if not words and not ladders:
            raise ValueError("columns: nothing is to be found; use Schema.read")
        rest = {n: v for n, v in columns.items() if n != "columns"} if filed else {}
        schema = Schema.read({**rest, "columns": given})
        return cls(schema, tuple(words), ladders, bins)


def _filled(
    name: str, value: Mapping[str, Any]
) -> tuple[Mapping[str, Any], Ladder | None]:
    """A column of numbers with bounds, and the cells that will tell those it lacks."""
    fine = value["kind"] == "numeric" and value.get("edges") == QUANTILES
    rest = {n: v for n, v in value.items() if n != "edges" or not fine}
    if "low" not in value and "high" not in value:
        return {**rest, "low": 0, "high": 1}, Ladder(None, fine=fine)
    if not fine:
        return rest, None
    column: Any = as_column(rest, name)
    if column.low == column.high:
        raise ValueError(f"schema.{name}: low={column.low} is high: no edges to find")
    return rest, Ladder((column.low, column.high), column.scale, fine)


@dataclasses.dataclass(frozen=True)
class _Plan:
    """Every release: a stable histogram a column of categories, one of all numbers."""

    share: float  # of epsilon, of each column
    words: dict[str, StableHistogram]
    ladders: dict[str, Ladder]

    @classmethod
    def of(cls, search: _Search, epsilon: float, delta: float) -> _Plan:
        """Shares the budget."""
        less = 1 - 1e-12  # sums are rounded up
        share = less * epsilon / (len(search.words) + len(search.ladders))
        words = {
            name: StableHistogram(
                noise=Laplace(share), delta=less * delta / len(search.words)
            )
            for name in search.words
        }
        return cls(share, words, search.ladders)

    def noise(self, name: str) -> float:
        """The scale of the noise of one column's counts."""
        return len(self.ladders[name].sizes) / self.share

    @functools.cached_property
    def numbers(self) -> PureMarginals | None:
        """Counts of every level of every ladder."""
        cells = [(n, size) for n, one in self.ladders.items() for size in one.sizes]
        if not cells:
            return None
        return PureMarginals(
            families=tuple((n,) for n in range(len(cells))),
            sizes=tuple(size for _, size in cells),
            scales=tuple(self.noise(name) for name, _ in cells),
        )

    def event(self, ledger: Ledger) -> DpEvent:
        """Of the whole plan."""
        every = [*self.words.values(), *([self.numbers] if self.numbers else [])]
        return sequential([one.event(ledger.relation) for one in every])

    def release(
        self, key: jax.Array, counts: dict[str, Any]
    ) -> tuple[dict[str, list[str]], dict[str, list[np.ndarray]]]:
        """Categories, and noisy counts level by level, by column."""
        found = {}
        for name, histogram in self.words.items():
            seen = repr(sorted(counts[name].items())).encode()
            own = noise_key(
                key, f"{name} {histogram!r}".encode(), np.frombuffer(seen, np.uint8)
            )
            found[name] = list(histogram.privatize(own, counts[name]))
        if self.numbers is None:
            return found, {}
        total = np.concatenate(
            [
                counts[name].reshape(-1, divisor).sum(axis=1)
                for name, ladder in self.ladders.items()
                for divisor in ladder.divisors
            ]
        )
        own = noise_key(key, repr(self.numbers).encode(), total)
        tables = iter(self.numbers.split(self.numbers.privatize(own, total)))
        return found, {
            name: [next(tables) for _ in ladder.sizes]
            for name, ladder in self.ladders.items()
        }


def _counted(
    origin: Origin, search: _Search, tell: Callable[[str], None] | None
) -> dict[str, Any]:
    """Exact counts, one row a unit: of each text, and of each leaf."""
    numbers: dict[str, dict[str, int]] = {name: {} for name in search.words}
    every = [*search.words, *search.ladders]
    counts = {name: np.zeros(0, np.int64) for name in every}
    for block in _rows(origin, search, numbers, tell):
        for name, column in zip(every, block, strict=True):
            more = np.bincount(column[column >= 0], minlength=len(counts[name]))
            more[: len(counts[name])] += counts[name]
            counts[name] = more
    found: dict[str, Any] = {}
    for name in search.words:
        pairs = zip(numbers[name], counts[name].tolist(), strict=False)
        found[name] = Counter({word: count for word, count in pairs if count})
    for name, ladder in search.ladders.items():
        found[name] = np.zeros(len(ladder.edges) - 1, np.int64)
        found[name][: len(counts[name])] = counts[name]
    return found


def _rows(
    origin: Origin,
    search: _Search,
    numbers: dict[str, dict[str, int]],
    tell: Callable[[str], None] | None,
) -> Iterator[list[np.ndarray]]:
    """The rows that count, as numbers of texts and as leaves; -1 for missing."""
    schema = search.placeholders
    asked = {n: schema.columns[n] for n in [*search.words, *search.ladders]}
    unit = schema.unit_column
    wanted = [*asked, *([] if unit is None else [unit])]
    rows = Columns([np.dtype(np.int32)] * len(asked) + [np.dtype(np.uint64)] * 2)
    for batch in followed(origin, wanted, tell):
        columns = [
            _numbered(batch[name], numbers[name])
            if name in numbers
            else _leaves(column, batch[name], search.ladders[name])
            for name, column in asked.items()
        ]
        if unit is None:
            yield columns
            continue
        somebody, owners = owners_of(batch[unit])
        rows.add([*(column[somebody] for column in columns), *owners.T])
    if unit is not None:
        yield from capped(rows, 1, salt=0).blocks()


def _numbered(values: Any, known: dict[str, int]) -> np.ndarray:
    """The number of each text, in the order in which they come."""
    coded = texts(values).dictionary_encode()
    words = coded.dictionary.to_pylist()
    table = [known.setdefault(word, len(known)) for word in words]
    places = coded.indices.fill_null(len(table)).to_numpy(zero_copy_only=False)
    return np.array([*table, -1], np.int64)[places]


def _leaves(column: Kind, values: Any, ladder: Ladder) -> np.ndarray:
    """The leaf of each number."""
    found = each(numbers_of, column, values)
    return np.where(np.isnan(found), -1, ladder.leaves(found))


def _schema(
    search: _Search,
    plan: _Plan,
    words: dict[str, list[str]],
    levels: dict[str, list[np.ndarray]],
) -> Schema:
    """The schema out of what was released."""
    columns: dict[str, Kind | None] = dict(search.placeholders.columns)
    for name, found in words.items():
        columns[name] = (
            _replaced(columns[name], categories=tuple(found)) if found else None
        )
    for name, ladder in search.ladders.items():
        noisy = _Noisy(ladder, levels[name], plan.noise(name))
        columns[name] = noisy.bounded(columns[name], search.bins[name])
    lost = [name for name, column in columns.items() if column is None]
    kept = {name: column for name, column in columns.items() if column is not None}
    if not lost:
        return _replaced(search.placeholders, columns=kept)
    raise Undiscovered(
        f"columns {', '.join(map(repr, lost))} can't be told from noise: declare them, "
        "or give more epsilon",
        Schema(columns=kept) if kept else None,
    )


@dataclasses.dataclass(frozen=True)
class _Noisy:
    """Noisy counts of a ladder's levels, and the scale of their noise."""

    ladder: Ladder
    levels: list[np.ndarray]
    noise: float

    def bounded(self, column: Any, bins: int) -> Kind | None:
        """The column with bounds, and edges if asked; None if nothing is told."""
        bounds = self.ladder.bounds
        if bounds is None:
            threshold = threshold_of(self.noise, len(self.levels[0]))
            bounds = self.ladder.bounds_of(self.levels[0], threshold)
        if bounds is None:
            return None
        low, high = bounds
        if isinstance(column, Ordinal):  # the end isn't in the last cell
            least, most = math.ceil(low), math.ceil(high) - 1 if high else 0
            most = min(max(least, most), _LARGEST)
            return _replaced(column, low=max(least, -_LARGEST), high=most)
        if not self.ladder.fine or low == high:
            return _replaced(column, low=low, high=high)
        inner = self.ladder.quantiles(self.levels, self.noise, bins)
        edges = (low, *(edge for edge in inner if low < edge < high), high)
        return _replaced(column, low=low, high=high, edges=edges, bins=None)


def _replaced(column: Any, **facts: Any) -> Any:
    """The column, or the schema, with other facts."""
    return msgspec.structs.replace(column, **facts)
