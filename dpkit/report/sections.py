"""The frame of every report: of a run, of a ledger, of an audit.

A report is one HTML file: what must be read first, the guarantee, the sections of
whoever made it, what the guarantee leaves open, the evidence, the configuration. A
maker of reports gives typed values (`Section` and its parts) and never HTML: every
text is escaped here, and every drawing is drawn here, so that nothing out of a data
set, a ledger or a configuration can speak to the reader's browser.

What a job puts into its sections is released with the report: facts that the charge
pays for, or that are public. Accuracies on private rows, counts of them, or anything
from before the noise have no place in it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from dpkit.report.guarantee import Guarantee
from dpkit.report.guarantee import not_covered as not_covered
from dpkit.report.plots import Axes, Line


@dataclasses.dataclass(frozen=True)
class Text:
    """Paragraphs of plain text, or the points of a list.

    Attributes:
      paragraphs: plain text each.
      points: set as a list.

    Example:
      >>> Text("What was trained.").paragraphs
      ('What was trained.',)
    """

    paragraphs: tuple[str, ...]
    points: bool = False

    def __init__(self, *paragraphs: str, points: bool = False) -> None:
        object.__setattr__(self, "paragraphs", paragraphs)
        object.__setattr__(self, "points", points)


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of cells: names and values, or columns under headings.

    Attributes:
      rows: cells; numbers are set short (floats in eight digits, nearest: a bound is
        rounded to its safe side by whoever gives it), None is left empty.
      heads: the headings; none for names and values.
      right: whether the cells are set flush right.

    Raises:
      ValueError: a row has more or fewer cells than the headings, or than two.

    Example:
      >>> Table([("steps", 1000)]).rows
      (('steps', 1000),)
    """

    rows: tuple[tuple[Any, ...], ...]
    heads: tuple[str, ...] = ()
    right: bool = False

    def __init__(
        self,
        rows: Iterable[Sequence[Any]],
        heads: Iterable[str] = (),
        *,
        right: bool = False,
    ) -> None:
        object.__setattr__(self, "rows", tuple(tuple(row) for row in rows))
        object.__setattr__(self, "heads", tuple(heads))
        object.__setattr__(self, "right", right)
        width = len(self.heads) or 2
        for row in self.rows:
            if len(row) != width:
                raise ValueError(
                    f"row={row!r} must have {width} cells: one for each heading, or a"
                    " name and a value where there are none"
                )


@dataclasses.dataclass(frozen=True)
class Numbers:
    """The few numbers that people look for first, set large.

    Attributes:
      rows: a name, the number as text, a remark each.

    Example:
      >>> Numbers([("test accuracy", "97.63 %", "on public rows")]).rows[0][1]
      '97.63 %'
    """

    rows: tuple[tuple[str, str, str], ...]

    def __init__(self, rows: Iterable[tuple[str, str, str]]) -> None:
        object.__setattr__(self, "rows", tuple(rows))


@dataclasses.dataclass(frozen=True)
class Figure:
    """Lines on common axes, with a caption; nothing where no point can be drawn.

    Attributes:
      lines: what is drawn.
      axes: what they say.
      caption: what is shown, in words.
      note: the alternative text for readers who can't see the chart.

    Example:
      >>> Figure((Line("", ((0, 0.0), (1, 1.0))),), Axes("x", "y"), "A line.").note
      ''
    """

    lines: tuple[Line, ...]
    axes: Axes
    caption: str
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Folded:
    """Parts behind a line that opens them.

    Attributes:
      line: what they are.
      parts: shown when it is opened.

    Example:
      >>> Folded("The numbers", Table([("a", 1)])).line
      'The numbers'
    """

    line: str
    parts: tuple[Part, ...]

    def __init__(self, line: str, *parts: Part) -> None:
        object.__setattr__(self, "line", line)
        object.__setattr__(self, "parts", parts)


Part = Text | Table | Numbers | Figure | Folded


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading and what stands under it.

    Attributes:
      title: the heading.
      parts: in their order; figures that follow each other stand side by side.

    Example:
      >>> Section("The run", Text("Two steps.")).title
      'The run'
    """

    title: str
    parts: tuple[Part, ...]

    def __init__(self, title: str, *parts: Part) -> None:
        object.__setattr__(self, "title", title)
        object.__setattr__(self, "parts", parts)


def render(
    title: str,
    guarantee: Guarantee | None,
    sections: Sequence[Section],
    *,
    kind: str = "Privacy report",
    dates: Sequence[str] = (),
    alarms: Sequence[tuple[str, str]] = (),
    shown: Sequence[tuple[str, str, str]] = (),
    not_covered: Sequence[str],
    evidence: Sequence[Part] = (),
    config_text: str | None = None,
) -> str:
    """A report as one self-contained HTML page.

    Args:
      title: of the page.
      guarantee: what is guaranteed; None: this report claims nothing about privacy.
      sections: the maker's own.
      kind: what sort of report it is, above the title.
      dates: when things happened, under the title.
      alarms: what must be read first, a title and a text each; that the guarantee is
        infinite, an estimate, or void by a known seed is said without being asked.
      shown: further numbers that people look for first, as in `Numbers`.
      not_covered: what the guarantee leaves open, one sentence each.
      evidence: what ties the page to the ledger and the code.
      config_text: the configuration as the user wrote it.

    Returns:
      The page. The same input gives the same text.

    Example:
      >>> page = render("A toy", None, [Section("What came out", Text("Nothing."))],
      ...               not_covered=["Everything."])
      >>> page.startswith("<!DOCTYPE html>"), "What came out" in page
      (True, True)
    """
    raise NotImplementedError
