"""Adult with fourteen columns, as codes, and the scores of a table against it."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pyarrow as pa

from dpkit.data.codes import Codebook
from dpkit.data.tables import adult_schema, load_adult
from dpkit.synthetic.scores import scores, transfer


@functools.cache
def adult14() -> tuple[np.ndarray, np.ndarray, Codebook]:
    """Codes of 39,000 rows and of those held out, and what they mean."""
    codebook = Codebook.of(adult_schema())
    parts = load_adult(allow_download=True)
    train, held_out = (
        codebook.encode({name: pa.array(column) for name, column in part.items()})
        for part in parts
    )
    return train, held_out, codebook


def scored(
    codebook: Codebook, train: np.ndarray, held_out: np.ndarray, made: np.ndarray
) -> dict[str, Any]:
    """All scores; the classifier is of the last column, on rows held out."""
    found = scores(train, made, codebook.sizes)
    learned = transfer(train, made, held_out, len(codebook.sizes) - 1)
    return found.to_json() | {"auc": learned.auc, "real_auc": learned.real_auc}
