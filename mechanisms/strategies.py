r"""Which correlated noise: three kinds of matrices C, and how their numbers are chosen.

| strategy | coefficients | memory of the stream | for |
|---|---|---|---|
| `Banded` | any, up to `bands` | bands - 1 copies | cyclic batches, bands <= period |
| `Buffered` | sum_i w_i d_i^(j-1) | one copy a buffer | one pass, long runs |
| `SquareRoot` | those of the root of A | none; step t draws t | one pass, short runs |

Each is plain numbers, public and hashable; `optimal_bands` and `optimal_buffers` find
good ones for a run, from public sizes alone. Coefficients are never negative and never
rise, so that the sensitivity is exact. Numbers are rounded to float32 when a strategy
is made: the sensitivity is that of the matrix that the device uses, not of one near it.

Sources: Choquette-Choo et al., 2023, arXiv:2306.08153; Dvijotham et al., 2024,
arXiv:2404.16706; McMahan, Xu, Zhang, "A Hassle-free Algorithm for Private Learning in
Practice", 2024, arXiv:2408.08868.
"""

import dataclasses
import math
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.signal import correlate, lfilter
from scipy.special import expit

from dpkit.accountants.answers import checks
from dpkit.mechanisms.factorisation import (
    Participation,
    checked_coefficients,
    checked_participation,
    error_weights,
    inverse_coefficients,
    moved,
    padded,
    square_root_coefficients,
)

Vector = np.ndarray


@dataclasses.dataclass(frozen=True)
class Banded:
    """C has these coefficients and no others.

    Args:
      bands: coefficients (c_0, ..., c_{b-1}), c_0 = 1, non-negative, never rising.

    Raises:
      ValueError: other coefficients.

    Example:
      >>> Banded((1.0, 0.5)).coefficients(3).tolist()
      [1.0, 0.5, 0.0]

    Reference: Choquette-Choo et al., 2023, arXiv:2306.08153.
    """

    bands: tuple[float, ...]

    def __post_init__(self) -> None:
        vector = checked_coefficients(self.bands)
        if vector.min() < 0 or np.diff(vector).max(initial=0.0) > 0:
            raise ValueError(
                "bands: needed coefficients >= 0, none above the one before it"
            )
        rounded = vector.astype(np.float32).tolist()
        object.__setattr__(self, "bands", tuple(rounded))

    def coefficients(self, steps: int) -> Vector:
        """float64 (steps,)."""
        return padded(np.array(self.bands), steps)


