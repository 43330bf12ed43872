"""The trainer's own step: one message between devices, one copy of the noise."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dpkit.data.random_access import as_rows
from dpkit.jobs.roots import Roots
from dpkit.mechanisms import clipping
from dpkit.mechanisms.sampler import Batch
from dpkit.training.execution import Execution
from dpkit.training.plan import DPSGDPlan
from dpkit.training.step import Stepper
from tests.dpkit.rewrite.test_sharding import collectives
from tests.processes import result_of

ONE = {"all-reduce": 1}
BASE: dict[str, Any] = {
    "max_records": 128,
    "steps": 12,
    "clip_norm": 1.0,
    "noise_multiplier": 1.0,
}
POISSON: dict[str, Any] = {**BASE, "expected_batch_size": 16, "max_batch_size": 32}
PLANS: dict[str, dict[str, Any]] = {
    "poisson": POISSON,
    "quantile": {**POISSON, "quantile": 0.5},
    "banded": {**BASE, "sampling": "cyclic", "bins": 4, "noise": "banded", "bands": 3},
}
MODES: dict[str, dict[str, Any]] = {
    "auto": {},
    "two_pass": {"mode": "two_pass"},
    "chunks": {"microbatch_size": 2},
}
# Adaptive clipping has one generator only.
CASES = [
    (plan, mode, generator)
    for plan in PLANS
    for mode in MODES
    for generator in ("threefry", "chacha20")
    if (plan, generator) != ("quantile", "chacha20")
]


def stepper_of(loss_fn, plan, **options):
    settings: dict[str, Any] = {
        "devices": 1,
        **options,
    }
    tx = settings.pop("optimizer", optax.sgd(1.0))
    decay = settings.pop("average_decay", None)
    way = Execution(**settings)
    return Stepper(loss_fn, plan, tx, Roots.insecure(1), way, average_decay=decay)


def compiled(stepper, params, width):
    """The program of a step, for rows of this width."""
    rows = stepper.zeros(jax.ShapeDtypeStruct((width,), np.float32), 8)
    return stepper.lowered(stepper.start(params), rows).compile()


def two_layers(p, x, key):
    return jnp.sum((jnp.tanh(x @ p["w"] + p["b"]) @ p["v"]) ** 2)


def messages(plan, mode, generator, devices):
    """What the devices send each other in one step of a run."""
    params = {"w": jnp.ones((6, 4)), "b": jnp.zeros(4), "v": jnp.ones((4, 2))}
    stepper = stepper_of(
        two_layers,
        DPSGDPlan.create(**PLANS[plan]),
        optimizer=optax.adam(0.1),
        average_decay=0.9,
        generator=generator,
        devices=devices,
        **MODES[mode],
    )
    return collectives(compiled(stepper, params, 6))


@pytest.mark.parametrize(
    ("plan", "mode", "generator"),
    [
        pytest.param(*case, marks=() if i else pytest.mark.guard)
        for i, case in enumerate(CASES)
    ],
)
@pytest.mark.slow
def test_a_step_on_two_devices_sends_one_message(plan, mode, generator):
    assert messages(plan, mode, generator, 2) == ONE


FOUR = """
    import json
    import jax
    jax.config.update("jax_num_cpu_devices", 4)
    from tests.dpkit.training.test_step import CASES, messages

    print(json.dumps([messages(*case, 4) for case in CASES]))
"""


@pytest.mark.slow
def test_a_step_on_four_devices_sends_one_message():
    found = result_of(FOUR)
    assert [case for case, sent in zip(CASES, found, strict=True) if sent != ONE] == []


# Gradients that sum to the same, exactly, from three records and from four.
THREE = np.array([[0.5, 0.0], [0.0, 0.25], [-0.125, 0.125]], np.float32)
FOUR_ROWS = np.array([[0.25, 0.0], [0.25, 0.0], *THREE[1:]], np.float32)


@pytest.mark.parametrize(
    "name",
    [
        "poisson",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("quantile", "banded")),
    ],
)
def test_one_more_record_in_a_batch_leaves_the_divisor_alone(name):
    plan = DPSGDPlan.create(**PLANS[name])
    slots = np.arange(plan.sampler.max_batch_size)
    stepper = stepper_of(lambda w, x, key: jnp.vdot(w, x), plan)
    ends = []
    for rows in (THREE, FOUR_ROWS):
        batch = Batch((slots % len(rows)).astype(np.int32), slots < len(rows))
        state = stepper(stepper.start(jnp.zeros(2)), as_rows(rows), batch)
        ends.append(np.asarray(state.params))
    assert ends[0].tobytes() == ends[1].tobytes()


def perceptron(p, x, key):
    for w, b in p[:-1]:
        x = jnp.tanh(x @ w + b)
    return jnp.sum((x @ p[-1][0] + p[-1][1]) ** 2)


NOISE_CASES: list[dict[str, Any]] = [
    {},
    {"optimizer": optax.adam(0.1), "average_decay": 0.9},
    {"generator": "chacha20"},
    {"devices": 2},
]


@pytest.mark.slow
@pytest.mark.parametrize("options", NOISE_CASES, ids=lambda c: "-".join(c) or "plain")
def test_noise_is_drawn_when_the_backward_pass_has_given_its_memory_back(
    monkeypatch, options
):
    """Not before, as a second copy of the parameters where memory is shortest."""
    sizes = [784, 256, 10]
    shapes = itertools.pairwise(sizes)
    params = [(jnp.ones((m, n)), jnp.zeros(n)) for m, n in shapes]
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    numbers: dict[str, Any] = {**BASE, "max_records": 2048, "max_batch_size": 2048}
    plan = DPSGDPlan.create(**numbers, expected_batch_size=2048)

    def memory():
        program = compiled(stepper_of(perceptron, plan, **options), params, sizes[0])
        used = program.memory_analysis()
        assert used is not None
        return used.temp_size_in_bytes

    noised = memory()
    monkeypatch.setattr(
        clipping,
        "gaussian_noise",
        lambda key, tree, *_, **__: jax.tree.map(
            lambda x: jnp.zeros((), x.dtype), tree
        ),
    )
    silent = memory()
    assert silent > 2 * size  # so that it is the backward pass that counts
    assert noised - silent < 0.1 * size
