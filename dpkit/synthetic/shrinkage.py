"""From noisy tables of pairs to targets: what is noise is taken out before the search.

Post-processing of released values. A pair is compared with what its columns alone would
give, q = p_a x p_b. The difference is looked at cell by cell, or along steps of an
ordered column (an unbalanced Haar basis, whose steps halve the mass), in bands of
coefficients from the likeliest down; each band is shrunk by the share of it that is
noise (James and Stein, 1961), and the basis with the smallest estimated risk is kept
(Stein, 1981).

Where a true count is surely 0 is estimated as well (empirical Bayes over rates), and
made a price: subtracting it from the target makes the search pay for every row that
holds such a pair of values.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools

import numpy as np

_FIRST_BAND = 8
_RATES = np.concatenate([[0.0], np.geomspace(0.03, 40, 32)])  # times what is expected
_ROUNDS, _PSEUDO = 20, 5.0  # of the rates' law


@dataclasses.dataclass(frozen=True, eq=False)
class PairTarget:
    """What to fit of a pair.

    Args:
      values: shares, signed.
      stddev: how far each may be off.
      bases: for each column whether steps were better than single values.

    Example:
      >>> PairTarget(np.zeros((2, 3)), np.ones((2, 3)), (False, True)).values.shape
      (2, 3)
    """

    values: np.ndarray
    stddev: np.ndarray
    bases: tuple[bool, bool]


def pair_target(
    counts: np.ndarray,
    precision: float,
    records: float,
    first: np.ndarray,
    second: np.ndarray,
    ordered: tuple[bool, bool],
) -> PairTarget:
    """The shrunk table of a pair.

    Args:
      counts: noisy, (a, b).
      precision: one over the variance of a cell.
      records: how many there are, n-hat.
      first, second: shares of the columns, (a,) and (b,).
      ordered: whether neighbouring values of a column are alike.
    """
    variance = 1 / precision / records**2
    expected = np.outer(first, second)
    moved = _centred(counts / records - expected)
    tried = itertools.product(*map(_bases, (first, second), ordered))
    best = min((_shrunk(moved, variance, b) for b in tried), key=lambda one: one.risk)
    stepped = (best.bases[0].steps, best.bases[1].steps)
    prior = expected / records
    if not any(stepped):
        ratio = np.minimum(best.factors / np.maximum(1 - best.factors, 1e-6), 1e6)
        prior = ratio * variance + prior
        own = prior / (prior + variance)
        spread = np.sqrt(prior * variance / (prior + variance))
        return PairTarget(expected + own * best.coefficients, spread, stepped)
    left, right = (basis.rows for basis in best.bases)
    values = expected + left.T @ (best.factors * best.coefficients) @ right
    kept = (left**2).T @ (best.factors * best.variances) @ right**2
    floor = prior * variance / (prior + variance)
    return PairTarget(values, np.sqrt(np.maximum(kept, floor)), stepped)


@dataclasses.dataclass(frozen=True, eq=False)
class _Basis:
    """Orthonormal rows, how much mass each sees, and the share of noise each keeps."""

    rows: np.ndarray
    mass: np.ndarray
    noise: np.ndarray
    steps: bool


@dataclasses.dataclass(frozen=True, eq=False)
class _Shrunk:
    """Coefficients of a difference with the factor of each."""

    factors: np.ndarray
    coefficients: np.ndarray
    variances: np.ndarray
    risk: float
    bases: tuple[_Basis, _Basis]


def _bases(shares: np.ndarray, ordered: bool) -> list[_Basis]:
    """The bases worth trying for a column: values, and steps if it is long."""
    size = len(shares)
    single = _Basis(np.eye(size), shares, np.full(size, 1 - 1 / size), False)
    if not ordered or size <= 4:
        return [single]
    rows, mass = haar(shares)
    noise = np.concatenate([[0.0], np.ones(size - 1)])  # the first was centred away
    return [single, _Basis(rows, mass, noise, True)]


def _shrunk(moved: np.ndarray, variance: float, bases: tuple[_Basis, ...]) -> _Shrunk:
    """The difference in one pair of bases, shrunk in bands."""
    left, right = bases
    coefficients = left.rows @ moved @ right.rows.T
    variances = variance * np.outer(left.noise, right.noise)
    order = np.where(variances > 0, np.outer(left.mass, right.mass), -1.0)
    factors, risk = band_factors(order.ravel(), coefficients.ravel(), variances.ravel())
    return _Shrunk(
        factors.reshape(moved.shape), coefficients, variances, risk, (left, right)
    )


def band_factors(
    mass: np.ndarray, coefficients: np.ndarray, variances: np.ndarray
) -> tuple[np.ndarray, float]:
    """The factor of each coefficient, and Stein's estimate of the risk.

    Coefficients are taken from the largest mass down, in bands of 8, 8, 16, 32, …; a
    band of energy e and noise V is kept by the factor max(0, 1 - V / e).

    Args:
      mass: by which they are ordered; ties as they stand.
      coefficients: noisy.
      variances: of their noise; 0 where there is neither noise nor signal.

    Example:
      >>> band_factors(np.array([2.0, 1.0]), np.array([3.0, 1.0]), np.ones(2))[0]
      array([0.8, 0.8])
    """
    order = np.argsort(-mass, kind="stable")
    starts = _band_starts(len(mass))
    counts = np.diff(np.append(starts, len(mass)))
    energy = np.add.reduceat(coefficients[order] ** 2, starts)
    noise = np.add.reduceat(variances[order], starts)
    noisy = np.add.reduceat((variances[order] > 0).astype(float), starts)
    kept = energy > noise
    ratio = np.divide(noise, energy, out=np.zeros_like(noise), where=kept)
    saved = noise * ratio * (1 - 4 / np.maximum(noisy, 4))
    risk = np.where(kept, noise - saved, energy - noise).sum()
    factors = np.empty(len(mass))
    factors[order] = np.repeat(np.where(kept, 1 - ratio, 0.0), counts)
    return factors, float(risk)


@functools.lru_cache(maxsize=4096)
def _band_starts(size: int) -> np.ndarray:
    """Where bands of 8, 8, 16, 32, … begin."""
    starts = [0]
    at = _FIRST_BAND
    while at < size:
        starts.append(at)
        at *= 2
    return np.array(starts)


def haar(shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Steps along a column: each row halves a range of values where its mass is halved.

    Args:
      shares: (s,), at least 0.

    Returns:
      Orthonormal rows, (s, s), and how much mass each sees, (s,).

    Example:
      >>> rows, mass = haar(np.array([0.5, 0.2, 0.1, 0.1, 0.1]))
      >>> rows[1].round(4), round(float(mass[1]), 4)
      (array([ 0.8944, -0.2236, -0.2236, -0.2236, -0.2236]), 0.559)

    Reference: Girardi and Sweldens, "A new class of unbalanced Haar wavelets", 1997.
    """
    size = len(shares)
    rows, mass = [np.full(size, size**-0.5)], [shares.sum() / size**0.5]
    ranges = [(0, size)]
    for low, high in ranges:
        if high - low < 2:
            continue
        middle = _middle(shares, low, high)
        left, right = middle - low, high - middle
        row = np.zeros(size)
        row[low:middle], row[middle:high] = right, -left
        row /= np.sqrt(left * right * (left + right))
        rows.append(row)
        mass.append((np.abs(row) * shares).sum())
        ranges += [(low, middle), (middle, high)]
    return np.array(rows), np.array(mass)


