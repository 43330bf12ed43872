"""What a synthesis is to be like, before anything is spent: from public numbers alone.

Noise of each family by schema and budget; with a guess of how many records there are,
the total variation that a table would have if noise alone made it, which is what search
and shrinkage start from, and what they are to leave of it. A pair whose noise is above
half is noise: say so, and measure fewer pairs, in fewer bins, at more epsilon, or with
more records.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.relations import Relation, as_relation
from dpkit.synthetic import engine
from dpkit.synthetic.recipe import Fitted, Recipe
from dpkit.synthetic.view import MOST_ROWS

if TYPE_CHECKING:
    from dpkit.data.codes import Codebook

RECORDS = 100_000
_NOISE = 0.5  # of total variation, from which on a pair says little
# Below so much variation by noise nearly all of it stays; above, shrinkage removes the
# more the more there is: x / (1 + (x / SHRUNK)^POWER), fitted to made-up tables whose
# columns use all their values (3,000 and 30,000 rows, epsilon 0.2 to 5; within a factor
# of two). Of real tables, in which few values hold most rows, less is left: Adult has a
# quarter to a half of it.
_SHRUNK, _POWER = 0.15, 0.75
_ROW_VALUE = 5e-9  # CPU-seconds of a sweep, by row, value and other column
_COMPILING = 5.0  # CPU-seconds


@dataclasses.dataclass(frozen=True)
class Family:
    """One family of cells.

    Args:
      columns: names.
      cells: how many.
      stddev: of the noise of one, in counts.
      variation: that noise alone makes; above 1, it drowns everything.
    """

    columns: tuple[str, ...]
    cells: int
    stddev: float
    variation: float

    @property
    def expected(self) -> float:
        """Total variation between the real and the synthetic table, 0 to 1."""
        if len(self.columns) == 1:
            return min(1.0, self.variation)
        left = 1 + (self.variation / _SHRUNK) ** _POWER
        return min(1.0, self.variation / left)

    @property
    def noisy(self) -> bool:
        """Whether it says little."""
        return self.variation > _NOISE


@dataclasses.dataclass(frozen=True)
class Forecast:
    """What to expect.

    Args:
      mechanism: its name.
      records: as was guessed, publicly.
      families: what is measured, columns first.
      megabytes: of the search.
      seconds: of CPU, of the search; None: not known of this mechanism.
    """

    mechanism: str
    records: float
    families: tuple[Family, ...]
    megabytes: int
    seconds: float | None

    @property
    def pairs(self) -> list[Family]:
        """Those of two columns."""
        return [one for one in self.families if len(one.columns) == 2]

    def short(self) -> dict[str, Any]:
        """JSON values for a dry run.

        `expected_pair_variation` is a mean, for columns that use all their values; real
        tables are mostly better.
        """
        pairs, expected = self.pairs, None
        if pairs:
            mean = float(np.mean([one.expected for one in pairs]))
            expected = float(f"{mean:.3g}")
        return {
            "mechanism": self.mechanism,
            "records_assumed": self.records,
            "measured": f"{len(self.families)} tables"
            if self.families
            else "tables that are chosen along the way",
            "noise_of_a_count": [
                round(min(one.stddev for one in self.families), 2),
                round(max(one.stddev for one in self.families), 2),
            ]
            if self.families
            else None,
            "expected_pair_variation": expected,
            "pairs_of_mostly_noise": f"{sum(p.noisy for p in pairs)} of {len(pairs)}"
            if self.families
            else None,
            "search_bytes": self.megabytes * 2**20,
            "seconds": self.seconds,
        }


def forecast(
    codebook: Codebook,
    recipe: Recipe,
    relation: Relation | str,
    *,
    records: int = RECORDS,
    rows_per_unit: int | None = None,
) -> Forecast:
    """The forecast of a recipe; nothing is read and nothing spent.

    Args:
      codebook: public.
      recipe: with its budget; where its tables are chosen along the way, only the
        memory is told.
      relation: of the ledger.
      records: a public guess of how many there are.
      rows_per_unit: the most rows of one unit.

    Raises:
      ValueError: a guess below 1, or what the recipe refuses.

    Example:
      >>> from dpkit.synthetic import PAIRS
      >>> from dpkit.data.codes import Codebook
      >>> book = Codebook.of({"age": {"kind": "ordinal", "low": 18, "high": 90},
      ...                     "pet": {"kind": "boolean"}})
      >>> found = forecast(book, PAIRS(epsilon=1.0, delta=1e-6), "add_remove",
      ...                  records=500)
      >>> [(one.columns, one.noisy) for one in found.families]
      [(('age',), True), (('pet',), False), (('age', 'pet'), True)]
    """
    checks.integer_at_least(1, records=records)
    measured = getattr(recipe, "planned", None)
    families: list[Family] = []
    if measured is not None:
        noises = measured(codebook, as_relation(relation), rows_per_unit or 1)
        for columns, noise in noises.items():
            stddev = noise * (codebook.schema.max_weight or 1.0)
            cells = math.prod(codebook.sizes[n] for n in columns)
            variation = cells * stddev * math.sqrt(2 / math.pi) / 2 / records
            names = tuple(codebook.names[n] for n in columns)
            families.append(Family(names, cells, stddev, variation))
    rows = getattr(recipe, "rows", None) or max(1, min(records, MOST_ROWS))
    return Forecast(
        recipe.name,
        records,
        tuple(families),
        _megabytes(codebook, rows),
        _seconds(codebook, recipe, rows) if families else None,
    )


def search_megabytes(codebook: Codebook, fitted: Fitted) -> int:
    """Of a search, estimated from public numbers: what reading took would tell n."""
    if not fitted.targets:
        return 0
    sizes, rows = codebook.sizes, len(fitted.rows)
    return math.ceil(engine.memory(sizes, fitted.targets, rows) / 2**20)


def _seconds(codebook: Codebook, recipe: Any, rows: int) -> float:
    """Of CPU, roughly."""
    others, values = len(codebook.sizes) - 1, sum(codebook.sizes)
    sweep = _ROW_VALUE * rows * others * values
    return round(_COMPILING + getattr(recipe, "sweeps", 0) * sweep, 1)


def _megabytes(codebook: Codebook, rows: int) -> int:
    """Of a search over all pairs."""
    sizes = codebook.sizes
    targets = [
        engine.Target((a, b), np.broadcast_to(np.float64(0), (sizes[a], sizes[b])))
        for a in range(len(sizes))
        for b in range(a + 1, len(sizes))
    ] or [engine.Target((0,), np.zeros(sizes[0]))]
    return math.ceil(engine.memory(sizes, targets, rows) / 2**20)
