"""Data sets that TensorFlow Datasets has prepared, as rows with a public schema.

What its authors publish of a data set (splits, classes, shapes) is public; nothing is
computed from rows. Nothing is fetched: prepare a data set with its own tools.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpkit.data.errors import DataUnavailable
from dpkit.data.schema import Array, Categorical, Image, Kind, Schema


def open_published(
    name: str, *, data_dir: str | None = None, schema: Schema | None = None
) -> tuple[Any, Schema]:
    """A prepared data set and the schema of its rows.

    Args:
      name: as TensorFlow Datasets has it, `name` or `name/config:version`.
      data_dir: where it was prepared; None: where TensorFlow Datasets looks.
      schema: in the place of what is published.

    Returns:
      An object of which `rows(split)` are rows by number, and the schema.

    Raises:
      DataUnavailable: it isn't prepared on this machine.
      ValueError: a format that loses rows, or features without a published range.

    Example:
      >>> open_published("mnist", data_dir="/nowhere")
      Traceback (most recent call last):
      dpkit.data.errors.DataUnavailable: tfds='mnist' is not prepared ...
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir, try_gcs=False)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else error
        raise _absent(name, data_dir, reason) from None
    if not builder.data_path.exists() or not builder.info.splits:
        raise _absent(name, data_dir, "its folder holds no data")
    form = builder.info.file_format
    if form is None or form.value != "array_record":
        raise ValueError(
            f"tfds={name!r} is stored as {form and form.value}: prepare it with "
            "file_format='array_record', of which rows can be taken by number"
        )
    if schema is None:
        schema = _schema(name, builder.info)
    return _Rows(builder), schema


class _Rows:
    """The splits of a data set."""

    def __init__(self, builder: Any) -> None:
        self._builder = builder

    @property
    def version(self) -> str:
        """The published version."""
        return str(self._builder.version)

    def size(self, split: str) -> int:
        """The published number of records of a split."""
        self._check(split)
        return int(self._builder.info.splits[split].num_examples)

    def rows(self, split: str) -> Any:
        """Rows by number."""
        self._check(split)
        return self._builder.as_data_source(split=split)

    def _check(self, split: str) -> None:
        """Refuses a split that isn't there."""
        known = list(self._builder.info.splits)
        if split not in known:
            raise ValueError(f"split={split!r} is not known: use {', '.join(known)}")


def _absent(name: str, data_dir: str | None, reason: Any) -> DataUnavailable:
    """What to say of a data set that isn't here."""
    where = "where TensorFlow Datasets looks" if data_dir is None else repr(data_dir)
    return DataUnavailable(
        f"tfds={name!r} is not prepared {where} ({reason}): prepare it with "
        "TensorFlow Datasets, and name the folder by data.data_dir"
    )


def _schema(name: str, info: Any) -> Schema:
    """The schema that the published features tell."""
    features: Mapping[str, Any] = info.features
    columns = {key: _column(name, key, feature) for key, feature in features.items()}
    label = (info.supervised_keys or (None, None))[1]
    return Schema(
        columns={key: column for key, column in columns.items() if column is not None},
        label=label if label in columns else None,
    )


def _column(name: str, key: str, feature: Any) -> Kind | None:
    """The column of a feature; None for texts, which are left out."""
    kind = type(feature).__name__
    if kind == "ClassLabel":
        return Categorical(categories=tuple(range(feature.num_classes)))
    if kind == "Image" and None not in feature.shape and feature.shape[2] in (1, 3):
        return Image(shape=feature.shape)
    if kind in ("Text", "FeaturesDict") or str(feature.np_dtype) in ("object", "str"):
        return None
    if str(feature.np_dtype) == "uint8" and None not in feature.shape:
        return Array(shape=feature.shape or (1,), low=0, high=255)
    raise ValueError(
        f"tfds={name!r} has {key!r}, whose range isn't published: give data.schema"
    )
