"""The Edgeworth accountant: never below the truth, close where it gives a number."""

import math
from typing import Any

import dp_accounting as dp
import numpy as np
import pytest
from dp_accounting import dp_event

from dpkit.accountants.answers.errors import UnsupportedEvent, UnsupportedRelation
from dpkit.accountants.answers.relations import Relation
from dpkit.accountants.composition import saddle
from dpkit.accountants.composition.normal import NormalBounds
from dpkit.accountants.composition.tilt import LossSum
from dpkit.accountants.events import (
    ApproxDpEvent,
    BoundedRangeDpEvent,
    DiscreteGaussianDpEvent,
    ParallelDpEvent,
    PureDpEvent,
    repeat,
    sequential,
)
from dpkit.accountants.pairs import gaussian as exact_gaussian
from dpkit.accountants.readings import edgeworth, rdp
from tests.accountants.worked_runs import (
    ANALYTIC_GAUSSIAN,
    BOTH_READ,
    DP_SGD,
    PURE,
    gaussian,
    pmf_pair,
    poisson,
    poisson_laplace,
    rdp_curve,
    thinned,
    truncated,
    without_replacement,
)
from tests.oracles import compositions


def bound(event, delta, relation="add_remove") -> Any:
    return edgeworth.epsilon(event, delta, relation=relation)


def delta_of(event, epsilon, relation="add_remove") -> Any:
    return edgeworth.delta_of(event, epsilon, relation=relation)


def losses_of(event) -> Any:
    return LossSum(event, Relation.ADD_REMOVE)


def renyi(event, delta, relation="add_remove") -> Any:
    return rdp.epsilon(event, delta, relation=relation).upper


def one_side(event, log_delta, *, backward) -> Any:
    losses = losses_of(event)
    return saddle.epsilon(lambda tilt: losses.at(tilt, backward=backward), log_delta)


@pytest.mark.parametrize(
    ("noise", "rate", "steps", "delta", "removing", "adding"),
    thinned(DP_SGD, range(0, 23, 2)),
)
def test_sampled_runs_are_bracketed(noise, rate, steps, delta, removing, adding):
    event = repeat(poisson(noise, rate), steps)
    for backward, truth in ((False, removing), (True, adding)):
        low, estimate, high = one_side(event, math.log(delta), backward=backward)
        assert low <= truth + 5e-8
        assert truth - 5e-8 <= high
        if estimate is not None:
            assert estimate == pytest.approx(truth, rel=6e-6, abs=1e-7)
            assert high <= truth * 1.04
    found = bound(event, delta)
    assert found.certified
    assert found.lower <= removing + 5e-8
    assert removing - 5e-8 <= found.upper
    assert found.upper <= renyi(event, delta) * (1 + 1e-4)


# (noise, rate, steps, delta): the small-rate runs whose tilted law jumps.
JUMPING = [
    (1, 5e-4, 20_000, 1e-5),
    (0.8, 0.005, 1_000, 1e-6),
    (0.5, 0.001, 1_000, 1e-5),
    (0.6, 0.005, 3_920, 1e-5),
]


@pytest.mark.parametrize(("noise", "rate", "steps", "delta"), JUMPING)
def test_no_estimate_where_the_tilted_law_jumps(noise, rate, steps, delta):
    found = bound(repeat(poisson(noise, rate), steps), delta)
    assert found.estimate is None
    assert found.certified
    assert "pld" in found.warnings[0]


def test_one_tilt_by_hand():
    # By an independent program at t = 2.910028: K, K', K'', the value of delta for the
    # normal law at epsilon = 6.187725479, and the Rényi bound.
    losses = losses_of(repeat(poisson(1, 0.01), 10_000))
    tilt = losses.at(2.9100282)
    assert tilt.log_moment == pytest.approx(10.302308715, rel=1e-6)
    assert tilt.mean == pytest.approx(6.483107297, rel=1e-6)
    assert tilt.variance == pytest.approx(2.220002015, rel=1e-6)
    low, high = NormalBounds([tilt]).log_deltas(6.187725479)
    normal, renyi = 1.00497946e-5, 4.8825362e-5
    apart = 2 * tilt.distance * renyi
    assert math.exp(high[0]) == pytest.approx(normal + apart, rel=1e-5)
    assert math.exp(low[0]) == pytest.approx(normal - apart, rel=1e-5)


