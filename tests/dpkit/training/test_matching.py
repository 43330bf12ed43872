"""A sum without noise goes into the noise that matches it, and nowhere else."""

import contextlib
import functools
import re
from typing import Any, cast

import equinox
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as orbax
import pytest
from flax import nnx
from flax.training.train_state import TrainState
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from dpkit import Budget, BudgetExceeded, DPSGDPlan, Ledger
from dpkit.mechanisms import AutoS, ClippedSum
from dpkit.training import MaskedRows, as_optax, clipped_grad

pytestmark = pytest.mark.usefixtures("quick_compilation")
RECORDS = np.random.default_rng(0).normal(size=(120, 4)).astype(np.float32)
START = {"w": jnp.zeros(4), "b": jnp.zeros(())}
NUMBERS: dict[str, Any] = {
    "max_records": 120,
    "expected_batch_size": 30,
    "clip_norm": 1.0,
    "noise_multiplier": 1.0,
    "steps": 6,
}
PLAN = DPSGDPlan.create(**NUMBERS)
ROOT = jax.random.key(3)
ADVICE = re.escape("put as_optax(plan, root) first in the optimizer's chain")
OTHER = "make the sum with plan.gradient"


def loss(params, x, key):
    return (jnp.vdot(params["w"], x) + params["b"] - x.sum()) ** 2


@functools.cache
def first(plan=PLAN):
    return next(iter(plan.batches(ROOT, RECORDS)))


@functools.cache
def summed(plan=PLAN, **options):
    return jax.jit(plan.gradient(loss, **options))(START, first(plan))[0]


@contextlib.contextmanager
def one_line(words=ADVICE, kinds=(TypeError, ValueError)):
    """A refusal is one line with these words, whatever JAX would say about trees."""
    with pytest.raises(kinds, match=words) as caught:
        yield
    assert len(str(caught.value).splitlines()) == 1


def noised(total, plan=PLAN, inner=None):
    optimizer = optax.chain(as_optax(plan, ROOT), inner or optax.sgd(0.1))
    return optimizer.update(total, optimizer.init(START), START)


