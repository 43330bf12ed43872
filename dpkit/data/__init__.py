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
    from dpkit.data.records import Source
    from dpkit.data.sources import SOURCES

_HOME = {
    "SOURCES": "sources",
    "DataCorrupt": "errors",
    "DataUnavailable": "errors",
    "Dataset": "loading",
    "Schema": "loading",
    "Source": "records",
    "load": "loading",
    "load_arrays": "loading",
}

__all__ = [
    "SOURCES",
    "DataCorrupt",
    "DataUnavailable",
    "Dataset",
    "Schema",
    "Source",
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
