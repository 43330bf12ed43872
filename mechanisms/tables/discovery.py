r"""What a column holds, where nobody has declared it: its categories, or its bounds.

Categories. Every value that is seen is counted, with noise, and kept if its noisy count
reaches a threshold. Values that both neighbours hold are a plain histogram. A value
that one of them alone holds has at most `reach` counts, and is kept with probability at
most delta / reach: beside the noise that is an independent coin, (0, delta)-private.
A replaced record may be alone with its values on both sides: two such coins.

Bounds. A histogram over signed powers of two, whose bins are public, so no delta. The
outermost bins above what empty ones reach by chance give bounds; data outside is
clamped.

Source: Korolova, Kenthapadi, Mishra, Ntoulas, "Releasing Search Queries and Clicks
Privately", 2009; the thresholds are derived here, for noise on a grid.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
from dp_accounting import DpEvent
from scipy import special

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.relations import Relation, as_relation
from dpkit.accountants.events.composing import repeat, sequential
from dpkit.accountants.events.own import ApproxDpEvent, PureDpEvent
from dpkit.mechanisms.density.grid_noise import Gaussian, Laplace, Reach
from dpkit.mechanisms.noise import host_generator
from dpkit.mechanisms.protocol import Key, static
from dpkit.mechanisms.tables.marginals import PureMarginals, grid_step, noise_size

_FURTHEST = 60  # bins end at 2^-60 and 2^60, either side of 0
_ZERO = 2 * _FURTHEST + 1  # the bin of 0, with as many either side
_POWERS = 2.0 ** np.arange(-_FURTHEST, _FURTHEST + 1)
_UPPER = np.concatenate([-_POWERS[::-1] / 2, [0.0], _POWERS])  # edges of bins
_UPPER[_ZERO - 1] = 0.0


@static
@dataclasses.dataclass(frozen=True, kw_only=True)
class StableHistogram:
    r"""The values of a column that many rows have, and their noisy counts.

    Privacy: the noise's event, and (0, delta) once; twice where a record is replaced.

    Args:
      noise: `Laplace(epsilon)` or `Gaussian(noise_multiplier)`, relative to `reach`.
      delta: the chance that a value of one unit alone is kept; in (0, 0.1].
      reach: the most rows of one unit.

    Raises:
      ValueError, TypeError: a field out of range.

    Example:
      >>> import jax
      >>> names = StableHistogram(noise=Laplace(1.0), delta=1e-6)
      >>> names.event("add_remove").events
      [PureDpEvent(epsilon=1.0), ApproxDpEvent(epsilon=0.0, delta=1e-06)]
      >>> round(names.threshold, 2)
      14.12
      >>> found = names.privatize(jax.random.key(0), {"no": 700, "yes": 90, "Jo": 1})
      >>> sorted(found)
      ['no', 'yes']
    """

    noise: Gaussian | Laplace
    delta: float
    reach: int = 1

    draws_on_host: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuses what doesn't fit together."""
        if not isinstance(self.noise, Gaussian | Laplace):
            raise TypeError(f"noise={self.noise!r}: needed Gaussian or Laplace noise")
        if checks.open_probability(delta=self.delta) > 0.1:
            raise ValueError(f"delta={self.delta}: needed at most 0.1")
        checks.integer_at_least(1, reach=self.reach)
        noise_size(noise=self.stddev)

    @property
    def moved(self) -> Reach:
        """How far a unit moves the counts of values that both neighbours hold."""
        return Reach(1.0, 1.0, math.sqrt(2), 2.0).times(self.reach)

    @property
    def stddev(self) -> float:
        """Of the noise on a count."""
        return self.noise.stddev(self.moved, 1)

    @property
    def step(self) -> float:
        """The grid of noisy counts."""
        return grid_step(self.stddev)

    @functools.cached_property
    def threshold(self) -> float:
        """The least noisy count that is kept; public."""
        share = self.delta / self.reach
        if isinstance(self.noise, Laplace):
            above = _laplace_quantile(self.reach / self.noise.epsilon, self.step, share)
        else:
            # Noise of half a step less is rounded up to a step.
            exact = -float(special.ndtri(share)) * self.stddev / self.step + 0.5
            above = math.ceil(exact * (1 + 1e-12)) * self.step
        return self.reach + above

    def event(self, relation: Relation | str) -> DpEvent:
        """The cost of the one release: the noise, and the coins."""
        relation = as_relation(relation)
        coins = 2 if relation is Relation.REPLACE_ONE else 1
        noisy = self.noise.event(self.moved, relation)
        return sequential([noisy, repeat(ApproxDpEvent(0.0, self.delta), coins)])

    def total(self, values: Iterable[str | None]) -> dict[str, int]:
        """How often each value is there: private. None counts for none."""
        return dict(collections.Counter(x for x in values if x is not None))

    def privatize(self, key: Key, counts: Mapping[str, int]) -> dict[str, float]:
        """The values kept, in alphabetical order, and their noisy counts.

        Args:
          key: used for this release alone.
          counts: exact, of every value that is there; private.

        Raises:
          TypeError: a legacy key, a tracer, values that are not texts, or counts that
            are not whole numbers.
        """
        if not all(isinstance(value, str) for value in counts):
            raise TypeError("counts: needed texts as values; write others as texts")
        # Sorted: an order of first appearance would tell of the rows.
        values = sorted(counts)
        exact = np.array([counts[value] for value in values] or [0])
        if exact.dtype.kind not in "iu":
            raise TypeError(f"counts={exact.dtype}: needed whole numbers")
        draws = host_generator(key), exact.shape, self.moved, self.step
        noise = np.rint(self.noise.draw(*draws) / self.step) * self.step
        noisy = zip(values, (exact + noise).tolist(), strict=False)
        return {value: count for value, count in noisy if count >= self.threshold}