# (noise, rate, steps, delta, lowest, highest) with the constant 0.56 for any summands,
# which is larger than the one for equal ones: ours must lie within.
PUBLISHED_INTERVALS = [
    (1, 0.01, 10_000, 1e-5, 6.013442, 6.304703),
    (4, 0.01, 10_000, 1e-5, 0.941738, 0.951707),
    (3, 0.1, 512, 1e-6, 3.665572, 3.836015),
]


@pytest.mark.parametrize(
    ("noise", "rate", "steps", "delta", "low", "high"), PUBLISHED_INTERVALS
)
def test_intervals_are_no_wider_than_at_one_tilt(noise, rate, steps, delta, low, high):
    found = bound(repeat(poisson(noise, rate), steps), delta)
    assert low <= found.lower <= found.estimate <= found.upper <= high


@pytest.mark.parametrize(("noise", "delta", "truth"), ANALYTIC_GAUSSIAN)
def test_unsampled_gaussians_are_exact_at_any_delta(noise, delta, truth):
    found = bound(repeat(gaussian(noise * 10), 100), delta)
    assert found.upper == pytest.approx(truth, rel=3e-10)
    assert found.lower == pytest.approx(found.upper, rel=1e-9)


@pytest.mark.parametrize(("noise", "delta", "truth"), ANALYTIC_GAUSSIAN)
def test_the_tilted_bounds_alone_find_the_gaussian(noise, delta, truth):
    low, _, high = one_side(gaussian(noise), math.log(delta), backward=False)
    assert truth * (1 - 1e-9) <= high <= truth * (1 + 1e-6)
    assert truth * (1 - 1e-3) <= low <= truth * (1 + 1e-9)


# (event, delta, truth from below, from above, relation): dp-accounting 0.6.0 on fine
# grids, optimistic and pessimistic; exact multinomials for the pair.
P, Q = (0.5, 0.3, 0.15, 0.05), (0.35, 0.35, 0.2, 0.1)
OTHERS = [
    (repeat(poisson_laplace(1, 1.0), 10), 1e-5, 9.989960, 9.989963, "add_remove"),
    (repeat(poisson_laplace(10, 1.0), 100), 1e-6, 4.69262, 4.69267, "add_remove"),
    (repeat(poisson_laplace(2, 1.0), 50), 1e-6, 18.75425, 18.75469, "add_remove"),
    (repeat(poisson_laplace(1, 0.01), 1000), 1e-5, 1.12308, 1.12377, "zero_out"),
    (repeat(poisson_laplace(5, 0.1), 500), 1e-6, 1.93528, 1.93565, "zero_out"),
    (repeat(poisson_laplace(0.5, 0.02), 200), 1e-5, 2.47282, 2.47314, "zero_out"),
    (repeat(DiscreteGaussianDpEvent(2.0, 1), 10), 1e-6, 8.3032, 8.3033, "add_remove"),
    (repeat(DiscreteGaussianDpEvent(1.0, 1), 5), 1e-5, 11.4290, 11.4292, "add_remove"),
    (
        repeat(dp_event.DiscreteLaplaceDpEvent(0.5, 1), 20),
        *(1e-6, 9.98658, 9.98680, "add_remove"),
    ),
    (repeat(pmf_pair(P, Q), 50), 1e-6, 13.591454783, 13.591454783, "add_remove"),
    (repeat(pmf_pair(Q, P), 6), 1e-3, 2.467693353, 2.467693353, "add_remove"),
    (
        sequential(
            [
                repeat(poisson(0.8, 5e-3), 100),
                repeat(gaussian(8), 200),
                repeat(dp.LaplaceDpEvent(10.0), 100),
            ]
        ),
        *(1e-6, 11.14814, 11.14920, "add_remove"),
    ),
    (repeat(poisson(4, 0.01), 1000), 1e-5, 0.5613, 0.5615, "replace_one"),
    (
        repeat(dp.RandomizedResponseDpEvent(0.5, 2), 20),
        *(1e-6, 21.9719303, 21.9719304, "replace_one"),
    ),
]


