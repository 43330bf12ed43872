"""The plain meaning of a bounded sum, and who meets the protocols."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpkit.mechanisms.clipping import GaussianSum, clip_record
from dpkit.mechanisms.noise import gaussian_noise
from dpkit.mechanisms.protocol import BoundedSum, Mechanism, exact_sum, run
from dpkit.mechanisms.stream import Stream


@functools.partial(jax.tree_util.register_dataclass, data_fields=(), meta_fields=())
@dataclasses.dataclass(frozen=True)
class Spread(BoundedSum):
    """Each record adds a random number from its own key: shows the keys."""

    def contribute(self, key, record):
        return {"noise": jax.random.uniform(key), "record": record}

    def privatize(self, key, total):
        return total, jax.random.uniform(key)


class Whole(BoundedSum):
    """Publishes the sum of what it is given, whatever the dtype."""

    def contribute(self, key, record):
        return record

    def privatize(self, key, total):
        return total


def test_run_is_split_contribute_sum_privatize():
    mechanism = GaussianSum(1.0, 2.0)
    records = jnp.array([[3.0, 4.0], [0.0, 0.5], [-1.0, 0.0]])
    _, noise_key = jax.random.split(jax.random.key(5))
    clip = jax.jit(lambda record: clip_record(record, 1.0))
    total = sum(np.asarray(clip(record)) for record in np.asarray(records))
    like = jax.ShapeDtypeStruct((2,), jnp.float32)
    expected = total + np.asarray(gaussian_noise(noise_key, like, mechanism.stddev))
    for output in (
        jax.jit(run)(mechanism, jax.random.key(5), records),
        jax.jit(mechanism.__call__)(jax.random.key(5), records),
    ):
        np.testing.assert_allclose(output, expected, rtol=1e-6)


@pytest.mark.slow
def test_every_record_and_the_release_have_keys_of_their_own():
    alone = [
        run(Spread(), jax.random.key(1), jnp.zeros((n,)))[0]["noise"] for n in (1, 2, 3)
    ]
    # By position: the first records' numbers stay when more records come.
    first, second = float(alone[0]), float(alone[1] - alone[0])
    third = float(alone[2] - alone[1])
    published = float(run(Spread(), jax.random.key(1), jnp.zeros((1,)))[1])
    assert len({round(x, 6) for x in (first, second, third, published)}) == 4


def test_no_records_give_the_noise_alone():
    empty = {"a": jnp.zeros((0, 3)), "b": jnp.zeros((0,))}
    output = jax.jit(GaussianSum(1.0, 1.0).__call__)(jax.random.key(0), empty)
    assert output["a"].shape == (3,)
    assert output["b"].shape == ()
    assert all(np.asarray(leaf).all() for leaf in jax.tree.leaves(output))


def test_sums_are_taken_in_float32_and_integers_stay():
    # 4096 + 1 is not a float16; 70,000 is past its range.
    records = {"half": np.ones(70_000, "float16"), "count": np.ones(70_000, "int32")}
    total = jax.jit(functools.partial(run, Whole()))(jax.random.key(0), records)
    assert (float(total["half"]), total["half"].dtype) == (70_000.0, jnp.float32)
    assert (int(total["count"]), total["count"].dtype) == (70_000, jnp.int32)


@pytest.mark.parametrize(
    "records", [{}, jnp.float32(1.0), {"a": jnp.zeros((2, 1)), "b": jnp.zeros((3, 1))}]
)
def test_records_that_do_not_stack_are_refused(records):
    with pytest.raises(ValueError, match="records="):
        run(GaussianSum(1.0, 1.0), jax.random.key(0), records)


def test_a_second_use_of_a_key_is_found():
    key = jax.random.key(0)
    run(GaussianSum(1.0, 1.0), key, jnp.zeros((2, 2)))
    with pytest.raises(jax.errors.KeyReuseError):
        run(GaussianSum(1.0, 1.0), key, jnp.zeros((2, 2)))


def test_protocols_are_met_by_shape():
    assert isinstance(GaussianSum(1.0, 1.0), Mechanism)
    assert isinstance(GaussianSum(1.0, 1.0), Stream)
    assert not isinstance(Stream, Mechanism)


def test_an_unfinished_mechanism_says_so():
    class Unfinished(BoundedSum):
        pass

    with pytest.raises(NotImplementedError):
        Unfinished().contribute(jax.random.key(0), jnp.zeros(1))
    with pytest.raises(NotImplementedError):
        Unfinished().privatize(jax.random.key(0), jnp.zeros(1))


def test_public_names_resolve_lazily():
    from dpkit import mechanisms

    for name in mechanisms.__all__:
        assert getattr(mechanisms, name).__name__ == name
    assert set(mechanisms.__all__) <= set(dir(mechanisms))
    with pytest.raises(AttributeError, match="nothing"):
        getattr(mechanisms, "nothing")  # noqa: B009


def test_a_sum_in_two_words_is_nearly_exact():
    rng = np.random.default_rng(0)
    for n in (0, 1, 2, 7, 1023):
        x = rng.normal(size=(n, 4)) * 10.0 ** rng.integers(-8, 8, size=(n, 1))
        x = x.astype(np.float32)
        total, rest = jax.jit(exact_sum)(x)
        found = np.asarray(total, float) + np.asarray(rest, float)
        want = [math.fsum(column) for column in x.T.tolist()]
        levels = math.ceil(math.log2(max(n, 1)))
        allowed = 2 * levels**2 * 2.0**-48 * np.abs(x, dtype=float).sum(0)
        assert np.all(np.abs(found - want) <= allowed)


def test_a_sum_that_is_not_finite_has_no_rest():
    total, rest = exact_sum(jnp.array([3e38, 3e38]))
    assert float(total) == math.inf
    assert float(rest) == 0
    assert math.isnan(float(exact_sum(jnp.array([1.0, math.nan]))[0]))


def test_one_more_record_moves_a_large_aligned_sum_by_no_more_than_the_radius():
    """A float32 total of 2^16 has steps of 2^-8; two words have far smaller ones."""
    ones = np.full((3 * 2**16 + 2, 1), 1 / 3, np.float32)

    def whole(rows):
        return sum(float(word[0]) for word in jax.jit(exact_sum)(rows))

    moved = whole(ones) - whole(ones[:-1])
    assert abs(moved - float(ones[0, 0])) <= 2**-18


def test_more_records_than_rounding_is_paid_for_are_refused():
    with pytest.raises(ValueError, match=r"records has 1048577 rows"):
        GaussianSum(1.0, 1.0)(jax.random.key(0), np.zeros((2**20 + 1, 1), np.float32))
