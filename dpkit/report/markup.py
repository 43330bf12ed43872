"""The HTML of a report: one file, without scripts or anything remote.

Every text that comes from elsewhere is escaped here, and the page forbids itself every
connection by a content policy.
"""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from dpkit.report.style import CSS
from dpkit.report.words import number

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def document(title: str, body: str) -> str:
    """A whole page.

    Args:
      title: plain text.
      body: HTML.

    Example:
      >>> document("A report", "").startswith("<!DOCTYPE html>")
      True
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def section(title: str, inside: str) -> str:
    """A section with its heading; `inside` is HTML.

    Example:
      >>> section("A & B", "<p>c</p>")
      '<section>\\n<h2>A &amp; B</h2>\\n<p>c</p>\\n</section>'
    """
    return f"<section>\n<h2>{escape(title)}</h2>\n{inside}\n</section>"


def paragraphs(texts: Iterable[str]) -> str:
    """Plain texts as paragraphs.

    Example:
      >>> paragraphs(["a < b"])
      '<p>a &lt; b</p>'
    """
    return "\n".join(f"<p>{escape(text)}</p>" for text in texts)


def listed(texts: Iterable[str]) -> str:
    """Plain texts as a list.

    Example:
      >>> listed(["a"])
      '<ul>\\n<li>a</li>\\n</ul>'
    """
    rows = "\n".join(f"<li>{escape(text)}</li>" for text in texts)
    return f"<ul>\n{rows}\n</ul>"


def alarm(title: str, text: str) -> str:
    """What must be read first.

    Example:
      >>> "<strong>Stop</strong>" in alarm("Stop", "now")
      True
    """
    return (
        f'<div class="alarm" role="alert"><strong>{escape(title)}</strong>'
        f"<p>{escape(text)}</p></div>"
    )


def numbers(rows: Iterable[tuple[str, str, str]]) -> str:
    """The numbers that people look for first: a name, a value, a remark each.

    Example:
      >>> "<dt>delta</dt><dd>1e-5" in numbers([("delta", "1e-5", "")])
      True
    """
    cells = "\n".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}"
        f"<small>{escape(note)}</small></dd></div>"
        for name, value, note in rows
    )
    return f'<dl class="facts">\n{cells}\n</dl>'


def header(kind: str, title: str, dates: Iterable[str] = ()) -> str:
    """What stands above everything else: a kind, a title, dates.

    Example:
      >>> "<h1>A &amp; B</h1>" in header("Report", "A & B")
      True
    """
    return (
        f'<header>\n<p class="kicker">{escape(kind)}</p>\n<h1>{escape(title)}</h1>\n'
        f'<p class="dateline">{escape(" · ".join(dates))}</p>\n</header>'
    )


def lead(text: str) -> str:
    """The first sentence of a section, set larger.

    Example:
      >>> lead("a < b")
      '<p class="lead">a &lt; b</p>'
    """
    return f'<p class="lead">{escape(text)}</p>'


def verbatim(text: str) -> str:
    """A text as it was written, line by line.

    Example:
      >>> verbatim("a < b")
      '<pre>a &lt; b</pre>'
    """
    return f"<pre>{escape(text)}</pre>"


def folded(line: str, inside: str) -> str:
    """HTML behind a line that opens it.

    Example:
      >>> folded("More", "<p>b</p>")
      '<details><summary>More</summary>\\n<p>b</p></details>'
    """
    return f"<details><summary>{escape(line)}</summary>\n{inside}</details>"


def figure(drawing: str, caption: str) -> str:
    """A drawing (an SVG element) with its caption.

    Example:
      >>> "<figcaption>a &lt; b</figcaption>" in figure("<svg/>", "a < b")
      True
    """
    return f"<figure>\n{drawing}\n<figcaption>{escape(caption)}</figcaption>\n</figure>"


def side_by_side(figures: str) -> str:
    """Figures beside each other where there is room.

    Example:
      >>> side_by_side("<figure/>")
      '<div class="curves">\\n<figure/>\\n</div>'
    """
    return f'<div class="curves">\n{figures}\n</div>'


def table(rows: Iterable[Sequence[Any]]) -> str:
    """Names and values, one pair a row.

    Example:
      >>> "<td>1,000</td>" in table([("steps", 1000)])
      True
    """
    lines = "\n".join(
        f'<tr><th scope="row">{escape(_text(name))}</th>{_cell(value)}</tr>'
        for name, value in rows
    )
    return f'<div class="scroll"><table><tbody>\n{lines}\n</tbody></table></div>'


def grid(
    heads: Sequence[str], rows: Iterable[Sequence[Any]], *, right: bool = False
) -> str:
    """A table with headings, its cells flush left or right.

    Example:
      >>> '<th scope="col">a</th>' in grid(["a"], [["1"]])
      True
    """
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    lines = "\n".join(
        "<tr>" + "".join(_cell(cell) for cell in row) + "</tr>" for row in rows
    )
    return (
        f'<div class="scroll"><table class="{"right" if right else "grid"}">'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{lines}\n</tbody></table></div>"
    )


def _cell(value: Any) -> str:
    """A cell; long unbroken texts (hashes) are set in a narrow fixed pitch."""
    text = _text(value)
    kind = ' class="hash"' if len(text) >= 40 and " " not in text else ""
    return f"<td{kind}>{escape(text)}</td>"


def _text(value: Any) -> str:
    """A value as text: numbers short, nothing for None, the rest as it is."""
    if value is None:
        return ""
    if isinstance(value, float):
        return number(value, digits=8)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)
