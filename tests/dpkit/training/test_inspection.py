"""Losses and parameters that have no clipped gradient, or leak, are refused."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from dpkit.training.inspection import check_loss
from tests.bare import clipped_grad


def call(loss, params=None, example_shape=(4,), **options):
    params = jnp.ones(4) if params is None else params
    f = jax.jit(clipped_grad(loss, clip_norm=1.0, **options))
    return f(params, jnp.ones((2, *example_shape)))


def test_a_loss_over_a_batch_is_refused():
    with pytest.raises(ValueError, match="ONE example"):
        call(lambda w, x, key: w * x)


def test_a_loss_with_batch_statistics_is_refused():
    class Normalised(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.BatchNorm(use_running_average=False)(nn.Dense(3)(x)).sum()

    model = Normalised()
    variables = jax.jit(model.init)(jax.random.key(0), jnp.ones((1, 4)))
    stats = variables["batch_stats"]

    def returning_state(params, x, key):
        given = {"params": params, "batch_stats": stats}
        return model.apply(given, x[None], mutable=["batch_stats"])

    def hiding_state(params, x, key):
        return returning_state(params, x, key)[0]

    with pytest.raises(TypeError, match="GroupNorm"):
        call(returning_state, variables["params"])
    with pytest.raises(ValueError, match="GroupNorm"):
        call(hiding_state, variables["params"])


def equinox_loss():
    """Equinox's layer, mapped over a batch of one; its state is dropped."""

    class Normalised(eqx.Module):
        dense: eqx.nn.Linear
        norm: eqx.nn.BatchNorm

        def __init__(self, key):
            self.dense = eqx.nn.Linear(4, 3, key=key)
            self.norm = eqx.nn.BatchNorm(3, axis_name="rows", mode="batch")

        def __call__(self, x, state):
            return self.norm(self.dense(x), state)

    model, state = eqx.nn.make_with_state(Normalised)(jax.random.key(0))
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def loss(params, x, key):
        model = eqx.combine(params, static)
        mapped = jax.vmap(model, (0, None), (0, None), axis_name="rows")
        out, _ = mapped(x[None], state)
        return jnp.sum(jnp.tanh(out))

    return loss, params


def nnx_loss():
    """Flax NNX's layer on a batch of one; its state is dropped."""

    class Normalised(nnx.Module):
        def __init__(self, rngs):
            self.dense = nnx.Linear(4, 3, rngs=rngs)
            self.norm = nnx.BatchNorm(3, rngs=rngs)

        def __call__(self, x):
            return self.norm(self.dense(x))

    graph, params, rest = nnx.split(Normalised(nnx.Rngs(0)), nnx.Param, ...)

    def loss(params, x, key):
        model = nnx.merge(graph, params, rest, copy=True)
        return jnp.sum(jnp.tanh(model(x[None])))

    return loss, params


@pytest.mark.parametrize("make", [equinox_loss, nnx_loss])
def test_batch_norm_of_every_library_is_refused(make):
    loss, params = make()
    with (
        jax.numpy_rank_promotion("allow"),
        pytest.raises((ValueError, TypeError), match="GroupNorm"),
    ):
        call(loss, params)


def test_layer_and_group_norm_pass():
    class Normalised(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.LayerNorm()(nn.Dense(8)(x))
            return nn.GroupNorm(num_groups=2)(x).sum()

    model = Normalised()
    params = jax.jit(model.init)(jax.random.key(0), jnp.ones((1, 4)))["params"]
    total, _ = call(lambda p, x, key: model.apply({"params": p}, x[None]), params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(total))


def test_a_mean_over_a_batch_of_one_example_is_fine():
    total, _ = call(lambda w, x, key: jnp.mean(x[None] @ w))
    assert total.shape == (4,)


def test_a_reduction_over_a_unit_batch_axis_is_pointed_out():
    with pytest.warns(UserWarning, match="leading axis"):
        call(lambda w, x, key: (x[None].sum(0) * w).sum())


@pytest.mark.parametrize("axes", ["data", ("model", "data")])
def test_a_batch_divided_inside_the_loss_is_refused(axes):
    mesh = jax.sharding.Mesh(
        np.array(jax.devices()[:2]).reshape(2, 1), ("data", "model")
    )
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(axes))

    def loss(w, x, key):
        return jnp.vdot(w, jax.lax.with_sharding_constraint(x, place))

    with pytest.raises(ValueError, match="move this out of the loss"):
        call(loss, mesh=mesh)


