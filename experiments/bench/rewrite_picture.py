"""The picture of docs/rewrite.md: the traced loss of a small transformer block.

python -m experiments.bench.rewrite_picture docs/images/rewrite.png
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

PLAIN, SITE, PARAM, NORM = "#eeeeee", "#ffd9a0", "#ffffff", "#d5e8ff"
FORWARD, BACKWARD, WEIGHT = "#333333", "#1f6fd0", "#d07000"
# The data's way through the block: label, parameter met there (None: no site).
STEPS = [
    ("lookup", "E"),
    ("normalise", None),
    ("· scale", "scale"),
    ("matmul", "W1"),
    ("attention", None),
    ("matmul", "W2"),
    ("matmul", "Eᵀ"),
    ("loss", None),
]
FORMS = {
    "E": "A: token ids\nG: T by width",
    "scale": "whole, of size D:\nΣₜ aₜ gₜ",
    "W1": "A: T by D\nG: T by P",
    "W2": "A: T by D\nG: T by P",
    "Eᵀ": "A, G with their\nplaces changed",
}
WIDE, HIGH, STEP = 1.4, 0.66, 1.95
TOP, MIDDLE, BELOW, LAST = 3.4, 2.0, 0.35, -1.25


def draw(path: Path) -> None:
    """Draws everything."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(13, 5.2))
    places = [i * STEP for i in range(len(STEPS))]
    for number, (x, (label, parameter)) in enumerate(zip(places, STEPS, strict=True)):
        _box(axes, x, MIDDLE, label, PLAIN if parameter is None else SITE)
        if number:
            _data_arrows(axes, places[number - 1], x, STEPS[number - 1][1])
        if parameter is not None:
            _parameter(axes, x, parameter)
    _arrow(axes, (-STEP * 0.72, MIDDLE), (-WIDE / 2, MIDDLE), FORWARD)
    axes.text(-STEP * 0.75, MIDDLE, "tokens", ha="right", va="center")
    _shared_embedding(axes, places)
    _finish(axes, places)
    axes.set_xlim(-2.3, places[-1] + 0.9)
    axes.set_ylim(LAST - 0.5, TOP + 1.0)
    axes.axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight", metadata={"Software": None})
    pyplot.close(figure)


def _box(axes: Any, x: float, y: float, label: str, color: str, wide: float = WIDE):
    """A box with a label, centred."""
    from matplotlib.patches import FancyBboxPatch

    corner = (x - wide / 2, y - HIGH / 2)
    style = "round,pad=0.02,rounding_size=0.08"
    axes.add_patch(
        FancyBboxPatch(corner, wide, HIGH, boxstyle=style, fc=color, ec="#555555")
    )
    axes.text(x, y, label, ha="center", va="center", fontsize=8.5)


def _arrow(axes: Any, start: Any, end: Any, color: str, line: str = "-") -> None:
    """An arrow between two points."""
    look = {"arrowstyle": "-|>", "color": color, "linestyle": line, "lw": 1.4}
    axes.annotate("", xy=end, xytext=start, arrowprops=look)


def _data_arrows(axes: Any, before: float, x: float, site: str | None) -> None:
    """Forward above, backward below; a zero is added behind a site."""
    left, right = before + WIDE / 2, x - WIDE / 2
    _arrow(axes, (left, MIDDLE + 0.14), (right, MIDDLE + 0.14), FORWARD)
    _arrow(axes, (right, MIDDLE - 0.14), (left, MIDDLE - 0.14), BACKWARD, "--")
    if site is not None:
        middle = (left + right) / 2
        axes.text(middle, MIDDLE + 0.26, "+ ε", ha="center", color=BACKWARD, fontsize=9)


def _parameter(axes: Any, x: float, name: str) -> None:
    """A parameter above its site, and what is read there below."""
    _box(axes, x, TOP, name, PARAM, 0.8)
    _arrow(axes, (x, TOP - HIGH / 2), (x, MIDDLE + HIGH / 2), WEIGHT)
    _arrow(axes, (x - 0.15, MIDDLE - HIGH / 2), (x - 0.15, BELOW + HIGH / 2), FORWARD)
    _arrow(axes, (x + 0.15, MIDDLE - HIGH / 2), (x + 0.15, BELOW + HIGH / 2), BACKWARD)
    axes.text(x - 0.25, 1.15, "A", ha="right", color=FORWARD, fontsize=9)
    axes.text(x + 0.25, 1.15, "G", ha="left", color=BACKWARD, fontsize=9)
    _box(axes, x, BELOW, FORMS[name], NORM, 1.6)


def _shared_embedding(axes: Any, places: list[float]) -> None:
    """The same table at both ends: its rows are one list."""
    ends = [x for x, (_, name) in zip(places, STEPS, strict=True) if name in FORMS]
    first, last = ends[0], ends[-1]
    for y, side, note in ((TOP, 1, "one parameter"), (BELOW, -1, "and cross terms")):
        edge, far = y + side * HIGH / 2, y + side * (HIGH / 2 + 0.25)
        line = ([first, first, last, last], [edge, far, far, edge])
        axes.plot(*line, color=WEIGHT, linestyle=":", linewidth=1.4)
        place = far + 0.1 if side > 0 else far - 0.3
        middle = (first + last) / 2
        axes.text(middle, place, note, ha="center", color=WEIGHT, fontsize=9)


def _finish(axes: Any, places: list[float]) -> None:
    """Norms, factors, and the sum."""
    middle = (places[0] + places[-2]) / 2
    text = "norms  nᵢ² = Σ over parameters   →   factors  cᵢ = φ(nᵢ)   →   "
    text += "one weighted sum  Σᵢ cᵢ Aᵢᵀ Gᵢ  from the same A and G"
    _box(axes, middle, LAST, text, NORM, 11.6)
    x = places[-1]
    for y, color, line, label in (
        (LAST + 2.0, FORWARD, "-", "forward"),
        (LAST + 1.6, BACKWARD, "--", "backward"),
        (LAST + 1.2, WEIGHT, "-", "parameter"),
    ):
        _arrow(axes, (x - 0.55, y), (x - 0.05, y), color, line)
        axes.text(x, y, label, va="center", fontsize=9)


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
