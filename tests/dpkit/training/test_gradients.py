"""clipped_grad against a plain loop, in every mode, on friendly and hostile batches."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpkit.mechanisms.clips import Flat
from tests.bare import clipped_grad
from tests.oracles import gradients as oracle

MODES: dict[str, dict[str, Any]] = {
    "auto": {},
    "product": {"kappa": 0.0},
    "vmap": {"mode": "vmap"},
    "two_pass": {"mode": "two_pass"},
    "constant_time": {"microbatch": 4, "constant_time": True},
    "microbatch": {"mode": "microbatch", "microbatch": 3},
    "two_pass_in_chunks": {"mode": "two_pass", "microbatch": 3},
    "single": {"mode": "vmap", "microbatch": 1},
    "wider_than_batch": {"microbatch": 64},
}


def every_mode(*quick):
    """All modes, those that are not quick marked slow."""
    return pytest.mark.parametrize(
        "mode",
        [
            pytest.param(
                options, id=name, marks=() if name in quick else pytest.mark.slow
            )
            for name, options in MODES.items()
        ],
    )


def squared_loss(w, example, key):
    x, t = example
    return 0.5 * (jnp.vdot(w, x) - t) ** 2


def linear_loss(w, x, key):
    """Its gradient is the example itself."""
    return jnp.vdot(w, x)


def random_batch(rows=10, width=5, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, width)).astype(np.float32)
    t = rng.normal(size=rows).astype(np.float32)
    w = rng.normal(size=width).astype(np.float32)
    return w, x, t


@every_mode("auto", "vmap", "two_pass", "constant_time")
def test_sum_equals_the_loop(mode):
    w, x, t = random_batch()
    gradients = oracle.squared_loss_gradients(w, x, t)

    @jax.jit
    def f(clip_norm):
        return clipped_grad(squared_loss, clip=Flat(clip_norm), **mode)(w, (x, t))

    for clip_norm in (0.01, 1.0, 1e6):
        total, aux = f(jnp.float32(clip_norm))
        want = oracle.clipped_sum(gradients, clip_norm)
        np.testing.assert_allclose(total, want, rtol=2e-5, atol=1e-6 * clip_norm)
        norms = np.linalg.norm(gradients, axis=1)
        np.testing.assert_allclose(aux.norms, norms, rtol=1e-5)
        np.testing.assert_allclose(aux.losses, 0.5 * (x @ w - t) ** 2, rtol=1e-4)


@every_mode("vmap")
def test_gradients_of_three_four_and_nan(mode):
    # (3,4), (0,0), (.3,.4), (NaN,1) at C=1 sum to (.9, 1.2): worked by hand.
    x = jnp.array([[3.0, 4.0], [0.0, 0.0], [0.3, 0.4], [jnp.nan, 1.0]])
    f = jax.jit(clipped_grad(linear_loss, clip_norm=1.0, **mode))
    total, aux = f(jnp.zeros(2), x)
    np.testing.assert_allclose(total, [0.9, 1.2], rtol=1e-6)
    np.testing.assert_allclose(aux.norms, [5.0, 0.0, 0.5, 0.0], rtol=1e-6)


HOSTILE = [1e30, -1e38, 1e-40, 0.0, np.nan, np.inf, -np.inf]


@every_mode("vmap")
def test_one_more_example_moves_the_sum_by_at_most_the_clip_norm(mode):
    _, x, _ = random_batch(rows=7)
    f = jax.jit(clipped_grad(linear_loss, clip_norm=0.5, **mode))
    without, _ = f(jnp.zeros(5), x)
    for value in HOSTILE:
        bad = np.full((1, 5), value, np.float32)
        with_it, _ = f(jnp.zeros(5), np.concatenate([x, bad]))
        moved = np.linalg.norm(np.asarray(with_it, np.float64) - without)
        assert np.isfinite(moved), value
        assert moved <= 0.5 * (1 + 1e-5), value
        if not np.isfinite(value):
            # The same sum, up to the order in which the others are added.
            np.testing.assert_allclose(with_it, without, rtol=1e-5, atol=1e-7)


@every_mode("vmap")
@pytest.mark.parametrize("size", [3, 4])
def test_gradients_that_cancel_keep_the_bound(size, mode):
    """A compiler that rounds them differently for norm and sum finds one of them 0."""

    def loss(w, row, key):
        a, b, product = row
        return jnp.sum((w + 0 * w.mean()) * (a * b - product))

    f = jax.jit(clipped_grad(loss, clip_norm=1.0, **mode))
    rng = np.random.default_rng(size)
    mask = np.arange(8) < 1
    for _ in range(5):
        a, b = (10 ** rng.uniform(3, 8, (2, 8, size))).astype(np.float32)
        total, _ = f(jnp.zeros(size), (a, b, a * b), mask)
        assert np.linalg.norm(np.asarray(total, float)) <= 1 + 2**-20


@every_mode("auto")
def test_padding_contributes_exactly_nothing_even_when_it_is_nan(mode):
    w, x, t = random_batch(rows=6)
    padded = np.concatenate([x, np.full((3, 5), np.nan, np.float32)])
    targets = np.concatenate([t, np.zeros(3, np.float32)])
    mask = np.arange(9) < 6
    f = jax.jit(clipped_grad(squared_loss, clip_norm=0.3, **mode))
    total, aux = f(w, (padded, targets), mask)
    want = oracle.clipped_sum(oracle.squared_loss_gradients(w, x, t), 0.3)
    np.testing.assert_allclose(total, want, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(aux.norms[6:], 0)


@every_mode("microbatch")
def test_masked_rows_may_stand_anywhere(mode):
    w, x, t = random_batch(rows=9)
    mask = np.array([0, 1, 0, 0, 1, 1, 0, 0, 1], bool)
    f = jax.jit(clipped_grad(squared_loss, clip_norm=0.3, **mode))
    gradients = oracle.squared_loss_gradients(w, x[mask], t[mask])
    want = oracle.clipped_sum(gradients, 0.3)
    np.testing.assert_allclose(f(w, (x, t), mask)[0], want, rtol=1e-5, atol=1e-7)


@every_mode("auto", "microbatch")
def test_an_empty_batch_sums_to_zero(mode):
    w, x, t = random_batch(rows=4)
    f = jax.jit(clipped_grad(squared_loss, clip_norm=1.0, **mode))
    np.testing.assert_array_equal(f(w, (x, t), np.zeros(4, bool))[0], 0)
    np.testing.assert_array_equal(f(w, (x[:0], t[:0]))[0], 0)


@every_mode("auto")
def test_every_example_gets_its_own_key(mode):
    def loss(w, x, key):
        return w * jax.random.normal(key)

    keys = jax.random.split(jax.random.key(0), 8)
    f = jax.jit(clipped_grad(loss, clip_norm=1e6, **mode))
    total, aux = f(jnp.float32(1.0), jnp.zeros(8), None, keys)
    each = jax.vmap(jax.random.normal)(jax.random.split(jax.random.key(0), 8))
    assert len(np.unique(np.asarray(aux.norms))) == 8
    np.testing.assert_allclose(total, each.sum(), rtol=1e-5)


@pytest.mark.slow
def test_low_precision_gradients_are_summed_in_float32():
    # Added up in bfloat16, 1024 aligned gradients of norm one stall at 256.
    w = jnp.zeros(1, jnp.bfloat16)
    x = jnp.ones((1024, 1), jnp.bfloat16)
    for name in ("auto", "vmap"):
        f = clipped_grad(linear_loss, clip_norm=1.0, **MODES[name])
        total, _ = jax.jit(f)(w, x)
        assert total.dtype == jnp.float32
        np.testing.assert_array_equal(total, [1024.0])


@pytest.mark.slow
@every_mode()
@pytest.mark.parametrize("rows", [4096])
def test_rounding_stays_within_what_the_noise_allows_for(mode, rows):
    # Aligned records of norm C are the worst case for a float32 sum. The allowance is
    # n C 2^-18, the excess of GaussianSum's noise over its formula.
    rng = np.random.default_rng(rows)
    direction = rng.normal(size=40)
    x = (direction / np.linalg.norm(direction)).astype(np.float32)[None]
    batch = np.repeat(x * 1.0001, rows + 1, axis=0)
    f = jax.jit(clipped_grad(linear_loss, clip_norm=1.0, **mode))
    with_it, _ = f(jnp.zeros(40), batch)
    without, _ = f(jnp.zeros(40), batch, np.arange(rows + 1) < rows)
    moved = np.linalg.norm(np.asarray(with_it, np.float64) - np.asarray(without))
    assert abs(moved - 1.0) <= rows * 2**-18


def test_a_plain_loop_in_float32_would_not_stay_within_it():
    # What the compensation is for: the same sum, added naively, is off by far more.
    x = np.float32(0.1)
    total = np.float32(0.0)
    for _ in range(60_000):
        total += x
    naive = abs(float(total) - 60_000 * float(x))
    f = jax.jit(
        clipped_grad(linear_loss, clip_norm=1.0, mode="microbatch", microbatch=8)
    )
    kept, _ = f(jnp.zeros(1), np.full((60_000, 1), x))
    compensated = abs(float(kept[0]) - 60_000 * float(x))
    assert compensated < naive / 20


def test_the_norm_is_over_all_leaves_together():
    def loss(params, x, key):
        return 3 * params["a"] * x + 4 * params["b"]["c"] * x

    params = {"a": jnp.float32(0), "b": {"c": jnp.float32(0)}}
    total, aux = jax.jit(clipped_grad(loss, clip_norm=1.0))(params, jnp.ones(1))
    np.testing.assert_allclose(aux.norms, [5.0], rtol=1e-6)
    np.testing.assert_allclose(total["a"], 0.6, rtol=1e-6)
    np.testing.assert_allclose(total["b"]["c"], 0.8, rtol=1e-6)


@every_mode("auto")
def test_two_devices_give_the_sum_of_one(mode):
    w, x, t = random_batch(rows=12)
    mask = np.arange(12) < 9
    keys, same_keys = (jax.random.split(jax.random.key(3), 12) for _ in range(2))
    mesh = jax.make_mesh((2,), ("data",))
    alone = jax.jit(clipped_grad(squared_loss, clip_norm=0.2, **mode))
    shared = jax.jit(clipped_grad(squared_loss, clip_norm=0.2, mesh=mesh, **mode))
    total, aux = shared(w, (x, t), mask, keys)
    want, want_aux = alone(w, (x, t), mask, same_keys)
    np.testing.assert_allclose(total, want, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(aux.norms, want_aux.norms, rtol=1e-6)


def test_sensitivity_by_relation():
    f = clipped_grad(linear_loss, clip_norm=0.5)
    assert f.sensitivity("add_remove") == f.sensitivity("zero_out") == 0.5
    assert f.sensitivity("replace_one") == 1.0


@pytest.mark.parametrize("clip_norm", [0, -1.0, float("inf"), float("nan"), True, "1"])
def test_bad_clip_norms_are_refused(clip_norm):
    with pytest.raises((ValueError, TypeError), match="clip_norm"):
        clipped_grad(linear_loss, clip_norm=clip_norm)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"mode": "ghost"}, "mode"),
        ({"mode": "microbatch", "microbatch": 0}, "microbatch"),
        ({"microbatch": True}, "microbatch"),
        ({"kappa": -1.0}, "kappa"),
        ({"kappa": float("nan")}, "kappa"),
        ({"clip": Flat(2.0)}, "exactly one"),
        ({"clip_norm": None}, "exactly one"),
        ({"mesh": "wrong axis"}, "mesh"),
    ],
)
def test_bad_options_are_refused(options: Any, name):
    chosen: Any = {"clip_norm": 1.0, **options}
    if "mesh" in options:
        chosen["mesh"] = jax.make_mesh((2,), ("model",))
    with pytest.raises((ValueError, TypeError), match=name):
        clipped_grad(linear_loss, **chosen)


@pytest.mark.parametrize(
    ("batch", "mask", "keys", "error", "name"),
    [
        ((np.zeros((3, 2)), np.zeros(4)), None, None, ValueError, "batch leaves"),
        ((), None, None, ValueError, "batch"),
        ((np.zeros((3, 2)), np.float32(1)), None, None, ValueError, "batch axis"),
        ((np.zeros((3, 2)), np.zeros(3)), np.ones(2, bool), None, ValueError, "mask"),
        ((np.zeros((3, 2)), np.zeros(3)), np.ones(3), None, ValueError, "mask"),
        ((np.zeros((3, 2)), np.zeros(3)), None, "raw", TypeError, "typed keys"),
        ((np.zeros((3, 2)), np.zeros(3)), None, "two", ValueError, "keys"),
    ],
)
def test_bad_batches_are_refused(batch, mask, keys, error, name):
    if keys == "raw":
        keys = jax.random.key_data(jax.random.split(jax.random.key(0), 3))
    elif keys == "two":
        keys = jax.random.split(jax.random.key(0), 2)
    with pytest.raises(error, match=name):
        clipped_grad(squared_loss, clip_norm=1.0)(jnp.zeros(2), batch, mask, keys)


def remat_layers():
    """A scan over layers that recompute what they need, on rows."""

    @jax.checkpoint
    def layer(x, w):
        return x + jnp.tanh(jnp.tanh(x @ w["up"]) @ w["down"]), None

    def loss(p, x, key):
        return jnp.sum(jnp.square(jax.lax.scan(layer, x, p)[0]))

    params = {"up": jnp.zeros((16, 16, 64)), "down": jnp.zeros((16, 64, 16))}
    return loss, params, jnp.zeros((32, 16, 16))


@pytest.mark.slow
def test_two_passes_keep_the_memory_of_layers_that_recompute():
    loss, params, batch = remat_layers()

    def ordinary(p, x):
        return jax.grad(lambda p: jax.vmap(loss, (None, 0, None))(p, x, None).mean())(p)

    def memory(f):
        used = jax.jit(f).lower(params, batch).compile().memory_analysis()
        assert used is not None
        return used.temp_size_in_bytes

    modes = [clipped_grad(loss, clip_norm=1.0, mode=m) for m in ("two_pass", "auto")]
    two_pass, auto = (memory(lambda p, x, f=f: f(p, x)) for f in modes)
    # Measured: 1.2 and 11 times that of ordinary gradients; layers that keep what they
    # need take 5.6 times as much.
    assert two_pass < 2 * memory(ordinary)
    assert auto > 2 * two_pass


def test_a_batch_of_one_needs_no_rewritten_loss():
    loss, params, batch = remat_layers()

    def program(rows, mode):
        f = clipped_grad(loss, clip_norm=1.0, mode=mode)
        return jax.jit(lambda p, x: f(p, x)).lower(params, batch[:rows]).as_text()

    assert program(1, "auto") == program(1, "vmap")
    assert program(2, "auto") != program(2, "vmap")