@pytest.mark.parametrize(("event", "delta", "low", "high", "relation"), OTHERS)
def test_other_releases_are_bracketed(event, delta, low, high, relation):
    found = bound(event, delta, relation)
    assert found.certified
    assert found.lower <= high
    assert low <= found.upper <= high * 1.09
    if found.estimate is not None:
        assert low * (1 - 2e-5) <= found.estimate <= high * (1 + 2e-5)


@pytest.mark.parametrize(("each", "times", "delta", "truth"), PURE)
def test_pure_releases_get_bounds_but_no_estimate(each, times, delta, truth):
    # Their losses lie on a lattice, which an Edgeworth series doesn't see: with 100
    # releases of 0.1 it would say 4.7773 for 4.7746.
    found = bound(repeat(PureDpEvent(each), times), delta)
    assert found.lower <= truth * (1 + 1e-9)
    assert truth * (1 - 1e-9) <= found.upper <= truth * 1.03
    assert found.estimate is None


def test_a_hundred_different_events():
    # By inversion of the product of moment generating functions: 1.590799 (+- 5e-6).
    rng = np.random.default_rng(0)
    noises, rates = rng.uniform(0.8, 3, 100), rng.uniform(0.002, 0.02, 100)
    steps = [poisson(s, float(q)) for s, q in zip(noises, rates, strict=True)]
    found = bound(sequential([repeat(step, 10) for step in steps]), 1e-5)
    assert found.lower <= 1.590804
    assert found.upper >= 1.590794


@pytest.mark.slow
@pytest.mark.guard
def test_a_thousand_different_events_with_a_tight_interval():
    steps = [poisson(2 + i / 500, 0.01 + i / 1e5) for i in range(1000)]
    found = bound(sequential([repeat(step, 10) for step in steps]), 1e-5)
    assert found.estimate is not None
    assert found.upper <= found.lower * 1.03
    few = sequential(steps[::50])
    assert bound(few, 1e-5).upper <= renyi(few, 1e-5) * (1 + 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("event", "relations"), BOTH_READ, ids=lambda value: repr(value)[:40]
)
def test_never_far_above_renyi(event, relations):
    for relation in relations:
        if not edgeworth.supports(event, relation):
            continue
        for delta in (1e-3, 1e-6, 1e-30):
            loose = renyi(event, delta, relation)
            found = bound(event, delta, relation)
            assert 0 <= found.lower <= found.upper <= loose * (1 + 1e-3)


@pytest.mark.parametrize("row", [0, 6, 12, 18])
def test_delta_of_is_bracketed(row):
    noise, rate, steps, delta, removing, _ = DP_SGD[row]
    event = repeat(poisson(noise, rate), steps)
    found = delta_of(event, removing)
    assert found.lower <= delta * (1 + 1e-6)
    loose: Any = rdp.delta_of(event, removing, relation="add_remove").upper
    assert delta * (1 - 1e-6) <= found.upper <= loose * (1 + 1e-4)
    if found.estimate is not None:
        assert found.estimate == pytest.approx(delta, rel=2e-5)


