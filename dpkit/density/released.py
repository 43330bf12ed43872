"""What was released: public numbers that answer for ever, each with its error."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dpkit.density import files
from dpkit.mechanisms.density import Answers, Kernel, SplineGrid, Structure


@dataclasses.dataclass(frozen=True, eq=False)
class Release:
    """A released structure. Everything in it is public; asking it costs nothing.

    Attributes:
      structure: what it is, its noise included.
      values: what was published, on the structure's grid.
      facts: what it cost and by which ledger, JSON values: "epsilon", "delta",
        "relation", "unit", "dataset", "ledger", "ledger_head", "expected_error",
        "floor", "reason".

    Example:
      >>> import jax
      >>> from dpkit.density import release
      >>> points = np.random.default_rng(0).normal(4, 1, (10_000, 1))
      >>> made = release(points, kernel="gaussian", bandwidth=1.0, domain=[(0, 9)],
      ...                epsilon=1.0, delta=1e-6, key=jax.random.key(0))
      >>> made.query([[4.0]]).stddev.round(1)
      array([4.7])
    """

    structure: Structure
    values: np.ndarray
    facts: Mapping[str, Any]

    def query(self, queries: Any) -> Answers:
        """Sums over the records of k(x, y), or of distances, for each query y.

        abs(error) <= 2 stddev + bias_bound for some 95 of 100 answers.

        Args:
          queries: public points, (q, d).

        Returns:
          values, stddev (noise and the structure's own random error) and bias_bound
          (the rest), (q,) each. An answer may be below zero: averages stay right so.

        Raises:
          ValueError: a query that is not finite, of another dimension, or for distances
            outside the domain.
        """
        return self.structure.answers(self.values, queries)

    @property
    def count(self) -> Answers:
        """How many records there are, or their weights; (1,)."""
        count = getattr(self.structure, "count_answer", None)
        if count is None:
            raise TypeError(f"{self.facts.get('structure')} keeps no count of its own")
        return count(self.values)

    def mean(self, queries: Any) -> Answers:
        """Answers over the released count: the average similarity or distance.

        The count's own error is in the standard deviation.
        """
        found, count = self.query(queries), self.count
        size = max(float(count.values[0]), float(count.stddev[0]), 1.0)
        values = found.values / size
        of_count = np.abs(values) * float(count.stddev[0]) / size
        stddev = np.hypot(found.stddev / size, of_count)
        return Answers(values, stddev, found.bias_bound / size)

    def score_samples(self, queries: Any) -> np.ndarray:
        """Log densities, as in scikit-learn's KernelDensity; see `doubtful` too.

        log(S(y) / (n c)), c being the kernel's integral; of a sum below its standard
        deviation the log of that is taken.

        Raises:
          TypeError: for distances, and kernels without a finite integral.
        """
        found, count = self.query(queries), self.count
        size = max(float(count.values[0]), float(count.stddev[0]), 1.0)
        sums = np.maximum(found.values, found.stddev)
        return np.log(sums / size) - self._log_integral()

    def doubtful(self, queries: Any) -> np.ndarray:
        """Where the sum is not above its error, so that no density is told."""
        return self.query(queries).low <= 0

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The public settings, by name."""
        del deep
        fields = dataclasses.fields(self.structure)
        return {field.name: getattr(self.structure, field.name) for field in fields}

    def sample(self, size: int, *, seed: int) -> np.ndarray:
        """Points drawn from the released density; see `views.sample`."""
        from dpkit.density import views

        return views.sample(self, size, seed=seed)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one file; there is no secret and no record in it.

        Raises:
          OSError: it can't be written.
        """
        files.write(Path(path), self.structure, self.values, dict(self.facts))

    def _log_integral(self) -> float:
        """The log of the kernel's integral over space."""
        kernel: Kernel | None = getattr(self.structure, "kernel", None)
        if kernel is None:
            raise TypeError("score_samples: needed a kernel, not distances")
        d = self.structure.dimension
        unit = d * math.log(kernel.bandwidth)
        if kernel.name == "gaussian":
            return unit + d / 2 * math.log(math.pi)
        if kernel.name == "laplacian":
            return unit + d * math.log(2)
        if kernel.name == "exponential":
            ball = d / 2 * math.log(math.pi) - math.lgamma(d / 2 + 1)
            return unit + ball + math.lgamma(d + 1)
        raise TypeError(
            f"score_samples: kernel={kernel.name!r} has no finite integral in every "
            "dimension; use query"
        )

    def __repr__(self) -> str:
        cost = f"epsilon={self.facts.get('epsilon')}, delta={self.facts.get('delta')}"
        return f"<Release of {type(self.structure).__name__}, {cost}>"


def load(path: str | os.PathLike[str]) -> Release:
    """A released structure from its file, or from the folder of a build.

    Raises:
      ValueError: no such file of ours.
      OSError: it can't be read.

    Example:
      >>> load("no.safetensors")
      Traceback (most recent call last):
        ...
      ValueError: no.safetensors doesn't exist: needed the file of a release
    """
    path = Path(path)
    path = path / FILE if path.is_dir() else path
    if not path.exists():
        raise ValueError(f"{path} doesn't exist: needed the file of a release")
    return Release(*files.read(path))


FILE = "density.safetensors"


def grid_of(release: Release) -> SplineGrid:
    """The grid of a release, for what needs one.

    Raises:
      TypeError: it is no grid.
    """
    if not isinstance(release.structure, SplineGrid):
        raise TypeError(
            f"{type(release.structure).__name__}: needed a spline grid; release with a "
            "domain of at most three axes, structure='spline'"
        )
    return release.structure
