"""Poisson batches drawn on the device are those of the host, bit for bit."""

from typing import Any

import jax
import numpy as np
import pytest

from dpkit.mechanisms import PoissonSampler, device_draw

pytestmark = pytest.mark.usefixtures("quick_compilation")


def same(host, device):
    np.testing.assert_array_equal(host.indices, np.asarray(device.indices))
    np.testing.assert_array_equal(host.mask, np.asarray(device.mask))
    assert (device.indices.dtype, device.mask.dtype) == (np.int32, bool)


@pytest.mark.slow
@pytest.mark.parametrize(
    "sampler",
    [
        PoissonSampler(0.3, max_batch_size=50, max_records=50),
        PoissonSampler(0.5, max_batch_size=26, max_records=50),  # often cut
        PoissonSampler(1.0, max_batch_size=50, max_records=50),
        PoissonSampler(1e-12, max_batch_size=1, max_records=50),
    ],
    ids=repr,
)
def test_the_device_draws_what_the_host_draws(sampler):
    draw: Any = jax.jit(lambda key, n: device_draw(sampler, key, n))
    cut = 0
    for records in (0, 33, 50):
        for key in jax.random.split(jax.random.key(records), 20):
            host = sampler.draw(jax.random.clone(key), records)
            same(host, draw(key, records))
            cut += host.mask.all()
    assert draw._cache_size() == 1  # the number of records doesn't retrace
    if sampler.max_batch_size == 26:
        assert cut > 5


@pytest.mark.slow
def test_many_at_once_and_a_fixed_number():
    sampler = PoissonSampler(0.5, max_batch_size=26, max_records=50)
    keys = jax.random.split(jax.random.key(7), 30)
    device = jax.vmap(lambda key: device_draw(sampler, key, 50))(jax.random.clone(keys))
    same(sampler.draw(keys, 50), device)


@pytest.mark.slow
def test_the_batch_of_a_step_needs_the_key_folded_with_it():
    sampler, key = PoissonSampler(0.3, 20, 20), jax.random.key(5)
    device = jax.jit(lambda s: device_draw(sampler, jax.random.fold_in(key, s), 20))
    for step in (0, 3):
        same(sampler.batch(key, step, 20), device(step))


def test_bad_arguments_are_refused():
    sampler = PoissonSampler(0.5, 10, 10)
    for number in (11, -1):
        with pytest.raises(ValueError, match=f"num_records={number}"):
            device_draw(sampler, jax.random.key(0), number)
    legacy: Any = jax.random.PRNGKey(0)
    with pytest.raises(TypeError, match="key="):
        device_draw(sampler, legacy, 5)
    with pytest.raises(TypeError, match="one key"):
        device_draw(sampler, jax.random.split(jax.random.key(0), 2), 5)


@pytest.mark.slow
def test_a_second_use_of_a_key_is_found():
    key = jax.random.key(0)
    device_draw(PoissonSampler(0.5, 8, 8), key, 8)
    with pytest.raises(jax.errors.KeyReuseError):
        device_draw(PoissonSampler(0.5, 8, 8), key, 8)
