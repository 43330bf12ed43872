r"""Matrices of correlated noise, on the host: coefficients, sensitivity, error.

The sums of steps 1..t of x are A x, A the lower triangle of ones. With A = B C, C lower
triangular with ones on its diagonal, releasing x + C^-1 z publishes A x + B z: noise of
later steps takes back some of that of earlier ones. Privacy depends on C, error on B.

Here C is a Toeplitz matrix: C_{t,u} = c_{t-u}, c_0 = 1, given by its coefficients. What
one record can move is ||C x||, x non-zero in the steps that the record takes part in:
the *participation*, which the order of the batches must guarantee.

Sources: Choquette-Choo et al., "(Amplified) Banded Matrix Factorization", 2023,
arXiv:2306.08153; Fichtenberger, Henzinger, Upadhyay, "Constant matters", 2022,
arXiv:2202.11205; Dvijotham et al., "Efficient and Near-Optimal Noise Generation for
Streaming Differential Privacy", 2024, arXiv:2404.16706.
"""

import dataclasses
import math
from typing import Any

import numpy as np
from scipy.signal import lfilter

from dpkit.accountants.answers import checks

Vector = np.ndarray
_ERRORS = ("mean", "max")


@dataclasses.dataclass(frozen=True)
class SinglePass:
    """Every record takes part in one step of the run at most.

    Example:
      >>> SinglePass().positions(8)
      (0,)
    """

    def positions(self, steps: int) -> tuple[int, ...]:
        """The worst steps for non-negative, non-increasing coefficients."""
        return (0,)


@dataclasses.dataclass(frozen=True)
class Cyclic:
    """Every record takes part in one step of each epoch, always in the same one.

    Steps o, o + period, o + 2 period, ... to the end of the run, for one o below the
    period; or in some of them. `CyclicSampler(bins=period)` draws such batches.

    Args:
      period: steps of an epoch, >= 1.

    Raises:
      ValueError: period below 1.

    Example:
      >>> Cyclic(3).positions(8)
      (0, 3, 6)
    """

    period: int

    def __post_init__(self) -> None:
        checks.integer_at_least(1, period=self.period)

    def positions(self, steps: int) -> tuple[int, ...]:
        """The worst steps for non-negative coefficients: those from the first on.

        A later start gives the same columns of C, cut off earlier.
        """
        return tuple(range(0, steps, self.period))


@dataclasses.dataclass(frozen=True)
class MinSeparation:
    """Every record waits `separation` steps from one of its steps to the next.

    Args:
      separation: s >= 1; 1 allows every step.
      max_participations: k >= 1, how often a record takes part at most.

    Raises:
      ValueError: a number below 1.

    Example:
      >>> MinSeparation(2, max_participations=3).positions(8)
      (0, 2, 4)
    """

    separation: int
    max_participations: int

    def __post_init__(self) -> None:
        checks.integer_at_least(1, separation=self.separation)
        checks.integer_at_least(1, max_participations=self.max_participations)

    def positions(self, steps: int) -> tuple[int, ...]:
        """The worst steps for non-negative, non-increasing coefficients.

        As early and as close as allowed. The product of columns a < b of C is
        sum_{t < n - b} c_t c_{t+b-a}: it falls as b grows, and as b - a does. The j-th
        step of any allowed set is s j at least, two of them s (j - i) apart at least,
        so every product is at most that of the earliest set.
        """
        every = range(0, steps, self.separation)
        return tuple(every[: self.max_participations])


Participation = SinglePass | Cyclic | MinSeparation


def square_root_coefficients(steps: int) -> Vector:
    """Coefficients of the C with C^2 = A: r_0 = 1, r_k = r_{k-1} (2k - 1) / (2k).

    Args:
      steps: n >= 1.

    Returns:
      float64 (n,).

    Raises:
      ValueError: steps below 1.

    Example:
      >>> square_root_coefficients(4).tolist()
      [1.0, 0.5, 0.375, 0.3125]

    Reference: Fichtenberger, Henzinger, Upadhyay, "Constant matters", 2022,
    arXiv:2202.11205.
    """
    k = np.arange(1, checks.integer_at_least(1, steps=steps))
    return np.concatenate([[1.0], np.cumprod((2 * k - 1) / (2 * k))])