@pytest.mark.parametrize("collective", [jax.lax.psum, jax.lax.all_gather])
def test_a_loss_that_sees_the_batch_of_other_devices_is_refused(collective):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("data",))
    split = jax.sharding.PartitionSpec("data")

    def loss(w, x, key):
        return jnp.vdot(w, collective(x, "data").reshape(-1, 4).sum(0))

    f = jax.shard_map(
        lambda x: clipped_grad(loss, clip_norm=1.0)(jnp.ones(4), x)[0][None],
        mesh=mesh,
        in_specs=split,
        out_specs=split,
        check_vma=False,
    )
    with pytest.raises(ValueError, match="must not see others"):
        jax.jit(f)(jnp.ones((2, 4)))


def test_a_model_divided_inside_the_loss_passes():
    mesh = jax.sharding.Mesh(
        np.array(jax.devices()[:2]).reshape(1, 2), ("data", "model")
    )
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("model"))

    def loss(w, x, key):
        return jnp.vdot(w, jax.lax.with_sharding_constraint(x, place))

    total, _ = call(loss)
    np.testing.assert_allclose(total, 1.0)


@pytest.mark.parametrize("mode", ["auto", "two_pass"])
def test_a_loss_without_the_example_or_the_parameters_is_refused(mode):
    with pytest.raises(ValueError, match="does not depend on the example"):
        call(lambda w, x, key: jnp.sum(w**2), mode=mode)
    with pytest.raises(ValueError, match="does not depend on params"):
        call(lambda w, x, key: jnp.sum(x), mode=mode)
    with pytest.raises(ValueError, match="does not depend on params"):
        call(lambda w, x, key: jnp.vdot(jnp.round(w).astype(int), x), mode=mode)


@pytest.mark.parametrize("name", ["print", "pure", "io"])
def test_callbacks_in_the_loss_are_refused_unless_allowed(name):
    seen = []

    def loss(w, x, key):
        value = jnp.vdot(w, x)
        if name == "print":
            jax.debug.callback(lambda v: seen.append(v), value)
        elif name == "io":
            jax.experimental.io_callback(lambda v: seen.append(v), None, value)
        else:
            shape = jax.ShapeDtypeStruct((), value.dtype)
            extra = jax.pure_callback(np.abs, shape, jax.lax.stop_gradient(x[0]))
            value = value + jax.lax.stop_gradient(extra)
        return value

    with pytest.raises(ValueError, match="side effects"):
        call(loss)
    assert seen == []
    if name == "print":
        call(loss, allow_effects=True)
        jax.effects_barrier()
        assert len(seen) == 2


def leaking_vjp(seen):
    @jax.custom_vjp
    def product(w, x):
        return jnp.vdot(w, x)

    def forward(w, x):
        return jnp.vdot(w, x), (w, x)

    def backward(kept, g):
        jax.debug.callback(seen.append, kept[1])
        return g * kept[1], g * kept[0]

    product.defvjp(forward, backward)
    return product


def leaking_jvp(seen):
    @jax.custom_jvp
    def product(w, x):
        return jnp.vdot(w, x)

    @product.defjvp
    def rule(primals, tangents):
        jax.debug.callback(seen.append, primals[1])
        return product(*primals), jnp.vdot(tangents[0], primals[1])

    return product


@pytest.mark.parametrize("make", [leaking_vjp, leaking_jvp])
def test_callbacks_in_a_derivative_rule_are_refused(make):
    seen = []
    product = make(seen)
    with pytest.raises(ValueError, match="side effects"):
        call(lambda w, x, key: product(w, x))
    jax.effects_barrier()
    assert seen == []


