r"""The Rényi accountant: certified at any delta, for almost every event.

Rényi divergences of composed releases add up, order by order. From the total rho(a),

    epsilon = min over a of rho(a) + log(1 - 1/a) - log(delta a) / (a - 1),

over a grid of real orders refined around its best point; each order alone gives a valid
answer. Under every relation both directions are covered, each release by the worse one.
Rényi accounting gives no lower bound.

Reference: Canonne, Kamath, Steinke, "The Discrete Gaussian for Differential Privacy",
2020, arXiv:2004.00010, Proposition 12.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from dp_accounting import DpEvent
from numpy.typing import NDArray
from scipy import optimize

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.bounds import DeltaBound, PrivacyBound
from dpkit.accountants.answers.errors import UnsupportedEvent, UnsupportedRelation
from dpkit.accountants.answers.relations import Relation, as_relation
from dpkit.accountants.events.composing import flatten, validate
from dpkit.accountants.events.warrant import warrant
from dpkit.accountants.pairs.rdp_curves import (
    Curve,
    composed,
    curve_of,
    knots_of,
    sum_of,
)
from dpkit.accountants.readings import truncation

Array = NDArray[Any]
NAME = "rdp"

_COARSE = np.logspace(-2, 5, 57)
_PRECISION = 1e-3  # of log(order - 1); epsilon is flat there
_TINY = 5e-324


def epsilon(event: DpEvent, delta: float, *, relation: Relation | str) -> PrivacyBound:
    """Upper bound on epsilon at delta, by Rényi divergences.

    Privacy: static regime (every parameter fixed before any output is seen).

    Args:
      event: what was released.
      delta: in (0, 1).
      relation: the neighbouring relation.

    Returns:
      A bound whose `upper` is certified if every part of the event is proven; inf where
      no order gives a finite answer.

    Raises:
      ValueError: a bad event or delta.
      UnsupportedEvent: a part that has no Rényi curve.
      UnsupportedRelation: a part that has no proof under the relation.

    Example:
      >>> from dp_accounting import GaussianDpEvent
      >>> round(epsilon(GaussianDpEvent(1.0), 1e-5, relation="add_remove").upper, 4)
      4.7284

    Reference: Mironov, "Rényi Differential Privacy", 2017, arXiv:1702.07476.
    """
    relation = as_relation(relation)
    delta = checks.open_probability(delta=delta)
    validate(event)
    upper = converter(*_plain(event, relation))(delta)
    behind = warrant(event)
    return PrivacyBound(
        delta=delta,
        upper=upper,
        certified=behind.certified,
        method_upper=NAME,
        relation=relation,
        warnings=behind.warnings,
    )


def delta_of(event: DpEvent, epsilon: float, *, relation: Relation | str) -> DeltaBound:
    """Upper bound on delta at epsilon, by Rényi divergences.

    Privacy: static regime (every parameter fixed before any output is seen).

    Args:
      event: what was released.
      epsilon: at least 0, finite.
      relation: the neighbouring relation.

    Returns:
      A bound whose `upper` is certified if every part of the event is proven.

    Raises:
      ValueError: a bad event or epsilon.
      UnsupportedEvent: a part that has no Rényi curve.
      UnsupportedRelation: a part that has no proof under the relation.

    Example:
      >>> from dp_accounting import GaussianDpEvent
      >>> bound = delta_of(GaussianDpEvent(1.0), 4.7285, relation="add_remove")
      >>> round(bound.upper, 7)
      1e-05
    """
    relation = as_relation(relation)
    epsilon = checks.non_negative(epsilon=epsilon)
    validate(event)
    curve, knots, slip = _plain(event, relation)
    orders, rho = _scan(curve, knots, lambda a, r: _log_deltas(a, r, epsilon))
    log_delta = float(np.min(_log_deltas(orders, rho, epsilon)))
    plain = math.exp(min(log_delta, 0.0))
    if log_delta > -math.inf:
        plain = max(plain, _TINY)
    upper = truncation.corrected_delta(plain, epsilon, slip)
    behind = warrant(event)
    return DeltaBound(
        epsilon=epsilon,
        upper=min(1.0, upper * (1 + 1e-12)),
        certified=behind.certified,
        method_upper=NAME,
        relation=relation,
        warnings=behind.warnings,
    )


def rdp_curve(
    event: DpEvent, orders: Iterable[float], *, relation: Relation | str
) -> Array:
    """Rényi divergence of a whole event at each order, the worse of both directions.

    Args:
      event: what was released; truncated Poisson sampling has no curve.
      orders: above 1, finite.
      relation: the neighbouring relation.

    Returns:
      float64, one upper bound for each order; inf where nothing is claimed.

    Raises:
      ValueError: a bad event or order.
      UnsupportedEvent: a part that has no Rényi curve.
      UnsupportedRelation: a part that has no proof under the relation.

    Example:
      >>> from dp_accounting import GaussianDpEvent
      >>> rdp_curve(GaussianDpEvent(2.0), [2, 4], relation="replace_one").round(6)
      array([1., 2.])
    """
    relation = as_relation(relation)
    checked = [checks.finite(order=order) for order in orders]
    if any(order <= 1 for order in checked):
        raise ValueError(f"order={min(checked)!r} must be above 1")
    validate(event)
    curve, _ = composed(event, relation)
    return curve(np.array(checked, dtype=float))


def supports(event: DpEvent, relation: Relation | str) -> bool:
    """Whether this accountant answers `epsilon` for the event under the relation.

    Args:
      event: a valid event.
      relation: the neighbouring relation.

    Returns:
      False where `epsilon` would raise UnsupportedEvent or UnsupportedRelation.

    Example:
      >>> from dp_accounting import LaplaceDpEvent, PoissonSampledDpEvent
      >>> supports(PoissonSampledDpEvent(0.1, LaplaceDpEvent(1.0)), "replace_one")
      False
    """
    validate(event)
    try:
        _plain(event, as_relation(relation))
    except (UnsupportedEvent, UnsupportedRelation):
        return False
    return True


def converter(
    curve: Curve, knots: Array, slip: float = 0.0
) -> Callable[[float], float]:
    """Epsilon as a function of delta for one curve, truncation accounted for."""

    def convert(delta: float) -> float:
        orders, rho = _scan(curve, knots, lambda a, r: _epsilons(a, r, delta))

        def at(rest: float) -> float:
            return _epsilon_at(orders, rho, rest)

        return truncation.corrected_epsilon(at, delta, slip)

    return convert


def _plain(event: DpEvent, relation: Relation) -> tuple[Curve, Array, float]:
    """Curve, orders worth trying, and the truncation's sum of T Psi."""
    releases, slip = truncation.plain(flatten(event))
    terms = [(curve_of(release, relation), count) for release, count in releases]
    return sum_of(terms), knots_of(terms), slip


