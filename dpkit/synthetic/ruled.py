"""Rows that keep a schema's rules, where a recipe's own way of drawing knows none."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from dpkit.synthetic.engine import Target, search

if TYPE_CHECKING:
    from dpkit.data.codes import Codebook

_SWEEPS = 2


def ruled(
    rows: np.ndarray, codebook: Codebook, families: Iterable[tuple[int, ...]], seed: int
) -> np.ndarray:
    """Rows without impossible combinations, whose tables are nearly those of the given.

    Args:
      rows: codes; public.
      codebook: with the rules.
      families: whose tables are kept.
      seed: of the search.

    Example:
      >>> from dpkit.data.codes import Codebook
      >>> from dpkit.data.schema import Schema
      >>> book = Codebook.of(Schema.read({"a": {"kind": "boolean"}}))
      >>> ruled(np.array([[0], [1]]), book, [(0,)], 0).tolist()
      [[0], [1]]
    """
    if not codebook.forbidden:
        return rows
    targets = [Target(one, _shares(rows, one, codebook.sizes)) for one in families]
    return search(
        rows,
        codebook.sizes,
        targets,
        seed=seed,
        sweeps=_SWEEPS,
        forbidden=codebook.forbidden,
    ).rows


def _shares(
    rows: np.ndarray, columns: tuple[int, ...], sizes: tuple[int, ...]
) -> np.ndarray:
    """The rows' table."""
    shape = tuple(sizes[n] for n in columns)
    cells = np.ravel_multi_index([rows[:, n] for n in columns], shape)
    return np.bincount(cells, minlength=math.prod(shape)).reshape(shape) / len(rows)
