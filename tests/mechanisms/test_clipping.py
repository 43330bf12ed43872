"""Clipping: the table of its docstring row by row, and the Gaussian sum."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, NonPrivateDpEvent

from dpkit.mechanisms.clipping import (
    GaussianSum,
    clip_factor,
    clip_record,
    global_norm,
)

# Flat clipping at C = 1 of norms 0, 0.5, 1, 2, 10: min(1, C / n) by hand.
NORMS = [(0.0, 1.0), (0.5, 1.0), (1.0, 1.0), (2.0, 0.5), (10.0, 0.1)]


@pytest.mark.parametrize(("norm", "factor"), NORMS)
def test_clip_factor_by_hand(norm, factor):
    assert float(clip_factor(jnp.float32(norm), 1.0)) == np.float32(factor)


@pytest.mark.parametrize("norm", [math.nan, math.inf])
def test_clip_factor_of_a_bad_norm_is_zero(norm):
    for clip_norm in (1.0, math.inf):
        assert float(clip_factor(jnp.float32(norm), clip_norm)) == 0.0


def test_clip_factor_keeps_every_norm_within_the_clip_norm():
    norms = np.logspace(-37, 38, 2001).astype(np.float32)
    for clip_norm in (1e-10, 0.1, 1.0, 1e15):
        factors = np.asarray(clip_factor(jnp.asarray(norms), clip_norm), np.float64)
        assert (factors * norms <= clip_norm * (1 + 1e-6)).all()
        assert ((factors == 1) == (norms <= np.float32(clip_norm))).all()


def test_factors_for_many_norms_at_once_and_a_traced_clip_norm():
    norms = jnp.array([[0.0, 2.0], [4.0, math.nan]])
    factors = jax.jit(clip_factor)(norms, jnp.float32(1.0))
    np.testing.assert_array_equal(factors, [[1.0, 0.5], [0.25, 0.0]])


@pytest.mark.parametrize("clip_norm", [0.0, -1.0, math.nan, -math.inf])
def test_a_clip_norm_that_bounds_nothing_is_refused(clip_norm):
    for function in (clip_factor, clip_record):
        with pytest.raises(ValueError, match="clip_norm="):
            function(jnp.float32(1.0), clip_norm)


def test_numpy_numbers_are_numbers():
    assert float(clip_factor(jnp.float32(2.0), np.float64(1.0))) == 0.5


def test_norm_runs_over_all_leaves_together():
    tree = {"a": jnp.array([[1.0, 2.0], [2.0, 4.0]]), "b": [jnp.array(12.0)]}
    assert float(global_norm(tree)) == 13.0
    assert float(global_norm({})) == 0.0
    assert float(global_norm(jnp.zeros((0, 3)))) == 0.0


# Rows of 256 and up to 17 halvings: so much may be lost, and is added beforehand.
ROUNDED_UP = (256 + 17 + 2) * 2.0**-24


@pytest.mark.slow
def test_norm_of_many_small_entries_does_not_stall():
    # In bfloat16, 65,536 squares of 1/256 add up to 0.0625; the true norm is 1.
    entries = jnp.full(65_536, 1 / 256, jnp.bfloat16)
    assert 1 <= float(global_norm(entries)) <= 1 + ROUNDED_UP
    # 2^25 equal squares: a running float32 sum would stop at 2^24 of them.
    many = jnp.ones(2**25, jnp.float32)
    assert 2**12.5 <= float(global_norm(many)) <= 2**12.5 * (1 + ROUNDED_UP)


@pytest.mark.parametrize(
    "record", [{"a": jnp.zeros(3), "b": jnp.zeros(())}, {}, jnp.zeros((0, 2))]
)
def test_zeros_and_empty_records_stay(record):
    out = clip_record(record, 1.0)
    assert jax.tree.structure(out) == jax.tree.structure(record)
    for leaf in jax.tree.leaves(out):
        assert not np.asarray(leaf).any()


def test_records_within_the_norm_pass_bit_for_bit():
    record = jnp.asarray(np.random.default_rng(0).normal(size=50), jnp.float32)
    for clip_norm in (float(global_norm(record)), 1e15, math.inf):
        np.testing.assert_array_equal(clip_record(record, clip_norm), record)


def test_larger_records_keep_their_direction():
    record = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([[4.0]])}
    out = clip_record(record, 2.0)
    np.testing.assert_allclose(out["a"], [1.2, 0.0], rtol=1e-6)
    np.testing.assert_allclose(out["b"], [[1.6]], rtol=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e20])
def test_a_bad_entry_zeroes_every_leaf(bad):
    # 1e20 squared overflows float32.
    record = {"a": jnp.array([1.0, bad]), "b": jnp.array([2.0])}
    for clip_norm in (1.0, 1e15, math.inf):
        out = clip_record(record, clip_norm)
        np.testing.assert_array_equal(out["a"], [0.0, 0.0])
        np.testing.assert_array_equal(out["b"], [0.0])


def test_entries_too_small_to_square_are_kept_and_do_no_harm():
    # 1e-20 squared is below float32; a million of them have norm 1e-17.
    record = np.full(1_000_000, 1e-20, np.float32)
    clipped = jax.jit(clip_record, static_argnums=1)(record, 1e-10)
    np.testing.assert_array_equal(clipped, record)


@pytest.mark.parametrize(
    ("dtype", "entry"), [(jnp.float16, 65504.0), (jnp.bfloat16, 1e10)]
)
def test_narrow_records_are_widened_before_squaring(dtype, entry):
    out = clip_record(jnp.full(4, entry, dtype), 1.0)
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, np.full(4, 0.5), rtol=1e-6)


@pytest.mark.slow
def test_float64_leaves_stay_float64_beside_float32_ones():
    with jax.enable_x64(True):
        record = {"wide": jnp.full(1, 1e30, jnp.float64), "usual": jnp.ones(1, "f4")}
        assert global_norm(record).dtype == jnp.float64
        out = clip_record(record, 1.0)
        assert (out["wide"].dtype, out["usual"].dtype) == (jnp.float64, jnp.float32)
        np.testing.assert_allclose(out["wide"], [1.0])


@pytest.mark.parametrize("leaf", [jnp.ones(2, int), jnp.ones(2, jnp.complex64), 1.0])
def test_leaves_that_are_not_floating_are_refused(leaf):
    with pytest.raises(TypeError, match=r"\['a'\].*floating"):
        clip_record({"a": leaf}, 1.0)


def test_sum_of_a_small_batch_by_hand():
    # Clipped at 1: (3,4) -> (.6,.8), (0,0), (.3,.4) whole, (NaN,1) -> 0: (.9, 1.2).
    records = jnp.array([[3.0, 4.0], [0.0, 0.0], [0.3, 0.4], [math.nan, 1.0]])
    total = jax.jit(GaussianSum(1.0, 0.0).__call__)(jax.random.key(0), records)
    np.testing.assert_allclose(total, [0.9, 1.2], rtol=1e-6)


@pytest.mark.parametrize("relation", ["add_remove", "zero_out", "replace_one"])
def test_event_is_the_multiplier_under_every_relation(relation):
    assert GaussianSum(3.0, 2.0).event(relation) == GaussianDpEvent(2.0)
    assert GaussianSum(3.0, 0.0).event(relation) == NonPrivateDpEvent()


@pytest.mark.slow
def test_noise_scales_with_the_clip_norm():
    # stddev = sigma C (1 + n 2^-18), the last factor for float32 rounding, n = 4
    assert GaussianSum(3.0, 2.0).stddev == 6.0 * (1 + 2.0**-16)
    assert GaussianSum(3.0, 0.0).stddev == 0.0
    small, large = (
        GaussianSum(clip, 1.0)(jax.random.key(0), jnp.zeros((0, 5)))
        for clip in (1.0, 4.0)
    )
    np.testing.assert_allclose(large, 4 * small, rtol=1e-6)


@pytest.mark.slow
def test_no_clipping_only_without_noise():
    mechanism = GaussianSum(math.inf, 0.0)
    assert mechanism.stddev == 0.0
    records = jnp.array([[1e10], [1.0]])
    np.testing.assert_allclose(mechanism(jax.random.key(0), records), [1e10])
    with pytest.raises(ValueError, match="clip_norm"):
        GaussianSum(math.inf, 1.0)


def test_numbers_that_float32_cannot_carry_are_refused():
    for clip_norm in (1e-11, 1e16):
        with pytest.raises(ValueError, match="clip_norm="):
            GaussianSum(clip_norm, 1.0)
    for noise_multiplier in (1e-30, 1e31):
        with pytest.raises(ValueError, match="noise_multiplier="):
            GaussianSum(1.0 if noise_multiplier > 1 else 1e-5, noise_multiplier)


def test_fields_become_plain_floats_and_static():
    numbers: list[Any] = [np.float32(2.0), np.int64(1)]
    mechanism = GaussianSum(*numbers)
    assert mechanism == GaussianSum(2.0, 1.0)
    assert type(mechanism.clip_norm) is type(mechanism.noise_multiplier) is float
    assert jax.tree.leaves(mechanism) == []
    with pytest.raises(TypeError, match="noise_multiplier"):
        jax.jit(lambda sigma: GaussianSum(1.0, sigma).stddev)(1.0)


def test_narrow_totals_are_published_in_float32():
    total = GaussianSum(1.0, 1.0).privatize(jax.random.key(0), jnp.zeros(2, "bfloat16"))
    assert total.dtype == jnp.float32
