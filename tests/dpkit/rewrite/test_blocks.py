"""Rounding in sums over many examples: what one example can make of it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpkit.rewrite.blocks import CHAIN, TREE, summed
from tests.bare import clipped_grad

WAYS: dict[str, Any] = {
    "auto": {},
    "product": {"kappa": 0.0},
    "two_pass": {"mode": "two_pass"},
    "two_pass_product": {"mode": "two_pass", "kappa": 0.0},
    "vmap": {"mode": "vmap"},
    "chunks": {"microbatch": 256},
}


def rising(size):
    """Rows of one column that round up once a first one has pushed their sum.

    The first half adds up to just below a power of two; the others are a bit more than
    half a unit in the last place of it.
    """
    half = size // 2
    rows = np.zeros((size, 16), np.float32)
    rows[0, 0] = 1.0
    rows[2 : half + 1, 0] = 1.0
    rows[half + 1 :, 0] = 2.0 ** (int(np.log2(half)) - 24) * 1.03
    return rows


def moved(sums, params, batch, size):
    """How far the first row moves the sum."""
    everyone = np.ones(size, bool)
    with_first, _ = sums(params, batch, everyone)
    without, _ = sums(params, batch, everyone & (np.arange(size) > 0))
    return np.linalg.norm(np.asarray(with_first, float) - np.asarray(without, float))


@pytest.mark.parametrize(
    "way", [pytest.param(w, marks=[pytest.mark.slow,
                                   *[pytest.mark.guard] * (w == "product")])
            for w in WAYS]
)  # fmt: skip
def test_one_example_cannot_push_the_rounding_of_all_others(way):
    vectors = jax.jit(
        clipped_grad(lambda w, x, key: jnp.sum(w * x), clip_norm=1.0, **WAYS[way])
    )
    dense = jax.jit(
        clipped_grad(
            lambda w, x, key: jnp.vdot(x @ w, jnp.eye(16)[0]),
            clip_norm=1.0,
            **WAYS[way],
        )
    )
    for size in (16, 64, 80, 1000, 4096, 8192):
        x = rising(size)
        most = 1 + size * 2.0**-18
        assert moved(vectors, jnp.zeros(16), x, size) <= most
        assert moved(dense, jnp.zeros((16, 16)), x, size) <= most


def test_a_plain_sum_of_these_rows_is_pushed():
    """Else the test above would show nothing."""
    total = jax.jit(lambda w, x: w @ x)
    x = rising(8192)
    ones = np.ones(len(x), np.float32)
    first = np.arange(len(x)) > 0
    distance = np.linalg.norm(total(ones, x) - total(ones * first, x))
    assert distance > 1 + 10 * 8192 * 2.0**-18


@pytest.mark.parametrize("size", [1, CHAIN, CHAIN + 1, 100, TREE, TREE + 1, 3 * TREE])
def test_blocks_add_up(size):
    rows = np.random.default_rng(0).normal(size=(size, 3)).astype(np.float32)

    def part(rows):
        return [rows[0].sum(0), jnp.vdot(rows[0][:, 0], rows[1])]

    found = jax.jit(lambda rows: summed(part, rows, size))((rows, rows[:, 1]))
    wide = rows.astype(float)
    np.testing.assert_allclose(found[0], wide.sum(0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found[1], wide[:, 0] @ wide[:, 1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "microbatch", [None, pytest.param(512, marks=pytest.mark.slow)]
)
def test_a_cast_on_the_way_to_a_parameter_does_not_round_the_sum(microbatch):
    """Parameters that the loss reads in half precision are summed in float32."""

    def loss(w, x, key):
        return jnp.vdot(x @ w.astype(jnp.bfloat16).astype(jnp.float32), x)

    size = 1025
    x = np.zeros((size, 16), np.float32)
    x[:, 0] = 1.0
    sums = jax.jit(
        clipped_grad(loss, clip_norm=1.0, mode="two_pass", microbatch=microbatch)
    )
    for count in (257, 259, 1020):
        totals = [
            sums(jnp.zeros((16, 16)), x, np.arange(size) < n)[0][0, 0]
            for n in (count, count - 1)
        ]
        assert totals == [count, count - 1]
