"""What a synthesis leaves: public numbers, from which tables are drawn for ever."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dpkit.accountants.answers import checks
from dpkit.data.codes import Codebook
from dpkit.data.schema import Schema
from dpkit.synthetic import files
from dpkit.synthetic.conditions import conditional, matching
from dpkit.synthetic.engine import search
from dpkit.synthetic.recipe import Fitted

if TYPE_CHECKING:
    import pyarrow as pa

FILE = "model.safetensors"
_MOST_GROWN = 4  # times the rows at hand, before conditions are searched for


@dataclasses.dataclass(frozen=True, eq=False)
class Marginal:
    """Counts of some columns' values, and how far to trust them.

    Args:
      columns: names.
      values: counts, shaped by the columns' sizes.
      stddev: of each, noise and shrinkage together; NaN where it is not known, for a
        family that was not measured.

    Example:
      >>> Marginal(("pet",), np.array([9.0, 1.0]), np.array([2.0, 2.0])).values.tolist()
      [9.0, 1.0]
    """

    columns: tuple[str, ...]
    values: np.ndarray
    stddev: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A released synthesis. Everything in it is public; drawing from it costs nothing.

    Args:
      schema: of the table.
      fitted: what was measured, and the rows that agree with it.
      receipt: what it cost and by which ledger; JSON values.
      kind: of the tables it gives: "arrow", "pandas", "polars" or "dict".

    Example:
      >>> from dpkit.synthetic import PAIRS, Synthesizer
      >>> schema = {"pet": {"kind": "categorical", "categories": ["cat", "dog"]}}
      >>> maker = Synthesizer(schema, PAIRS(epsilon=1.0, delta=1e-6))
      >>> model = maker.fit({"pet": ["cat"] * 700 + ["dog"] * 300})
      >>> list(model.sample(5, where={"pet": "dog"})["pet"])
      ['dog', 'dog', 'dog', 'dog', 'dog']
    """

    schema: Schema
    fitted: Fitted
    receipt: Mapping[str, Any]
    kind: str = "arrow"

    @classmethod
    def of(cls, schema: Schema, fitted: Fitted, receipt: Mapping[str, Any]) -> Model:
        """A model of what a recipe made."""
        return cls(schema, fitted, receipt)

    @property
    def codebook(self) -> Codebook:
        """The schema's columns as whole numbers."""
        return Codebook.of(self.schema)

    @property
    def records(self) -> float:
        """How many records the table is estimated to have."""
        return self.fitted.records

    def sample(
        self,
        size: int | None = None,
        *,
        where: Mapping[str, Any] | None = None,
        seed: int = 0,
        kind: str | None = None,
    ) -> Any:
        """Rows, as often as one likes; free of charge.

        Args:
          size: how many; None: all rows of the model that meet the conditions.
          where: values that columns must have, by name: one value, or a list of them.
          seed: of the draw.
          kind: of the table; None: that of the table that was fitted, else Arrow's.

        Returns:
          A table with the schema's columns.

        Raises:
          ValueError: a condition outside the schema, or one that no row can meet.

        Example:
          >>> Model.load("none")
          Traceback (most recent call last):
          ValueError: none doesn't exist: needed the file of a model, or its folder
        """
        if size is not None:
            checks.integer_at_least(1, size=size)
        generator = np.random.default_rng([seed, 1])
        codes = self._codes(size, where or {}, seed, generator)
        return as_kind(self.codebook.decode(codes, generator), kind or self.kind)

    def marginal(self, columns: Sequence[str]) -> Marginal:
        """Counts of all combinations of some columns' values.

        Args:
          columns: names, at least one.

        Returns:
          The estimate with its error where these columns were measured together, else
          what the rows have, without a known error.

        Raises:
          ValueError: a name that is no column, or twice; too many cells.
        """
        numbers = self._numbers(columns)
        order = np.argsort(np.argsort(numbers))
        found = self.fitted.estimates.get(tuple(sorted(numbers)))
        if found is not None:
            values, stddev = (part.transpose(order) for part in found)
            return Marginal(tuple(columns), values, stddev)
        values = self._counts(numbers)
        return Marginal(tuple(columns), values, np.full(values.shape, np.nan))

    def errors(self) -> dict[tuple[str, ...], float]:
        """How far the rows are expected to be off, by family: total variation, 0 to 1.

        Half the summed errors of shares, of each cell what its noise lets expect, but
        no more than what is there: where neither rows nor estimate have anybody, the
        search left nobody. On real tables it was a third too large.
        """
        names, told = self.codebook.names, {}
        for columns, (values, stddev) in self.fitted.estimates.items():
            there = self._counts(columns) + np.maximum(values, 0)
            each = np.minimum(np.sqrt(2 / np.pi) * stddev, there)
            off = float(each.sum()) / 2 / max(self.records, 1.0)
            told[tuple(names[n] for n in columns)] = min(1.0, off)
        return told

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one file: schema, released values, rows and receipt, nothing else.

        Raises:
          OSError: it can't be written.
        """
        Path(path).write_bytes(files.content(self))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Model:
        """A model from its file, or from the folder of a run.

        Raises:
          ValueError: no such file of ours.
          OSError: it can't be read.
        """
        path = Path(path)
        path = path / FILE if path.is_dir() else path
        if not path.exists():
            raise ValueError(
                f"{path} doesn't exist: needed the file of a model, or its folder"
            )
        return cls(*files.read(path))

    def __repr__(self) -> str:
        cost = f"epsilon={self.receipt['epsilon']}, delta={self.receipt['delta']}"
        rows, columns = self.fitted.rows.shape
        return f"<Model of {columns} columns, {rows} rows, {cost}>"

    def _codes(
        self,
        size: int | None,
        where: Mapping[str, Any],
        seed: int,
        generator: np.random.Generator,
    ) -> np.ndarray:
        """Codes of rows that meet conditions."""
        codebook, rows = self.codebook, self.fitted.rows
        allowed = matching(codebook, where)
        met = np.ones(len(rows), bool)
        for column, codes in allowed.items():
            met &= np.isin(rows[:, column], codes)
        found = rows[met]
        if size is None or size <= len(found):
            if size is None and not len(found):
                raise ValueError("where: no row of the model meets it; give a size")
            order = generator.permutation(len(found))[:size]
            return found[order] if size is not None else found
        share = len(found) / len(rows)
        needed = int(np.ceil(1.1 * size / share)) if share else 0
        if 0 < needed <= _MOST_GROWN * len(rows) and self.fitted.targets:
            more = self._searched(needed, seed, generator)
            for column, codes in allowed.items():
                more = more[np.isin(more[:, column], codes)]
            found = more
        elif allowed:
            return conditional(codebook, self.fitted, allowed, size, seed, generator)
        if len(found) < size:  # as many again, by chance
            extra = generator.choice(len(found), size - len(found))
            found = np.concatenate([found, found[extra]])
        return found[generator.permutation(len(found))[:size]]

    def _searched(
        self, rows: int, seed: int, generator: np.random.Generator
    ) -> np.ndarray:
        """More rows than the model has, that agree with what was released."""
        start = self.fitted.rows[generator.choice(len(self.fitted.rows), rows)]
        codebook = self.codebook
        return search(
            start,
            codebook.sizes,
            self.fitted.targets,
            seed=seed,
            forbidden=codebook.forbidden,
        ).rows

    def _numbers(self, columns: Sequence[str]) -> tuple[int, ...]:
        """The numbers of named columns."""
        names = list(self.codebook.names)
        for name in columns:
            checks.one_of(tuple(names), column=name)
        if not columns or len(set(columns)) < len(columns):
            raise ValueError(
                f"columns={list(columns)}: needed at least one, none twice"
            )
        return tuple(names.index(name) for name in columns)

    def _counts(self, numbers: Sequence[int]) -> np.ndarray:
        """Counts among the rows, scaled to the records."""
        shape = tuple(self.codebook.sizes[n] for n in numbers)
        if np.prod(shape, dtype=float) > 2**27:
            raise ValueError(f"columns: {shape} are too many cells to count")
        rows = self.fitted.rows
        cells = np.ravel_multi_index([rows[:, n] for n in numbers], shape)
        found = np.bincount(cells, minlength=int(np.prod(shape))).reshape(shape)
        return found * (max(self.records, 0.0) / len(rows))


def kind_of(table: Any) -> str:
    """What kind of table something is: that of what is given back.

    Example:
      >>> kind_of({"x": [1]}), kind_of("x.csv")
      ('dict', 'arrow')
    """
    if isinstance(table, Mapping):
        return "dict"
    module = type(table).__module__.partition(".")[0]
    return module if module in ("pandas", "polars") else "arrow"


def as_kind(table: pa.Table, kind: str) -> Any:
    """A table of Arrow's as another kind.

    Raises:
      ValueError: an unknown kind.
      ImportError: its library is not installed.
    """
    checks.one_of(("arrow", "pandas", "polars", "dict"), kind=kind)
    if kind == "pandas":
        return table.to_pandas()
    if kind == "polars":
        import polars  # type: ignore[import-not-found]

        return polars.from_arrow(table)
    if kind == "dict":
        return {name: np.asarray(table[name]) for name in table.column_names}
    return table
