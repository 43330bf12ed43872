r"""Many histograms of one table, stacked into one vector and released with noise.

A table holds codes: column j has whole numbers from 0 to sizes[j] - 1. A family is a
set of columns; its marginal counts the rows of every combination of their codes. A row
lights one cell of each family, so families are orthogonal blocks: with noise s_f on
family f, a row moves the whole by sqrt(sum_f 1 / s_f^2) standard deviations, and in L1
by sum_f 1 / b_f scales. A replaced row leaves one cell and enters another: sqrt(2)
times as far in L2, where others move twice as far; twice in L1.

Counts are exact integers, so noise is added to them on a public grid of powers of two,
at least a thousandth of the noise. Rounding noise to a grid on which the counts lie is
rounding the sum: post-processing of noise that was not rounded, whose last bits tell
nothing (Mironov, "On significance of the least significant bits for differential
privacy", 2012).

Source: Dwork, McSherry, Nissim, Smith, "Calibrating Noise to Sensitivity in Private
Data Analysis", 2006, for histograms; the exact budget of Gaussians is Dong, Roth, Su,
"Gaussian Differential Privacy", 2019, arXiv:1905.02383.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
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
from dpkit.mechanisms.noise import discrete_laplace, host_generator
from dpkit.mechanisms.protocol import BoundedSum, Key, PyTree, static

_MOST_CELLS = 2**31 - 1
_LEAST_NOISE, _MOST_NOISE = 2.0**-10, 2.0**40
_FINE = 10  # powers of two from the noise down to the grid
_BLOCK = 2**16  # cells at a time
_EXACT = 2**53  # whole numbers up to it are float64 numbers


@dataclasses.dataclass(frozen=True, kw_only=True)
class StackedHistograms(BoundedSum):
    """Base of `Marginals` and `PureMarginals`: the counting, and the grid.

    Args:
      families: of columns, by number; each has its own, none twice.
      sizes: how many codes each column of the table has.
      reach: the most rows (or whole steps of a weighted count) that one unit of privacy
        adds to one family.

    Raises:
      ValueError, TypeError: a field out of range.

    Example:
      >>> issubclass(Marginals, StackedHistograms)
      True
    """

    families: tuple[tuple[int, ...], ...]
    sizes: tuple[int, ...]
    reach: int = 1

    draws_on_host: ClassVar[bool] = True  # so privatize is not for jit

    def __post_init__(self) -> None:
        """Refuses what is no table, or too large."""
        sizes = tuple(_size(size) for size in _listed(sizes=self.sizes))
        families = tuple(
            _family(columns, len(sizes)) for columns in _listed(families=self.families)
        )
        object.__setattr__(self, "sizes", sizes)
        object.__setattr__(self, "families", families)
        if checks.integer_at_least(1, reach=self.reach) > _EXACT:
            raise ValueError(f"reach={self.reach}: needed at most 2^53")
        if self.cells > _MOST_CELLS:
            shape = max(self.shapes, key=math.prod)
            raise ValueError(
                f"families have {self.cells:,} cells, the largest {math.prod(shape):,} "
                f"of {shape}; needed at most 2^31 - 1: take fewer columns or coarser "
                "codes, or release them in parts"
            )

    @functools.cached_property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shape of each family's marginal."""
        return tuple(tuple(self.sizes[j] for j in own) for own in self.families)

    @functools.cached_property
    def parts(self) -> tuple[slice, ...]:
        """Where each family stands among the cells."""
        ends = itertools.accumulate((math.prod(s) for s in self.shapes), initial=0)
        return tuple(slice(*pair) for pair in itertools.pairwise(ends))

    @property
    def cells(self) -> int:
        """How many numbers are published."""
        return self.parts[-1].stop

    @property
    def spreads(self) -> tuple[float, ...]:
        """The size of the noise, one number a family, in counts."""
        raise NotImplementedError

    def steps_of_noise(
        self, generator: np.random.Generator, spread: float, shape: tuple[int, ...]
    ) -> np.ndarray:
        """Noise in whole steps of the grid; `spread` is its size in steps."""
        raise NotImplementedError

    def sized(self, **sizes: Any) -> tuple[float, ...]:
        """Sizes of noise, one a family; refused if they aren't."""
        ((name, _),) = sizes.items()
        found = tuple(noise_size(**{name: size}) for size in _listed(**sizes))
        if len(found) != len(self.families):
            raise ValueError(
                f"{name} has {len(found)} numbers: needed one for each of "
                f"{len(self.families)} families"
            )
        return found

    def contribute(self, key: Key, record: PyTree) -> jax.Array:
        """The cells of one unit's rows, (cells,) int32.

        Args:
          key: not used.
          record: codes (d,), or those of at most `reach` rows, (rows, d). A code that a
            column doesn't have puts the row into no cell of that column's families.

        Raises:
          TypeError: numbers that are not whole.
          ValueError: another number of columns, or too many rows.
        """
        del key
        codes = jnp.atleast_2d(_small(record))
        self._fits(codes.shape, codes.dtype)
        if len(codes) > self.reach:
            raise ValueError(f"record has {len(codes)} rows: needed {self.reach}=reach")
        known = (codes >= 0) & (codes < jnp.asarray([self.sizes], jnp.int32))
        codes = jnp.where(known, codes, 0)
        total = jnp.zeros(self.cells, jnp.int32)
        for part, own, shape in zip(
            self.parts, self.families, self.shapes, strict=True
        ):
            index = jnp.full(len(codes), 0)
            for j, size in zip(own, shape, strict=True):
                index = index * size + codes[:, j]
            inside = known[:, np.array(own)].all(axis=1)
            total = total.at[part.start + index].add(inside.astype(jnp.int32))
        return total

    def total(self, codes: Any) -> np.ndarray:
        """The counts of all families, exact, (cells,) int64: private.

        Args:
          codes: whole numbers (rows, d); (units, rows, d) is the same rows.

        Raises:
          TypeError: numbers that are not whole.
          ValueError: another number of columns.
        """
        codes = np.asarray(codes)
        self._fits(codes.shape, codes.dtype)
        codes = codes.reshape(-1, len(self.sizes))
        known = (codes >= 0) & (codes < np.array(self.sizes))
        columns = [np.ascontiguousarray(row, np.int64) for row in codes.T]
        total = np.zeros(self.cells, np.int64)
        for part, own in zip(self.parts, self.families, strict=True):
            index = np.zeros(len(codes), np.int64)
            for j in own:
                index *= self.sizes[j]
                index += columns[j]
            cells = part.stop - part.start
            index = np.where(known[:, own].all(axis=1), index, cells)
            total[part] = np.bincount(index, minlength=cells + 1)[:cells]
        return total

    def privatize(self, key: Key, total: Any) -> np.ndarray:
        """The counts with noise, float64 (..., cells), each on its family's grid.

        Args:
          key: used for this release alone.
          total: exact counts, int64 (..., cells), laid out as `parts` says; private.
            Each row along the last axis is a release of its own.

        Raises:
          TypeError: a legacy key, a tracer, or a total of other numbers.
          ValueError: another number of cells.
        """
        total = np.asarray(total)
        if total.dtype != np.int64:
            raise TypeError(f"total={total.dtype}: needed exact counts, int64")
        if total.shape[-1:] != (self.cells,):
            raise ValueError(f"total of shape {total.shape}: needed {self.cells} cells")
        generator, values = host_generator(key), np.empty(total.shape)
        for part, spread in zip(self.parts, self.spreads, strict=True):
            step = grid_step(spread)
            for start in range(part.start, part.stop, _BLOCK):
                some = slice(start, min(start + _BLOCK, part.stop))
                # A sum that float64 can't hold is rounded as it is: post-processing.
                # Counts that it can't hold are cut, which keeps them within reach.
                counts = np.clip(total[..., some], -_EXACT, _EXACT)
                noise = self.steps_of_noise(generator, spread / step, counts.shape)
                values[..., some] = counts + noise * step
        return values

    def split(self, values: np.ndarray) -> list[np.ndarray]:
        """One array a family, (..., sizes of its columns), from (..., cells); views.

        Example:
          >>> from dpkit.mechanisms.tables import Marginals
          >>> pairs = Marginals(families=((0, 1), (2,)), sizes=(2, 3, 4),
          ...                   stddevs=(1, 1))
          >>> [part.shape for part in pairs.split(np.zeros(10))]
          [(2, 3), (4,)]
        """
        if values.shape[-1:] != (self.cells,):
            raise ValueError(f"values of shape {values.shape}: needed {self.cells}")
        return [
            values[..., part].reshape(values.shape[:-1] + shape)
            for part, shape in zip(self.parts, self.shapes, strict=True)
        ]

    def __call__(self, key: Key, records: PyTree) -> np.ndarray:
        """Release: the counts of all records, with noise.

        Args:
          key: used for this release alone.
          records: private codes, (units, d), or (units, at most reach, d).

        Returns:
          (cells,) float64; `split` tells the families apart.
        """
        _check.typed_key(key)
        _check.same_length(records=records)
        codes = np.asarray(records)
        if codes.ndim == 3 and codes.shape[1] > self.reach:
            raise ValueError(
                f"records={codes.shape}: needed at most {self.reach} rows a unit"
            )
        return self.privatize(jax.random.split(key)[1], self.total(codes))

    def _fits(self, shape: tuple[int, ...], dtype: Any) -> None:
        """Refuses what are no codes of this table."""
        if not jnp.issubdtype(dtype, jnp.integer):
            raise TypeError(f"codes={dtype}: needed integer codes")
        if len(shape) not in (2, 3) or shape[-1] != len(self.sizes):
            raise ValueError(
                f"codes of shape {shape}: needed {len(self.sizes)} columns"
            )


