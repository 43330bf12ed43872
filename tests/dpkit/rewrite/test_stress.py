"""Hostile examples, low precision and rounding: one example never moves more than C.

Every mode and form is held to the same claims on a small loss that has each kind of
site: a dense layer on several rows, a table, a kernel, an offset, a scale.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpkit.mechanisms.clips import (
    PSAC,
    AutoS,
    Custom,
    Flat,
    HardDrop,
    PerGroup,
    Unit,
)
from dpkit.rewrite import clipping, products
from dpkit.rewrite.products import Rows
from tests.bare import clipped_grad

WAYS: dict[str, dict[str, Any]] = {
    "product": {"kappa": 0.0},
    "whole": {"kappa": 1e9},
    "two_pass": {"mode": "two_pass", "kappa": 0.0},
    "two_pass_whole": {"mode": "two_pass", "kappa": 1e9},
    "chunks": {"kappa": 0.0, "microbatch": 3},
    "vmap": {"mode": "vmap"},
}
CLIPS = {
    "flat": Flat(0.5),
    "unit": Unit(0.5),
    "auto_s": AutoS(0.5),
    "psac": PSAC(0.5),
    "hard_drop": HardDrop(2.0),
    "per_group": PerGroup((0.3, 0.4), (("w", "e"), ("k", "b", "g"))),
    "custom": Custom(lambda n: 0.5 / (1.0 + n), radius=0.5),
}
ROUNDING = 1e-5


def slow_unless(quick):
    """All ways, those that are not quick marked slow."""
    return [
        pytest.param(way, marks=() if way in quick else pytest.mark.slow)
        for way in WAYS
    ]


def loss_fn(p, example, key):
    """Each kind of site; what an example holds reaches its cotangents, too."""
    x, ids, strength = example
    h = jnp.tanh(x @ p["w"]) + p["e"][ids] + p["b"][None]
    numbers = ("NWC", "WIO", "NWC")
    c = jax.lax.conv_general_dilated(
        h[None], p["k"], (1,), "SAME", dimension_numbers=numbers
    )
    return strength * jnp.sum(jnp.sin(c[0]) * p["g"][None])


def parameters():
    """Of the loss, all different."""
    rng = np.random.default_rng(0)
    shapes = {"w": (5, 4), "e": (6, 4), "b": (4,), "k": (2, 4, 3), "g": (3,)}
    return {k: jnp.asarray(rng.normal(size=s), jnp.float32) for k, s in shapes.items()}


def examples(rows, seed=1):
    """A batch of ordinary rows."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 3, 5)).astype(np.float32)
    ids = rng.integers(0, 6, (rows, 3)).astype(np.int32)
    return x, ids, rng.normal(size=rows).astype(np.float32)


@functools.cache
def compiled(way, clip="flat"):
    """The sum in one mode, once for all tests."""
    return jax.jit(clipped_grad(loss_fn, clip=CLIPS[clip], **WAYS[way]))


def flat(tree):
    """All entries in float64."""
    return np.concatenate(
        [np.ravel(np.asarray(x, float)) for x in jax.tree.leaves(tree)]
    )


# What an example may hold: overflow on the way forward, on the way back, in squares;
# underflow in squares; nothing at all.
HOSTILE = [
    (np.nan, 1.0),
    (np.inf, 1.0),
    (-np.inf, 0.0),
    (1e30, 1.0),
    (1e30, 1e30),
    (1.0, 1e30),
    (1.0, 1e19),
    (1.0, 1e38),
    (1.0, np.nan),
    (1.0, np.inf),
    (0.0, np.inf),
    (1e-19, 1e19),
    (1e-30, 1e18),
    (1e-40, 1.0),
    (0.0, 0.0),
    (0.0, 1.0),
]
CLIP_WAYS = [
    pytest.param(way, clip, marks=() if quick else pytest.mark.slow)
    for way in WAYS
    for clip in CLIPS
    for quick in [(way, clip) in {("product", "flat")}]
]


