"""What floats round away is never taken off an answer: losses far from 1."""

import itertools
import math
import warnings
from typing import Any, cast

import dp_accounting as dp
import mpmath
import numpy as np
import pytest
from dp_accounting import dp_event
from mpmath import mpf

from dpkit.accountants import UnsupportedEvent, delta_of, epsilon
from dpkit.accountants.answers.relations import Relation
from dpkit.accountants.composition.concentration import tight_delta, tight_epsilon
from dpkit.accountants.events import (
    BoundedRangeDpEvent,
    DiscreteGaussianDpEvent,
    PureDpEvent,
    RandomAllocationDpEvent,
    repeat,
)
from dpkit.accountants.pairs.curve import Remembered
from dpkit.accountants.pairs.laws import Law, curve_of
from dpkit.accountants.pairs.noise import overflow_probability
from dpkit.accountants.readings import edgeworth, gdp, pld, pure, rdp, zcdp
from tests.accountants.worked_runs import (
    gaussian,
    poisson,
    poisson_laplace,
    rdp_curve,
    thinned,
)

ORDERS = (1 + 1e-12, 1 + 1e-6, 1.01, 2.0, 47.0, 1e4)


def upper(bound: Any) -> Any:
    return bound.upper


def laplace_truth(width, order):
    with mpmath.workdps(80):
        a, w = mpf(order), mpf(width)
        up, down = a / (2 * a - 1), (a - 1) / (2 * a - 1)
        moment = up * mpmath.exp((a - 1) * w) + down * mpmath.exp(-a * w)
        return float(mpmath.log(moment) / (a - 1))


def pure_truth(loss, order):
    with mpmath.workdps(80):
        a, e = mpf(order), mpf(loss)
        moment = mpmath.exp(a * e) + mpmath.exp((1 - a) * e)
        return float(mpmath.log(moment / (1 + mpmath.exp(e))) / (a - 1))


def split_truth(loss, order):
    """The best of some splits of a pair of bounded range, so a lower bound."""
    with mpmath.workdps(80):
        a, e = mpf(order), mpf(loss)
        found = mpf(0)
        for place in (*range(1, 40), *(40 - mpf(2) ** -k for k in range(20))):
            t = e * place / 40
            share = (mpmath.exp(-t) - mpmath.exp(-e)) / -mpmath.expm1(-e)
            moment = share * mpmath.exp(a * t) + (1 - share) * mpmath.exp(a * (t - e))
            found = max(found, mpmath.log(moment) / (a - 1))
        return float(found)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("loss", [0.5, 1e-3, 1e-8, 3e-13, 1e-16, 1e-30])
def test_curves_keep_faint_losses_and_orders_near_one(loss, order):
    cases = [
        (dp.LaplaceDpEvent(1 / loss), laplace_truth),
        (PureDpEvent(loss), pure_truth),
        (BoundedRangeDpEvent(loss), split_truth),
    ]
    for event, truth in cases:
        found = rdp.rdp_curve(event, [order], relation="zero_out")[0]
        assert truth(loss, order) <= found <= truth(loss, order) * 1.01


@pytest.mark.parametrize(
    ("event", "shift"),
    [
        (repeat(dp.LaplaceDpEvent(1e18), 10**34), 0.1),
        (repeat(BoundedRangeDpEvent(1e-17), 10**32), 0.05),
        (repeat(PureDpEvent(1e-17), 10**32), 0.1),
    ],
)
def test_many_faint_releases_add_up(event, shift):
    # Sums of so many are Gaussian, for bounded range at the even split.
    truth = upper(gdp.epsilon(gaussian(1 / shift), 1e-5, relation="zero_out"))
    found = upper(epsilon(event, 1e-5, relation="zero_out", lower=False))
    assert truth * (1 - 1e-6) <= found < 0.4


def test_masses_that_round_to_one_law_are_not_read_at_points():
    answer = dp.RandomizedResponseDpEvent(1 - 1.1e-16, 2)
    for event in (PureDpEvent(1e-17), BoundedRangeDpEvent(1e-12), answer):
        with pytest.raises(UnsupportedEvent, match="too small for masses in floats"):
            edgeworth.epsilon(event, 1e-5, relation="zero_out")


@pytest.mark.parametrize("rate", [1e-16, 1e-20, 1e-30, 1e-200])
@pytest.mark.parametrize("scale", [1 / 31, 1 / 100])
def test_faint_sampling_of_steep_noise_is_pure(rate, scale):
    with mpmath.workdps(60):
        truth = float(mpmath.log1p(mpf(rate) * mpmath.expm1(1 / mpf(scale))))
    event = poisson_laplace(scale, rate)
    found = upper(pure.epsilon(event, 0.0, relation="add_remove"))
    assert truth <= found <= truth * (1 + 1e-12)


@pytest.mark.parametrize(
    ("probability", "categories"), [(1e-323, 3), (1e-320, 7), (1e-222, 10**100)]
)
def test_shares_below_normal_floats_are_rounded_down(probability, categories):
    with mpmath.workdps(60):
        share = mpf(probability) / categories
        truth = float(mpmath.log((1 - mpf(probability) + share) / share))
    event = dp.RandomizedResponseDpEvent(probability, categories)
    assert upper(pure.epsilon(event, 0.0, relation="replace_one")) >= truth


def test_tables_of_faint_divergences_are_not_nothing():
    event = rdp_curve((2, 4), (5e-324, 5e-324))
    assert upper(rdp.delta_of(event, 0.0, relation="add_remove")) > 1e-162
    assert upper(rdp.epsilon(event, 1e-170, relation="add_remove")) > 0
    nothing = rdp_curve((2, 4), (0.0, 0.1))
    assert rdp.delta_of(nothing, 0.0, relation="add_remove").upper == 0


