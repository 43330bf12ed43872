"""Reports: one HTML file that states a guarantee, and the same facts as JSON.

`render` is the page of a training run; it computes nothing. `of_ledger` and `of_run`
gather the facts of an account, and `render_account` sets them.
"""

from dpkit.report.account import of_ledger, of_run
from dpkit.report.page import render
from dpkit.report.statement import render_account

__all__ = ["of_ledger", "of_run", "render", "render_account"]
