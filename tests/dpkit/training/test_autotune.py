"""The microbatch size: measured on made-up rows, kept, and free to be fixed."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dpkit.training.autotune import choose_microbatch
from dpkit.training.plan import DPSGDPlan
from dpkit.training.roots import Roots
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


def make(size):
    return Stepper(
        loss,
        PLAN,
        optax.sgd(0.1),
        Roots.insecure(1),
        average_decay=None,
        microbatch_size=size,
        devices=1,
    )


def test_the_choice_is_one_of_the_candidates_and_needs_no_record():
    example = jax.ShapeDtypeStruct((4,), np.float32)
    slots = PLAN.sampler.max_batch_size
    size = choose_microbatch(make, jnp.ones(4), example, slots, candidates=(2, 4))
    assert size in (2, 4)


def test_a_single_candidate_is_not_measured():
    def fail(size):
        raise AssertionError("nothing to measure")

    assert choose_microbatch(fail, None, None, 20, candidates=(4, 64)) == 4
    assert choose_microbatch(fail, None, None, 20, candidates=(64,)) == 1
