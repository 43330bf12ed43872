"""Parts of a sum that has no noise yet: of a batch, a file, a device, a worker.

Sums are of whole numbers, so parts add up to the same in any order. A part is private,
all of it: it can't be saved, copied, printed or asked; only merged, and released once.
"""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from dpkit.data.values import missing, texts
from dpkit.mechanisms.density import Structure


class Shard:
    """The sum of some records in a structure, without noise: private.

    Args:
      structure: public; the same for all parts.

    Example:
      >>> from dpkit.mechanisms.density import Gaussian, SplineGrid, Kernel
      >>> grid = SplineGrid(kernel=Kernel("gaussian", 1.0), domain=((0, 9),),
      ...                   noise=Gaussian(4.0))
      >>> one, other = Shard(grid), Shard(grid)
      >>> one.add(np.ones((10, 1))); other.add(np.ones((5, 1)))
      >>> one.merge(other).structure is grid
      True
    """

    def __init__(self, structure: Structure) -> None:
        if not isinstance(structure, Structure):
            raise TypeError(f"structure={structure!r}: needed a similarity structure")
        self.structure = structure
        self._total = np.zeros(structure.size, np.int64)
        self._released = False
        self._sources = frozenset([object()])  # which parts it is made of

    @classmethod
    def from_private(cls, structure: Structure, total: np.ndarray) -> Shard:
        """The part that `private_total` came from, in another process.

        Raises:
          ValueError: another size. TypeError: not whole numbers.
        """
        shard, total = cls(structure), np.asarray(total)
        if total.dtype.kind not in "iu":
            raise TypeError(f"total={total.dtype}: needed whole steps, integers")
        if total.shape != (structure.size,):
            raise ValueError(f"total of shape {total.shape}: needed {structure.size}")
        shard._total = total.astype(np.int64)
        return shard

    @property
    def private_total(self) -> np.ndarray:
        """The sum, bare, a copy; asking for it is asking for private values.

        Who adds it to a part that holds the same records counts them twice, and no
        noise is made for that.
        """
        return self._total.copy()

    def add(self, points: Any, *, weights: Any = None, labels: Any = None) -> None:
        """Adds records.

        Args:
          points: (n, d) real numbers, or an iterable of such batches.
          weights: (n,), for structures with a max_weight.
          labels: (n,) classes, for structures that have them.

        Raises:
          ValueError: another dimension, or numbers of rows that differ.
          TypeError: not real numbers.
        """
        if not hasattr(points, "shape") and not isinstance(points, list | tuple):
            if weights is not None or labels is not None:
                raise ValueError(
                    "weights and labels go with one array of points; add batch by batch"
                )
            for batch in points:
                self.add(batch)
            return
        points = as_points(points, self.structure.dimension)
        records: dict[str, Any] = {"points": points}
        for name, values in (("weights", weights), ("labels", labels)):
            if values is not None:
                values = np.asarray(values)
                if values.shape != points.shape[:1]:
                    raise ValueError(
                        f"{name} of shape {values.shape}: needed one for each of "
                        f"{len(points)} points"
                    )
                records[name] = values
        self._total = self._total + self.structure.total(records)

    def merge(self, *others: Shard) -> Shard:
        """The part that holds all of these parts' records.

        Raises:
          ValueError: parts of different structures, or one that is there twice: its
            records would count for more than their noise hides.
          TypeError: something else than a part.
        """
        merged = Shard(self.structure)
        merged._sources = frozenset()
        for part in (self, *others):
            if not isinstance(part, Shard):
                raise TypeError(f"others={type(part).__name__}: needed a Shard")
            if part.structure != self.structure:
                raise ValueError(
                    "others: needed parts of the same structure, its noise, "
                    "frequencies and domain included; make all from one"
                )
            if merged._sources & part._sources:
                raise ValueError("others: one part is there twice; take each once")
            merged._sources |= part._sources
            merged._total = merged._total + part._total
        return merged

    def __repr__(self) -> str:
        return f"<Shard of {type(self.structure).__name__}: private, without noise>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Shard holds private sums without noise, and can't be saved or copied: "
            "merge and release it; between processes you trust, private_total is the "
            "bare array and Shard.from_private takes it"
        )


def as_points(points: Any, dimension: int | None = None) -> np.ndarray:
    """Points as a float array (n, d).

    Whole numbers are taken as such, exactly, whatever their type: nothing wraps around.

    Raises:
      TypeError: not real numbers.
      ValueError: of another shape.
    """
    points = np.asarray(points)
    if points.dtype.kind not in "iuf":
        raise TypeError(f"points={points.dtype}: needed an array of real numbers")
    if points.ndim != 2 or (dimension is not None and points.shape[1] != dimension):
        wanted = "d" if dimension is None else dimension
        raise ValueError(f"points of shape {points.shape}: needed (n, {wanted})")
    return points if points.dtype.kind == "f" else points.astype(np.float64)


def kept_rows(unit_ids: Any, most: int, generator: np.random.Generator) -> np.ndarray:
    """Which rows to keep so that no unit has more than `most`, drawn at random.

    Privacy: which of a unit's rows are kept depends on that unit's rows and on chance
    alone, so a unit adds at most `most` points.

    Args:
      unit_ids: (n,) whose each row is; rows of nobody (None, NaN, blank) are left out.
      most: of one unit.

    Returns:
      Row numbers, ascending.

    Example:
      >>> kept_rows(["a", "a", "a", "b"], 2, np.random.default_rng(0)).tolist()
      [0, 2, 3]
    """
    ids = unit_ids.tolist() if hasattr(unit_ids, "tolist") else list(unit_ids)
    coded = texts(ids).dictionary_encode().indices
    unit = coded.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    unit = np.where(missing(ids), -1, unit)
    order = generator.permutation(len(unit))
    order = order[np.argsort(unit[order], kind="stable")]
    sorted_units = unit[order]
    first = np.r_[True, sorted_units[1:] != sorted_units[:-1]] if len(unit) else []
    starts = np.maximum.accumulate(np.where(first, np.arange(len(unit)), 0))
    kept = (np.arange(len(unit)) - starts < most) & (sorted_units >= 0)
    return np.sort(order[kept])
