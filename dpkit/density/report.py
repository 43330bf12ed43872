"""The report of a density build: the picture, its error bars, and why this structure.

All of it is computed from what was released, and from what is public.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dpkit.density.config import Config
from dpkit.density.released import Release, grid_of
from dpkit.density.views import heat_map, histogram, quantile
from dpkit.mechanisms.density import Answers, SplineGrid
from dpkit.report.plots import Axes, Line
from dpkit.report.sections import Figure, Map, Part, Section, Table, Text
from dpkit.report.words import number

_SIZE = 48  # places along an axis of a map
_COARSE = 12  # where each takes long: kernels that don't factor, on a grid in space
_BINS = 32
_BARS = (
    "Every answer comes with its error: a standard deviation of the noise and of the "
    "structure's own randomness, and a bound on whatever else it is off by. In some 95 "
    "of 100 answers the truth lies within two standard deviations and that bound: this "
    "is the band. It was computed from what was released.",
    "Places where nobody is have noise as well, so an answer may be below zero, and a "
    "bump within the band may be none. Averages of answers stay right because nothing "
    "is cut off at zero.",
)
_RELEASED = (
    "It holds for the structure in density.safetensors and for all answers that are "
    "ever computed from it, however many: they are post-processing, and cost nothing."
)
_NOT_COVERED = (
    "What was declared public: the domain, the bandwidth, the number and the names of "
    "columns, landmarks. If they were chosen by looking at the points, that was a "
    "release of its own, which nobody charged.",
    "How long it took to read the points, for whoever watched: it tells how many there "
    "are. The times in this folder begin after that.",
)


def told(config: Config, release: Release, title: str) -> dict[str, Any]:
    """What a build tells the frame of reports, as fields of an `Outcome`."""
    facts = release.facts
    expected, floor = facts["expected_error"], facts["floor"]
    shown = [
        ("structure", facts["structure"], f"{facts['numbers']:,} numbers"),
        ("expected error", number(expected), "of an answer, one standard deviation"),
        ("floor", number(floor), "the error of one single answer by such noise"),
    ]
    if hasattr(release.structure, "count_answer"):
        count, stddev = (float(part[0]) for part in release.count[:2])
        band = f"give or take {2 * stddev:,.0f}: counted with noise"
        shown.append(("records", f"{count:,.0f}", band))
    sections = [
        Section("The density", *_pictures(config, release)),
        Section("How far to trust an answer", Text(*_BARS)),
        Section("Why this structure", *_reasons(config, release)),
    ]
    if isinstance(release.structure, SplineGrid):
        sections.insert(1, Section("Along each axis", *_histograms(config, release)))
    return {
        "title": f"Private density of {title}",
        "sections": sections,
        "shown": shown,
        "released": _RELEASED,
        "not_covered": _NOT_COVERED,
    }


def _pictures(config: Config, release: Release) -> list[Part]:
    """A curve with its band, or a map beside that of its standard deviation."""
    domain, names = config.density.domain, _names(config, release)
    if domain is None:
        return [Text("There is no picture, since no domain was declared.")]
    what = f"sum of {config.density.kernel} over all points"
    if len(domain) == 1:
        x = np.linspace(*domain[0], 256)
        caption = f"The {what}, with its band (dashed)."
        return [_banded(x, release.query(x[:, None]), Axes(names[0], "sum"), caption)]
    first, second = axes = config.density.axes if len(domain) > 2 else (0, 1)
    structure, size, where = release.structure, _SIZE, ""
    summed = False
    if len(domain) > 2 and isinstance(structure, SplineGrid):
        summed = structure.kernel.factors
        size = _SIZE if summed else _COARSE
    x, y = (np.linspace(*domain[axis], size) for axis in axes)
    if summed:
        where = ", all other axes summed up"
        answers = heat_map(release, axes, size=size).answers
    else:
        places = np.array([[(a + b) / 2 for a, b in domain]] * size**2)
        places[:, first], places[:, second] = np.repeat(x, size), np.tile(y, size)
        flat = release.query(places)
        answers = Answers(*(part.reshape(size, size) for part in flat))
        where = ", through the middle of all other axes" if len(domain) > 2 else ""
    labels, errors = Axes(names[first], names[second]), answers.stddev
    picture = _map(x, y, answers.values, labels, f"The {what}{where}.")
    if errors.max() <= 1.02 * errors.min():
        same = f"The standard deviation is {number(float(errors.max()))} everywhere."
        return [picture, Text(same)]
    caption = "The standard deviation of each answer."
    return [picture, _map(x, y, errors, labels, caption)]


def _map(x: Any, y: Any, values: np.ndarray, axes: Axes, caption: str) -> Map:
    """Shades, with their range in words."""
    low, high = number(float(values.min())), number(float(values.max()))
    note = f"Map over {axes.x} and {axes.y}: values from {low} to {high}."
    return Map(x, y, values, axes, caption, note)


def _banded(x: Any, found: Answers, axes: Axes, caption: str) -> Figure:
    """A curve between the lines of its band."""
    low, high = number(float(found.values.min())), number(float(found.values.max()))
    note = f"Curve of {axes.y} against {axes.x}: values from {low} to {high}."
    curves = [(found.values, False), (found.low, True), (found.high, True)]
    lines = [
        Line("", tuple(zip(x.tolist(), curve.tolist(), strict=True)), reference)
        for curve, reference in curves
    ]
    return Figure(tuple(lines), axes, caption, note)


def _histograms(config: Config, release: Release) -> list[Part]:
    """Records by their place along each axis, and its quartiles."""
    parts: list[Part] = []
    rows = []
    for axis, name in enumerate(_names(config, release)):
        low, high = grid_of(release).domain[axis]
        edges = np.linspace(low, high, _BINS + 1)
        found = histogram(release, edges, axis=axis)
        steps = Answers(*(np.repeat(part, 2) for part in found))
        caption = f"Records between {_BINS + 1} places along {name}, with the band."
        corners = np.repeat(edges, 2)[1:-1]
        parts.append(_banded(corners, steps, Axes(name, "records"), caption))
        quarters = quantile(release, [0.25, 0.5, 0.75], axis=axis)
        around = np.stack([quarters.low, quarters.values, quarters.high], 1).tolist()
        rows.append([name, *(" … ".join(map(number, three)) for three in around)])
    heads = ["axis", "a quarter is below", "half", "three quarters"]
    return [*parts, Table(rows, heads)]


def _reasons(config: Config, release: Release) -> list[Part]:
    """Why the structure was taken, and how far it is from the least possible error."""
    facts = release.facts
    expected, floor = facts["expected_error"], facts["floor"]
    text = (
        f"{facts['structure']}: {facts['reason']}. An answer is expected to be off by "
        f"{number(expected)}, were there {config.density.records:,} records; one "
        f"single answer by such noise would be off by {number(floor)}, so it is "
        f"{number(expected / floor, digits=3)} times the floor."
    )
    others = [(name, number(error)) for name, error in facts["others"].items()]
    heads = ["structure", "expected error"]
    compared = [Table(others, heads)] if len(others) > 1 else []
    return [Text(text), *compared]


def _names(config: Config, release: Release) -> list[str]:
    """What the axes are called: by the configuration, never by the file."""
    columns, count = config.data.columns, release.structure.dimension
    if columns is not None and len(columns) == count:
        return list(columns)
    return [f"axis {axis}" for axis in range(count)]