def inverse_coefficients(coefficients: Any, steps: int) -> Vector:
    """Coefficients of C^-1, by forward substitution.

    Args:
      coefficients: (bands,), the first one 1; those behind are 0.
      steps: n >= 1.

    Returns:
      float64 (n,).

    Raises:
      ValueError: steps below 1, or bad coefficients.

    Example:
      >>> inverse_coefficients([1.0, 0.5], 4).tolist()
      [1.0, -0.5, 0.25, -0.125]
    """
    coefficients = checked_coefficients(coefficients)
    impulse = np.zeros(checks.integer_at_least(1, steps=steps))
    impulse[0] = 1.0
    return np.asarray(lfilter([1.0], coefficients, impulse))


def toeplitz_matrix(coefficients: Any, steps: int) -> np.ndarray:
    """The matrix C of coefficients, (steps, steps).

    Args:
      coefficients: (bands,).
      steps: n >= 1.

    Returns:
      float64 (n, n), lower triangular.

    Example:
      >>> toeplitz_matrix([1.0, 0.5], 3).tolist()
      [[1.0, 0.0, 0.0], [0.5, 1.0, 0.0], [0.0, 0.5, 1.0]]
    """
    column = padded(np.asarray(coefficients, np.float64), steps)
    lag = np.subtract.outer(np.arange(steps), np.arange(steps))
    return np.where(lag >= 0, column[np.maximum(lag, 0)], 0.0)


def sensitivity(coefficients: Any, steps: int, participation: Participation) -> float:
    """What one record of clip norm 1 can move: max over allowed x of ||C x||_2.

    Exact where coefficients are non-negative and non-increasing, as all of ours are:
    contributions that all point the same way are worst, at the participation's
    `positions`. Exact for a single pass whatever the coefficients. Other coefficients
    take the bound of `matrix_sensitivity`.

    Args:
      coefficients: (bands,), the first one 1.
      steps: n >= 1, the steps of the run.
      participation: which sets of steps one record may take part in.

    Returns:
      The L2 sensitivity of C x in units of the clip norm.

    Raises:
      ValueError: bad coefficients or steps.
      TypeError: another participation.

    Example:
      >>> round(sensitivity(square_root_coefficients(8), 8, Cyclic(2)), 8)
      3.57193287

    Reference: Choquette-Choo et al., "(Amplified) Banded Matrix Factorization", 2023,
    arXiv:2306.08153, section 2.
    """
    coefficients = checked_coefficients(coefficients)
    checked_participation(participation)
    column = padded(coefficients, checks.integer_at_least(1, steps=steps))
    if isinstance(participation, SinglePass):
        return float(np.linalg.norm(column))
    falling = column.min() >= 0 and np.diff(column).max(initial=0.0) <= 0
    if not falling:
        return matrix_sensitivity(toeplitz_matrix(column, steps), participation)
    return float(np.linalg.norm(moved(column, participation.positions(steps))))


def matrix_sensitivity(matrix: Any, participation: Participation) -> float:
    """An upper bound on max ||C x||_2 for any matrix C.

    ||C x||^2 = sum_{t,u} X_{t,u} <x_t, x_u> <= sum_{t,u in set} |X_{t,u}|, X = C^T C.
    For a single pass and a cyclic one the maximum over the sets is taken as it is; it
    is attained if X >= 0. For a separation it is bounded by max over sets of sum_t
    w_t, w_t = max over sets of sum_u |X_{t,u}| without the u that can't be in one set
    with t; attained if no two columns of one set overlap (bands <= separation).

    Args:
      matrix: (n, n).
      participation: which sets of steps one record may take part in.

    Returns:
      The L2 sensitivity, or more, in units of the clip norm.

    Raises:
      ValueError: not a square matrix of finite numbers.
      TypeError: another participation.

    Example:
      >>> round(matrix_sensitivity(toeplitz_matrix([1.0, 0.5], 8), Cyclic(2)), 8)
      2.23606798
    """
    checked_participation(participation)
    matrix = np.asarray(matrix, np.float64)
    if matrix.ndim != 2 or len(set(matrix.shape)) > 1 or not matrix.size:
        raise ValueError(f"matrix={matrix.shape}: needed (n, n), n >= 1")
    if not np.isfinite(matrix).all():
        raise ValueError("matrix: needed finite numbers")
    products = np.abs(matrix.T @ matrix)
    steps = len(matrix)
    match participation:
        case SinglePass():
            squared = products.diagonal().max()
        case Cyclic(period):
            sets = (slice(o, None, period) for o in range(min(period, steps)))
            squared = max(products[s, s].sum() for s in sets)
        case MinSeparation(separation, count):
            lag = np.abs(np.subtract.outer(np.arange(steps), np.arange(steps)))
            products[(lag > 0) & (lag < separation)] = 0.0
            rows = _heaviest(products, separation, count)
            squared = _heaviest(rows[None], separation, count)[0]
    return math.sqrt(squared)


