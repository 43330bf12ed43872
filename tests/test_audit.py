"""The audit harness: its intervals, and how often it is right and wrong."""

import numpy as np
import pytest

from tests import audit
from tests.oracles import clopper_pearson
from tests.oracles.mixture import gaussian, hockey_stick

EPSILONS = (0.25, 0.5, 1.0, 1.5, 2.0)


@pytest.mark.parametrize(
    ("successes", "trials"), [(0, 50), (1, 50), (30, 50), (50, 50)]
)
@pytest.mark.parametrize("error", [0.05, 5e-7])
def test_clopper_pearson(successes, trials, error):
    lower = float(audit._lower(successes, trials, error))
    upper = float(audit._upper(successes, trials, error))
    assert lower == pytest.approx(clopper_pearson.lower(successes, trials, error))
    assert upper == pytest.approx(clopper_pearson.upper(successes, trials, error))


def test_clopper_pearson_published_values():
    # 600 of 1000 and 10 of 1000 at error 0.025, by the incomplete beta function
    assert float(audit._lower(600, 1000, 0.025)) == pytest.approx(0.568878, abs=1e-6)
    assert float(audit._upper(10, 1000, 0.025)) == pytest.approx(0.018313, abs=1e-6)


def gaussian_curve(epsilon):
    """delta of N(1, 1) against N(0, 1)."""
    return hockey_stick(gaussian(1, 1), gaussian(0, 1), epsilon)


def flagged(scale, draws, repetitions, error=1e-6):
    """How many audits of a Gaussian with noise `scale` falsify the claim of 1."""
    rng = np.random.default_rng(0)
    count = 0
    for _ in range(repetitions):
        small, large = rng.normal(0, scale, draws), rng.normal(1, scale, draws)
        findings = audit.audit(small, large, gaussian_curve, EPSILONS, error=error)
        count += bool(audit.falsified(findings))
    return count


@pytest.mark.slow
def test_power_and_false_alarms():
    assert flagged(0.9, 200_000, 5) == 5
    assert flagged(1.0, 200_000, 5) == 0


@pytest.mark.slow
def test_false_alarms_stay_below_the_stated_error():
    # At error 0.01 for each of 10 comparisons an audit flags at most 10 %; of 400, 74
    # or more would have probability below 1e-7.
    assert flagged(1.0, 4_000, 400, error=0.01) < 74


def test_the_direction_of_a_leak_does_not_matter():
    # Bits: 1 with probability 0.6 against 0.5, and the reverse.
    rng = np.random.default_rng(1)
    small, large = (rng.random(100_000) < p for p in (0.5, 0.6))
    for first, second in ((small, large), (large, small), (~small, ~large)):
        findings = audit.audit(first * 1.0, second * 1.0, lambda _: 0.05, (0.0,))
        assert len(audit.falsified(findings)) == 2
        # delta(0) is the total variation distance 0.1; two bounds of 4.9 standard
        # errors of 0.0022 lie between.
        assert all(0.07 < finding.lower < 0.1 for finding in findings)


def test_exact_hockey_sticks():
    # Total variation of N(0,1) and N(1,1): 2 Phi(1/2) - 1 = 0.3829249225.
    assert gaussian_curve(0.0) == pytest.approx(0.3829249225, abs=1e-10)
    # The Gaussian closed form (Balle & Wang 2018, Theorem 8) at epsilon 1:
    # Phi(-1/2) - e Phi(-3/2) = 0.3085375387 - 2.718281828 * 0.0668072013.
    assert gaussian_curve(1.0) == pytest.approx(0.1269367371, abs=1e-9)