@static
@dataclasses.dataclass(frozen=True, kw_only=True)
class Marginals(StackedHistograms):
    r"""Noisy marginals, with Gaussian noise of its own size for each family.

    Privacy: under add_remove (and zero_out, where a null record is a row of codes
    outside) one unit moves the release by reach sqrt(sum_f 1 / s_f^2) standard
    deviations; a replaced one by sqrt(2) times that. Which families, and how noise is
    split among them, may depend on earlier releases, if the sum is fixed beforehand.

    Args:
      families, sizes, reach: as of `StackedHistograms`.
      stddevs: s_f, one a family, in counts; 2^-10 to 2^40.

    Raises:
      ValueError, TypeError: a field out of range.

    Example:
      >>> ages = Marginals(families=((0,), (0, 1)), sizes=(3, 2), stddevs=(4.0, 4.0))
      >>> ages.event("add_remove")
      GaussianDpEvent(noise_multiplier=2.82...)
      >>> codes = np.array([[0, 1]] * 500 + [[2, 0]] * 300)
      >>> noisy = ages(jax.random.key(0), codes)
      >>> ages.split(noisy)[0].round(-2) + 0.0
      array([500.,   0., 300.])

    Reference: Dong, Roth, Su, "Gaussian Differential Privacy", 2019, arXiv:1905.02383,
    Corollary 3.3: squares of shifts add up, exactly.
    """

    stddevs: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuses what doesn't fit together."""
        super().__post_init__()
        object.__setattr__(self, "stddevs", self.sized(stddevs=self.stddevs))

    @property
    def spreads(self) -> tuple[float, ...]:
        """Standard deviations."""
        return self.stddevs

    def event(self, relation: Relation | str) -> DpEvent:
        """The cost of the one release: a Gaussian.

        Accountants double what a replaced record moves; it is sqrt(2) times as far.
        """
        replaced = as_relation(relation) is Relation.REPLACE_ONE
        shift = self.reach * math.sqrt(math.fsum(1 / s**2 for s in self.stddevs))
        return GaussianDpEvent((math.sqrt(2) if replaced else 1.0) / shift)

    def steps_of_noise(
        self, generator: np.random.Generator, spread: float, shape: tuple[int, ...]
    ) -> np.ndarray:
        """Gaussian noise, rounded."""
        noise = generator.standard_normal(shape)
        noise *= spread
        return np.rint(noise, out=noise)


