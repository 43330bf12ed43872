"""Norms of per-example gradients of any JAX loss, without the gradients themselves.

`trace` finds every place where a parameter meets data, `choose` picks an exact form for
every parameter, `clipped_sum` computes, `tabulate` explains. `docs/rewrite.md` has the
idea with a picture.
"""

from dpkit.rewrite.clipping import clipped_sum
from dpkit.rewrite.forms import choose
from dpkit.rewrite.program import Program, trace
from dpkit.rewrite.table import Table, tabulate
from dpkit.rewrite.twice import Twice, clipped_sum_twice

__all__ = [
    "Program",
    "Table",
    "Twice",
    "choose",
    "clipped_sum",
    "clipped_sum_twice",
    "tabulate",
    "trace",
]
