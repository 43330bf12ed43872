"""Attacks on a synthetic table, each beside a control: for the owner alone.

Three are the questions of European data protection: can somebody be singled out, two
halves of a record be linked, a value be inferred? Each is tried on people in the table
and on people who are not; only the difference tells of the table. Distances to the
closest record are told as well, for many ask for them: one half proves nothing, since a
table may leak by what is not a distance. No attack bounds what another could do; the
ledger does.

Source: Giomi, Boenisch, Wehmeyer, Tasnadi, "A Unified Framework for Quantifying Privacy
Risk in Synthetic Data", 2022, arXiv:2211.10459, for the three attacks and controls.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dpkit.data.codes import Codebook

_TARGETS = 500  # of each attack
_COLUMNS = 3  # of a predicate
_TRIES = 40  # for each predicate wanted
_Z = 1.959963984540054  # of a 95 % interval


@dataclasses.dataclass(frozen=True)
class Rate:
    """How often an attack succeeds on members, and on others.

    Args:
      members, control: shares of success.
      low, high: of the excess, (members - control) / (1 - control), a 95 % interval by
        Wilson's for both shares.

    Example:
      >>> Rate.of(30, 100, 30, 100).excess
      0.0
    """

    members: float
    control: float
    low: float
    high: float

    @classmethod
    def of(
        cls, hits: float, tried: int, others: float, control: int, scale: float = 1.0
    ) -> Rate:
        """The rate from successes among those tried; the control's share is scaled."""
        if not tried or not control:
            return cls(0.0, 0.0, 0.0, 0.0)
        first = wilson(hits, tried)
        lowest, highest = (min(1.0, scale * x) for x in wilson(others, control))
        low = max(0.0, first[0] - highest) / max(1 - highest, 1e-9)
        high = max(0.0, first[1] - lowest) / max(1 - lowest, 1e-9)
        share = min(1.0, scale * others / control)
        return cls(hits / tried, share, min(low, 1.0), min(high, 1.0))

    @property
    def excess(self) -> float:
        """How much more often members are hit."""
        return max(0.0, self.members - self.control) / max(1 - self.control, 1e-9)


