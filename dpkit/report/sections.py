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
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from dpkit.report import markup
from dpkit.report.guarantee import Guarantee
from dpkit.report.plots import Axes, Line, chart, heat
from dpkit.report.words import number, relation_in_short


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
class Map:
    """Values over a rectangle, as shades, with a caption.

    Attributes:
      x, y: places along the axes, ascending.
      values: of each place of x a row, a value for each of y; finite.
      axes, caption, note: as for a `Figure`.

    Example:
      >>> Map((0, 1), (0, 1), ((0, 1), (2, 3)), Axes("x", "y"), "Shades.").note
      ''
    """

    x: Any
    y: Any
    values: Any
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


Part = Text | Table | Numbers | Figure | Map | Folded


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
    insecure = guarantee is not None and guarantee.insecure
    head = markup.header(
        f"{kind} of an insecure test" if insecure else kind, title, dates
    )
    first = _alarms(guarantee) if guarantee else []
    whole = [*sections, Section("What is not covered", Text(*not_covered, points=True))]
    if evidence:
        whole.append(Section("Evidence", *evidence))
    body = [
        *(markup.alarm(*alarm) for alarm in [*first, *alarms]),
        head,
        markup.numbers([*_numbers(guarantee), *shown]),
        _guaranteed(guarantee) if guarantee else "",
        *(
            markup.section(section.title, _parts(section.parts, f"s{place}"))
            for place, section in enumerate(whole)
        ),
    ]
    if config_text is not None:
        body.append(markup.section("Configuration", markup.verbatim(config_text)))
    return markup.document(title, "\n".join(part for part in body if part))


def _alarms(guarantee: Guarantee) -> list[tuple[str, str]]:
    """What must be read before the guarantee."""
    if guarantee.insecure:
        subject = guarantee.insecure[0].upper() + guarantee.insecure[1:]
        text = (
            f"{subject} came from a known seed, so whoever knows the seed can take the"
            " noise away. Every statement below is about the same releases with secret"
            " randomness. Nothing of this may be published as private."
        )
        return [("Insecure seed: no privacy", text)]
    if not guarantee.certified:
        text = (
            "No accountant has proven an upper bound: the epsilon is infinite or an"
            " estimate."
        )
        return [("Not certified", text)]
    if not guarantee.finite:
        return [("No guarantee", "The epsilon is infinite.")]
    return []


def _numbers(guarantee: Guarantee | None) -> list[tuple[str, str, str]]:
    """Epsilon with its warrant, delta and the relation."""
    if guarantee is None:
        return []
    delta = number(guarantee.delta, side="up")
    relation = relation_in_short(guarantee.relation, guarantee.unit)
    return [
        ("epsilon", guarantee.value, guarantee.warrant),
        ("delta", delta, "added to every probability"),
        ("relation", guarantee.relation, relation),
    ]


def _guaranteed(guarantee: Guarantee) -> str:
    """The guarantee in words, the headline first."""
    title = "The guarantee"
    if guarantee.insecure:
        title = "The guarantee that secret randomness would have given"
    lead = guarantee.headline
    for sign in "=≤≈":
        lead = lead.replace(f" {sign} ", f"\N{NO-BREAK SPACE}{sign}\N{NO-BREAK SPACE}")
    lead = markup.lead(f"{lead[0].upper()}{lead[1:]}.")
    return markup.section(title, f"{lead}\n{markup.paragraphs(guarantee.sentences())}")


def _parts(parts: Sequence[Part], place: str) -> str:
    """Parts as HTML, neighbouring figures side by side; a place makes names unique."""
    lines = []
    for drawn, run in itertools.groupby(
        enumerate(parts), lambda pair: isinstance(pair[1], Figure | Map)
    ):
        texts = [_part(part, f"{place}p{at}") for at, part in run]
        inside = "\n".join(text for text in texts if text)
        lines.append(markup.side_by_side(inside) if drawn and inside else inside)
    return "\n".join(line for line in lines if line)


def _part(part: Part, place: str) -> str:
    """One part as HTML."""
    match part:
        case Text(points=True):
            return markup.listed(part.paragraphs)
        case Text():
            return markup.paragraphs(part.paragraphs)
        case Numbers():
            return markup.numbers(part.rows)
        case Table(heads=()):
            return markup.table(part.rows)
        case Table():
            return markup.grid(part.heads, part.rows, right=part.right)
        case Figure():
            drawing = chart(part.lines, part.axes, name=place, note=part.note)
            return markup.figure(drawing, part.caption) if drawing else ""
        case Map():
            drawing = heat(
                part.x, part.y, part.values, part.axes, name=place, note=part.note
            )
            return markup.figure(drawing, part.caption)
        case Folded():
            return markup.folded(part.line, _parts(part.parts, place))
    raise TypeError(
        f"part={type(part).__name__} must be Text, Table, Numbers, Figure or Folded:"
        " a report is made of typed parts, never of HTML"
    )