@pytest.mark.parametrize(
    "inner",
    [optax.sgd(0.1), optax.sgd(0.1, momentum=0.9), optax.adam(0.1), optax.adamw(0.1)],
    ids=["sgd", "momentum", "adam", "adamw"],
)
@pytest.mark.parametrize("compile", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_an_optimizer_without_noise_is_refused(inner, compile):
    total, state = summed(), inner.init(START)
    with one_line():
        compile(inner.update)(total, state, START)


SLIPS = {
    "apply_updates": lambda total: optax.apply_updates(START, total),
    "map": lambda total: jax.tree.map(lambda p, u: p - u, START, total),
    "other way": lambda total: jax.tree.map(lambda u, p: p - u, total, START),
    "one leaf": lambda total: jax.tree.map(lambda p, u: p - u, jnp.ones(4), total),
    "scaled": lambda total: jax.tree.map(lambda u: 0.1 * u, total),
    "scaled by an array": lambda total: jax.tree.map(
        lambda u: jnp.float32(0.1) * u, total
    ),
    "negated": lambda total: jax.tree.map(lambda u: -u, total),
    "added": lambda total: jax.tree.map(jnp.add, total, total),
    "summed": lambda total: jax.tree.map(jnp.sum, total),
    "operator": lambda total: 0.1 * total,
    "division": lambda total: total / 30,
    "subtraction": lambda total: jnp.ones(4) - total,
    "jnp": jnp.sum,
    "numpy": np.asarray,
    "entry": lambda total: total["w"],
    "rows": list,
    "floor": lambda total: total // 2,
    "scan": lambda total: jax.lax.scan(lambda c, _: (total, None), START, None, 2),
    "loop": lambda total: jax.lax.fori_loop(0, 2, lambda i, c: total, START),
    "branch": lambda total: jax.lax.cond(True, lambda: total, lambda: START),
    "axes": lambda total: jax.vmap(lambda t: 0, in_axes=({"w": 0, "b": 0},))(total),
    "device mean": lambda total: jax.shard_map(
        lambda t: jax.lax.pmean(t, "data"), mesh=jax.make_mesh((2,), ("data",)),
        in_specs=PartitionSpec(), out_specs=PartitionSpec(), check_vma=False,
    )(total),
    "gradient": lambda total: jax.grad(
        lambda p: jax.jit(PLAN.gradient(loss))(p, first(PLAN))[0]
    )(START),
    "gradient of it": lambda total: jax.grad(lambda t: 0.0)(total),
}  # fmt: skip


@pytest.mark.parametrize("slip", SLIPS)
@pytest.mark.parametrize("compile", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_what_is_done_with_a_sum_but_noising_it_says_what_to_write(slip, compile):
    with one_line():
        compile(SLIPS[slip])(summed())


def test_a_sum_has_nothing_that_parameters_have():
    total: Any = summed()
    for name in ("w", "items", "weight", "shape"):
        with one_line(f"{name}.*{ADVICE}", AttributeError):
            getattr(total, name)
    same: Any = type(total)
    assert same == ClippedSum and not same != ClippedSum and same not in (dict, list)


def test_a_mean_and_a_norm_and_a_cast_of_a_sum_are_refused():
    """JAX's own words: a key has no mean."""
    for slip in (jnp.mean, lambda u: u.astype(jnp.bfloat16)):
        with pytest.raises((TypeError, NotImplementedError)):
            jax.tree.map(slip, summed())
    with pytest.raises((TypeError, NotImplementedError)):
        optax.tree.norm(summed())


def test_two_sums_are_not_added():
    with pytest.raises(TypeError, match=r"microbatch=.*optax\.MultiSteps behind"):
        summed() + summed()


@pytest.mark.slow
@pytest.mark.guard
def test_steps_are_averaged_behind_the_noise_and_not_around_it():
    inner = optax.MultiSteps(optax.sgd(0.1), 2).gradient_transformation()
    optimizer = optax.chain(as_optax(PLAN, ROOT), inner)
    plain = as_optax(PLAN, ROOT)
    noise: Any = plain.update
    state, bare = optimizer.init(START), plain.init(START)
    means: list[Any] = []
    gradient = jax.jit(PLAN.gradient(loss))
    for batch in list(PLAN.batches(ROOT, RECORDS))[:2]:
        total, _ = gradient(START, batch)
        update, state = jax.jit(optimizer.update)(total, state, START)
        mean, bare = noise(total, bare, START)
        means.append(mean["w"])
    np.testing.assert_allclose(update["w"], -0.1 * sum(means) / 2, rtol=1e-5)
    around = optax.MultiSteps(optax.chain(plain, optax.sgd(0.1)), 2)
    with one_line(r"optax\.MultiSteps behind it"):
        around.update(total, around.init(START), START)


@pytest.mark.parametrize(
    ("gradient", "words"),
    [
        (clipped_grad(loss, clip_norm=5.0), r"clip_norm=5\.0.*clip_norm=1\.0"),
        (clipped_grad(loss, clip=AutoS(1.0)), OTHER),
        (PLAN.with_noise(2.0).gradient(loss), None),
        (DPSGDPlan.create(**NUMBERS | {"clip_norm": 0.5}).gradient(loss), OTHER),
        (DPSGDPlan.create(**NUMBERS, quantile=0.5).gradient(loss), None),
    ],
    ids=["norm", "function", "same", "plan", "quantile"],
)
def test_a_sum_that_was_clipped_otherwise_is_refused(gradient, words):
    batch = first()
    if isinstance(gradient, type(clipped_grad(loss, clip_norm=1.0))):
        total, _ = jax.eval_shape(gradient, START, batch.rows, batch.mask)
    elif gradient.stream.clip_moves:
        with pytest.raises(ValueError, match="state=state"):
            gradient(START, batch)
        memory = gradient.stream.init(START)
        total, _ = jax.eval_shape(gradient.at, memory, START, batch, None)
        words = OTHER
    elif words is None:
        noised(jax.jit(gradient)(START, batch)[0])
        return
    else:
        total, _ = jax.eval_shape(gradient, START, batch)
    with pytest.raises(ValueError, match=words):
        noised(total)
    with pytest.raises(ValueError, match=words):
        jax.jit(noised)(total)


def test_a_clip_norm_that_is_an_array_needs_a_plan():
    from dpkit.mechanisms import Flat

    gradient = clipped_grad(loss, clip=Flat(jnp.float32(1.0)))
    total, _ = jax.eval_shape(gradient, START, *first())
    with pytest.raises(ValueError, match="norm that is an array"):
        noised(total)


def test_a_batch_without_its_mask_is_refused():
    batch, gradient = first(), cast(Any, PLAN.gradient(loss))
    for lost in (batch.rows, MaskedRows(batch.rows, None), tuple(batch)):
        with pytest.raises(TypeError, match="has no mask"):
            gradient(START, lost)
    bare: Any = clipped_grad(loss, clip_norm=1.0)
    with pytest.raises(TypeError, match="mask"):
        bare(START, batch.rows)
    total, _ = jax.eval_shape(bare, START, batch.rows, None)
    with pytest.raises(ValueError, match=r"mask=None for \d+ rows.*batch.mask"):
        noised(total)
    noised(jax.jit(bare)(START, batch.rows, batch.mask)[0])


def test_a_tree_is_no_sum():
    with pytest.raises(TypeError, match=r"ClippedSum of plan\.gradient"):
        noised(START)
    clipped = optax.chain(optax.clip(1.0), as_optax(PLAN, ROOT))
    with pytest.raises((TypeError, NotImplementedError)):
        clipped.update(summed(), clipped.init(START), START)


def test_a_plan_clips_as_it_says_whatever_a_caller_wants():
    for name, value in (("clip_norm", 5.0), ("clip", AutoS(1.0))):
        with pytest.raises(TypeError, match=f"{name}=.*the plan has its own"):
            PLAN.gradient(loss, **{name: value})


MOVING: dict[str, dict[str, Any]] = {
    "quantile": {**NUMBERS, "clip_norm": 0.1, "quantile": 0.5},
    "schedule": {**NUMBERS, "clip_norm": ((3, 1.0), (3, 0.25))},
}


@pytest.mark.parametrize("name", MOVING)
def test_a_clip_norm_that_moves_follows_the_state_of_the_noise(name):
    plan = DPSGDPlan.create(**MOVING[name])
    tx, gradient = as_optax(plan, ROOT), plan.gradient(loss, mode="vmap")
    optimizer = optax.chain(tx, optax.sgd(0.1))

    @jax.jit
    def step(params, state, batch, clipped_by):
        total, _ = gradient(params, batch, state=clipped_by)
        updates, state = optimizer.update(total, state, params)
        return optax.apply_updates(params, updates), state, total.limit

    params, state, limits = START, optimizer.init(START), []
    before = last = state
    for batch in plan.batches(ROOT, RECORDS):
        last = state
        params, state, limit = step(params, state, batch, state)
        limits.append(float(limit))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    if name == "schedule":
        assert limits == [1.0] * 3 + [0.25] * 3
    else:
        assert limits[0] == pytest.approx(0.1) and len(set(limits)) == 6
    # A sum of the first step, noised as if it were of the last.
    moved, _, _ = step(START, last, first(plan), before)
    assert all(np.isnan(leaf).all() for leaf in jax.tree.leaves(moved))


def test_a_stale_clip_norm_releases_nothing_within_the_plan():
    plan = DPSGDPlan.create(**MOVING["schedule"])
    tx: Any = as_optax(plan, ROOT)
    gradient = plan.gradient(loss, mode="vmap")
    start = tx.init(START)
    late = start._replace(step=start.step + 4, memory=start.memory + 4)
    total, _ = jax.jit(gradient)(START, first(plan), state=start)
    assert np.isfinite(tx.update(total, start, START)[0]["w"]).all()
    assert np.isnan(tx.update(total, late, START)[0]["w"]).all()


@pytest.mark.slow
@pytest.mark.guard
def test_a_loop_goes_on_from_a_checkpoint_as_if_it_had_never_stopped(tmp_path):
    """Orbax keeps parameters and the optimizer's state; the noise is in it."""
    plan = DPSGDPlan.create(**MOVING["quantile"])
    optimizer = optax.chain(as_optax(plan, ROOT), optax.adam(0.1))
    gradient = plan.gradient(loss, mode="vmap")

    @jax.jit
    def step(kept, batch):
        params, state = kept
        total, _ = gradient(params, batch, state=state)
        updates, state = optimizer.update(total, state, params)
        return optax.apply_updates(params, updates), state

    def words(kept):
        leaves = jax.tree.leaves((kept[0], kept[1][1], kept[1][0].memory))
        return [np.asarray(leaf).tobytes() for leaf in leaves]

    # Placed as what is restored will be: one program for both.
    start = jax.device_put((START, optimizer.init(START)), jax.devices()[0])
    batches, kept = list(plan.batches(ROOT, RECORDS)), start
    for number, batch in enumerate(batches):
        if number == 3:
            with orbax.StandardCheckpointer() as checkpointer:
                checkpointer.save(tmp_path / "kept", kept)
        kept = step(kept, batch)
    with orbax.StandardCheckpointer() as checkpointer:
        again = checkpointer.restore(tmp_path / "kept", jax.tree.map(jnp.copy, start))
    assert int(again[1][0].step) == 3
    for number in range(3, plan.steps):
        again = step(again, MaskedRows(*batches[number]))
    assert words(again) == words(kept)
    # A sum that has no noise yet is not to be read from a disk.
    with pytest.raises(ValueError, match=ADVICE):
        with orbax.StandardCheckpointer() as checkpointer:
            checkpointer.save(tmp_path / "sum", summed())
        with orbax.StandardCheckpointer() as checkpointer:
            checkpointer.restore(tmp_path / "sum", jax.eval_shape(summed))


def test_two_sums_from_one_state_differ_by_what_they_differ():
    """Why a state is used once, as `as_optax` says: the noise is the same."""
    transformation: Any = as_optax(PLAN, ROOT)
    state, gradient = transformation.init(START), jax.jit(PLAN.gradient(loss))
    sums = [
        gradient(START, batch)[0] for batch in list(PLAN.batches(ROOT, RECORDS))[:2]
    ]
    one, two = (transformation.update(total, state, START)[0]["w"] for total in sums)
    bare = [np.asarray(total.private_value["w"]) / 30 for total in sums]
    np.testing.assert_allclose(one - two, bare[0] - bare[1], atol=1e-5)
    _, later = transformation.update(sums[0], state, START)
    two = transformation.update(sums[1], later, START)[0]["w"]
    assert np.abs((one - two) - (bare[0] - bare[1])).min() > 1e-4


@pytest.mark.slow
@pytest.mark.guard
def test_a_sum_crosses_compiled_programs_and_may_be_donated():
    split = jax.jit(PLAN.gradient(loss, mode="vmap"))
    total, _ = split(START, first())
    assert isinstance(total, ClippedSum)
    whole, _ = jax.jit(noised)(total)
    donated, _ = jax.jit(noised, donate_argnums=0)(total)
    assert whole["w"].tobytes() == donated["w"].tobytes()
    assert (jax.eval_shape(split, START, first())[0]).clipping == total.clipping


def test_state_and_parameters_may_be_donated():
    """The root stays: the next batches are drawn with it."""
    optimizer = optax.chain(as_optax(PLAN, ROOT), optax.sgd(0.1, momentum=0.9))

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, batch):
        total, _ = PLAN.gradient(loss, mode="vmap")(params, batch)
        updates, state = optimizer.update(total, state, params)
        return optax.apply_updates(params, updates), state

    kept: Any = jax.tree.map(jnp.copy, START), optimizer.init(START)
    for batch in PLAN.batches(ROOT, RECORDS):
        kept = step(*kept, batch)
    assert int(kept[1][0].step) == PLAN.steps


def test_what_flax_takes_apart_is_told_how_to_stay_whole():
    model = nnx.Linear(4, 1, rngs=nnx.Rngs(0))
    chain = optax.chain(as_optax(PLAN, ROOT), optax.sgd(0.1))
    optimizer = nnx.Optimizer(model, chain, wrt=nnx.Param)
    with one_line("nnx.split the model, and give sum and parameters to the optax"):
        optimizer.update(model, summed())


@functools.cache
def mesh_free():
    update = jax.jit(functools.partial(noised, inner=optax.adam(0.1)))
    return update(summed(mode="vmap"))[0]


@pytest.mark.slow
@pytest.mark.guard
@pytest.mark.parametrize("types", [AxisType.Auto, AxisType.Explicit])
def test_a_sum_is_noised_on_a_mesh_as_without_one(types):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(types,))
    gradient = PLAN.gradient(loss, mode="vmap", mesh=mesh)
    batch = first()
    pad = len(batch.mask) % 2
    batch = MaskedRows(
        np.pad(batch.rows, ((0, pad), (0, 0))), np.pad(batch.mask, (0, pad))
    )
    rows = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))
    params = jax.device_put(START, NamedSharding(mesh, PartitionSpec()))
    optimizer = optax.chain(as_optax(PLAN, ROOT), optax.adam(0.1))

    @jax.jit
    def step(params, batch):
        total, _ = gradient(params, batch)
        return optimizer.update(total, optimizer.init(params), params)[0]

    want = mesh_free()
    np.testing.assert_allclose(step(params, rows)["w"], want["w"], rtol=1e-4)


