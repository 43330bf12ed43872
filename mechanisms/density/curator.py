r"""Kernel sums with noise that is a random path: exact but for it, at any query.

S(y) + sigma G(y), G a Gaussian process with the kernel as covariance. Answers to any
finite list of queries are Gaussian with covariance sigma^2 (K_YY + lambda I), and one
record moves them by k_Y(x), whose length in that metric is at most 1. So all answers
together, however many and however chosen, are one Gaussian release; and the path is
one: the same query has the same answer. The records stay with whoever answers.

The covariance must be the kernel's own: a path of finitely many random waves has a
covariance of low rank, and exact sums show beside it. Hence no other noise is taken.

Source: Hall, Rinaldo, Wasserman, "Differential Privacy for Functions and Functional
Data", 2013, arXiv:1203.2570.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
import threading
from typing import Any, NoReturn

import jax
import numpy as np
from dp_accounting import DpEvent
from scipy import linalg

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.relations import Relation, as_relation
from dpkit.mechanisms.density.grid_noise import Gaussian, Reach
from dpkit.mechanisms.density.kernels import Kernel
from dpkit.mechanisms.density.structure import Answers
from dpkit.mechanisms.noise import host_generator

_SUMS, _PUBLISHED = 2**40, 2**16  # steps in 1; and of those in a step of an answer
_MOST_RECORDS = 2**22  # whose sums stay below 2^63 steps
_CHUNK = 2**16
_MOST_NOISE = 2**12  # 2^36 steps of an answer


@dataclasses.dataclass(frozen=True)
class ExactKernel:
    r"""Kernel sums answered one after another, all of them as one Gaussian release.

    Privacy: a record moves the answers by at most 1 in the metric of the noise, and by
    sqrt(max_queries) 2^-41 / sqrt(lambda) more for rounding; a replaced one by sqrt(2),
    since kernels are not negative.

    Args:
      kernel: which, and its bandwidth.
      noise: `Gaussian`.
      max_queries: the most different queries; their matrix is kept.
      jitter: lambda, added to the noise's covariance; never taken away.

    Raises:
      ValueError, TypeError: a field out of range; other noise.

    Example:
      >>> exact = ExactKernel(Kernel("gaussian", 1.0), Gaussian(4.0))
      >>> exact.event("replace_one")  # 4 sqrt(2), for a reach of 2
      GaussianDpEvent(noise_multiplier=5.65...)
      >>> curator = exact.begin(jax.random.key(0), np.zeros((1000, 2)))
      >>> first, again = curator.query([[0.0, 0.0], [0.0, 0.0]]).values
      >>> bool(first == again), round(float(first), -2)
      (True, 1000.0)
    """

    kernel: Kernel
    noise: Gaussian
    max_queries: int = 4096
    jitter: float = 1e-6

    def __post_init__(self) -> None:
        """Refuses what doesn't fit together."""
        if not isinstance(self.kernel, Kernel):
            raise TypeError(f"kernel={self.kernel!r}: needed a Kernel")
        if not isinstance(self.noise, Gaussian):
            raise TypeError(
                f"noise={self.noise!r}: needed Gaussian noise, whose covariance is the "
                "kernel; any other would show the exact sums"
            )
        if self.noise.noise_multiplier > _MOST_NOISE:
            raise ValueError(f"noise={self.noise!r}: needed at most {_MOST_NOISE}")
        checks.integer_at_least(1, max_queries=self.max_queries)
        if not 1e-10 <= checks.positive(jitter=self.jitter) <= 1:
            raise ValueError(f"jitter={self.jitter}: needed a number in [1e-10, 1]")

    @property
    def reach(self) -> Reach:
        """How far a record moves all answers, in the metric of the noise."""
        stretched = math.sqrt(self.max_queries / self.jitter) / (2 * _SUMS)
        l2, far = 1 + stretched, math.sqrt(2) + 2 * stretched
        return Reach(l2, math.inf, far, math.inf)

    @property
    def stddev(self) -> float:
        """Standard deviation of the noise on an answer."""
        return self.noise.stddev(self.reach, 1) * math.sqrt(1 + self.jitter)

    def event(self, relation: Relation | str) -> DpEvent:
        """The cost of all answers together."""
        return self.noise.event(self.reach, as_relation(relation))

    def begin(self, key: jax.Array, points: Any) -> Curator:
        """Starts a path over some records; charge the event first.

        Args:
          key: used for this path alone.
          points: private, (n, d); rows that are not finite count for none.
        """
        return Curator(self, key, np.asarray(points, np.float64))