@static
@dataclasses.dataclass(frozen=True, kw_only=True)
class BoundsHistogram:
    """Bounds of a column of numbers, each a power of two, or 0.

    Privacy: pure epsilon; twice that where a record is replaced.

    Args:
      epsilon: of the release; above 0.
      reach: the most rows of one unit.

    Raises:
      ValueError, TypeError: a field out of range.

    Example:
      >>> import jax
      >>> finder = BoundsHistogram(epsilon=1.0)
      >>> incomes = np.array([0.0, 1_500.0, 40_000.0, 70_000.0] * 100)
      >>> noisy = finder.privatize(jax.random.key(0), finder.total(incomes))
      >>> finder.bounds(noisy)
      (0.0, 131072.0)
    """

    epsilon: float
    reach: int = 1

    draws_on_host: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuses what is no number."""
        checks.positive(epsilon=self.epsilon)
        checks.integer_at_least(1, reach=self.reach)
        noise_size(epsilon=self.reach / self.epsilon)

    @functools.cached_property
    def histogram(self) -> PureMarginals:
        """One family of 243 bins."""
        return PureMarginals(
            families=((0,),),
            sizes=(2 * _ZERO + 1,),
            scales=(self.reach / self.epsilon,),
            reach=self.reach,
        )

    def event(self, relation: Relation | str) -> DpEvent:
        """The cost of the one release; bounds are read off it at no cost."""
        replaced = as_relation(relation) is Relation.REPLACE_ONE
        return PureDpEvent(2 * self.epsilon if replaced else self.epsilon)

    def total(self, values: Any) -> np.ndarray:
        """How many values each bin has, (243,) int64: private.

        Args:
          values: real numbers, (n,); NaN counts for none, infinities are far out.

        Raises:
          TypeError: not real numbers.
        """
        values = np.asarray(values)
        if values.dtype.kind not in "iuf":
            raise TypeError(f"values={values.dtype}: needed real numbers")
        return self.histogram.total(_bins(values.astype(np.float64))[:, None])

    def privatize(self, key: Key, total: Any) -> np.ndarray:
        """The bins with noise, (..., 243) float64."""
        return self.histogram.privatize(key, total)

    def bounds(
        self, noisy: np.ndarray, *, false_positives: float = 0.01
    ) -> tuple[float, float] | None:
        """The outer edges of the outermost bins that stand out; None if none does.

        Post-processing: it costs nothing.

        Args:
          noisy: what `privatize` returned, (243,).
          false_positives: the chance that any empty bin stands out; in (0, 0.5].
        """
        chance = checks.open_probability(false_positives=false_positives)
        scale = self.reach / self.epsilon
        share = min(chance, 0.5) / len(noisy)
        found = np.flatnonzero(
            noisy >= _laplace_quantile(scale, grid_step(scale), share)
        )
        if not len(found):
            return None
        # Bins mirror each other. What is 0 has no sign.
        return 0.0 - float(_UPPER[-1 - found[0]]), float(_UPPER[found[-1]])


def _bins(values: np.ndarray) -> np.ndarray:
    """The bin of each value, [2^(e-1), 2^e) and its mirror image; of NaN, -1."""
    exponent = np.frexp(values)[1]
    exponent = np.where(np.isinf(values), _FURTHEST, exponent)
    beyond = np.clip(exponent, -_FURTHEST, _FURTHEST) + _FURTHEST + 1
    bins = _ZERO + np.sign(np.nan_to_num(values)).astype(np.int64) * beyond
    return np.where(np.isnan(values), -1, bins)


def _laplace_quantile(scale: float, step: float, probability: float) -> float:
    """The least multiple t of step, above 0, with P(noise >= t) <= probability.

    For t > 0, P(noise >= t) = exp(-t / scale) / (1 + exp(-step / scale)).
    """
    exact = -scale * math.log(probability * (1 + math.exp(-step / scale)))
    return max(1, math.ceil(exact / step * (1 + 1e-12))) * step
