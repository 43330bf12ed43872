"""What an attacker gains: against closed forms, and never below the truth."""

import math
from typing import Any

import dp_accounting as dp
import numpy as np
import pytest
from scipy import special

from dpkit.accountants import attack_risk
from dpkit.accountants.events import ApproxDpEvent, PureDpEvent, repeat, sequential
from tests.accountants.worked_runs import gaussian, pmf_pair, poisson, rdp_curve


def risk(event, relation="add_remove") -> Any:
    return attack_risk(event, relation=relation)


def test_one_gaussian_is_its_trade_off():
    found = risk(gaussian(1))
    truth = 2 * special.ndtr(0.5) - 1
    assert truth <= found.advantage <= truth * (1 + 1e-9)
    for fpr in (0.001, 0.01, 0.05, 0.5):
        truth = special.ndtr(special.ndtri(fpr) + 1)
        assert truth <= found.tpr_at(fpr) <= truth + 1e-5
    assert found.tpr_at(0.01) == pytest.approx(0.0923622, abs=1e-5)
    assert found.posterior == pytest.approx((1 + found.advantage) / 2)
    assert found.gaussian_parameter == pytest.approx(1.0, rel=1e-3)


def test_many_gaussians_are_one():
    found = risk(repeat(gaussian(10), 100))
    assert found.advantage == pytest.approx(2 * special.ndtr(0.5) - 1, rel=1e-9)


def test_pure_releases_reach_the_corners_of_their_trade_off():
    # Randomized response: T(x) = min(e^eps x, 1 - e^-eps (1 - x)).
    found = risk(PureDpEvent(1.0))
    for fpr in (0.001, 0.05, 0.2, 0.5, 0.9):
        truth = min(math.e * fpr, 1 - (1 - fpr) / math.e)
        assert truth - 1e-12 <= found.tpr_at(fpr) <= truth + 2e-3
    assert found.advantage == pytest.approx((math.e - 1) / (math.e + 1), rel=1e-4)


def test_a_sampled_run_lies_between_its_parts():
    event = repeat(poisson(1, 0.01), 1000)
    found = risk(event)
    assert found.certified and found.method == "pld"
    once = risk(poisson(1, 0.01))
    assert once.advantage == pytest.approx(0.01 * (2 * special.ndtr(0.5) - 1), rel=1e-6)
    assert once.advantage < found.advantage < 1000 * once.advantage
    fprs = np.linspace(0, 1, 41)
    tprs = [found.tpr_at(float(x)) for x in fprs]
    assert tprs == sorted(tprs)
    assert all(
        t - x <= found.advantage + 1e-12 for t, x in zip(tprs, fprs, strict=True)
    )


def test_the_threshold_attack_on_an_asymmetric_pair_is_within_the_bound():
    p, q = (0.5, 0.3, 0.15, 0.05), (0.35, 0.35, 0.2, 0.1)
    found = risk(pmf_pair(p, q))
    # Accuse on the first outcome, then on the first two.
    assert found.tpr_at(0.35) == pytest.approx(0.5, abs=2e-3)
    assert found.tpr_at(0.35) >= 0.5
    assert found.tpr_at(0.70) >= 0.8
    assert found.advantage == pytest.approx(0.15, abs=1e-6)


def test_what_has_only_a_renyi_curve_is_bounded_by_it():
    found = risk(sequential([rdp_curve([2, 8, 64], [0.1, 0.4, 3.2]), gaussian(3)]))
    assert found.method == "rdp"
    assert 0 < found.advantage < 1
    assert 0.01 <= found.tpr_at(0.01) < 1


def test_no_privacy_is_said_so():
    found = risk([gaussian(1), dp.NonPrivateDpEvent()])
    assert found.advantage == found.tpr_at(0.0) == 1.0
    assert found.gaussian_parameter == math.inf
    nothing = risk([])
    assert nothing.advantage == 0.0
    assert nothing.tpr_at(0.3) == pytest.approx(0.3)


def test_unproven_parts_are_not_certified():
    assert not risk(pmf_pair((0.5, 0.5), (0.4, 0.6), certified=False)).certified


@pytest.mark.parametrize("fpr", [-0.1, 1.1, math.nan])
def test_a_rate_is_a_probability(fpr):
    with pytest.raises(ValueError, match="fpr"):
        risk(gaussian(1)).tpr_at(fpr)


def test_what_is_lost_for_certain_is_seen_at_no_false_alarm():
    # Losses beyond 710, whose exponential is no float.
    found = risk([gaussian(0.02), ApproxDpEvent(1.0, 0.3)])
    assert found.tpr_at(0.0) >= 0.3
    assert risk(PureDpEvent(1500.0)).tpr_at(0.0) == 1.0
