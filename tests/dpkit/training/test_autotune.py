"""The microbatch size: measured on made-up rows, kept, and free to be fixed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dpkit.jobs.roots import Roots
from dpkit.training.autotune import choose_microbatch
from dpkit.training.execution import Execution
from dpkit.training.plan import DPSGDPlan
from dpkit.training.step import Stepper

PLAN = DPSGDPlan.create(
    max_records=100,
    expected_batch_size=20,
    steps=3,
    clip_norm=1.0,
    noise_multiplier=1.0,
)


def loss(w, x, key):
    return jnp.vdot(w, x) ** 2


def make(execution):
    return Stepper(
        loss,
        PLAN,
        optax.sgd(0.1),
        Roots.insecure(1),
        execution,
        average_decay=None,
    )


def test_the_choice_is_one_of_the_candidates_and_needs_no_record():
    example = jax.ShapeDtypeStruct((4,), np.float32)
    slots = PLAN.sampler.max_batch_size
    way = Execution(mode="vmap", constant_time=False)
    found = choose_microbatch(make, way, jnp.ones(4), example, slots, candidates=(2, 4))
    assert found.microbatch_size in (2, 4)
    assert dataclasses.replace(found, microbatch_size=None) == way


def test_a_single_candidate_is_not_measured():
    def fail(execution):
        raise AssertionError("nothing to measure")

    for candidates, want in (((4, 64), 4), ((64,), 1)):
        found = choose_microbatch(fail, Execution(), None, None, 20, candidates)
        assert found == Execution(microbatch_size=want)
