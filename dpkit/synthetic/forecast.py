"""What a synthesis is to be like, before anything is spent: from public numbers alone.

Noise of each family by schema and budget; with a guess of how many records there are,
the total variation that a table would have if noise alone made it, which is what search
and shrinkage start from. A pair whose noise is above half is noise: say so, and measure
fewer pairs, in fewer bins, at more epsilon, or with more records.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from dpkit.accountants.answers.relations import as_relation
from dpkit.synthetic import engine
from dpkit.synthetic.recipe import Fitted, Recipe

if TYPE_CHECKING:
    from dpkit.data.codes import Codebook

RECORDS = 100_000
_NOISE = 0.5  # of total variation, from which on a pair says little
# Of the noise in a table, what shrinkage and search leave, as found on real tables.
_LEFT = 0.12


@dataclasses.dataclass(frozen=True)
class Family:
    """One family of cells.

    Args:
      columns: names.
      cells: how many.
      stddev: of the noise of one, in counts.
      variation: that noise alone makes, 0 to 1.
    """

    columns: tuple[str, ...]
    cells: int
    stddev: float
    variation: float


@dataclasses.dataclass(frozen=True)
class Forecast:
    """What to expect.

    Args:
      mechanism: its name.
      records: as was guessed.
      families: what is measured, columns first.
      expected: mean total variation of the pairs of the synthetic table; a rough
        figure, within a factor of two on the tables that it was tried on.
      megabytes: of the search.
    """

    mechanism: str
    records: float
    families: tuple[Family, ...]
    expected: float | None
    megabytes: int

    @property
    def noisy(self) -> list[Family]:
        """Families that will say little."""
        return [one for one in self.families if one.variation > _NOISE]

    def short(self) -> dict[str, Any]:
        """JSON values for a dry run."""
        pairs = [one for one in self.families if len(one.columns) == 2]
        return {
            "mechanism": self.mechanism,
            "records_assumed": self.records,
            "measured": f"{len(self.families)} tables",
            "noise_of_a_count": [
                round(min(one.stddev for one in self.families), 2),
                round(max(one.stddev for one in self.families), 2),
            ]
            if self.families
            else None,
            "expected_pair_variation": self.expected,
            "pairs_of_mostly_noise": f"{sum(p in self.noisy for p in pairs)} of "
            f"{len(pairs)}",
            "search_bytes": self.megabytes * 2**20,
        }


def forecast(
    codebook: Codebook, recipe: Recipe, settings: Any, records: float = RECORDS
) -> Forecast:
    """The forecast of a recipe; nothing is read and nothing spent.

    Args:
      codebook: public.
      recipe: with its budget; of other recipes than pairs only the memory is told.
      settings: of the job: its privacy section has the relation and rows_per_unit.
      records: a public guess of how many there are.
    """
    privacy = settings.privacy
    measured = getattr(recipe, "planned", None)
    families: list[Family] = []
    if measured is not None:
        noises = measured(
            codebook, as_relation(privacy.relation), privacy.rows_per_unit or 1
        )
        for columns, stddev in noises.items():
            cells = math.prod(codebook.sizes[n] for n in columns)
            variation = cells * stddev * math.sqrt(2 / math.pi) / 2 / records
            names = tuple(codebook.names[n] for n in columns)
            families.append(Family(names, cells, stddev, min(1.0, variation)))
    pairs = [one for one in families if len(one.columns) == 2]
    expected = None
    if pairs:
        noise = np.array([one.variation for one in pairs])
        expected = round(float(np.mean(np.minimum(1.0, _LEFT * noise))), 4)
    return Forecast(
        recipe.name, records, tuple(families), expected, _megabytes(codebook, records)
    )


def search_megabytes(codebook: Codebook, fitted: Fitted) -> int:
    """Of a search, estimated from public numbers: what reading took would tell n."""
    if not fitted.targets:
        return 0
    sizes, rows = codebook.sizes, len(fitted.rows)
    return math.ceil(engine.memory(sizes, fitted.targets, rows) / 2**20)


def _megabytes(codebook: Codebook, records: float) -> int:
    """Of a search over all pairs."""
    sizes = codebook.sizes
    targets = [
        engine.Target((a, b), np.broadcast_to(np.float64(0), (sizes[a], sizes[b])))
        for a in range(len(sizes))
        for b in range(a + 1, len(sizes))
    ] or [engine.Target((0,), np.zeros(sizes[0]))]
    rows = max(1, min(round(records), 250_000))
    return math.ceil(engine.memory(sizes, targets, rows) / 2**20)
