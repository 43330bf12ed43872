"""What rows look like once they are arrays: all that a network may know beforehand."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from dpkit.data.schema import (
    Array,
    Boolean,
    Categorical,
    Image,
    Kind,
    Numeric,
    Ordinal,
    Schema,
    Text,
)

LABEL = "label"
NUMBERS = "numbers"
CODES = "codes"


@dataclasses.dataclass(frozen=True)
class Layout:
    """The arrays of a row, and what they mean; public.

    All numbers of a table stand in one array and all codes in another. Pictures, texts
    and arrays stand under the names of their columns.

    Attributes:
      fields: shape and dtype of each array of a row.
      numbers: what the entries of "numbers" are: float32, in [0, 1] by the bounds.
      codes: what the entries of "codes" are, int32, and how many codes each has.
      scales: public constants by which an input is divided before a network sees it.
      symbols: how many symbols the texts have.
      target: what is predicted, if the rows have a label. "label" is int32, the number
        of a class, or float32 in [0, 1] by the bounds; -1 or NaN where it is unknown.
      name: of the label's column.

    Example:
      >>> schema = Schema.read({"age": {"kind": "numeric", "low": 18, "high": 90},
      ...                       "ill": {"kind": "boolean"}}, label="ill")
      >>> layout = Layout.of(schema)
      >>> layout.numbers, layout.classes, sorted(layout.fields)
      (('age',), ('false', 'true'), ['label', 'numbers'])
    """

    fields: Mapping[str, jax.ShapeDtypeStruct]
    numbers: tuple[str, ...] = ()
    codes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    scales: Mapping[str, float] = dataclasses.field(default_factory=dict)
    symbols: Mapping[str, int] = dataclasses.field(default_factory=dict)
    target: Categorical | Boolean | Numeric | Ordinal | None = None
    name: str = LABEL

    @classmethod
    def of(cls, schema: Schema) -> Layout:
        """The layout of a schema's rows.

        Raises:
          ValueError: a column whose name is taken, or none besides the label.
        """
        fields, numbers, codes = {}, [], {}
        for name, column in schema.features.items():
            whole = _whole(column)
            if whole is not None:
                if name in (LABEL, NUMBERS, CODES):
                    raise ValueError(f"schema.{name}: the name is taken; rename it")
                fields[name] = whole
            elif isinstance(column, Categorical | Boolean):
                codes[name] = column.size
            else:
                numbers += [name, f"{name} is missing"][: 1 + column.nullable]
        for key, count in ((NUMBERS, len(numbers)), (CODES, len(codes))):
            if count:
                dtype = np.float32 if key == NUMBERS else np.int32
                fields[key] = jax.ShapeDtypeStruct((count,), dtype)
        if not fields:
            raise ValueError(
                "schema needs a column besides the label, to predict it by"
            )
        target: Any = None
        if schema.label is not None:
            target = schema.columns[schema.label]
        if target is not None:
            number = isinstance(target, Numeric | Ordinal)
            dtype = np.float32 if number else np.int32
            fields[LABEL] = jax.ShapeDtypeStruct((), dtype)
        columns = schema.features.items()
        return cls(
            fields=fields,
            numbers=tuple(numbers),
            codes=codes,
            scales={name: 255.0 for name, c in columns if isinstance(c, Image)},
            symbols={name: c.symbols for name, c in columns if isinstance(c, Text)},
            target=target,
            name=schema.label or LABEL,
        )

    @classmethod
    def images(cls, shape: tuple[int, ...], num_classes: int, scale: float) -> Layout:
        """The layout of pictures with classes 0, 1, … and a public scale."""
        pixels = jax.ShapeDtypeStruct(tuple(shape), np.uint8)
        label = jax.ShapeDtypeStruct((), np.int64)
        return cls(
            fields={"image": pixels, LABEL: label},
            scales={"image": scale},
            target=Categorical(categories=tuple(range(num_classes))),
        )

    @property
    def inputs(self) -> dict[str, jax.ShapeDtypeStruct]:
        """What a network reads: all but the label."""
        return {name: field for name, field in self.fields.items() if name != LABEL}

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes by name; none if a number is predicted, or nothing."""
        return getattr(self.target, "texts", ())

    @property
    def outputs(self) -> int:
        """How many numbers a network returns: a logit a class, or the prediction."""
        return len(self.classes) or 1


def _whole(column: Kind) -> jax.ShapeDtypeStruct | None:
    """The array of a column that has one to itself."""
    match column:
        case Array():
            dtype = np.int32 if column.integer else np.float32
            return jax.ShapeDtypeStruct(column.shape, dtype)
        case Image():
            return jax.ShapeDtypeStruct(column.shape, np.uint8)
        case Text():
            dtype = np.uint8 if column.symbols <= 256 else np.int32
            return jax.ShapeDtypeStruct((column.length,), dtype)
    return None
