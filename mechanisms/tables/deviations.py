r"""How far marginals are from what is already known of them: scores of families.

dev_f = ||M_f - fixed_f||_1, `fixed` released earlier or public. By the triangle
inequality a row moves a score by at most 1, a replaced one by 2: less than where both
sides come from the data. `Selection` takes such scores; `Deviations` releases all of
them at once, as a Gaussian vector of sensitivity sqrt(m).

References are rounded to a public grid, so that scores are whole steps and these bounds
hold for what is computed, not only for real numbers.

Source: McKenna, Miklau, Sheldon, "Winning the NIST Contest", 2021, arXiv:2108.04978,
for the scores; releasing all of them at once is our own.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from dp_accounting import DpEvent, GaussianDpEvent

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.relations import Relation, as_relation
from dpkit.mechanisms.noise import host_generator
from dpkit.mechanisms.protocol import Key, static
from dpkit.mechanisms.tables.marginals import noise_size

_STEPS = 2**10  # of the grid in one count
_FAR = 2.0**40  # references beyond it might not fit 64 bits


def deviations(
    counts: Sequence[np.ndarray], references: Sequence[np.ndarray]
) -> np.ndarray:
    """||counts - reference||_1 of each family, in counts, float64: private.

    Privacy: whole multiples of 2^-10. One step of a count moves each by at most 1; a
    replaced one by at most 2.

    Args:
      counts: exact, integers, one array a family; private.
      references: public, each of the shape of its counts; rounded to 2^-10.

    Raises:
      TypeError: counts that are not integers.
      ValueError: another shape, or references that are not finite or beyond 2^40.

    Example:
      >>> deviations([np.array([3, 1])], [np.array([2.5, 2.5])])
      array([2.])
    """
    return _steps(counts, references) / _STEPS


@static
@dataclasses.dataclass(frozen=True, kw_only=True)
class Deviations:
    r"""The deviations of m families, all at once, with Gaussian noise.

    Privacy: a unit moves the vector by at most reach sqrt(m) in L2; a replaced one by
    twice that.

    Args:
      families: m, how many.
      stddev: of the noise on each, in counts.
      reach: the most steps that one unit adds to one family.

    Raises:
      ValueError, TypeError: a field out of range.

    Example:
      >>> import jax
      >>> scores = Deviations(families=4, stddev=20.0)
      >>> scores.event("add_remove")
      GaussianDpEvent(noise_multiplier=10.0)
      >>> total = scores.total([np.array([900, 100])] * 4, [np.array([500, 500])] * 4)
      >>> scores.privatize(jax.random.key(0), total).round(-2)
      array([800., 800., 800., 800.])
    """

    families: int
    stddev: float
    reach: int = 1

    draws_on_host: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuses what is no number."""
        checks.integer_at_least(1, families=self.families)
        checks.integer_at_least(1, reach=self.reach)
        noise_size(stddev=self.stddev)

    def event(self, relation: Relation | str) -> DpEvent:
        """The cost of the one release: a Gaussian."""
        as_relation(relation)
        return GaussianDpEvent(self.stddev / (self.reach * math.sqrt(self.families)))

    def total(
        self, counts: Sequence[np.ndarray], references: Sequence[np.ndarray]
    ) -> np.ndarray:
        """The deviations in whole steps of 2^-10, (m,) int64: private."""
        if len(counts) != self.families:
            raise ValueError(f"counts: {len(counts)}; needed {self.families}=families")
        return _steps(counts, references)

    def privatize(self, key: Key, total: Any) -> np.ndarray:
        """The deviations with noise, in counts, float64 (..., m).

        Args:
          key: used for this release alone.
          total: from `total`, int64 (..., m); each row is a release of its own.

        Raises:
          TypeError: a legacy key, a tracer, or a total of other numbers.
          ValueError: another number of families.
        """
        total = np.asarray(total)
        if total.dtype != np.int64:
            raise TypeError(f"total={total.dtype}: needed whole steps, int64")
        if total.shape[-1:] != (self.families,):
            raise ValueError(
                f"total of shape {total.shape}: needed families={self.families}"
            )
        noise = host_generator(key).standard_normal(total.shape)
        steps = np.rint(noise * (self.stddev * _STEPS)).astype(np.int64)
        return (total + steps) / _STEPS


def _steps(counts: Any, references: Any) -> np.ndarray:
    """Deviations in whole steps of the grid, (m,) int64."""
    if len(counts) != len(references):
        raise ValueError(
            f"references: {len(references)}; needed one for each of {len(counts)}"
        )
    pairs = enumerate(zip(counts, references, strict=True))
    return np.array([_apart(j, *pair) for j, pair in pairs], np.int64)


def _apart(number: int, counts: Any, reference: Any) -> int:
    """The L1 distance of one family's counts from its reference, in steps."""
    counts, reference = np.asarray(counts), np.asarray(reference, np.float64)
    if counts.dtype.kind not in "iu":
        raise TypeError(f"counts[{number}]={counts.dtype}: needed exact integers")
    if counts.shape != reference.shape:
        raise ValueError(
            f"references[{number}] of shape {reference.shape}: needed {counts.shape}"
        )
    if not (np.abs(reference) <= _FAR).all():
        raise ValueError(f"references[{number}]: needed finite numbers up to 2^40")
    known = np.rint(reference * _STEPS).astype(np.int64)
    return int(np.abs(counts.astype(np.int64) * _STEPS - known).sum())
