"""Curves of a declared run: what it costs against what it does, and what that means.

Every point of a curve's own line is a certified bound, except where `certified` says
otherwise. Reference lines are published formulas for comparison; some are estimates,
and their names say so.

Reference: Dong, Roth, Su, "Gaussian Differential Privacy", 2022, arXiv:1905.02383, for
trade-off curves and the Gaussian ones among them.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dp_accounting import DpEvent

    from dpkit.accountants import AttackRisk, PrivacyBound
    from dpkit.budget.declaration import Declaration

Points = tuple[tuple[float, float], ...]

_REFERENCES = {
    "rdp": "Rényi accountant (Mironov, 2017)",
    "gdp": "Gaussian limit, an estimate (Bu et al., 2020)",
}
_LAST_DELTA = 1e-10
_GAUSSIANS = (0.5, 1.0, 2.0)
_ORDERS = (1.25, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curve:
    """A line of (x, y) points, and lines to compare it with.

    Attributes:
      name: a short word of letters.
      x: what the first numbers are, in words.
      y: what the second numbers are, in words.
      points: upper bounds (of a trade-off curve: lower bounds), finite, x increasing.
      certified: whether every point is proven.
      references: further lines by their names, published elsewhere.

    Example:
      >>> Curve(name="c", x="steps", y="epsilon", points=((1, 0.5),)).certified
      True
    """

    name: str
    x: str
    y: str
    points: Points
    certified: bool = True
    references: dict[str, Points] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values."""
        return dataclasses.asdict(self)


def against_steps(run: Declaration, delta: float, *, count: int = 40) -> Curve:
    """Epsilon at delta after a part of a run: some of its steps, or of its events.

    Privacy: each point holds for a run of that length, fixed beforehand.

    Args:
      run: one event with its count, or several, which happen in order.
      delta: in (0, 1).
      count: about how many points.

    Returns:
      The curve, with those of the accountants that are published elsewhere.

    Example:
      >>> from dpkit.budget.declaration import declare
      >>> run = declare({"relation": "zero_out", "events":
      ...                [{"kind": "gaussian", "noise_multiplier": 5.0, "count": 4}]})
      >>> [x for x, y in against_steps(run, 1e-5).points]
      [1.0, 2.0, 3.0, 4.0]
    """
    from dpkit.accountants import epsilon, epsilon_curve

    made = {"relation": run.relation, "unit": run.unit}
    if len(run.items) > 1:
        totals = list(itertools.accumulate(int(i.get("count", 1)) for i in run.items))
        places = _spread(len(totals), count)
        parts = [(totals[n - 1], run.part(n)) for n in places]
        bounds = [epsilon(event, delta, **made) for _, event in parts]
    else:
        step = run.varied("steps", 1)
        places = _spread(int(run.items[0].get("count", 1)), count)
        parts = [(n, run.varied("steps", n).event) for n in places]
        bounds = epsilon_curve(step.event, places, delta, **made)
    xs = [x for x, _ in parts]
    return Curve(
        name="steps",
        x="steps" if len(run.items) == 1 else "releases",
        y=f"epsilon at delta = {delta!r}",
        points=_finite(xs, map(_upper, bounds)),
        certified=all(bound.certified for bound in bounds),
        references=_by_others([event for _, event in parts], xs, delta, run.relation),
    )


def against_noise(run: Declaration, delta: float, *, count: int = 25) -> Curve:
    """Epsilon at delta against the noise multiplier, from half to four times its own.

    Args:
      run: with exactly one event that has a noise multiplier.
      delta: in (0, 1).
      count: how many points.

    Example:
      >>> from dpkit.budget.declaration import declare
      >>> run = declare({"relation": "zero_out", "events":
      ...                [{"kind": "gaussian", "noise_multiplier": 5.0}]})
      >>> [x for x, y in against_noise(run, 1e-5, count=3).points]
      [2.5, 7.0710678118654755, 20.0]
    """
    from dpkit.accountants import epsilon

    own = [i["noise_multiplier"] for i in run.items if "noise_multiplier" in i]
    if not own:
        raise ValueError("x=noise_multiplier: no event of this run has one")
    middle = float(own[0])
    noises = [middle / 2 * 8 ** (n / (count - 1)) for n in range(count)]
    events = [run.varied("noise_multiplier", noise).event for noise in noises]
    bounds = [epsilon(event, delta, relation=run.relation) for event in events]
    return Curve(
        name="noise",
        x="noise multiplier",
        y=f"epsilon at delta = {delta!r}",
        points=_finite(noises, map(_upper, bounds)),
        certified=all(bound.certified for bound in bounds),
        references=_by_others(events, noises, delta, run.relation),
    )


