"""Curves as figures: the drawing, what it shows, and its numbers."""

from collections.abc import Sequence

from dpkit.budget.curves import Curve
from dpkit.report.guarantee import not_covered
from dpkit.report.plots import Axes, Line
from dpkit.report.sections import Figure, Section, Table, render
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
# Each point is a true statement: so is one whose numbers are rounded to these sides.
_SIDES = {
    "steps": ("down", "up"),
    "noise": ("up", "up"),
    "profile": ("up", "up"),
    "tradeoff": ("down", "down"),
    "order": ("down", "up"),
}
_LOG_Y = ("profile",)
_LOG_X = ("noise", "order")


def figure(curve: Curve) -> Figure:
    """A curve with its caption; nothing is shown where it has no point.

    Example:
      >>> curve = Curve(name="steps", x="steps", y="epsilon", points=((1, 0.50009),))
      >>> figure(curve).note
      'epsilon against steps: from 0.5001 at 1 to 0.5001 at 1.'
    """
    axes = Axes(
        curve.x,
        curve.y,
        log_x=curve.name in _LOG_X,
        log_y=curve.name in _LOG_Y,
        from_zero=curve.name == "steps",
    )
    warrant = "certified" if curve.certified else "an estimate"
    own = Line(f"this run, {warrant}" if curve.references else "", curve.points)
    others = [Line(name, points, True) for name, points in curve.references.items()]
    ends = [curve.points[0], curve.points[-1]] if curve.points else []
    note = " to ".join(f"{y} at {x}" for x, y in rounded(curve, ends, digits=4))
    caption = f"{curve.y[0].upper()}{curve.y[1:]} against {curve.x}, {_warrant(curve)}."
    return Figure(
        lines=(own, *others),
        axes=axes,
        caption=f"{caption} {_CAPTIONS[curve.name]}",
        note=f"{curve.y} against {curve.x}: from {note}.",
    )


def curve_page(curve: Curve, *, relation: str, unit: str) -> str:
    """One curve as a page of its own, with its numbers.

    Example:
      >>> curve = Curve(name="steps", x="steps", y="epsilon", points=((1, 0.5),))
      >>> "add_remove" in curve_page(curve, relation="add_remove", unit="user")
      True
    """
    rows = rounded(curve, curve.points, digits=6)
    return render(
        f"{curve.y} against {curve.x}",
        None,
        [
            Section("The curve", figure(curve)),
            Section("The numbers", Table(rows, [curve.x, curve.y])),
        ],
        kind="Privacy curve",
        shown=[
            ("relation", relation, relation_in_short(relation, unit)),
            ("unit", unit, "what one record stands for"),
            ("regime", "static", "everything fixed before any output was seen"),
        ],
        not_covered=not_covered(unit),
    )


def rounded(
    curve: Curve, points: Sequence[tuple[float, float]], *, digits: int
) -> list[tuple[str, str]]:
    """Points as text, each number rounded so that what they say stays true.

    Example:
      >>> curve = Curve(name="profile", x="epsilon", y="delta", points=((1.23, 4.56),))
      >>> rounded(curve, curve.points, digits=2)
      [('1.3', '4.6')]
    """
    across, up = _SIDES[curve.name]
    return [
        (
            number(float(x), digits=digits, side=across),
            number(float(y), digits=digits, side=up),
        )
        for x, y in points
    ]


def _warrant(curve: Curve) -> str:
    """What kind of bound the line is."""
    if not curve.certified:
        return "an estimate"
    side = "lower" if curve.name == "tradeoff" else "upper"
    return f"a certified {side} bound"
