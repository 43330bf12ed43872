"""What a run has cost so far, for display: certified bounds, never too low."""

from __future__ import annotations

import bisect

import numpy as np

from dpkit.accountants.answers.bounds import PrivacyBound
from dpkit.accountants.readings.best import epsilon as epsilon_of
from dpkit.accountants.readings.best import epsilon_curve
from dpkit.training.plan import DPSGDPlan

_CURVE_POINTS = 20


class SpentSoFar:
    """Certified upper bounds on the cost of the first t steps, for display.

    A plan that is fixed beforehand is a fixed plan at every prefix. Between the points
    of a coarse grid the next higher one is shown, so the figure is never too low.
    """

    def __init__(self, plan: DPSGDPlan, bound: PrivacyBound) -> None:
        grid = np.linspace(0, plan.steps, _CURVE_POINTS + 1)[1:]
        self._counts = sorted({int(np.ceil(point)) for point in grid})
        self._total = float("inf") if bound.upper is None else bound.upper
        if not np.isfinite(self._total):
            self._uppers = [float("inf")] * len(self._counts)
            return
        curve = _curve(plan, self._counts, bound)
        self._uppers = [
            self._total if upper is None else min(upper, self._total) for upper in curve
        ]

    def upper(self, step: int) -> float:
        """What `step` steps cost, at most."""
        return self._uppers[bisect.bisect_left(self._counts, step)]


def _curve(
    plan: DPSGDPlan, counts: list[int], bound: PrivacyBound
) -> list[float | None]:
    """The certified cost of the first steps of a plan, for each number of steps."""
    relation, delta = bound.relation, bound.delta
    event, count = plan.charge(relation)
    if count == plan.steps:
        curve = epsilon_curve(event, counts, delta, relation=relation)
        return [point.upper for point in curve]
    prefixes = {n: plan.event_until(n, relation) for n in counts}
    if all(prefix == event for prefix in prefixes.values()):
        return [bound.upper] * len(counts)
    return [epsilon_of(prefixes[n], delta, relation=relation).upper for n in counts]
