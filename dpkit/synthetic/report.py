"""The report of a synthetic table: what was measured, how far off it is, and limits.

All of it is computed from what was released, and from what is public.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from dp_accounting import DpEvent

from dpkit.data.codes import Codebook
from dpkit.data.schema import Datetime
from dpkit.report.plots import Axes, Line
from dpkit.report.sections import Figure, Folded, Part, Section, Table, Text
from dpkit.report.words import number
from dpkit.synthetic.config import Config, SyntheticSection
from dpkit.synthetic.model import Model
from dpkit.synthetic.pairs import PRICES

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
    "How long it took to read the table, for whoever watched, and by merf, or by gsd "
    "of half-spaces and prefixes, to add it up before the ledger's first entry: it "
    "tells how many rows there are. The seconds and the memory in this folder are of "
    "what followed.",
)
_SCHEMA = "It was declared, not read off the table; rows are made of its values alone."
_UNMEASURED = (
    "This mechanism measures no table of counts by itself, so no error is foretold."
)
_SEALED = (
    "All releases were fixed beforehand, and paid together before the first was made."
)
_ALONG = (
    "What to measure was chosen along the way, by what was released before: each "
    "choice and each table is an entry of the ledger."
)
_HOW = (
    "No row is a person's. Counts of columns and of pairs of columns were measured "
    "with noise; then rows were searched for whose counts agree with them. A pair of "
    "values that nobody seems to hold is avoided, and may still occur.",
    "How far off a count is to be is told of each: half the summed differences of "
    "shares (total variation), 0 to 1. It was computed from what was released.",
)


def told(
    config: Config, model: Model, title: str, releases: Mapping[str, DpEvent] | None
) -> dict[str, Any]:
    """What a synthesis tells the frame of reports, as fields of an `Outcome`.

    Args:
      config: of the run.
      model: what was released.
      title: what the table is called.
      releases: what was paid together beforehand, by name; None: along the way.
    """
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
        Section("The schema", Text(_SCHEMA), *_schema(model)),
    ]
    if pairs:
        sections.insert(2, Section("Pairs of columns", *_pairs(model, pairs)))
    sections.append(Section("What was measured", *_measured(model, releases)))
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
        *_price(config.synthetic),
        ("rules of the schema, kept by every row", len(model.schema.rules)),
    ]


def _price(asked: SyntheticSection) -> list[tuple[str, Any]]:
    """What pairs of values cost that nobody seems to hold."""
    if asked.mechanism != "pairs":
        return []
    price = PRICES[asked.impossible or "few"]
    told = "none: they are as frequent as noise makes them"
    if price:
        told = f"{price:g} times the noise of a count, by the chance that it is zero"
    return [("price of a pair of values that nobody seems to hold", told)]


def _columns(model: Model) -> list[Part]:
    """Each column as it was measured, if it was, beside the rows."""
    figures: list[Part] = []
    rows, errors, book = [], model.errors(), model.codebook
    for n, name in enumerate(book.names):
        made = np.bincount(model.fitted.rows[:, n], minlength=book.sizes[n])
        shares, measured = made / made.sum(), None
        if (n,) in model.fitted.estimates:
            measured = model.marginal([name]).values / max(model.records, 1.0)
        most = book.labels(name)[int(np.argmax(shares))] or "missing"
        off = errors.get((name,))
        told = "not told" if off is None else number(off, digits=2)
        rows.append((name, book.sizes[n], most, told))
        if book.ordered[n] and len(figures) < _PLOTTED:
            figures.append(_curve(book, name, measured, shares))
    heads = ["column", "values", "most frequent", "expected error"]
    said = [] if model.fitted.estimates else [Text(_UNMEASURED)]
    return [*figures, *said, Table(rows, heads)]


def _curve(
    book: Codebook, name: str, measured: np.ndarray | None, made: np.ndarray
) -> Figure:
    """Shares by value, as measured and in the rows; of moments by their order."""
    places, unit = book.ranges(name)[:, 0].tolist(), name
    if isinstance(book.schema.columns[name], Datetime):
        places, unit = list(range(len(places))), f"{name}, in order"
    lines = tuple(
        Line(label, tuple(zip(places, values.tolist(), strict=False)), dashed)
        for label, values, dashed in [
            ("measured", measured, True),
            ("in the rows", made, False),
        ]
        if values is not None
    )
    caption = f"Shares of {name}, by value"
    if measured is not None:
        caption += ": as measured with noise, and in the rows"
    note = f"Shares of the {len(made)} values of {name}."
    return Figure(lines, Axes(unit, "share"), f"{caption}.", note)


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


def _schema(model: Model) -> list[Part]:
    """What was declared, column by column."""
    book = model.codebook
    rows = [
        (
            name,
            type(column).__name__.lower(),
            size,
            f"{labels[0]} … {labels[-1] or 'missing'}",
        )
        for (name, column), size, labels in zip(
            model.schema.columns.items(),
            book.sizes,
            map(book.labels, book.names),
            strict=True,
        )
    ]
    return [Folded("Every column", Table(rows, ["column", "kind", "values", ""]))]


def _measured(model: Model, releases: Mapping[str, DpEvent] | None) -> list[Part]:
    """What was paid for, and the noise of everything that was measured."""
    if releases is None:
        parts: list[Part] = [Text(_ALONG)]
    else:
        rows = [(name, str(event)) for name, event in releases.items()]
        parts = [Text(_SEALED), Folded("Every release", Table(rows))]
    names = model.codebook.names
    noises = [
        (
            " and ".join(names[n] for n in one.columns),
            one.values.size,
            number(one.stddev, digits=4),
        )
        for one in model.fitted.measurements
    ]
    if noises:
        heads = ["columns", "cells", "noise of a count"]
        parts.append(Folded("Every table of counts", Table(noises, heads)))
    return parts