@pytest.mark.parametrize(("way", "clip"), CLIP_WAYS)
def test_one_more_example_moves_the_sum_by_at_most_the_radius(way, clip):
    x, ids, strength = examples(7)
    f, params = compiled(way, clip), parameters()
    present = np.arange(7) < 6
    everyone = np.ones(7, bool)
    without, _ = f(params, (x, ids, strength), present)
    radius = CLIPS[clip].radius
    for value, factor in HOSTILE:
        x[6], strength[6] = value, factor
        total, aux = f(params, (x, ids, strength), everyone)
        moved = np.linalg.norm(flat(total) - flat(without))
        assert moved <= radius * (1 + ROUNDING) + 6 * radius * 2**-22, (value, factor)
        if not np.isfinite(value * factor):
            # Nothing at all: what the others add is the same, to the bit; but for a
            # further chunk, after which one more rounding is made up for.
            allowed = radius * 2**-22 if way == "chunks" else 0.0
            assert moved <= allowed, (value, factor)
            assert aux.norms[6] == 0.0
        again, _ = f(params, (x, ids, strength), present)
        np.testing.assert_array_equal(flat(again), flat(without))


@pytest.mark.parametrize("way", slow_unless(("product",)))
def test_order_and_padding_do_not_matter(way):
    f, params = compiled(way), parameters()
    rows, everyone = examples(7), np.ones(7, bool)
    total, aux = f(params, rows, everyone)
    order = np.random.default_rng(0).permutation(7)
    turned, turned_aux = f(params, jax.tree.map(lambda x: x[order], rows), everyone)
    np.testing.assert_allclose(flat(turned), flat(total), atol=1e-6)
    np.testing.assert_allclose(turned_aux.norms, aux.norms[order], rtol=1e-6)
    mask = np.arange(7) < 4
    masked, masked_aux = f(params, rows, mask)
    for x in rows:
        if x.dtype == np.float32:
            x[4:] = np.nan
    padded, padded_aux = f(params, rows, mask)
    np.testing.assert_array_equal(flat(padded), flat(masked))
    np.testing.assert_array_equal(padded_aux.norms, masked_aux.norms)
    np.testing.assert_array_equal(padded_aux.norms[4:], 0)
    for x in rows:
        x[4:] = 0
    np.testing.assert_allclose(flat(f(params, rows, mask)[0]), flat(padded), atol=1e-6)


def test_a_batch_without_a_usable_row_sums_to_zero():
    x, ids, strength = examples(7)
    everyone = np.ones(7, bool)
    rows = x * np.nan, ids, strength
    total, aux = compiled("product")(parameters(), rows, everyone)
    assert not flat(total).any()
    assert not np.asarray(aux.norms).any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "widths"),
    [("auto", range(1, 7)), ("two_pass", (1, 2)), ("vmap", (2, 4))],
)
def test_any_number_of_rows_at_a_time_gives_the_same(mode, widths):
    params, rows = parameters(), examples(5)
    wanted, trusted = compiled("vmap")(params, rows)
    for width in widths:
        f = clipped_grad(loss_fn, clip=CLIPS["flat"], mode=mode, microbatch=width)
        total, aux = jax.jit(f)(params, rows)
        np.testing.assert_allclose(flat(total), flat(wanted), atol=3e-6)
        np.testing.assert_allclose(aux.norms, trusted.norms, rtol=1e-5)


@pytest.mark.parametrize("way", slow_unless(("product",)))
def test_squares_that_are_too_small_on_one_side_are_not_forgotten(way):
    # 1e-19 squared is no float32; times 1e18, a gradient of norm 7 is left over.
    def loss(w, example, key):
        x, t = example
        return t * jnp.sum(x @ w)

    f = jax.jit(clipped_grad(loss, clip_norm=1.0, **WAYS[way]))
    for first, second in ((1e-19, 1e18), (3e-23, 1e18), (1e18, 1e-19)):
        x = np.full((1, 2, 100), first, np.float32)
        total, aux = f(jnp.zeros((100, 50)), (x, np.array([second], np.float32)))
        true = 2 * np.sqrt(100 * 50) * first * second
        assert aux.norms[0] >= true * (1 - 1e-6)
        assert np.linalg.norm(flat(total)) <= 1 + ROUNDING


