"""Curves as inline SVG: deterministic, without fonts or colours of their own.

Matplotlib draws with a `Figure` object (no global state). Its SVG is then stripped to
what HTML needs: colours become the page's CSS variables, so that a curve follows the
page into dark mode and on to paper; identifiers get a prefix, so that two plots can
stand in one page; and nothing names an address.
"""

import dataclasses
import io
import math
import re
from collections.abc import Sequence
from typing import Any

Points = Sequence[tuple[float, float]]

# Stand-ins that no figure uses otherwise; the page gives the variables their colours.
_COLOURS = {"#010203": "var(--ink)", "#040506": "var(--rule)", "#070809": "var(--mark)"}
_INK, _RULE, _MARK = _COLOURS
_SETTINGS = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name with two dollar signs is a name
    "font.size": 11,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
}


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of a chart; a reference line is thin, dashed and grey.

    Fields: label (in the legend; empty: not there), points, reference.

    Example:
      >>> Line("ours", [(0, 0.0)]).reference
      False
    """

    label: str
    points: Points
    reference: bool = False


@dataclasses.dataclass(frozen=True)
class Axes:
    """What the axes of a chart say.

    Fields: x and y (in words), log_x and log_y, percent (y is a fraction, shown as a
    percentage), from_zero (both axes start at 0).

    Example:
      >>> Axes("epsilon", "delta", log_y=True).percent
      False
    """

    x: str
    y: str
    log_x: bool = False
    log_y: bool = False
    percent: bool = False
    from_zero: bool = False


def chart(lines: Sequence[Line], axes: Axes, *, name: str, note: str) -> str:
    """Lines on common axes, as an SVG element that can stand inside HTML.

    Args:
      lines: each with (x, y) pairs; pairs that can't be drawn on the axes are left out.
      axes: what they say.
      name: a short word of letters; it makes the identifiers unique in a page.
      note: the alternative text for readers who can't see the chart.

    Returns:
      The element; the empty string where no point is left.

    Example:
      >>> chart([Line("", [(0, 0.0), (1, 1.0)])], Axes("x", "y"), name="e", note="")[:4]
      '<svg'
    """
    drawn = [
        dataclasses.replace(line, points=[p for p in line.points if _fits(p, axes)])
        for line in lines
    ]
    drawn = [line for line in drawn if line.points]
    if not drawn:
        return ""
    return _clean(_draw(drawn, axes, name), name, note)


def heat(x: Any, y: Any, values: Any, axes: Axes, *, name: str, note: str) -> str:
    """Values over a rectangle as shades, in eight steps beside a scale; an SVG element.

    Args:
      x, y: places along the axes, ascending; (a,) and (b,).
      values: finite, (a, b).
      axes, name, note: as for `chart`.

    Example:
      >>> heat([0, 1], [0, 1], [[0, 1], [2, 3]], Axes("x", "y"), name="h", note="")[:4]
      '<svg'
    """
    return _clean(_shade(x, y, values, axes, name), name, note)


def _fits(point: tuple[float, float], axes: Axes) -> bool:
    """Whether a point can be drawn: finite, and above 0 on a logarithmic axis."""
    x, y = point
    finite = math.isfinite(x) and math.isfinite(y)
    return finite and (x > 0 or not axes.log_x) and (y > 0 or not axes.log_y)


_DASHES = ((0, (4, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)))


def _draw(lines: Sequence[Line], wanted: Axes, name: str) -> str:
    """Matplotlib's own SVG file for the lines."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**_SETTINGS, "svg.hashsalt": name}):
        figure = Figure(figsize=(4.6, 3.0), layout="constrained")
        axes = figure.add_subplot()
        references = 0
        for line in lines:
            xs, ys = zip(*line.points, strict=True)
            label = line.label or None
            if line.reference:
                dash = _DASHES[references % len(_DASHES)]
                axes.plot(
                    xs, ys, color=_INK, linewidth=0.9, linestyle=dash, label=label
                )
                references += 1
            else:
                few = "o" if len(xs) <= 40 else None
                axes.plot(
                    xs,
                    ys,
                    color=_MARK,
                    linewidth=1.8,
                    marker=few,
                    markersize=3.5,
                    label=label,
                )
        axes.grid(axis="y", color=_RULE, linewidth=0.6)
        axes.tick_params(length=3)
        axes.set_axisbelow(True)
        axes.set_xlabel(wanted.x)
        axes.set_ylabel(wanted.y)
        _scale(axes, wanted)
        if any(line.label for line in lines):
            axes.legend(frameon=False, fontsize=8.5, handlelength=2.6)
        target = io.StringIO()
        figure.savefig(target, format="svg", transparent=True, metadata={"Date": None})
    return target.getvalue()


_SHADES = 8


def _shade(x: Any, y: Any, values: Any, wanted: Axes, name: str) -> str:
    """Matplotlib's own SVG file for the shades: one colour, ever less transparent."""
    import matplotlib
    import numpy as np
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure

    values = np.transpose(values)
    low, high = max(0.0, float(values.min())), float(values.max())
    if not high > low * (1 + 1e-6):
        low = 0.0
    levels = np.linspace(low, max(high * (1 + 1e-6), 1e-9), _SHADES + 1)
    colours = [(*to_rgb(_MARK), share) for share in np.linspace(0, 1, _SHADES)]
    with matplotlib.rc_context({**_SETTINGS, "svg.hashsalt": name}):
        figure = Figure(figsize=(4.6, 3.7), layout="constrained")
        axes = figure.add_subplot()
        filled = axes.contourf(x, y, values, levels, colors=colours)
        scale = figure.colorbar(filled, format=lambda value, _: f"{value:.4g}")
        scale.ax.tick_params(length=3, labelsize=8.5)
        axes.tick_params(length=3)
        axes.set_xlabel(wanted.x)
        axes.set_ylabel(wanted.y)
        target = io.StringIO()
        figure.savefig(target, format="svg", transparent=True, metadata={"Date": None})
    return target.getvalue()


def _scale(axes: Any, wanted: Axes) -> None:
    """Limits, logarithms and the form of the numbers; no mathematical typesetting."""
    from matplotlib.ticker import (
        FuncFormatter,
        NullFormatter,
        PercentFormatter,
        StrMethodFormatter,
    )

    for axis, set_scale, logarithmic in (
        (axes.xaxis, axes.set_xscale, wanted.log_x),
        (axes.yaxis, axes.set_yscale, wanted.log_y),
    ):
        if logarithmic:
            set_scale("log")
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())
    if not wanted.from_zero:
        return
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    if wanted.percent:
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1.0))
        axes.set_ylim(top=min(1.0, axes.get_ylim()[1]))
    else:
        axes.set_ylim(bottom=0)


def _clean(svg: str, name: str, note: str) -> str:
    """The element alone: no prologue, metadata, addresses, fonts or style sheet."""
    from html import escape

    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r"font-family: [^;]*; ", "", svg)
    svg = re.sub(r'(\sid="|url\(#|xlink:href="#)', rf"\g<1>{name}-", svg)
    svg = svg.replace("xlink:href", "href")
    for stand_in, variable in _COLOURS.items():
        svg = svg.replace(stand_in, variable)
    title = f'<svg role="img" aria-label="{escape(note, quote=True)}"'
    svg = re.sub(r'<svg([^>]*?) width="[^"]*"', r"<svg\1", svg, count=1)
    svg = re.sub(r'<svg([^>]*?) height="[^"]*"', r"<svg\1", svg, count=1)
    return svg.replace("<svg", title, 1).strip()
