"""What rounding may take of a mass, a sum or a share, times as many as there are."""

import math
from fractions import Fraction
from typing import Any

import dp_accounting as dp
import numpy as np
import pytest

from dpkit.accountants import (
    ApproxDpEvent,
    Budget,
    BudgetExceeded,
    PmfPairDpEvent,
    PureDpEvent,
    Relation,
    pure,
    repeat,
)
from dpkit.accountants.answers.exact import exact
from dpkit.accountants.events import sequential
from dpkit.accountants.pairs import curve, finite
from dpkit.accountants.readings.rdp import rdp_curve
from tests.accountants.toy_ledgers import GAUSSIAN, new_ledger


def pair(p, q):
    """A proven pair under zero_out."""
    how = {"relation": "zero_out", "name": "x", "provenance": "direct"}
    return PmfPairDpEvent(p=tuple(p), q=tuple(q), certified=True, **how)


@pytest.mark.parametrize("outcomes", [2, 1024])
def test_mass_that_is_missing_is_lost_in_every_copy(outcomes):
    """More than rounding; it used to be forgiven, and 10^12 copies were free."""
    lacking = 3 * (outcomes + 4) * 2.0**-53
    masses = [1 / outcomes] * (outcomes - 1) + [1 / outcomes - lacking]
    missing = 1 - sum(map(Fraction, masses))
    event = pair(masses, masses)
    assert pure.guarantee(event, Relation.ZERO_OUT)[1] >= missing * (1 - 1e-9) > 0
    assert np.isinf(rdp_curve(event, [2.0], relation="zero_out")).all()
    ledger = new_ledger(relation="zero_out")
    with pytest.raises(BudgetExceeded):
        ledger.charge(event, count=math.ceil(Fraction(1, 10**5) / missing), label="x")
    ledger.charge(event, label="x")
    assert exact(ledger.entries()[-1].body["cost"]["all"]["delta"]) >= missing * 0.999


@pytest.mark.parametrize("outcomes", [2, 3, 10, 1000, 10_000])
def test_masses_that_were_divided_by_their_sum_lack_nothing(outcomes):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        p, q = rng.random((2, outcomes)) + 0.1
        event = pair(p / p.sum(), q / q.sum())
        assert pure.guarantee(event, Relation.ZERO_OUT)[1] == 0
        assert np.isfinite(rdp_curve(event, [2.0], relation="zero_out")).all()


def test_no_pair_of_ours_lacks_anything():
    pairs = [
        finite.randomized_response(0.3, 7, Relation.REPLACE_ONE),
        finite.randomized_response(0.3, 10**15, Relation.ZERO_OUT),
        *(finite.discrete_laplace(rate, n) for rate in (1e-9, 0.7, 30) for n in (1, 9)),
        *(finite.discrete_gaussian(stddev, 2) for stddev in (0.3, 7.0, 300.0)),
        *(finite.approximate(epsilon, 0.0) for epsilon in (1e-9, 0.7, 30.0, 699.0)),
    ]
    for each in pairs:
        assert max(each.infinite) < 1e-200
    assert finite.approximate(0.7, 0.1).infinite == (0.1, 0.1)


def test_masses_above_one_hide_no_loss():
    """q is told too large by 1e-14: it is divided away, and 10^15 copies lose 10."""
    p, q = (0.1 * 1.0001, 0.9 - 1e-5), (0.1 * (1 + 9e-15), 0.9 * (1 + 9e-15))
    each = pair(p, q), pair(q, p)
    for event in each:
        epsilon, delta = pure.guarantee(event, Relation.ZERO_OUT)
        assert delta == 0
        total = [sum(map(Fraction, side)) for side in (event.p, event.q)]
        ratios = [
            Fraction(a) / total[0] / (Fraction(b) / total[1])
            for a, b in zip(event.p, event.q, strict=True)
        ]
        excess = (max(r, 1 / r) - 1 for r in ratios)
        assert epsilon >= max(math.log1p(x) for x in excess)


@pytest.mark.parametrize("number", [1, 2, 20_000])
def test_sums_of_curves_are_no_smaller_than_exact_ones(number):
    small = [1e-16 * (1 + i * 1e-6) for i in range(number)]
    terms: list[Any] = [(lambda orders: orders, 1)]
    terms += [(lambda orders, x=x: x * orders, 3) for x in small]
    found = curve.sum_of(terms)(np.array([2.0]))[0]
    truth = 2 * (1 + 3 * sum(map(Fraction, small)))
    assert truth <= Fraction(float(found)) <= truth * (1 + Fraction(1, 10**11))


def test_many_small_charges_beside_a_large_one_are_all_counted():
    rhos = [1e-16 * (1 + i * 1e-6) for i in range(2_000)]
    event = sequential([dp.ZCDpEvent(1.0), *map(dp.ZCDpEvent, rhos)])
    ledger = new_ledger(budget=Budget(30.0, 1e-5))
    ledger.charge(dp.GaussianDpEvent(3.0), label="first")
    value = exact(ledger.charge(event, label="x").body["cost"]["all"]["values"][0])
    order = exact(ledger.entries()[1].body["cost"]["all"]["opens"]["orders"][0])
    assert value >= order * (1 + sum(exact(rho) for rho in rhos))


def test_a_share_of_a_smaller_delta_is_never_rounded_up():
    """delta / budget * budget in floats is sometimes more than delta."""
    whole = 1e-5
    rounded = [
        (below, above)
        for above in (k * 1.3e-9 for k in range(1, 200))
        for below in [math.nextafter(above, 0)]
        if below / whole * whole >= above
    ]
    assert rounded
    for below, above in rounded[:3]:
        ledger = new_ledger(budget=Budget(3.0, whole), filter="approx")
        ledger.reserve(ApproxDpEvent(0.5, above), label="x")
        assert ledger.spent(below).upper == math.inf
        assert ledger.spent(above).upper == 0.5


def test_what_is_repeated_beyond_all_floats_is_infinite():
    assert (
        pure.guarantee(repeat(PureDpEvent(1e308), 2), Relation.ZERO_OUT)[0] == math.inf
    )
    assert new_ledger().remaining(repeat(PureDpEvent(1e308), 2)) == 0
    assert new_ledger().remaining(GAUSSIAN) > 0
