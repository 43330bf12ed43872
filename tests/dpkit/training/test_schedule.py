"""Plans with other samplers, other clips, and numbers that change during the run."""

import json
import math
from typing import Any

import dp_accounting as dp
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpkit.accountants.answers.errors import UnsupportedEvent, UnsupportedRelation
from dpkit.accountants.events.allocation import RandomAllocationDpEvent
from dpkit.mechanisms import (
    PSAC,
    AutoS,
    BallsInBinsSampler,
    Custom,
    CyclicSampler,
    FixedSizeSampler,
    FullBatchSampler,
    PerGroup,
    PoissonSampler,
)
from dpkit.mechanisms.changing import PiecewiseSampler, lookup
from dpkit.training.plan import DPSGDPlan
from dpkit.training.schedule import aligned, checked

SMALL: dict[str, Any] = {
    "max_records": 60,
    "expected_batch_size": 15,
    "steps": 8,
    "clip_norm": 0.5,
    "noise_multiplier": 1.5,
}
GAUSSIAN = dp.GaussianDpEvent(1.5)
KINDS = {
    "poisson": (PoissonSampler(0.25, 60, 60), "add_remove"),
    "fixed_size": (FixedSizeSampler(15, 60), "replace_one"),
    "full_batch": (FullBatchSampler(60), "replace_one"),
    "balls_in_bins": (BallsInBinsSampler(4, 60, 60), "zero_out"),
    "cyclic": (CyclicSampler(4, 60), "replace_one"),
}


def small(sampling="poisson", **changes):
    numbers = SMALL | {"sampling": sampling}
    if sampling in ("poisson", "balls_in_bins"):
        numbers["max_batch_size"] = 60
    if sampling == "full_batch":
        del numbers["expected_batch_size"]
    return DPSGDPlan.create(**(numbers | changes))


def test_a_clip_norm_that_follows_a_quantile_follows_no_schedule():
    with pytest.raises(ValueError, match="AdaptiveGaussianSum goes by earlier"):
        DPSGDPlan.create(
            max_records=1000,
            expected_batch_size=100,
            clip_norm=1.0,
            quantile=0.5,
            noise_multiplier=((5, 2.0), (5, 1.0)),
        )


@pytest.mark.slow
@pytest.mark.parametrize("sampling", KINDS)
def test_every_sampler_makes_a_plan_whose_event_is_its_own(sampling):
    sampler, relation = KINDS[sampling]
    plan = small(sampling)
    assert plan.sampler == sampler
    assert plan.event(relation) == sampler.run_event(GAUSSIAN, 8, relation)
    assert plan.event_until(5, relation) == sampler.run_event(GAUSSIAN, 5, relation)
    event, count = plan.charge(relation)
    assert count == (8 if sampler.steps_per_epoch == 1 else 1)
    assert dp.SelfComposedDpEvent(event, count) in (
        plan.event(relation),
        dp.SelfComposedDpEvent(plan.event(relation), 1),
    )
    batches = list(plan.batches(jax.random.key(0), num_records=60))
    assert len(batches) == 8
    assert {b.mask.shape for b in batches} == {(sampler.max_batch_size,)}


@pytest.mark.parametrize("sampling", KINDS)
def test_plans_with_other_samplers_survive_json(sampling):
    plan = small(sampling)
    written = json.loads(json.dumps(plan.to_json()))
    assert DPSGDPlan.from_json(written) == plan


def test_a_plain_plan_is_written_as_ever():
    assert small().to_json() == {
        "sampling": "poisson",
        "sampling_rate": 0.25,
        "max_batch_size": 60,
        "max_records": 60,
        "clip_norm": 0.5,
        "noise_multiplier": 1.5,
        "steps": 8,
        "expected_batch_size": 15.0,
    }
    assert list(small().to_json()) == [
        "sampling",
        "sampling_rate",
        "max_batch_size",
        "max_records",
        "clip_norm",
        "noise_multiplier",
        "steps",
        "expected_batch_size",
    ]


def test_batches_of_a_plan_come_from_the_sampling_branch_of_the_key():
    key = jax.random.key(4)
    branch = jax.random.fold_in(key, 0x5A4D)
    for sampling in ("poisson", "balls_in_bins"):
        plan = small(sampling)
        for step in (0, 7):
            expected = plan.sampler.batch(branch, step, 60)
            found = plan.batch(key, step, 60)
            np.testing.assert_array_equal(found.indices, expected.indices)
            np.testing.assert_array_equal(found.mask, expected.mask)


