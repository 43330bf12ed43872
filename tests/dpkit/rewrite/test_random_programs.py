"""Random losses: whatever they do, norms and sums are those of per-example gradients.

A program is a list of steps that hypothesis draws; each takes an array (rows, columns)
of one example to another, using parameters that are new, or old ones in a new shape:
transposed, sliced, added, multiplied, stacked. So parameters are shared in ways that
nobody would write, which is what the rewrite has to get right.

All is computed in float64, where the only difference that is allowed is the margin of
the product form, which makes norms a little larger and never smaller.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies

from tests.bare import clipped_grad

pytestmark = [
    pytest.mark.usefixtures("quick_compilation"),
    # Arrays of one row are no batches of one here.
    pytest.mark.filterwarnings("ignore:loss_fn reduces over a leading axis"),
]

SIZE = 3
WAYS: dict[str, dict[str, Any]] = {
    "product": {"kappa": 0.0},
    "auto": {},
    "whole": {"kappa": 1e9},
    "two_pass": {"mode": "two_pass", "kappa": 0.0},
    "two_pass_whole": {"mode": "two_pass", "kappa": 1e9},
    "chunks": {"kappa": 0.0, "microbatch": 2},
}
STEPS: dict = {}


def step(make):
    """Adds a step: (weights, x, example, number) -> array of two axes."""
    STEPS[make.__name__] = make
    return make


class Weights:
    """Parameters by shape, made when first asked for, and used again afterwards.

    Args:
      leaves: the arrays so far; a list that grows while the program is first run.
      choices: numbers that decide how each weight is made, in turn.
      growing: whether new ones may be made.
    """

    def __init__(self, leaves, choices, growing):
        self.leaves, self.choices, self.growing = leaves, iter(choices * 99), growing
        self.used = 0

    def new(self, *shape):
        """A parameter of its own."""
        if self.growing:
            rng = np.random.default_rng(len(self.leaves))
            self.leaves.append(np.asarray(0.6 * rng.normal(size=shape)))
        self.used += 1
        return jnp.asarray(self.leaves[self.used - 1])

    def known(self, shape):
        """One that there was before, in this shape or its reverse."""
        for leaf in self.leaves[: self.used]:
            if leaf.shape == shape:
                return jnp.asarray(leaf)
            if leaf.shape[::-1] == shape:
                return jnp.asarray(leaf).T
        return None

    def __call__(self, *shape):
        """A weight: of its own, shared, or computed from others."""
        choice = next(self.choices) % 10
        old = self.known(shape)
        if choice <= 3 and old is not None:
            return old
        if choice == 4 and old is not None:
            return old * 0.7 + self.new(*shape)
        if not shape:
            return self.new()
        if choice == 5:
            return self.new(shape[0] + 1, *shape[1:])[1:]
        if choice == 6:
            return self.new(int(np.prod(shape))).reshape(shape)
        if choice == 7:
            return jnp.concatenate([self.new(1, *shape[1:]), self.new(*shape)])[:-1]
        if choice == 8:
            return jnp.stack([self.new(*shape), self.new(*shape)])[1]
        if choice == 9:
            return jnp.sin(self.new(*shape)[::-1])
        return self.new(*shape)


@step
def dense(w, x, example, n):
    return x @ w(x.shape[1], 2 + n % 3)


@step
def from_the_left(w, x, example, n):
    return w(2 + n % 3, x.shape[0]) @ x


@step
def tied(w, x, example, n):
    weight = w(x.shape[1], x.shape[1])
    return jnp.tanh(x @ weight) @ (weight.T if n % 2 else weight)


@step
def at_two_widths(w, x, example, n):
    weight = w(x.shape[1] + 2, 4)
    return x @ weight[: x.shape[1]] + (x @ weight[2:])[:, :1]


@step
def offset(w, x, example, n):
    return x + w(*(x.shape[1:], (x.shape[0], 1), (1, 1), x.shape)[n % 4])


@step
def scale(w, x, example, n):
    return x * w(*((1, x.shape[1]), (x.shape[0], 1), (), x.shape)[n % 4])


@step
def curve(w, x, example, n):
    return (jnp.tanh, jnp.sin, jax.nn.softmax, jax.nn.silu)[n % 4](x)


@step
def turned(w, x, example, n):
    return x.T if n % 2 else x[::-1]


@step
def reshaped(w, x, example, n):
    return x.reshape(-1, 1) if n % 3 == 0 else x.reshape(1, -1)


@step
def cut(w, x, example, n):
    return x[: max(1, n % 4)] if n % 2 else x[:, -(1 + n % 4) :]


@step
def joined(w, x, example, n):
    other = w(2, x.shape[1]) if n % 2 else x * 0.5
    return jnp.concatenate([x, other])


@step
def looked_up(w, x, example, n):
    mode = ("clip", "fill", "wrap", "fill")[n % 4]
    rows = jnp.take(w(4, x.shape[1]), example["ids"], axis=0, mode=mode, fill_value=0)
    return rows * x[:1] + x.mean(0, keepdims=True)


@step
def column_looked_up(w, x, example, n):
    return x[:, :1] * w(x.shape[0], 5)[:, jnp.abs(example["ids"]) % 5]


@step
def sliced_where_data_says(w, x, example, n):
    start = jnp.abs(example["ids"][n % 4]) % 3
    return x @ jax.lax.dynamic_slice_in_dim(w(x.shape[1] + 2, 3), start, x.shape[1])


@step
def convolved(w, x, example, n):
    groups = 2 if n % 2 and x.shape[1] % 2 == 0 else 1
    kernel = w(2, x.shape[1] // groups, 2 * groups)
    return jax.lax.conv_general_dilated(
        x[None],
        kernel,
        window_strides=(1 + n % 2,),
        padding=((1, n % 3),),
        lhs_dilation=(1 + n // 3 % 2,),
        rhs_dilation=(1 + n // 2 % 2,),
        feature_group_count=groups,
        dimension_numbers=("NWC", "WIO", "NWC"),
    )[0]


@step
def recurrent(w, x, example, n):
    weight, start = w(x.shape[1], x.shape[1]), jnp.zeros(x.shape[1])
    start = w(x.shape[1]) if n % 2 else start

    def one(h, row):
        h = jnp.tanh(row + h @ weight)
        return h, h * row

    return jax.lax.scan(one, start, x, reverse=n % 3 == 0)[1]


@step
def layers(w, x, example, n):
    stack, shared = w(3, x.shape[1], x.shape[1]), w(x.shape[1])

    def layer(x, p):
        x = x + jnp.tanh(x @ p + shared)
        return x, x.sum(0)

    layer = jax.checkpoint(layer) if n % 2 else layer
    x, sums = jax.lax.scan(layer, x, stack)
    return jnp.concatenate([x, sums]) if n % 3 else x


@step
def loop_with_constants(w, x, example, n):
    stack = w(3, x.shape[1])

    def body(x, p):
        row, i = p
        return jnp.sin(x * row + i * 0.1), None

    return jax.lax.scan(body, x, (stack, jnp.arange(3.0)))[0]


@step
def branched(w, x, example, n):
    a, b = w(x.shape[1], 3), w(3)
    shown = x.sum() > 0.1 * (n - 4)
    return jax.lax.cond(shown, lambda x: x @ a, lambda x: x[:, :1] + b + a[0], x)


@step
def chosen(w, x, example, n):
    return jnp.where(x > 0, x * w(x.shape[1]), w(*x.shape))


@step
def heads(w, x, example, n):
    weight = w(2, x.shape[1], 3)
    if n % 2:
        return jax.vmap(lambda v: jnp.tanh(x @ v))(weight).sum(0)
    return jnp.einsum("td,hde->the", x, weight).reshape(x.shape[0], -1)


@step
def attended(w, x, example, n):
    q, k = x @ w(x.shape[1], 2), x @ w(x.shape[1], 2)
    return jax.nn.softmax(q @ k.T) @ x


@step
def normalised(w, x, example, n):
    x = x - x.mean(-1, keepdims=True)
    return x * jax.lax.rsqrt((x**2).mean(-1, keepdims=True) + 0.1) * w(x.shape[1])


@step
def of_a_standardised_weight(w, x, example, n):
    weight = w(x.shape[1], 3)
    weight = weight - weight.mean(0)
    return x @ (weight / jnp.sqrt((weight**2).mean(0) + 0.1))


@step
def called(w, x, example, n):
    weight = w(x.shape[1], 3)
    call = (jax.jit, jax.checkpoint)[n % 2]
    return call(lambda x, v: jnp.tanh(x @ v) @ v.T)(x, weight)


@step
def squared_up(w, x, example, n):
    # A product of parts of one parameter, and data on both sides of it.
    weight = w(x.shape[1], x.shape[1])
    return x @ weight @ weight + x * weight[0]


@step
def stopped(w, x, example, n):
    weight = w(x.shape[1], 2)
    return jax.lax.stop_gradient(x @ weight) * (x @ weight)


@step
def narrow_indices(w, x, example, n):
    # A table longer than the type of its indices can count.
    ids = example["ids"].astype((jnp.uint8, jnp.int8)[n % 2])
    numbers = jax.lax.GatherDimensionNumbers((1,), (0,), (0,))
    mode = ("clip", "fill")[n // 2 % 2]
    table = w(300, x.shape[1])
    sizes = (1, x.shape[1])
    found = jax.lax.gather(table, ids[:, None], numbers, sizes, mode=mode, fill_value=0)
    return found + x[:1]


@step
def empty(w, x, example, n):
    return x + (x[:0] @ w(x.shape[1], 3)).sum() + (w(2, 0) @ w(0, 3)).sum()


@step
def switched(w, x, example, n):
    a = w(x.shape[1], x.shape[1])
    branches = [lambda x: x @ a, lambda x: x * a[0], lambda x: a[1] - x]
    return jax.lax.switch(jnp.abs(example["ids"][0]) % 3, branches, x)


@step
def sorted_up(w, x, example, n):
    return jnp.cumsum(jnp.sort(x * w(x.shape[1]), n % 2), 0)


@step
def solved(w, x, example, n):
    a = w(x.shape[1], x.shape[1])
    return jnp.linalg.solve(2 * jnp.eye(len(a)) + a @ a.T + x.T @ x, x.T).T


@step
def mapped(w, x, example, n):
    weight = w(x.shape[1], 3)
    return jax.lax.map(lambda row: jnp.tanh(row @ weight) @ weight.T, x)


@step
def indexed_in_a_loop(w, x, example, n):
    stack, shift = w(3, x.shape[1], x.shape[1]), w(3, x.shape[1])

    def body(x, i):
        return jnp.tanh(x @ stack[i] + shift[i]), stack[i].sum(0) * x[0]

    x, sums = jax.lax.scan(body, x, jnp.arange(3))
    return jnp.concatenate([x, sums])


@step
def written_into(w, x, example, n):
    weight = w(1, x.shape[1])
    place = jnp.abs(example["ids"][1]) % len(x)
    return x.at[place].set(weight[0]) + weight.at[0].mul(x[0])


@step
def one_step_inside(w, x, example, n):
    weight = w(x.shape[1], 3)
    slope = jax.grad(lambda v: jnp.sum(jnp.tanh(x @ v) ** 2))(weight)
    return x @ (weight - 0.1 * slope)


@step
def weight_by_position(w, x, example, n):
    y = jnp.einsum("td,tde->te", x, w(*x.shape, 3))
    return jnp.einsum("td,te,def->tf", x, y, w(x.shape[1], 3, 2))


def program(steps, choices):
    """The loss of a list of steps, and its parameters."""
    leaves = []

    def loss_fn(params, example, key, growing=False):
        weights = Weights(leaves if growing else params, choices, growing)
        x = example["x"]
        for name, number in steps:
            x = STEPS[name](weights, x, example, number)
        x = x @ weights.new(x.shape[1], 1)
        return jnp.sum(jnp.tanh(x)) + 0.3 * jnp.sum(x * x)

    jax.eval_shape(functools.partial(loss_fn, growing=True), [], one_of(examples()), 0)
    return loss_fn, leaves


def examples():
    """The batch: rows of numbers, and indices of which some are out of range."""
    rng = np.random.default_rng(0)
    ids = np.array([[0, 3, 3, 1], [-1, 2, 2, 2], [5, 0, -6, 0]], np.int32)
    return {"x": jnp.asarray(rng.normal(size=(SIZE, 3, 4))), "ids": jnp.asarray(ids)}


def one_of(rows):
    """The shapes of one row."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), rows)


