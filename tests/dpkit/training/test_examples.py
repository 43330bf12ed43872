"""Losses of several views and of users, against explicit loops."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpkit.training.examples import augmented, per_user
from tests.bare import clipped_grad

pytestmark = pytest.mark.usefixtures("quick_compilation")


def squared(w, record, key):
    """A loss with a bias, some noise where a key is given, and a gradient by hand."""
    x, y = record
    noise = 0.0 if key is None else jax.random.normal(key)
    return 0.5 * (jnp.vdot(w["a"], x) + w["b"] - y + noise) ** 2


def shifted(key, record):
    x, y = record
    return x + jax.random.normal(key, x.shape), y


W = {"a": jnp.array([0.5, -1.0]), "b": jnp.array(0.25)}


def close(found, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5), found, expected
    )


@pytest.mark.slow
@pytest.mark.parametrize("copies", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_views_are_averaged_as_in_a_loop(copies):
    example, key = (jnp.array([1.0, 2.0]), jnp.array(3.0)), jax.random.key(0)
    views, grads = [], []
    for k in range(copies):
        augment_key, loss_key = jax.random.split(jax.random.fold_in(key, k))
        view = shifted(augment_key, example)
        views.append(view[0])
        grads.append(GRAD_OF_ONE(W, view, loss_key))
    expected = jax.tree.map(lambda *leaves: sum(leaves) / copies, *grads)
    close(
        jax.jit(jax.grad(augmented(squared, shifted, copies)))(W, example, key),
        expected,
    )
    assert len({tuple(view.tolist()) for view in views}) == copies


def test_views_of_an_example_move_the_sum_as_one():
    # Gradients of norm at least 100, all clipped: together to norm C, not to 8 C.
    steep = augmented(lambda w, x, key: 100 * jnp.vdot(w, x), lambda key, x: x, 8)
    f = clipped_grad(steep, clip_norm=0.5, mode="vmap")
    total, aux = jax.jit(f)(
        jnp.zeros(2),
        jnp.array([[3.0, 4.0]]),
        keys=jax.random.split(jax.random.key(0), 1),
    )
    np.testing.assert_allclose(total, [0.3, 0.4], rtol=1e-6)
    assert float(aux.norms[0]) == pytest.approx(500.0)
    assert f.sensitivity("add_remove") == 0.5


@pytest.mark.slow
def test_an_example_has_views_of_its_own_wherever_it_stands():
    seen = augmented(lambda w, x, key: w * x, lambda key, x: jax.random.normal(key), 2)
    keys = jax.random.split(jax.random.key(1), 3)
    seen = jax.jit(jax.vmap(seen, (None, 0, 0)))
    losses = seen(1.0, jnp.zeros(3), keys)
    turned = seen(1.0, jnp.zeros(3), keys[::-1])
    np.testing.assert_array_equal(losses, turned[::-1])
    assert len(set(losses.tolist())) == 3


@pytest.mark.parametrize("copies", [0, -1, 1.5, True, None])
def test_a_number_of_views_must_be_one(copies):
    with pytest.raises((ValueError, TypeError), match="copies="):
        augmented(squared, shifted, copies)
    with pytest.raises((ValueError, TypeError), match="max_records="):
        per_user(squared, copies)


def test_views_need_keys():
    with pytest.raises(TypeError, match="key=None"):
        augmented(squared, shifted, 2)(W, (jnp.ones(2), jnp.ones(())), None)


RNG = np.random.default_rng(0)
STACK = (
    RNG.normal(size=(4, 2)).astype(np.float32),
    RNG.normal(size=4).astype(np.float32),
)
MASKS = [[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 1], [0, 1, 1, 0]]


@pytest.mark.slow
@pytest.mark.parametrize("by_own_count", [True, False])
@pytest.mark.parametrize("mask", MASKS, ids=str)
@pytest.mark.parametrize("filler", [math.nan, math.inf, 1e38])
def test_users_are_summed_as_in_a_loop(by_own_count, mask, filler):
    mask = np.array(mask, bool)
    x, y = (leaf.copy() for leaf in STACK)
    x[~mask], y[~mask] = filler, filler
    key = jax.random.key(2)
    expected = {"a": np.zeros(2), "b": np.zeros(())}
    for j in np.flatnonzero(mask):
        grad = GRAD_OF_ONE(W, (x[j], y[j]), jax.random.fold_in(key, int(j)))
        expected = jax.tree.map(lambda s, g: s + np.asarray(g, float), expected, grad)
    divisor = mask.sum() if by_own_count else 4
    expected = jax.tree.map(lambda s: s / divisor, expected)
    found = GRAD_OF_USER[by_own_count](W, ((x, y), mask), key)
    close(found, expected)


GRAD_OF_ONE = jax.jit(jax.grad(squared))
GRAD_OF_USER = {
    own: jax.jit(jax.grad(per_user(squared, 4, by_own_count=own)))
    for own in (True, False)
}


@pytest.mark.parametrize("by_own_count", [True, False])
def test_a_user_without_records_has_no_gradient(by_own_count):
    nothing = (np.full((4, 2), math.nan, np.float32), np.full(4, math.nan, np.float32))
    grads = GRAD_OF_USER[by_own_count](
        W, (nothing, np.zeros(4, bool)), jax.random.key(0)
    )
    for leaf in jax.tree.leaves(grads):
        assert not np.asarray(leaf).any()


def test_padding_can_hold_no_place_where_a_derivative_is_undefined():
    # The root's derivative at 0 is infinite; 0 times it would be NaN.
    loss = per_user(lambda w, x, key: jnp.sqrt(w * x), 2)
    stack = jnp.array([4.0, 0.0]), jnp.array([True, False])
    assert float(jax.jit(jax.grad(loss))(1.0, stack, None)) == 1.0


@pytest.mark.parametrize("mode", ["vmap", "auto"])
def test_a_user_moves_a_clipped_sum_as_one_example(mode):
    # Users of 3, 1 and 0 records, and one whose valid record is NaN.
    x = np.zeros((4, 3), np.float32)
    x[0], x[1], x[2], x[3] = (
        [9.0, 9.0, 9.0],
        [-0.1, math.nan, 5],
        math.nan,
        [1, math.nan, 1],
    )
    mask = np.array([[1, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 1]], bool)
    f = clipped_grad(
        per_user(lambda w, x, key: jnp.vdot(w, x[None]), 3), clip_norm=1.0, mode=mode
    )
    total, aux = jax.jit(f)(jnp.zeros(1), (x, mask))
    np.testing.assert_allclose(total, [1.0 - 0.1], rtol=1e-6)
    np.testing.assert_allclose(aux.norms, [9.0, 0.1, 0.0, 0.0], rtol=1e-6)


@pytest.mark.parametrize(
    ("example", "found"),
    [
        (jnp.ones((4, 2)), "example=.*a pair"),
        ((STACK, np.ones(4)), r"mask has shape \(4,\) and dtype float"),
        ((STACK, np.ones(3, bool)), r"needed \(4,\) booleans"),
        ((np.ones((3, 2)), np.ones(4, bool)), r"\[\(3,\)\]: needed stacks of max_rec"),
        ((np.float32(1), np.ones(4, bool)), r"\[\(\)\]: needed stacks"),
        (((), np.ones(4, bool)), r"\[\]: needed stacks"),
    ],
)
def test_examples_that_are_no_stack_are_refused(example, found):
    with pytest.raises((TypeError, ValueError), match=found):
        per_user(squared, 4)(W, example, None)


def test_the_divisor_is_true_or_false():
    with pytest.raises(TypeError, match="by_own_count="):
        per_user(squared, 4, by_own_count=1)  # pyrefly: ignore[bad-argument-type]
