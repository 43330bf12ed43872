r"""What every similarity structure is: a sum of features, released once.

It then answers for ever. Each record becomes a vector of features, bounded whatever it
holds; the vectors are rounded to a public grid and added as integers; the sum is
published with noise (`grid_noise`). Every answer is then linear in what was published,
S(y) = <Z, c(y)>, so that its error is known: the noise and the structure's own
randomness as a standard deviation, the rest as a bound.

A new structure is one class: its size, the reach of a point, the features of points,
and the answer to a query; and a row in the conformance list. Sums on the device, in
batches, of shards, with weights and for people with several points come from here.

Privacy: under add_remove (and zero_out, where a null record is a row of NaN) one unit
moves the sum by `reach`, rounding included; a replaced one by at most twice that, and
less where a structure proves it. A point that is not finite counts as none, silently:
whether a release fails must not depend on the data.

Source: Backurs, Lin, Mahabadi, Silwal, Tarnawski, "Efficiently Computing Similarities
to Private Datasets", 2024, arXiv:2403.08917.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from dp_accounting import DpEvent

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.relations import Relation, as_relation
from dpkit.mechanisms import _check
from dpkit.mechanisms.density.grid_noise import Gaussian, Laplace, Noise, Radial, Reach
from dpkit.mechanisms.noise import host_generator
from dpkit.mechanisms.protocol import BoundedSum, Key, PyTree

_QUERIES = 2**12
# Float32 arithmetic on features, relative to their norm; each structure's own
# calculation is proven or made to stay below it.
_FLOAT_SLACK = 2**-18
# Noise of more steps might not fit 64 bits, and what doesn't fit hides nothing.
_MOST_NOISE = 2**38


class Answers(NamedTuple):
    """Answers to queries, and how far to trust them; (q,) float64 each.

    Attributes:
      values: the answers.
      stddev: of the noise and of the structure's own random error together.
      bias_bound: what else the answer may be off by.

    Example:
      >>> Answers(np.array([3.0]), np.array([1.0]), np.array([0.5])).low
      array([0.5])
    """

    values: np.ndarray
    stddev: np.ndarray
    bias_bound: np.ndarray

    @property
    def low(self) -> np.ndarray:
        """Two standard deviations and the bias below."""
        return self.values - 2 * self.stddev - self.bias_bound

    @property
    def high(self) -> np.ndarray:
        """Two standard deviations and the bias above."""
        return self.values + 2 * self.stddev + self.bias_bound

    def times(self, factor: float) -> Answers:
        """Answers in another unit."""
        return Answers(*(abs(factor) * part for part in self))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Structure(BoundedSum):
    """Base of the similarity structures.

    Args:
      noise: `Gaussian`, `Radial` or `Laplace`.
      max_weight: the most that one point counts; weights are cut to [0, max_weight].
      points_per_unit: the most points of one unit of privacy; a record is then an
        array (points_per_unit, d), padded with NaN.

    Raises:
      ValueError: a number out of range.
      TypeError: another kind of noise.

    Example:
      >>> from dpkit import mechanisms
      >>> structure = mechanisms.density.Structure
      >>> issubclass(mechanisms.density.KernelSketch, structure)
      True
    """

    noise: Noise
    max_weight: float = 1.0
    points_per_unit: int = 1

    draws_on_host: ClassVar[bool] = True  # so privatize is not for jit
    # The grid's steps in the largest feature. Rows are added as int32, so many at a
    # time that they stay below 2^31.
    steps: ClassVar[int] = 2**18

    def __post_init__(self) -> None:
        """Refuses what is no structure; subclasses refuse more."""
        if not isinstance(self.noise, Gaussian | Radial | Laplace):
            raise TypeError(
                f"noise={self.noise!r}: needed Gaussian, Radial or Laplace noise"
            )
        checks.positive(max_weight=self.max_weight)
        checks.integer_at_least(1, points_per_unit=self.points_per_unit)
        if not 16 * self.step <= self.stddev <= _MOST_NOISE * self.step:
            raise ValueError(
                f"noise={self.noise!r}: needed noise of 16 to 2^38 steps of the grid "
                f"that sums are counted on, {16 * self.step:.3g} to "
                f"{_MOST_NOISE * self.step:.3g}; it is {self.stddev:.3g}"
            )

    # What a structure says of itself.

    if TYPE_CHECKING:  # a field of some, a property of others

        @property
        def dimension(self) -> int:
            """d: how many coordinates a point has."""
            raise NotImplementedError

    @property
    def size(self) -> int:
        """How many numbers are published."""
        raise NotImplementedError

    @property
    def active(self) -> int:
        """How many entries of one point's features are not zero, at most."""
        return self.size

    @property
    def peak(self) -> float:
        """The largest entry that a point's features can have."""
        return 1.0

    def point_reach(self) -> Reach:
        """How far one point of full weight moves the sum, in exact arithmetic."""
        raise NotImplementedError

    def placed(self, points: Any) -> Any:
        """Points in the structure's own coordinates; NumPy or JAX, (..., d)."""
        raise NotImplementedError

    def features(self, placed: Any, labels: Any) -> tuple[Any, tuple[Any, ...]]:
        """The features of points, for the device: (index or None, parts).

        Args:
          placed: finite float32, (rows, d).
          labels: int32 (rows,), or None.

        Returns:
          None and parts of the features, (rows, some) each, which together have `size`
          columns; or where values stand, (rows, active), and these in one part.
        """
        raise NotImplementedError

    def answer(self, values: np.ndarray, queries: np.ndarray) -> Answers:
        """Answers from what was published, for points of full weight.

        Args:
          values: (size,) float64.
          queries: finite float64, (q, d).
        """
        raise NotImplementedError

    def expected_error(self, records: float) -> float:
        """The error to expect of an answer about so many records, one deviation."""
        raise NotImplementedError

    @property
    def floor(self) -> float:
        """The error of one single answer by the same kind of noise; none can go below
        it for every query."""
        return self.max_weight * self.points_per_unit * self._floor()

    def _floor(self) -> float:
        """The floor for a function of one point that is at most 1."""
        if isinstance(self.noise, Gaussian):
            return self.noise.noise_multiplier
        return math.sqrt(2) / self.noise.epsilon  # type: ignore[attr-defined]

    # What follows from it.

    @functools.cached_property
    def step(self) -> float:
        """The grid that sums are counted on; a power of two."""
        return 2.0 ** math.ceil(math.log2(self.peak)) / self.steps

    @functools.cached_property
    def reach(self) -> Reach:
        """How far one unit moves the published sum, rounding included."""
        exact, half = self.point_reach(), self.step / 2
        l2, l1 = math.sqrt(self.active) * half, self.active * half
        rounding = Reach(l2, l1, 2 * l2, 2 * l1)
        both = (
            a * (1 + _FLOAT_SLACK) + b for a, b in zip(exact, rounding, strict=True)
        )
        return Reach(*both).times(self.points_per_unit)

    @property
    def stddev(self) -> float:
        """Standard deviation of the noise in a direction of the published vector."""
        return self.noise.stddev(self.reach, self.size)

    @property
    def bar(self) -> float:
        """Half of what 95 of 100 draws of the noise stay below; what answers state.

        Of Gaussian noise it is the standard deviation. Of the others, whose tails are
        heavier, a little more: of one Laplace draw ln(20) / sqrt(8) times as much.
        """
        heavier = 1.0 if isinstance(self.noise, Gaussian) else math.log(20) / 8**0.5
        return heavier * self.stddev

    def event(self, relation: Relation | str) -> DpEvent:
        """What the one release costs; queries cost nothing."""
        return self.noise.event(self.reach, as_relation(relation))

    def contribute(self, key: Key, record: PyTree) -> jax.Array:
        """One unit's features in whole steps of the grid, (size,) int32.

        Args:
          key: not used.
          record: points (d,), or (points_per_unit, d); or a mapping of "points",
            "weights" and "labels", each without the axis d.

        Raises:
          ValueError: so many points a unit that 32 bits don't hold their sum.
        """
        del key
        if self.points_per_unit > 2 * self.rows - 1:
            raise ValueError(
                f"points_per_unit={self.points_per_unit}: needed at most "
                f"{2 * self.rows - 1} for one message; use total"
            )
        points, weights, labels = _parts(record)
        if self.points_per_unit == 1:
            points = points[None]
            weights = None if weights is None else weights[None]
            labels = None if labels is None else labels[None]
        return _batch_sum(
            self, self.located(points), self.weighed(points, weights), labels
        )

    def weighed(self, points: Any, weights: Any) -> Any:
        """Weights cut to the largest; of points without any, 1 if that isn't 1."""
        if weights is None:
            return None if self.max_weight == 1 else np.ones(len(points), np.float32)
        xp = np if isinstance(weights, np.ndarray) else jnp
        return xp.clip(weights, 0.0, self.max_weight)

    def total(self, records: PyTree) -> np.ndarray:
        """The sum over points, exact, (size,) int64: private.

        Args:
          records: as for a call; points of one unit are not told apart here.
        """
        points, weights, labels = _parts(records)
        points = np.asarray(points)
        if points.dtype.kind not in "iuf":
            raise TypeError(f"points={points.dtype}: needed real numbers")
        points = points.reshape(-1, self.dimension)
        weights = self.weighed(points, _one_each(points, weights=weights))
        labels = _one_each(points, labels=labels)
        total = np.zeros(self.size, np.int64)
        for start in range(0, len(points), self.rows):
            some = slice(start, start + self.rows)
            total += self.batch_total(
                points[some],
                None if weights is None else weights[some],
                None if labels is None else labels[some],
            )
        return total

    @property
    def rows(self) -> int:
        """How many points are added at a time."""
        return 2**30 // self.steps

    def batch_total(
        self, points: np.ndarray, weights: np.ndarray | None, labels: np.ndarray | None
    ) -> np.ndarray:
        """The sum over at most `rows` points, (size,) int64."""
        batch = self.padded(points, weights, labels)
        return np.asarray(_batch_sum(self, *batch), np.int64)

    def padded(
        self, points: np.ndarray, weights: np.ndarray | None, labels: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """A batch in the structure's coordinates, always of one length.

        Privacy: products of matrices, and programs, round by how many rows there are.
        Of another length, one record more could change what its neighbours add.
        """
        rows = self.rows
        batch = np.full((rows, points.shape[1]), np.nan)
        with np.errstate(all="ignore"):  # no warning may depend on a record
            batch[: len(points)] = points
        batch = self.located(batch)
        return (
            batch,
            None if weights is None else _padded(_single(weights), rows, np.float32),
            None if labels is None else _padded(_classes(labels), rows, np.int32),
        )

    def located(self, points: Any) -> Any:
        """Points in the structure's coordinates, float32; NaN for what is not finite.

        A domain's edge is for points that are far out, not for those that are none.
        """
        if isinstance(points, np.ndarray):
            xp, points = np, points.astype(np.float64)
        else:
            xp, points = jnp, jnp.asarray(points, jnp.float32)
        usable = xp.isfinite(points).all(axis=-1, keepdims=True)
        with np.errstate(all="ignore"):  # no warning may depend on a record
            placed = xp.asarray(self.placed(points), np.float32)
        return xp.where(usable, placed, np.float32(math.nan))

    def privatize(self, key: Key, total: Any) -> np.ndarray:
        """The sum with noise, on the grid, float64 (..., size).

        Args:
          key: used for this release alone.
          total: whole steps, 64-bit integers (..., size); private. Each row along the
            last axis is a release of its own.

        Raises:
          TypeError: a legacy key, a tracer, or a total of other numbers. Of 32 bits,
            one record more might have made it wrap around.
          ValueError: another size.
        """
        total = np.asarray(total)
        if total.dtype != np.int64:
            raise TypeError(
                f"total={total.dtype}: needed whole steps as int64; messages add up to "
                "more than 32 bits hold, so use total"
            )
        if total.shape[-1:] != (self.size,):
            raise ValueError(
                f"total of shape {total.shape}: needed {self.size} entries"
            )
        draws = (host_generator(key), total.shape, self.reach, self.step)
        noise = self.noise.draw(*draws)
        steps = np.rint(self.shaped(noise) / self.step)
        return (total + steps.astype(np.int64)) * self.step

    def shaped(self, noise: np.ndarray) -> np.ndarray:
        """The noise as it is added, from noise that is alike in every direction."""
        return noise

    def __call__(self, key: Key, records: PyTree) -> np.ndarray:
        """Release: the features of every record, their sum, noise.

        Args:
          key: used for this release alone.
          records: private; points (n, d), or (n, points_per_unit, d); or a mapping of
            "points", "weights" and "labels".

        Returns:
          (size,) float64, to be asked by `answers`.
        """
        _check.typed_key(key)
        _check.same_length(records=records)
        points = _parts(records)[0]
        axes = (self.dimension,)
        if self.points_per_unit > 1:
            axes = (self.points_per_unit, self.dimension)
        if np.shape(points)[1:] != axes:
            raise ValueError(
                f"records={np.shape(points)}: needed (number, "
                f"{', '.join(map(str, axes))})"
            )
        _check.floating(points=points)
        return self.privatize(jax.random.split(key)[1], self.total(records))

    def answers(self, values: np.ndarray, queries: Any) -> Answers:
        """Answers to any number of queries, from what was published.

        Post-processing: it costs nothing, however often.

        Args:
          values: what a call returned.
          queries: public points, (q, d), in the unit of the records.

        Raises:
          ValueError: a query that is not finite, or of another dimension.
          TypeError: queries that are not real numbers.
        """
        queries = self.checked(queries)
        if not len(queries):
            return Answers(np.zeros(0), np.zeros(0), np.zeros(0))
        parts = [
            self.answer(values, queries[start : start + _QUERIES])
            for start in range(0, len(queries), _QUERIES)
        ]
        joined = (np.concatenate(column) for column in zip(*parts, strict=True))
        return Answers(*joined).times(self.max_weight)

    def checked(self, queries: Any) -> np.ndarray:
        """Queries as float64 (q, d); refused if they aren't."""
        queries = np.asarray(queries)
        if queries.dtype.kind not in "iuf":
            raise TypeError(f"queries={queries.dtype}: needed real numbers")
        if queries.ndim != 2 or queries.shape[1] != self.dimension:
            raise ValueError(
                f"queries of shape {queries.shape}: needed (count, {self.dimension})"
            )
        queries = queries.astype(np.float64)
        if not np.isfinite(queries).all():
            row = int(np.flatnonzero(~np.isfinite(queries).all(axis=1))[0])
            raise ValueError(f"queries[{row}]={queries[row]}: needed finite numbers")
        return queries


@functools.partial(jax.jit, static_argnums=0)
def _batch_sum(
    structure: Structure, placed: jax.Array, weights: Any, labels: Any
) -> jax.Array:
    """The sum of features in whole steps, (size,) int32.

    A point that is not finite, or has such a weight, adds zero.
    """
    index, parts, usable, share = _weighted(structure, placed, weights, labels)

    def whole(values: jax.Array) -> jax.Array:
        """In steps of the grid."""
        return in_steps(structure, values, usable, share)

    if index is None:  # part by part, so that none need stand in memory
        return jnp.concatenate([whole(part).sum(axis=0) for part in parts])
    return jnp.zeros(structure.size, jnp.int32).at[index].add(whole(parts[0]))


def _weighted(
    structure: Structure, placed: Any, weights: Any, labels: Any
) -> tuple[Any, tuple[Any, ...], jax.Array, Any]:
    """Features, which points count at all, and for how much of the largest weight."""
    placed = jnp.asarray(placed, jnp.float32)
    share, usable = None, jnp.isfinite(placed).all(axis=-1)
    if weights is not None:
        weights = jnp.asarray(weights, jnp.float32)
        usable &= jnp.isfinite(weights)
        share = jnp.where(usable, weights / structure.max_weight, 0.0).clip(0.0, 1.0)
    placed = jnp.where(usable[:, None], placed, jnp.zeros_like(placed))
    return *structure.features(placed, labels), usable, share


def in_steps(
    structure: Structure, values: jax.Array, usable: jax.Array, share: Any
) -> jax.Array:
    """Features in whole steps of the grid, zero for a point that doesn't count."""
    weighted = values if share is None else values * share[:, None]
    steps = jnp.rint(weighted * jnp.float32(1 / structure.step)).astype(jnp.int32)
    return jnp.where(usable[:, None], steps, 0)


@functools.partial(jax.jit, static_argnums=0)
def steps_of(
    structure: Structure, placed: jax.Array, weights: Any, labels: Any
) -> jax.Array:
    """Each point's features of one part in whole steps, (rows, active) int32."""
    _, parts, usable, share = _weighted(structure, placed, weights, labels)
    return in_steps(structure, parts[0], usable, share)


def _parts(records: PyTree) -> tuple[Any, Any, Any]:
    """Points, weights and labels; the last two None where there are none."""
    if not isinstance(records, Mapping):
        return records, None, None
    unknown = sorted(set(records) - {"points", "weights", "labels"})
    if unknown or "points" not in records:
        raise ValueError(
            f"records has {sorted(records)}: needed 'points', and perhaps 'weights' "
            "and 'labels'"
        )
    return records["points"], records.get("weights"), records.get("labels")


def _one_each(points: np.ndarray, **given: Any) -> np.ndarray | None:
    """Weights or labels, one for each point."""
    ((name, values),) = given.items()
    if values is None:
        return None
    values = np.ravel(values)
    if len(values) != len(points) or values.dtype.kind not in "iuf":
        raise ValueError(
            f"{name}={values.dtype}{list(values.shape)}: needed one number for each of "
            f"{len(points)} points"
        )
    return values


def _single(weights: np.ndarray) -> np.ndarray:
    """Weights as float32, without a warning for those that are too large."""
    with np.errstate(all="ignore"):
        return np.asarray(weights, np.float32)


def _classes(labels: np.ndarray) -> np.ndarray:
    """Labels as int32; -1 for what is no whole number, or too large to be a class."""
    known = (labels >= 0) & (labels < 2**31) & (labels == np.floor(labels))
    return np.where(known, labels, -1).astype(np.int32)


def _padded(values: np.ndarray, rows: int, dtype: Any) -> np.ndarray:
    """One value for each row of a batch; rows that are no point have 0."""
    padded = np.zeros(rows, dtype)
    padded[: len(values)] = values
    return padded
