r"""The Edgeworth accountant as published: estimates without tilting, orders 1 to 4.

With Y the loss under P, X the loss under Q and F the Edgeworth series of a distribution
function,

    two-sided:  delta(eps) = 1 - F_Y(eps) - e^eps (1 - F_X(eps)),
    one-sided:  delta(eps) = integral over s > eps of e^(eps - s) (1 - F_Y(s)).

They are estimates without a proof: where a tail is not yet normal they fall far below
the truth (0.5, 0.001, 1000 steps at delta = 1e-5: 1.16 to 1.47 for 3.24). The series is
not monotone, so epsilon is the last crossing. The interval replaces F_Y by the normal
law and adds the Berry-Esseen distance to delta on either side; it is rigorous, and
says nothing unless that distance is below delta.

Reference: Wang, Gao, Zhang, Shen, Su, "Analytical Composition of Differential Privacy
via the Edgeworth Accountant", 2022, arXiv:2206.04236.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from dp_accounting import DpEvent
from numpy.polynomial.hermite_e import hermeval
from numpy.typing import NDArray
from scipy import optimize, special

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.bounds import PrivacyBound
from dpkit.accountants.answers.relations import Relation, as_relation
from dpkit.accountants.composition.tilt import Cumulants, LossSum
from dpkit.accountants.events.composing import validate
from dpkit.accountants.events.warrant import warrant
from dpkit.accountants.pairs.arrays import gauss_legendre

Array = NDArray[Any]

_ROOT = math.sqrt(2 * math.pi)
_SCAN = 2000
_NODES = 300
FORMS = ("aea", "one_sided", "eeai")
_UNPROVEN = "an Edgeworth series without a proof: it can be far below the truth"
_NEGATIVE = "the series fell below epsilon=0, which shows that it fails here"
_VACUOUS = "the Berry-Esseen distance is not below delta: the interval says nothing"


def two_sided(
    null: Cumulants, alternative: Cumulants, epsilon: Any, order: int
) -> Array:
    """The published estimate of delta at each epsilon.

    Args:
      null: the loss under Q, the tilt -1.
      alternative: the loss under P, the tilt 0.
      epsilon: any real numbers.
      order: of the series, 0 (normal) to 4.

    Returns:
      delta at each epsilon; it may be negative.

    Example:
      >>> p = Cumulants(tilt=0.0, log_moment=0.0, mean=0.5, variance=1.0)
      >>> q = Cumulants(tilt=-1.0, log_moment=0.0, mean=-0.5, variance=1.0)
      >>> two_sided(q, p, 0.0, 1).round(9).item()
      0.382924923
    """
    e = np.asarray(epsilon, dtype=float)
    return _above(alternative, e, order) - _above(null, e, order, power=e)


def one_sided(alternative: Cumulants, epsilon: Any, order: int) -> Array:
    """The estimate of delta at each epsilon from the loss under P alone.

    Args:
      alternative: the loss under P, the tilt 0.
      epsilon: any real numbers.
      order: of the series, 0 (normal) to 4.

    Returns:
      delta at each epsilon; it may be negative.

    Example:
      >>> p = Cumulants(tilt=0.0, log_moment=0.0, mean=0.5, variance=1.0)
      >>> one_sided(p, 0.0, 1).round(9).item()
      0.382924923
    """
    e = np.asarray(epsilon, dtype=float)[..., None]
    nodes, weights = gauss_legendre(_NODES)
    v = math.sqrt(alternative.variance)
    far = np.minimum(40.0, np.maximum(alternative.mean - e, 0.0) + 14 * v)
    y = 0.5 * far * (nodes + 1)
    values = np.exp(-y) * _above(alternative, e + y, order)
    return 0.5 * far[..., 0] * (values @ weights)


def last_crossing(
    delta_at: Callable[[Array], Array], delta: float, alternative: Cumulants
) -> float:
    """The largest epsilon, possibly below 0, at which an estimate falls to `delta`.

    Args:
      delta_at: epsilons -> estimates of delta.
      delta: the target.
      alternative: the loss under P, which says where to look.

    Returns:
      The crossing; the lowest epsilon of the scan if the estimate is never above
      `delta`, inf if it is above at the highest one.

    Example:
      >>> p = Cumulants(tilt=0.0, log_moment=0.0, mean=0.5, variance=1.0)
      >>> round(last_crossing(lambda e: one_sided(p, e, 0), 1e-5, p), 6)
      4.377178
    """
    v = math.sqrt(alternative.variance)
    width = (10 + math.sqrt(-2 * math.log(delta))) * v
    scan = np.linspace(alternative.mean - width, alternative.mean + width, _SCAN)
    above = np.flatnonzero(delta_at(scan) > delta)
    if not above.size:
        return float(scan[0])
    last = int(above[-1])
    if last == _SCAN - 1:
        return math.inf

    def excess(e: float) -> float:
        return float(delta_at(np.array([e]))[0]) - delta

    where: Any = optimize.brentq(excess, scan[last], scan[last + 1], xtol=1e-14)
    return float(where)


def published(
    event: DpEvent,
    delta: float,
    *,
    relation: Relation | str,
    form: str,
    order: int = 3,
) -> PrivacyBound:
    """The published estimate of epsilon, alone or with the untilted interval.

    Args:
      event: what was released.
      delta: in (0, 1).
      relation: the neighbouring relation.
      form: "aea" (two-sided), "one_sided", or "eeai": the latter with an interval that
        is rigorous but says nothing for small delta.
      order: of the series, 1 to 4.

    Returns:
      The worse of both directions; certified only with an interval.

    Raises:
      ValueError: a bad argument, infinite losses, or no cumulants.

    Example:
      >>> from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
      >>> from dpkit.accountants import repeat
      >>> run = repeat(PoissonSampledDpEvent(0.01, GaussianDpEvent(4.0)), 10_000)
      >>> found = published(run, 1e-5, relation="add_remove", form="aea")
      >>> round(found.estimate, 4), found.certified
      (0.9469, False)
    """
    relation = as_relation(relation)
    delta = checks.open_probability(delta=delta)
    form = checks.one_of(FORMS, form=form)
    order = checks.integer_at_least(1, order=order)
    if order > 4:
        raise ValueError(f"order={order!r} must be at most 4")
    validate(event)
    losses = LossSum(event, relation)
    if max(losses.escaped) > 0 or not losses.private:
        raise ValueError(f"form={form!r} needs finite losses")
    estimates, intervals = [], []
    for backward in (False, True):
        null, alternative = (losses.at(t, backward=backward) for t in (-1.0, 0.0))
        if null is None or alternative is None or alternative.variance < 1e-200:
            raise ValueError(f"form={form!r} has no cumulants here")
        curve = _series(form, order, null, alternative)
        estimates.append(last_crossing(curve, delta, alternative))
        intervals.append(_untilted(alternative, delta))
    estimate, ground = max(estimates), warrant(event)
    bound = PrivacyBound(
        delta=delta,
        estimate=max(estimate, 0.0),
        method_estimate=f"edgeworth {form}, order {order}",
        relation=relation,
        warnings=(*ground.warnings, _UNPROVEN, *((_NEGATIVE,) if estimate < 0 else ())),
    )
    if form != "eeai":
        return bound
    upper = max(interval[1] for interval in intervals)
    if math.isinf(upper):
        return dataclasses.replace(bound, warnings=(*bound.warnings, _VACUOUS))
    return dataclasses.replace(
        bound,
        lower=max(interval[0] for interval in intervals),
        upper=upper,
        certified=ground.certified,
        method_lower="edgeworth eeai",
        method_upper="edgeworth eeai",
    )


def _series(
    form: str, order: int, null: Cumulants, alternative: Cumulants
) -> Callable[[Array], Array]:
    """The published estimate of delta as a function of epsilon."""
    if form == "aea":
        return lambda e: two_sided(null, alternative, e, order)
    return lambda e: one_sided(alternative, e, order)


def _untilted(alternative: Cumulants, delta: float) -> tuple[float, float]:
    """Lower and upper bound on epsilon: delta for the normal law, give or take D."""
    apart = alternative.distance + 1e-9
    if apart >= delta:
        return 0.0, math.inf

    def normal(e: Array) -> Array:
        return one_sided(alternative, e, 0)

    crossings = (
        max(last_crossing(normal, target, alternative), 0.0)
        for target in (delta + apart, delta - apart)
        if target < 1
    )
    lower, upper = [0.0, *crossings][-2:]
    return lower * (1 - 1e-9), upper * (1 + 1e-9)


def _above(tilt: Cumulants, x: Array, order: int, power: Any = 0.0) -> Array:
    """e^power (1 - F(x)) by the series."""
    v = math.sqrt(tilt.variance)
    z = (x - tilt.mean) / v
    ratios = [k / v ** (i + 3) for i, k in enumerate(tilt.higher)]
    normal = np.exp(np.minimum(power + special.log_ndtr(-z), 700.0))
    density = np.exp(np.minimum(power - 0.5 * z * z, 700.0)) / _ROOT
    return normal + density * hermeval(z, _coefficients(ratios, order))


def _coefficients(ratios: list[float], order: int) -> list[float]:
    """Of He_0, He_1, ... in (Phi - F) / phi, by the standardised cumulants 3 to 6."""
    r3, r4, r5, r6 = ratios
    terms = [
        {2: r3 / 6},
        {3: r4 / 24, 5: r3**2 / 72},
        {4: r5 / 120, 6: r3 * r4 / 144, 8: r3**3 / 1296},
        {
            5: r6 / 720,
            7: r4**2 / 1152 + r3 * r5 / 720,
            9: r3**2 * r4 / 1728,
            11: r3**4 / 31104,
        },
    ]
    found = [0.0] * 12
    for group in terms[:order]:
        for degree, value in group.items():
            found[degree] += value
    return found