def _middle(shares: np.ndarray, low: int, high: int) -> int:
    """Where a range is cut so that its halves weigh the same as nearly as they can."""
    weights = np.cumsum(shares[low:high] + 1e-9 / len(shares))
    return low + 1 + int(np.argmin(np.abs(weights[:-1] - weights[-1] / 2)))


def _centred(table: np.ndarray) -> np.ndarray:
    """A table without its margins, which were used elsewhere."""
    rows, columns = table.mean(1, keepdims=True), table.mean(0, keepdims=True)
    return table - rows - columns + table.mean()


def strength(values: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """How far a pair is from independent: total variation, 0 to 1.

    Example:
      >>> half = np.array([0.5, 0.5])
      >>> strength(np.eye(2) / 2, half, half)
      0.5
    """
    return float(np.abs(values - np.outer(first, second)).sum() / 2)


def zero_chances(counts: np.ndarray, expected: np.ndarray, stddev: float) -> np.ndarray:
    """The chance, given what was released, that each true count is 0.

    A count is Poisson about a rate times what independent columns would give; the law
    of the rates is found from all cells of the table together.

    Args:
      counts: noisy, any shape.
      expected: what independence gives, in counts; where that is 0 the chance is 1.
      stddev: of the noise.

    Returns:
      Chances, in [0, 1].
    """
    chances = np.ones(expected.shape)
    usable = expected > 0
    means = expected[usable][:, None] * _RATES
    spread = stddev**2 + means
    logs = -0.5 * ((counts[usable][:, None] - means) ** 2 / spread + np.log(spread))
    likely = np.exp(logs - logs.max(axis=1, keepdims=True, initial=-np.inf))
    uniform = np.full(len(_RATES), 1 / len(_RATES))
    law = uniform
    for _ in range(_ROUNDS):
        seen = likely.T @ (1 / (likely @ law))
        law = (law * seen + _PSEUDO * uniform) / (usable.sum() + _PSEUDO)
    posterior = likely * law
    posterior /= posterior.sum(axis=1, keepdims=True)
    chances[usable] = (posterior * np.exp(-means)).sum(axis=1)
    return chances