@pytest.mark.parametrize(
    ("rate", "count"),
    thinned(itertools.product([1e-12, 1e-20, 1e-100, 1e-200], [1, 10**6]), (6,)),
)
def test_the_best_faint_delta_is_the_smallest(rate, count):
    event = repeat(poisson(1, rate), count)
    found, *each = [
        upper(ask(event, 0.0, relation="add_remove", lower=False))
        for ask in (delta_of, pld.delta_of, rdp.delta_of)
    ]
    truth = rate * math.erf(0.5 / math.sqrt(2))
    assert truth <= found <= min(each)
    if count == 1 and rate > 1e-30:
        assert found <= truth * (1 + 1e-6)


@pytest.mark.parametrize("reading", [pld, rdp, edgeworth])
@pytest.mark.parametrize("count", [1, 10**15])
def test_an_epsilon_beyond_floats_has_a_delta_above_nothing(reading, count):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        event = repeat(poisson(1, 0.1), count)
        found = reading.delta_of(event, 1e308, relation="add_remove", lower=False)
    assert 0 < found.upper <= 1


def test_gaussians_too_far_apart_for_squares():
    event = dp.ComposedDpEvent([repeat(gaussian(1e-100), 10**100)] * 100)
    found = upper(gdp.epsilon(event, 1e-5, relation="replace_one"))
    assert 2e302 * (1 - 1e-9) <= found <= 2e302 * (1 + 1e-9)


def test_a_shift_that_has_no_square_is_refused():
    with pytest.raises(ValueError, match="at most 1e100 times stddev=1e-100"):
        DiscreteGaussianDpEvent(1e-100, 10**100)


@pytest.mark.parametrize("noise", [0.05, 2e4])
def test_allocation_that_no_grid_holds_has_no_lower_bound(noise):
    # Its Gaussian is only above it: at 29 steps far above.
    event = RandomAllocationDpEvent(noise, 29, epochs=10**4)
    found = pld.epsilon(event, 1e-5, relation="add_remove")
    assert found.lower == 0
    assert found.warnings


def test_allocation_for_a_tail_that_no_grid_holds_is_a_gaussian():
    event = RandomAllocationDpEvent(1.0, 2, epochs=10**100)
    found = upper(epsilon(event, 1e-5, relation="zero_out", lower=False))
    assert 1e99 < found < 1e100


@pytest.mark.parametrize(
    ("records", "rate", "limit"), [(10**20, 1e-18, 150), (10**100, 1e-98, 200)]
)
def test_overflow_of_more_records_than_integers_of_a_machine(records, rate, limit):
    with mpmath.workdps(30):  # so many, so rare: Poisson's law, from above and below
        truth = float(
            mpmath.gammainc(limit + 1, 0, records * mpf(rate), regularized=True)
        )
    found = overflow_probability(records, rate, limit)
    assert truth <= found <= truth * (1 + 1e-8)


def test_a_relation_by_its_name_is_the_relation():
    wide, name = gaussian(7), cast(Relation, "replace_one")
    curve_of(wide, name)  # would be remembered
    by_name = zcdp.concentration(wide, name)
    assert by_name == zcdp.concentration(wide, Relation.REPLACE_ONE)
    halved = rdp.epsilon(gaussian(3.5), 1e-5, relation="zero_out").upper
    assert rdp.epsilon(wide, 1e-5, relation="replace_one").upper == halved
    mixed = poisson(1, 0.1)
    curves = [curve_of(mixed, each) for each in (name, Relation.REPLACE_ONE)]
    assert curves[0](np.array([2.0])) == curves[1](np.array([2.0]))


def test_a_kind_has_one_law():
    with pytest.raises(ValueError, match="kind='gaussian' must be new"):

        class Another(Law, kinds=("gaussian",)):
            pass


def test_discrete_laplace_is_read_at_points_unless_faint():
    assert edgeworth.supports(dp_event.DiscreteLaplaceDpEvent(0.5, 2), "zero_out")
    assert not edgeworth.supports(dp_event.DiscreteLaplaceDpEvent(1e-12, 2), "zero_out")


def test_what_is_no_number_claims_nothing():
    curve = Remembered(lambda orders: np.full(orders.shape, np.nan), trivial=False)
    assert np.all(np.isinf(curve(np.array([1.5, 2.0]))))
    assert tight_epsilon(0.0, math.nan, 0.5) == math.inf
    assert tight_delta(0.0, math.nan, 0.5) == 1


@pytest.mark.parametrize("shift", [1e-150, 1e-162, 1e-170])
def test_the_faintest_mixture_is_concentrated_about_something(shift):
    mixed = dp_event.MixtureOfGaussiansDpEvent(1.0, [0, shift], [0.5, 0.5])
    truth = shift / (2 * math.sqrt(2 * math.pi))  # a half of the total variation
    for ask in (delta_of, zcdp.delta_of):
        found = ask(mixed, 0.0, relation="add_remove")
        assert found.certified and found.upper >= truth
    assert upper(zcdp.epsilon(mixed, 1e-175, relation="add_remove")) > 0


def test_the_smallest_root_is_bracketed_by_what_a_float_can_hold():
    tiny = dp.PoissonSampledDpEvent(1e-250, gaussian(1e60))
    found: Any = gdp.epsilon(tiny, 1e-315, relation="add_remove").estimate
    assert 0 <= found < 1e-299
