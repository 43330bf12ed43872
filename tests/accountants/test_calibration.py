"""Calibration: near the exact root, above it, and never above the target epsilon."""

import math
from typing import Any

import dp_accounting as dp
import pytest

from dpkit.accountants import accounting, calibration
from dpkit.accountants.errors import NotCertified, UnsupportedRelation
from dpkit.accountants.events import PureDpEvent, repeat, sequential
from tests.accountants.worked_runs import gaussian, pmf_pair, poisson, truncated


def calibrate(*args, **kwargs) -> Any:
    return calibration.calibrate(*args, **kwargs)


def epsilon(*args, **kwargs) -> Any:
    return accounting.epsilon(*args, **kwargs)


# (epsilon, delta, noise multiplier): analytic Gaussian, Balle & Wang 2018
# (arXiv:1805.06530), 40-digit mpmath.
ANALYTIC = [
    (1, 1e-5, 3.73063163482),
    (0.1, 1e-6, 36.3046904262),
    (8, 1e-5, 0.600229072199),
    (3, 1e-10, 2.06225317891),
    (20, 1e-5, 0.290041418033),
]


@pytest.mark.parametrize(("target", "delta", "noise"), ANALYTIC)
def test_the_gaussian_mechanism(target, delta, noise):
    found = calibrate(gaussian, epsilon=target, delta=delta, relation="add_remove")
    assert noise * (1 - 1e-9) <= found.value <= noise * (1 + 3e-6)
    assert found.bound.upper <= target


def test_replacing_needs_twice_the_noise():
    found = calibrate(gaussian, epsilon=1, delta=1e-5, relation="replace_one")
    assert found.value == pytest.approx(2 * 3.73063163482, rel=3e-6)


def test_a_long_private_run():
    # Root of the inverted moment generating function: 3.8128 (rate .01, 10000 steps).
    def run(noise):
        return repeat(poisson(noise, 0.01), 10_000)

    found = calibrate(run, epsilon=1, delta=1e-5, relation="add_remove")
    assert 3.8128 <= found.value <= 3.8129
    again = epsilon(run(found.value), 1e-5, relation="add_remove")
    assert again == found.bound
    assert 1 - 1e-3 <= found.bound.upper <= 1
    assert found.bound.certified


@pytest.mark.parametrize(
    ("make", "relation", "target", "delta"),
    [
        (lambda s: repeat(poisson(s, 2048 / 60_000), 878), "add_remove", 3, 1e-5),
        (lambda s: repeat(truncated(s, 0.05, 2000, 180), 200), "zero_out", 2, 1e-5),
        (lambda s: repeat(poisson(s, 0.02), 300), "replace_one", 2, 1e-5),
        (
            lambda s: sequential([gaussian(s), dp.LaplaceDpEvent(s)]),
            "zero_out",
            1,
            1e-6,
        ),
        (lambda s: repeat(poisson(s, 0.02), 300), "add_remove", 2, 1e-14),
        (lambda s: dp.LaplaceDpEvent(s), "add_remove", 0.5, 0),
    ],
)
def test_targets_are_met_and_nearly_reached(make, relation, target, delta):
    if relation == "replace_one":
        assert delta >= 1e-10
    found = calibrate(make, epsilon=target, delta=delta, relation=relation)
    assert target * (1 - 1e-3) <= found.bound.upper <= target
    assert found.bound.certified
    less = epsilon(make(found.value * (1 - 1e-4)), delta, relation=relation)
    assert less.upper > target * (1 - 1e-5)


def test_values_are_rounded_outwards_to_seven_digits():
    found = calibrate(gaussian, epsilon=0.7, delta=1e-6, relation="add_remove")
    assert found.value == float(f"{found.value:.6e}")


@pytest.mark.parametrize("accountant", ["rdp", "pld"])
def test_the_accountant_may_be_chosen(accountant):
    found = calibrate(
        lambda s: repeat(poisson(s, 0.01), 1000),
        epsilon=1.0,
        delta=1e-5,
        relation="add_remove",
        accountant=accountant,
    )
    assert found.bound.method_upper == accountant
    assert 0.999 <= found.bound.upper <= 1.0


def test_the_lowest_parameter_may_fit_already():
    found = calibrate(
        gaussian, epsilon=5, delta=1e-5, relation="add_remove", bracket=(2.0, 9.0)
    )
    assert found.value == 2.0


@pytest.mark.parametrize(
    ("wrong", "error", "named"),
    [
        ({"epsilon": 0}, ValueError, "epsilon"),
        ({"epsilon": -1}, ValueError, "epsilon"),
        ({"epsilon": math.inf}, ValueError, "epsilon"),
        ({"epsilon": "3"}, TypeError, "epsilon"),
        ({"delta": 1}, ValueError, "delta"),
        ({"delta": 0}, ValueError, "delta=0"),
        ({"relation": "swap"}, ValueError, "relation"),
        ({"bracket": (2, 1)}, ValueError, "bracket"),
        ({"bracket": (0, 1)}, ValueError, "lowest"),
        ({"bracket": (0.1, 0.2)}, ValueError, "out of reach"),
        ({"accountant": "moments"}, ValueError, "accountant"),
    ],
)
def test_bad_targets_are_refused(wrong, error, named):
    asked: dict[str, Any] = {
        "epsilon": 1.0,
        "delta": 1e-5,
        "relation": "add_remove",
    } | wrong
    with pytest.raises(error, match=named):
        calibrate(gaussian, **asked)


def test_what_can_not_be_certified_is_not_calibrated():
    def doubtful(noise):
        pair = pmf_pair((0.5, 0.5), (0.4, 0.6), certified=False)
        return sequential([pair, gaussian(noise)])

    with pytest.raises(NotCertified, match="not proven"):
        calibrate(doubtful, epsilon=1.0, delta=1e-5, relation="add_remove")


def test_a_fixed_cost_above_the_target_is_out_of_reach():
    with pytest.raises(ValueError, match="out of reach"):
        calibrate(
            lambda s: sequential([PureDpEvent(2.0), gaussian(s)]),
            epsilon=1.0,
            delta=1e-5,
            relation="add_remove",
        )


def test_events_without_a_proof_are_refused():
    with pytest.raises(UnsupportedRelation):
        calibrate(
            lambda s: truncated(s, 0.1, 100, 20),
            epsilon=1.0,
            delta=1e-5,
            relation="replace_one",
        )
