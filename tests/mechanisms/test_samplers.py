"""What all samplers have in common: one protocol, honest laws, honest events."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, NonPrivateDpEvent

from dpkit.accountants import events
from dpkit.accountants.answers.errors import UnsupportedRelation
from dpkit.accountants.readings import pld
from dpkit.mechanisms import (
    BallsInBinsSampler,
    CyclicSampler,
    FixedSizeSampler,
    FullBatchSampler,
    PoissonSampler,
    Sampler,
)
from tests.audit import audit, falsified

pytestmark = pytest.mark.usefixtures("quick_compilation")

SAMPLERS: list[Any] = [
    PoissonSampler(0.4, max_batch_size=6, max_records=6),
    PoissonSampler(0.4, max_batch_size=4, max_records=6),
    FixedSizeSampler(expected_batch_size=2, max_records=6),
    FullBatchSampler(6),
    BallsInBinsSampler(bins=3, max_batch_size=6, max_records=6),
    BallsInBinsSampler(bins=3, max_batch_size=4, max_records=6),
    CyclicSampler(bins=3, max_records=6),
]
RELATIONS = ("add_remove", "zero_out", "replace_one")
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)


def keys_of(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def taken(batch, num_records):
    """Who is in each batch, (draws, num_records)."""
    found = np.zeros((len(batch.mask), num_records), bool)
    rows, slots = np.nonzero(batch.mask)
    found[rows, batch.indices[rows, slots]] = True
    assert found.sum() == batch.mask.sum(), "a record twice"
    return found


@every_sampler
def test_the_protocol_is_met(sampler):
    assert hash(sampler) == hash(dataclasses.replace(sampler))
    assert isinstance(sampler, Sampler)
    assert jax.tree.leaves(sampler) == []
    assert 0 < sampler.expected_batch_size <= sampler.max_batch_size
    batch = sampler.batch(jax.random.key(0), 4, 6)
    assert batch.indices.shape == batch.mask.shape == (sampler.max_batch_size,)
    assert (batch.indices.dtype, batch.mask.dtype) == (np.int32, bool)
    count = batch.mask.sum()
    assert batch.mask.tolist() == sorted(batch.mask.tolist(), reverse=True)
    assert (np.diff(batch.indices[:count]) > 0).all()
    assert not batch.indices[count:].any()


@every_sampler
def test_a_batch_is_a_function_of_key_and_step(sampler):
    keys = keys_of(3)
    many = sampler.batch(keys, 2, 6)
    for i, key in enumerate(keys_of(3)):
        one = sampler.batch(key, 2, 6)
        again = sampler.batch(key, 2, 6)
        np.testing.assert_array_equal(one.indices, many.indices[i])
        np.testing.assert_array_equal(one.mask, many.mask[i])
        np.testing.assert_array_equal(one.mask, again.mask)


@every_sampler
@pytest.mark.parametrize("relation", RELATIONS)
def test_supports_says_what_run_event_answers(sampler, relation):
    event = GaussianDpEvent(1.5)
    if sampler.supports(relation):
        whole = sampler.run_event(event, 7, relation)
        assert events.from_json(events.to_json(whole)) == whole
        assert pld.supports(whole, relation)
        none = sampler.run_event(NonPrivateDpEvent(), 7, relation)
        assert pld.epsilon(none, 1e-5, relation=relation).upper == math.inf
    else:
        for ask in (sampler.amplify, lambda e, r: sampler.run_event(e, 7, r)):
            with pytest.raises(UnsupportedRelation, match=relation):
                ask(event, relation)
    with pytest.raises(ValueError, match="relation="):
        sampler.run_event(event, 7, "neighbours")


@every_sampler
def test_bad_arguments_are_refused(sampler):
    for field in dataclasses.fields(sampler):
        wrong: tuple[Any, ...] = (math.nan, -1, 0, True, "1", None, jnp.ones(()), 1e9)
        for value in wrong:
            with pytest.raises((ValueError, TypeError), match=field.name):
                dataclasses.replace(sampler, **{field.name: value})
    relation = next(r for r in RELATIONS if sampler.supports(r))
    steps: list[Any] = [0, -1, 1.0, True, None]
    for number in steps:
        with pytest.raises((ValueError, TypeError), match="steps="):
            sampler.run_event(GaussianDpEvent(1.0), number, relation)
    wrong_steps: list[Any] = [-1, 1.0, True]
    for number in wrong_steps:
        with pytest.raises((ValueError, TypeError), match="step="):
            sampler.batch(jax.random.key(0), number, 6)
    with pytest.raises(ValueError, match="num_records=7"):
        sampler.batch(jax.random.key(0), 0, 7)
    with pytest.raises(TypeError, match="key="):
        sampler.batch(jax.random.PRNGKey(0), 0, 6)
    with pytest.raises(TypeError, match="host"):
        jax.jit(lambda key: sampler.batch(key, 0, 6).mask)(jax.random.key(0))


@every_sampler
def test_nothing_to_draw_is_an_empty_batch(sampler):
    if not isinstance(sampler, FixedSizeSampler):
        assert not sampler.batch(jax.random.key(0), 0, 0).mask.any()


@every_sampler
def test_records_are_as_likely_as_expected(sampler):
    # 20,000 draws, each record's count and each pair's within 6 standard deviations of
    # its mean (false alarm 2e-9 each); pairs of the same law have equal means.
    draws = 20_000
    found = taken(sampler.batch(keys_of(draws), 5, 6), 6)
    rate, pair = _chances(sampler)
    room = 6 * math.sqrt(draws * rate * (1 - rate)) + 1e-9
    assert (abs(found.sum(axis=0) - draws * rate) <= room).all()
    both = found.astype(float).T @ found
    room = 6 * math.sqrt(draws * pair * (1 - pair)) + 1e-9
    off = ~np.eye(6, dtype=bool)
    assert (abs(both[off] - draws * pair) <= room).all()


def _chances(sampler):
    """P[record 0 in], P[records 0 and 1 in], from the law of the batch size."""
    if isinstance(sampler, FixedSizeSampler):
        sizes = {2: 1.0}
    elif isinstance(sampler, FullBatchSampler):
        sizes = {6: 1.0}
    elif isinstance(sampler, CyclicSampler):
        sizes = {2: 1.0}
    else:
        q = 0.4 if isinstance(sampler, PoissonSampler) else 1 / 3
        sizes = {k: 0.0 for k in range(7)}
        for k in range(7):
            kept = min(k, sampler.max_batch_size)
            sizes[kept] += math.comb(6, k) * q**k * (1 - q) ** (6 - k)
    rate = sum(k / 6 * p for k, p in sizes.items())
    return rate, sum(k * (k - 1) / 30 * p for k, p in sizes.items())


def _weights(y, noise):
    """log of N(1, s^2) over N(0, s^2)."""
    return (y - 0.5) / noise**2


def _statistic(sampler, sums, noise):
    """log of with over without, for a record whose neighbours contribute nothing."""
    steps, q = len(sums), sampler.expected_batch_size / sampler.max_records
    weights = _weights(np.stack(sums), noise)
    if isinstance(sampler, PoissonSampler):
        return np.log1p(q * np.expm1(weights)).sum(axis=0)
    if isinstance(sampler, FixedSizeSampler):
        up, down = weights, _weights(-np.stack(sums), noise)
        return (np.log1p(q * np.expm1(up)) - np.log1p(q * np.expm1(down))).sum(axis=0)
    if isinstance(sampler, BallsInBinsSampler):
        epochs = weights.reshape(-1, sampler.bins, weights.shape[-1])
        return np.log(np.exp(epochs).mean(axis=1)).sum(axis=0)
    assert steps
    return weights.sum(axis=0)


def _kept(sampler, sums, noise):
    """log of with over without, where one draw serves all epochs."""
    weights = _weights(np.stack(sums), noise)
    epochs = weights.reshape(-1, sampler.bins, weights.shape[-1]).sum(axis=0)
    return np.log(np.exp(epochs).mean(axis=0))


def _releases(
    sampler,
    values,
    noise,
    steps,
    keys,
    rng,
    place=lambda step: step,
    statistic=_statistic,
):
    """The statistic of whole runs on batches that the sampler really draws."""
    values = np.array(values)
    sums = []
    for step in range(steps):
        found = taken(sampler.batch(keys, place(step), len(values)), len(values))
        sums.append(found @ values + noise * rng.normal(size=len(keys)))
    return statistic(sampler, sums, noise)


def _findings(sampler, relation, noise, steps, rivals, draws=200_000, **options):
    small, large = {
        "add_remove": ((rivals,) * 5, (*(rivals,) * 5, 1.0)),
        "zero_out": ((*(rivals,) * 5, 0.0), (*(rivals,) * 5, 1.0)),
        "replace_one": ((*(rivals,) * 5, -1.0), (*(rivals,) * 5, 1.0)),
    }[relation]
    event = sampler.run_event(GaussianDpEvent(noise), steps, relation)
    rng = np.random.default_rng(7)
    without, with_it = (
        _releases(sampler, side, noise, steps, keys_of(draws, seed), rng, **options)
        for seed, side in enumerate((small, large))
    )

    def claim(epsilon):
        upper = pld.delta_of(event, epsilon, relation=relation, lower=False).upper
        assert upper is not None
        return upper

    return audit(without, with_it, claim, (0.25, 0.5, 1.0, 1.5, 2.0))


@pytest.mark.slow
@every_sampler
@pytest.mark.parametrize("rivals", [0.0, -1.0])
def test_the_event_of_a_run_is_honest(sampler, rivals):
    # Whole runs of 6 steps; false alarm at most 1e-5 for each audit.
    for relation in RELATIONS:
        if sampler.supports(relation):
            noise = 3.0 if relation == "replace_one" else 1.5
            findings = _findings(sampler, relation, noise, 6, rivals)
            assert not falsified(findings), relation


@pytest.mark.slow
def test_the_audit_finds_one_draw_that_serves_all_epochs():
    sampler = BallsInBinsSampler(bins=3, max_batch_size=6, max_records=6)
    findings = _findings(
        sampler,
        "add_remove",
        1.5,
        12,
        0.0,
        place=lambda step: step % 3,
        statistic=_kept,
    )
    assert falsified(findings)


@pytest.mark.slow
def test_the_audit_finds_a_cyclic_order_that_claims_random_allocation():
    cyclic = CyclicSampler(bins=3, max_records=6)

    class Boastful:
        bins, max_records, expected_batch_size = 3, 6, 2.0
        batch = cyclic.batch
        run_event = BallsInBinsSampler(3, 6, 6).run_event

    findings = _findings(Boastful(), "add_remove", 1.5, 12, 0.0, statistic=_kept)
    assert falsified(findings)
