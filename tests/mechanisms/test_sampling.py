"""Poisson batches: who is drawn, what is published about it, what it costs."""

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from dp_accounting import (
    GaussianDpEvent,
    LaplaceDpEvent,
    NonPrivateDpEvent,
    PoissonSampledDpEvent,
    TruncatedSubsampledGaussianDpEvent,
)

from dpkit.accountants.answers.errors import UnsupportedEvent, UnsupportedRelation
from dpkit.accountants.readings import pld
from dpkit.mechanisms.sampling import Batch, PoissonSampler, choose_max_batch_size
from tests.oracles.mixture import hockey_stick
from tests.oracles.poisson import truncated_poisson_sum
from tests.oracles.threefry import threefry_2x32


def many_keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def test_a_draw_is_the_same_on_every_machine():
    # Recomputed with the oracle: the key's first child, its words for each record.
    key = 3, 5
    child = threefry_2x32(key, (0, 0))
    uniforms = [threefry_2x32(child, (0, i)) for i in range(40)]
    expected = [i for i, (a, b) in enumerate(uniforms) if a * 2**32 + b < 0.3 * 2**64]
    typed = jax.random.wrap_key_data(jnp.array(key, jnp.uint32))
    batch = PoissonSampler(0.3, 40, 40).draw(typed, 40)
    assert batch.indices[batch.mask].tolist() == expected
    assert 5 < len(expected) < 20


def test_padding_points_at_record_zero_and_is_masked():
    batch = PoissonSampler(0.3, 40, 40).draw(jax.random.key(0), 40)
    count = batch.mask.sum()
    assert batch.mask.tolist() == [True] * count + [False] * (40 - count)
    assert not batch.indices[count:].any()
    assert (np.diff(batch.indices[:count]) > 0).all()
    assert (batch.indices.dtype, batch.mask.dtype) == (np.int32, bool)


def test_a_batch_holds_indices_and_mask_and_no_count():
    assert Batch._fields == ("indices", "mask")


def test_the_threshold_is_never_above_the_rate():
    sampler = PoissonSampler(0.3, 4, 4)
    threshold = math.floor(0.3 * 2.0**64)
    uniforms = np.array([[threshold - 1, threshold, 0, 2**64 - 1]], np.uint64)
    batch = sampler._select(uniforms)
    assert batch.indices[batch.mask].tolist() == [0, 2]
    # A rate far below 2^-32 still has a threshold above zero.
    tiny = PoissonSampler(1e-15, 4, 4)
    edge = np.array([[18446, 18447, 0, 2**40]], np.uint64)  # floor(1e-15 2^64) = 18446
    assert tiny._select(edge).mask.sum() == 1


def test_rate_one_takes_everyone():
    batch = PoissonSampler(1.0, 5, 5).draw(jax.random.key(0), 4)
    assert batch.indices[batch.mask].tolist() == [0, 1, 2, 3]


def test_every_record_is_drawn_at_the_rate_and_independently():
    # 40,000 draws: counts within 6 standard deviations (false alarm 2e-9 each); so are
    # the 28 pair counts, which have mean q^2.
    draws, rate = 40_000, 0.3
    batch = PoissonSampler(rate, 8, 8).draw(many_keys(draws), 8)
    taken = np.zeros((draws, 8), bool)
    rows, slots = np.nonzero(batch.mask)
    taken[rows, batch.indices[rows, slots]] = True
    assert batch.mask.sum() == taken.sum()
    room = 6 * math.sqrt(draws * rate * (1 - rate))
    assert (abs(taken.sum(axis=0) - draws * rate) < room).all()
    for i, j in itertools.combinations(range(8), 2):
        both = (taken[:, i] & taken[:, j]).sum()
        assert abs(both - draws * rate**2) < 6 * math.sqrt(draws * rate**2)
    # Empty batches are real: (1 - q)^8 = 0.0576 of them.
    empty = (~batch.mask).all(axis=1).sum()
    assert abs(empty - draws * 0.7**8) < 6 * math.sqrt(draws * 0.7**8)


def test_truncation_keeps_the_smallest_uniforms_wherever_they_are():
    sampler = PoissonSampler(0.5, 2, 4)
    uniforms = np.array([[9, 2**63 - 1, 5, 7], [2**64 - 1, 8, 1, 2**63]], np.uint64)
    batch = sampler._select(uniforms)
    assert batch.indices.tolist() == [[2, 3], [1, 2]]
    assert batch.mask.all()


