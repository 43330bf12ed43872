r"""The Rényi accountant: certified at any delta, for almost every event.

Rényi divergences of composed releases add up, order by order. From the total rho(a),

    epsilon = min over a of rho(a) + log(1 - 1/a) - log(delta a) / (a - 1),

over a grid of real orders refined around its best point; each order alone gives a valid
answer. Under every relation both directions are covered, each release by the worse one.
Rényi accounting gives no lower bound.

Reference: Canonne, Kamath, Steinke, "The Discrete Gaussian for Differential Privacy",
2020, arXiv:2004.00010, Proposition 12; Mironov, "Rényi Differential Privacy", 2017,
arXiv:1702.07476.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from dp_accounting import DpEvent
from scipy import optimize

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.errors import UnsupportedEvent
from dpkit.accountants.answers.exact import ZERO, Number, above, plus, times
from dpkit.accountants.answers.relations import Relation, as_relation
from dpkit.accountants.composition.concentration import log_peak
from dpkit.accountants.events.composing import flatten, validate
from dpkit.accountants.events.kinds import nodes_of
from dpkit.accountants.events.own import BoundedRangeDpEvent, PureDpEvent
from dpkit.accountants.pairs.arrays import Array
from dpkit.accountants.pairs.curve import Curve, knots_of, sum_of
from dpkit.accountants.pairs.laws import composed_curve, curve_of, law_of
from dpkit.accountants.readings import truncation
from dpkit.accountants.readings.reading import Answer, Reading, coarse, explained

_COARSE = np.logspace(-2, 5, 57)
_PRECISION = 1e-3  # of log(order - 1); epsilon is flat there
_TINY = 5e-324
_LIMIT = 1e200  # the search subtracts values, which infinite ones don't survive


class Composed(NamedTuple):
    """A composition: its curve, orders worth trying, and the sum of T Psi."""

    curve: Curve
    knots: Array
    overflow: float


class Renyi(Reading[Composed]):
    """The smallest epsilon over all real orders; it gives no lower bound.

    Example:
      >>> from dp_accounting import GaussianDpEvent
      >>> round(epsilon(GaussianDpEvent(1.0), 1e-5, relation="add_remove").upper, 4)
      4.7284
    """

    name = "rdp"

    def read(self, event: DpEvent, relation: Relation) -> Composed:
        """The curve with plain sampling, and what truncation adds."""
        releases, overflow = truncation.plain(flatten(event), relation, "curve")
        terms = [(curve_of(release, relation), count) for release, count in releases]
        return Composed(sum_of(terms), knots_of(terms), overflow)

    def epsilon_at(self, read: Composed, delta: float, *, lower: bool) -> Answer:
        """The best order's epsilon."""
        orders, rho = _scan(read, lambda a, r: _epsilons(a, r, delta))

        def at(rest: float) -> float:
            return _epsilon_at(orders, rho, rest)

        return Answer(upper=truncation.corrected_epsilon(at, delta, read.overflow))

    def delta_at(self, read: Composed, epsilon: float, *, lower: bool) -> Answer:
        """The best order's delta."""
        orders, rho = _scan(read, lambda a, r: _log_deltas(a, r, epsilon))
        log_delta = float(np.min(_log_deltas(orders, rho, epsilon)))
        plain = math.exp(min(log_delta, 0.0))
        if np.min(rho) > 0:
            plain = max(plain, _TINY)
        upper = truncation.corrected_delta(plain, epsilon, read.overflow)
        return Answer(upper=min(1.0, upper * (1 + 1e-12)))

    def worth_asking(self, event: DpEvent, delta: float, known: bool) -> bool:
        """Where nothing is known, a grid is coarse, or it reads a part as pure."""
        ranged = any(isinstance(node, BoundedRangeDpEvent) for node in nodes_of(event))
        return not known or coarse(event, delta) or ranged


