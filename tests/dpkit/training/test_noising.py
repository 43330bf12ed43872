"""Runs on every sampler, clip and kind of noise: paid as planned, resumed exactly."""

import dataclasses
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dpkit import Budget, DPSGDPlan, Ledger, RunFolder, fit
from dpkit.mechanisms import CyclicSampler, MinSeparation, PoissonSampler
from dpkit.mechanisms.clips import AutoS, PerGroup
from dpkit.training import Execution, as_optax
from dpkit.training.optimizer import release_state, released_mean
from tests.bare import clipped, clipped_grad

RECORDS = np.random.default_rng(0).normal(size=(120, 4)).astype(np.float32)
START = {"w": jnp.zeros(4), "b": jnp.zeros(())}
BASE: dict[str, Any] = {"max_records": 120, "noise_multiplier": 1.0, "steps": 12}
CYCLIC: dict[str, Any] = {**BASE, "sampling": "cyclic", "bins": 4, "clip_norm": 1.0}
POISSON: dict[str, Any] = {**BASE, "expected_batch_size": 30}
PLANS: dict[str, dict[str, Any]] = {
    "balls_in_bins": {**CYCLIC, "sampling": "balls_in_bins"},
    "cyclic": CYCLIC,
    "full_batch": {**BASE, "sampling": "full_batch", "clip_norm": 1.0},
    "auto_s": {**POISSON, "clip": AutoS(1.0)},
    "per_group": {**POISSON, "clip": PerGroup((0.6, 0.8), (("w",), ("b",)))},
    "quantile": {**POISSON, "clip_norm": 0.1, "quantile": 0.5},
    "banded": {**CYCLIC, "noise": "banded", "bands": 3},
    "banded_bins": {**CYCLIC, "sampling": "balls_in_bins", "noise": "banded"},
    "square_root": {**CYCLIC, "noise": "square_root", "steps": 4},
    "buffered": {**CYCLIC, "noise": "buffered"},
    "schedule": {
        **BASE,
        "clip_norm": ((6, 1.0), (6, 0.5)),
        "expected_batch_size": ((4, 20), (8, 40)),
        "noise_multiplier": ((10, 2.0), (2, 1.0)),
    },
}
# One of each kind of memory; the others are slow tests.
QUICK = ()
EVERY = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name in PLANS
]
pytestmark = pytest.mark.usefixtures("quick_compilation")


def loss(params, x, key):
    return (jnp.vdot(params["w"], x) + params["b"] - x.sum()) ** 2


def new_ledger(path=None, epsilon=100.0):
    return Ledger.open(
        path,
        budget=Budget(epsilon, 1e-5),
        relation="add_remove",
        unit="example",
        dataset="toy 1",
    )


def train(plan, ledger, **options):
    way = {"microbatch_size": 64, "devices": 1}
    if "generator" in options:
        way["generator"] = options.pop("generator")
    settings: dict[str, Any] = {
        "execution": Execution(**way),
        "insecure_seed": 1,
        **options,
    }
    return fit(
        loss,
        START,
        RECORDS,
        plan=plan,
        ledger=ledger,
        optimizer=optax.sgd(0.1),
        allow_insecure_ledger=True,
        **settings,
    )


@pytest.mark.parametrize("name", EVERY)
def test_a_run_costs_what_its_plan_says_and_resumes_to_the_bit(tmp_path, name):
    plan = DPSGDPlan.create(**PLANS[name])
    assert DPSGDPlan.from_json(plan.to_json()) == plan
    whole = train(plan, new_ledger())
    want = plan.epsilon(1e-5, relation="add_remove").upper
    assert want is not None
    assert whole.bound.upper == pytest.approx(want, rel=1e-9)

    class Stopped(Exception):
        pass

    def stop(progress):
        if progress.step == 7 % plan.steps:
            raise Stopped

    folder = RunFolder(tmp_path / "run")
    folder.prepare()
    ledger = new_ledger(tmp_path / "ledger.db")
    with pytest.raises(Stopped):
        train(plan, ledger, folder=folder, on_progress=stop)
    seen = []
    again = train(plan, ledger, folder=folder, on_progress=seen.append)
    assert len(seen) < plan.steps
    assert again.params_sha256 == whole.params_sha256
    assert again.bound.upper == pytest.approx(want, rel=1e-9)
    # Its ledger counts by the filter that others' charges would share: no less.
    spent = ledger.spent().upper
    assert spent is not None
    assert spent >= want * (1 - 1e-9)
    epsilons = [p.epsilon for p in seen]
    assert epsilons == sorted(epsilons)
    assert epsilons[-1] == pytest.approx(want, rel=1e-9)
    shutil.rmtree(tmp_path)


@pytest.mark.slow
def test_the_clip_norm_follows_the_quantile():
    plan = DPSGDPlan.create(
        max_records=120,
        expected_batch_size=60,
        clip_norm=0.01,
        noise_multiplier=0.5,
        quantile=0.5,
        steps=60,
    )
    params, step = START, jnp.zeros((), jnp.int32)
    memory = release_state(plan, params)
    norms = jnp.abs(jnp.asarray(np.random.default_rng(1).lognormal(size=60)))
    key = jax.random.key(3)
    total = jax.tree.map(jnp.zeros_like, params)

    @jax.jit
    def one(step, memory):
        batch = clipped(plan, total, norms, memory)
        return released_mean(plan, key, step, batch, params, memory)

    for _ in range(60):
        _, memory = one(step, memory)
        step = step + 1
    # The noise of the count, 3 of 60, moves it by 1 % a step: 5 of its deviations.
    assert float(memory) == pytest.approx(float(jnp.median(norms)), rel=0.4)