def profile(risk: AttackRisk, *, count: int = 60) -> Curve:
    """Delta against epsilon, the worse of both directions, from epsilon 0 on.

    Args:
      risk: by `dpkit.accountants.attack_risk`.
      count: about how many points.

    Returns:
      The curve, down to a delta of about 1e-10.

    Example:
      >>> from dp_accounting import GaussianDpEvent
      >>> from dpkit.accountants import attack_risk
      >>> risk = attack_risk(GaussianDpEvent(1.0), relation="add_remove")
      >>> round(profile(risk).points[0][1], 6)  # 2 Phi(1/2) - 1
      0.382925
    """
    pairs = zip(risk.losses, risk.forward, risk.backward, strict=True)
    worse = [(float(e), float(max(p, q))) for e, p, q in pairs]
    shown = [pair for pair in worse if pair[1] >= _LAST_DELTA] or worse[:1]
    # One point for each stretch of epsilon: the grid is dense near 0.
    step = shown[-1][0] / count
    points = shown[:1]
    for pair in shown[1:]:
        if pair[0] - points[-1][0] >= step:
            points.append(pair)
    return Curve(
        name="profile",
        x="epsilon",
        y="delta",
        points=tuple(points),
        certified=risk.certified,
    )


def trade_off(risk: AttackRisk, *, count: int = 101) -> Curve:
    """The least false negative rate of any test of membership, by false positives.

    Args:
      risk: by `dpkit.accountants.attack_risk`.
      count: how many points.

    Returns:
      The curve, a lower bound; the references are Gaussian trade-offs and a blind
      guess.

    Example:
      >>> from dp_accounting import GaussianDpEvent
      >>> from dpkit.accountants import attack_risk
      >>> risk = attack_risk(GaussianDpEvent(1.0), relation="add_remove")
      >>> round(dict(trade_off(risk).points)[0.5], 4)  # Phi(-1)
      0.1587
    """
    rates = [n / (count - 1) for n in range(count)]
    references: dict[str, Points] = {"blind guess": ((0.0, 1.0), (1.0, 0.0))}
    for mu in _GAUSSIANS:
        name = f"Gaussian, mu = {mu:g} (Dong et al., 2022)"
        references[name] = tuple((x, _gaussian_trade_off(x, mu)) for x in rates)
    return Curve(
        name="tradeoff",
        x="false positive rate",
        y="false negative rate",
        points=tuple((x, 1.0 - risk.tpr_at(x)) for x in rates),
        certified=risk.certified,
        references=references,
    )


def renyi(run: Declaration) -> Curve:
    """The Rényi divergence of a run against its order.

    Example:
      >>> from dpkit.budget.declaration import declare
      >>> run = declare({"relation": "zero_out", "events":
      ...                [{"kind": "gaussian", "noise_multiplier": 1.0}]})
      >>> [round(value, 6) for value in renyi(run).points[2]]
      [2.0, 1.0]
    """
    from dpkit.accountants.readings.rdp import rdp_curve

    values = rdp_curve(run.event, _ORDERS, relation=run.relation)
    return Curve(
        name="order",
        x="Rényi order",
        y="Rényi divergence",
        points=_finite(_ORDERS, (float(value) for value in values)),
    )


def _by_others(
    events: Sequence[DpEvent], xs: Sequence[float], delta: float, relation: Any
) -> dict[str, Points]:
    """The same curve by accountants that are published elsewhere."""
    from dpkit.accountants import UnsupportedEvent, UnsupportedRelation
    from dpkit.accountants.readings.best import ACCOUNTANTS

    found: dict[str, Points] = {}
    for name in _REFERENCES.keys() & ACCOUNTANTS.keys():
        ask: Callable[..., PrivacyBound] = ACCOUNTANTS[name].epsilon
        try:
            bounds = [ask(event, delta, relation=relation) for event in events]
        except (UnsupportedEvent, UnsupportedRelation):
            continue
        values = [_upper(b) if b.upper is not None else b.estimate for b in bounds]
        found[_REFERENCES[name]] = _finite(
            xs, (math.inf if v is None else v for v in values)
        )
    return dict(sorted(found.items()))


def _upper(bound: PrivacyBound) -> float:
    """The upper bound, or the estimate where a bound is not proven."""
    value = bound.upper if bound.upper is not None else bound.estimate
    return math.inf if value is None else value


def _finite(xs: Sequence[float], ys: Any) -> Points:
    """Points whose second number is finite."""
    pairs = zip(xs, ys, strict=True)
    return tuple((float(x), float(y)) for x, y in pairs if math.isfinite(y))


def _spread(most: int, count: int) -> list[int]:
    """At most `count` whole numbers from 1 to `most`, evenly, with both ends."""
    if most <= count:
        return list(range(1, most + 1))
    return sorted({1, *(round(most * n / count) for n in range(1, count + 1))})


def _gaussian_trade_off(rate: float, mu: float) -> float:
    """Phi(Phi^-1(1 - x) - mu): the trade-off of one Gaussian with shift mu."""
    from statistics import NormalDist

    normal = NormalDist()
    if rate in (0.0, 1.0):
        return 1.0 - rate
    return normal.cdf(normal.inv_cdf(1.0 - rate) - mu)
