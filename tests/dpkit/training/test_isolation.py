"""What one example holds never reaches another's numbers through a convolution."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from dpkit.training import isolation
from dpkit.training.isolation import isolated
from tests.bare import clipped_grad

ROWS = 32
NHWC = ("NHWC", "HWIO", "NHWC")
CONVOLVE: dict[str, Any] = {
    "image": ((3, 3, 2, 6), (1, 6, 6, 4), {"dimension_numbers": NHWC}),
    "strided": (
        (2, 2, 2, 6),
        (1, 6, 6, 4),
        {"dimension_numbers": NHWC, "window_strides": (2, 1), "rhs_dilation": (1, 2)},
    ),
    "line": ((3, 2, 6), (1, 36, 4), {"dimension_numbers": ("NHC", "HIO", "NHC")}),
    "space": (
        (2, 2, 2, 1, 4),
        (1, 6, 6, 2, 2),
        {"dimension_numbers": ("NDHWC", "DHWIO", "NDHWC")},
    ),
}


def grouped(w, x, key, shape, numbers):
    """A convolution of two groups of features."""
    del key
    strides = (1,) * (len(shape) - 2)
    settings: dict[str, Any] = {"window_strides": strides, "padding": "SAME", **numbers}
    y = lax.conv_general_dilated(x.reshape(shape), w, feature_group_count=2, **settings)
    return jnp.sum(jnp.sin(y))


def standardised(w, x, key, shape, numbers):
    """The same behind a kernel that is normalised."""
    axes = (0, 1, 2)
    spread = w.std(axes, keepdims=True) + 1e-3
    w = (w - w.mean(axes, keepdims=True)) / spread
    return grouped(w, x, key, shape, numbers)


def generated(w, x, key):
    """A kernel that is made from the example itself."""
    del key
    kernel = jnp.ones((3, 3, 4, 1)) * jnp.tanh(w * x[0, 0, 0])[None, None, None]
    y = lax.conv_general_dilated(
        x[None], kernel, (1, 1), "SAME", dimension_numbers=NHWC
    )
    return jnp.sum(jnp.sin(y))


def draw(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


LOSSES: dict[str, Any] = {
    **{
        name: (partial(grouped, shape=shape, numbers=numbers), draw(kernel))
        for name, (kernel, shape, numbers) in CONVOLVE.items()
    },
    "standardised": (
        partial(standardised, shape=CONVOLVE["image"][1], numbers=CONVOLVE["image"][2]),
        draw((3, 3, 2, 6)),
    ),
    "generated": (generated, draw(6)),
}
WAYS: dict[str, Any] = {
    "auto": {},
    "vmap": {"mode": "vmap"},
    "two_pass": {"mode": "two_pass"},
    "chunks": {"microbatch": 16},
    "vmap_chunks": {"mode": "vmap", "microbatch": 16},
}
QUICK = {("image", "vmap"), ("standardised", "auto"), ("generated", "auto")}


@pytest.mark.parametrize(
    ("name", "way"),
    [
        pytest.param(n, w, marks=() if (n, w) in QUICK else pytest.mark.slow)
        for n in LOSSES
        for w in WAYS
    ],
)
def test_an_example_that_is_not_finite_takes_nothing_from_others(name, way):
    loss, params = LOSSES[name]
    sums = jax.jit(clipped_grad(loss, clip_norm=1.0, **WAYS[way]))
    x = draw((ROWS, 6, 6, 4), seed=1)
    others = np.arange(ROWS) > 0
    wanted, aux = sums(params, x, others)
    assert (np.asarray(aux.norms) > 0).sum() == ROWS - 1
    for value in (np.nan, np.inf, 3e38):
        x[0] = value
        for mask in (others, np.ones(ROWS, bool)):
            found, spoilt = sums(params, x, mask)
            np.testing.assert_array_equal(spoilt.norms[1:], aux.norms[1:])
            distance = np.linalg.norm(np.asarray(found - wanted, float))
            # A row that overflows nowhere may count, and then as one.
            assert distance <= (1 + 1e-6) * mask[0]


GROUPS: list[Any] = [
    ((6, 7, 7, 2), (3, 3, 2, 9), 3, NHWC, {"window_strides": (1, 2)}),
    ((4, 3, 9), (8, 3, 2), 4, ("NCH", "OIH", "NCH"), {"rhs_dilation": (2,)}),
    ((3, 5, 5, 4), (3, 2, 2, 6), 2, ("CHWN", "IHWO", "HWNC"), {}),
]


@pytest.mark.slow
@pytest.mark.guard
@pytest.mark.parametrize(("left", "right", "groups", "numbers", "options"), GROUPS)
def test_groups_of_a_batch_become_groups_of_features(
    left, right, groups, numbers, options
):
    x, kernel = draw(left), draw(right, seed=1)
    settings: dict[str, Any] = {
        "window_strides": (1,) * (len(left) - 2),
        "padding": "SAME",
        **options,
    }

    def convolved(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, dimension_numbers=numbers, batch_group_count=groups, **settings
        )

    def looped(x, kernel):
        start = jnp.zeros_like(convolved(x, kernel))
        step = jax.checkpoint(jax.jit(convolved))
        total, _ = lax.scan(lambda y, _: (y + step(x, kernel), None), start, length=2)
        return lax.cond(x.sum() > 1e6, jnp.zeros_like, lambda y: y, total)

    for fn, factor in ((convolved, 1), (looped, 2)):
        np.testing.assert_allclose(
            isolated(fn)(x, kernel), factor * convolved(x, kernel), rtol=1e-5, atol=1e-5
        )
        program = str(jax.make_jaxpr(isolated(fn))(x, kernel))
        assert "batch_group_count=1" in program
        assert f"batch_group_count={groups}" not in program


def nested(depth):
    """A program that calls one inner program twice, which calls another twice, ..."""

    def convolved(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=NHWC, batch_group_count=2
        )

    fn = jax.jit(convolved)
    for _ in range(depth):
        fn = jax.jit(lambda x, kernel, f=fn: jnp.tanh(f(x, kernel) + f(x, kernel)))
    return fn


@pytest.mark.slow
def test_programs_that_share_a_part_are_replaced_once(monkeypatch):
    calls = []
    real = isolation._by_features
    monkeypatch.setattr(
        isolation, "_by_features", lambda *args: calls.append(0) or real(*args)
    )
    x, kernel = draw((2, 3, 3, 1)), draw((2, 2, 1, 2))
    fn = nested(12)
    np.testing.assert_allclose(isolated(fn)(x, kernel), fn(x, kernel), rtol=1e-5)
    assert len(calls) == 1


def test_programs_in_named_tuples_are_replaced():
    """A linear solver keeps its programs in one."""
    kernel = np.ones((1, 1, 1, 2), np.float32)

    def solved(b):
        def matvec(v):
            x = v.reshape(2, 1, 1, 1)
            y = lax.conv_general_dilated(
                x, jnp.asarray(2 * kernel), (1, 1), "SAME", dimension_numbers=NHWC,
                batch_group_count=2,
            )  # fmt: skip
            return y.reshape(2)

        return lax.custom_linear_solve(matvec, b, lambda _, b: b / 2, symmetric=True)

    b = draw(2)
    np.testing.assert_allclose(isolated(solved)(b), solved(b))
    assert "batch_group_count=2" not in str(jax.make_jaxpr(isolated(solved))(b))