def wilson(hits: float, tried: int) -> tuple[float, float]:
    """A 95 % interval of a share.

    Example:
      >>> [round(x, 4) for x in wilson(0, 10)]
      [0.0, 0.2775]

    Reference: Wilson, "Probable inference, the law of succession, and statistical
    inference", 1927.
    """
    share, square = hits / tried, _Z**2
    middle = (share + square / (2 * tried)) / (1 + square / tried)
    half = _Z / (1 + square / tried)
    half *= math.sqrt(share * (1 - share) / tried + square / (4 * tried**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def attacked(
    train: np.ndarray,
    synthetic: np.ndarray,
    held_out: np.ndarray,
    codebook: Codebook,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """All attacks, JSON values by name.

    Args:
      train: codes of the real rows; held_out: of others.
      synthetic: codes of the made-up rows.
      codebook: says which columns are in order.
      seed: of the targets.
    """
    generator = np.random.default_rng(seed)
    count = min(len(train), len(held_out))
    members = train[generator.permutation(len(train))[:count]]
    others = held_out[generator.permutation(len(held_out))[:count]]
    scales = _scales(codebook)
    found: dict[str, Any] = {
        "nearer_to_train": nearer(synthetic, members, others, scales, generator),
        "exact_matches": _share_in(synthetic, train),
        "exact_matches_held_out": _share_in(held_out, train),
        "membership_auc": membership(members, others, synthetic, scales),
    }
    rates = {
        "singling_out": singled_out(train, held_out, synthetic, generator),
        "linkability": linked(members, others, synthetic, scales, generator),
        "inference": inferred(members, others, synthetic, scales, generator),
    }
    for name, rate in rates.items():
        for part in ("members", "control", "low", "high"):
            found[f"{name}_{part}"] = getattr(rate, part)
    return found


def singled_out(
    train: np.ndarray,
    held_out: np.ndarray,
    synthetic: np.ndarray,
    generator: np.random.Generator,
) -> Rate:
    """Predicates that hold for one synthetic row alone: for one real one, too?

    They are tried on the whole table: of a part of it, rows that were singled out would
    be missing. Tables of two sizes are isolated differently often, so both are compared
    at the smaller one, in expectation over subsets, and the control is scaled by what
    the whole table makes of its part.
    """
    counts = []
    width = min(_COLUMNS, synthetic.shape[1])
    for _ in range(_TRIES * _TARGETS):
        if len(counts) == _TARGETS:
            break
        columns = generator.choice(synthetic.shape[1], width, replace=False)
        wanted = synthetic[generator.integers(len(synthetic)), columns]
        tables = (synthetic, train, held_out)
        made, *found = ((t[:, columns] == wanted).all(axis=1).sum() for t in tables)
        if made == 1:
            counts.append(found)
    if not counts:
        return Rate(0.0, 0.0, 0.0, 0.0)
    ours, others = np.array(counts).T
    size = min(len(train), len(held_out))
    hits, control = float((ours == 1).sum()), _alone(others, len(held_out), size)
    part = _alone(ours, len(train), size)
    scale = hits / part if part else 1.0
    return Rate.of(hits, len(counts), control, len(counts), scale=scale)


def _alone(counts: np.ndarray, rows: int, size: int) -> float:
    """How many predicates are expected to hold for one row alone, in `size` rows.

    Args:
      counts: for how many of all rows each holds.
      rows: how many there are.
      size: of a subset drawn from them.
    """
    from scipy.stats import hypergeom

    return float(hypergeom.pmf(1, rows, counts, size).sum())


def linked(
    members: np.ndarray,
    others: np.ndarray,
    synthetic: np.ndarray,
    scales: np.ndarray,
    generator: np.random.Generator,
) -> Rate:
    """Halves of a record: is one synthetic row the nearest to both?"""
    order = generator.permutation(synthetic.shape[1])
    halves = order[: len(order) // 2], order[len(order) // 2 :]
    if not len(halves[0]):
        return Rate(0.0, 0.0, 0.0, 0.0)

    def successes(targets: np.ndarray) -> int:
        """Targets whose halves meet in one row."""
        first, second = (
            _nearest(targets[:, half], synthetic[:, half], scales[half])[0]
            for half in halves
        )
        return int((first == second).sum())

    some, control = members[:_TARGETS], others[:_TARGETS]
    return Rate.of(successes(some), len(some), successes(control), len(control))


def inferred(
    members: np.ndarray,
    others: np.ndarray,
    synthetic: np.ndarray,
    scales: np.ndarray,
    generator: np.random.Generator,
) -> Rate:
    """All columns but one are known: has the nearest row the right value there?"""
    columns = synthetic.shape[1]
    if columns < 2:
        return Rate(0.0, 0.0, 0.0, 0.0)
    secrets = generator.integers(0, columns, _TARGETS)

    def successes(targets: np.ndarray) -> int:
        """Targets whose secret is guessed."""
        right = 0
        for secret in range(columns):
            mine = targets[secrets[: len(targets)] == secret]
            known = np.delete(np.arange(columns), secret)
            if len(mine):
                found, _ = _nearest(mine[:, known], synthetic[:, known], scales[known])
                right += int((synthetic[found, secret] == mine[:, secret]).sum())
        return right

    some, control = members[:_TARGETS], others[:_TARGETS]
    return Rate.of(successes(some), len(some), successes(control), len(control))


def nearer(
    synthetic: np.ndarray,
    members: np.ndarray,
    others: np.ndarray,
    scales: np.ndarray,
    generator: np.random.Generator,
) -> float:
    """Share of synthetic rows that are nearer to a member than to another; ties 1/2."""
    some = synthetic[generator.permutation(len(synthetic))[:_TARGETS]]
    (_, to_members), (_, to_others) = (
        _nearest(some, rows, scales) for rows in (members, others)
    )
    return float(((to_members < to_others) + 0.5 * (to_members == to_others)).mean())


def membership(
    members: np.ndarray, others: np.ndarray, synthetic: np.ndarray, scales: np.ndarray
) -> float:
    """AUC of being near to a synthetic row, as a sign of having been in the table."""
    near, far = (
        -_nearest(rows[: 2 * _TARGETS], synthetic, scales)[1]
        for rows in (members, others)
    )
    above = (near[:, None] > far[None]).mean() + (near[:, None] == far[None]).mean() / 2
    return float(above)


def _nearest(
    targets: np.ndarray, rows: np.ndarray, scales: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each target the number of the nearest row, and how far it is."""
    found, distance = np.zeros(len(targets), int), np.zeros(len(targets))
    for n, target in enumerate(targets):
        apart = np.zeros(len(rows))
        for column, scale in enumerate(scales):
            moved = rows[:, column] - target[column]
            apart += np.abs(moved) * scale if scale else moved != 0
        found[n] = apart.argmin()
        distance[n] = apart[found[n]]
    return found, distance


def _scales(codebook: Codebook) -> np.ndarray:
    """Of each column one over its range, if it is in order; else 0: equal or not."""
    parts: Sequence[float] = [
        1 / max(size - 1, 1) if ordered else 0.0
        for size, ordered in zip(codebook.sizes, codebook.ordered, strict=True)
    ]
    return np.array(parts)


def _share_in(rows: np.ndarray, others: np.ndarray) -> float:
    """Share of rows that are among others, column by column."""
    known = {row.tobytes() for row in np.ascontiguousarray(others, np.int64)}
    mine = np.ascontiguousarray(rows, np.int64)
    return float(np.mean([row.tobytes() in known for row in mine]))