def test_an_epoch_has_whole_steps_and_the_divisor_follows():
    # 60000 / 2048 = 29.3: 29 steps an epoch, 60000 / 29 = 2068.97 a batch.
    numbers = SMALL | {"max_records": 60_000, "expected_batch_size": 2048}
    del numbers["steps"]
    for sampling in ("balls_in_bins", "cyclic"):
        plan = DPSGDPlan.create(**numbers, epochs=10, sampling=sampling)
        assert (plan.sampler.bins, plan.steps) == (29, 290)
        assert plan.expected_batch_size == plan.divisor(3) == 60_000 / 29
    with pytest.raises(ValueError, match="give bins, such as 1"):
        small("cyclic", expected_batch_size=43)
    with pytest.raises(ValueError, match=r"expected_batch_size=15 is not 12.*bins"):
        small("cyclic", bins=5)
    assert small("cyclic", bins=5, expected_batch_size=None).divisor(0) == 12


@pytest.mark.parametrize(
    ("sampling", "change", "words"),
    [
        ("shuffle", {}, "sampling='shuffle'.*no proof near Poisson"),
        ("poissons", {}, "sampling='poissons'.*use one of"),
        ("poisson", {"expected_batch_size": None}, "expected_batch_size"),
        ("poisson", {"bins": 4}, "bins=4"),
        ("poisson", {"max_batch_size": 14}, "max_batch_size=14"),
        ("fixed_size", {"max_batch_size": 20}, "max_batch_size=20"),
        ("fixed_size", {"expected_batch_size": 7.5}, "integer"),
        ("fixed_size", {"expected_batch_size": 61}, "above max_records=60"),
        ("full_batch", {"expected_batch_size": 30}, "everyone"),
        ("balls_in_bins", {"max_batch_size": 14}, "max_batch_size=14"),
        ("balls_in_bins", {"sampling_rate": 0.3}, "sampling_rate=0.3"),
    ],
)
def test_numbers_that_contradict_each_other_are_refused(sampling, change, words):
    with pytest.raises(ValueError, match=words):
        small(sampling, **change)


def test_relations_without_a_proof_and_steps_without_a_price_are_refused():
    with pytest.raises(UnsupportedRelation, match="replace_one"):
        small("balls_in_bins").event("replace_one")
    with pytest.raises(UnsupportedRelation, match="add_remove"):
        small("fixed_size").event("add_remove")
    with pytest.raises(UnsupportedEvent, match="run_event"):
        small("cyclic").step_event("zero_out")
    with pytest.raises(ValueError, match="steps=9"):
        small().event_until(9, "zero_out")
    with pytest.raises(TypeError, match="sampler=function"):
        DPSGDPlan(
            sampler=lambda key: key,
            stream=small().stream,
            steps=1,
            expected_batch_size=1.0,
        )


@pytest.mark.parametrize(
    "clip", [AutoS(2.0), PSAC(2.0), PerGroup((1.0, 2.0), (("a",), ("b", "c/d")))]
)
def test_any_clip(clip):
    plan = small(clip_norm=None, clip=clip)
    assert plan.clip_at(0) == plan.stream.clip == clip
    assert plan.stddev(0) == plan.stream.stddev > 1.5 * clip.radius
    assert DPSGDPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    with pytest.raises(ValueError, match="clip"):
        small(clip=clip)


def test_a_clip_that_can_not_be_written_says_so():
    plan = small(clip_norm=None, clip=Custom(lambda n: jnp.minimum(1.0, 1.0 / n), 1.0))
    with pytest.raises(ValueError, match="holds a function"):
        plan.to_json()


NOISES = ((3, 2.0), (5, 1.0))


def scheduled(**changes):
    return small(steps=None, **({"noise_multiplier": NOISES} | changes))


def test_a_schedule_is_accounted_piece_by_piece():
    plan = scheduled(expected_batch_size=((5, 15), (3, 30)))
    assert plan.steps == 8
    rows = [(3, 0.25, 2.0), (2, 0.25, 1.0), (3, 0.5, 1.0)]
    expected: list[Any] = [
        dp.SelfComposedDpEvent(
            dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(noise)), steps
        )
        for steps, rate, noise in rows
    ]
    assert plan.event("add_remove") == dp.ComposedDpEvent(expected)
    until = [*expected[:1], dp.SelfComposedDpEvent(expected[1].event, 1)]
    assert plan.event_until(4, "add_remove") == dp.ComposedDpEvent(until)
    assert plan.charge("add_remove") == (plan.event("add_remove"), 1)
    with pytest.raises(ValueError, match="charge"):
        plan.step_event("add_remove")