def test_truncated_batches_follow_their_law():
    # All batches of 4 records at q = 1/2, at most 2 kept, listed by hand: empty 1/16;
    # one record 1/16 each; a pair 1/16 + (2 of the triples) 2/16/3 + 1/16/6 each.
    # Chi-squared with 10 degrees of freedom exceeds 47.2 with probability 1e-6.
    draws = 48_000
    batch = PoissonSampler(0.5, 2, 4).draw(many_keys(draws), 4)
    seen = {}
    for indices, mask in zip(batch.indices, batch.mask, strict=True):
        kept = tuple(indices[mask].tolist())
        seen[kept] = seen.get(kept, 0) + 1
    expected = {(): 1 / 16} | {(i,): 1 / 16 for i in range(4)}
    pair = 1 / 16 + 2 / 48 + 1 / 96
    expected |= {p: pair for p in itertools.combinations(range(4), 2)}
    assert sum(expected.values()) == pytest.approx(1)
    chance = {kept: draws * p for kept, p in expected.items()}
    statistic = sum((seen.get(k, 0) - n) ** 2 / n for k, n in chance.items())
    assert set(seen) <= set(expected)
    assert statistic < 47.2


@pytest.mark.slow
def test_several_keys_are_several_draws():
    sampler = PoissonSampler(0.4, 6, 10)
    many = sampler.draw(many_keys(5), 10)
    assert many.indices.shape == many.mask.shape == (5, 6)
    for i, key in enumerate(many_keys(5)):
        one = sampler.draw(key, 10)
        np.testing.assert_array_equal(one.indices, many.indices[i])
        np.testing.assert_array_equal(one.mask, many.mask[i])


def test_shapes_do_not_depend_on_the_number_of_records():
    sampler = PoissonSampler(0.5, 8, 10)
    for num_records in (0, 1, 9, 10):
        batch = sampler.draw(jax.random.key(1), num_records)
        assert batch.indices.shape == batch.mask.shape == (8,)
        assert (batch.indices[batch.mask] < max(num_records, 1)).all()
    assert not sampler.draw(jax.random.key(1), 0).mask.any()


def test_draws_are_refused_where_they_would_not_be_covered():
    sampler = PoissonSampler(0.5, 8, 10)
    with pytest.raises(ValueError, match=r"num_records=11.*max_records=10"):
        sampler.draw(jax.random.key(0), 11)
    wrong: list[Any] = [True, 3.0, "3", None]
    for number in wrong:
        with pytest.raises(TypeError, match="num_records="):
            sampler.draw(jax.random.key(0), number)
    with pytest.raises(TypeError, match="key="):
        sampler.draw(jax.random.PRNGKey(0), 3)
    with pytest.raises(TypeError, match="host"):
        jax.jit(lambda key: sampler.draw(key, 3).mask)(jax.random.key(0))


def test_a_second_use_of_a_key_is_found():
    key = jax.random.key(0)
    PoissonSampler(0.5, 8, 8).draw(key, 8)
    with pytest.raises(jax.errors.KeyReuseError):
        PoissonSampler(0.5, 8, 8).draw(key, 8)


@pytest.mark.parametrize("relation", ["add_remove", "zero_out"])
def test_amplified_events(relation):
    gaussian = GaussianDpEvent(1.5)
    plain = PoissonSampler(0.1, 100, 100)
    assert plain.amplify(gaussian, relation) == PoissonSampledDpEvent(0.1, gaussian)
    laplace = LaplaceDpEvent(2.0)
    assert plain.amplify(laplace, relation) == PoissonSampledDpEvent(0.1, laplace)
    truncated = PoissonSampler(0.1, 20, 100)
    assert truncated.amplify(gaussian, relation) == TruncatedSubsampledGaussianDpEvent(
        dataset_size=100,
        sampling_probability=0.1,
        truncated_batch_size=20,
        noise_multiplier=1.5,
    )
    for sampler in (plain, truncated):
        assert sampler.amplify(NonPrivateDpEvent(), relation) == NonPrivateDpEvent()


def test_events_without_a_proof_are_refused():
    plain, truncated = PoissonSampler(0.1, 100, 100), PoissonSampler(0.1, 20, 100)
    for sampler in (plain, truncated):
        with pytest.raises(UnsupportedRelation, match="replace_one"):
            sampler.amplify(GaussianDpEvent(1.0), "replace_one")
    with pytest.raises(UnsupportedEvent, match="LaplaceDpEvent"):
        truncated.amplify(LaplaceDpEvent(1.0), "add_remove")
    with pytest.raises(UnsupportedEvent, match="Poisson"):
        truncated.amplify(
            PoissonSampledDpEvent(0.5, GaussianDpEvent(1.0)), "add_remove"
        )
    with pytest.raises(ValueError, match="relation="):
        plain.amplify(GaussianDpEvent(1.0), "neighbours")


