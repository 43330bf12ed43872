"""Every mode agrees with per-example gradients, on losses of many kinds."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.bare import clipped_grad
from tests.zoo import ZOO, made

# In float32; measured: below 2e-6 on every loss.
TOLERANCE = 1e-5
WAYS: dict[str, Any] = {
    "auto": {},
    "thin": {"kappa": 0.0},
    "two_pass": {"mode": "two_pass"},
    "chunks": {"microbatch": 3},
    "vmap": {"mode": "vmap"},
    "vmap_in_twos": {"mode": "vmap", "microbatch": 2},
    "microbatch": {"mode": "microbatch"},
    "two_pass_thin": {"mode": "two_pass", "kappa": 0.0},
    "two_pass_in_chunks": {"mode": "two_pass", "microbatch": 3},
}
# Those that between them reach every branch are guards; the rest are slow alone.
QUICK = {
    "auto": ("rnn", "branches"),
    "thin": ("weight_and_its_transpose",),
    "two_pass": ("scan_of_layers_with_remat",),
}


def marks_of(name, way):
    """One of the zoo is fast."""
    if (name, way) == ("branches", "auto"):
        return []
    often = name in QUICK.get(way, ())
    return [pytest.mark.slow, *([pytest.mark.guard] if often else [])]


CASES = [
    pytest.param(
        name,
        way,
        marks=marks_of(name, way),
        id=f"{name}-{way}",
    )
    for name in ZOO
    for way in WAYS
]


@pytest.fixture(autouse=True)
def as_users_write():
    """The zoo's losses broadcast, and their keys serve every mode in turn."""
    with jax.numpy_rank_promotion("allow"), jax.debug_key_reuse(False):
        yield


@pytest.mark.filterwarnings("ignore:loss_fn doesn't use")  # one entry is about that
@pytest.mark.parametrize(("name", "way"), CASES)
def test_sums_and_norms_are_those_of_per_example_gradients(name, way):
    loss_fn, params, batch, keys = made(name)
    wanted, trusted = reference(loss_fn, params, batch, keys)
    clip_norm = float(np.median(trusted))
    f = clipped_grad(loss_fn, clip_norm=clip_norm, **WAYS[way])
    total, aux = jax.jit(f)(params, batch, None, keys)
    np.testing.assert_allclose(aux.norms, trusted, rtol=TOLERANCE)
    factors = np.minimum(1, clip_norm / trusted)
    for some, each in zip(jax.tree.leaves(total), wanted, strict=True):
        assert some.dtype == jnp.float32
        clipped = np.tensordot(factors, np.asarray(each, float), 1)
        assert np.abs(np.asarray(some) - clipped).max() <= TOLERANCE * clip_norm * len(
            factors
        )


def reference(loss_fn, params, batch, keys):
    """Gradients of every example, one after the other, and their norms."""
    grad = jax.jit(jax.grad(loss_fn))
    size = len(jax.tree.leaves(batch)[0])
    rows = [
        jax.tree.leaves(
            grad(
                params,
                jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[i], batch),
                None if keys is None else keys[i],
            )
        )
        for i in range(size)
    ]
    leaves = [np.stack(leaf) for leaf in zip(*rows, strict=True)]
    flat = np.concatenate([leaf.reshape(size, -1) for leaf in leaves], 1)
    return leaves, np.linalg.norm(flat.astype(float), axis=1)