def test_what_holds_at_a_step_is_found_inside_a_compiled_program():
    plan = scheduled(clip_norm=((6, 0.5), (2, 4.0)), expected_batch_size=15)
    assert [plan.clip_at(step) for step in range(8)] == [0.5] * 6 + [4.0] * 2
    noise = [2.0 * 0.5] * 3 + [1.0 * 0.5] * 3 + [4.0] * 2
    allowed = 1 + 60 * 2**-18
    assert [plan.stddev(s) / allowed for s in range(8)] == pytest.approx(noise)
    assert plan.divisor(jnp.int32(3)) == 15.0  # never changes: a constant under jit

    at: Any = jax.jit(lambda step: (plan.stddev(step), plan.clip_at(step)))
    for step in range(8):
        stddev, clip = at(step)
        assert (stddev.dtype, stddev.shape) == (jnp.float32, ())
        assert float(stddev) == pytest.approx(plan.stddev(step), rel=1e-6)
        assert float(clip) == plan.clip_at(step)
    assert at._cache_size() == 1
    sizes = scheduled(expected_batch_size=((4, 15), (4, 30)))
    assert float(jax.jit(sizes.divisor)(4)) == 30.0


def test_a_schedule_has_no_one_mechanism():
    plan = scheduled()
    for name in ("clip_norm", "stddev", "privatize", "noise_multiplier", "clip"):
        with pytest.raises(AttributeError, match=r"plan.stddev\(step\)"):
            getattr(plan.stream, name)
    with pytest.raises(ValueError, match="scaled"):
        plan.with_noise(1.0)
    assert [p.stream.noise_multiplier for p in plan.scaled(3.0).pieces] == [6.0, 3.0]


@pytest.mark.parametrize("sampling", ["poisson", "fixed_size", "balls_in_bins"])
def test_schedules_survive_json(sampling):
    plan = scheduled(
        sampling=sampling,
        noise_multiplier=((4, 2.0), (4, 1.0)),
        clip_norm=((4, 0.5), (4, 0.25)),
        expected_batch_size=((4, 15), (4, 30)),
        **({} if sampling == "fixed_size" else {"max_batch_size": None}),
    )
    written = json.loads(json.dumps(plan.to_json()))
    assert DPSGDPlan.from_json(written) == plan
    assert written["noise_multiplier"] == [[4, 2.0], [4, 1.0]]
    assert written["expected_batch_size"] == [[4, 15.0], [4, 30.0]]
    assert hash(DPSGDPlan.from_json(written)) == hash(plan)


def test_a_schedule_that_changes_nothing_is_a_plain_plan():
    assert scheduled(noise_multiplier=((3, 1.5), (5, 1.5))) == small()


def test_batch_sizes_that_whole_epochs_round_to_one_are_one_piece():
    # Epochs of 10 steps, then of 3: 20 and 19 records are both a third of 60.
    plan = scheduled(
        sampling="balls_in_bins",
        max_batch_size=None,
        noise_multiplier=1.0,
        expected_batch_size=((10, 6), (3, 20), (6, 19)),
    )
    assert [(piece.steps, piece.sampler.bins) for piece in plan.pieces] == [
        (10, 10),
        (9, 3),
    ]
    assert DPSGDPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_epochs_are_not_cut_by_a_schedule():
    plan = scheduled(sampling="balls_in_bins", noise_multiplier=((4, 2.0), (3, 1.0)))
    assert plan.event("zero_out") == dp.ComposedDpEvent(
        [
            RandomAllocationDpEvent(2.0, 4),
            RandomAllocationDpEvent(1.0, 4, epochs=0, last_steps=3),
        ]
    )
    for sampling in ("balls_in_bins", "cyclic"):
        with pytest.raises(ValueError, match="whole epochs of 4 steps"):
            scheduled(sampling=sampling, max_batch_size=None)
    kept = scheduled(
        sampling="cyclic", max_batch_size=None, noise_multiplier=((4, 2.0), (4, 1.0))
    )
    key = jax.random.key(0)
    first, second = kept.batch(key, 1, 60), kept.batch(key, 5, 60)
    np.testing.assert_array_equal(first.indices, second.indices)  # one partition
    with pytest.raises(ValueError, match="cyclic"):
        small(
            "cyclic",
            steps=None,
            expected_batch_size=((4, 15), (2, 30)),
            max_batch_size=None,
        )


def test_pieces_with_epochs_of_their_own_have_draws_of_their_own():
    plan = scheduled(
        sampling="balls_in_bins",
        noise_multiplier=1.5,
        expected_batch_size=((4, 15), (2, 30), (4, 15)),
    )
    assert isinstance(plan.sampler, PiecewiseSampler)
    epochs = []
    for steps in (range(4), range(4, 6), range(6, 10)):
        batches = [plan.batch(jax.random.key(1), s, 60) for s in steps]
        assert {b.mask.shape for b in batches} == {(60,)}
        members = [b.indices[b.mask].tolist() for b in batches]
        assert sorted(i for part in members for i in part) == list(range(60))
        epochs.append(members)
    assert epochs[0] != epochs[2]
    with pytest.raises(ValueError, match="more steps than were accounted for"):
        plan.batch(jax.random.key(1), 10, 60)