def test_a_loop_is_charged_before_its_first_batch_and_settled_after_its_last():
    def ledger(epsilon):
        return Ledger.open(
            None, budget=Budget(epsilon, 1e-5), relation="add_remove",
            unit="example", dataset="toy 1",
        )  # fmt: skip

    poor = ledger(0.1)
    with pytest.raises(BudgetExceeded):
        next(iter(PLAN.batches(ROOT, RECORDS, ledger=poor)))
    rich = ledger(100.0)
    for _ in PLAN.batches(ROOT, RECORDS, ledger=rich, label="mine"):
        kinds = [entry.kind for entry in rich.entries()]
        assert kinds == ["genesis", "reserve"]
    assert [entry.kind for entry in rich.entries()][-1] == "commit"
    want = PLAN.epsilon(1e-5, relation="add_remove").upper
    assert rich.spent().upper == pytest.approx(want, rel=1e-9)
    left = ledger(100.0)
    for _ in PLAN.batches(ROOT, RECORDS, ledger=left):
        break
    assert left.spent().upper == pytest.approx(want, rel=1e-9)


def test_batches_of_records_are_the_batches_of_their_number():
    pairs = zip(
        PLAN.batches(ROOT, {"x": RECORDS}),
        PLAN.batches(ROOT, num_records=120),
        strict=True,
    )
    for rows, batch in pairs:
        assert np.array_equal(rows.rows["x"], RECORDS[batch.indices])
        assert np.array_equal(rows.mask, batch.mask)
    for wrong in ({}, {"records": RECORDS, "num_records": 120}, {"records": 120}):
        with pytest.raises(TypeError, match="num_records="):
            cast(Any, PLAN.batches)(ROOT, **wrong)


