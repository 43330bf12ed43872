r"""Noise for sums of integers: drawn in float64, rounded to the grid of the sum.

A structure counts in whole steps of a public grid, so a sum is exact in any order, on
any number of devices. Noise is added to the total and the result rounded to the grid;
since the total lies on the grid, rounding the noise is the same, and is post-processing
of noise that was not rounded. What is published is thus a whole number of steps,
whatever the records are: its last bits tell nothing of the sum (Mironov, "On
significance of the least significant bits for differential privacy", 2012).

| noise | law | a record's reach | event |
|---|---|---|---|
| `Gaussian` | N(0, (noise_multiplier r2)^2) on every entry | r2 in L2 | Gaussian |
| `Radial` | density ~ exp(-epsilon ||z||_2 / r2) | r2 in L2 | pure epsilon |
| `Laplace` | discrete, on the grid, of scale r1 / epsilon | r1 in L1 | pure epsilon |

By the triangle inequality in the exponent, `Radial` is epsilon-private (Hardt and
Talwar, "On the geometry of differential privacy", 2010, arXiv:0907.3754); its standard
deviation in any direction is sqrt(D + 1) r2 / epsilon for D entries, sqrt(2) below
Laplace noise where every entry moves.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple, Protocol

import numpy as np
from dp_accounting import DpEvent, GaussianDpEvent

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.relations import Relation
from dpkit.accountants.events.own import PureDpEvent
from dpkit.mechanisms.noise import discrete_laplace


class Reach(NamedTuple):
    """How far one unit can move a sum, rounding included.

    Attributes:
      l2, l1: in L2 and in L1 norm, where it is added, removed or made a null record.
      l2_replaced, l1_replaced: where it becomes another; at most twice as far.

    Example:
      >>> Reach(1.0, 2.0, 2.0, 4.0).times(3.0).l1_replaced
      12.0
    """

    l2: float
    l1: float
    l2_replaced: float
    l1_replaced: float

    def times(self, factor: float) -> Reach:
        """The reach of so many such units together."""
        return Reach(*(factor * value for value in self))


class Noise(Protocol):
    """What is drawn, how large it is, and what it costs."""

    def stddev(self, reach: Reach, size: int) -> float:
        """Standard deviation of the noise in any direction of unit length."""
        ...

    def event(self, reach: Reach, relation: Relation) -> DpEvent:
        """The cost of one release."""
        ...

    def draw(
        self,
        generator: np.random.Generator,
        shape: tuple[int, ...],
        reach: Reach,
        step: float,
    ) -> np.ndarray:
        """Noise of this shape, float64; a release is the last axis.

        Args:
          step: of the grid to which the noise will be rounded.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """Gaussian noise, `noise_multiplier` times a record's reach in L2.

    Args:
      noise_multiplier: standard deviation / reach under add_remove; > 0.

    Example:
      >>> reach = Reach(0.5, 1.0, 1.0, 2.0)
      >>> Gaussian(4.0).stddev(reach, 10), Gaussian(4.0).event(reach, "add_remove")
      (2.0, GaussianDpEvent(noise_multiplier=4.0))
    """

    noise_multiplier: float

    def __post_init__(self) -> None:
        """Refuses no noise, and what is no number."""
        checks.positive(noise_multiplier=self.noise_multiplier)

    def stddev(self, reach: Reach, size: int) -> float:
        """The same in every direction, whatever the size."""
        del size
        return self.noise_multiplier * reach.l2

    def event(self, reach: Reach, relation: Relation) -> DpEvent:
        """A Gaussian; accountants double what a replaced record moves."""
        if relation is not Relation.REPLACE_ONE:
            return GaussianDpEvent(self.noise_multiplier)
        return GaussianDpEvent(self.noise_multiplier * 2 * reach.l2 / reach.l2_replaced)

    def draw(
        self,
        generator: np.random.Generator,
        shape: tuple[int, ...],
        reach: Reach,
        step: float,
    ) -> np.ndarray:
        """Independent entries."""
        del step
        return generator.normal(scale=self.stddev(reach, shape[-1]), size=shape)


@dataclasses.dataclass(frozen=True)
class Radial:
    """Noise in a uniform direction, of a length that is Gamma(D, r2 / epsilon).

    Args:
      epsilon: of the release under add_remove; > 0.

    Example:
      >>> reach = Reach(1.0, 1.0, 2.0, 2.0)
      >>> Radial(2.0).stddev(reach, 8), Radial(2.0).event(reach, Relation.REPLACE_ONE)
      (1.5, PureDpEvent(epsilon=4.0))
    """

    epsilon: float

    def __post_init__(self) -> None:
        """Refuses no noise, and what is no number."""
        checks.positive(epsilon=self.epsilon)

    def stddev(self, reach: Reach, size: int) -> float:
        """In any one direction: the length is Gamma, its mean square over D."""
        return math.sqrt(size + 1) * reach.l2 / self.epsilon

    def event(self, reach: Reach, relation: Relation) -> DpEvent:
        """Pure epsilon, by how far a record moves the sum."""
        return _pure(self.epsilon, reach.l2, reach.l2_replaced, relation)

    def draw(
        self,
        generator: np.random.Generator,
        shape: tuple[int, ...],
        reach: Reach,
        step: float,
    ) -> np.ndarray:
        """A direction times a length, for each release."""
        del step
        direction = generator.normal(size=shape)
        direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
        scale = reach.l2 / self.epsilon
        length = generator.gamma(shape[-1], scale, size=shape[:-1])
        return direction * length[..., None]


@dataclasses.dataclass(frozen=True)
class Laplace:
    """Discrete Laplace noise on the grid, of scale r1 / epsilon, on every entry.

    Reference: Ghosh, Roughgarden, Sundararajan, "Universally Utility-Maximizing Privacy
    Mechanisms", 2009, arXiv:0811.2841.

    Args:
      epsilon: of the release under add_remove; > 0.

    Example:
      >>> reach = Reach(1.0, 1.0, 2.0, 2.0)
      >>> round(Laplace(2.0).stddev(reach, 8), 4)
      0.7071
    """

    epsilon: float

    def __post_init__(self) -> None:
        """Refuses no noise, and what is no number."""
        checks.positive(epsilon=self.epsilon)

    def stddev(self, reach: Reach, size: int) -> float:
        """sqrt(2) times the scale."""
        del size
        return math.sqrt(2) * reach.l1 / self.epsilon

    def event(self, reach: Reach, relation: Relation) -> DpEvent:
        """Pure epsilon, by how far a record moves the sum."""
        return _pure(self.epsilon, reach.l1, reach.l1_replaced, relation)

    def draw(
        self,
        generator: np.random.Generator,
        shape: tuple[int, ...],
        reach: Reach,
        step: float,
    ) -> np.ndarray:
        """Independent entries, whole numbers of steps."""
        scale = reach.l1 / (step * self.epsilon)
        return discrete_laplace(generator, scale, shape) * step


def _pure(epsilon: float, near: float, far: float, relation: Relation) -> DpEvent:
    """Pure epsilon; a replaced record moves the sum by `far` in the place of `near`."""
    if relation is Relation.REPLACE_ONE:
        epsilon = epsilon * far / near
    return PureDpEvent(epsilon)