@static
@dataclasses.dataclass(frozen=True, kw_only=True)
class PureMarginals(StackedHistograms):
    r"""Noisy marginals with discrete Laplace noise: pure epsilon, no delta.

    Privacy: reach sum_f 1 / b_f; twice that where a record is replaced.

    Args:
      families, sizes, reach: as of `StackedHistograms`.
      scales: b_f, one a family, in counts; 2^-10 to 2^40. The variance is close to, and
        not above, 2 b_f^2.

    Raises:
      ValueError, TypeError: a field out of range.

    Example:
      >>> ages = PureMarginals(families=((0,), (1,)), sizes=(3, 2), scales=(4.0, 4.0))
      >>> ages.event("add_remove"), ages.event("replace_one")
      (PureDpEvent(epsilon=0.5), PureDpEvent(epsilon=1.0))

    Reference: Ghosh, Roughgarden, Sundararajan, "Universally Utility-Maximizing Privacy
    Mechanisms", 2009, arXiv:0811.2841.
    """

    scales: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuses what doesn't fit together."""
        super().__post_init__()
        object.__setattr__(self, "scales", self.sized(scales=self.scales))

    @property
    def spreads(self) -> tuple[float, ...]:
        """Scales."""
        return self.scales

    def event(self, relation: Relation | str) -> DpEvent:
        """The cost of the one release: pure epsilon."""
        replaced = as_relation(relation) is Relation.REPLACE_ONE
        epsilon = self.reach * math.fsum(1 / scale for scale in self.scales)
        return PureDpEvent(2 * epsilon if replaced else epsilon)

    def steps_of_noise(
        self, generator: np.random.Generator, spread: float, shape: tuple[int, ...]
    ) -> np.ndarray:
        """The difference of two geometric numbers."""
        return discrete_laplace(generator, spread, shape)


