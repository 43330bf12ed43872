"""A synthetic table beside the real one: scores, floors, attacks; for the owner alone.

Everything here reads the private table without noise. None of it is covered by a
guarantee, and none of it may be published.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dpkit.data.codes import Codebook
from dpkit.report.sections import Part, Section, Table, Text, render
from dpkit.report.words import number
from dpkit.synthetic import attacks
from dpkit.synthetic.counting import open_source
from dpkit.synthetic.scores import floor, impossible, scores, transfer, vendi

_DIGITS = 5
_MEANINGS = {
    "columns": "columns, mean total variation",
    "pairs": "pairs of columns, mean",
    "worst_pair": "the worst pair",
    "strongest": "the pair that depends most",
    "ten_strongest": "the ten that depend most, mean",
    "triples": "triples of columns, mean",
    "worst_cell": "the largest difference of a share in a pair's table",
    "impossible": "rows with a pair of values that no real row holds",
}
_DISTANCES = (
    "Total variation is half the summed differences of shares, 0 to 1. The floor is "
    "what as many rows have that are drawn from the real table itself: a sample of the "
    "people would be no nearer. Of impossible rows it is the share among real rows "
    "that were held out.",
)
_LEARNED = "Gradient trees, tested on real rows that were held out."
_ATTACKED = (
    "Each attack was tried on people in the real table and on people who aren't: what "
    "the table tells of everybody is no leak of anybody. The excess is what it tells "
    "of members beyond that.",
    "Distances about one half, and attacks that fail, prove nothing: a better attack "
    "may succeed. What bounds all of them is the guarantee in the ledger.",
)
_PRIVATE = (
    "Every number here is computed from the private rows without noise, and no epsilon "
    "covers it. It is for those who may see these rows."
)
_PUBLISHED = "The real table was published: nothing here is about anybody's secret."


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


def page(found: Mapping[str, Any], title: str, *, public: bool = False) -> str:
    """The same as one HTML page, for the owner.

    Args:
      found: from `evaluate`.
      title: what the real table is called.
      public: whether the real table was published.

    Example:
      >>> rows = {"a": [True, False] * 20, "b": [True, False] * 20}
      >>> book = Codebook.of({name: {"kind": "boolean"} for name in rows})
      >>> "owner alone" in page(evaluate(rows, rows, book), "toy")
      True
    """
    sections = [Section("Distances", Text(*_DISTANCES), Table(*_distances(found)))]
    if "auc" in found:
        sections.append(
            Section("What a classifier learns", Text(_LEARNED), Table(*_learnt(found)))
        )
    if "singling_out_members" in found:
        sections.append(Section("Attacks", *_attacks(found)))
    shown = [
        (
            "pairs of columns",
            number(found["pairs"], digits=3),
            f"mean total variation; floor {number(found['floor_pairs'], digits=3)}",
        )
    ]
    return render(
        f"A synthetic table beside {title}",
        None,
        sections,
        kind="Evaluation" if public else "Evaluation, for the owner alone",
        alarms=[] if public else [("Not to be published", _PRIVATE)],
        shown=shown,
        not_covered=[_PUBLISHED if public else _PRIVATE],
    )


def _distances(found: Mapping[str, Any]) -> tuple[list[tuple[Any, ...]], list[str]]:
    """Scores beside their floors."""
    rows = [
        (meaning, number(found[name], digits=3), _floor(found, name))
        for name, meaning in _MEANINGS.items()
    ]
    rows.append(
        (
            "Vendi score, beside that of the real rows",
            number(found["vendi"], digits=4),
            number(found["real_vendi"], digits=4),
        )
    )
    return rows, ["", "made up", "floor"]


def _floor(found: Mapping[str, Any], name: str) -> str:
    """What a resampled real table has; of impossible rows, what held-out rows have."""
    value = found[f"floor_{name}"]
    if name == "impossible" and "exact_matches" not in found:
        return "give held-out rows"
    return number(value, digits=3)


def _learnt(found: Mapping[str, Any]) -> tuple[list[tuple[Any, ...]], list[str]]:
    """What is learnt from either table."""
    rows: list[tuple[Any, ...]] = [
        ("made-up rows", found["auc"], found["accuracy"]),
        ("real rows", found["real_auc"], found["real_accuracy"]),
        ("the most frequent class", 0.5, found["majority_accuracy"]),
    ]
    return rows, ["learnt from", "AUC", "accuracy"]


def _attacks(found: Mapping[str, Any]) -> list[Part]:
    """Attacks beside their controls."""
    rows = [
        (
            name.replace("_", " "),
            number(found[f"{name}_members"], digits=3),
            number(found[f"{name}_control"], digits=3),
            f"{number(found[f'{name}_low'], digits=3)} to "
            f"{number(found[f'{name}_high'], digits=3)}",
        )
        for name in ("singling_out", "linkability", "inference")
    ]
    heads = ["attack", "in the table", "not in it", "excess, 95 %"]
    others = [
        ("made-up rows nearer to a row of the table (1/2: none)", "nearer_to_train"),
        ("telling members by the distance, AUC (1/2: not at all)", "membership_auc"),
        ("made-up rows equal to one in the table", "exact_matches"),
        ("held-out rows equal to one in the table", "exact_matches_held_out"),
    ]
    return [
        Text(*_ATTACKED),
        Table(rows, heads),
        Table([(meaning, found[name]) for meaning, name in others]),
    ]
