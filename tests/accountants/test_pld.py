"""Loss distributions: near the truth and never below it, in both directions."""

import math
from typing import Any

import dp_accounting as dp
import numpy as np
import pytest
from dp_accounting import dp_event
from dp_accounting.pld import PLDAccountant, privacy_loss_distribution

from dpkit.accountants import PrivacyBound, epsilon
from dpkit.accountants.answers.errors import UnsupportedEvent, UnsupportedRelation
from dpkit.accountants.answers.relations import Relation
from dpkit.accountants.composition.rounds import Rounds
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
from dpkit.accountants.pairs.finite import FinitePair
from dpkit.accountants.readings import pld, rdp
from tests.accountants.worked_runs import (
    ANALYTIC_GAUSSIAN,
    BOTH_READ,
    DP_SGD,
    PURE,
    each_way,
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
    return pld.epsilon(event, delta, relation=relation)


def upper(event, delta, relation="add_remove") -> Any:
    found = pld.epsilon(event, delta, relation=relation, lower=False)
    assert found.certified
    assert found.method_upper == "pld"
    return found.upper


def renyi(event, delta, relation) -> Any:
    return rdp.epsilon(event, delta, relation=relation).upper


def delta_of(event, epsilon, relation="add_remove") -> Any:
    return pld.delta_of(event, epsilon, relation=relation)


@pytest.mark.parametrize(
    ("noise", "rate", "steps", "delta", "truth", "_"),
    thinned(DP_SGD, range(1, 23, 4)),
)
def test_sampled_runs_are_tight_and_never_too_small(
    noise, rate, steps, delta, truth, _
):
    found = bound(repeat(poisson(noise, rate), steps), delta)
    # The table has seven digits.
    assert truth - 1e-7 <= found.upper <= truth * (1 + 2e-5) + 1e-6
    assert truth * (1 - 0.03) <= found.lower <= truth + 1e-7


@pytest.mark.parametrize(
    ("noise", "rate", "steps", "delta", "removing", "truth"),
    thinned(DP_SGD[::5], (1, 2)),
)
def test_the_adding_chain_is_as_tight(noise, rate, steps, delta, removing, truth):
    event = repeat(poisson(noise, rate), steps)
    rounds = Rounds(event, Relation.ADD_REMOVE, delta=delta)
    remove, add = each_way(rounds, delta)
    assert truth - 1e-7 <= add <= truth * (1 + 2e-5) + 1e-6
    assert remove == upper(event, delta)
    assert add < removing


@pytest.mark.slow
@pytest.mark.parametrize("row", [0, 6, 11, 13, 21])
def test_the_table_agrees_with_inverted_moment_generating_functions(row):
    noise, rate, steps, delta, removing, adding = DP_SGD[row]
    run = (noise, rate, steps)
    found = compositions.poisson_gaussian_delta(*run, removing)
    assert found == pytest.approx(delta, rel=1e-6)
    found = compositions.poisson_gaussian_delta(*run, adding, add=True)
    assert found == pytest.approx(delta, rel=1e-6)


@pytest.mark.parametrize(("noise", "delta", "truth"), ANALYTIC_GAUSSIAN)
def test_unsampled_gaussians_are_exact_at_any_delta(noise, delta, truth):
    found = bound(gaussian(noise), delta)
    assert found.upper == pytest.approx(truth, rel=3e-10)
    assert found.lower == pytest.approx(found.upper, rel=1e-9)
    many = repeat(gaussian(noise * 10), 60)
    mixed = sequential([many, repeat(gaussian(noise * 10), 40)])
    assert bound(mixed, delta).upper == pytest.approx(truth, rel=3e-10)


@pytest.mark.parametrize("noise", [0.01, 1.0, 1e4])
@pytest.mark.parametrize("delta", [0.3, 1e-6, 1e-40])
def test_the_closed_form_brackets_the_truth(noise, delta):
    low, high = exact_gaussian.epsilon(1 / noise, delta)
    below, above = (compositions.gaussian_delta(1 / noise, e) for e in (high, low))
    assert below <= delta
    assert above >= delta or low == 0
    low, high = exact_gaussian.delta(1 / noise, 0.5)
    truth = compositions.gaussian_delta(1 / noise, 0.5)
    assert low <= truth <= high


@pytest.mark.parametrize(("each", "times", "delta", "truth"), PURE)
def test_pure_releases_compose_to_the_binomial(each, times, delta, truth):
    found = upper(repeat(PureDpEvent(each), times), delta)
    assert truth * (1 - 1e-11) <= found <= truth * (1 + 1e-6)


# (scale, rate, times, delta, low, high): dp-accounting 0.6.0, optimistic and
# pessimistic on fine grids.
LAPLACE = [
    (1, 1.0, 10, 1e-5, 9.989960, 9.989963),
    (10, 1.0, 100, 1e-6, 4.69262, 4.69267),
    (2, 1.0, 50, 1e-6, 18.75425, 18.75469),
    (1, 0.01, 1000, 1e-5, 1.12308, 1.12377),
    (5, 0.1, 500, 1e-6, 1.93528, 1.93565),
    (0.5, 0.02, 200, 1e-5, 2.47282, 2.47314),
]


@pytest.mark.parametrize(
    ("scale", "rate", "times", "delta", "low", "high"), thinned(LAPLACE, (0, 5))
)
def test_laplace(scale, rate, times, delta, low, high):
    found = upper(repeat(poisson_laplace(scale, rate), times), delta)
    assert low <= found <= high * (1 + 5e-5)


def test_discrete_noise():
    # dp-accounting 0.6.0 on fine grids, optimistic and pessimistic.
    gaussian_two = repeat(DiscreteGaussianDpEvent(2.0, 1), 10)
    assert upper(gaussian_two, 1e-6) == pytest.approx(8.30326, abs=3e-5)
    gaussian_one = repeat(DiscreteGaussianDpEvent(1.0, 1), 5)
    assert upper(gaussian_one, 1e-5) == pytest.approx(11.42911, abs=3e-5)
    laplace = repeat(dp_event.DiscreteLaplaceDpEvent(0.5, 1), 20)
    assert 9.98658 <= upper(laplace, 1e-6) <= 9.98680


def test_discrete_noise_moves_twice_as_far_when_replaced():
    for one, two in [
        (DiscreteGaussianDpEvent(2.0, 1), DiscreteGaussianDpEvent(2.0, 2)),
        (
            dp_event.DiscreteLaplaceDpEvent(0.5, 1),
            dp_event.DiscreteLaplaceDpEvent(0.5, 2),
        ),
        (dp.LaplaceDpEvent(1.0), dp.LaplaceDpEvent(0.5)),
    ]:
        assert upper(one, 1e-6, "replace_one") == pytest.approx(upper(two, 1e-6))


P, Q = (0.5, 0.3, 0.15, 0.05), (0.35, 0.35, 0.2, 0.1)


def test_an_asymmetric_pair_counts_the_worse_direction():
    # Exact multinomial sums: 12.271579947 for D(P || Q), 13.591454783 for D(Q || P).
    for p, q in ((P, Q), (Q, P)):
        found = upper(repeat(pmf_pair(p, q), 50), 1e-6)
        assert 13.591454783 <= found <= 13.591454783 * (1 + 5e-5)
        found = upper(repeat(pmf_pair(p, q), 6), 1e-3)
        assert 2.467693353 <= found <= 2.467693353 * (1 + 5e-5)


@pytest.mark.parametrize(("p", "q"), [(P, Q), (Q, P)])
def test_the_pair_oracle_agrees_with_its_constants(p, q):
    truth = {P: 2.073909861, Q: 2.467693353}[p]
    assert compositions.finite_delta(p, q, 6, truth) == pytest.approx(1e-3, rel=1e-6)


def test_one_side_only_mass_is_infinite_loss():
    event = pmf_pair((0.99, 0.01, 0.0), (0.5, 0.0, 0.5))
    assert bound(event, 0.3).upper == math.inf  # q has mass 0.5 where p has none
    one_sided = repeat(pmf_pair((0.9, 0.1 - 1e-9, 1e-9), (0.9, 0.1, 0.0)), 5)
    assert bound(one_sided, 1e-9).upper == math.inf
    assert upper(one_sided, 1e-6) < 1e-3


def test_a_pair_under_replacement_has_no_first_side():
    # One release each way: neither chain of (P, Q) alone covers P x Q against Q x P.
    event = repeat(pmf_pair(P, Q, "replace_one"), 2)
    p = [x * y for x in P for y in Q]
    q = [x * y for x in Q for y in P]
    delta = compositions.finite_delta(p, q, 1, 0.5)
    assert upper(event, delta, "replace_one") >= 0.5


def test_batches_without_replacement():
    # Advanced joint convexity (arXiv:1807.01647), on a fine grid.
    for noise, batch, steps, delta, value in [
        (4, 1, 1000, 1e-5, 0.71857),
        (2, 1, 10_000, 1e-5, 8.08397),
        (8, 5, 500, 1e-6, 1.33575),
    ]:
        event = repeat(without_replacement(noise, batch, 100), steps)
        assert upper(event, delta, "replace_one") == pytest.approx(value, rel=2e-5)


def test_poisson_sampling_with_replaced_records():
    event = repeat(poisson(4, 0.01), 1000)
    found = upper(event, 1e-5, "replace_one")
    peer = PLDAccountant(dp.NeighboringRelation.REPLACE_ONE).compose(event)
    assert found == pytest.approx(peer.get_epsilon(1e-5), rel=1e-3)
    assert found == pytest.approx(0.5614, abs=1e-4)


# dp-accounting 0.6.0, PLD of its truncated event, to four digits: noise multiplier 1,
# 1000 records, rate 0.1, 1000 steps. It speaks of exactly 1000 records; ours covers
# fewer as well, which costs more the more is cut.
@pytest.mark.parametrize(
    ("batch", "value", "more"),
    thinned(
        [
            (110, 55.58, 0.04),
            (130, 25.68, 1e-3),
            (150, 25.205, 1e-4),
            (1000, 25.2046, 1e-5),
        ],
        (0, 2),
    ),
)
@pytest.mark.parametrize("relation", ["add_remove", "zero_out"])
def test_truncated_sampling(batch, value, more, relation):
    event = repeat(truncated(1, 0.1, 1000, batch), 1000)
    found = upper(event, 1e-5, relation)
    assert value - 1e-3 <= found <= value * (1 + more) + 1e-3


def test_truncated_sampling_is_never_below_dp_accounting():
    event = repeat(truncated(1.5, 0.1, 200, 26), 40)
    peer = PLDAccountant(value_discretization_interval=1e-3).compose(event)
    exact = peer.get_epsilon(1e-6)
    assert exact * (1 - 1e-3) <= upper(event, 1e-6) <= exact * 1.1


def test_a_rare_overflow_costs_almost_nothing():
    plain = upper(repeat(poisson(1.1, 256 / 60_000), 14_062), 1e-5)
    cut = upper(repeat(truncated(1.1, 256 / 60_000, 60_000, 400), 14_062), 1e-5)
    assert plain <= cut <= plain * (1 + 1e-4)


# Known values of dp-accounting 0.6.0's PLD accountant at delta = 1e-5.
@pytest.mark.parametrize(
    ("noise", "rate", "steps", "peer"),
    thinned(
        [
            (1.1, 256 / 60_000, 14_062, 2.3817),
            (1.0, 256 / 60_000, 3_515, 1.3512),
            (1.3, 256 / 60_000, 3_515, 0.8645),
            (1.5, 1024 / 50_000, 4_882, 4.8317),
        ],
        (0, 3),
    ),
)
def test_pld_is_as_good_as_dp_accounting(noise, rate, steps, peer):
    found = upper(repeat(poisson(noise, rate), steps), 1e-5)
    assert peer * (1 - 2e-3) < found < peer + 5e-5


@pytest.mark.slow
@pytest.mark.parametrize("row", [3, 10, 16])
def test_dp_accountings_distributions_agree(row):
    noise, rate, steps, delta, _, _ = DP_SGD[row]
    event = repeat(poisson(noise, rate), steps)
    peer = PLDAccountant().compose(event).get_epsilon(delta)
    assert upper(event, delta) <= peer * (1 + 2e-5)
    assert upper(event, delta) == pytest.approx(peer, rel=3e-3)


def test_mixed_runs_compose():
    # dp-accounting 0.6.0 on fine grids: removing in [11.14814, 11.14920].
    event = sequential(
        [
            repeat(poisson(0.8, 5e-3), 100),
            repeat(gaussian(8), 200),
            repeat(dp.LaplaceDpEvent(10.0), 100),
        ]
    )
    assert 11.14814 <= upper(event, 1e-6) <= 11.14920 * (1 + 5e-5)


@pytest.mark.slow
def test_a_hundred_different_events_compose():
    # By inversion of the product of moment generating functions: 1.590799 (+- 5e-6).
    rng = np.random.default_rng(0)
    noises, rates = rng.uniform(0.8, 3, 100), rng.uniform(0.002, 0.02, 100)
    steps = [poisson(s, float(q)) for s, q in zip(noises, rates, strict=True)]
    found = upper(sequential([repeat(step, 10) for step in steps]), 1e-5)
    assert 1.590794 <= found <= 1.590799 * (1 + 2e-5) + 5e-6


def test_randomized_response_counts_every_answer():
    # dp-accounting 0.6.0 ignores the count: 20 answers with p = 0.5 of 2 have losses of
    # log 3 each, so the truth is that of 20 pure releases, 21.9719.
    event = repeat(dp.RandomizedResponseDpEvent(0.5, 2), 20)
    peer = PLDAccountant(dp.NeighboringRelation.REPLACE_ONE).compose(event)
    assert peer.get_epsilon(1e-6) < 1.2
    assert upper(event, 1e-6, "replace_one") == pytest.approx(21.9719304, rel=1e-7)


def test_replacing_shifts_by_two_radii():
    # dp-accounting 0.6.0's Rényi accountant reports 19.05 for this, below the truth.
    event = repeat(gaussian(1), 10)
    found = upper(event, 1e-5, "replace_one")
    assert found == pytest.approx(upper(repeat(gaussian(0.5), 10), 1e-5))
    assert found == pytest.approx(46.21, abs=0.02)
    assert renyi(event, 1e-5, "replace_one") >= found


@pytest.mark.slow
@pytest.mark.parametrize("delta", [1e-5, 1e-12, 1e-30, 1e-100])
@pytest.mark.parametrize("parts", [1, 1000])
def test_a_sampled_run_is_as_precise_at_any_delta(parts, delta):
    # A rate of 1 - 1e-12 is no sampling to twelve digits, but takes the grid's way;
    # dp-accounting's answers fall below the truth from 1e-12 on.
    truth = exact_gaussian.epsilon(math.sqrt(10), delta)[0]
    event = repeat(poisson(math.sqrt(parts / 10), 1 - 1e-12), parts)
    found = bound(event, delta)
    assert truth * (1 - 1e-9) <= found.upper <= truth * (1 + 2e-5)
    assert truth * (1 - 1e-3) <= found.lower <= truth * (1 + 1e-9)


@pytest.mark.slow
def test_a_huge_number_of_releases_is_never_worse_than_renyi():
    for count in (10**9, 10**15):
        event = repeat(poisson(50, 1e-4), count)
        found: Any = epsilon(event, 1e-5, relation="add_remove").upper
        assert 0 < found <= renyi(event, 1e-5, "add_remove")


@pytest.mark.parametrize(
    ("noise", "rate", "steps", "delta", "truth"),
    [(4, 1e-4, 10_000, 1e-6, 0.00763), (1, 1e-4, 100_000, 1e-6, 0.1569)],
)
def test_small_epsilons_get_a_fine_grid(noise, rate, steps, delta, truth):
    # dp-accounting's fixed grid gives 0.01408 and 0.1650.
    found = upper(repeat(poisson(noise, rate), steps), delta)
    assert found == pytest.approx(truth, rel=2e-3)


def test_the_pair_is_taken_by_name_not_by_position():
    # dp-accounting's constructor wants (lower, upper) = (q, p): 12.2716 if right,
    # 13.5915 if swapped, for 50 draws at delta = 1e-6.
    pair = FinitePair(p=np.array(P), q=np.array(Q))
    losses = np.array([0.0, 0.1, 0.3])
    direct = [
        math.fsum(max(0.0, x - math.exp(e) * y) for x, y in zip(P, Q, strict=True))
        for e in losses
    ]
    np.testing.assert_allclose(pair.delta(losses), direct, atol=1e-15)
    names = range(4)
    peer = privacy_loss_distribution.from_two_probability_mass_functions(
        log_probability_mass_function_lower=dict(zip(names, np.log(Q), strict=True)),
        log_probability_mass_function_upper=dict(zip(names, np.log(P), strict=True)),
        symmetric=True,
        value_discretization_interval=1e-4,
    ).self_compose(50)
    assert peer.get_epsilon_for_delta(1e-6) == pytest.approx(12.2716, abs=5e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("event", "relations"), BOTH_READ, ids=lambda x: repr(x)[:40])
def test_renyi_is_never_below_the_loss_distributions(event, relations):
    for relation in relations:
        for delta in (1e-3, 1e-6):
            tight = upper(event, delta, relation)
            loose = renyi(event, delta, relation)
            assert 0 < tight <= loose * (1 + 3e-5)


def test_sampling_everyone_is_not_sampling():
    for noise in (0.7, 3.0):
        whole, plain = poisson(noise, 1.0), gaussian(noise)
        assert upper(repeat(whole, 7), 1e-6) == upper(repeat(plain, 7), 1e-6)
        everyone = without_replacement(noise, 10, 10)
        found = upper(everyone, 1e-6, "replace_one")
        assert found == pytest.approx(upper(plain, 1e-6, "replace_one"), rel=2e-5)
    nearly = upper(poisson(1.0, 1 - 1e-9), 1e-6)
    assert nearly == pytest.approx(upper(gaussian(1.0), 1e-6), rel=2e-5)


def test_copies_are_a_repeat_and_order_does_not_matter():
    a, b = poisson(1, 0.02), dp.LaplaceDpEvent(5.0)
    once = upper(sequential([a, b, a, a, b]), 1e-6)
    assert once == upper(sequential([repeat(a, 3), repeat(b, 2)]), 1e-6)
    assert once == pytest.approx(
        upper(sequential([b, repeat(sequential([a, a]), 1), b, a]), 1e-6), rel=1e-12
    )


def test_more_noise_fewer_steps_and_lower_rates_are_better():
    base = upper(repeat(poisson(1.0, 0.02), 100), 1e-6)
    assert upper(repeat(poisson(1.05, 0.02), 100), 1e-6) < base
    assert upper(repeat(poisson(1.0, 0.019), 100), 1e-6) < base
    assert upper(repeat(poisson(1.0, 0.02), 95), 1e-6) < base
    assert upper(repeat(poisson(1.0, 0.02), 100), 2e-6) < base


@pytest.mark.slow
def test_delta_of_is_the_inverse():
    event = repeat(poisson(1, 0.01), 1000)
    for delta in (1e-3, 1e-7):
        found = delta_of(event, upper(event, delta), relation="add_remove")
        assert found.upper == pytest.approx(delta, rel=1e-3)
        assert found.certified
    tiny = delta_of(event, 50.0, relation="add_remove").upper
    assert upper(event, tiny) == pytest.approx(50.0, rel=1e-4)


def test_delta_at_zero_is_the_largest_advantage():
    # TV of two Gaussians a radius apart: 2 Phi(1/2) - 1.
    found = delta_of(gaussian(1), 0, relation="zero_out")
    assert found.upper == pytest.approx(0.3829249225480262, rel=1e-11)
    sampled = pld.delta_of(poisson(1, 0.01), 0, relation="zero_out", lower=False)
    assert sampled.upper == pytest.approx(0.003829249225480262, rel=1e-6)


def test_approximate_releases_add_their_deltas():
    event = repeat(ApproxDpEvent(0.1, 1e-7), 10)
    pure = upper(repeat(PureDpEvent(0.1), 10), 1e-5 - 1e-6)
    assert upper(event, 1e-5) == pytest.approx(pure, rel=1e-6)
    assert bound(event, 9e-7).upper == math.inf


def test_a_single_pure_release_never_exceeds_itself():
    for each in (0.01, 1.0, 30.0):
        assert upper(PureDpEvent(each), 1e-6) <= each
    assert upper(PureDpEvent(0.0), 1e-6) == 0.0


def test_parallel_takes_the_worst_child():
    weak, strong = repeat(poisson(1, 0.05), 20), dp.LaplaceDpEvent(0.5)
    for delta in (1e-3, 1e-6):
        worst = max(upper(weak, delta), upper(strong, delta))
        found = upper(ParallelDpEvent([weak, strong]), delta)
        assert worst * (1 - 1e-6) <= found <= worst * (1 + 1e-3)
    alone = upper(repeat(ParallelDpEvent([gaussian(2)]), 10), 1e-6)
    assert alone == pytest.approx(upper(repeat(gaussian(2), 10), 1e-6), rel=2e-5)
    broken = ParallelDpEvent([dp.NonPrivateDpEvent(), gaussian(1)])
    assert bound(broken, 0.5).upper == math.inf
    empty = ParallelDpEvent([sequential([])])
    assert upper(empty, 1e-6) == 0.0


def test_no_privacy_and_no_release():
    everything = sequential([gaussian(1), dp.NonPrivateDpEvent()])
    assert bound(everything, 0.5).upper == math.inf
    assert delta_of(everything, 3.0, relation="add_remove").upper == 1.0
    assert bound(sequential([]), 1e-6).upper == 0.0


@pytest.mark.parametrize(
    ("event", "relation"),
    [
        (poisson_laplace(1, 0.1), "replace_one"),
        (without_replacement(1, 5, 10), "zero_out"),
        (dp.RandomizedResponseDpEvent(0.5, 2), "add_remove"),
        (pmf_pair((0.5, 0.5), (0.4, 0.6)), "replace_one"),
        (ParallelDpEvent([gaussian(1)]), "replace_one"),
    ],
    ids=repr,
)
def test_relations_without_a_proof_are_refused(event, relation):
    with pytest.raises(UnsupportedRelation):
        bound(sequential([gaussian(1), event]), 1e-5, relation)
    assert not pld.supports(event, relation)
    assert not pld.supports(ParallelDpEvent([event]), relation)


@pytest.mark.parametrize(
    "event",
    [
        dp.ZCDpEvent(0.1),
        dp.SingleEpochTreeAggregationDpEvent(1.0, 3),
        dp_event.RepeatAndSelectDpEvent(gaussian(1), 2.0, 1.0),
        rdp_curve([2], [0.1], "zero_out"),
    ],
    ids=repr,
)
def test_events_without_a_pair_are_refused_by_name(event):
    with pytest.raises(UnsupportedEvent, match="use accountant='rdp'") as refused:
        bound(repeat(event, 2), 1e-5, "zero_out")
    assert refused.value.event == event
    assert not pld.supports(event, "zero_out")


def test_truncated_batches_with_a_replaced_record_are_read_by_their_overflow():
    event, plain = truncated(2, 0.1, 1000, 200), poisson(2, 0.1)
    found = bound(event, 1e-5, "replace_one")
    assert bound(plain, 1e-5, "replace_one").upper < found.upper
    assert found.upper < rdp.epsilon(event, 1e-5, relation="replace_one").upper
    assert found.certified


def test_bounded_range_is_read_as_pure():
    event = repeat(BoundedRangeDpEvent(0.2), 10)
    assert upper(event, 1e-6) == upper(repeat(PureDpEvent(0.2), 10), 1e-6)


def test_unproven_pairs_are_never_certified():
    doubtful = pmf_pair((0.5, 0.5), (0.4, 0.6), certified=False)
    found = bound(doubtful, 1e-5)
    assert not found.certified
    assert "not proven" in found.warnings[0]


@pytest.mark.parametrize("delta", [0, 1, math.nan, -1.0, 2.0])
def test_bad_deltas_are_refused(delta):
    with pytest.raises(ValueError, match="delta"):
        bound(gaussian(1), delta)


def test_bad_events_are_refused_before_any_work():
    with pytest.raises(ValueError, match="nan"):
        bound(sequential([gaussian(1)]) and gaussian(math.nan), 1e-5)
    with pytest.raises(ValueError, match="epsilon"):
        delta_of(gaussian(1), math.inf, relation="add_remove")


@pytest.mark.slow
@pytest.mark.parametrize(
    "event",
    [
        poisson(1e-3, 0.5),
        poisson(1e6, 1e-9),
        repeat(poisson(0.05, 0.001), 100),
        PureDpEvent(800.0),
        gaussian(1e-100),
        gaussian(1e100),
        repeat(gaussian(1e-100), 10**9),
        sequential([gaussian(1e-100), dp.LaplaceDpEvent(1e-100)]),
        dp.LaplaceDpEvent(1e-6),
        DiscreteGaussianDpEvent(0.05, 1),
        dp.RandomizedResponseDpEvent(1.0, 3),
        dp.RandomizedResponseDpEvent(0.0, 3),
    ],
    ids=repr,
)
def test_extreme_parameters_give_an_answer_without_warnings(event):
    relation = "zero_out"
    found = bound(event, 1e-6, relation).upper
    assert found >= 0
    assert found <= renyi(event, 1e-6, relation) * 1.001 or (found == math.inf)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rate", "noise", "copies", "times"), [(0.01, 1, 10, 100), (0.01, 2, 10, 3)]
)
def test_a_parallel_composition_is_no_cheaper_than_its_child(
    rate, noise, copies, times
):
    # Both directions' values at 0 bound one total variation; unequal, they lose mass.
    child = repeat(poisson(noise, rate), copies)
    plain = bound(repeat(child, times), 1e-5)
    for event in (ParallelDpEvent([child]), ParallelDpEvent([child, gaussian(50)])):
        found = upper(repeat(event, times), 1e-5)
        assert plain.lower <= found <= plain.upper * 1.05
        target = plain.upper * 0.5
        one = delta_of(repeat(event, times), target).upper
        assert one >= delta_of(repeat(child, times), target).lower


