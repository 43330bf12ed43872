"""Weights that are turned and cut before they meet data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.bare import clipped_grad
from tests.zoo import draws

VIEWS = {
    "column by column": lambda w: w.ravel("F").reshape(6, 4),
    "every other row": lambda w: w[::2, :2].reshape(3, 2),
    "from the end": lambda w: w[::-1, ::-1],
    "every other row from the end": lambda w: w[::-2],
    "transposed block": lambda w: w[1:5, 1:].T,
    "more axes": lambda w: w[None, :, None].swapaxes(1, 3)[0, :, 0],
}
pytestmark = pytest.mark.usefixtures("quick_compilation")


def views():
    """Every view, in a loop and not; each once is a guard, two are fast."""
    for i, name in enumerate(VIEWS):
        for scanned in (False, True):
            marks = [pytest.mark.slow] if scanned == bool(i % 2) or i > 1 else []
            marks += [] if scanned == bool(i % 2) else [pytest.mark.guard]
            yield pytest.param(name, scanned, id=f"{name}-{scanned}", marks=marks)


@pytest.mark.parametrize(("name", "scanned"), list(views()))
def test_moved_entries_are_counted_where_they_belong(name, scanned):
    view = VIEWS[name]
    stack, x = draws((2, 6, 4), (3, 5, 6))
    shape = view(np.asarray(stack[0])).shape

    def used(w, x):
        # Twice, so that entries of one use must be found in the other.
        rows, columns = x[:, : shape[0]], x[:, : shape[1]]
        seen = jnp.sum(jnp.tanh(rows @ view(w)))
        return seen + jnp.sum(jnp.sin(columns @ view(w).T))

    def loss(stack, x, key):
        if scanned:
            return jax.lax.map(lambda w: used(w, x), stack).sum()
        return used(stack[0], x)

    products = clipped_grad(loss, clip_norm=0.3, kappa=0.0)
    trusted = jax.jit(jax.vmap(jax.grad(loss), (None, 0, None)))
    assert "product" in str(products.plan(stack, x))
    total, aux = jax.jit(products)(stack, x)
    rows = np.asarray(trusted(stack, x, None), float)
    norms = np.sqrt((rows**2).sum((1, 2, 3)))
    np.testing.assert_allclose(aux.norms, norms, rtol=1e-5)
    wanted = np.tensordot(np.minimum(1, 0.3 / norms), rows, 1)
    np.testing.assert_allclose(total, wanted, atol=1e-5)
