"""Curves as figures of a page: the drawing, what it shows, and its numbers."""

from html import escape

from dpkit.budget.curves import Curve
from dpkit.report.markup import document, grid, numbers, section
from dpkit.report.plots import Axes, Line, chart
from dpkit.report.words import number, relation_in_short

_CAPTIONS = {
    "steps": "What had been spent by then, had the run been fixed to stop there.",
    "noise": "What the run costs with more or with less noise.",
    "profile": "Every point is a guarantee: this epsilon, with this delta. The delta"
    " at epsilon 0 is the largest advantage of any attacker.",
    "tradeoff": "No test of membership has error rates below the line. Lower lines"
    " leak more.",
    "order": "The divergence of two neighbouring outcomes, by its order.",
}
_LOG_Y = ("profile",)
_LOG_X = ("noise", "order")


def figure(curve: Curve) -> str:
    """A curve with its caption; nothing where it has no point.

    Args:
      curve: what to draw.

    Returns:
      HTML.

    Example:
      >>> curve = Curve(name="steps", x="steps", y="epsilon", points=((1, 0.5),))
      >>> figure(curve).startswith("<figure>")
      True
    """
    if not curve.points:
        return ""
    axes = Axes(
        curve.x,
        curve.y,
        log_x=curve.name in _LOG_X,
        log_y=curve.name in _LOG_Y,
        from_zero=curve.name == "steps",
    )
    own = Line(_own_name(curve) if curve.references else "", curve.points)
    others = [Line(name, points, True) for name, points in curve.references.items()]
    (x, y), (last_x, last_y) = curve.points[0], curve.points[-1]
    note = (
        f"{curve.y} against {curve.x}: from {number(y)} at {x:.4g} to"
        f" {number(last_y)} at {last_x:.4g}."
    )
    drawing = chart([own, *others], axes, name=curve.name, note=note)
    caption = f"{curve.y[0].upper()}{curve.y[1:]} against {curve.x}, {_warrant(curve)}."
    text = f"{caption} {_CAPTIONS[curve.name]}"
    return f"<figure>\n{drawing}\n<figcaption>{escape(text)}</figcaption>\n</figure>\n"


def curve_page(curve: Curve, *, relation: str, unit: str) -> str:
    """One curve as a page of its own, with its numbers.

    Args:
      curve: what to draw.
      relation: the neighbouring relation.
      unit: the privacy unit.

    Returns:
      One self-contained HTML page.

    Example:
      >>> curve = Curve(name="steps", x="steps", y="epsilon", points=((1, 0.5),))
      >>> "add_remove" in curve_page(curve, relation="add_remove", unit="user")
      True
    """
    title = f"{curve.y} against {curve.x}"
    side = "down" if curve.name == "tradeoff" else "up"
    rows = [(f"{x:.7g}", number(y, digits=6, side=side)) for x, y in curve.points]
    known = [
        ("relation", relation, relation_in_short(relation, unit)),
        ("unit", unit, "what one record stands for"),
        ("regime", "static", "everything fixed before any output was seen"),
    ]
    body = "\n".join(
        [
            f'<header>\n<p class="kicker">Privacy curve</p>\n<h1>{escape(title)}</h1>'
            "\n</header>",
            numbers(known),
            figure(curve),
            section("The numbers", grid([curve.x, curve.y], rows)),
        ]
    )
    return document(title, body)


def _own_name(curve: Curve) -> str:
    """The curve itself in the legend."""
    return "this run, certified" if curve.certified else "this run, an estimate"


def _warrant(curve: Curve) -> str:
    """What kind of bound the line is."""
    if not curve.certified:
        return "an estimate"
    side = "lower" if curve.name == "tradeoff" else "upper"
    return f"a certified {side} bound"
