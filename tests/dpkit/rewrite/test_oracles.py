"""Norms that were worked out by hand, and the numbers that known mistakes would give.

One loss holds all cases, each with parameters of its own and a row of the batch in
which only its own cotangents are not zero. So norms[i] is the norm of case i, and the
sum over the batch of a parameter's gradients is the gradient of its case.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpkit.mechanisms.clips import PSAC, AutoS, Flat, PerGroup
from tests.bare import clipped_grad

pytestmark = pytest.mark.usefixtures("quick_compilation")

WAYS: dict[str, dict[str, Any]] = {
    "product": {"kappa": 0.0},
    "whole": {"kappa": 1e9},
    "two_pass": {"mode": "two_pass", "kappa": 0.0},
    "two_pass_whole": {"mode": "two_pass", "kappa": 1e9},
    "vmap": {"mode": "vmap"},
}
QUICK = ("product", "whole")  # two passes: below, with factors
OFTEN = [pytest.mark.slow, pytest.mark.guard]
EVERY_WAY = [
    pytest.param(way, marks=OFTEN if way in QUICK else pytest.mark.slow) for way in WAYS
]

# What each case reads, what flows back to it, the squared norm, what mistakes give.
CASES: dict[str, dict[str, Any]] = {
    # Rows of one example count together: 38 row by row, 104 from Frobenius norms.
    "dense": {
        "read": [[1, 2], [0, 1], [-1, 1]],
        "back": [[1, 0, 2], [1, 1, -1], [2, 1, 0]],
        "gradient": {"w": [[-1, -1, 2], [5, 2, 3]]},
        "square": 44,
        "wrong": (38, 104),
    },
    # 13 row by row, 87 from the Frobenius norm of G G^T.
    "bias": {
        "back": [[1, 0, 2], [1, 1, -1], [2, 1, 0]],
        "gradient": {"b": [4, 2, 1]},
        "square": 21,
        "wrong": (13, 87),
    },
    # 8 if the two lookups of row 2 are counted apart.
    "embedding": {
        "ids": [2, 0, 2, 1],
        "back": [[1, 0], [0, 2], [1, 1], [-1, 0]],
        "gradient": {"e": [[0, 2], [-1, 0], [2, 1]]},
        "square": 10,
        "wrong": (8,),
    },
    # 11 = 6 + 5 without the cross term of the two uses.
    "tied": {
        "ids": [0, 2],
        "back": [[1, -1], [2, 0]],
        "read": [[1, 1], [0, 2]],
        "logits": [[0.5, -0.5, 1], [0, 1, -1]],
        "gradient": {"tied": [[1.5, -0.5], [-0.5, 1.5], [3, -1]]},
        "square": 15,
        "wrong": (11,),
    },
    "conv1d": {
        "read": [1, 2, 0, -1, 3],
        "back": [[1, 0], [0, 1], [2, -1], [1, 1]],
        "gradient": {"line": [[[0, 1]], [[3, 4]]]},
        "square": 26,
        "wrong": (),
    },
    "conv2d": {
        "read": [[1, 2, 3], [4, 5, 6], [7, 8, 9]],
        "back": [[1, -1], [0, 2]],
        "gradient": {"plane": [[[[9]], [[11]]], [[[15]], [[17]]]]},
        "square": 716,
        "wrong": (),
    },
    "scale": {
        "read": [[1, 2, 3], [2, 0, 4]],
        "back": [[1, -1, 0], [2, 1, 1]],
        "gradient": {"scale": [-1.2247449, -1.2247449, 1.2247449]},
        "square": 4.5,
        "wrong": (),
    },
    "offset": {
        "back": [[1, -1, 0], [2, 1, 1]],
        "gradient": {"offset": [3, 0, 1]},
        "square": 10,
        "wrong": (),
    },
    # One use gives [[1, 2], [0, 1]], the other [[2, 1], [1, -1]]: 13 if counted apart.
    "twice": {
        "back": [[1, 2], [0, 1]],
        "other": [[2, 1], [1, -1]],
        "gradient": {"shared": [[3, 3], [1, 0]]},
        "square": 19,
        "wrong": (13,),
    },
}


def loss_fn(p, example, key):
    """Every case's output, weighted with what is to flow back."""
    x = example
    eye = x["twice"]["eye"]
    total = jnp.vdot(x["dense"]["read"] @ p["w"], x["dense"]["back"])
    total += jnp.vdot(jnp.zeros((3, 3)) + p["b"][None], x["bias"]["back"])
    total += jnp.vdot(p["e"][x["embedding"]["ids"]], x["embedding"]["back"])
    total += jnp.vdot(p["tied"][x["tied"]["ids"]], x["tied"]["back"])
    total += jnp.vdot(x["tied"]["read"] @ p["tied"].T, x["tied"]["logits"])
    line = convolved(x["conv1d"]["read"][:, None], p["line"], "NWC WIO NWC")
    total += jnp.vdot(line, x["conv1d"]["back"])
    plane = convolved(x["conv2d"]["read"][..., None], p["plane"], "NHWC HWIO NHWC")
    total += jnp.vdot(plane[..., 0], x["conv2d"]["back"])
    total += jnp.vdot(normal(x["scale"]["read"]) * p["scale"][None], x["scale"]["back"])
    total += jnp.vdot(jnp.zeros((2, 3)) + p["offset"][None], x["offset"]["back"])
    total += jnp.vdot(eye @ p["shared"], x["twice"]["back"])
    return total + jnp.vdot((p["shared"].T @ eye).T, x["twice"]["other"])


