"""Convolutions and pooling by slices against Flax's own."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from dpkit.models.patches import PatchConv, max_pool

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize(
    ("shape", "size", "stride", "padding"),
    [
        pytest.param((28, 29, 1), 8, 2, "SAME", marks=pytest.mark.slow),
        pytest.param((13, 13, 4), 4, 2, "VALID", marks=pytest.mark.slow),
        pytest.param((9, 14, 2), 3, 1, "SAME", marks=pytest.mark.slow),
        pytest.param((10, 11, 2), 3, 3, "SAME", marks=pytest.mark.slow),
        pytest.param((10, 11, 2), 6, 3, "VALID", marks=pytest.mark.slow),
        pytest.param(
            (5, 5, 2), 2, 2, "SAME", marks=[pytest.mark.slow, pytest.mark.guard]
        ),
    ],
)
def test_values_and_gradients_are_those_of_a_convolution(shape, size, stride, padding):
    ours = PatchConv(5, size=size, stride=stride, padding=padding)
    theirs = nn.Conv(5, (size, size), strides=stride, padding=padding)
    image = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    params = theirs.init(jax.random.key(1), image)
    same = ours.init(jax.random.key(1), image)
    jax.tree.map(np.testing.assert_array_equal, params, same)
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)

    def loss(module, params, image):
        return jnp.sin(3 * module.apply(params, image)).sum()

    made, wanted = (np.asarray(m.apply(params, image)) for m in (ours, theirs))
    np.testing.assert_allclose(made, wanted, atol=1e-4)
    found = jax.grad(loss, argnums=(1, 2))(ours, params, image)
    expected = jax.grad(loss, argnums=(1, 2))(theirs, params, image)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3, rtol=1e-3),
        found,
        expected,
    )


def test_pooling_takes_the_largest_of_four():
    image = jnp.asarray(np.random.default_rng(0).normal(size=(6, 7, 3)), jnp.float32)
    np.testing.assert_array_equal(
        max_pool(image), nn.max_pool(image, (2, 2), strides=(1, 1))
    )


@pytest.mark.parametrize(
    "wrong",
    [{"size": 3, "stride": 2}, {"padding": "CIRCULAR"}],
)
def test_what_it_does_not_compute_is_refused(wrong):
    settings: Any = {"size": 2, "stride": 2, "padding": "SAME", **wrong}
    module = PatchConv(1, **settings)
    with pytest.raises(ValueError, match="needed a size that is a multiple"):
        module.init(jax.random.key(0), jnp.zeros((8, 8, 1)))