programs = strategies.lists(
    strategies.tuples(
        strategies.sampled_from(sorted(STEPS)), strategies.integers(0, 11)
    ),
    min_size=1,
    max_size=5,
)
numbers = strategies.lists(strategies.integers(0, 9), min_size=1, max_size=8)


def agree(ways, steps, choices):
    """Norms and sums of some ways against gradients of one example after the other."""
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        loss_fn, params = program(steps, choices)
        batch = examples()
        rows = jax.jit(jax.vmap(jax.grad(loss_fn), (None, 0, None)))(params, batch, 0)
        flat = [np.asarray(leaf).reshape(SIZE, -1) for leaf in rows]
        trusted = np.linalg.norm(np.concatenate(flat, 1), axis=1)
        clip_norm = float(np.median(trusted)) or 1.0

        # One compilation for all of them costs less than one for each.
        @jax.jit
        def every(params, batch):
            options = {"clip_norm": clip_norm}
            fs = [clipped_grad(loss_fn, **options, **WAYS[way]) for way in ways]
            return [f(params, batch) for f in fs]

        found = jax.tree.map(np.asarray, every(params, batch))
    factors = np.minimum(1, clip_norm / np.maximum(trusted, 1e-30))
    wanted = [np.tensordot(factors, np.asarray(each), 1) for each in rows]
    for way, (total, aux) in zip(ways, found, strict=True):
        assert (aux.norms >= trusted * (1 - 1e-9)).all(), way
        np.testing.assert_allclose(aux.norms, trusted, 1e-5, 1e-9, err_msg=way)
        for some, right in zip(total, wanted, strict=True):
            assert np.abs(some - right).max(initial=0) <= 1e-5 * clip_norm * SIZE, way


@pytest.mark.slow
def test_a_random_program():
    # Two uses of one parameter, one of them in a loop; the others are slow tests.
    agree(["product"], [("recurrent", 1), ("narrow_indices", 0)], [1, 0, 5])


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(STEPS))
def test_every_step_alone(name):
    agree(["product", "whole", "two_pass"], [("dense", 1), (name, 3)], [3])


def drawn(count):
    """So many programs, the same in every run."""
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )


@pytest.mark.slow
@pytest.mark.guard
@given(steps=programs, choices=numbers)
@drawn(8)
def test_random_programs(steps, choices):
    agree(WAYS, steps, choices)


@pytest.mark.slow
@given(steps=programs, choices=numbers)
@drawn(34)
def test_many_random_programs(steps, choices):
    agree(WAYS, steps, choices)
