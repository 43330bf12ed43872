"""Data sets by name: real, pinned by hash, fetched only when asked.

    from dpkit.data import load
    mnist = load("mnist", allow_download=True)
    train = mnist.arrays("train")   # {"image": uint8 (60000, 28, 28, 1), "label": int}

Arrays are read-only and memory-mapped. The same data is prepared for TensorFlow
Datasets under `mnist.tfds_dir`. What is known about a data set without looking at its
rows stands in `mnist.schema`; a model may depend on that freely.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpkit.data.errors import DataCorrupt, DataUnavailable
    from dpkit.data.loading import Dataset, Schema, load, load_arrays
    from dpkit.data.random_access import ArrayRows, Rows, SourceRows, as_rows
    from dpkit.data.records import Source
    from dpkit.data.sources import SOURCES
    from dpkit.data.units import UserRows, check_one_row_each

_HOME = {
    "SOURCES": "sources",
    "ArrayRows": "random_access",
    "DataCorrupt": "errors",
    "DataUnavailable": "errors",
    "Dataset": "loading",
    "Rows": "random_access",
    "Schema": "loading",
    "Source": "records",
    "SourceRows": "random_access",
    "UserRows": "units",
    "as_rows": "random_access",
    "check_one_row_each": "units",
    "load": "loading",
    "load_arrays": "loading",
}

__all__ = [
    "SOURCES",
    "ArrayRows",
    "DataCorrupt",
    "DataUnavailable",
    "Dataset",
    "Rows",
    "Schema",
    "Source",
    "SourceRows",
    "UserRows",
    "as_rows",
    "check_one_row_each",
    "load",
    "load_arrays",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