def test_more_or_fewer_rows_than_a_batch_has_are_refused():
    """All records with a mask that is all True are no Poisson batch."""
    gradient, slots = PLAN.gradient(loss), PLAN.sampler.max_batch_size
    pad = jax.device_count() - 1  # what rows may be padded by for a mesh

    def total(rows, filled):
        mask = np.arange(rows) < filled
        return gradient(START, MaskedRows(np.resize(RECORDS, (rows, 4)), mask))[0]

    for rows in (slots - 1, slots + pad + 1, 10 * slots):
        with pytest.raises(ValueError, match=rf"{rows} rows.*{slots} slots"):
            jax.eval_shape(lambda rows=rows: noised(total(rows, rows)))
    for rows in (slots, slots + pad):
        jax.eval_shape(lambda rows=rows: noised(total(rows, slots)))


def test_rows_without_a_mask_are_no_batch_of_a_plan():
    """Whatever their number: some of them may be padding that was not told apart."""
    plan = DPSGDPlan.create(**NUMBERS | {"max_batch_size": 45})
    bare: Any = clipped_grad(loss, clip_norm=1.0)
    batch = first(plan)
    for rows in (batch.rows, batch.rows[:-1], batch.rows[batch.mask]):
        with pytest.raises(ValueError, match=r"mask=None.*batch\.mask"):
            jax.eval_shape(lambda rows=rows: noised(bare(START, rows, None)[0], plan))