def test_delta_at_zero_is_the_largest_advantage():
    # TV of two Gaussians a radius apart: 2 Phi(1/2) - 1; and by brute force.
    found = delta_of(gaussian(1), 0, "zero_out")
    assert found.upper == pytest.approx(0.3829249225480262, rel=1e-11)
    event = repeat(poisson(2, 0.05), 2000)
    truth = compositions.poisson_gaussian_delta(2, 0.05, 2000, 3.0)
    found = delta_of(event, 3.0)
    assert found.lower <= truth <= found.upper
    assert found.estimate == pytest.approx(truth, rel=1e-5)


def test_bounds_of_epsilon_and_delta_agree():
    event = sequential([repeat(poisson(1, 0.02), 500), dp.LaplaceDpEvent(4.0)])
    for delta in (1e-3, 1e-9):
        upper = bound(event, delta).upper
        assert delta_of(event, upper).upper == pytest.approx(delta, rel=2e-2)
        assert delta_of(event, upper).upper <= delta * (1 + 1e-3)


def test_no_loss_worth_a_bound_is_zero():
    for event in (poisson(1, 1e-12), poisson(1e6, 1e-9), sequential([])):
        found = bound(repeat(event, 1000), 1e-6)
        assert (found.lower, found.estimate, found.upper) == (0.0, 0.0, 0.0)


def test_infinite_losses_use_up_delta():
    event = repeat(ApproxDpEvent(0.1, 1e-7), 10)
    pure = bound(repeat(PureDpEvent(0.1), 10), 1e-5 - 1e-6)
    assert bound(event, 1e-5).upper == pytest.approx(pure.upper, rel=1e-5)
    assert bound(event, 9e-7).upper == math.inf
    one_sided = pmf_pair((0.9, 0.1, 0.0), (0.9, 0.09, 0.01))
    assert bound(one_sided, 0.009).upper == math.inf
    assert bound(one_sided, 0.02).upper < 1
    assert delta_of(one_sided, 5.0).upper == pytest.approx(0.01)


def test_no_privacy_is_no_privacy():
    everything = sequential([gaussian(1), dp.NonPrivateDpEvent()])
    assert bound(everything, 0.5).upper == math.inf
    assert delta_of(everything, 3.0).upper == 1.0


def test_mixing_in_gaussians_keeps_the_interval_tight():
    event = sequential([repeat(poisson(4, 0.01), 1000), repeat(gaussian(20), 50)])
    found = bound(event, 1e-6)
    assert found.upper <= found.lower * 1.01
    alone = exact_gaussian.epsilon(math.sqrt(50) / 20, 1e-6)[0]
    assert found.lower > alone


def test_replacing_shifts_by_two_radii():
    one = bound(repeat(dp.LaplaceDpEvent(6.0), 40), 1e-6, "replace_one")
    two = bound(repeat(dp.LaplaceDpEvent(3.0), 40), 1e-6)
    assert one.upper == two.upper
    half = bound(sequential([gaussian(2), poisson(1, 0.1)]), 1e-6, "replace_one")
    assert half.upper > bound(sequential([gaussian(1)]), 1e-6).lower


def test_copies_are_a_repeat_and_order_does_not_matter():
    a, b = poisson(1, 0.02), dp.LaplaceDpEvent(5.0)
    once = bound(sequential([a, b, a, a, b]), 1e-6).upper
    assert once == bound(sequential([repeat(a, 3), repeat(b, 2)]), 1e-6).upper
    other = bound(sequential([b, repeat(sequential([a, a]), 1), b, a]), 1e-6).upper
    assert once == pytest.approx(other, rel=1e-9)


def test_more_noise_fewer_steps_and_lower_rates_are_better():
    base = bound(repeat(poisson(3.0, 0.02), 1000), 1e-6)
    for better in (
        bound(repeat(poisson(3.1, 0.02), 1000), 1e-6),
        bound(repeat(poisson(3.0, 0.019), 1000), 1e-6),
        bound(repeat(poisson(3.0, 0.02), 950), 1e-6),
        bound(repeat(poisson(3.0, 0.02), 1000), 2e-6),
    ):
        assert better.upper < base.upper
        assert better.estimate < base.estimate


