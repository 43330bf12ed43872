"""Cumulants of tilted losses, and the distance from the normal law they imply."""

import math
from typing import Any

import dp_accounting as dp
import numpy as np
import pytest
from dp_accounting import dp_event

from dpkit.accountants.answers.relations import Relation
from dpkit.accountants.composition.tilt import LossSum
from dpkit.accountants.events import (
    ApproxDpEvent,
    DiscreteGaussianDpEvent,
    PureDpEvent,
    repeat,
    sequential,
)
from tests.accountants.worked_runs import gaussian, pmf_pair, poisson, poisson_laplace
from tests.oracles import tilted_moments as oracle
from tests.oracles.tilted_moments import laplace, mixed, normal

BOTH_SIDES = (False, True)


def losses(event, relation="add_remove") -> Any:
    return LossSum(event, Relation(relation))


def numbers(tilt, size=5):
    return [tilt.mean, tilt.variance, *tilt.higher][:size]


# (noise, rate, tilt, cumulants 1 to 5): mpmath integrals with 30 digits.
SAMPLED = [
    (
        *(1, 0.01, 0.0),
        [
            8.381220765e-5,
            1.716305062e-4,
            1.253179645e-5,
            2.183259468e-6,
            6.986688629e-7,
        ],
    ),
    (
        *(1, 0.01, -1.0),
        [
            -8.188976914e-5,
            1.600866477e-4,
            1.064838526e-5,
            1.625807439e-6,
            4.43032047e-7,
        ],
    ),
    (
        *(1, 0.01, 3.0),
        [
            6.683857613e-4,
            2.242628003e-4,
            2.553707753e-5,
            8.837471416e-6,
            6.337017825e-6,
        ],
    ),
    (
        *(4, 0.01, 0.0),
        [3.222612612e-6, 6.449421397e-6, 1.259959952e-8, 4.436884846e-11, 2.318606e-13],
    ),
    (
        *(0.8, 0.005, 0.0),
        [
            4.546566151e-5,
            9.401362136e-5,
            9.910741152e-6,
            2.952054996e-6,
            1.696145556e-6,
        ],
    ),
]


@pytest.mark.parametrize(("noise", "rate", "tilt", "truth"), SAMPLED)
def test_sampled_gaussians(noise, rate, tilt, truth):
    found = losses(poisson(noise, rate)).at(tilt)
    assert numbers(found) == pytest.approx(truth, rel=2e-7)
    assert numbers(found, 4) == pytest.approx(truth[:4], rel=1e-9)


def test_the_log_moment():
    assert losses(poisson(1, 0.01)).at(3.0).log_moment == pytest.approx(
        1.089462147e-3, rel=1e-9
    )
    for backward in BOTH_SIDES:
        found = losses(poisson(0.7, 0.1)).at(0.0, backward=backward)
        assert abs(found.log_moment) <= found.slack


def test_the_adding_side_mirrors_the_removing_one():
    # The loss of the pair (Q, P) under Q is minus that of (P, Q) under the tilt -1.
    event = poisson(0.9, 0.02)
    forward, backward = losses(event).at(-1.0), losses(event).at(0.0, backward=True)
    signs = [-1, 1, -1, 1, -1, 1]
    mirrored = [s * k for s, k in zip(signs, numbers(forward, 6), strict=True)]
    assert numbers(backward, 6) == pytest.approx(mirrored, rel=1e-12)


def test_laplace_noise():
    # By hand from the two atoms and the exponential between them, scale 2.
    found = losses(dp.LaplaceDpEvent(2.0)).at(0.0)
    truth = [0.10653066, 0.20599792, -0.04122649, -0.07120125, 0.06358314]
    assert numbers(found) == pytest.approx(truth, rel=1e-6)


def sides(p, q):
    return {False: (p, q), True: (q, p)}


PAIRS = [
    (
        poisson(0.8, 0.05),
        "add_remove",
        sides(mixed((0.95, 0.05), (normal(0, 0.8), normal(1, 0.8))), normal(0, 0.8)),
    ),
    (
        poisson(1.5, 0.2),
        "replace_one",
        sides(
            mixed((0.8, 0.2), (normal(0, 1.5), normal(1, 1.5))),
            mixed((0.8, 0.2), (normal(0, 1.5), normal(-1, 1.5))),
        ),
    ),
    (
        poisson_laplace(0.5, 0.1),
        "zero_out",
        sides(mixed((0.9, 0.1), (laplace(0, 0.5), laplace(1, 0.5))), laplace(0, 0.5)),
    ),
    (
        dp.LaplaceDpEvent(1.5),
        "replace_one",
        sides(laplace(2, 1.5), laplace(0, 1.5)),
    ),
    (
        dp_event.MixtureOfGaussiansDpEvent(1.0, (0.0, 1.0, 2.0), (0.9, 0.0625, 0.0375)),
        "add_remove",
        sides(
            mixed((0.9, 0.0625, 0.0375), (normal(0, 1), normal(1, 1), normal(2, 1))),
            normal(0, 1),
        ),
    ),
]