def test_stacked_sums_are_refused():
    """Neither with parameters beside them, nor without."""
    batch = first()
    mapped = jax.jit(jax.vmap(PLAN.gradient(loss, mode="vmap"), (None, None, 0)))
    keys = jax.random.split(jax.random.key(0), (3, len(batch.mask)))
    stacked, _ = mapped(START, batch, keys)
    transformation: Any = as_optax(PLAN, ROOT)
    state = transformation.init(START)
    for params in (START, None):
        for update in (transformation.update, jax.jit(transformation.update)):
            with pytest.raises(ValueError, match=r"\(3,\).* sums.*one batch"):
                update(stacked, state, params)
    # One of them again is one.
    transformation.update(jax.tree.map(lambda leaf: leaf[0], stacked), state, START)
    # As are those that are made and noised inside of one program.
    gradient = PLAN.gradient(loss, mode="vmap")
    jax.eval_shape(
        jax.vmap(
            lambda k: transformation.update(gradient(START, batch, k)[0], state, START)
        ),
        keys,
    )


def test_a_sum_of_other_shapes_than_the_parameters_is_refused():
    total = summed()
    other = {"w": jnp.zeros(5), "b": jnp.zeros(())}
    transformation: Any = as_optax(PLAN, ROOT)
    with pytest.raises(ValueError, match=r"\['w'\].*\(4,\).*\(5,\)"):
        transformation.update(total, transformation.init(other), other)


