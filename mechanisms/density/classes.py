r"""Sums of features class by class, with a count beside each: one release for all.

A record (x, c) adds (phi(x), a) to row c of a table. Classes are disjoint, so a record
moves one row: the table costs what one row costs. The nearest class of a point is read
off it for ever: by the mean kernel to each class, or by the distance to its mean.

Source: Backurs, Lin, Mahabadi, Silwal, Tarnawski, "Efficiently Computing Similarities
to Private Datasets", 2024, arXiv:2403.08917, section on classification; the count
beside and the correction of the mean's length are derived here.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dpkit.accountants.answers import checks
from dpkit.mechanisms.density.grid_noise import Reach
from dpkit.mechanisms.density.sketch import KernelSketch
from dpkit.mechanisms.density.structure import Answers, Structure, steps_of
from dpkit.mechanisms.protocol import static

COUNT_WEIGHT = 0.3


@static
@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassSums(Structure):
    r"""A noisy table of sums and counts, one row a class.

    Privacy: a record moves one row, by sqrt(1 + a^2) in units of a feature's length. A
    replaced record moves it by 2 if it keeps its class, since the counts cancel, and
    two rows by sqrt(2 (1 + a^2)) if not. A label that is no class counts for none.

    Args:
      classes: C >= 1, public. Labels are 0 to C - 1.
      dimension: d; public.
      sketch: gives the features phi; None: phi(x) = x / ||x||, the linear one.
      normalise: whether points are brought to length 1 first; for the linear one they
        always are.

    Raises:
      ValueError, TypeError: a field out of range.

    Example:
      >>> from dpkit.mechanisms.density.grid_noise import Gaussian
      >>> table = ClassSums(classes=3, dimension=5, noise=Gaussian(2.0))
      >>> table.size
      18
    """

    classes: int
    dimension: int  # type: ignore[assignment]
    sketch: KernelSketch | None = None
    normalise: bool = True

    def __post_init__(self) -> None:
        """Refuses what doesn't fit together."""
        checks.integer_at_least(1, classes=self.classes)
        checks.integer_at_least(1, dimension=self.dimension)
        checks.flag(normalise=self.normalise)
        if not isinstance(self.sketch, KernelSketch | None):
            raise TypeError(f"sketch={self.sketch!r}: needed a KernelSketch, or None")
        if self.sketch is not None and self.sketch.dimension != self.dimension:
            raise ValueError(
                f"sketch has dimension {self.sketch.dimension}: needed "
                f"dimension={self.dimension}"
            )
        super().__post_init__()

    @property
    def width(self) -> int:
        """How many features there are, the count aside."""
        return self.dimension if self.sketch is None else 2 * self.sketch.count

    @property
    def size(self) -> int:
        """Features and count of every class."""
        return self.classes * (self.width + 1)

    @property
    def active(self) -> int:
        """One row."""
        return self.width + 1

    @functools.cached_property
    def _length(self) -> float:
        """Of a point's features."""
        return 1.0 if self.sketch is None else math.sqrt(self.sketch.count)

    @property
    def peak(self) -> float:
        """Of a wave or a coordinate, or the count."""
        return max(1.0, COUNT_WEIGHT * self._length)

    def point_reach(self) -> Reach:
        """One row's; of a replaced record, the same row twice or two rows."""
        one = math.sqrt(1 + COUNT_WEIGHT**2)
        far = max(2.0, math.sqrt(2) * one)
        l1 = math.sqrt(self.active) * one * self._length
        return Reach(self._length * one, l1, self._length * far, 2 * l1)

    def placed(self, points: Any) -> Any:
        """Points of length 1, and in the sketch's bandwidths."""
        if self.sketch is None or self.normalise:
            points = _normalised(points)
        return points if self.sketch is None else self.sketch.placed(points)

    def located(self, points: Any) -> Any:
        """Points as they are, in float32; the device places them, which is faster."""
        if not isinstance(points, np.ndarray):
            return jnp.asarray(points, jnp.float32)
        with np.errstate(all="ignore"):  # no warning may depend on a record
            return np.asarray(points, np.float32)

    def features(self, placed: Any, labels: Any) -> tuple[Any, tuple[Any, ...]]:
        """Where a record's row stands, and its features and count."""
        placed = self.placed(placed)
        if self.sketch is None:
            found = placed
        else:
            found = jnp.concatenate(self.sketch._waves(placed), axis=1)
        count = jnp.full((len(placed), 1), COUNT_WEIGHT * self._length)
        if not jnp.issubdtype(labels.dtype, jnp.integer):
            labels = jnp.where(labels == jnp.floor(labels), labels, -1.0)
        known = (labels >= 0) & (labels < self.classes)
        values = jnp.concatenate([found, count], axis=1)
        values = jnp.where(known[:, None], values, 0.0)
        row = jnp.where(known, labels, 0).astype(jnp.int32)
        index = row[:, None] * self.active + jnp.arange(self.active)[None]
        return index, (values,)

    def batch_total(
        self, points: np.ndarray, weights: np.ndarray | None, labels: Any
    ) -> np.ndarray:
        """The same sum, row by row; within int32 as all sums of a batch are."""
        batch = self.padded(points, weights, labels)
        return np.asarray(_by_class(self, *batch), np.int64).reshape(-1)

    def table(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sums (C, width) and counts (C,), in units of a feature's length."""
        rows = values.reshape(self.classes, self.active)
        return rows[:, :-1] / self._length, rows[:, -1] / (COUNT_WEIGHT * self._length)

    def scores(
        self, values: np.ndarray, queries: Any, *, least_count: float = 1.0
    ) -> np.ndarray:
        """How near points are to every class, (q, C); the largest is the class.

        With a sketch, the mean kernel to a class' records. Without, <y, mu> -
        (||mu||^2 - noise) / 2 for the class' mean mu: without the term for the noise in
        ||mu||^2, small classes would lose.

        Args:
          values: what a call returned. queries: public points (q, d).
          least_count: counts below it are taken as it.
        """
        queries = self.checked(queries)
        sums, counts = self.table(values)
        counts = np.maximum(counts, least_count)
        means = sums / counts[:, None]
        if self.sketch is None:
            noise = self.width * (self.stddev / counts) ** 2
            length = (means**2).sum(axis=1) - noise
            return self.placed(queries) @ means.T - length / 2
        placed = np.asarray(self.placed(queries), np.float32)
        found = [np.asarray(part) for part in self.sketch._waves(placed)]
        return np.concatenate(found, axis=1) @ means.T / self._length

    def counts(self, values: np.ndarray) -> Answers:
        """How many records each class has."""
        stddev = self.bar / (COUNT_WEIGHT * self._length)
        found = self.table(values)[1]
        zeros = np.zeros(self.classes)
        return Answers(found, zeros + stddev, zeros).times(self.max_weight)

    def answer(self, values: np.ndarray, queries: np.ndarray) -> Answers:
        """Refused: it answers by class."""
        raise TypeError("ClassSums answers by class: use scores and counts")

    def expected_error(self, records: float) -> float:
        """The noise of a sum of one class in one direction."""
        del records
        return self.max_weight * self.stddev / self._length


@functools.partial(jax.jit, static_argnums=0)
def _by_class(table: ClassSums, placed: Any, weights: Any, labels: Any) -> jax.Array:
    """The sums of a batch, (C, active) int32; a label that is no class adds zeros."""
    steps = steps_of(table, placed, weights, labels)
    row = jnp.clip(labels, 0, table.classes - 1)
    return jnp.zeros((table.classes, table.active), jnp.int32).at[row].add(steps)


def _normalised(points: Any) -> Any:
    """Points of length at most 1, but for too small ones, which have less."""
    xp = np if isinstance(points, np.ndarray) else jnp
    largest = xp.abs(points).max(axis=-1, keepdims=True)
    points = points / xp.maximum(largest, 1e-30)
    norm = xp.sqrt((points**2).sum(axis=-1, keepdims=True))
    if points.dtype == np.float32:  # what a sum of d squares may miss, in any order
        norm = norm * (1 + points.shape[-1] * 2.0**-24)
    return points / xp.maximum(norm, 1e-30)