@dataclasses.dataclass(frozen=True)
class Buffered:
    """C has coefficients 1 and c_j = sum_i w_i d_i^(j-1) for j >= 1.

    Args:
      decays: d_i, from 0 to 1, both excluded.
      weights: w_i > 0, at most 1 together.

    Raises:
      ValueError: a number out of range, or lengths that differ.

    Example:
      >>> Buffered(decays=(0.5,), weights=(0.25,)).coefficients(4).tolist()
      [1.0, 0.25, 0.125, 0.0625]

    Reference: Dvijotham et al., 2024, arXiv:2404.16706.
    """

    decays: tuple[float, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        decays = tuple(_below(checks.open_probability(decays=x)) for x in self.decays)
        weights = tuple(_below(checks.positive(weights=x)) for x in self.weights)
        if len(decays) != len(weights) or not decays:
            raise ValueError(
                f"weights={len(weights)}: needed one for each of {len(decays)} decays, "
                "and one at least"
            )
        if math.fsum(weights) > 1:
            raise ValueError(
                f"weights: sum {math.fsum(weights)!r}, needed at most 1, so that "
                "coefficients never rise"
            )
        object.__setattr__(self, "decays", decays)
        object.__setattr__(self, "weights", weights)

    def coefficients(self, steps: int) -> Vector:
        """float64 (steps,)."""
        powers = np.power.outer(np.array(self.decays), np.arange(steps - 1))
        return np.concatenate([[1.0], np.array(self.weights) @ powers])


@dataclasses.dataclass(frozen=True)
class SquareRoot:
    """C is the square root of the triangle of ones.

    Example:
      >>> SquareRoot().coefficients(3).tolist()
      [1.0, 0.5, 0.375]
      >>> SquareRoot().inverse(3).tolist()
      [1.0, -0.5, -0.125]

    Reference: Fichtenberger, Henzinger, Upadhyay, 2022, arXiv:2202.11205.
    """

    def inverse(self, steps: int) -> Vector:
        """Coefficients of C^-1, float32 (steps,): -r_k / (2k - 1)."""
        k = np.arange(steps)
        return (-square_root_coefficients(steps) / (2 * k - 1)).astype(np.float32)

    def coefficients(self, steps: int) -> Vector:
        """float64 (steps,): the root's, as the rounded inverse has them."""
        return inverse_coefficients(self.inverse(steps), steps)


Strategy = Banded | Buffered | SquareRoot


def optimal_bands(
    steps: int, bands: int, participation: Participation, *, error: str = "mean"
) -> Banded:
    """Coefficients with the least error of prefix sums at equal privacy.

    Minimises sensitivity * prefix_error by L-BFGS over c_j = c_{j-1} sigmoid(u_j), so
    never rising. Starts from the square root's, cut off; never returns worse ones. The
    best `bands` for cyclic batches is often near the period.

    Privacy: uses public sizes only.

    Args:
      steps: n >= 1.
      bands: b >= 1, at most n.
      participation: which sets of steps one record may take part in.
      error: "mean" (root mean square over all prefixes) or "max" (the worst one).

    Returns:
      A strategy.

    Raises:
      ValueError: a number out of range.
      TypeError: another participation.

    Example:
      >>> from dpkit.mechanisms.factorisation import Cyclic
      >>> strategy = optimal_bands(16, 4, Cyclic(4))
      >>> len(strategy.bands), strategy.bands[0]
      (4, 1.0)

    Reference: Choquette-Choo et al., "(Amplified) Banded Matrix Factorization", 2023,
    arXiv:2306.08153; for Toeplitz bands, section 4 of McMahan et al., 2024,
    arXiv:2408.08868, has the same objective.
    """
    loss = _Loss(steps, participation, error)
    bands = checks.integer_at_least(1, bands=bands)
    if bands > steps:
        raise ValueError(f"bands={bands}: needed at most steps={steps}")
    if bands == 1:
        return Banded((1.0,))

    def objective(u: Vector) -> tuple[float, Vector]:
        ratios = expit(u)
        c = np.concatenate([[1.0], np.cumprod(ratios)])
        value, gradient = loss(c, inverse=([1.0], c))
        # dc_k / du_j = c_k (1 - ratio_j) for k >= j.
        behind = np.cumsum((gradient * c)[::-1])[::-1]
        return value, (behind[1:] * (1 - ratios))

    root = square_root_coefficients(bands)
    ratios = root[1:] / root[:-1]
    found = minimize(
        objective, np.log(ratios / (1 - ratios)), jac=True, method="L-BFGS-B"
    )
    return Banded((1.0, *np.cumprod(expit(found.x)).tolist()))


def optimal_buffers(
    steps: int, buffers: int, participation: Participation, *, error: str = "max"
) -> Buffered:
    """Decays and weights with the least error of prefix sums at equal privacy.

    Minimises sensitivity * prefix_error by L-BFGS over d = sigmoid(v) and w =
    softmax(u), one share of it left out, so that weights sum to less than 1.

    Privacy: uses public sizes only.

    Args:
      steps: n >= 2.
      buffers: from 1 to 8; 4 come within 1 % of the square root for 10^4 steps.
      participation: which sets of steps one record may take part in.
      error: "max" (the worst prefix) or "mean".

    Returns:
      A strategy.

    Raises:
      ValueError: a number out of range.
      TypeError: another participation.

    Example:
      >>> from dpkit.mechanisms.factorisation import SinglePass
      >>> len(optimal_buffers(64, 2, SinglePass()).decays)
      2

    Reference: Dvijotham et al., "Efficient and Near-Optimal Noise Generation for
    Streaming Differential Privacy", 2024, arXiv:2404.16706.
    """
    checks.integer_at_least(2, steps=steps)
    buffers = checks.integer_at_least(1, buffers=buffers)
    if buffers > 8:
        raise ValueError(f"buffers={buffers}: needed at most 8; more gain nothing")
    loss = _Loss(steps, participation, error)

    def objective(x: Vector) -> tuple[float, Vector]:
        decays, weights = _decays_and_weights(x)
        return _buffer_gradient(loss, decays, weights)

    # Decay times spread evenly in their logarithm, from 1 step to the whole run.
    times = np.exp(np.log(steps) * (np.arange(buffers) + 0.5) / buffers)
    start = np.concatenate([np.log(times), np.full(buffers, -math.log(buffers))])
    options = {"maxiter": 500, "ftol": 1e-12, "gtol": 1e-9}
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
    decays, weights = _decays_and_weights(found.x)
    return Buffered(tuple(decays.tolist()), tuple(weights.tolist()))


class _Loss:
    """log(sensitivity * error) and its gradient in the coefficients."""

    def __init__(self, steps: int, participation: Participation, error: str) -> None:
        self.steps = checks.integer_at_least(1, steps=steps)
        self.positions = checked_participation(participation).positions(self.steps)
        self.weights = error_weights(self.steps, error)

    def __call__(self, c: Vector, inverse: tuple[Any, Any]) -> tuple[float, Vector]:
        """Value and gradient; 1 / C(x) is inverse[0] / inverse[1] as polynomials."""
        steps, length = self.steps, len(c)
        total = moved(padded(c, steps), self.positions)
        pulled = sum(padded(total[p:], length) for p in self.positions)
        # B(x) = 1 / ((1 - x) C(x)), so dB = -B / C dC.
        sums = np.cumsum(lfilter(*inverse, np.eye(1, steps)[0]))
        slope = lfilter(*inverse, sums)
        weighted = self.weights * sums
        back = correlate(weighted, slope, method="auto")[steps - 1 :][:length]
        error = float(weighted @ sums)
        value = 0.5 * math.log(float(total @ total)) + 0.5 * math.log(error)
        return value, pulled / float(total @ total) - back / error


def _below(number: float) -> float:
    """The nearest float32 that is not above."""
    rounded = np.float32(number)
    if rounded > number:
        rounded = np.nextafter(rounded, np.float32(0))
    if rounded == 0:
        raise ValueError(f"decays, weights: needed numbers above 1e-45, not {number!r}")
    return float(rounded)


def _decays_and_weights(x: Vector) -> tuple[Vector, Vector]:
    """From numbers without constraints."""
    half = len(x) // 2
    shares = np.exp(x[half:] - max(0.0, x[half:].max()))
    rest = math.exp(-max(0.0, x[half:].max()))
    # Away from 1, so that they are decays in float32 too.
    return (1 - 1e-6) * expit(x[:half]), shares / (rest + shares.sum())


def _buffer_gradient(
    loss: _Loss, decays: Vector, weights: Vector
) -> tuple[float, Vector]:
    """The loss of a buffered strategy and its gradient in the free numbers."""
    lags = np.arange(loss.steps - 1)
    powers = np.power.outer(decays, lags)
    c = np.concatenate([[1.0], weights @ powers])
    value, gradient = loss(c, _rational_inverse(decays, weights))
    by_weight = powers @ gradient[1:]
    # d/dd of d^m is m d^(m-1).
    by_decay = weights * (powers[:, :-1] @ (gradient[2:] * lags[1:]))
    share = decays / (1 - 1e-6)
    by_v = by_decay * (1 - 1e-6) * share * (1 - share)
    by_u = weights * (by_weight - weights @ by_weight)
    return value, np.concatenate([by_v, by_u])


def _rational_inverse(decays: Vector, weights: Vector) -> tuple[Vector, Vector]:
    """1 / C(x) = Q / P: Q = prod (1 - d_i x), P = Q + x sum_i w_i Q / (1 - d_i x)."""
    bottom = np.poly(decays)
    top = bottom.copy()
    for i, weight in enumerate(weights):
        top[1:] += weight * np.poly(np.delete(decays, i))
    return bottom, top