def cancelling(rng, *shape):
    """Factors up to 1e8 and their rounded product."""
    a, b = (10 ** rng.uniform(3, 8, (2, *shape))).astype(np.float32)
    return a, b, a * b


def dense_rows(p, x, residue):
    """A dense layer on rows, the cotangents of which are the residues."""
    return jnp.sum((x @ p) * residue)


def looked_up_rows(p, x, residue):
    """A table, all rows of which are looked up twice."""
    ids = jnp.arange(x.shape[0]) // 2
    return jnp.sum(p[ids] * residue)


def convolved_rows(p, x, residue):
    """A kernel."""
    kernel = p[None]
    out = jax.lax.conv_general_dilated(
        x[None], kernel, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
    )
    return jnp.sum(out[0] * residue)


def offset_rows(p, x, residue):
    """An offset and a scale."""
    return jnp.sum((x[:, :1] * p[:1] + p[1:2]) * residue)


def linear(p, x, residue):
    """The loss of tests/mechanisms/test_pinning.py."""
    return jnp.sum((p + 0 * p.mean()) * residue[:3])


def recurrent_rows(p, x, residue):
    """One weight at every step of a loop."""

    def one(h, row):
        h = h * 0.5 + row @ p
        return h, h

    return jnp.sum(jax.lax.scan(one, jnp.zeros(p.shape[1]), x)[1] * residue)


LOSSES = [linear, dense_rows, looked_up_rows, convolved_rows, offset_rows]
LOSSES += [recurrent_rows]
LOSS_WAYS = [
    pytest.param(loss, way, marks=() if quick else pytest.mark.slow)
    for loss in LOSSES
    for way in WAYS
    for quick in [
        (loss.__name__, way)
        in {
            ("dense_rows", "product"),
            ("linear", "whole"),
            ("dense_rows", "two_pass_whole"),
        }
    ]
]


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "way"), LOSS_WAYS)
def test_residues_of_rounding_do_not_pass_unclipped(loss, way):
    """a * b - c, c the rounded product: 0 or up to 1e8, as the compiler rounds it.

    Were it computed once for the norm and once more for the sum, a row of norm 0 could
    be of any size in the sum. Rows of one example may also cancel among themselves,
    which leaves a residue that depends on the order of addition.
    """
    size, tokens, width = 6, 4, 4

    def whole(p, example, key):
        x, a, b, c = example
        return loss(p, x, a * b - c)

    f = jax.jit(clipped_grad(whole, clip_norm=1.0, **WAYS[way]))
    rng = np.random.default_rng(1)
    largest = 0.0
    for same in (False, True):
        a, b, c = cancelling(rng, size, tokens, width)
        x = rng.normal(size=(size, tokens, 3)).astype(np.float32)
        if same:  # rows that cancel: what flows back adds up to nothing but rounding
            x[:] = x[:, :1]
            a, b, c = a * 0, b * 0, c
            c[:, -1] = -c[:, :-1].sum(1)
        for row in range(size):
            total, aux = f(jnp.zeros((3, width)), (x, a, b, c), np.arange(size) == row)
            largest = max(largest, float(aux.norms[row]))
            assert np.linalg.norm(flat(total)) <= 1 + ROUNDING
    assert largest > 1.0  # else nothing was clipped, and nothing tested


