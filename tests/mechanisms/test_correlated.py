"""Correlated noise: streams against dense matrices, their law, privacy and refusals."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, NonPrivateDpEvent
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dpkit.accountants.answers.relations import Relation
from dpkit.accountants.readings import pld
from dpkit.mechanisms import (
    BallsInBinsSampler,
    CyclicSampler,
    FixedSizeSampler,
    FullBatchSampler,
    PoissonSampler,
    Stream,
)
from dpkit.mechanisms.clips import AutoS
from dpkit.mechanisms.correlated import CorrelatedSum, participation_of
from dpkit.mechanisms.factorisation import Cyclic, MinSeparation, SinglePass
from dpkit.mechanisms.noise import chacha_key, gaussian_noise
from dpkit.mechanisms.strategies import Banded, Buffered, SquareRoot
from tests import conformance
from tests.audit import audit, falsified
from tests.oracles import factorisation as oracle
from tests.oracles.mixture import gaussian

STEPS = 7
STRATEGIES: list[Any] = [
    Banded((1.0,)),
    Banded((1.0, 0.5, 0.375)),
    Banded((1.0, *np.linspace(0.9, 0.1, 11).tolist())),
    Buffered((0.9, 0.25), (0.25, 0.5)),
    SquareRoot(),
]


def slow_but(numbers, of):
    """Strategies, all but those numbers for the slow run."""
    marks = [() if n in numbers else pytest.mark.slow for n in range(len(STRATEGIES))]
    return [pytest.param(STRATEGIES[n], marks=marks[n]) for n in of]


def stream_of(strategy, **changes):
    fields: dict[str, Any] = {
        "clip_norm": 2.0,
        "noise_multiplier": 1.5,
        "steps": STEPS,
        "participation": Cyclic(3),
        "strategy": strategy,
    }
    return CorrelatedSum(**(fields | changes))


def matrix_of(stream):
    return oracle.lower_toeplitz(stream.strategy.coefficients(STEPS), STEPS)


def step_keys(key):
    """The keys of the steps of a run."""
    (root,) = jax.random.split(key, 1)
    return [jax.random.fold_in(root, t) for t in range(STEPS)]


def normals_of(strategy, keys, like, generator="threefry"):
    """The z that these keys stand for, stacked."""
    if isinstance(strategy, SquareRoot):
        keys = [jax.random.split(key, 1)[0] for key in keys]
    noise = jax.jit(lambda key: gaussian_noise(key, like, 1.0, generator=generator))
    rows = [noise(key) for key in keys]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)


@functools.partial(jax.jit, static_argnums=0)
def outputs(stream, key, totals):
    return stream.run(key, totals)


TOTALS = {"a": jnp.arange(STEPS * 6, dtype=jnp.float32).reshape(STEPS, 2, 3)}
TOTALS["b"] = jnp.ones((STEPS, 4))


@pytest.mark.parametrize("strategy", slow_but((3,), range(5)))
def test_the_stream_is_the_dense_inverse(strategy):
    stream = stream_of(strategy)
    published = outputs(stream, jax.random.key(3), TOTALS)
    like = jax.tree.map(lambda leaf: leaf[0], TOTALS)
    z = normals_of(strategy, step_keys(jax.random.key(3)), like)
    inverse = np.linalg.inv(matrix_of(stream))
    for name in TOTALS:
        flat = np.asarray(z[name], float).reshape(STEPS, -1)
        noise = stream.stddev * inverse @ flat
        expected = np.asarray(TOTALS[name]).reshape(STEPS, -1) + noise
        np.testing.assert_allclose(
            np.asarray(published[name]).reshape(STEPS, -1), expected, atol=3e-5
        )


@pytest.mark.slow
@pytest.mark.guard
def test_steps_one_by_one_are_the_run_and_compile_once():
    traces = []

    @jax.jit
    def one(stream, key, total, state):
        traces.append(stream)
        return stream.step(key, total, state)

    stream = stream_of(STRATEGIES[1])
    state = stream.init(jax.tree.map(lambda leaf: leaf[0], TOTALS))
    keys = step_keys(jax.random.key(3))
    published = []
    for t in range(STEPS):
        total = jax.tree.map(lambda leaf, t=t: leaf[t], TOTALS)
        noisy, state = one(stream, keys[t], total, state)
        published.append(noisy)
        # What a checkpoint does to the state.
        state = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), state)
    assert len(traces) == 1
    assert int(state.step) == STEPS
    whole = outputs(stream, jax.random.key(3), TOTALS)
    for name in TOTALS:
        stacked = np.stack([np.asarray(noisy[name]) for noisy in published])
        np.testing.assert_allclose(stacked, whole[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("strategy", "copies"), [(STRATEGIES[1], 2), (STRATEGIES[2], 6), (STRATEGIES[3], 2)]
)
def test_memory_is_a_few_copies(strategy, copies):
    state = stream_of(strategy).init(jax.ShapeDtypeStruct((2, 3), jnp.bfloat16))
    assert state.memory.shape == (copies, 2, 3)
    assert state.memory.dtype == jnp.float32


@functools.cache
def draws_of(strategy, number=20_000):
    """Outputs (number, STEPS) for totals of zero, and the stream."""
    stream = stream_of(strategy)
    keys = jax.random.split(jax.random.key(5), number)
    zeros = jnp.zeros((STEPS, 1))
    run = jax.vmap(lambda key: stream.run(key, zeros))
    drawn = jax.jit(run, compiler_options=conformance.OPTIMISED)(keys)
    return stream, np.asarray(drawn, float)[..., 0]


@pytest.mark.parametrize("strategy", slow_but((3,), (1, 3, 4)))
def test_noise_has_the_covariance_of_the_matrix(strategy):
    # C y has independent entries of variance stddev^2: 28 sample covariances, each
    # within 6 standard errors (false alarm 2e-9 each).
    stream, drawn = draws_of(strategy)
    white = drawn @ matrix_of(stream).T / stream.stddev
    covariance = white.T @ white / len(white)
    room = 6 * np.sqrt((1 + np.eye(STEPS)) / len(white))
    assert (np.abs(covariance - np.eye(STEPS)) < room).all()


@pytest.mark.slow
def test_prefix_sums_have_less_error_at_equal_privacy():
    # One pass; the root's error is 1.53 times less after 7 steps. Sample variances of
    # 20,000 are within 6 % (6 standard errors, false alarm 2e-9).
    variances = []
    for strategy in (STRATEGIES[0], STRATEGIES[4]):
        stream, drawn = draws_of(strategy)
        lone = stream_of(strategy, participation=SinglePass())
        scale = lone.stddev / stream.stddev
        variances.append(np.var(scale * drawn.sum(axis=1)))
    assert variances[1] < variances[0] / 1.53**2 * 1.12
    assert variances[1] > variances[0] / 1.53**2 / 1.12


PARTICIPATIONS = [
    (SinglePass(), oracle.single_pass(STEPS)),
    (Cyclic(3), oracle.cyclic(STEPS, 3)),
    (MinSeparation(2, 3), oracle.separated(STEPS, 2, 3)),
]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("participation", "sets"), PARTICIPATIONS)
def test_no_record_moves_more_than_the_event_says(strategy, participation, sets):
    stream = stream_of(strategy, participation=participation)
    worst = oracle.sensitivity(matrix_of(stream), sets) * stream.clip_norm
    assert stream.event("add_remove") == GaussianDpEvent(1.5)
    # The excess pays for rounding.
    assert stream.stddev / worst == pytest.approx(1.5 * (1 + 2**-16), rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [STRATEGIES[1], STRATEGIES[3], STRATEGIES[4]])
def test_the_event_is_honest(strategy):
    # The likelihood ratio of C y, for a record in steps 0, 3 and 6 against none. False
    # alarm <= 1e-5.
    stream = stream_of(strategy, noise_multiplier=1.0)
    matrix = matrix_of(stream)
    record = stream.contribute(jax.random.key(0), jnp.array([30.0]))
    worst = np.zeros((STEPS, 1))
    worst[[0, 3, 6], 0] = float(record[0])
    direction = matrix.T @ (matrix @ worst[:, 0])
    sides = []
    for side, totals in enumerate((np.zeros((STEPS, 1)), worst)):
        keys = jax.random.split(jax.random.key(11 + side), 200_000)
        given = jnp.asarray(totals, jnp.float32)
        drawn = jax.jit(jax.vmap(lambda key, x=given: stream.run(key, x)))(keys)
        sides.append(np.asarray(drawn, float)[..., 0] @ direction)

    def claim(noise_multiplier, epsilon):
        event = GaussianDpEvent(noise_multiplier)
        bound = pld.delta_of(event, epsilon, relation="add_remove").upper
        assert bound is not None
        return bound

    small, large = sides
    assert stream.event("add_remove") == GaussianDpEvent(1.0)
    epsilons = conformance.AUDIT_EPSILONS
    honest = functools.partial(claim, 1.0)
    assert not falsified(audit(small, large, honest, epsilons))
    # The same outputs refute a claim of 7 % more noise.
    assert falsified(audit(small, large, functools.partial(claim, 1.07), epsilons))


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class WholeRun:
    """A stream as one release: a record is what it holds at every step."""

    stream: CorrelatedSum

    def event(self, relation):
        return self.stream.event(relation)

    def __call__(self, key, records):
        def clipped(record):
            return jax.vmap(lambda x: self.stream.contribute(key, x))(record)

        messages = jax.vmap(clipped)(records)
        total = jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), messages)
        return self.stream.run(key, total)


def row_of(strategy, relation):
    """A record in steps 0, 3 and 6, and the best projection of all outputs."""
    stream = stream_of(strategy, noise_multiplier=1.25)
    steps = np.zeros(STEPS, np.float32)
    steps[[0, 3, 6]] = 1.0
    matrix = matrix_of(stream)
    moved = float(stream.clip_norm * np.linalg.norm(matrix @ steps))
    direction = matrix.T @ (matrix @ steps) / np.linalg.norm(matrix @ steps)

    def records(*values):
        return {"a": jnp.asarray([value * steps[:, None] for value in values])}

    nobody = {"a": jnp.zeros((0, STEPS, 1))}
    small, at = {
        "add_remove": (nobody, 0.0),
        "zero_out": (records(0.0), 0.0),
        "replace_one": (records(-30.0), -moved),
    }[relation]
    laws = (gaussian(at, stream.stddev), gaussian(moved, stream.stddev))
    return conformance.Row(
        name=f"{type(strategy).__name__}-{relation}",
        mechanism=WholeRun(stream),
        relation=Relation(relation),
        pairs=(conformance.Pair("worst", small, records(30.0), laws),),
        statistic=lambda outputs: (
            jnp.asarray(direction, jnp.float32) @ outputs["a"][:, 0]
        ),
        radius=stream.clip_norm,
    )


@pytest.mark.slow
@pytest.mark.parametrize("relation", ["add_remove", "zero_out", "replace_one"])
@pytest.mark.parametrize("strategy", [STRATEGIES[1], STRATEGIES[3], STRATEGIES[4]])
def test_a_whole_run_passes_the_common_checks(strategy, relation):
    row = row_of(strategy, relation)
    conformance.check_event(row)
    conformance.check_exact(row)
    conformance.check_audit(row)
    conformance.check_law(row)


def test_contributions_keep_the_bound():
    stream = stream_of(STRATEGIES[1])
    entries = [3.0, 0.5, 3e38, 1e-40, math.nan, math.inf]
    records = jnp.array([[x, 1.0, -x] for x in entries])
    contribute = jax.jit(jax.vmap(lambda x: stream.contribute(jax.random.key(0), x)))
    norms = np.linalg.norm(np.asarray(contribute(records), float), axis=1)
    # What overflows counts as zero, as does what isn't finite.
    np.testing.assert_allclose(norms, [2.0, 1.5**0.5, 0, 1, 0, 0], rtol=1e-6)


def test_other_clips_bring_their_radius():
    stream = stream_of(STRATEGIES[1], clip_norm=None, clip=AutoS(2.0))
    assert stream.clip_norm == AutoS(2.0).radius
    assert stream.stddev == pytest.approx(
        1.5 * stream.clip_norm * stream.sensitivity * (1 + 2**-16)
    )


@pytest.mark.parametrize("strategy", slow_but((1,), (1, 3, 4)))
def test_steps_beyond_the_plan_publish_nothing(strategy):
    stream = stream_of(strategy, steps=2)
    step = jax.jit(stream.step)
    state = stream.init(jnp.zeros(2))
    for t in range(4):
        noisy, state = step(jax.random.key(t), jnp.ones(2), state)
        assert bool(jnp.isnan(noisy).all()) == (t >= 2)
    with pytest.raises(ValueError, match="steps=2"):
        stream.run(jax.random.key(9), jnp.zeros((3, 2)))


def test_events_are_static_and_the_same_under_every_relation():
    stream = stream_of(STRATEGIES[1])
    seen = []
    jax.jit(lambda mechanism: seen.append(mechanism.event("zero_out")))(stream)
    for relation in ("add_remove", "replace_one", "zero_out"):
        seen.append(stream.event(relation))
    assert seen == [GaussianDpEvent(1.5)] * 4
    assert (
        stream_of(STRATEGIES[1], noise_multiplier=0.0).event("zero_out")
        == NonPrivateDpEvent()
    )
    with pytest.raises(ValueError, match="relation"):
        stream.event("neighbours")
    assert isinstance(stream, Stream)
    assert hash(stream) == hash(stream_of(STRATEGIES[1]))
    assert dataclasses.replace(stream, noise_multiplier=3.0).stddev == pytest.approx(
        2 * stream.stddev
    )


@pytest.mark.slow
def test_no_noise_where_the_multiplier_is_zero():
    silent = stream_of(STRATEGIES[3], noise_multiplier=0.0)
    published = outputs(silent, jax.random.key(0), TOTALS)
    for name in TOTALS:
        np.testing.assert_array_equal(published[name], TOTALS[name])


def test_keys_and_reuse():
    stream = stream_of(STRATEGIES[4])
    state = stream.init(jnp.zeros(2))
    key = jax.random.key(0)
    first, _ = stream.step(key, jnp.zeros(2), state)
    with pytest.raises(jax.errors.KeyReuseError):
        stream.step(key, jnp.zeros(2), state)
    other, _ = stream.step(jax.random.key(1), jnp.zeros(2), state)
    assert (np.asarray(first) != np.asarray(other)).all()
    for strategy in (STRATEGIES[1], STRATEGIES[4]):
        with pytest.raises(TypeError, match="key="):
            stream_of(strategy).step(jax.random.PRNGKey(0), jnp.zeros(2), state)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [STRATEGIES[1], STRATEGIES[4]])
def test_chacha_streams_are_the_dense_inverse(strategy):
    secret = bytes(range(32))
    stream = stream_of(strategy, generator="chacha20")
    published = outputs(stream, chacha_key(secret), jnp.zeros((STEPS, 4)))
    z = normals_of(strategy, step_keys(chacha_key(secret)), jnp.zeros(4), "chacha20")
    expected = stream.stddev * np.linalg.inv(matrix_of(stream)) @ np.asarray(z)
    np.testing.assert_allclose(published, expected, atol=3e-5)


@pytest.mark.slow
def test_float64_totals_keep_their_precision():
    with jax.enable_x64(True):
        stream = stream_of(STRATEGIES[3])
        totals = jnp.zeros((STEPS, 2), jnp.float64)
        published = outputs(stream, jax.random.key(3), totals)
        assert published.dtype == jnp.float64
        z = normals_of(STRATEGIES[3], step_keys(jax.random.key(3)), totals[0])
        expected = stream.stddev * np.linalg.inv(matrix_of(stream)) @ np.asarray(z)
        np.testing.assert_allclose(published, expected, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES[1:])
def test_sharded_totals_get_the_same_bits(strategy):
    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))
    spread = NamedSharding(mesh, PartitionSpec(None, "data"))
    stream = stream_of(strategy)
    plain = outputs(stream, jax.random.key(3), TOTALS["b"])
    placed = outputs(stream, jax.random.key(3), jax.device_put(TOTALS["b"], spread))
    np.testing.assert_array_equal(plain, placed)


def test_participations_are_read_off_samplers():
    assert participation_of(CyclicSampler(4, 8), 4) == SinglePass()
    assert participation_of(CyclicSampler(4, 8), 5) == Cyclic(4)
    assert participation_of(FullBatchSampler(8), 5) == MinSeparation(1, 5)
    whole = BallsInBinsSampler(bins=4, max_batch_size=8, max_records=8)
    assert participation_of(whole, 9) == MinSeparation(1, 3)
    with pytest.raises(ValueError, match="max_batch_size=4"):
        participation_of(BallsInBinsSampler(4, 4, 8), 9)
    with pytest.raises(ValueError, match="steps"):
        participation_of(FullBatchSampler(8), 0)
    others: list[Any] = [PoissonSampler(0.5, 8, 8), FixedSizeSampler(2, 8), None]
    for sampler in others:
        with pytest.raises(TypeError, match="CyclicSampler"):
            participation_of(sampler, 4)


def test_the_batches_of_a_cyclic_sampler_keep_to_the_participation():
    sampler, steps = CyclicSampler(bins=3, max_records=10), 8
    seen: dict[int, list[int]] = {}
    for t in range(steps):
        batch = sampler.batch(jax.random.key(1), t, 10)
        for record in batch.indices[batch.mask].tolist():
            seen.setdefault(record, []).append(t)
    assert participation_of(sampler, steps) == Cyclic(3)
    allowed = oracle.cyclic(steps, 3)
    assert all(tuple(at) in allowed for at in seen.values())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("clip_norm", 0.0),
        ("clip_norm", math.nan),
        ("clip_norm", math.inf),
        ("noise_multiplier", -1.0),
        ("noise_multiplier", 1e30),
        ("steps", 0),
        ("generator", "philox"),
        ("max_summands", 0),
    ],
)
def test_bad_values_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        stream_of(STRATEGIES[1], **{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("clip_norm", True),
        ("noise_multiplier", "1"),
        ("noise_multiplier", jnp.ones(())),
        ("steps", 2.5),
        ("participation", "cyclic"),
        ("strategy", (1.0, 0.5)),
        ("generator", None),
    ],
)
def test_wrong_kinds_are_refused(field, value):
    with pytest.raises(TypeError, match=field):
        stream_of(STRATEGIES[1], **{field: value})


def test_totals_that_are_not_floating_are_refused():
    stream = stream_of(STRATEGIES[1])
    with pytest.raises(TypeError, match="floating"):
        stream.init(jnp.zeros(2, jnp.int32))
    with pytest.raises(TypeError, match="floating"):
        stream.step(jax.random.key(0), jnp.zeros(2, int), stream.init(jnp.zeros(2)))
