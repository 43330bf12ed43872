"""Balls in bins: one step an epoch, fresh draws, and what an overflow costs."""

import itertools
import math

import jax
import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, LaplaceDpEvent, NonPrivateDpEvent

from dpkit.accountants import epsilon
from dpkit.accountants.answers.errors import UnsupportedEvent
from dpkit.accountants.events.allocation import (
    RandomAllocationDpEvent,
    TruncatedAllocationDpEvent,
)
from dpkit.mechanisms import choose_max_batch_size
from dpkit.mechanisms.balls_in_bins import (
    BallsInBinsSampler,
    allocated,
    bin_of,
    last_word,
)
from tests.mechanisms.test_samplers import keys_of, taken

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_every_epoch_takes_everyone_once():
    sampler = BallsInBinsSampler(bins=5, max_batch_size=40, max_records=40)
    key = jax.random.key(3)
    epochs = []
    for epoch in range(3):
        batches = [sampler.batch(key, 5 * epoch + s, 40) for s in range(5)]
        members = [b.indices[b.mask].tolist() for b in batches]
        assert sorted(itertools.chain(*members)) == list(range(40))
        epochs.append(members)
    assert epochs[0] != epochs[1] != epochs[2]


def test_the_draws_of_two_epochs_are_independent():
    # The table of (step in epoch 0, step in epoch 1) for 30,000 records has 9 cells
    # with mean 30000 / 9: chi-squared with 8 degrees exceeds 42.7 with chance 1e-6.
    first, second = (
        allocated(jax.random.fold_in(jax.random.key(1), epoch), 30_000, 3)[0]
        for epoch in (0, 1)
    )
    table = np.bincount(3 * first + second, minlength=9)
    statistic = ((table - 30_000 / 9) ** 2 / (30_000 / 9)).sum()
    assert statistic < 42.7


def test_adding_a_record_leaves_the_others_where_they_are():
    fewer = allocated(jax.random.key(0), 20, 7)
    more = allocated(jax.random.key(0), 21, 7)
    np.testing.assert_array_equal(fewer, more[:, :20])


def test_words_beyond_the_last_multiple_are_drawn_again():
    assert int(last_word(3)) == 2**64 - 2  # 2^64 = 3 * 6148914691236517205 + 1
    assert int(last_word(2**20)) == 2**64 - 1
    kept = [int(last_word(t)) + 1 for t in (1, 2, 3, 29, 1000, 2**20)]
    assert all(
        k % t == 0 for k, t in zip(kept, (1, 2, 3, 29, 1000, 2**20), strict=True)
    )
    words = np.array([0, 28, 29, 2**64 - 1], np.uint64)
    assert bin_of(words, 29).tolist() == [0, 28, 0, (2**64 - 1) % 29]


def test_of_one_too_many_each_stays_with_the_same_chance():
    # One bin, 5 records, 4 slots: each stays with chance 4/5, within 6 deviations.
    sampler = BallsInBinsSampler(bins=1, max_batch_size=5, max_records=5)
    assert not sampler.truncates
    tight = BallsInBinsSampler(bins=2, max_batch_size=3, max_records=6)
    found = taken(tight.batch(keys_of(20_000), 3, 6), 6)
    assert found.sum(axis=1).max() == 3
    # P[in] = E[min(K, 3)] / 6, K ~ Binomial(6, 1/2).
    mean = sum(math.comb(6, k) / 64 * min(k, 3) for k in range(7)) / 6
    room = 6 * math.sqrt(20_000 * mean * (1 - mean))
    assert (abs(found.sum(axis=0) - 20_000 * mean) < room).all()


def test_who_overflows_is_dropped_and_not_moved():
    tight = BallsInBinsSampler(bins=2, max_batch_size=3, max_records=6)
    for key in keys_of(20):
        bins = allocated(jax.random.fold_in(key, 0), 6, 2)[0]
        for step in (0, 1):
            batch = tight.batch(key, step, 6)
            members = set(batch.indices[batch.mask].tolist())
            came = set(np.flatnonzero(bins == step).tolist())
            assert members <= came and len(members) == min(3, len(came))


@pytest.mark.parametrize("relation", ["add_remove", "zero_out"])
def test_events(relation):
    gaussian = GaussianDpEvent(2.0)
    whole = BallsInBinsSampler(29, 1000, 1000)
    assert whole.run_event(gaussian, 290, relation) == RandomAllocationDpEvent(
        2.0, 29, epochs=10
    )
    assert whole.run_event(gaussian, 39, relation) == RandomAllocationDpEvent(
        2.0, 29, epochs=1, last_steps=10
    )
    tight = BallsInBinsSampler(29, 2388, 60_000)
    assert tight.run_event(gaussian, 290, relation) == TruncatedAllocationDpEvent(
        2.0, 29, 60_000, 2388, epochs=10
    )
    with pytest.raises(UnsupportedEvent, match="run_event"):
        whole.amplify(gaussian, relation)
    with pytest.raises(UnsupportedEvent, match="Gaussian"):
        whole.run_event(LaplaceDpEvent(1.0), 29, relation)
    assert whole.amplify(NonPrivateDpEvent(), relation) == NonPrivateDpEvent()


def test_slots_for_an_epoch_of_29_steps():
    # N=60000, t=29, E=10, eps=3, delta=1e-5: B=2388 is the rule's answer; E=40 and
    # eps=8: 2427 (allocation of 60,000 records).
    for epochs, budget, expected in ((10, 3.0, 2388), (40, 8.0, 2427)):
        size = choose_max_batch_size(
            1 / 29, 60_000, steps=29 * epochs, epsilon=budget, delta=1e-5
        )
        assert size == expected


@pytest.mark.slow
def test_known_epsilon_of_a_run():
    # s=1, t=29, E=10, delta=1e-5: certified between 3.435550 and 3.435663.
    sampler = BallsInBinsSampler(29, 60_000, 60_000)
    event = sampler.run_event(GaussianDpEvent(1.0), 290, "add_remove")
    upper = epsilon(event, 1e-5, relation="add_remove").upper
    assert upper is not None and 3.43555 < upper < 3.4364
