"""A graphical model instead of rows, where AIM or MST is asked for one.

The model is a Markov random field over all columns whose tables are nearest to those
measured, fitted by the library mbi (McKenna, github.com/ryan112358/mbi; the extra
`pgm`), which is imported when a model is first asked for. Public values only. Rows are
drawn here, column after column, by a generator of our own: mbi draws by NumPy's global
one.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from dpkit.synthetic.recipe import Measurement
from dpkit.synthetic.start import codes_given

_STEPS = 1000  # of mirror descent


def library() -> Any:
    """mbi.

    Raises:
      ImportError: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice on float64 and on caches
            return importlib.import_module("mbi")
    except ImportError as error:
        raise ImportError(
            "generator='pgm' needs mbi: pip install 'dpkit-jax[pgm]', or take "
            "generator='search'"
        ) from error


class Graph:
    """A model of all columns.

    Args:
      sizes: of the columns.

    Raises:
      ImportError: mbi is not installed.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self._mbi = library()
        self._sizes = tuple(sizes)
        self._domain = self._mbi.Domain(tuple(range(len(sizes))), self._sizes)
        self._model: Any = None

    def fit(self, measured: Sequence[Measurement], records: float) -> None:
        """Fits the tables measured, beginning with the model at hand."""
        tables = [
            self._mbi.LinearMeasurement(
                one.values.ravel().astype(np.float32), one.columns, one.stddev
            )
            for one in measured
        ]
        self._model = self._mbi.estimation.MirrorDescent().estimate(
            self._domain,
            tables,
            known_total=records,
            iters=_STEPS,
            warm_start=self._model,
        )

    def table(self, columns: tuple[int, ...]) -> np.ndarray:
        """Counts that the model expects."""
        found = self._model.project(columns).datavector(flatten=False)
        return np.asarray(found, np.float64)

    def implied(self, columns: tuple[int, ...]) -> bool:
        """Whether the model has the table without growing."""
        return any({*columns} <= {*clique} for clique in self._tree(self._cliques)[0])

    def size(self, more: tuple[int, ...]) -> int:
        """Cells of the junction tree, were some columns joined."""
        tree, _ = self._tree([*self._cliques, more])
        return sum(math.prod(self._sizes[n] for n in clique) for clique in tree)

    def drawn(self, rows: int, generator: np.random.Generator) -> np.ndarray:
        """Rows of the model, (rows, d) int32."""
        tree, order = self._tree(self._cliques)
        codes = np.zeros((rows, len(self._sizes)), np.int32)
        known: list[int] = []
        for column in reversed(order):
            # Neighbours drawn before; in this order they are all in one clique.
            near = {n for clique in tree if column in clique for n in clique}
            given = tuple(n for n in known if n in near)
            lines = self.table((*given, column)).reshape(-1, self._sizes[column])
            cells = np.zeros(rows, np.int64)
            for n in given:
                cells = cells * self._sizes[n] + codes[:, n]
            codes[:, column] = codes_given(lines, cells, generator)
            known.append(column)
        return codes

    @property
    def _cliques(self) -> list[tuple[int, ...]]:
        """What was joined."""
        return [tuple(clique) for clique in self._model.cliques]

    def _tree(self, cliques: list[tuple[int, ...]]) -> tuple[list[Any], list[int]]:
        """The largest cliques, and an order of elimination."""
        tree, order = self._mbi.junction_tree.make_junction_tree(self._domain, cliques)
        return list(tree.nodes), list(order)
