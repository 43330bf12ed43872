r"""Losses of single releases at weighted points, fit for tilting in both directions.

A release is read as a pair (P, Q): the loss l = log dP/dQ at points with the mass of Q,
from which E_Q[f(l) e^(s l)] follows for any s up to a `reach`. s = 1 + t tilts P by
e^(t l); s = -t tilts Q by the loss of the other direction, -l.

Normal noise uses the trapezoid rule. A tilted law falls beyond its centre at least like
the normal law, so nine deviations hold all but 1e-18 of it. Its logarithm is analytic
for |Im x| < pi s^2 / c, c the largest shift, and the step is so small that the rule's
error stays below rounding; large s needs smaller steps, since cos(y/2)^-s bounds how
far the integrand grows off the axis. Laplace noise has atoms at both ends and a smooth
part between them, for Gauss-Legendre. Pairs of finitely many outcomes are exact.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, cast

import numpy as np
from scipy import special

from dpkit.accountants.pairs.arrays import Array, gauss_legendre
from dpkit.accountants.pairs.finite import FinitePair

Points = Callable[[float], tuple[Array, Array]]

_DEVIATIONS = 9.0
_MORE = 4.0  # so that moments of the loss keep their precision too
_ROUND = 32
_MOST_POINTS = 60_000
_PANEL = 16


class OutOfReach(Exception):
    """A tilt would need more points than is reasonable."""


class SampledGaussian(NamedTuple):
    """(1-q) N(0, s^2) + q N(1, s^2) against N(0, s^2): its points come many at once."""

    noise: float
    rate: float


@dataclasses.dataclass(frozen=True)
class Nodes:
    """Several releases at equally many points."""

    loss: Array  # (releases, points) log dP/dQ, 0 where a row is padded
    log_mass: Array  # (releases, points) log of Q's mass, -inf where a row is padded
    counts: Array  # (releases,) how often each release happens


Row = tuple[Array, Array, int]


def sampled_gaussians(
    noises: Array, rates: Array, counts: Array, reach: float
) -> list[Nodes]:
    """(1-q) N(0, s^2) + q N(1, s^2) against N(0, s^2), many of them at once.

    For tilts up to `reach`, in groups of about equal size; OutOfReach if there is too
    little noise for them. `noises` s, `rates` q in (0, 1) and `counts` are (releases,).

    Example:
      >>> one = np.ones(1)
      >>> sampled_gaussians(one, 0.1 * one, one, 1.0)[0].loss.shape
      (1, 128)
    """
    at_zero = rates * np.exp(-0.5 / noises / noises)
    back = reach * at_zero / (1 - rates + at_zero)
    low = -back - _DEVIATIONS * noises
    high = reach + 1 + _MORE + _DEVIATIONS * noises
    sizes = _sizes(high - low, noises, 1.0, reach)
    groups = []
    for size in np.unique(sizes):
        kept = sizes == size
        noise, rate = noises[kept, None], cast(Any, rates[kept, None])
        step = (high - low)[kept, None] / (size - 1)
        x = low[kept, None] + step * np.arange(size)
        loss = sampled_loss((2 * x - 1) / (2 * noise**2), rate)
        groups.append(Nodes(loss, _log_normal(x, noise, step), counts[kept]))
    return groups


def sampled_gaussian_replaced(
    noise: float, rate: float, reach: float
) -> tuple[Array, Array]:
    """(1-q) N(0) + q N(1) against (1-q) N(0) + q N(-1): loss and log mass."""
    edge = 1 + 2 * reach + _MORE + _DEVIATIONS * noise
    x, step = _grid(-edge, edge, noise, 1.0, 2 * reach)
    up, down = (sampled_loss((s * 2 * x - 1) / (2 * noise**2), rate) for s in (1, -1))
    return up - down, _log_normal(x, noise, step) + down


def mixture(
    noise: float, shifts: Array, probabilities: Array, reach: float
) -> tuple[Array, Array]:
    """sum_i p_i N(c_i, s^2) against N(0, s^2): loss and log mass."""
    moves = (probabilities > 0) & (shifts > 0)
    if not moves.any():
        return np.zeros(1), np.zeros(1)
    shifts, probabilities = shifts[moves], probabilities[moves]
    top = float(shifts.max())
    low = -reach * top - _DEVIATIONS * noise
    high = (reach + 1 + _MORE) * top + _DEVIATIONS * noise
    x, step = _grid(low, high, noise, top, reach)
    exponents = shifts * (2 * x[:, None] - shifts) / (2 * noise**2)
    change = np.expm1(np.minimum(exponents, 700.0)) @ probabilities
    still = max(1 - float(probabilities.sum()), 0.0)
    with np.errstate(divide="ignore"):
        far = np.logaddexp(
            special.logsumexp(exponents + np.log(probabilities), axis=1), np.log(still)
        )
    near = np.log1p(change.clip(-0.5, 0.5))
    loss = np.where(np.abs(change) < 0.5, near, far)
    return loss, _log_normal(x, noise, step)


def sampled_laplace(scale: float, rate: float, reach: float) -> tuple[Array, Array]:
    """(1-q) Lap(0, b) + q Lap(1, b) against Lap(0, b): loss and log mass."""
    width = 1 / scale
    length = min(1.0, 12 / (1 + _MORE + reach))
    if width / length > _MOST_POINTS / _PANEL:
        raise OutOfReach
    panels = max(1, math.ceil(2 * width / length))
    nodes, weights = gauss_legendre(_PANEL)
    half = width / panels
    centres = -width + half * (2 * np.arange(panels) + 1)
    inside = (centres[:, None] + half * nodes).ravel()
    share = np.log(np.tile(weights, panels)) + math.log(half / 4)
    plain = np.concatenate([[-width, width], inside])
    edges = math.log(0.5) - np.array([0.0, width])
    log_mass = np.concatenate([edges, share - (inside + width) / 2])
    return sampled_loss(plain, rate), log_mass


def finite(pair: FinitePair) -> tuple[Array, Array]:
    """A pair of finite distributions, outcomes of infinite loss left out."""
    kept = (pair.p > 0) & (pair.q > 0)
    log_mass = np.log(pair.q[kept])
    return np.log(pair.p[kept]) - log_mass, log_mass


def packed(rows: Iterable[Row]) -> list[Nodes]:
    """Rows of any lengths, stacked in groups of about equal length."""
    groups: dict[int, list[Row]] = {}
    for row in rows:
        size = max(_ROUND * math.ceil(len(row[0]) / _ROUND), 1)
        groups.setdefault(size, []).append(row)
    return [_stacked(members, size) for size, members in groups.items()]


def _stacked(rows: list[Row], size: int) -> Nodes:
    """Rows as one array, padded with points that have no mass."""
    loss = np.zeros((len(rows), size))
    log_mass = np.full((len(rows), size), -np.inf)
    for i, (values, masses, _) in enumerate(rows):
        loss[i, : len(values)] = values
        log_mass[i, : len(masses)] = masses
    return Nodes(loss, log_mass, np.array([float(row[2]) for row in rows]))


def _grid(
    low: float, high: float, noise: float, top: float, reach: float
) -> tuple[Array, float]:
    """Equally spaced points for one release, and their step."""
    size = int(_sizes(np.array([high - low]), np.array([noise]), top, reach)[0])
    return np.linspace(low, high, size), (high - low) / (size - 1)


def _sizes(lengths: Array, noises: Array, top: float, reach: float) -> Array:
    """How many points each trapezoid rule needs, rounded up to a few sizes."""
    steps = noises * np.minimum(1.0, noises / top) / (4 * math.sqrt(1 + reach / 8))
    with np.errstate(over="ignore", divide="ignore"):
        blocks = np.ceil((lengths / steps + 1) / _ROUND)
    if not np.all(blocks * _ROUND <= _MOST_POINTS):
        raise OutOfReach
    return (_ROUND * blocks).astype(int)


def _log_normal(x: Array, noise: Any, step: Any) -> Array:
    """log of N(0, s^2)'s mass around each point."""
    return -0.5 * (x / noise) ** 2 + np.log(step / (noise * math.sqrt(2 * math.pi)))


def sampled_loss(exponent: Array, rate: float | Array) -> Array:
    """log(1 - q + q e^z), precise where it is near 0 and finite where e^z is not."""
    small, large = np.minimum(exponent, 700.0), np.maximum(exponent, 700.0)
    far = large + np.log(rate) + np.log1p((1 - rate) / rate * np.exp(-large))
    with np.errstate(divide="ignore"):
        near = np.log1p(rate * np.expm1(small))
    return np.where(rate == 1, exponent, np.where(exponent < 700.0, near, far))