@pytest.mark.slow
def test_truncated_event_covers_every_number_of_records():
    # Under add_remove the number of records is private: the claim made for at most 4
    # must hold for 2 as well, where nothing competes for the 2 slots.
    sampler = PoissonSampler(0.5, max_batch_size=2, max_records=4)
    event = sampler.amplify(GaussianDpEvent(0.3), "add_remove")
    for records in (1, 2, 3, 4):
        small, large = (
            truncated_poisson_sum((0.0,) * (records - 1) + last, 0.5, 2, 0.3)
            for last in ((), (1.0,))
        )
        for epsilon in (0.0, 0.5, 1.0, 2.0):
            claimed = pld.delta_of(event, epsilon, relation="add_remove").upper
            assert claimed is not None
            true = max(
                hockey_stick(small, large, epsilon), hockey_stick(large, small, epsilon)
            )
            assert true <= claimed + 1e-9, f"{records} records at {epsilon}"


def test_batches_too_small_for_what_is_expected_are_refused():
    with pytest.raises(ValueError, match=r"max_batch_size=9.*choose_max_batch_size"):
        PoissonSampler(0.1, 9, 100)
    # b / N times N may round above b: exactly b slots must be possible.
    for expected in range(1, 50):
        PoissonSampler(expected / 49, expected, 49)


def binomial_tail(size, records, rate):
    """P[Binomial(records, rate) > size], summed."""
    with mpmath.workdps(40):
        rate = mpmath.mpf(rate)
        return mpmath.fsum(
            mpmath.binomial(records, k) * rate**k * (1 - rate) ** (records - k)
            for k in range(size + 1, records + 1)
        )


@pytest.mark.parametrize(
    ("rate", "records", "steps", "epsilon", "delta"),
    [(0.1, 200, 1000, 1.0, 1e-5), (0.5, 40, 1, 0.1, 1e-3), (0.01, 500, 10, 8.0, 1e-6)],
)
def test_chosen_batch_is_the_smallest_that_is_rarely_passed(
    rate, records, steps, epsilon, delta
):
    size = choose_max_batch_size(
        rate, records, steps=steps, epsilon=epsilon, delta=delta
    )

    def cost(candidate):
        return steps * (1 + math.exp(epsilon)) * binomial_tail(candidate, records, rate)

    assert cost(size) <= delta / 1000 < cost(size - 1)


def test_chosen_batch_for_a_large_run():
    # N=60000, q=256/60000, T=14062, epsilon=3, delta=1e-5: T (1 + e^3) Psi is 1.53e-3
    # at B=352 and 9.59e-9 at B=384, where delta / 1000 = 1e-8 is allowed.
    size = choose_max_batch_size(
        256 / 60_000, 60_000, steps=14_062, epsilon=3.0, delta=1e-5
    )
    factor = 14_062 * (1 + math.exp(3))
    assert size == 384
    tail = {
        b: float(1 - sum_of_binomial(b, 60_000, 256 / 60_000)) for b in (352, 383, 384)
    }
    assert factor * tail[352] == pytest.approx(1.53e-3, rel=5e-3)
    assert factor * tail[384] == pytest.approx(9.59e-9, rel=5e-3)
    assert factor * tail[383] > 1e-8


def sum_of_binomial(size, records, rate):
    """P[Binomial(records, rate) <= size], by the ratio of neighbouring terms."""
    with mpmath.workdps(60):
        rate = mpmath.mpf(rate)
        term = total = (1 - rate) ** records
        for k in range(1, size + 1):
            term *= (records - k + 1) / mpmath.mpf(k) * rate / (1 - rate)
            total += term
        return total


def test_chosen_batch_at_the_extremes():
    # Nothing smaller than everyone will do; and a huge budget still asks for q N.
    assert choose_max_batch_size(0.9, 5, steps=100, epsilon=1.0, delta=1e-9) == 5
    assert choose_max_batch_size(1.0, 5, steps=1, epsilon=1.0, delta=0.5) == 5
    assert choose_max_batch_size(1e-9, 5, steps=1, epsilon=1e-3, delta=0.9) >= 1
    assert choose_max_batch_size(0.5, 100, steps=1, epsilon=1e4, delta=0.9) == 100


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sampling_rate", 0.0),
        ("sampling_rate", 1.5),
        ("max_records", 0),
        ("steps", 0),
        ("epsilon", 0.0),
        ("epsilon", math.nan),
        ("delta", 0.0),
        ("delta", 1.0),
    ],
)
def test_chosen_batch_refuses_bad_numbers(name, value):
    numbers: dict[str, Any] = {
        "sampling_rate": 0.1,
        "max_records": 10,
        "steps": 5,
        "epsilon": 1.0,
        "delta": 1e-5,
    }
    with pytest.raises(ValueError, match=f"{name}="):
        choose_max_batch_size(**(numbers | {name: value}))
