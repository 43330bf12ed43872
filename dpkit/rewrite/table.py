"""What the rewrite does with every parameter, for people to read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from dpkit.rewrite.forms import PRODUCT, Form, choose
from dpkit.rewrite.program import Program


@dataclasses.dataclass(frozen=True)
class Row:
    """One parameter.

    Args:
      path: where it is in the tree of parameters.
      shape: its shape.
      sites: what it takes part in, by the names of JAX's primitives.
      form: "product", "whole", or "none" of a parameter that has no gradient.
      rows: positions of all its uses in one example.
      bytes: kept for its norm, an example.
      flops: spent on its norm beyond the ordinary step, an example.

    Example:
      >>> Row("w", (2, 3), ("dot_general",), "whole", 1, 24, 12).form
      'whole'
    """

    path: str
    shape: tuple[int, ...]
    sites: tuple[str, ...]
    form: str
    rows: int
    bytes: int
    flops: int


@dataclasses.dataclass(frozen=True)
class Table:
    """A row for every parameter; `str` of it is aligned text.

    Example:
      >>> table = Table((Row("w", (2, 3), ("dot_general",), "whole", 1, 24, 12),))
      >>> print(table)
      parameter  shape  sites        form   rows  bytes  flops
      w          2x3    dot_general  whole     1     24     12
      total                                           24     12
    """

    rows: tuple[Row, ...]

    def __iter__(self) -> Iterator[Row]:
        """The rows."""
        return iter(self.rows)

    def __len__(self) -> int:
        """How many parameters."""
        return len(self.rows)

    def __str__(self) -> str:
        """Aligned columns, with a line of totals."""
        lines: list[tuple[str, ...]] = [
            ("parameter", "shape", "sites", "form", "rows", "bytes", "flops")
        ]
        for row in self.rows:
            shape = "x".join(map(str, row.shape)) or "scalar"
            numbers = (f"{row.rows:,}", f"{row.bytes:,}", f"{row.flops:,}")
            lines.append((row.path, shape, _counted(row.sites), row.form, *numbers))
        totals = [f"{sum(getattr(r, k) for r in self.rows):,}" for k in _TOTALS]
        lines.append(("total", "", "", "", "", *totals))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(_aligned(line, widths) for line in lines)


_TOTALS = ("bytes", "flops")


def tabulate(program: Program, params: Any, kappa: float) -> Table:
    """The table of a program.

    Args:
      program: from `trace`.
      params: the parameters, or their shapes.
      kappa: as for `choose`.
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    forms = choose(program, len(leaves), kappa)
    return Table(
        tuple(
            _row(jax.tree_util.keystr(path, simple=True, separator="/"), leaf, form)
            for (path, leaf), form in zip(leaves, forms, strict=True)
        )
    )


def _row(path: str, leaf: Any, form: Form) -> Row:
    """The row of one parameter."""
    names = [use.factored.site.name for use in form.uses]
    names += [site.name for site in form.others]
    rows = sum(use.factored.size[0] * use.factored.size[1] for use in form.uses)
    size = int(np.prod(leaf.shape))
    if form.kind == PRODUCT:
        kept = flops = 0
        for use in form.uses:
            h, t, d, p = use.factored.size
            width = p if use.factored.lookup else d + p
            kept += 4 * h * t * width
            flops += 2 * h * t * width * (t if t > 1 else 1)
    else:
        kept, flops = 4 * size, 2 * size
    kind = form.kind if names else "none"
    if not names:
        kept = flops = 0
    return Row(path or "params", leaf.shape, tuple(names), kind, rows, kept, flops)


def _counted(names: tuple[str, ...]) -> str:
    """Names once each, with how often."""
    counts = {name: names.count(name) for name in names}
    return ", ".join(f"{n} x{k}" if k > 1 else n for n, k in counts.items()) or "-"


def _aligned(line: tuple[str, ...], widths: list[int]) -> str:
    """One line: words to the left, numbers to the right."""
    words = [cell.ljust(width) for cell, width in zip(line[:4], widths, strict=False)]
    numbers = [
        cell.rjust(width) for cell, width in zip(line[4:], widths[4:], strict=True)
    ]
    return "  ".join(words + numbers).rstrip()
