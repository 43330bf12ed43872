"""Reports: one HTML file that states a guarantee, and the same facts as JSON.

`render` sets the frame that reports of runs, ledgers and audits share: the guarantee,
the sections of whoever makes the report, what is not covered, the evidence, the
configuration. It takes typed parts (`Section`, `Text`, `Table`, `Numbers`, `Figure`,
`Folded`), escapes every text and computes nothing. `Guarantee` words an epsilon with
its warrant, for pages and commands alike. `of_ledger` and `of_run` gather the facts of
an account, and `render_account` sets them in the frame.
"""

from dpkit.report.account import of_ledger, of_run
from dpkit.report.guarantee import Guarantee, not_covered, stated
from dpkit.report.plots import Axes, Line
from dpkit.report.sections import (
    Figure,
    Folded,
    Map,
    Numbers,
    Section,
    Table,
    Text,
    render,
)
from dpkit.report.statement import render_account

__all__ = [
    "Axes",
    "Figure",
    "Folded",
    "Guarantee",
    "Line",
    "Map",
    "Numbers",
    "Section",
    "Table",
    "Text",
    "not_covered",
    "of_ledger",
    "of_run",
    "render",
    "render_account",
    "stated",
]
