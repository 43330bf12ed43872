"""Both readers of a record see the same bits, so no residue passes unclipped.

The records here are a * b - c with c the rounded product: zero for one reader and a
rounding residue of any size for another, where a compiler computes them twice.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpkit.mechanisms.clipping import GaussianSum, clip_record
from dpkit.mechanisms.pinning import pinned


def cancelling(seed, num_records, size):
    """Factors and their rounded product, up to 1e16."""
    rng = np.random.default_rng(seed)
    a, b = (10 ** rng.uniform(3, 8, (2, num_records, size))).astype(np.float32)
    return {"a": a, "b": b, "c": a * b}


def difference(row):
    """a * b - c, as the gradient of a loss."""

    def loss(w):
        residue = row["a"] * row["b"] - row["c"]
        return jnp.sum((w + 0 * w.mean()) * residue)

    return {"p": jax.grad(loss)(jnp.zeros_like(row["a"]))}


@pytest.mark.parametrize("size", [3, 4])
@pytest.mark.parametrize("seed", range(3))
def test_clipped_records_that_are_computed_in_place_keep_the_bound(seed, size):
    rows = cancelling(seed, 8, size)
    one = jax.jit(lambda row: clip_record(difference(row), 1.0))
    all_of_them = jax.jit(jax.vmap(lambda row: clip_record(difference(row), 1.0)))
    for clipped in (one(jax.tree.map(lambda x: x[0], rows)), all_of_them(rows)):
        squares = sum(np.square(x, dtype=float).sum(-1) for x in clipped.values())
        assert np.sqrt(np.max(squares)) <= 1 + 2**-20


@pytest.mark.parametrize("seed", range(3))
def test_a_sum_of_records_that_are_computed_in_place_keeps_the_bound(seed):
    mechanism = GaussianSum(clip_norm=1.0, noise_multiplier=0.0)
    rows = cancelling(seed, 8, 4)

    @jax.jit
    def release(key, rows):
        return mechanism(key, jax.vmap(difference)(rows))

    total = release(jax.random.key(0), rows)
    assert np.linalg.norm(np.asarray(total["p"], float)) <= 8 * (1 + 2**-20)


def test_values_shapes_and_types_stay():
    tree = {
        "a": jnp.array([1.5, -0.0, jnp.nan, jnp.inf]),
        "b": jnp.ones((2, 3), jnp.bfloat16),
        "none": jnp.zeros((0, 2)),
        "n": jnp.arange(3),
    }
    for function in (pinned, jax.jit(pinned), jax.jit(jax.vmap(pinned))):
        given = tree
        if function is not pinned:
            given = jax.tree.map(lambda x: x[:2] if x.ndim == 1 else x, tree)
            given = {k: v for k, v in given.items() if k != "none"}
        found = function(given)
        for name, leaf in given.items():
            assert found[name].dtype == leaf.dtype
            np.testing.assert_array_equal(found[name], leaf)
    assert pinned({}) == {}


def test_the_compiler_keeps_the_loop():
    """It can't know the number of rounds, so it can't remove the loop."""
    rows = cancelling(0, 8, 4)
    clip = jax.vmap(lambda row: clip_record(difference(row), 1.0))
    compiled = jax.jit(clip).lower(rows).compile()
    assert " while(" in str(compiled.as_text())