def floating(leaf):
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)


HALVED = {
    "a map over floating leaves": lambda total: jax.tree.map(
        lambda leaf: 0.01 * leaf if floating(leaf) else leaf, total
    ),
    "equinox": lambda total: jax.tree.map(
        lambda leaf: None if leaf is None else 0.01 * leaf,
        equinox.filter(total, equinox.is_inexact_array),
        is_leaf=lambda leaf: leaf is None,
    ),
    "equinox, put together": lambda total: equinox.combine(
        *(
            lambda dynamic, static: (
                jax.tree.map(lambda leaf: 0.01 * leaf, dynamic),
                static,
            )
        )(*equinox.partition(total, equinox.is_inexact_array))
    ),
}


@pytest.mark.parametrize("way", HALVED)
def test_code_that_picks_floating_leaves_finds_none_in_a_sum(way):
    """Such code would change a sum before its noise: nothing changes, or an error."""
    total = summed()
    assert not any(floating(leaf) for leaf in jax.tree.leaves(total))
    try:
        changed = HALVED[way](total)
        update, _ = noised(changed)
    except (TypeError, ValueError):
        return
    assert update["w"].tobytes() == noised(total)[0]["w"].tobytes()


BEFORE = {
    "clip": optax.clip(1.0),
    "clip_by_global_norm": optax.clip_by_global_norm(1.0),
    "clip_by_block_rms": optax.clip_by_block_rms(1.0),
    "normalize_by_update_norm": optax.normalize_by_update_norm(),
    "scale": optax.scale(0.01),
    "scale_by_learning_rate": optax.scale_by_learning_rate(0.01),
    "scale_by_schedule": optax.scale_by_schedule(lambda step: 0.01),
    "trace": optax.trace(0.9),
    "ema": optax.ema(0.9),
    "scale_by_adam": optax.scale_by_adam(),
    "scale_by_sign": optax.scale_by_sign(),
    "add_decayed_weights": optax.add_decayed_weights(0.1),
    "add_noise": optax.add_noise(0.1, 0.1, 0),
    "masked": optax.masked(optax.scale(0.01), {"w": True, "b": False}),
}
TREES = {
    "scale": lambda total: optax.tree.scale(0.01, total),
    "mul": lambda total: optax.tree.mul(total, total),
    "add": lambda total: optax.tree.add(total, total),
    "sub": lambda total: optax.tree.sub(START, total),
    "add_scale": lambda total: optax.tree.add_scale(START, 0.01, total),
    "norm": optax.tree.norm,
    "vdot": lambda total: optax.tree.vdot(total, total),
    "clip": lambda total: optax.tree.clip(total, -1.0, 1.0),
    "cast": lambda total: optax.tree.cast(total, jnp.bfloat16),
}


@pytest.mark.parametrize("name", BEFORE)
@pytest.mark.parametrize("compile", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_nothing_stands_before_the_noise(name, compile):
    total = summed()
    optimizer = optax.chain(BEFORE[name], as_optax(PLAN, ROOT))
    with pytest.raises((TypeError, ValueError, NotImplementedError, AssertionError)):
        compile(optimizer.update)(total, optimizer.init(START), START)


@pytest.mark.parametrize("name", TREES)
def test_optax_has_no_arithmetic_on_a_sum(name):
    with pytest.raises((TypeError, ValueError, NotImplementedError, AssertionError)):
        TREES[name](summed())


def test_a_train_state_of_flax_takes_a_sum_through_its_noise_alone():
    def state(optimizer):
        return TrainState.create(apply_fn=lambda: None, params=START, tx=optimizer)

    with one_line():
        state(optax.sgd(0.1)).apply_gradients(grads=summed())
    private = state(optax.chain(as_optax(PLAN, ROOT), optax.sgd(0.1)))
    params: Any = private.apply_gradients(grads=summed()).params
    want: Any = optax.apply_updates(START, noised(summed())[0])
    assert params["w"].tobytes() == want["w"].tobytes()
    with one_line():
        equinox.apply_updates(START, summed())
