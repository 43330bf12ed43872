"""Noise as an optax transformation: right size, right divisor, within the plan."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from dpkit.training.optimizer import as_optax
from dpkit.training.plan import DPSGDPlan
from tests.bare import clipped

PLAN = DPSGDPlan.create(
    max_records=1000,
    expected_batch_size=100,
    steps=3,
    clip_norm=0.5,
    noise_multiplier=2.0,
)


def stepped(tx, total, state, params=None) -> tuple[Any, Any]:
    return tx.update(clipped(PLAN, total), state, params)


def zeros(n=50_000):
    return {"a": jnp.zeros(n), "b": jnp.zeros(n)}


def test_the_update_is_the_sum_plus_noise_over_the_expected_batch():
    tx = as_optax(PLAN, jax.random.key(0))
    state = tx.init(zeros())
    noise, _ = stepped(tx, zeros(), state)
    shifted, _ = stepped(tx, jax.tree.map(lambda x: x + 7.0, zeros()), state)
    np.testing.assert_allclose(shifted["a"] - noise["a"], 0.07, atol=1e-6)
    # Standard deviation of the mean gradient: sigma C / b = 2 * 0.5 / 100.
    for leaf in noise.values():
        z = np.asarray(leaf, np.float64) / 0.01
        # Kolmogorov-Smirnov against N(0, 1), fixed key: one draw, accepted at 1e-3.
        assert stats.kstest(z, "norm").pvalue > 1e-3


def test_leaves_and_steps_have_their_own_noise():
    tx = as_optax(PLAN, jax.random.key(0))
    first, state = stepped(tx, zeros(), tx.init(zeros()))
    second, _ = stepped(tx, zeros(), state)
    draws = [first["a"], first["b"], second["a"], second["b"]]
    for i, x in enumerate(draws):
        for y in draws[:i]:
            # 50,000 independent pairs: |correlation| < 5.5 / sqrt(n), false alarm 4e-8.
            assert abs(np.corrcoef(x, y)[0, 1]) < 5.5 / np.sqrt(50_000)


def test_nothing_is_released_beyond_the_plan():
    tx = as_optax(PLAN, jax.random.key(0))
    state = tx.init(zeros(4))
    for _ in range(3):
        update, state = jax.jit(tx.update)(clipped(PLAN, zeros(4)), state)
        assert np.isfinite(update["a"]).all()
    update, _ = jax.jit(tx.update)(clipped(PLAN, zeros(4)), state)
    assert np.isnan(update["a"]).all() and np.isnan(update["b"]).all()


def test_it_chains_with_an_optimiser_and_keeps_parameter_types():
    params = {"w": jnp.ones(3, jnp.bfloat16)}
    tx = optax.chain(as_optax(PLAN, jax.random.key(0)), optax.adam(0.1))
    update, _ = stepped(tx, {"w": jnp.ones(3)}, tx.init(params), params)
    assert update["w"].dtype == jnp.bfloat16


def test_a_sum_in_half_precision_is_refused():
    tx = as_optax(PLAN, jax.random.key(0))
    narrow = {"w": jnp.ones(3, jnp.bfloat16)}
    with pytest.raises(TypeError, match="float32"):
        stepped(tx, narrow, tx.init(narrow))


@pytest.mark.parametrize("key", [None, 0, np.zeros(2, np.uint32)])
def test_a_key_that_is_no_typed_key_is_refused(key):
    with pytest.raises(TypeError, match="key"):
        as_optax(PLAN, key)


@pytest.mark.slow
def test_one_root_gives_batches_and_noise_of_their_own():
    # The same root handed to both must not make noise and batches share bits.
    key = jax.random.key(5)
    tx = as_optax(PLAN, key)
    noise, _ = stepped(tx, {"w": jnp.zeros(1000)}, tx.init({"w": jnp.zeros(1000)}))
    z = np.asarray(noise["w"]) / 0.01
    drawn = np.zeros(1000)
    batch = PLAN.batch(key, 0, 1000)
    drawn[batch.indices[batch.mask]] = 1
    # Independent: |correlation| < 5 / sqrt(1000), false alarm 6e-7.
    assert abs(np.corrcoef(z, drawn)[0, 1]) < 5 / np.sqrt(1000)
