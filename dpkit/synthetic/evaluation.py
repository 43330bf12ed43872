"""A synthetic table beside the real one: scores, floors, attacks; for the owner alone.

Everything here reads the private table without noise. None of it is covered by a
guarantee, and none of it may be published.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dpkit.data.codes import Codebook
from dpkit.synthetic import attacks
from dpkit.synthetic.counting import open_source
from dpkit.synthetic.scores import floor, impossible, scores, transfer, vendi

_DIGITS = 5


def evaluate(
    real: Any,
    synthetic: Any,
    codebook: Codebook,
    *,
    held_out: Any = None,
    label: str | None = None,
) -> dict[str, Any]:
    """Scores of a synthetic table, floors beside them, and attacks on it.

    Privacy: none; see the module.

    Args:
      real: the private table, as for `open_source`.
      synthetic: the made-up one.
      codebook: of their schema.
      held_out: real rows that the synthetic table was not made from: floors and attacks
        need them.
      label: a column of two classes that a classifier is to learn, with `held_out`.

    Returns:
      JSON values by name; `floor_` are of a bootstrap of the real table.

    Raises:
      ValueError: tables that don't fit the schema, or without rows.
    """
    sizes = codebook.sizes
    true, made = (open_source(one, codebook).rows() for one in (real, synthetic))
    found: dict[str, Any] = _rounded(scores(true, made, sizes).to_json())
    least = floor(true, sizes, len(made)).to_json()
    found |= {f"floor_{name}": value for name, value in _rounded(least).items()}
    found |= _rounded({"vendi": vendi(made, sizes), "real_vendi": vendi(true, sizes)})
    if held_out is None:
        return found
    others = open_source(held_out, codebook).rows()
    found["floor_impossible"] = round(impossible(true, others, sizes), _DIGITS)
    if label is not None:
        learned = transfer(true, made, others, codebook.names.index(label))
        found |= _rounded(
            {
                "auc": learned.auc,
                "accuracy": learned.accuracy,
                "real_auc": learned.real_auc,
                "real_accuracy": learned.real_accuracy,
                "majority_accuracy": learned.majority,
            }
        )
    told = attacks.attacked(true, made, others, codebook)
    return found | {name: _plain(value) for name, value in told.items()}


def _rounded(values: dict[str, float]) -> dict[str, float]:
    """In a few digits."""
    return {name: round(float(value), _DIGITS) for name, value in values.items()}


def _plain(value: Any) -> Any:
    """A number for JSON."""
    return (
        round(float(value), _DIGITS)
        if isinstance(value, float | np.floating)
        else value
    )
