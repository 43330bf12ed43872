"""What a configuration trains on: a data set of ours, or rows of the user's own."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from dpkit.data import Dataset, load
from dpkit.data.layout import LABEL, Layout
from dpkit.data.loading import described
from dpkit.data.published import open_published
from dpkit.data.random_access import Rows, as_rows
from dpkit.data.schema import Schema
from dpkit.data.table import Table, read
from dpkit.training.config import Config, DataSection

Tell = Callable[[str], None]


class Input(Protocol):
    """Rows to train on and to score on, and what is publicly known of them.

    Attributes:
      layout: what a row looks like.
      title: what the data is called.
      named: whether that is what a ledger must call it.
      schema: by which rows of one's own are encoded, or None.
    """

    layout: Layout
    title: str
    named: bool
    schema: Schema | None

    def units(self, unit: str) -> int:
        """How many units of privacy there are at most, publicly.

        Raises:
          ValueError: nobody says, or whose the rows are isn't told.
        """
        ...

    def train(self) -> Rows:
        """The rows to train on: private."""
        ...

    def test(self) -> Rows | None:
        """The rows to score on, if there are any."""
        ...

    def unit_ids(self) -> np.ndarray | None:
        """Whose each row is, where that is told."""
        ...


def open_input(
    config: Config,
    given: Mapping[str, Any],
    *,
    offline: bool,
    tell: Tell | None,
    data: bool,
) -> Any:
    """The input that a configuration names.

    Args:
      config: checked.
      given: `rows` and `test_rows`, objects in the place of files, or None.
      offline: fetch nothing.
      tell: is told in one line of what takes time.
      data: False: read no rows, their public facts will do.

    Raises:
      ValueError: something is missing, or can't be read.
      DataUnavailable, DataCorrupt: from a data set by name.
    """
    if config.data.path is None and any(rows is not None for rows in given.values()):
        raise ValueError("rows and test_rows go with data.path, in the place of files")
    if config.data.name is not None:
        allowed = config.data.allow_download and not offline
        if not data:
            return Named(config.data, described(config.data.name))
        found = load(config.data.name, allow_download=allowed, on_progress=tell)
        return Named(config.data, found)
    made = Own(config.data, config.folder, tell, **given)
    if data:
        made.prepare()
    return made


@dataclasses.dataclass
class Named:
    """A data set of ours."""

    section: DataSection
    dataset: Dataset
    schema = None
    named = True

    @property
    def title(self) -> str:
        """Its name and version, unless the configuration has another."""
        return self.section.dataset or f"{self.dataset.name} {self.dataset.version}"

    @property
    def layout(self) -> Layout:
        """Of pictures, or of windows of text."""
        facts = self.dataset.schema
        if facts.kind != "text":
            scale = float(facts.pixel_scale)
            return Layout.images(facts.shape, facts.num_classes, scale)
        window = jax.ShapeDtypeStruct((facts.shape[0] + 1,), np.uint8)
        return Layout({"tokens": window}, symbols={"tokens": facts.num_classes})

    def units(self, unit: str) -> int:
        """As published, unless the configuration says more."""
        facts, most = self.dataset.schema, self.section.max_records
        size = facts.split_sizes["train"]
        if unit != "example":
            if unit != "user" or not facts.num_users:
                known = "'user' or 'example'" if facts.num_users else "'example'"
                raise ValueError(
                    f"privacy.unit={unit!r}: {self.dataset.name} doesn't say who that "
                    f"is of its rows; use unit={known}"
                )
            size = facts.num_users
        if most is not None and most < size:
            raise ValueError(
                f"max_records={most} is below the {size} published units of "
                f"{self.dataset.name}: raise it, or leave it out"
            )
        return size if most is None else most

    def train(self) -> Rows:
        """The rows to train on."""
        return self._rows("train")

    def test(self) -> Rows | None:
        """The rows to score on."""
        return None if self.section.evaluation == "none" else self._rows("test")

    def unit_ids(self) -> np.ndarray | None:
        """The users, if it has any."""
        arrays = self.dataset.arrays("train")
        return np.asarray(arrays["user"]) if "user" in arrays else None

    def _rows(self, split: str) -> Rows:
        """What a network reads of a split."""
        arrays = self.dataset.arrays(split)
        return as_rows({name: arrays[name] for name in self.layout.fields})


class Own:
    """Rows of the user's own, or of a data set of TensorFlow Datasets."""

    def __init__(
        self,
        section: DataSection,
        folder: Path,
        tell: Tell | None,
        *,
        rows: Any = None,
        test_rows: Any = None,
    ) -> None:
        self._section, self._folder = section, folder
        self._given = {section.path: rows, section.test: test_rows}
        self._tell = tell or (lambda text: None)
        self._published: Any = None
        facts = {
            name: getattr(section, name)
            for name in ("label", "unit_column", "max_records")
        }
        schema = None
        if isinstance(section.schema, str):
            schema = Schema.load(folder / section.schema, **facts)
        elif section.schema is not None:
            schema = Schema.read(section.schema, **facts)
        if section.tfds is not None:
            place = section.data_dir and str(folder / section.data_dir)
            self._published, found = open_published(
                section.tfds, data_dir=place, schema=schema
            )
            schema = Schema.read(found, **facts) if schema is None else schema
        if schema is None:
            raise ValueError("schema is missing from the configuration")
        self.schema = schema
        self._refuse_training_rows()
        self.layout = Layout.of(schema)

    @property
    def named(self) -> bool:
        """Whether the configuration says what a ledger must call the data."""
        return self._section.dataset is not None

    @property
    def title(self) -> str:
        """What the configuration calls the data, or else the name of its file."""
        if self._section.dataset is not None:
            return self._section.dataset
        if self._published is not None:
            return f"{self._section.tfds} {self._published.version}"
        return Path(str(self._section.path)).name

    def units(self, unit: str) -> int:
        """What the schema says, or of published rows their number."""
        column, most = self.schema.unit_column, self.schema.max_records
        if unit == "example" and column is not None:
            raise ValueError(
                f"unit_column={column!r} says whose a row is, but with "
                "privacy.unit='example' a row alone is protected: name the unit, such "
                "as 'user', or leave the column out"
            )
        if unit != "example" and column is None:
            raise ValueError(
                f"unit_column is missing: privacy.unit={unit!r} needs the column that "
                "says whose a row is; or use unit='example'"
            )
        if most is None and self._published is not None and column is None:
            return self._published.size(self._section.split or "train")
        if most is None:
            raise ValueError(
                "max_records is missing from the configuration: a public number that "
                "the units of the data never exceed; counting private rows would tell "
                "how many there are"
            )
        return most

    def _refuse_training_rows(self) -> None:
        """Refuses to publish scores on the rows that are trained on."""
        section = self._section
        if section.test is None or section.evaluation != "public":
            return
        own, other = (section.split or "train", section.test)
        if self._published is None and self._given[section.path] is None:
            places = (str(section.path), section.test)
            own, other = ((self._folder / place).resolve() for place in places)
        if own == other:
            raise ValueError(
                f"test={section.test!r} is what is trained on, and scores on it would "
                "be published without protection: name rows that are public"
            )

    def prepare(self) -> None:
        """Reads all rows."""
        self._table, self.test()
        self._refuse_unknown_labels()

    def _refuse_unknown_labels(self) -> None:
        """Refuses public rows of which none has a label that the schema knows."""
        rows, target = self.test(), self.layout.target
        if rows is None or self._section.evaluation != "public" or target is None:
            return
        for start in range(0, len(rows), 8192):
            some = rows.take(np.arange(start, min(start + 8192, len(rows))))
            label = some[LABEL]
            if ((label >= 0) if self.layout.classes else ~np.isnan(label)).any():
                return
        known = ", ".join(map(repr, self.layout.classes)) or "numbers"
        raise ValueError(
            f"label={self.schema.label!r}: no public row has one that the schema "
            f"knows, {known}; they must agree letter by letter, or nothing is learnt"
        )

    def train(self) -> Rows:
        """The rows to train on."""
        return self._table.rows

    def test(self) -> Rows | None:
        """The rows to score on."""
        if self._section.public_fraction is not None:
            return self._table.public
        return self._scored

    def unit_ids(self) -> np.ndarray | None:
        """Whose each row is, where the schema says."""
        return self._table.unit_ids

    @functools.cached_property
    def _table(self) -> Table:
        """The rows of the file that is trained on."""
        fraction = self._section.public_fraction or 0.0
        return self._read(
            self._section.path, self._section.split, self.schema, fraction
        )

    @functools.cached_property
    def _scored(self) -> Rows | None:
        """The rows of the file that is scored on."""
        name = self._section.test
        if name is None:
            return None
        schema = Schema(columns=self.schema.columns, label=self.schema.label)
        return self._read(name, name, schema, 0.0).rows

    def _read(
        self, path: str | None, split: str | None, schema: Schema, fraction: float
    ) -> Table:
        """The rows of a file, or of a split."""
        source: Any = None
        if self._published is None:
            source = self._given.get(path)
            if source is None:
                source = self._folder / str(path)
            self._tell(f"reading {path}")
        else:
            source = self._published.rows(split or "train")
            self._tell(f"reading {self._section.tfds}")
        return read(source, schema, public_fraction=fraction, on_progress=self._tell)