def test_a_law_from_above_lacks_nothing():
    for event in [poisson(1, 0.1), dp.LaplaceDpEvent(2.0), truncated(1, 0.1, 100, 15)]:
        chains = Rounds(event, Relation.ADD_REMOVE)._chains
        for chain in chains:
            for losses, _ in chain._terms:
                assert losses.masses.sum() + losses.infinite >= 1 - 1e-9


def test_bounded_range_has_no_lower_bound_as_pure():
    event = repeat(BoundedRangeDpEvent(1.0), 100)
    assert bound(event, 1e-5).lower == 0
    best: Any = epsilon(event, 1e-5, relation="add_remove")
    assert best.method_upper == "rdp"
    assert best.lower <= best.estimate <= best.upper < 35


@pytest.mark.slow
def test_an_allowance_is_no_mass_that_is_there():
    event = repeat(DiscreteGaussianDpEvent(91.0, 1), 2)
    found = delta_of(event, 6.5, "zero_out")
    assert found.lower <= 5e-324


def test_contradictions_of_certified_bounds_are_errors(monkeypatch):
    def wrong(event, delta, *, relation, lower=True):
        return PrivacyBound(
            delta=delta, lower=9.0, upper=9.0, certified=True, relation=relation
        )

    monkeypatch.setattr(pld.PLD, "epsilon", wrong)
    with pytest.raises(ArithmeticError, match="one of them is wrong"):
        epsilon(repeat(PureDpEvent(0.1), 3), 1e-5, relation="add_remove")


@pytest.mark.slow
@pytest.mark.guard
def test_a_window_too_wide_for_memory_is_answered_by_its_tilt():
    event = repeat(poisson(1.0, 1e-20), 10**6)
    found = pld.delta_of(event, 0.0, relation="add_remove")
    # The total variation is at most sqrt(chi squared) / 2, and above q sqrt(T) / 10.
    assert found.upper is not None and 1e-18 < found.upper < 1e-9
    assert found.lower is not None and found.lower <= 1e-17 * math.sqrt(math.e - 1)
