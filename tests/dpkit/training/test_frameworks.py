"""One loss of (params, example, key), whatever wrote the model."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from dpkit import Budget, DPSGDPlan, Ledger, fit
from dpkit.training import Execution
from tests.bare import clipped_grad

WIDTH = 3


def plain():
    params = {"w": jnp.full((4, WIDTH), 0.1), "b": jnp.zeros(WIDTH)}
    return params, lambda p, x: jnp.tanh(x @ p["w"] + p["b"])


def flax_linen():
    module = linen.Dense(WIDTH)
    params = jax.jit(module.init)(jax.random.key(0), jnp.zeros(4))
    return params, lambda p, x: jnp.tanh(jnp.asarray(module.apply(p, x)))


def flax_nnx():
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.dense = nnx.Linear(4, WIDTH, rngs=rngs)

        def __call__(self, x):
            return jnp.tanh(self.dense(x))

    graph, params = nnx.split(Model(nnx.Rngs(0)), nnx.Param)
    return params, lambda p, x: nnx.merge(graph, p)(x)


def equinox():
    model = eqx.filter_jit(eqx.nn.MLP)(4, WIDTH, 8, 1, key=jax.random.key(0))
    params, static = eqx.partition(model, eqx.is_inexact_array)
    return params, lambda p, x: eqx.combine(p, static)(x)


MODELS = [plain, flax_linen, flax_nnx, equinox]


# Importing a framework takes its seconds.
OFTEN = [pytest.mark.slow, pytest.mark.guard]


@pytest.mark.parametrize(
    "make", [plain, *(pytest.param(make, marks=OFTEN) for make in MODELS[1:])]
)
def test_clipped_sums_equal_a_loop_over_jax_grad(make):
    params, apply = make()

    def loss(p, example, key):
        return jnp.sum((apply(p, example) - 1.0) ** 2)

    batch = jnp.asarray(np.random.default_rng(0).normal(size=(5, 4)), jnp.float32)
    total, _ = jax.jit(clipped_grad(loss, clip_norm=0.7))(params, batch)
    gradient = jax.jit(jax.grad(loss), static_argnums=2)
    want = [np.zeros(leaf.shape) for leaf in jax.tree.leaves(params)]
    for row in batch:
        grad = [np.asarray(g) for g in jax.tree.leaves(gradient(params, row, None))]
        norm = np.sqrt(sum((g**2).sum() for g in grad))
        want = [w + g * min(1.0, 0.7 / norm) for w, g in zip(want, grad, strict=True)]
    assert jax.tree.structure(total) == jax.tree.structure(params)
    for got, expected in zip(jax.tree.leaves(total), want, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("make", MODELS)
def test_the_trainer_takes_the_model_unchanged(make):
    params, apply = make()

    def loss(p, example, key):
        return jnp.sum((apply(p, example) - 1.0) ** 2)

    data = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    plan = DPSGDPlan.create(
        max_records=200,
        expected_batch_size=50,
        steps=3,
        clip_norm=1.0,
        noise_multiplier=1.0,
    )
    ledger = Ledger.open(
        None,
        budget=Budget(20.0, 1e-5),
        relation="add_remove",
        unit="example",
        dataset="toy 1",
    )
    done = fit(
        loss,
        params,
        data,
        plan=plan,
        optimizer=optax.adam(0.1),
        ledger=ledger,
        execution=Execution(microbatch_size=16),
    )
    assert jax.tree.structure(done.params) == jax.tree.structure(params)
    moved = [
        float(np.abs(np.asarray(a) - np.asarray(b)).max())
        for a, b in zip(
            jax.tree.leaves(done.params), jax.tree.leaves(params), strict=True
        )
    ]
    assert min(moved) > 0
