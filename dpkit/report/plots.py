"""Curves as inline SVG: deterministic, without fonts or colours of their own.

Matplotlib draws with a `Figure` object (no global state). Its SVG is then stripped to
what HTML needs: colours become the page's CSS variables, so that a curve follows the
page into dark mode and on to paper; identifiers get a prefix, so that two plots can
stand in one page; and nothing names an address.
"""

import io
import math
import re
from collections.abc import Sequence

Points = Sequence[tuple[float, float]]

# Stand-ins that no figure uses otherwise; the page gives the variables their colours.
_COLOURS = {"#010203": "var(--ink)", "#040506": "var(--rule)", "#070809": "var(--mark)"}
_INK, _RULE, _MARK = _COLOURS
_SETTINGS = {
    "svg.fonttype": "none",
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


def curve(
    points: Points, *, name: str, label: str, note: str, percent: bool = False
) -> str:
    """One curve against steps, as an SVG element that can stand inside HTML.

    Args:
      points: (step, value) pairs; pairs with a value that is not finite are left out.
      name: a short word of letters; it makes the identifiers unique in a page.
      label: the vertical axis, in words.
      note: the alternative text for readers who can't see the curve.
      percent: values are fractions, shown as percentages.

    Returns:
      The element; the empty string where no point is left.

    Example:
      >>> curve([(0, 0.0), (10, 1.0)], name="e", label="epsilon", note="rises")[:4]
      '<svg'
    """
    finite = [(x, y) for x, y in points if math.isfinite(y)]
    if not finite:
        return ""
    return _clean(_draw(finite, name, label, percent), name, note)


def _draw(points: Points, name: str, label: str, percent: bool) -> str:
    """Matplotlib's own SVG file for the curve."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter, StrMethodFormatter

    with matplotlib.rc_context({**_SETTINGS, "svg.hashsalt": name}):
        figure = Figure(figsize=(4.6, 3.0), layout="constrained")
        axes = figure.add_subplot()
        steps, values = zip(*points, strict=True)
        few = len(points) <= 40
        axes.plot(
            steps,
            values,
            color=_MARK,
            linewidth=1.8,
            marker="o" if few else None,
            markersize=3.5,
        )
        axes.grid(axis="y", color=_RULE, linewidth=0.6)
        axes.tick_params(length=3)
        axes.set_axisbelow(True)
        axes.set_xlabel("step")
        axes.set_ylabel(label)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        if percent:
            axes.yaxis.set_major_formatter(PercentFormatter(xmax=1.0))
            axes.set_ylim(top=min(1.0, axes.get_ylim()[1]))
        else:
            axes.set_ylim(bottom=0)
        target = io.StringIO()
        figure.savefig(target, format="svg", transparent=True, metadata={"Date": None})
    return target.getvalue()


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
