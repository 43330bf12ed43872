"""The probability that a truncated batch overflows, and the correction for it."""

import math

import pytest

from dpkit.accountants.answers.relations import Relation
from dpkit.accountants.pairs.noise import overflow_probability
from dpkit.accountants.readings import truncation
from tests.accountants.worked_runs import gaussian, poisson, truncated
from tests.oracles import binomial


def plain(releases):
    return truncation.plain(releases, Relation.ADD_REMOVE, "curve")


@pytest.mark.parametrize(
    ("records", "rate", "batch"),
    [(1000, 0.1, 150), (60_000, 256 / 60_000, 384), (60_000, 0.02, 2000), (5, 0.5, 4)],
)
def test_overflow_probability_is_the_binomial_tail(records, rate, batch):
    exact = binomial.upper_tail(records, rate, batch)
    found = overflow_probability(records, rate, batch)
    assert exact <= found <= exact * (1 + 1e-7) + 1e-299


def test_known_overflow_probabilities():
    # N = 60000, q = 256/60000: B = 352 gives 5.16e-9, B = 384 gives 3.2e-14 (mpmath).
    for batch, value in [(352, 5.16e-9), (384, 3.2e-14)]:
        found = overflow_probability(60_000, 256 / 60_000, batch)
        assert found == pytest.approx(value, rel=2e-2)


def test_a_batch_that_holds_everyone_never_overflows():
    assert overflow_probability(20, 0.5, 20) == 0


def test_plain_releases_and_the_sum_of_slips():
    event = truncated(1, 0.1, 1000, 150)
    kept, slip = plain([(event, 7), (gaussian(2), 3)])
    assert kept == [(poisson(1, 0.1), 7), (gaussian(2), 3)]
    assert slip == pytest.approx(7 * binomial.upper_tail(1000, 0.1, 150))
    whole = truncated(1, 1.0, 1000, 1000)
    assert plain([(whole, 1)]) == ([(gaussian(1), 1)], 0.0)


def test_the_fixed_point_is_the_smallest_valid_epsilon():
    slip, delta = 1e-10, 1e-4

    def epsilon_at(rest):
        return math.log(1 / rest)  # the plain mechanism has delta(e) = e^-e

    found = truncation.corrected_epsilon(epsilon_at, delta, slip)
    assert math.exp(-found) + slip * (1 + math.exp(found)) <= delta * (1 + 1e-9)
    less = found * (1 - 1e-6)
    assert math.exp(-less) + slip * (1 + math.exp(less)) > delta


def test_no_epsilon_is_valid_when_the_correction_eats_delta():
    assert truncation.corrected_epsilon(lambda rest: 3.0, 1e-9, 1e-6) == math.inf
    assert truncation.corrected_delta(0.5, 1000.0, 1e-6) == 1.0
    assert truncation.corrected_delta(0.25, 1.0, 0.0) == 0.25