@pytest.mark.parametrize(
    ("event", "relation"),
    [
        (poisson_laplace(1, 0.1), "replace_one"),
        (dp.RandomizedResponseDpEvent(0.5, 2), "add_remove"),
        (pmf_pair((0.5, 0.5), (0.4, 0.6)), "replace_one"),
        (without_replacement(1, 5, 10), "zero_out"),
    ],
    ids=repr,
)
def test_relations_without_a_proof_are_refused(event, relation):
    with pytest.raises(UnsupportedRelation):
        bound(sequential([gaussian(1), event]), 1e-5, relation)
    assert not edgeworth.supports(event, relation)


@pytest.mark.parametrize(
    ("event", "relation"),
    [
        (dp.ZCDpEvent(0.1), "add_remove"),
        (rdp_curve([2], [0.1]), "add_remove"),
        (truncated(1, 0.1, 100, 50), "add_remove"),
        (without_replacement(1, 5, 10), "replace_one"),
        (ParallelDpEvent([gaussian(1)]), "add_remove"),
        (pmf_pair((0.5, 0.5), (0.4, 0.6), "replace_one"), "replace_one"),
    ],
    ids=repr,
)
def test_events_without_a_pair_are_refused_by_name(event, relation):
    with pytest.raises(UnsupportedEvent, match="edgeworth") as refused:
        bound(repeat(event, 2), 1e-5, relation)
    assert refused.value.event == event
    assert not edgeworth.supports(event, relation)


def test_bounded_range_is_read_as_pure():
    event = repeat(BoundedRangeDpEvent(0.2), 10)
    assert bound(event, 1e-6).upper == bound(repeat(PureDpEvent(0.2), 10), 1e-6).upper


def test_unproven_pairs_are_never_certified():
    found = bound(pmf_pair((0.5, 0.5), (0.4, 0.6), certified=False), 1e-5)
    assert not found.certified
    assert "not proven" in found.warnings[0]


@pytest.mark.parametrize(
    "delta",
    [0, math.nan],
)
def test_bad_arguments_are_refused(delta):
    with pytest.raises(ValueError, match="delta"):
        bound(gaussian(1), delta)


def test_bad_events_are_refused_before_any_work():
    with pytest.raises(ValueError, match="nan"):
        bound(gaussian(math.nan), 1e-5)
    with pytest.raises(ValueError, match="epsilon"):
        delta_of(gaussian(1), math.inf)


@pytest.mark.parametrize(
    "event",
    [
        poisson(1e-3, 0.5),
        poisson(1e100, 0.5),
        poisson(1e-100, 0.5),
        repeat(poisson(0.05, 0.001), 100),
        repeat(poisson(1, 0.01), 10**15),
        PureDpEvent(800.0),
        gaussian(1e-100),
        sequential([gaussian(1e-100), dp.LaplaceDpEvent(1e-100)]),
        dp.LaplaceDpEvent(1e-6),
        dp.LaplaceDpEvent(1e6),
        DiscreteGaussianDpEvent(0.05, 1),
        dp.RandomizedResponseDpEvent(1.0, 3),
        dp.RandomizedResponseDpEvent(0.0, 3),
        dp_event.MixtureOfGaussiansDpEvent(1.0, (0.0, 1e50), (0.5, 0.5)),
        dp_event.MixtureOfGaussiansDpEvent(1.0, (0.0, 1.0), (1 - 1e-20, 1e-20)),
    ],
    ids=lambda event: repr(event)[:50],
)
def test_extreme_parameters_give_an_answer_without_warnings(event):
    for delta in (0.5, 1e-6, 1e-100):
        found = bound(event, delta, "zero_out")
        loose = renyi(event, delta, "zero_out")
        assert 0 <= found.upper <= loose * 1.003 + 3e-4 or found.upper == math.inf
    assert 0 <= delta_of(event, 1.0, "zero_out").upper <= 1
