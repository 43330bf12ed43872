r"""One release that a generator can be trained on: the mean embedding of a table.

A row adds (phi(x), h(c), a) to the row of its class: phi(x) random waves of its
numbers, h(c) one-hot codes of its categories, of length 1 each, and a count of weight
a. A generator is then fitted so that its own embedding is the released one: any number
of steps, at no further cost.

Source: Harder, Adamczewski, Park, "DP-MERF: Differentially Private Mean Embeddings with
Random Features for Practical Privacy-Preserving Data Generation", 2021,
arXiv:2002.11603; the count beside is as in `density.ClassSums`.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dpkit.accountants.answers import checks
from dpkit.mechanisms.density.classes import COUNT_WEIGHT
from dpkit.mechanisms.density.grid_noise import Reach
from dpkit.mechanisms.density.sketch import KernelSketch
from dpkit.mechanisms.density.structure import Answers, Structure
from dpkit.mechanisms.protocol import static


@static
@dataclasses.dataclass(frozen=True, kw_only=True)
class MeanEmbedding(Structure):
    r"""Noisy sums of embeddings and counts, one row a class.

    Points are numbers, then codes of categories, in one array; labels are classes. A
    code that is no category adds no one-hot entry; a label that is no class, or a
    number that is not finite, and the row counts for none.

    Privacy: in units of a part's length, a record moves one row by sqrt(k + a^2) for k
    parts (waves, categories: 1 or 2). A replaced one that keeps its class moves waves
    by 2 and one-hot codes by sqrt(2); one that doesn't, two rows.

    Args:
      noise, max_weight, points_per_unit: as of `Structure`.
      sketch: gives the waves of the numbers; None: there are no numbers.
      categories: how many codes each categorical column has.
      classes: C >= 1; labels are 0 to C - 1.

    Raises:
      ValueError, TypeError: a field out of range, or no columns.

    Example:
      >>> import jax
      >>> from dpkit.mechanisms import density
      >>> noise = density.Gaussian(4.0)
      >>> waves = density.KernelSketch.draw(
      ...     density.Kernel("gaussian", 1.0), 2, features=64, noise=noise)
      >>> table = MeanEmbedding(sketch=waves, categories=(3,), classes=2, noise=noise)
      >>> points, labels = np.zeros((1000, 3), np.float32), np.ones(1000, np.int32)
      >>> noisy = table(jax.random.key(0), {"points": points, "labels": labels})
      >>> sums, counts = table.table(noisy)
      >>> sums.shape, counts.round(-2) + 0.0
      ((2, 67), array([   0., 1000.]))
    """

    sketch: KernelSketch | None = None
    categories: tuple[int, ...] = ()
    classes: int = 1

    def __post_init__(self) -> None:
        """Refuses what doesn't fit together."""
        if not isinstance(self.sketch, KernelSketch | None):
            raise TypeError(f"sketch={self.sketch!r}: needed a KernelSketch, or None")
        if not isinstance(self.categories, tuple | list):
            raise TypeError(f"categories={self.categories!r}: needed a list")
        sizes = (checks.integer_at_least(1, categories=s) for s in self.categories)
        object.__setattr__(self, "categories", tuple(sizes))
        if self.sketch is None and not self.categories:
            raise ValueError("sketch=None and categories=(): needed a column")
        checks.integer_at_least(1, classes=self.classes)
        super().__post_init__()

    @property
    def waves(self) -> int:
        """p: how many frequencies there are."""
        return 0 if self.sketch is None else self.sketch.count

    @property
    def numbers(self) -> int:
        """How many coordinates of a point are numbers."""
        return 0 if self.sketch is None else self.sketch.dimension

    @property
    def dimension(self) -> int:
        """Numbers and categories together."""
        return self.numbers + len(self.categories)

    @property
    def width(self) -> int:
        """How many features there are, the count aside."""
        return 2 * self.waves + sum(self.categories)

    @property
    def size(self) -> int:
        """Features and count of every class."""
        return self.classes * (self.width + 1)

    @property
    def active(self) -> int:
        """Waves, one entry a category, and the count."""
        return 2 * self.waves + len(self.categories) + 1

    @property
    def _length(self) -> float:
        """Of a part's features: waves are as long as they are, others made so."""
        return math.sqrt(self.waves or 1)

    @property
    def _entry(self) -> float:
        """A one-hot code's."""
        return self._length / math.sqrt(len(self.categories) or 1)

    @property
    def peak(self) -> float:
        """Of a wave, a one-hot code or the count."""
        return max(1.0, self._entry if self.categories else 0.0, self._count)

    @property
    def _count(self) -> float:
        """The count's entry."""
        return COUNT_WEIGHT * self._length

    def point_reach(self) -> Reach:
        """One row's; of a replaced record, the same row twice or two rows."""
        waves, codes = bool(self.waves), bool(self.categories)
        one = math.sqrt(waves + codes + COUNT_WEIGHT**2)
        far = max(math.sqrt(4 * waves + 2 * codes), math.sqrt(2) * one)
        l1 = math.sqrt(2) * self.waves + len(self.categories) * self._entry
        l1 += self._count
        return Reach(self._length * one, l1, self._length * far, 2 * l1)

    def placed(self, points: Any) -> Any:
        """Points as they are; the device places their numbers."""
        return points

    def features(self, placed: Any, labels: Any) -> tuple[Any, tuple[Any, ...]]:
        """Where a record's entries stand, and what they are."""
        rows, start = len(placed), 2 * self.waves
        labels = jnp.zeros(rows, jnp.int32) if labels is None else jnp.asarray(labels)
        label, known = _codes(labels, self.classes)
        columns = [jnp.broadcast_to(jnp.arange(start), (rows, start))]
        values = []
        if self.sketch is not None:
            values += self.sketch._waves(self.sketch.placed(placed[:, : self.numbers]))
        for j, size in enumerate(self.categories, self.numbers):
            code, is_one = _codes(placed[:, j], size)
            columns.append(start + code[:, None])
            values.append(jnp.where(is_one, self._entry, 0.0)[:, None])
            start += size
        columns.append(jnp.full((rows, 1), start))
        values.append(jnp.full((rows, 1), self._count))
        index = label[:, None] * (self.width + 1) + jnp.concatenate(columns, axis=1)
        entries = jnp.concatenate(values, axis=1)
        return index, (jnp.where(known[:, None], entries, 0.0),)

    def table(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sums of embeddings (C, width) and counts (C,), from what was published.

        A row's embedding is cos(w.x) / sqrt(p), then sin(w.x) / sqrt(p), for p
        frequencies, x in bandwidths; then one-hot codes / sqrt(m) for m categories.
        """
        rows = values.reshape(self.classes, self.width + 1)
        return rows[:, :-1] / self._length, rows[:, -1] / self._count

    def answer(self, values: np.ndarray, queries: np.ndarray) -> Answers:
        """Refused: it is for generators."""
        raise TypeError("MeanEmbedding answers no queries: use table")

    def expected_error(self, records: float) -> float:
        """The noise of a sum of one class in one direction."""
        del records
        return self.max_weight * self.stddev / self._length


def _codes(given: Any, size: int) -> tuple[jax.Array, jax.Array]:
    """Codes as int32, and which are codes below `size` at all; others become 0."""
    known = (given >= 0) & (given < size)
    if not jnp.issubdtype(given.dtype, jnp.integer):
        known &= given == jnp.floor(given)
    return jnp.where(known, given, jnp.zeros_like(given)).astype(jnp.int32), known