RDP = Renyi()
epsilon, delta_of, supports = RDP.epsilon, RDP.delta_of, RDP.supports


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
    try:
        curve, _ = composed_curve(event, relation)
    except UnsupportedEvent as error:
        raise explained(error, "Rényi", event, relation) from None
    return curve(np.array(checked, dtype=float))


def shared_cost(
    event: DpEvent, orders: Iterable[float], *, relation: Relation | str
) -> tuple[Array, Number, Number, float]:
    """Rényi bounds of what an event is, but for a delta and an overflow beside them.

    A batch that can overflow is read without its limit, an approximate release by its
    pure part; rules/filters.py has the proof.

    Returns:
      One bound for each finite order, the largest loss (inf: none), the deltas left
      out, the probability of overflows.

    Raises:
      UnsupportedEvent: a part that has neither a curve nor an (epsilon, delta).
      UnsupportedRelation: a part that has no proof under the relation.

    Example:
      >>> from dpkit.accountants.events import ApproxDpEvent
      >>> values, largest, lost, missed = shared_cost(
      ...     ApproxDpEvent(0.5, 1e-6), [2.0], relation="zero_out")
      >>> values.round(4), float(largest), float(lost), missed
      (array([0.2273]), 0.5, 1e-06, 0.0)
    """
    relation, terms = as_relation(relation), []
    largest, lost = ZERO, ZERO
    releases, missed = truncation.plain(flatten(event), relation, "curve")
    for release, count in releases:
        law = law_of(release, relation)
        unbounded = bool(law.lacks("guarantee"))
        epsilon, delta = (math.inf, ZERO) if unbounded else law.guarantee()
        largest = plus(largest, times(epsilon, count))
        if delta or (law.lacks("curve") and not unbounded):
            release = PureDpEvent(above(epsilon))
            lost += times(delta, count)
        terms.append((curve_of(release, relation), count))
    finite = np.array([order for order in orders if order < math.inf])
    return sum_of(terms)(finite), largest, lost, missed


def _scan(
    read: Composed, objective: Callable[[Array, Array], Array]
) -> tuple[Array, Array]:
    """Orders and values on a coarse grid, refined where the objective is smallest."""
    orders = np.unique(np.concatenate([1 + _COARSE, read.knots]))
    rho = read.curve(orders)
    best = int(np.argmin(objective(orders, rho)))
    around = orders[max(best - 1, 0) : best + 2] - 1
    tried: list[tuple[Array, Array]] = [(orders, rho)]

    def value(log_excess: float) -> float:
        order = np.array([1 + math.exp(log_excess)])
        tried.append((order, read.curve(order)))
        return min(max(float(objective(*tried[-1])[0]), -_LIMIT), _LIMIT)

    bounds = math.log(around[0]), math.log(around[-1])
    optimize.minimize_scalar(
        value, bounds=bounds, method="bounded", options={"xatol": _PRECISION}
    )
    orders, rho = (np.concatenate(parts) for parts in zip(*tried, strict=True))
    return orders, rho


def _epsilons(orders: Array, rho: Array, delta: float) -> Array:
    """Epsilon by each order alone; may be negative."""
    t = orders - 1
    return rho + (log_peak(t) - math.log(delta)) / t


def _epsilon_at(orders: Array, rho: Array, delta: float) -> float:
    """The best epsilon; 0 if delta covers the total variation, 1 - e^-R_1 at most."""
    if math.log(delta) >= float(_log_variation(np.min(rho))):
        return 0.0
    best = float(np.min(_epsilons(orders, rho, delta)))
    return max(0.0, best + 1e-12 * abs(best))


def _log_deltas(orders: Array, rho: Array, epsilon: float) -> Array:
    """log delta by each order alone, or by the total variation if that is smaller."""
    t = orders - 1
    return np.minimum(t * (rho - epsilon) + log_peak(t), _log_variation(rho))


def _log_variation(rho: Any) -> Any:
    """log of what the total variation is at most: sqrt(1 - e^-R_1), R_1 <= rho."""
    with np.errstate(divide="ignore"):
        return 0.5 * np.log(-np.expm1(-rho))