def test_batches_of_changing_size_share_their_slots():
    plan = scheduled(sampling="fixed_size", expected_batch_size=((5, 10), (3, 20)))
    counts = [b.mask.sum() for b in plan.batches(jax.random.key(0), num_records=60)]
    assert counts == [10] * 5 + [20] * 3
    assert plan.batch(jax.random.key(0), 0, 60).mask.shape == (20,)
    poisson = scheduled(expected_batch_size=((4, 5), (4, 40)))
    many = [poisson.batch(jax.random.key(s), 7, 60).mask.sum() for s in range(40)]
    few = [poisson.batch(jax.random.key(s), 3, 60).mask.sum() for s in range(40)]
    # Means 40 and 5 of 40 draws: 6 standard deviations are 3.5 and 2 (2e-9).
    assert abs(np.mean(many) - 40) < 3.5 and abs(np.mean(few) - 5) < 2


def test_one_factor_makes_a_schedule_meet_a_budget():
    numbers = SMALL | {"noise_multiplier": NOISES, "steps": None}
    plan = DPSGDPlan.for_budget(
        epsilon=3.0, delta=1e-3, relation="add_remove", max_batch_size=60, **numbers
    )
    first, second = (p.stream.noise_multiplier for p in plan.pieces)
    assert first / second == pytest.approx(2.0)
    upper = plan.epsilon(1e-3, relation="add_remove").upper
    assert upper is not None and 2.98 < upper <= 3.0
    with pytest.raises(TypeError, match="solves for"):
        DPSGDPlan.for_budget(epsilon=3.0, delta=1e-3, relation="add_remove", **SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("sampling", ["balls_in_bins", "cyclic", "full_batch"])
def test_other_samplers_meet_a_budget(sampling):
    numbers = {k: v for k, v in SMALL.items() if k != "noise_multiplier"}
    if sampling == "full_batch":
        del numbers["expected_batch_size"]
    plan = DPSGDPlan.for_budget(
        epsilon=2.0, delta=1e-3, relation="add_remove", sampling=sampling, **numbers
    )
    upper = plan.epsilon(1e-3, relation="add_remove").upper
    assert upper is not None and 1.98 < upper <= 2.0


def test_schedules_that_make_no_sense_are_refused():
    bad: list[tuple[Any, str]] = [
        (((3, 1.0), (4, 2.0)), "different lengths"),
        ((), "at least one piece"),
        (((3, 1.0), 5), "pieces"),
        (((0, 1.0), (8, 2.0)), "noise_multiplier steps=0"),
        (((3, -1.0), (5, 2.0)), "noise_multiplier"),
    ]
    for schedule, words in bad:
        with pytest.raises(ValueError, match=words):
            small(noise_multiplier=schedule)
    with pytest.raises(ValueError, match="epochs"):
        small(steps=None, epochs=2.0, noise_multiplier=NOISES)


def test_settings_are_cut_where_any_changes():
    found = aligned(6, a=((2, 1.0), (4, 2.0)), b=((3, 5.0), (3, 6.0)), c=0.0)
    assert found == [
        (2, {"a": 1.0, "b": 5.0, "c": 0.0}),
        (1, {"a": 2.0, "b": 5.0, "c": 0.0}),
        (3, {"a": 2.0, "b": 6.0, "c": 0.0}),
    ]
    assert aligned(6, a=1.0) == []
    assert checked("a", [(1, 1.0), (2, 1.0), (1, 3.0)]) == ((3, 1.0), (1, 3.0))
    values = [lookup(step, (2, 3), (1.0, 7.0)) for step in range(5)]
    assert values == [1.0, 1.0, 7.0, 7.0, 7.0]
    traced = [float(lookup(jnp.int32(s), (2, 3), (1.0, 7.0))) for s in range(5)]
    assert traced == values
    assert math.isfinite(sum(values))


def test_pieces_clip_alike():
    """A step is clipped by what its noise is for, or the plan is refused."""
    parts = [
        small(clip_norm=None, clip=AutoS(radius), noise_multiplier=1.0)
        for radius in (10.0, 1.0)
    ]
    with pytest.raises(ValueError, match="AutoS"):
        DPSGDPlan.of_pieces(parts)
    assert DPSGDPlan.of_pieces([parts[0], parts[0]]).clip_at(7) == AutoS(10.0)
