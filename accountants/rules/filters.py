r"""Privacy filters: budgets that hold when events are chosen from earlier outputs.

Setting. Step i is chosen from the outputs so far; given them it is a release with
Rényi divergence D_alpha(P_i || Q_i) <= r_i(alpha), in both directions, where r_i is
known before the step runs. P and Q are the laws of the whole run on two neighbours,
L = log dP/dQ, and S any set of transcripts.

**One order is a filter and an odometer.** Fix alpha > 1 and a share d of delta. Then
M = exp((alpha-1)(L - sum_i r_i(alpha))) has E_P[M] <= 1: each step multiplies it by a
factor whose mean, given the past, is at most 1. Let

    c = log(1 - 1/alpha) - log(d alpha)/(alpha-1),      R = c + sum_i r_i(alpha).

For x >= 0, (1 - e^-x) e^(-(alpha-1)x) <= (1/alpha)(1-1/alpha)^(alpha-1), hence

    P(S) - E_Q[e^R; S]
      <= E_P[(1 - e^(R-L))_+]                                                        (1)
      <= (1/alpha)(1-1/alpha)^(alpha-1) e^(-(alpha-1)c) E_P[M] <= d.

R may depend on the outputs: (1) is an honest report of what was spent, and if every
charge that would make R > eps is refused, the run is (eps, d)-DP. This is the filter of
Feldman & Zrnic (2021, arXiv:2008.11193) with the conversion of Canonne, Kamath &
Steinke (2020, arXiv:2004.00010).

**Several orders** alpha_k, fixed when the filter opens, with shares d_k that sum to
delta: a charge is allowed iff after it some R_k <= eps, and the report is min_k R_k.
Let S_k be the part of S whose final minimum is at k. By (1),

    P(S_k) - E_Q[e^R_k; S_k] <= d_k,   so, summing,   P(S) <= E_Q[e^(min R); S] + delta,

and min R <= eps always. (Were d_k = delta for each k, the sum would be K delta: the
"some order" rule needs the split.) An infinite order needs no share: L is at most R,
the sum of the largest losses, so P(S_k) <= E_Q[e^R; S_k]. On the transcripts where
nothing was charged P = Q, so there the report is 0 without a share.

**Refunds and reservations.** A reservation is charged before its steps run, and what
did not run may be given back when it is counted step by step: (1) holds with the sum
over executed steps, and the sum charged at the end is never smaller. Which steps run
may depend on the outputs. Reservations may interleave, step by step; a copy that is
interactive by itself (a tree, a stream) counts as a whole, for Rényi bounds of one
order compose concurrently too (Haney et al. 2023, arXiv:2309.05901).

**zCDP** is the case of one order. If step i is rho_i-zCDP, r_i(alpha) = rho_i alpha,
and R <= eps is sum rho_i <= (eps - c)/alpha, largest at one alpha*, where it is rho*.
(With an approximate form xi + rho alpha, r_i is that.)

**A filter for a whole ledger.** A release whose certificate is "a curve, except with
probability p on either neighbour" (a batch that can overflow, coupled to one that
can't) is charged by that curve, and p is added to a sum eta; an approximate release, P
= (1 - d) P' + d P'', likewise Q, by the curve of (P', Q') and d to a sum of deltas.
Conditional probabilities that are bounded in advance add up along every path. With
delta split once, when the filter opens, into the orders' shares, delta_a and delta_eta,
and every charge refused that would make sum d > delta_a or (1 + e^eps) eta > delta_eta,
the run is (eps, delta)-DP. The split must not follow what was spent: where delta
shrinks with eta, an adversary puts eta only on paths whose loss is low. Nor may a
report at a smaller delta: all parts are scaled by one number chosen beforehand. Where
they don't cover, or min R is above the eps of 1 + e^eps, the report is inf, which is no
statement: the others hold for every S of transcripts whose report is finite.

**Beside sealed plans.** A ledger's total in the regime `adaptive` is the sum of
(eps_i, delta_i) over plans and direct charges, plus (min R, delta_f) for one filter
opened with (eps_f, delta_f). Let W be the density ratio, P to Q, of the other releases
outside a P-mass of at most sum delta_i; it is at most e^(sum eps_i) (for plans that run
concurrently with other releases: Lyu 2022, arXiv:2207.09397, simulates an interactive
(eps, delta)-DP mechanism by post-processing one randomised response, drawn when it
starts; Haney et al. 2023, arXiv:2309.05901, for parameters chosen along the way). The
caller's choices and those releases together are one adversary of the filter, so by (1)
under the adversary's law on P, and then W,

    P(S) <= sum delta_i + delta_f + E_Q[exp(sum eps_i + min R); S].

With sum eps_i + eps_f <= eps and sum delta_i + delta_f <= delta at all times, the run
is (eps, delta)-DP. A plan's (eps_i, delta_i) is never recomputed for fewer steps: a
choice made after looking. One that ends before any output was seen never took part, so
`abort` gives it all back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.bounds import Budget
from dpkit.accountants.answers.exact import ZERO, Number, below, exact

DYADIC_ORDERS = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0)

_LEVELS = 6
_CENTRE, _AROUND = 0.75, (0.25, 0.5, 2.0, 4.0, 16.0)
_UP, _WORTH = 1 + 1e-12, 1.5
_LOG_ORDER_RANGE = (math.log(1e-4), math.log(1e9))


@dataclass(frozen=True)
class RenyiFilter:
    """Rényi budgets at a few orders; alive while one of them is.

    min_k (c_k + sum_i r_i(alpha_k)) <= epsilon, c_k from the share of delta of order k.

    Privacy: any adaptively chosen charges that `admits` allows compose to
    (epsilon, delta)-DP, and `spent` is an honest report at any time (module docstring).
    Both directions of the relation, if each r_i bounds both.

    Fields: epsilon >= 0 (may be inf), delta in (0, 1), orders > 1 (inf: sums of
    largest losses), shares that sum to at most 1 (the part of delta that each order may
    use; above 0, but 0 for inf), approximate and coupled (deltas beside `delta`, of a
    filter for a whole ledger).

    Example:
      >>> both = RenyiFilter(3.0, 1e-5, (4.0, 8.0), (0.5, 0.5))
      >>> both.spent([0.0, 0.0]), round(both.spent([0.4, 0.8]), 6)
      (0.0, 2.11313)
      >>> both.admits([2.0, 1.0]), both.admits([2.0, 2.0])
      (True, False)

    Reference: Feldman & Zrnic, "Individual Privacy Accounting via a Rényi Filter",
    2021, arXiv:2008.11193, Theorem 3.1; the module docstring for several orders.
    """

    epsilon: float
    delta: float
    orders: tuple[float, ...]
    shares: tuple[float, ...]
    approximate: float = 0.0
    coupled: float = 0.0

    def __post_init__(self):
        if math.isnan(self.epsilon) or self.epsilon < 0.0:
            raise ValueError(f"epsilon={self.epsilon} must be at least 0")
        if not 0.0 < self.delta < 1.0 or min(self.approximate, self.coupled) < 0.0:
            raise ValueError(f"delta={self.delta} must be in (0, 1)")
        if not self.orders or len(self.orders) != len(self.shares):
            raise ValueError("orders and shares must be as many, and at least one")
        needy = [
            d for a, d in zip(self.orders, self.shares, strict=True) if a < math.inf
        ]
        if min(self.orders) <= 1.0 or min(needy, default=1.0) <= 0.0:
            raise ValueError("orders must be above 1 and shares above 0")
        if math.fsum(self.shares) > 1.0:
            raise ValueError(f"shares={self.shares} must sum to at most 1")

    def spent(self, totals: Sequence[float], *, scale: float = 1.0) -> float:
        """The epsilon reported: min_k c_k + totals_k, rounded up.

        It is 0 where all totals of finite orders are 0: then nothing was charged.

        Args:
          totals: sum_i r_i(alpha_k), >= 0, inf allowed, one for each order.
          scale: in [0, 1]; reports at delta * scale instead. Choose it beforehand.

        Example:
          >>> RenyiFilter(3.0, 1e-5, (8.0,), (1.0,)).spent([0.08])
          1.294109...
        """
        if not any(totals):
            return 0.0
        orders = zip(self.orders, totals, strict=True)
        if not any(total for order, total in orders if order < math.inf):
            return 0.0  # an infinite order alone may stay so after an abort
        return max(0.0, min(self.reports(totals, scale)))

    def reports(self, totals: Sequence[float], scale: float = 1.0) -> list[float]:
        """What each order reports, rounded up."""
        orders = zip(self.orders, self.shares, totals, strict=True)
        return [_report(a, self.delta * d * scale, total) for a, d, total in orders]

    def admits(self, totals: Sequence[float]) -> bool:
        """Whether a run may go on with these totals: the report is within epsilon."""
        return self.spent(totals) <= self.epsilon

    @property
    def shared(self) -> bool:
        """Whether it counts a whole ledger: nothing is charged beside it."""
        return self.approximate > 0.0

    def covers(self, lost: Number, missed: Number) -> bool:
        """Whether its deltas cover approximate releases, and couplings that may fail.

        Args:
          lost: the sum of the deltas of approximate releases.
          missed: the sum of the probabilities that a run is not the one charged.
        """
        coupled = _coupling(self.epsilon, missed)
        return lost <= exact(self.approximate) and coupled <= exact(self.coupled)

    def spent_at(
        self, scale: Number, totals: Sequence[float], lost: Number, missed: Number
    ) -> float:
        """The report at `scale` times all of its deltas; inf where they don't cover.

        With couplings that may fail, only up to an epsilon that the scale alone
        decides: what of delta they take grows with it.

        Args:
          scale: in [0, 1], chosen beforehand.
          totals, lost, missed: as for `spent` and `covers`.
        """
        part = below(scale)
        within = scale * exact(self.approximate), scale * exact(self.coupled)
        reach = math.inf
        if part > 0.0:
            reach = self.epsilon - math.log(part) / (self.orders[0] - 1.0)
        report = self.spent(totals, scale=part)
        if lost > within[0] or _coupling(reach, missed) > within[1]:
            return math.inf
        return math.inf if missed and report > reach else report

    def to_json(self) -> dict[str, Any]:
        """The filter as it stands in an entry: decimal strings."""
        found: dict[str, Any] = {
            "epsilon": repr(self.epsilon),
            "delta": repr(self.delta),
            "orders": [repr(order) for order in self.orders],
            "shares": [repr(share) for share in self.shares],
        }
        if self.shared:
            found |= {n: repr(getattr(self, n)) for n in ("approximate", "coupled")}
        return found

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RenyiFilter:
        """The filter that `to_json` wrote."""
        whole = float(value["epsilon"]), float(value["delta"])
        orders, shares = (tuple(map(float, value[n])) for n in ("orders", "shares"))
        beside = (float(value.get(n, 0.0)) for n in ("approximate", "coupled"))
        return cls(*whole, orders, shares, *beside)


def _coupling(epsilon: float, missed: Number) -> Number:
    """The delta of couplings that fail with such a probability: (1 + e^eps) eta."""
    if not missed:
        return ZERO
    if epsilon > 700.0:
        return math.inf
    return missed * (1 + exact(math.exp(epsilon) * _UP))


def offset(order: float, delta: float) -> float:
    """What an order alpha > 1 costs before anything is charged, for a delta in (0, 1).

    c = log(1 - 1/alpha) - log(delta alpha)/(alpha - 1): Rényi divergence r at this
    order gives (r + c, delta)-DP.

    Example:
      >>> round(3.0 - offset(8.0, 1e-5 / 6), 6)
      1.529925

    Reference: Canonne, Kamath & Steinke, "The Discrete Gaussian for Differential
    Privacy", 2020, arXiv:2004.00010, Proposition 12.
    """
    return math.log1p(-1.0 / order) - math.log(delta * order) / (order - 1.0)


def best_order(epsilon: float, delta: float) -> float:
    """The order at which zCDP lasts longest under a finite epsilon > 0 and a delta.

    argmax over alpha > 1 of (epsilon - c(alpha)) / alpha, to about five digits: every
    order is valid, and this one is nearly the best (module docstring, on zCDP).

    Example:
      >>> best_order(3.0, 1e-5)
      7.5077
    """
    epsilon = checks.positive(epsilon=epsilon)
    delta = checks.probability(delta=delta)
    low, high = _LOG_ORDER_RANGE
    for _ in range(4):
        grid = np.linspace(low, high, 401)
        order = 1.0 + np.exp(grid)
        cost = np.log1p(-1.0 / order) - np.log(delta * order) / (order - 1.0)
        best = int(np.argmax((epsilon - cost) / order))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, 400)]
    return float(f"{order[best]:.6g}")


def zcdp_filter(epsilon: float, delta: float) -> RenyiFilter:
    """The zCDP filter for a whole budget: one order alpha*, all of delta.

    Its one total is sum_i rho_i alpha*. Allows charges while
    sum_i rho_i <= rho* = max_alpha (epsilon - c(alpha)) / alpha.

    Privacy: (epsilon, delta)-DP for adaptively chosen zCDP releases.

    Example:
      >>> one = zcdp_filter(3.0, 1e-5)
      >>> round((one.epsilon - one.spent([1e-300])) / one.orders[0], 8)
      0.22424917

    Reference: as `RenyiFilter`; zCDP is Bun & Steinke, 2016, arXiv:1605.02658.
    """
    return RenyiFilter(epsilon, delta, (best_order(epsilon, delta),), (1.0,))


def adaptive_filter(epsilon: float, delta: float) -> RenyiFilter:
    """The filter that a ledger opens for charges chosen along the way.

    Twelve orders: the one that suits zCDP at the whole epsilon (3/8 of delta), 2, 4, …,
    64 for events with a curve of their own (1/16 each), and those that suit epsilon/2,
    …, epsilon/32, which make the report small while little is spent (3/64 each).

    An infinite epsilon keeps the dyadic orders alone.

    Privacy: as `RenyiFilter`.

    Example:
      >>> filter = adaptive_filter(3.0, 1e-5)
      >>> round(filter.spent([0.005 * order for order in filter.orders]), 6)
      0.452605
    """
    if math.isinf(epsilon):
        return RenyiFilter(epsilon, delta, DYADIC_ORDERS, (0.125,) * 6)
    shares = dict.fromkeys(DYADIC_ORDERS, 0.0625)
    for level in range(_LEVELS):
        share = 0.375 if level == 0 else 0.046875
        order = best_order(epsilon * 0.5**level, delta * share)
        shares[order] = shares.get(order, 0.0) + share
    return RenyiFilter(epsilon, delta, tuple(shares), tuple(shares.values()))


def shared_filter(
    budget: Budget, curve: Callable[[tuple[float, ...]], Sequence[float] | None]
) -> RenyiFilter | None:
    """The filter of a whole ledger, chosen by what its first charge costs.

    Six orders, fixed by public numbers before any output exists: the one that admits
    the most copies of the first charge gets three quarters of the delta for orders,
    five around it share the rest, and an infinite one adds up epsilons. Nine tenths of
    the budget's delta are for orders, a twentieth each for approximate releases and
    for couplings.

    Privacy: as `RenyiFilter`; all of it is (epsilon, delta)-DP for the budget.

    Args:
      budget: of the ledger.
      curve: Rényi bounds of the first charge at some orders, the infinite one among
        them; None: it has none.

    Returns:
      The filter; None where no order admits a copy, or no more than adding up does.
    """
    epsilon, whole = budget.epsilon, exact(budget.delta)
    beside = below(whole / 20)
    delta = below(whole - 2 * exact(beside))
    if not 0.0 < epsilon < math.inf or min(delta, beside) <= 0.0:
        return None
    tried = tuple(float(f"{1 + x:.6g}") for x in np.geomspace(0.05, 2e4, 160))
    costs = curve((*tried, math.inf))
    if costs is None:
        return None
    left = np.array([epsilon - offset(a, _CENTRE * delta) for a in tried])
    copies = left / np.maximum(costs[:-1], 1e-300)
    best = int(np.argmax(copies))
    # What does nearly as well by adding up epsilons is better off so.
    if not copies[best] >= max(1.0, _WORTH * epsilon / max(costs[-1], 1e-300)):
        return None
    shares = {tried[best]: _CENTRE, math.inf: 0.0}
    for factor in _AROUND:
        order = float(f"{1 + (tried[best] - 1) * factor:.6g}")
        shares[order] = (1 - _CENTRE) / len(_AROUND)
    return RenyiFilter(
        epsilon, delta, tuple(shares), tuple(shares.values()), beside, beside
    )


def _report(order: float, delta: float, total: float) -> float:
    """c + total, raised by more than the rounding in both."""
    if order == math.inf:
        return total
    if delta < 1e-300:
        return math.inf  # too few digits, or none
    cost = offset(order, delta)
    return cost + total + 1e-14 * (1.0 + abs(cost) + total)
