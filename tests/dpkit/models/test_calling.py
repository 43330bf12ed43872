"""Modules of all frameworks are called alike, on one example."""

import types

import equinox
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from dpkit.models import as_model

X = jax.ShapeDtypeStruct((3,), jnp.float32)
EXAMPLE = jnp.array([1.0, -2.0, 0.5])


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(2)(x)


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(3, 2, rngs=rngs)

    def __call__(self, x):
        return self.dense(x)


class Plain:
    def init(self, key, x):
        return {"kernel": jax.random.normal(key, (3, 2)), "bias": jnp.zeros(2)}

    def apply(self, params, x):
        return x @ params["kernel"] + params["bias"]


MADE = {
    "linen": lambda: Linen(),
    "nnx": lambda: Nnx(nnx.Rngs(0)),
    "equinox": lambda: equinox.nn.Linear(3, 2, key=jax.random.key(0)),
    "plain": lambda: Plain(),
}


def by_hand(params):
    """x @ kernel + bias, whatever the parameters are called."""
    leaves = jax.tree.leaves(params)
    kernel = next(leaf for leaf in leaves if leaf.ndim == 2)
    bias = next(leaf for leaf in leaves if leaf.ndim == 1)
    kernel = kernel.T if kernel.shape == (2, 3) else kernel
    return EXAMPLE @ kernel + bias


@pytest.mark.parametrize("made", MADE)
def test_one_example_through_every_framework(made):
    model = as_model(MADE[made](), X)
    params = model.init(jax.random.key(1))
    moved = jax.tree.map(lambda leaf: leaf + 0.5, params)
    for some in (params, moved):
        found = jax.jit(model.apply)(some, EXAMPLE, None)
        np.testing.assert_allclose(found, by_hand(some), rtol=1e-5)
    grads = jax.grad(lambda p: model.apply(p, EXAMPLE, None).sum())(params)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(grads))
    assert isinstance(params, dict)


def test_dropout_has_a_key_in_training_alone():
    class Dropped(linen.Module):
        @linen.compact
        def __call__(self, x):
            quiet = not self.has_rng("dropout")
            return linen.Dropout(0.5, deterministic=quiet)(linen.Dense(64)(x))

    model = as_model(Dropped(), X)
    params = model.init(jax.random.key(0))
    whole = model.apply(params, EXAMPLE, None)
    some = model.apply(params, EXAMPLE, jax.random.key(3))
    assert (whole != 0).all()
    assert 10 < (some == 0).sum() < 54


def test_dropout_of_nnx_has_a_new_mask_for_each_key():
    class Dropped(nnx.Module):
        def __init__(self, rngs):
            self.dense = nnx.Linear(3, 64, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x):
            return self.dropout(self.dense(x))

    model = as_model(Dropped(nnx.Rngs(0)), X)
    params = model.init(jax.random.key(0))
    call = jax.jit(model.apply)
    masks = [call(params, EXAMPLE, jax.random.key(n)) == 0 for n in (1, 2, 1)]
    assert (masks[0] != masks[1]).any()
    assert (masks[0] == masks[2]).all()
    assert 10 < masks[0].sum() < 54
    assert (call(params, EXAMPLE, None) != 0).all()


def test_dropout_of_equinox_has_a_key_in_training_alone():
    class Dropped(equinox.Module):
        dense: equinox.nn.Linear
        dropout: equinox.nn.Dropout

        def __call__(self, x, *, key=None):
            return self.dropout(self.dense(x), key=key)

    dense = equinox.nn.Linear(3, 64, key=jax.random.key(0))
    model = as_model(Dropped(dense, equinox.nn.Dropout(0.5)), X)
    params = model.init(jax.random.key(0))
    dropped = model.apply(params, EXAMPLE, jax.random.key(1)) == 0
    assert 10 < dropped.sum() < 54
    assert (model.apply(params, EXAMPLE, None) != 0).all()


def test_statistics_of_a_batch_are_refused():
    class Mixed(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.BatchNorm(use_running_average=True)(linen.Dense(2)(x))

    with pytest.raises(ValueError, match="batch_stats besides parameters"):
        as_model(Mixed(), X).init(jax.random.key(0))
    with pytest.raises(ValueError, match="BatchStat besides parameters"):
        as_model(nnx.BatchNorm(3, rngs=nnx.Rngs(0)), X)


def test_other_objects_are_refused():
    for other in (3, types.SimpleNamespace(init=3), lambda x: x):
        with pytest.raises(TypeError, match="must return a module"):
            as_model(other, X)
