"""Calibration: near the exact root, above it, and never above the target epsilon."""

import dataclasses
import math
from decimal import Decimal
from typing import Any

import dp_accounting as dp
import pytest
from scipy import special

from dpkit.accountants.answers.errors import NotCertified, UnsupportedRelation
from dpkit.accountants.events import PureDpEvent, repeat, sequential
from dpkit.accountants.readings import best, calibration
from tests.accountants.worked_runs import gaussian, pmf_pair, poisson, truncated


def calibrate(*args, **kwargs) -> Any:
    return calibration.calibrate(*args, **kwargs)


def epsilon(*args, **kwargs) -> Any:
    return best.epsilon(*args, lower=False, **kwargs)


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


# Root of the inverted moment generating function (rate .01, 10000 steps, epsilon 1 at
# 1e-5): 3.81282; dp-accounting's own grid needs 3.81324.
def test_the_answer_is_the_edge_and_takes_few_bounds(monkeypatch):
    asked = []
    real = best.epsilon

    def counted(event, delta, **options):
        asked.append(event)
        return real(event, delta, **options)

    monkeypatch.setattr(best, "epsilon", counted)
    found = calibrate(
        lambda s: repeat(poisson(s, 0.01), 10_000),
        epsilon=1,
        delta=1e-5,
        relation="add_remove",
    )
    assert 3.81282 <= found.value <= 3.81286
    assert len(asked) <= 6
    assert looser(found.value, -1) in [e.event.event.noise_multiplier for e in asked]


def looser(value, digits) -> float:
    """The neighbour of a number of seven digits, up or down."""
    return float(Decimal(f"{value:.6e}") + digits * Decimal(f"1e{exponent(value)}"))


def exponent(value) -> int:
    """The power of ten of the seventh digit."""
    return Decimal(f"{value:.6e}").adjusted() - 6


EDGES: list[Any] = [
    ("noise_multiplier", lambda s: gaussian(s), "replace_one", 3.0, 1e-9),
    ("noise_multiplier", lambda s: repeat(poisson(s, 0.02), 300), "zero_out", 2, 1e-5),
    (
        "noise_multiplier",
        lambda s: repeat(truncated(s, 0.05, 2000, 180), 200),
        "zero_out",
        0.3,
        1e-5,
    ),
    ("noise_multiplier", lambda s: repeat(poisson(s, 0.01), 100), "zero_out", 9, 1e-5),
    ("noise_multiplier", lambda b: dp.LaplaceDpEvent(b), "add_remove", 0.7, 0),
    ("steps", lambda n: repeat(gaussian(10), n), "add_remove", 3.0, 1e-5),
    ("steps", lambda n: repeat(poisson(1, 0.01), n), "add_remove", 1.5, 1e-5),
    ("steps", lambda n: repeat(dp.LaplaceDpEvent(10.0), n), "replace_one", 2.0, 0),
    ("steps", lambda n: repeat(dp.ZCDpEvent(0.005), n), "add_remove", 3.0, 1e-5),
    ("sampling_rate", lambda q: repeat(poisson(1, q), 1000), "add_remove", 0.5, 1e-5),
    ("sampling_rate", lambda q: repeat(poisson(2, q), 10), "add_remove", 2.0, 1e-30),
]


@pytest.mark.slow
@pytest.mark.parametrize(("free", "make", "relation", "target", "delta"), EDGES)
def test_the_next_looser_value_does_not_fit(free, make, relation, target, delta):
    found = calibrate(make, epsilon=target, delta=delta, relation=relation, free=free)
    assert found.bound.certified
    assert found.bound.upper <= target
    assert epsilon(make(found.value), delta, relation=relation) == found.bound
    step = -1 if free == "noise_multiplier" else 1
    next_one = found.value + 1 if free == "steps" else looser(found.value, step)
    assert epsilon(make(next_one), delta, relation=relation).upper > target