@pytest.mark.parametrize(
    ("event", "relation", "pair"), PAIRS, ids=lambda x: repr(x)[:9]
)
@pytest.mark.parametrize("backward", BOTH_SIDES)
def test_every_density_under_a_tilt(event, relation, pair, backward):
    for tilt in (0.5, 4.0):
        found = losses(event, relation).at(tilt, backward=backward)
        p, q = pair[backward]
        log_moment, mean, variance, cube = oracle.moments(p, q, tilt)
        assert found.log_moment == pytest.approx(log_moment, rel=1e-7)
        assert found.mean == pytest.approx(mean, rel=1e-7)
        assert found.variance == pytest.approx(variance, rel=1e-7)
        ratio = cube / variance**1.5
        assert ratio <= found.ratio <= 1.006 * ratio


@pytest.mark.parametrize("tilt", [1, 3, 63, 200])
def test_integer_orders_have_a_binomial_sum(tilt):
    # sum_k C(a, k) (1-q)^(a-k) q^k e^((k^2 - k) / 2 s^2).
    noise, rate = 1.3, 0.1
    found = losses(poisson(noise, rate)).at(float(tilt)).log_moment
    order = tilt + 1
    terms = [
        math.lgamma(order + 1)
        - math.lgamma(k + 1)
        - math.lgamma(order - k + 1)
        + (order - k) * math.log1p(-rate)
        + k * math.log(rate)
        + (k * k - k) / (2 * noise**2)
        for k in range(order + 1)
    ]
    assert found == pytest.approx(float(np.logaddexp.reduce(terms)), rel=1e-11)


def test_gaussians_enter_exactly():
    found = losses(sequential([gaussian(2), repeat(gaussian(4), 4)])).at(1.5)
    square = 1 / 4 + 4 / 16
    assert found.log_moment == pytest.approx(1.5 * 2.5 * square / 2, rel=1e-14)
    assert numbers(found, 3) == pytest.approx([2 * square, square, 0.0])
    assert found.ratio == 0.0
    replaced = losses(gaussian(2), "replace_one").at(1.0)
    assert replaced.variance == pytest.approx(1.0)


def test_cumulants_add_up():
    parts = [poisson(1, 0.02), dp.LaplaceDpEvent(3.0), gaussian(5), PureDpEvent(0.1)]
    whole = losses(sequential([repeat(part, 7) for part in parts])).at(2.0)
    single = [losses(part).at(2.0) for part in parts]
    for i, total in enumerate(numbers(whole, 6)):
        assert total == pytest.approx(7 * sum(numbers(x, 6)[i] for x in single))
    assert whole.log_moment == pytest.approx(7 * sum(x.log_moment for x in single))


def test_many_releases_are_read_like_one_at_a_time():
    events = [poisson(0.3 + i / 50, 0.001 * (i + 1)) for i in range(60)]
    whole = losses(sequential(events)).at(3.0, backward=True)
    single = [losses(event).at(3.0, backward=True) for event in events]
    assert whole.variance == pytest.approx(sum(x.variance for x in single), rel=1e-12)
    assert whole.mean == pytest.approx(sum(x.mean for x in single), rel=1e-12)


def test_the_distance_from_the_normal_law():
    # Shevtsova 2010: 0.56 for any summands; Shevtsova 2013 for equal ones. The first
    # number is 0.56 times the ratio of 10,000 equal steps under the tilt 2.910028.
    event = repeat(poisson(1, 0.01), 10_000)
    found = losses(event).at(2.910028)
    assert 0.56 * found.ratio == pytest.approx(0.042729, rel=6e-3)
    assert 0.56 * found.ratio > 0.042729
    equal = 0.3031 * (found.ratio + 0.646 / 100)
    assert found.distance == pytest.approx(equal, rel=1e-6)
    other = losses(sequential([event, gaussian(1e6)])).at(2.910028)
    assert other.distance == pytest.approx(0.56 * found.ratio, rel=1e-6)


@pytest.mark.parametrize(
    ("noise", "rate", "steps", "bound"),
    [(1, 0.01, 10_000, 1.9e-2), (1, 5e-4, 20_000, 1.5e-2), (2, 0.01, 100_000, 2.8e-3)],
)
def test_the_untilted_distance(noise, rate, steps, bound):
    found = losses(repeat(poisson(noise, rate), steps)).at(0.0).distance
    assert found <= bound * 1.04


def test_infinite_losses_escape():
    both = losses(sequential([repeat(ApproxDpEvent(0.1, 1e-3), 5), gaussian(1)]))
    assert both.escaped == pytest.approx([1 - 0.999**5] * 2)
    one = losses(pmf_pair((0.5, 0.5, 0.0), (0.4, 0.5, 0.1)))
    assert one.escaped == pytest.approx((0.0, 0.1))
    assert losses(gaussian(1)).escaped == (0.0, 0.0)
    kept = one.at(0.0, backward=True)
    assert kept.log_moment == pytest.approx(math.log(0.9))


def test_too_little_noise_is_out_of_reach():
    for event in (poisson(1e-4, 0.1), dp.LaplaceDpEvent(1e-7)):
        assert losses(event).at(1.0) is None
    assert losses(poisson(0.3, 0.1)).at(1e6) is None


def test_only_finite_outcomes_are_not_smooth():
    assert losses(sequential([gaussian(1), poisson(1, 0.1)])).smooth
    assert not losses(sequential([gaussian(1), DiscreteGaussianDpEvent(2.0, 1)])).smooth
