"""Independent: single columns alone, the floor that other recipes must beat."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from dp_accounting import DpEvent

from dpkit.accountants.answers.relations import Relation
from dpkit.synthetic.pairs import PAIRS
from dpkit.synthetic.recipe import Fitted, OnProgress, Purse

if TYPE_CHECKING:
    from dpkit.data.codes import Codebook
    from dpkit.synthetic.counting import Source


@dataclasses.dataclass(frozen=True, kw_only=True)
class Independent:
    """Columns that have nothing to do with each other; `PAIRS` without pairs.

    Args:
      epsilon, delta: what everything may cost.
      rows: how many to make; None: as many as there are estimated to be, at most
        250,000.

    Example:
      >>> Independent(epsilon=1.0, delta=1e-6).name
      'independent'
    """

    epsilon: float
    delta: float
    rows: int | None = None

    name: ClassVar[str] = "independent"

    def __post_init__(self) -> None:
        """Refuses what PAIRS refuses."""
        _ = self._columns

    @property
    def _columns(self) -> PAIRS:
        """The same, as a recipe of no pairs."""
        return PAIRS(epsilon=self.epsilon, delta=self.delta, rows=self.rows, pairs=())

    def releases(
        self, codebook: Codebook, relation: Relation, reach: int
    ) -> Mapping[str, DpEvent]:
        """The one release."""
        return self._columns.releases(codebook, relation, reach)

    def planned(
        self, codebook: Codebook, relation: Relation, reach: int
    ) -> dict[tuple[int, ...], float]:
        """The noise that a count of each column will have."""
        return self._columns.planned(codebook, relation, reach)

    def fit(
        self,
        source: Source,
        purse: Purse,
        *,
        seed: int,
        on_progress: OnProgress | None = None,
    ) -> Fitted:
        """Measures the columns, and draws rows."""
        return self._columns.fit(source, purse, seed=seed, on_progress=on_progress)