def test_numbers_of_steps_that_are_known():
    # 51 by the analytic Gaussian; 44 by the zCDP conversion (rho* = .22424917).
    def most(event, **options):
        return calibrate(
            lambda n: repeat(event, n),
            epsilon=3.0,
            delta=1e-5,
            relation="add_remove",
            free="steps",
            **options,
        )

    found = most(gaussian(10))
    assert found.value == 51
    assert isinstance(found.value, int)
    assert most(dp.ZCDpEvent(0.005), accountant="rdp").value == 44
    assert most(gaussian(10), bracket=(1, 40)).value == 40
    with pytest.raises(ValueError, match="out of reach"):
        most(gaussian(0.1))
    # 30 pure queries add up to 3; the first that is not is refused by hand.
    exact = calibrate(
        lambda n: repeat(PureDpEvent(0.125), n),
        epsilon=3.0 * (1 + 1e-12),
        delta=0,
        relation="add_remove",
        free="steps",
    )
    assert exact.value == 24


def test_a_run_that_fits_without_sampling_may_take_everyone():
    found = calibrate(
        lambda q: repeat(poisson(50, q), 10),
        epsilon=10,
        delta=1e-5,
        relation="add_remove",
        free="sampling_rate",
    )
    assert found.value == 1.0


# A Gaussian with noise 1: D(0) = 2 Phi(1/2) - 1, and the true positive rate at a false
# positive rate of .01 is Phi(Phi^-1(.01) + 1), by hand.
ADVANTAGE = 0.3829249225
RATE_AT_ONE_PERCENT = 0.0923622


def test_an_advantage_is_a_target():
    found: Any = calibration.solve(
        lambda s: best.delta_of(gaussian(s), 0.0, relation="add_remove"),
        target=ADVANTAGE,
    )
    assert found.value == pytest.approx(1.0, rel=2e-6)
    assert found.bound.upper <= ADVANTAGE


def test_a_true_positive_rate_is_a_target():
    def rate(noise):
        found = special.ndtr(special.ndtri(0.01) + 1 / noise)
        return Rate(float(found), certified=True)

    found: Any = calibration.solve(rate, target=RATE_AT_ONE_PERCENT)
    assert found.value == pytest.approx(1.0, rel=1e-5)
    assert (
        found.bound.upper <= RATE_AT_ONE_PERCENT < rate(looser(found.value, -1)).upper
    )
    with pytest.raises(NotCertified, match="no accountant"):
        calibration.solve(lambda s: Rate(0.001, certified=False), target=0.5)


@dataclasses.dataclass(frozen=True)
class Rate:
    """A bound that is neither an epsilon nor a delta."""

    upper: float
    certified: bool
    warnings: tuple[str, ...] = ()


JAGGED: list[Any] = [
    lambda s: 2.0 if s < 3.7 else 1.0 + 1e-12,
    lambda s: math.nextafter(1.0 + 1e-12, 2) if s < 3.7 else 1.0 + 1e-12,
    lambda s: math.nan if s < 3.7 else 0.5,
    lambda s: math.inf if s < 3.7 else 0.1,
    lambda s: 5.0 if s < 3.7 else 0.0,
    lambda s: 1 / s**8,
    lambda s: 1.0000001 if s < 3.7 else 0.9999999,
    lambda s: math.exp(1 / s) - 1,
    lambda s: 3.0 - 2.5 * math.tanh(math.log(s)),
    lambda s: (1 + 1e-9 * math.sin(1e9 * s)) * 3 / s,
]


@pytest.mark.parametrize("curve", JAGGED)
def test_any_falling_curve_is_searched(curve):
    asked = []

    def bound_at(value):
        asked.append(value)
        return Rate(curve(value), certified=True)

    found: Any = calibration.solve(bound_at, target=1.0 + 1e-12)
    assert curve(found.value) <= 1.0 + 1e-12
    assert not curve(looser(found.value, -1)) <= 1.0 + 1e-12
    assert len(asked) < 60


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
        ({"bracket": (1.23456789, 1.2345679)}, ValueError, "7 digits"),
        ({"free": "clip_norm"}, ValueError, "free"),
        ({"free": "steps", "bracket": (0, 9)}, ValueError, "lowest"),
        ({"free": "steps", "bracket": (1.5, 9)}, TypeError, "lowest"),
        ({"free": "sampling_rate", "bracket": (0.1, 2)}, ValueError, "highest"),
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
            lambda s: dp.PoissonSampledDpEvent(0.1, dp.LaplaceDpEvent(s)),
            epsilon=1.0,
            delta=1e-5,
            relation="replace_one",
        )
