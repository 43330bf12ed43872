"""Plans: sampling, noise, divisor and event come from the same fields."""

import math
from typing import Any

import dp_accounting
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpkit.training.optimizer import release_state, released_mean
from dpkit.training.plan import DPSGDPlan
from tests.bare import clipped

SMALL: dict[str, Any] = {
    "max_records": 1000,
    "expected_batch_size": 100,
    "steps": 10,
    "clip_norm": 0.5,
    "noise_multiplier": 1.5,
}


def create(**changes: Any) -> DPSGDPlan:
    return DPSGDPlan.create(**(SMALL | changes))


def test_the_event_is_made_of_the_fields_that_run():
    plan = DPSGDPlan.create(**SMALL)
    event = plan.event("add_remove")
    assert isinstance(event, dp_accounting.SelfComposedDpEvent)
    assert event.count == 10
    step = event.event
    assert isinstance(step, dp_accounting.TruncatedSubsampledGaussianDpEvent)
    assert step.sampling_probability == plan.sampler.sampling_rate == 0.1
    assert step.noise_multiplier == plan.stream.noise_multiplier == 1.5
    assert step.truncated_batch_size == plan.sampler.max_batch_size
    assert step.dataset_size == 1000


def test_batches_that_cannot_be_cut_are_plain_poisson():
    plan = create(max_batch_size=1000)
    assert plan.step_event("zero_out") == dp_accounting.PoissonSampledDpEvent(
        0.1, dp_accounting.GaussianDpEvent(1.5)
    )


def test_a_batch_is_a_function_of_key_and_step():
    plan = DPSGDPlan.create(**SMALL)
    key = jax.random.key(1)
    again = plan.batch(key, 3, 1000)
    for step, batch in enumerate(plan.batches(key, num_records=1000)):
        same = np.array_equal(batch.indices, again.indices)
        assert same == (step == 3)
        assert batch.mask.shape == (plan.sampler.max_batch_size,)
    assert step == 9


def test_more_steps_than_planned_are_refused():
    plan = DPSGDPlan.create(**SMALL)
    for step in (10, 11, -1):
        with pytest.raises(ValueError, match="more steps than were accounted for"):
            plan.batch(jax.random.key(0), step, 1000)


@pytest.mark.parametrize(
    ("changes", "divisors"),
    [
        ({}, {0: 90}),
        ({"quantile": 0.5}, {0: 90}),
        ({"sampling": "full_batch", "expected_batch_size": None}, {0: 1001}),
        ({"steps": None, "expected_batch_size": ((4, 90), (6, 40))}, {3: 90, 4: 40}),
    ],
    ids=["poisson", "quantile", "full_batch", "schedule"],
)
def test_the_divisor_does_not_move_when_a_record_is_added(changes, divisors):
    # The same sum, of N and of N + 1 records: the same mean, to the bit.
    plan = create(**{"max_records": 1001, "expected_batch_size": 90, **changes})
    memory = release_state(plan, jnp.zeros(2))
    slots = jnp.arange(plan.sampler.max_batch_size)

    @jax.jit
    def released(step, total, number):
        norms = jnp.where(slots < number, 0.2, 0.0)
        key = jax.random.key(0)
        batch = clipped(plan, total, norms, memory)
        return released_mean(plan, key, step, batch, total, memory)[0]

    for step, divisor in divisors.items():
        assert plan.divisor(step) == divisor
        total = jnp.array([3.0, -40.0])
        mean = released(step, total, 60)
        assert mean.tobytes() == released(step, total, 61).tobytes()
        np.testing.assert_allclose(
            released(step, total + 100, 60) - mean, 100 / divisor, rtol=1e-5
        )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"noise_multiplier": -1.0}, "noise_multiplier"),
        ({"noise_multiplier": math.nan}, "noise_multiplier"),
        ({"clip_norm": 0.0}, "clip_norm"),
        ({"clip_norm": math.inf}, "clip_norm"),
        ({"steps": 0}, "steps"),
        ({"steps": 2.5}, "steps"),
        ({"steps": None}, "exactly one"),
        ({"epochs": 1}, "exactly one"),
        ({"expected_batch_size": 0}, "expected_batch_size"),
        ({"expected_batch_size": 1001}, "expected_batch_size"),
        ({"max_batch_size": 50}, "max_batch_size"),
        ({"sampling_rate": 1.1}, "sampling_rate"),
        ({"sampling_rate": 0.11}, "sampling_rate"),
        ({"max_records": 0}, "max_records"),
    ],
)
def test_numbers_that_make_no_sense_together_are_refused(change, words):
    with pytest.raises((ValueError, TypeError), match=words):
        DPSGDPlan.create(**{**SMALL, **change})


def test_a_sampling_rate_that_agrees_is_accepted():
    assert DPSGDPlan.create(**SMALL, sampling_rate=0.1).sampler.sampling_rate == 0.1


def test_no_noise_is_charged_as_no_privacy():
    numbers = SMALL | {"noise_multiplier": 0.0, "clip_norm": math.inf}
    plan = DPSGDPlan.create(**numbers)
    event = plan.step_event("add_remove")
    assert isinstance(event, dp_accounting.NonPrivateDpEvent)


def test_epochs_are_counted_in_expected_batches():
    # 15 epochs of 60,000 at 256 a batch: ceil(15 * 60000 / 256) = 3516, not 15 * 235.
    numbers: dict[str, Any] = {"max_records": 60_000, "steps": None}
    assert create(**numbers, expected_batch_size=256, epochs=15).steps == 3516
    assert create(**numbers, expected_batch_size=600, epochs=8).steps == 800


@pytest.mark.parametrize("relation", ["add_remove", "zero_out"])
def test_a_plan_for_a_budget_keeps_it_and_hardly_less(relation):
    numbers = {k: v for k, v in SMALL.items() if k != "noise_multiplier"}
    plan = DPSGDPlan.for_budget(epsilon=2.0, delta=1e-5, relation=relation, **numbers)
    upper = plan.epsilon(1e-5, relation=relation).upper
    assert upper is not None and 1.99 < upper <= 2.0
    tighter = plan.with_noise(plan.stream.noise_multiplier * 0.995)
    looser = tighter.epsilon(1e-5, relation=relation).upper
    assert looser is not None and looser > 2.0


def test_a_delta_that_could_publish_a_record_is_refused():
    numbers = {k: v for k, v in SMALL.items() if k != "noise_multiplier"}
    target: dict[str, Any] = {"epsilon": 2.0, "relation": "add_remove", **numbers}
    with pytest.raises(
        ValueError, match=r"delta=0.001.*usual choice here is 0.001|1/n"
    ):
        DPSGDPlan.for_budget(delta=1e-3, **target)
    plan = DPSGDPlan.for_budget(delta=1e-3, allow_large_delta=True, **target)
    assert plan.steps == 10


def test_replace_one_is_refused():
    with pytest.raises(Exception, match="replace_one"):
        DPSGDPlan.create(**SMALL).event("replace_one")


def test_plans_survive_json():
    plan = DPSGDPlan.create(**SMALL)
    assert DPSGDPlan.from_json(plan.to_json()) == plan
    with pytest.raises(ValueError, match="sampling"):
        DPSGDPlan.from_json({**plan.to_json(), "sampling": "shuffle"})
