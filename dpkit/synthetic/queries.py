"""Families of counts by name, made of the schema alone: public."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from dpkit.synthetic.engine import HalfSpace, Marginal, Prefix

if TYPE_CHECKING:
    from dpkit.data.codes import Codebook

FAMILIES = ("pairs", "triples", "ranges", "prefixes", "halfspaces")


def families_of(kind: str, codebook: Codebook, count: int, seed: int = 0) -> list[Any]:
    """Families of the kind that `GSD` names.

    Args:
      kind: one of `FAMILIES`.
      codebook: public.
      count: of random families.
      seed: of these; public.

    Raises:
      ValueError: random ones of a schema without ordered columns, or without others.

    Example:
      >>> from dpkit.data.codes import Codebook
      >>> from dpkit.data.schema import Schema
      >>> book = Codebook.of(Schema.read({"old": {"kind": "boolean"},
      ...     "age": {"kind": "ordinal", "low": 0, "high": 7}}))
      >>> [family.shape for family in families_of("ranges", book, 1)]
      [(2, 8), (2, 4), (2, 2)]
    """
    sizes = tuple(codebook.sizes)
    wide = [n for n, size in enumerate(sizes) if size > 1]
    if kind in ("pairs", "triples"):
        sets = itertools.combinations(wide, 2 if kind == "pairs" else 3)
        return [Marginal(columns, sizes) for columns in sets]
    ordered = [n for n in wide if codebook.ordered[n]]
    others = [n for n in wide if not codebook.ordered[n]]
    if not ordered or not others:
        raise ValueError(
            f"families={kind!r}: needed an ordered column and another in the schema; "
            "take 'pairs'"
        )
    if kind == "ranges":
        return [
            Marginal((other, n), sizes, (None, level))
            for other, n in itertools.product(others, ordered)
            for level in (None, *codebook.levels(codebook.names[n]))
        ]
    generator = np.random.default_rng([seed, 5])
    middles = tuple((np.arange(sizes[n]) + 0.5) / sizes[n] for n in ordered)
    return [
        _region(kind, tuple(ordered), middles, others, sizes, generator)
        for _ in range(count)
    ]


def _region(
    kind: str,
    columns: tuple[int, ...],
    middles: tuple[np.ndarray, ...],
    others: list[int],
    sizes: tuple[int, ...],
    generator: np.random.Generator,
) -> Any:
    """A random prefix or half-space, as in Liu et al., arXiv:2306.03257."""
    cells = Marginal((int(generator.choice(others)),), sizes)
    if kind == "prefixes":
        return Prefix(columns, middles, cells, generator.random(len(columns)))
    direction = generator.standard_normal(len(columns)) / np.sqrt(len(columns))
    offset = float(generator.standard_normal())
    return HalfSpace(columns, middles, cells, direction, offset)