def convolved(x, kernel, names):
    """A valid convolution of one example."""
    numbers = tuple(names.split())
    ones = (1,) * (kernel.ndim - 2)
    return jax.lax.conv_general_dilated(
        x[None], kernel, ones, "VALID", dimension_numbers=numbers
    )[0]


def normal(x):
    """Rows of mean 0 and variance 1."""
    x = x - x.mean(-1, keepdims=True)
    return x / jnp.sqrt((x**2).mean(-1, keepdims=True))


def parameters():
    """Zeros in the shape of every gradient; ones where a zero would hide a use."""
    shapes = {k: v for case in CASES.values() for k, v in case["gradient"].items()}
    return {name: jnp.ones(np.shape(value)) for name, value in shapes.items()}


def batch():
    """Row i holds the cotangents of case i alone; what is read is in every row."""

    def rows(name, field, value):
        keep = [field in ("read", "ids", "eye") or case == name for case in CASES]
        dtype = np.int32 if field == "ids" else np.float32
        return np.stack([k * np.asarray(value, dtype) for k in keep])

    examples = {
        name: {
            field: rows(name, field, case[field])
            for field in ("read", "back", "ids", "logits", "other")
            if field in case
        }
        for name, case in CASES.items()
    }
    examples["twice"]["eye"] = rows("twice", "eye", np.eye(2))
    return examples


@functools.cache
def found(way):
    """The sum and the norms in one mode, nothing clipped."""
    f = clipped_grad(loss_fn, clip_norm=1e6, **WAYS[way])
    return jax.jit(f)(parameters(), batch())


@pytest.mark.parametrize("way", EVERY_WAY)
@pytest.mark.parametrize("name", CASES)
def test_norms_and_gradients_worked_by_hand(name, way):
    case = CASES[name]
    total, aux = found(way)
    square = float(aux.norms[list(CASES).index(name)]) ** 2
    assert square == pytest.approx(case["square"], rel=2e-6)
    assert all(abs(square - wrong) > 1 for wrong in case["wrong"])
    for parameter, wanted in case["gradient"].items():
        np.testing.assert_allclose(total[parameter], wanted, atol=1e-5)


def test_the_forms_that_were_asked_for_are_those_that_were_used():
    """Otherwise the test above would try one form twice."""
    params, rows = parameters(), batch()
    thin = clipped_grad(loss_fn, clip_norm=1.0, kappa=0.0).plan(params, rows)
    whole = clipped_grad(loss_fn, clip_norm=1.0, kappa=1e9).plan(params, rows)
    forms = {row.path: row.form for row in thin}
    factored = {"w", "e", "tied", "line", "plane", "shared"}
    assert {path for path, form in forms.items() if form == "product"} == factored
    assert {row.form for row in whole} == {"whole"}


# Norms 0, .5, 1, 2, 10: the factors with C = 1, to seven digits.
FACTORS = [
    (Flat(1.0), [1, 1, 1, 0.5, 0.1]),
    (AutoS(1.0, gamma=0.01), [100, 1.9607843, 0.9900990, 0.4975124, 0.0999001]),
    (PSAC(1.0, r=0.1), [1, 1.5, 0.9166667, 0.4883721, 0.09990109]),
]
EACH_CLIP = [
    pytest.param(*case, way, marks=() if i == j else pytest.mark.slow)
    for i, case in enumerate(FACTORS)
    for j, way in enumerate(WAYS)
]


@pytest.mark.parametrize(("clip", "factors", "way"), EACH_CLIP)
def test_factors_worked_by_hand_reach_the_sum(clip, factors, way):
    # Each example has an entry of its own, so the sum shows every factor.
    norms = np.array([0, 0.5, 1, 2, 10], np.float32)
    f = clipped_grad(lambda w, x, key: jnp.vdot(w, x), clip=clip, **WAYS[way])
    total, _ = jax.jit(f)(jnp.zeros(5), np.diag(norms))
    np.testing.assert_allclose(total, norms * factors, rtol=1e-6)
    found = clip.factors(jnp.array(norms)[:, None])[:, 0]
    np.testing.assert_allclose(found, factors, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_gradients_of_three_four_and_nan(way):
    # (3, 4), (0, 0), (.3, .4), (NaN, 1) at C = 1 sum to (.9, 1.2).
    x = np.array([[3, 4], [0, 0], [0.3, 0.4], [np.nan, 1]], np.float32)
    f = clipped_grad(lambda w, x, key: jnp.vdot(w, x), clip_norm=1.0, **WAYS[way])
    total, aux = jax.jit(f)(jnp.zeros(2), x)
    np.testing.assert_allclose(total, [0.9, 1.2], rtol=1e-6)
    np.testing.assert_allclose(aux.norms, [5, 0, 0.5, 0], rtol=1e-6)


def test_groups_of_three_and_four_have_a_radius_of_five():
    clip = PerGroup((3.0, 4.0), (("a",), ("b",)))
    f = clipped_grad(lambda p, x, key: jnp.vdot(p["a"], x) + p["b"] * x[0], clip=clip)
    assert f.sensitivity("add_remove") == f.sensitivity("zero_out") == 5.0
    assert f.sensitivity("replace_one") == 10.0