def grid_step(spread: float) -> float:
    """The grid for noise of this size: a power of two, at most 1, so counts are on it.

    Example:
      >>> grid_step(1.0), grid_step(40.0), grid_step(1e6)
      (0.0009765625, 0.03125, 1.0)
    """
    return min(1.0, 2.0 ** (math.frexp(spread)[1] - 1 - _FINE))


def noise_size(**value: object) -> float:
    """A size of noise for which sums neither overflow nor lose their grid."""
    ((name, _),) = value.items()
    size = checks.positive(**value)
    if not _LEAST_NOISE <= size <= _MOST_NOISE:
        raise ValueError(f"{name}={size!r}: needed a size in [2^-10, 2^40]")
    return size


def _listed(**values: Any) -> list[Any]:
    """What is listed; at least one thing."""
    ((name, given),) = values.items()
    if isinstance(given, str | bytes) or not isinstance(given, Sequence | np.ndarray):
        raise TypeError(f"{name}={type(given).__name__}: needed a list")
    if len(given) == 0:
        raise ValueError(f"{name}: needed at least one")
    return list(given)


def _size(given: Any) -> int:
    """How many codes a column has."""
    size = checks.integer_at_least(1, sizes=given)
    if size > _MOST_CELLS:
        raise ValueError(f"sizes: {size}; needed at most 2^31 - 1")
    return size


def _family(columns: Any, most: int) -> tuple[int, ...]:
    """Different columns of the table."""
    found = tuple(
        checks.integer_at_least(0, families=column)
        for column in _listed(families=columns)
    )
    if max(found) >= most or len(set(found)) < len(found):
        raise ValueError(f"families: {found}; needed different columns below {most}")
    return found


def _small(record: Any) -> jax.Array:
    """Codes in 32 bits; those that don't fit become ones that no column has."""
    xp: Any = np if isinstance(record, np.ndarray) else jnp
    codes = xp.asarray(record)
    if not jnp.issubdtype(codes.dtype, jnp.integer):
        raise TypeError(f"record={codes.dtype}: needed integer codes")
    least = max(jnp.iinfo(codes.dtype).min, -1)
    most = min(jnp.iinfo(codes.dtype).max, _MOST_CELLS)
    return jnp.asarray(xp.clip(codes, least, most).astype(np.int32))
