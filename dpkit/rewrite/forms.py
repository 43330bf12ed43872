"""Which form every parameter's norm takes, and what it costs.

Two exact forms: *product*, for parameters all of whose sites factor in one common
layout, and *whole*, the gradient of every example itself, by a matrix product where a
site factors and by the site's own derivative where it doesn't. Per example a product
keeps T (D + P) numbers and costs 2 T^2 (D + P) operations more than the ordinary step;
whole gradients keep D P numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from dpkit.rewrite.factors import Factored, factored
from dpkit.rewrite.program import Kind, Program, Site, Value
from dpkit.rewrite.selections import numbering

PRODUCT, WHOLE = "product", "whole"


@dataclasses.dataclass(frozen=True, eq=False)
class Use:
    """One factored site of a parameter, turned into the parameter's common layout.

    Args:
      factored: the site.
      swapped: whether A and G change places.
    """

    factored: Factored
    swapped: bool = False

    @property
    def width(self) -> tuple[int, int]:
        """D and P in the common layout."""
        _, _, d, p = self.factored.size
        return (p, d) if self.swapped else (d, p)


@dataclasses.dataclass(frozen=True, eq=False)
class Form:
    """How one parameter's norm is taken.

    Args:
      leaf: the parameter's number.
      kind: "product" or "whole".
      uses: its factored sites.
      others: its sites that don't factor, for "whole" only.
    """

    leaf: int
    kind: str
    uses: tuple[Use, ...]
    others: tuple[Site, ...]


def choose(program: Program, num_leaves: int, kappa: float) -> list[Form]:
    """A form for every parameter.

    Args:
      program: the traced loss.
      num_leaves: how many of its inputs are parameters.
      kappa: whole gradients are taken where they hold at most kappa times as many
        numbers as the rows do; 1 needs the least memory, more can be faster.

    Returns:
      One form a parameter, in order; a parameter without a site has no gradient.
    """
    leaves = {value: i for i, value in enumerate(program.inputs[:num_leaves])}
    sites_of: list[list[Site]] = [[] for _ in leaves]
    for site in program.sites():
        for value in ancestors(site):
            if value in leaves:
                sites_of[leaves[value]].append(site)
    ways = {site: factored(site, leaves) for site in program.sites()}
    return [
        _form(i, program.inputs[i].aval.shape, sites, ways, kappa)
        for i, sites in enumerate(sites_of)
    ]


def ancestors(site: Site) -> list[Value]:
    """The program's inputs that a site's parameters come from."""
    found: dict[Value, None] = {}
    stack, seen = list(site.inputs), set()
    while stack:
        value = stack.pop()
        if value.kind is not Kind.PARAM or value in seen:
            continue
        seen.add(value)
        if value.producer is not None:
            stack.extend(value.producer.inputs)
        elif value.outer is not None:
            stack.append(value.outer)
        else:
            found[value] = None
    return list(found)


def _form(
    leaf: int, shape: Any, sites: Sequence[Site], ways: Any, kappa: float
) -> Form:
    """The form of one parameter."""
    known = [ways[site] for site in sites]
    uses = [way for way in known if way is not None]
    others = tuple(site for site, way in zip(sites, known, strict=True) if way is None)
    aligned = None if others or not uses else _aligned(uses, shape)
    if aligned is not None:
        h, _, d, p = uses[0].size
        rows = sum(h * use.size[1] * _row(use) for use in uses)
        if h * d * p > kappa * rows:
            return Form(leaf, PRODUCT, aligned, ())
    return Form(leaf, WHOLE, tuple(Use(way) for way in uses), others)


def _row(use: Factored) -> int:
    """Numbers that one row keeps."""
    _, _, d, p = use.size
    return p if use.lookup else d + p


def _aligned(uses: Sequence[Factored], shape: Any) -> tuple[Use, ...] | None:
    """The uses in the layout of the first; None if their entries don't match."""
    if len(uses) == 1:
        return (Use(uses[0]),)
    first, *rest = (numbering(use.blocks, shape) for use in uses)
    turned = [Use(uses[0])]
    for use, numbers in zip(uses[1:], rest, strict=True):
        if np.array_equal(numbers, first):
            turned.append(Use(use))
        elif np.array_equal(numbers.swapaxes(1, 2), first):
            turned.append(Use(use, swapped=True))
        else:
            return None
    return tuple(turned)