def prefix_error(coefficients: Any, steps: int, *, error: str = "mean") -> float:
    """Error of the sums of steps 1..t, for noise z of standard deviation 1.

    Rows of B = A C^-1 have the coefficients b = cumulative sums of those of C^-1.
    "mean": sqrt(mean over t of ||B_t||^2); "max": max over t of ||B_t||, the last one.
    Multiply with the sensitivity to compare matrices at equal privacy.

    Args:
      coefficients: (bands,), the first one 1.
      steps: n >= 1.
      error: "mean" or "max".

    Returns:
      Standard deviation of the error of a sum.

    Raises:
      ValueError: another error, or bad coefficients or steps.

    Example:
      >>> prefix_error([1.0], 9, error="max")
      3.0
    """
    checks.one_of(_ERRORS, error=error)
    sums = np.cumsum(inverse_coefficients(coefficients, steps))
    return math.sqrt(float(error_weights(steps, error) @ sums**2))


def checked_coefficients(coefficients: Any) -> Vector:
    """Coefficients as float64: finite, the first one 1.

    Raises:
      ValueError: others.

    Example:
      >>> checked_coefficients((1, 0.5))
      array([1. , 0.5])
    """
    vector = np.asarray(coefficients, np.float64)
    if vector.ndim != 1 or not len(vector) or vector[0] != 1.0:
        raise ValueError(
            f"coefficients={np.shape(coefficients)}: needed a sequence that starts "
            "with 1; divide by its first"
        )
    if not np.isfinite(vector).all():
        raise ValueError("coefficients: needed finite numbers")
    return vector


def checked_participation(participation: Any) -> Participation:
    """The participation, if it is one.

    Raises:
      TypeError: anything else.

    Example:
      >>> checked_participation(SinglePass())
      SinglePass()
    """
    if not isinstance(participation, SinglePass | Cyclic | MinSeparation):
        raise TypeError(
            f"participation={participation!r}: needed SinglePass, Cyclic or "
            "MinSeparation"
        )
    return participation


def padded(coefficients: Vector, steps: int) -> Vector:
    """Exactly `steps` coefficients."""
    return np.pad(coefficients[:steps], (0, max(0, steps - len(coefficients))))


def moved(column: Vector, positions: tuple[int, ...]) -> Vector:
    """Sum of the columns of C at these positions."""
    total = np.zeros(len(column))
    for position in positions:
        total[position:] += column[: len(column) - position]
    return total


def error_weights(steps: int, error: str) -> Vector:
    """What the square of b_i counts for: in how many rows it is, or in the last."""
    if error == "max":
        return np.ones(steps)
    return 1 - np.arange(steps) / steps


def _heaviest(values: np.ndarray, separation: int, count: int) -> Vector:
    """Each row's largest sum over at most `count` places `separation` apart."""
    rows, steps = values.shape
    best = np.zeros((rows, steps + separation))
    for _ in range(min(count, -(-steps // separation))):
        # best[:, t]: over places from t on, with one more of them allowed each round.
        taken = values + best[:, separation : steps + separation]
        later = np.maximum.accumulate(taken[:, ::-1], axis=1)[:, ::-1]
        best = np.pad(later, ((0, 0), (0, separation)))
    return best[:, 0]
