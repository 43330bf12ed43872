"""The report of a synthetic table: what was measured, how far off it is, and limits.

All of it is computed from what was released, and from what is public.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dpkit.report.plots import Axes, Line
from dpkit.report.sections import Figure, Folded, Part, Section, Table, Text
from dpkit.report.words import number
from dpkit.synthetic.config import Config
from dpkit.synthetic.model import Model

_PAIRS = 15  # that are listed
_PLOTTED = 8
_RELEASED = (
    "It holds for model.safetensors and synthetic.csv together, and for every table, "
    "count and answer that is ever drawn from them: that is post-processing, and costs "
    "nothing."
)
_NOT_COVERED = (
    "What was declared public: the schema with its categories and bounds, and rules. "
    "Read off the table, they were a release of their own, which nobody charged.",
    "What the table says of people as a group, which is its purpose: whoever knows "
    "most columns of somebody may guess another one better by it, whether that person "
    "was in the table or not.",
    "How long it took to read the table, for whoever watched: it tells how many rows "
    "there are. The times and the memory in this folder are of the search.",
)
_HOW = (
    "No row is a person's. Counts of columns and of pairs of columns were measured "
    "with noise; then rows were searched for whose counts agree with them. A pair of "
    "values that nobody seems to hold is avoided, and may still occur.",
    "How far off a count is to be is told of each: half the summed differences of "
    "shares (total variation), 0 to 1. It was computed from what was released.",
)


def told(config: Config, model: Model, title: str) -> dict[str, Any]:
    """What a synthesis tells the frame of reports, as fields of an `Outcome`."""
    errors = model.errors()
    pairs = {names: off for names, off in errors.items() if len(names) == 2}
    rows, columns = model.fitted.rows.shape
    shown = [
        ("rows", f"{rows:,}", f"of {columns} columns"),
        ("records", f"{model.records:,.0f}", "in the table, counted with noise"),
    ]
    facts: dict[str, Any] = {}
    if pairs:
        mean = float(np.mean(list(pairs.values())))
        facts["expected_pair_variation"] = round(mean, 5)
        shown.append(
            ("expected error", number(mean, digits=3), "of a pair, total variation")
        )
    sections = [
        Section("How it was made", Text(*_HOW), Table(_settings(config, model))),
        Section("Columns", *_columns(model)),
    ]
    if pairs:
        sections.append(Section("Pairs of columns", *_pairs(model, pairs)))
    sections.append(Section("What was measured", Folded("Every table", _noise(model))))
    return {
        "title": f"A synthetic table of {title}",
        "facts": facts,
        "sections": sections,
        "shown": shown,
        "released": _RELEASED,
        "not_covered": _NOT_COVERED,
    }


def _settings(config: Config, model: Model) -> list[tuple[str, Any]]:
    """How it was made, in short."""
    options = config.synthetic.options()
    return [
        ("mechanism", config.synthetic.mechanism),
        *((name, str(value)) for name, value in options.items()),
        ("tables measured", len(model.fitted.measurements)),
        ("rules of the schema", len(model.schema.rules)),
    ]


def _columns(model: Model) -> list[Part]:
    """Each column as it was measured, beside the rows."""
    parts: list[Part] = []
    rows = []
    errors = model.errors()
    codebook = model.codebook
    for n, name in enumerate(codebook.names):
        if (n,) not in model.fitted.estimates:
            continue
        estimate = model.marginal([name])
        made = np.bincount(model.fitted.rows[:, n], minlength=codebook.sizes[n])
        shares = estimate.values / max(model.records, 1.0)
        most = codebook.labels(name)[int(np.argmax(shares))] or "missing"
        rows.append((name, codebook.sizes[n], most, number(errors[(name,)], digits=2)))
        if codebook.ordered[n] and len(parts) < _PLOTTED:
            parts.append(_curve(name, shares, made / made.sum()))
    heads = ["column", "values", "most frequent", "expected error"]
    return [*parts, Table(rows, heads)]


def _curve(name: str, measured: np.ndarray, made: np.ndarray) -> Figure:
    """Shares by code, as measured and in the rows."""
    lines = tuple(
        Line(label, tuple(enumerate(values.tolist())), dashed)
        for label, values, dashed in [
            ("measured", measured, True),
            ("in the rows", made, False),
        ]
    )
    caption = f"Shares of {name}, by value: as measured with noise, and in the rows."
    note = f"Two curves over the {len(made)} values of {name}, which nearly agree."
    return Figure(lines, Axes(f"{name}, value by value", "share"), caption, note)


def _pairs(model: Model, errors: Mapping[Any, float]) -> list[Part]:
    """The strongest pairs, and the largest errors."""
    strengths = {names: _strength(model, names) for names in errors}
    strongest = sorted(errors, key=lambda names: strengths[names], reverse=True)
    rows = [
        (
            " and ".join(names),
            number(strengths[names], digits=2),
            number(errors[names], digits=2),
        )
        for names in strongest[:_PAIRS]
    ]
    heads = ["pair", "strength", "expected error"]
    text = (
        "The strength of a pair is how far it is from independent, 0 to 1, in the rows."
        " Errors of single pairs are estimates themselves."
    )
    return [Text(text), Table(rows, heads)]


def _strength(model: Model, names: tuple[str, ...]) -> float:
    """How far a pair of columns is from independent, in the rows."""
    numbers = [model.codebook.names.index(name) for name in names]
    sizes = [model.codebook.sizes[n] for n in numbers]
    rows = model.fitted.rows
    cells = rows[:, numbers[0]] * sizes[1] + rows[:, numbers[1]]
    shares = np.bincount(cells, minlength=sizes[0] * sizes[1]).reshape(sizes)
    shares = shares / len(rows)
    apart = np.outer(shares.sum(1), shares.sum(0))
    return float(np.abs(shares - apart).sum() / 2)


def _noise(model: Model) -> Table:
    """The noise of everything that was measured."""
    names = model.codebook.names
    rows = [
        (
            " and ".join(names[n] for n in one.columns),
            one.values.size,
            number(one.stddev, digits=4),
        )
        for one in model.fitted.measurements
    ]
    return Table(rows, ["columns", "cells", "noise of a count"])