@pytest.mark.parametrize("swapped", [False, True])
def test_cancellation_never_makes_a_norm_smaller(swapped):
    """Rows that nearly cancel: never below the norm in float64, nor far above it."""
    rng = np.random.default_rng(3)
    left = rng.normal(size=(200, 1, 8, 6)).astype(np.float32)
    right = rng.normal(size=(200, 1, 8, 5)).astype(np.float32)
    # The last row takes back the sum of the others, up to a share 10^-k of it.
    share = 10.0 ** -rng.uniform(0, 8, (200, 1, 1))
    left[:] = left[:, :, :1] * (1 + share[..., None] * rng.normal(size=left.shape))
    right[:, :, -1] = -right[:, :, :-1].sum(2)
    if swapped:
        left, right = right, left
    exact = np.einsum("bhtd,bhtp->bhdp", left.astype(float), right.astype(float))
    true = np.sqrt((exact**2).sum((1, 2, 3)))
    rows = Rows(jnp.asarray(left), jnp.asarray(right))
    found = np.sqrt(np.asarray(jax.jit(products.squared_norm)([rows]), float))
    lengths = [np.linalg.norm(x.astype(float), axis=-1) for x in (left, right)]
    spread = (lengths[0] * lengths[1]).sum((1, 2))
    assert (true / spread).min() < 1e-7  # far below what float32 resolves
    assert (found >= true * (1 - 1e-6)).all()
    trusted = np.maximum(np.sqrt(true**2 + 2**-23 * spread**2), 2**-9 * spread)
    assert (found <= trusted * (1 + 1e-5)).all()


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_models_in_low_precision(dtype, way):
    def loss(p, x, key):
        return jnp.sum(jnp.tanh(x @ p["w"]) @ p["v"]).astype(jnp.float32)

    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=(5, 4)), "v": rng.normal(size=(4, 3))}
    x = rng.normal(size=(6, 2, 5))
    params, x = jax.tree.map(lambda a: jnp.asarray(a, dtype), (params, x))
    total, aux = jax.jit(clipped_grad(loss, clip_norm=0.7, **WAYS[way]))(params, x)
    exact = jax.tree.map(lambda a: a.astype(jnp.float32), (params, x))
    trusted, trusted_aux = jax.jit(clipped_grad(loss, clip_norm=0.7))(*exact)
    accuracy = 8 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(aux.norms, trusted_aux.norms, rtol=accuracy)
    np.testing.assert_allclose(flat(total), flat(trusted), atol=6 * 0.7 * accuracy)
    assert all(leaf.dtype == jnp.float32 for leaf in total.values())
    assert aux.norms.dtype == jnp.float32


@pytest.mark.parametrize("way", slow_unless(("whole",)))
def test_the_sum_of_a_bfloat16_model_is_not_rounded(way):
    # 700 aligned gradients of norm 1: bfloat16 has no number between 696 and 700, and
    # stalls at 256 when it adds one by one.
    x = np.ones((699, 1), np.float32)
    x[-1] = 0.37
    f = clipped_grad(lambda w, x, key: jnp.vdot(w, x), clip_norm=1.0, **WAYS[way])
    total, _ = jax.jit(f)(jnp.zeros(1, jnp.bfloat16), x.astype(jnp.bfloat16))
    assert total.dtype == jnp.float32
    np.testing.assert_allclose(total, [698 + float(jnp.bfloat16(0.37))], rtol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_float32_parameters_where_float64_is_on(way):
    with jax.enable_x64(True):
        f = clipped_grad(loss_fn, clip=CLIPS["flat"], **WAYS[way])
        total, aux = jax.jit(f)(parameters(), examples(7))
    wanted, trusted = compiled("vmap")(parameters(), examples(7))
    np.testing.assert_allclose(flat(total), flat(wanted), atol=3e-6)
    np.testing.assert_allclose(aux.norms, trusted.norms, rtol=1e-5)
    assert all(leaf.dtype == jnp.float32 for leaf in total.values())


@pytest.mark.slow
def test_the_guard_against_bad_rows_takes_no_memory(monkeypatch):
    """It is a loop that usually has no round, on arrays that stay in place."""
    params, rows = parameters(), examples(512)

    def compile_it():
        f = clipped_grad(loss_fn, clip=CLIPS["flat"], kappa=0.0)
        return jax.jit(lambda *a: f(*a)).lower(params, rows).compile()

    guarded = compile_it()
    monkeypatch.setattr(clipping, "_without", lambda held, norms, bad: (held, norms))
    bare = compile_it()
    loops = [str(program.as_text()).count(" while(") for program in (guarded, bare)]
    assert loops[0] == loops[1] + 1
    used = [program.memory_analysis() for program in (guarded, bare)]
    assert used[0] is not None and used[1] is not None
    assert used[0].temp_size_in_bytes <= 1.02 * used[1].temp_size_in_bytes