class Curator:
    """Answers queries about records that it keeps; private, all of it.

    It can't be copied, pickled or printed: the path's past is what hides the records.

    Example:
      >>> exact = ExactKernel(Kernel("gaussian", 1.0), Gaussian(4.0))
      >>> curator = exact.begin(jax.random.key(0), np.zeros((1000, 2)))
      >>> curator.query([[9.0, 9.0]]).stddev.round(2)
      array([4.])
    """

    def __init__(
        self, mechanism: ExactKernel, key: jax.Array, points: np.ndarray
    ) -> None:
        if points.ndim != 2 or len(points) > _MOST_RECORDS:
            raise ValueError(
                f"points of shape {points.shape}: needed (n, d), n at most "
                f"{_MOST_RECORDS:,}"
            )
        self.mechanism = mechanism
        self._points = points[np.isfinite(points).all(axis=1)]
        # The noise of a query depends on the key and on all queries up to it.
        self._secret = host_generator(key).bytes(32)
        self._history = b""
        self._lock, self._process = threading.Lock(), os.getpid()
        self._asked = np.zeros((0, points.shape[1]))
        self._answers: dict[bytes, float] = {}
        most = mechanism.max_queries
        self._factor, self._path = np.zeros((64, 64)), np.zeros(most)

    def query(self, queries: Any) -> Answers:
        """Sums of k(x, y) over the records.

        Privacy: covered by the one event, whatever is asked, and after what answers.

        Args:
          queries: public points, (q, d).

        Raises:
          ValueError: not finite, of another dimension, or too many different ones.
          RuntimeError: in another process than the one that began.
        """
        queries = np.asarray(queries, np.float64)
        dimension = self._asked.shape[1]
        if queries.ndim != 2 or queries.shape[1] != dimension:
            raise ValueError(
                f"queries of shape {queries.shape}: needed (count, {dimension})"
            )
        if not np.isfinite(queries).all():
            raise ValueError("queries: needed finite numbers")
        if os.getpid() != self._process:
            raise RuntimeError(
                "this Curator was begun in another process: two of them would go on "
                "with two paths of noise under one charge; ask the one that began it"
            )
        with self._lock:
            values = np.array([self._answer(query) for query in queries + 0.0])
        ones = np.ones(len(queries))
        return Answers(values, self.mechanism.stddev * ones, 2**-23 * ones)

    def _answer(self, query: np.ndarray) -> float:
        """One answer; the same as before, if it was asked before."""
        name = query.tobytes()
        if name not in self._answers:
            if len(self._asked) >= self.mechanism.max_queries:
                raise ValueError(
                    f"queries: {self.mechanism.max_queries} different ones were asked; "
                    "raise max_queries beforehand, or use a sketch"
                )
            noise = self.mechanism.noise.stddev(self.mechanism.reach, 1)
            steps = round(noise * self._step(query) * _SUMS)
            total = self._sum(query) + steps
            self._answers[name] = round(total / _PUBLISHED) * (_PUBLISHED / _SUMS)
        return self._answers[name]

    def _sum(self, query: np.ndarray) -> int:
        """The exact sum in steps, each record's rounded."""
        total = 0
        for start in range(0, len(self._points), _CHUNK):
            some = self._points[start : start + _CHUNK]
            values = self.mechanism.kernel.between(query[None], some)
            total += int(np.rint(values * _SUMS).astype(np.int64).sum())
        return total

    def _step(self, query: np.ndarray) -> float:
        """The path at a new query, given what it was at the earlier ones."""
        count, size = len(self._asked), len(self._factor)
        if count == size:
            grown = np.zeros((2 * size, 2 * size))
            grown[:size, :size] = self._factor
            self._factor = grown
        near = self.mechanism.kernel.between(self._asked, query[None])[:, 0]
        known = self._factor[:count, :count]
        row: Any = near
        if count:
            row = linalg.solve_triangular(known, near, lower=True)
        # Rounding may leave less than lambda; less noise than that must not be.
        least = self.mechanism.jitter
        rest = math.sqrt(max(1 + least - float(row @ row), least))
        self._factor[count, :count], self._factor[count, count] = row, rest
        seed = hashlib.blake2b(self._history + query.tobytes(), key=self._secret)
        self._history = hashlib.sha256(self._history + query.tobytes()).digest()
        words = np.frombuffer(seed.digest()[:16], np.uint64)
        normal = np.random.Generator(np.random.Philox(key=words)).normal()
        self._path[count] = normal
        self._asked = np.concatenate([self._asked, query[None]])
        return float(row @ self._path[:count] + rest * self._path[count])

    def __repr__(self) -> str:
        return f"<Curator of {self.mechanism}, {len(self._asked)} answers so far>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Curator holds private records and the noise that hides them, and can't "
            "be saved or copied; release a sketch instead"
        )