def _scan(
    curve: Curve, knots: Array, objective: Callable[[Array, Array], Array]
) -> tuple[Array, Array]:
    """Orders and values on a coarse grid, refined where the objective is smallest."""
    orders = np.unique(np.concatenate([1 + _COARSE, knots]))
    rho = curve(orders)
    best = int(np.argmin(objective(orders, rho)))
    around = orders[max(best - 1, 0) : best + 2] - 1
    tried: list[tuple[Array, Array]] = [(orders, rho)]

    def value(log_excess: float) -> float:
        order = np.array([1 + math.exp(log_excess)])
        tried.append((order, curve(order)))
        return float(objective(*tried[-1])[0])

    bounds = math.log(around[0]), math.log(around[-1])
    optimize.minimize_scalar(
        value, bounds=bounds, method="bounded", options={"xatol": _PRECISION}
    )
    orders, rho = (np.concatenate(parts) for parts in zip(*tried, strict=True))
    return orders, rho


def _epsilons(orders: Array, rho: Array, delta: float) -> Array:
    """Epsilon by each order alone; may be negative."""
    log_share = (math.log(delta) + np.log(orders)) / (orders - 1)
    return rho + np.log1p(-1 / orders) - log_share


def _epsilon_at(orders: Array, rho: Array, delta: float) -> float:
    """The best epsilon; 0 if delta covers the total variation, 1 - e^-R_1 at most."""
    if delta**2 + math.expm1(-float(np.min(rho))) >= 0:
        return 0.0
    best = float(np.min(_epsilons(orders, rho, delta)))
    return max(0.0, best + 1e-12 * abs(best))


def _log_deltas(orders: Array, rho: Array, epsilon: float) -> Array:
    """log delta by each order alone, or by the total variation if that is smaller."""
    powers = (orders - 1) * (rho - epsilon + np.log1p(-1 / orders)) - np.log(orders)
    with np.errstate(divide="ignore"):
        variation = 0.5 * np.log(-np.expm1(-rho))
    return np.minimum(powers, variation)
