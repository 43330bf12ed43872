"""Rows under conditions: what the released pairs say of the others.

Post-processing. A condition on some columns changes the shares of all others as the
pairs with those columns say, each condition by itself; pairs of the others keep their
structure and take the new shares (iterative proportional fitting). Then rows are
searched for as ever, with the conditioned columns held.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from dpkit.data.codes import Codebook
from dpkit.synthetic.engine import Target, search
from dpkit.synthetic.recipe import Fitted
from dpkit.synthetic.start import edge_table

Allowed = Mapping[int, np.ndarray]


def matching(codebook: Codebook, where: Mapping[str, Any]) -> dict[int, np.ndarray]:
    """The codes that conditions allow, by number of column.

    Args:
      codebook: public.
      where: one value, or a list of values, by name of column.

    Raises:
      ValueError: a name or value outside the schema.
    """
    allowed = {}
    for name, values in where.items():
        listed = values if isinstance(values, list | tuple | set) else [values]
        if not listed:
            raise ValueError(f"where: {name!r} has no value to be met")
        codes = sorted({codebook.code(name, value) for value in listed})
        allowed[codebook.names.index(name)] = np.array(codes)
    return allowed


def conditional(
    codebook: Codebook,
    fitted: Fitted,
    allowed: Allowed,
    size: int,
    seed: int,
    generator: np.random.Generator,
) -> np.ndarray:
    """Rows that meet conditions few rows of a model meet, or none.

    Args:
      codebook: public.
      fitted: the model's.
      allowed: codes, by number of column.
      size: how many rows.
      seed: of the search.
      generator: of the draw.

    Returns:
      Codes, (size, d).
    """
    shares = _shares(codebook, fitted, allowed)
    start = np.stack(
        [generator.choice(len(share), size, p=share) for share in shares], axis=1
    )
    targets = [Target((n,), share) for n, share in enumerate(shares)]
    for target in fitted.targets:
        if len(target.columns) == 2 and not set(target.columns) & set(allowed):
            a, b = target.columns
            values = edge_table(target.values, shares[a], shares[b])
            weight = target.weight if np.isfinite(target.weight) else 1.0
            targets.append(dataclasses.replace(target, values=values, weight=weight))
    held = np.isin(np.arange(len(shares)), list(allowed))
    return search(
        start.astype(np.int32),
        codebook.sizes,
        targets,
        seed=seed,
        forbidden=codebook.forbidden,
        frozen=held,
    ).rows


def _shares(codebook: Codebook, fitted: Fitted, allowed: Allowed) -> list[np.ndarray]:
    """The columns' shares under the conditions."""
    rows = fitted.rows
    shares = []
    for n, size in enumerate(codebook.sizes):
        counts = np.bincount(rows[:, n], minlength=size) + 0.5 / size
        shares.append(counts / counts.sum())
    tables = {target.columns: target.values for target in fitted.targets}
    for column, codes in allowed.items():
        kept = np.zeros(codebook.sizes[column])
        kept[codes] = shares[column][codes]
        shares[column] = kept / kept.sum()
    changed = list(shares)
    for n in range(len(shares)):
        if n in allowed:
            continue
        for column in allowed:
            pair = tables.get((min(n, column), max(n, column)))
            if pair is None:
                continue
            table = pair if n < column else pair.T  # (n, column)
            given = np.maximum(table, 0) @ (shares[column] > 0)
            given = (given + 1e-3 * shares[n]) / (given.sum() + 1e-3)
            changed[n] = changed[n] * given / np.maximum(shares[n], 1e-12)
        changed[n] = changed[n] / changed[n].sum()
    return changed