def test_batching_rules_of_ones_own_are_refused():
    @jax.custom_batching.custom_vmap
    def centred(x):
        return x

    @centred.def_vmap
    def rule(size, batched, x):
        return x - size * x.mean(0), True

    with pytest.raises(ValueError, match="custom_vmap_call"):
        call(lambda w, x, key: jnp.vdot(w, centred(x)))


def test_foreign_calls_are_refused():
    def loss(w, x, key):
        shape = jax.ShapeDtypeStruct((), x.dtype)
        spread = jax.ffi.ffi_call("anything", shape, vmap_method="broadcast_all")
        return jnp.vdot(w, x) + spread(jax.lax.stop_gradient(x))

    with pytest.raises(ValueError, match="ffi_call"):
        call(loss)


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg"])
def test_generators_whose_numbers_depend_on_the_batch_are_refused(impl):
    inside = jax.random.key(0, impl=impl)

    def loss(w, x, key):
        own = jax.random.fold_in(inside if key is None else key, 1)
        return jnp.vdot(w, x * jax.random.bernoulli(own, 0.5, x.shape))

    with pytest.raises(ValueError, match="depend on the whole batch"):
        call(loss)
    keys = jax.random.split(inside, 2)
    with pytest.raises(TypeError, match="depend on the whole batch"):
        clipped_grad(loss, clip_norm=1.0)(jnp.ones(4), jnp.ones((2, 4)), keys=keys)


@pytest.mark.parametrize(
    "leaf", [jnp.ones(4, jnp.complex64), jnp.ones(4, jnp.int32), jnp.ones(4, bool)]
)
def test_leaves_that_are_not_real_are_refused(leaf):
    with pytest.raises(TypeError, match="floating"):
        call(lambda p, x, key: jnp.real(p["w"] @ x), {"w": leaf})


def test_no_parameters_at_all_are_refused():
    with pytest.raises(ValueError, match="nothing to train"):
        call(lambda p, x, key: x.sum(), {})


def test_an_integer_loss_is_refused():
    with pytest.raises(TypeError, match="real"):
        call(lambda w, x, key: jnp.int32(1))


def jitted(loss):
    """The loss behind a call."""
    return jax.jit(loss)


def jitted_twice(loss):
    """The loss behind two calls, and its result used further."""
    inner = jax.jit(loss)
    return jax.jit(lambda p, x, key: 2.0 * inner(p, x, key))


@pytest.mark.parametrize("wrap", [lambda loss: loss, jitted, jitted_twice])
def test_parameters_that_the_loss_does_not_use_are_pointed_out(wrap):
    params = {"b": jnp.ones(4), "c": [jnp.ones(4)], "w": jnp.ones(4)}

    def check(loss):
        check_loss(wrap(loss), params, jax.ShapeDtypeStruct((4,), jnp.float32), None)

    words = r"doesn't use params\['b'\], params\['c'\]\[0\]: noise alone"
    with pytest.warns(UserWarning, match=words):
        check(lambda p, x, key: jnp.vdot(p["w"], x))
    # What is only computed isn't used.
    with pytest.warns(UserWarning, match=words):
        check(lambda p, x, key: (p["b"] + p["c"][0], jnp.vdot(p["w"], x))[1])
    # A warning would be an error here.
    check(lambda p, x, key: jnp.vdot(p["w"] * p["b"] + p["c"][0], x))


def test_parameters_that_only_inner_programs_use_count_as_used():
    params = {"b": jnp.ones(4), "c": jnp.ones(4), "w": jnp.ones(4)}

    def loss(p, x, key):
        y = jax.lax.cond(x[0] > 0, lambda: p["b"] * x, lambda: x)
        y, _ = jax.lax.scan(lambda y, _: (y * p["c"], None), y, None, length=2)
        return jnp.vdot(jax.checkpoint(lambda y: y * p["w"])(y), x)

    check_loss(loss, params, jax.ShapeDtypeStruct((4,), jnp.float32), None)
