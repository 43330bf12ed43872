"""The honest-event audit: can samples of the real code falsify a claimed event?

delta(epsilon) of a release is sup_S P(S) - e^epsilon Q(S) over neighbours P, Q, in
both directions. The audit draws a scalar statistic on both, picks S = a half-line on
one half of the draws and bounds P(S) - e^epsilon Q(S) from below on the other half with
two Clopper-Pearson bounds. Data processing makes any statistic sound; a projection on
the direction in which the record moves the sum is the strongest.

False alarms: each (epsilon, direction) has probability at most `error`, so an audit of
five epsilons with error 1e-6 flags an honest mechanism with probability at most 1e-5.

Source: Jagielski, Ullman, Oprea, "Auditing Differentially Private Machine Learning",
2020, arXiv:2006.07709.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from scipy import special


class Finding(NamedTuple):
    """One comparison: a claim is falsified where lower > claimed."""

    epsilon: float
    direction: str
    lower: float
    claimed: float


def audit(
    small: np.ndarray,
    large: np.ndarray,
    claim: Callable[[float], float],
    epsilons: Iterable[float],
    *,
    error: float = 1e-6,
) -> list[Finding]:
    """Lower bounds on delta at each epsilon and direction, beside what is claimed."""
    findings = []
    for epsilon in epsilons:
        claimed = claim(epsilon)
        for direction, first, second in (
            ("large over small", large, small),
            ("small over large", small, large),
        ):
            lower = delta_lower_bound(first, second, epsilon, error)
            findings.append(Finding(epsilon, direction, lower, claimed))
    return findings


def falsified(findings: list[Finding]) -> list[Finding]:
    """The findings that contradict the claim."""
    return [finding for finding in findings if finding.lower > finding.claimed]


def delta_lower_bound(
    first: np.ndarray, second: np.ndarray, epsilon: float, error: float
) -> float:
    """delta(epsilon) of `first` over `second` is at least this, but for `error`."""
    half_first, half_second = len(first) // 2, len(second) // 2
    choose = np.sort(first[:half_first]), np.sort(second[:half_second])
    sign, threshold = max(
        _best_half_line(*choose, epsilon, error),
        _best_half_line(-choose[0][::-1], -choose[1][::-1], epsilon, error, sign=-1.0),
    )[1:]
    hits_first = int((sign * first[half_first:] >= threshold).sum())
    hits_second = int((sign * second[half_second:] >= threshold).sum())
    trials_first, trials_second = len(first) - half_first, len(second) - half_second
    return float(
        _lower(hits_first, trials_first, error / 2)
        - np.exp(epsilon) * _upper(hits_second, trials_second, error / 2)
    )


def _best_half_line(
    first: np.ndarray,
    second: np.ndarray,
    epsilon: float,
    error: float,
    sign: float = 1.0,
) -> tuple[float, float, float]:
    """Of sorted draws: the best bound by {x >= threshold}, `sign`, the threshold."""
    thresholds = np.quantile(first, np.linspace(0, 1, 400))
    hits_first = len(first) - np.searchsorted(first, thresholds)
    hits_second = len(second) - np.searchsorted(second, thresholds)
    bounds = _lower(hits_first, len(first), error / 2)
    bounds = bounds - np.exp(epsilon) * _upper(hits_second, len(second), error / 2)
    best = int(np.argmax(bounds))
    return float(bounds[best]), sign, float(thresholds[best])


def _lower(successes, trials: int, error: float):
    """Clopper-Pearson lower bound of a probability."""
    successes = np.asarray(successes)
    bound = special.betaincinv(np.maximum(successes, 1), trials - successes + 1, error)
    return np.where(successes > 0, bound, 0.0)


def _upper(successes, trials: int, error: float):
    """Clopper-Pearson upper bound of a probability."""
    successes = np.asarray(successes)
    rest = np.maximum(trials - successes, 1)
    bound = special.betainccinv(successes + 1, rest, error)
    return np.where(successes < trials, bound, 1.0)