@pytest.mark.slow
def test_correlated_noise_cancels_over_steps():
    make = {**CYCLIC, "bins": 60, "steps": 60, "noise_multiplier": 1.0}
    total = {"w": jnp.zeros(500)}
    spread = {}
    for noise in ("independent", "banded"):
        numbers: dict[str, Any] = {**make, "noise": noise}
        plan = DPSGDPlan.create(**numbers)
        tx = as_optax(plan, jax.random.key(1))
        state = tx.init(total)
        update = jax.jit(tx.update)
        walk = jnp.zeros(500)
        for _ in range(plan.steps):
            noisy, state = update(clipped(plan, total), state)
            walk = walk + noisy["w"]
        spread[noise] = float(jnp.std(walk))
    assert spread["banded"] < 0.6 * spread["independent"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"noise": "banded"}, "use sampling='cyclic'"),
        ({"noise": "pink"}, "noise='pink'"),
        ({"bands": 3}, "bands=3 means nothing"),
        ({"quantile": 1.0}, "quantile=1.0"),
        ({"quantile": 0.5, "noise": "banded"}, "quantile=0.5"),
    ],
)
def test_words_that_do_not_go_together_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        made: dict[str, Any] = {**POISSON, "clip_norm": 1.0, **changes}
        DPSGDPlan.create(**made)


def test_nothing_may_change_during_correlated_noise():
    changing: dict[str, Any] = {
        "noise_multiplier": ((4, 1.0), (8, 2.0)),
        "noise": "banded",
    }
    with pytest.raises(ValueError, match="give numbers instead of schedules"):
        made: dict[str, Any] = {**CYCLIC, **changing}
        DPSGDPlan.create(**made)


@pytest.mark.slow
@pytest.mark.guard
def test_a_budget_is_met_whatever_the_noise():
    for name in ("quantile", "banded", "schedule"):
        numbers = dict(PLANS[name])
        if name != "schedule":
            del numbers["noise_multiplier"]
        plan = DPSGDPlan.for_budget(
            epsilon=3.0, delta=1e-5, relation="add_remove", **numbers
        )
        upper = plan.epsilon(1e-5, relation="add_remove").upper
        assert upper is not None
        assert 2.99 < upper <= 3.0


@pytest.mark.slow
def test_per_group_sums_keep_each_group_within_its_norm():
    clip = PerGroup((0.6, 0.8), (("w",), ("b",)))
    for mode in ("auto", "vmap", "two_pass"):
        f = clipped_grad(loss, clip=clip, mode=mode)
        total, _ = jax.jit(f)(START, 100 * RECORDS[:1])
        assert float(jnp.linalg.norm(total["w"])) == pytest.approx(0.6, rel=1e-5)
        assert abs(float(total["b"])) == pytest.approx(0.8, rel=1e-5)
        assert f.sensitivity("replace_one") == pytest.approx(2.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["auto_s", "banded"])
def test_a_cipher_can_make_the_noise(name):
    plan = DPSGDPlan.create(**PLANS[name])
    first, again, other = (
        train(plan, new_ledger(), generator=generator).params_sha256
        for generator in ("chacha20", "chacha20", "threefry")
    )
    assert first == again != other


def test_adaptive_clipping_has_no_cipher():
    with pytest.raises(ValueError, match="generator='chacha20' is not there"):
        plan = DPSGDPlan.create(**PLANS["quantile"])
        train(plan, new_ledger(), generator="chacha20")


@pytest.mark.parametrize(
    "changes",
    [
        {"sampler": CyclicSampler(1, 120)},
        {"sampler": CyclicSampler(3, 120)},
        {"steps": 8},
    ],
)
def test_correlated_noise_is_for_one_kind_of_batches(changes):
    """Another participation would cost more than the event says."""
    plan = DPSGDPlan.create(**CYCLIC, noise="banded", bands=3)
    # Room for any batch, so that nothing else is in the way.
    room = dataclasses.replace(plan.stream, max_summands=120)
    plan = dataclasses.replace(plan, stream=room)
    with pytest.raises(ValueError, match=r"participation|steps=8"):
        dataclasses.replace(plan, **changes)
    with pytest.raises(TypeError, match="PoissonSampler"):
        dataclasses.replace(plan, sampler=PoissonSampler(0.25, 120, 120))


def test_correlated_noise_leaves_nobody_out_of_a_bin():
    """By the words alone; an overflowing batch would break the participation."""
    plan = DPSGDPlan.create(**CYCLIC | {"sampling": "balls_in_bins", "noise": "banded"})
    assert plan.sampler.max_batch_size == plan.sampler.max_records == 120
    assert plan.stream.participation == MinSeparation(1, 3)
    assert DPSGDPlan.from_json(plan.to_json()) == plan
    for slots in (100, 0):
        with pytest.raises(ValueError, match=f"max_batch_size={slots}"):
            DPSGDPlan.create(
                **CYCLIC | {"sampling": "balls_in_bins"},
                noise="banded",
                max_batch_size=slots,
            )
