r"""Noisy counts of several families of cells, released together.

A family is a set of columns: a row falls into the cell of its codes there, into one
cell of each family. So one row more moves the stacked counts by one in each of k
families; another row in its place moves one count down and one up in each. With noise
of deviation s_c on every cell of family c, measured in their own noise these are

    add or remove    sqrt(sum of 1 / s_c^2)            replace    sqrt(2) times that,

for Gaussian noise, and for Laplace noise of scale b_c the sum of 1 / b_c, and twice
that. A unit that adds up to `reach` to each family moves them `reach` times as far.

Counts are whole numbers, and noise is drawn in float64 on the host and rounded to a
public grid finer than it, as for every sum of ours (`density.grid_noise`): the last
bits of what is published tell nothing of the counts.

Source: Dwork, McSherry, Nissim, Smith, "Calibrating Noise to Sensitivity in Private
Data Analysis", 2006; composition of Gaussians: Dong, Roth, Su, 2019, arXiv:1905.02383.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from dp_accounting import DpEvent, GaussianDpEvent

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.relations import Relation, as_relation
from dpkit.accountants.events.own import PureDpEvent
from dpkit.mechanisms import _check
from dpkit.mechanisms.noise import host_generator
from dpkit.mechanisms.protocol import BoundedSum, Key, PyTree

_FINER = 2**10  # steps of the grid in the smallest noise, at least
_MOST = 2.0**52  # steps that the largest noise may have: what float64 holds exactly
_ROWS = 2**16


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Families(BoundedSum):
    """What both kinds of noise share."""

    families: tuple[tuple[int, ...], ...]
    sizes: tuple[int, ...]
    reach: int = 1

    draws_on_host: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuses families that are none."""
        checks.integer_at_least(1, reach=self.reach)
        if not self.families:
            raise ValueError("families is empty: needed at least one")
        for size in self.sizes:
            checks.integer_at_least(1, sizes=size)
        for family in self.families:
            inside = all(0 <= n < len(self.sizes) for n in family)
            if not family or len(set(family)) < len(family) or not inside:
                raise ValueError(
                    f"families has {family!r}: needed distinct columns from 0 to "
                    f"{len(self.sizes) - 1}"
                )
        if len(self._scales) != len(self.families):
            raise ValueError(
                f"{len(self._scales)} scales of noise for {len(self.families)} families"
            )
        for scale in self._scales:
            checks.positive(noise=scale)
        if max(self._scales) > _MOST * self.step:
            raise ValueError(
                f"noise={max(self._scales):.3g}: needed at most {_MOST * self.step:.3g}"
            )

    @property
    def _scales(self) -> tuple[float, ...]:
        """The size of the noise, a family."""
        raise NotImplementedError

    @functools.cached_property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of each family's table."""
        return tuple(tuple(self.sizes[n] for n in family) for family in self.families)

    @functools.cached_property
    def offsets(self) -> tuple[int, ...]:
        """Where each table begins, and where the last one ends."""
        sizes = [math.prod(shape) for shape in self.shapes]
        return tuple(int(at) for at in np.cumsum([0, *sizes]))

    @property
    def size(self) -> int:
        """How many counts are published."""
        return self.offsets[-1]

    @functools.cached_property
    def step(self) -> float:
        """The grid of what is published; a power of two, at most one count."""
        finest = math.floor(math.log2(min(self._scales)))
        return min(1.0, 2.0**finest / _FINER)

    def contribute(self, key: Key, record: PyTree) -> jax.Array:
        """The cells of one row, (size,) int32: a one in each family.

        Args:
          key: not used.
          record: codes (d,). A code outside its column counts in no cell.
        """
        del key
        codes = jnp.asarray(record)
        parts = []
        for family, shape in zip(self.families, self.shapes, strict=True):
            inside, cell = jnp.bool_(True), jnp.int32(0)
            for n, size in zip(family, shape, strict=True):
                inside &= (codes[n] >= 0) & (codes[n] < size)
                cell = cell * size + jnp.clip(codes[n], 0, size - 1)
            cells = jnp.arange(math.prod(shape)) == cell
            parts.append((cells & inside).astype(jnp.int32))
        return jnp.concatenate(parts)

    def total(self, codes: Any) -> np.ndarray:
        """The exact counts, (size,) int64: private.

        Args:
          codes: whole numbers (n, d).

        Raises:
          TypeError: other than whole numbers.
          ValueError: another number of columns.
        """
        codes = np.asarray(codes)
        if codes.dtype.kind not in "iu":
            raise TypeError(f"codes={codes.dtype}: needed whole numbers")
        if codes.ndim != 2 or codes.shape[1] != len(self.sizes):
            raise ValueError(
                f"codes of shape {codes.shape}: needed (n, {len(self.sizes)})"
            )
        total = np.zeros(self.size, np.int64)
        for begin in range(0, len(codes), _ROWS):
            some = codes[begin : begin + _ROWS].astype(np.int64)
            for n, (family, shape) in enumerate(
                zip(self.families, self.shapes, strict=True)
            ):
                part = total[self.offsets[n] : self.offsets[n + 1]]
                part += _counted(some[:, family], shape)
        return total

    def privatize(self, key: Key, total: Any) -> np.ndarray:
        """Counts with noise, on the grid, float64 (..., size).

        Args:
          key: used for this release alone.
          total: whole numbers as int64, (..., size); private. Each row along the last
            axis is a release of its own.

        Raises:
          TypeError: a legacy key, a tracer, or a total of other numbers.
          ValueError: another size.
        """
        total = np.asarray(total)
        if total.dtype != np.int64:
            raise TypeError(f"total={total.dtype}: needed int64")
        if total.shape[-1:] != (self.size,):
            raise ValueError(
                f"total of shape {total.shape}: needed {self.size} entries"
            )
        steps = self._noise(host_generator(key), total.shape)
        whole = round(1 / self.step)
        return (total * whole + steps) * self.step

    def _noise(
        self, generator: np.random.Generator, shape: tuple[int, ...]
    ) -> np.ndarray:
        """Noise in whole steps of the grid, int64."""
        raise NotImplementedError

    def __call__(self, key: Key, records: PyTree) -> np.ndarray:
        """Release: counts of all rows, with noise."""
        _check.typed_key(key)
        return self.privatize(jax.random.split(key)[1], self.total(records))

    def split(self, values: np.ndarray) -> list[np.ndarray]:
        """What was published as tables, one a family."""
        bounds = zip(self.offsets, self.offsets[1:], self.shapes, strict=False)
        return [values[low:high].reshape(shape) for low, high, shape in bounds]

    def _each_cell(self, scales: Sequence[float]) -> np.ndarray:
        """The scale of every cell."""
        return np.repeat(scales, [math.prod(shape) for shape in self.shapes])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Marginals(_Families):
    """Counts with Gaussian noise.

    Privacy: one unit is hidden by a Gaussian whose noise multiplier is 1 / (reach *
    sqrt(sum of 1 / stddevs^2)); under replace_one sqrt(2) times as large, for the sum
    moves by sqrt(2) times as far, where accountants expect twice.

    Args:
      families: columns, by number; a table is released for each.
      sizes: how many codes each column has.
      stddevs: of the noise of a cell, one a family, in what is counted.
      reach: the most that one unit adds to the cells of any one family.

    Raises:
      ValueError: a number out of range; families that are none.

    Example:
      >>> pair = Marginals(families=((0,), (0, 1)), sizes=(2, 3), stddevs=(4.0, 3.0))
      >>> pair.event("add_remove"), pair.size
      (GaussianDpEvent(noise_multiplier=2.4), 8)
      >>> tables = pair.split(pair(jax.random.key(0), np.zeros((50, 2), int)))
      >>> [table.shape for table in tables]
      [(2,), (2, 3)]
    """

    stddevs: tuple[float, ...]

    @property
    def _scales(self) -> tuple[float, ...]:
        return self.stddevs

    def event(self, relation: Relation | str) -> DpEvent:
        """A Gaussian."""
        apart = math.sqrt(2) if as_relation(relation) is Relation.REPLACE_ONE else 1.0
        moved = self.reach * math.hypot(*(1 / one for one in self.stddevs))
        return GaussianDpEvent(apart / moved)

    def _noise(
        self, generator: np.random.Generator, shape: tuple[int, ...]
    ) -> np.ndarray:
        """Independent Gaussians, rounded."""
        steps = self._each_cell(self.stddevs) / self.step
        return np.rint(generator.standard_normal(shape) * steps).astype(np.int64)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PureMarginals(_Families):
    """Counts with discrete Laplace noise, P(k steps) ~ exp(-abs(k) step / scale).

    Privacy: pure, epsilon = reach * sum of 1 / scales; twice that under replace_one.

    Args:
      families, sizes, reach: as for `Marginals`.
      scales: of the noise of a cell, one a family, in what is counted.

    Example:
      >>> PureMarginals(families=((0,),), sizes=(2,), scales=(2.0,)).event("add_remove")
      PureDpEvent(epsilon=0.5)

    Reference: Ghosh, Roughgarden, Sundararajan, "Universally Utility-Maximizing Privacy
    Mechanisms", 2009, arXiv:0811.2841.
    """

    scales: tuple[float, ...]

    @property
    def _scales(self) -> tuple[float, ...]:
        return self.scales

    def event(self, relation: Relation | str) -> DpEvent:
        """Pure epsilon."""
        apart = 2 if as_relation(relation) is Relation.REPLACE_ONE else 1
        return PureDpEvent(apart * self.reach * sum(1 / one for one in self.scales))

    def _noise(
        self, generator: np.random.Generator, shape: tuple[int, ...]
    ) -> np.ndarray:
        """Differences of two geometric numbers."""
        success = -np.expm1(-self.step / self._each_cell(self.scales))
        first, second = (generator.geometric(success, size=shape) for _ in range(2))
        return first - second


def _counted(codes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Rows by cell, (cells,) int64; rows with a code outside are in none."""
    inside = ((codes >= 0) & (codes < np.array(shape))).all(axis=1)
    cells = np.ravel_multi_index(tuple(codes[inside].T), shape)
    return np.bincount(cells, minlength=math.prod(shape))
