r"""Sums of distances abs(x - y)^p, 1 <= p < 2, by hats on every scale.

Coordinate by coordinate, with u = (x - low) / R in [0, 1]: two linear statistics
sum(1 - u), sum(u), and for levels l = 0, 1, … in each of 2^l cells the sum of hats
1 - abs(2 (2^l u - k) - 1). The distance abs(. - v)^p, less its chords, is a sum of such
hats (Faber and Schauder), so sums of it are linear in the statistics; for p = 1 one
cell a level has a coefficient that isn't zero. It is exact where v is a multiple of
2^-L.

A record moves one hat a level by at most 1, and the linear pair by 1 in L1. Levels get
parts of epsilon that fall as slowly as 2^(-2 l / 3), which gives a variance that does
not grow with L: no logarithm of n stands in the error.

Source: derived here; the problem and its trees of counts are in Backurs, Lin, Mahabadi,
Silwal, Tarnawski, "Efficiently Computing Similarities to Private Datasets", 2024,
arXiv:2403.08917, and Liu, Hu, Reneau, Song, Liu, "Differentially Private Kernel Density
Estimation", 2024, arXiv:2409.01688.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from dpkit.accountants.answers import checks
from dpkit.mechanisms.density.domains import Domain, checked_domain
from dpkit.mechanisms.density.grid_noise import Gaussian, Laplace, Reach
from dpkit.mechanisms.density.structure import Answers, Structure
from dpkit.mechanisms.protocol import static

_MOST_LEVELS = 20
_SMALL = 512  # queries at a time where every cell of a level counts


@static
@dataclasses.dataclass(frozen=True, kw_only=True)
class HatDistances(Structure):
    r"""Noisy hats; answers are sums over x of sum_j abs(x_j - y_j)^p.

    Privacy: with weights a_0 for the linear pair and a_l for the levels, a point moves
    the features by sum(a) = 1 in L1 over all coordinates together, and a replaced one
    by 2. Points outside the domain count at its edge.

    Args:
      domain: public; low and high of every axis.
      power: p, from 1 to below 2; for squared distances use `SquaredDistances`.
      levels: L, from 1 to 20; each costs memory, none costs noise.
      noise: `Laplace`, or `Gaussian`; for p = 1 and Gaussian noise `CdfDistances` is
        twice as good.

    Raises:
      ValueError, TypeError: a field out of range.

    Example:
      >>> hats = HatDistances(domain=((0, 1),), levels=10, noise=Laplace(1.0))
      >>> hats.size, hats.event("replace_one")
      (1025, PureDpEvent(epsilon=2.0))
    """

    domain: Domain
    power: float = 1.0
    levels: int = 14

    def __post_init__(self) -> None:
        """Refuses what doesn't fit together."""
        object.__setattr__(self, "domain", checked_domain(self.domain))
        if not 1 <= checks.positive(power=self.power) < 2:
            raise ValueError(
                f"power={self.power}: needed one from 1 to below 2; for squared "
                "distances use SquaredDistances"
            )
        if checks.integer_at_least(1, levels=self.levels) > _MOST_LEVELS:
            raise ValueError(f"levels={self.levels}: needed at most {_MOST_LEVELS}")
        super().__post_init__()
        if not isinstance(self.noise, Gaussian | Laplace):
            raise TypeError(f"noise={self.noise!r}: needed Laplace or Gaussian noise")

    @property
    def dimension(self) -> int:
        """d: how many coordinates a point has."""
        return len(self.domain)

    @property
    def _cells(self) -> int:
        """Statistics of one coordinate."""
        return 2**self.levels + 1

    @property
    def size(self) -> int:
        """All statistics of all coordinates."""
        return self.dimension * self._cells

    @property
    def active(self) -> int:
        """The linear pair, and one hat a level."""
        return self.dimension * (self.levels + 2)

    @property
    def peak(self) -> float:
        """The largest weight."""
        return float(self.weights.max())

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """R of every axis."""
        return np.array([high - low for low, high in self.domain])

    @functools.cached_property
    def energies(self) -> np.ndarray:
        """What a unit of noise in the linear pair and in each level does to an answer,
        at the worst v: (levels + 1,) for R = 1."""
        if self.power == 1:
            return np.array(
                [1.0, *(2.0 ** -(level + 1) for level in range(self.levels))]
            )
        v = np.linspace(0, 1, 257)
        linear = np.hypot(v**self.power, (1 - v) ** self.power)
        found = [float(linear.max())]
        for level in range(min(self.levels, 10)):
            norms = np.linalg.norm(self._on_level(v, level), axis=1)
            found.append(float(norms.max()))
        while len(found) <= self.levels:
            found.append(found[-1] * found[-1] / found[-2])
        return np.array(found)

    @functools.cached_property
    def weights(self) -> np.ndarray:
        """What features are multiplied with, (d, levels + 1), so that noise is alike.

        They minimise the worst variance: by L1 they go with q^(2/3), by L2 with
        q^(1/2), for energies q and ranges to the power p.
        """
        power = 1 / 2 if isinstance(self.noise, Gaussian) else 2 / 3
        found = np.outer(self.lengths**self.power, self.energies) ** power
        if isinstance(self.noise, Gaussian):
            return found / np.linalg.norm(found)
        return found / found.sum()

    def point_reach(self) -> Reach:
        """1 in the norm of the noise."""
        return Reach(
            float(np.linalg.norm(self.weights)),
            float(self.weights.sum()),
            2 * float(np.linalg.norm(self.weights)),
            2 * float(self.weights.sum()),
        )

    def placed(self, points: Any) -> Any:
        """u in [0, 1] on every axis."""
        low = np.array([[a for a, _ in self.domain]], points.dtype)
        return ((points - low) / self.lengths[None].astype(points.dtype)).clip(0, 1)

    def features(self, placed: Any, labels: Any) -> tuple[Any, tuple[Any, ...]]:
        """Where the pair and the hats stand, and their values, weighted."""
        del labels
        start = jnp.arange(self.dimension)[None] * self._cells
        weights = self.weights.astype(np.float32)[None]
        index = [jnp.broadcast_to(start + j, placed.shape) for j in (0, 1)]
        value = [(1 - placed) * weights[:, :, 0], placed * weights[:, :, 0]]
        for level in range(self.levels):
            cells = 2**level
            cell = jnp.minimum(jnp.floor(placed * cells), cells - 1)
            hat = 1 - jnp.abs(2 * (placed * cells - cell) - 1)
            index.append(start + 1 + cells + cell.astype(jnp.int32))
            value.append(hat * weights[:, :, level + 1])
        rows = len(placed)
        joined = (
            jnp.stack(parts, axis=-1).reshape(rows, -1) for parts in (index, value)
        )
        where, what = joined
        return where, (what,)

    def answer(self, values: np.ndarray, queries: np.ndarray) -> Answers:
        """Chords, less what hats take off them; never below zero."""
        refuse_outside(queries, self.domain)
        if self.power != 1 and len(queries) > _SMALL:
            parts = [
                self.answer(values, queries[start : start + _SMALL])
                for start in range(0, len(queries), _SMALL)
            ]
            return Answers(*(np.concatenate(p) for p in zip(*parts, strict=True)))
        answers, squares, bias = self.by_axis(values, self.placed(queries))
        stddev = self.bar * np.sqrt(squares.sum(axis=0))
        return Answers(np.maximum(answers.sum(axis=0), 0), stddev, bias.sum(axis=0))

    def by_axis(
        self, values: np.ndarray, placed: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Each axis' answers, squared coefficients, and bias, (d, q)."""
        found = np.zeros((3, self.dimension, len(placed)))
        for axis, length in enumerate(self.lengths):
            factor = length**self.power
            own = self._on_axis(values, axis, placed[:, axis])
            for row, part in zip(found, own, strict=True):
                row[axis] = part
            found[:, axis] *= np.array([factor, factor**2, factor])[:, None]
        return found[0], found[1], found[2]

    def _on_axis(
        self, values: np.ndarray, axis: int, v: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The answers for a coordinate of length 1, squared coefficients, bias."""
        own = values[axis * self._cells : (axis + 1) * self._cells]
        weights, p = self.weights[axis], self.power
        left, right = v**p / weights[0], (1 - v) ** p / weights[0]
        answers = left * own[0] + right * own[1]
        variance = left**2 + right**2
        for level in range(self.levels):
            cells = 2**level
            hats = own[1 + cells : 1 + 2 * cells]
            if p == 1:
                cell = np.minimum((v * cells).astype(int), cells - 1)
                off = np.abs((cell + 0.5) / cells - v) - 0.5 / cells
                answers += off / weights[level + 1] * hats[cell]
                variance += (off / weights[level + 1]) ** 2
            else:
                found = self._on_level(v, level) / weights[level + 1]
                answers += found @ hats
                variance += (found**2).sum(axis=1)
        count = max(self.count_answer(values).high[0], 0.0) / self.max_weight
        # For p = 1, of the chord over v's leaf at v itself; elsewhere, at most a leaf.
        leaf = 2.0**-self.levels
        part = v / leaf % 1
        rest = 2 * part * (1 - part) if p == 1 else 1.0
        return answers, variance, count * rest * leaf**p

    def _on_level(self, v: np.ndarray, level: int) -> np.ndarray:
        """c = f(m - v) - (f(l - v) + f(r - v)) / 2 of every cell, (q, 2^level)."""
        edges = np.arange(2**level + 1) / 2**level
        at = np.abs(edges - v[:, None]) ** self.power
        middle = np.abs((edges[:-1] + edges[1:]) / 2 - v[:, None]) ** self.power
        return middle - (at[:, :-1] + at[:, 1:]) / 2

    def count_answer(self, values: np.ndarray) -> Answers:
        """How many points there are: every axis tells, and they are averaged."""
        pairs = values.reshape(self.dimension, -1)[:, :2].sum(axis=1)
        weights = self.weights[:, 0]
        # Of estimates pair / weight with variances ~ 1 / weight^2, the best mean.
        value = np.array([(pairs * weights).sum() / (weights**2).sum()])
        stddev = np.array([self.bar * math.sqrt(2 / (weights**2).sum())])
        return Answers(value, stddev, np.zeros(1)).times(self.max_weight)

    def expected_error(self, records: float) -> float:
        """Noise, averaged over queries."""
        del records
        v = np.linspace(0, 1, 64, endpoint=False) + 1 / 128
        zeros = np.zeros(self.size)
        variance = sum(
            length ** (2 * self.power) * self._on_axis(zeros, axis, v)[1].mean()
            for axis, length in enumerate(self.lengths)
        )
        return self.max_weight * self.stddev * math.sqrt(variance)

    def _floor(self) -> float:
        """Of one query: the noise times the largest distance."""
        return super()._floor() * float((self.lengths**self.power).sum())


def refuse_outside(queries: np.ndarray, domain: Domain) -> None:
    """Refuse queries outside a domain.

    Raises:
      ValueError: names the first one.
    """
    low, high = np.array(domain).T
    outside = ((queries < low) | (queries > high)).any(axis=1)
    if outside.any():
        row = int(np.flatnonzero(outside)[0])
        raise ValueError(
            f"queries[{row}]={queries[row]}: needed a point of domain={domain}, to "
            "which the records were limited too"
        )
