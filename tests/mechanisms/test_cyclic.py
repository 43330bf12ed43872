"""The cyclic order: one partition, even parts, no amplification."""

import itertools

import jax
import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, LaplaceDpEvent, SelfComposedDpEvent

from dpkit.accountants.answers.errors import UnsupportedEvent
from dpkit.mechanisms import CyclicSampler

pytestmark = pytest.mark.usefixtures("quick_compilation")


def parts(key, num_records, sampler):
    batches = [sampler.batch(key, s, num_records) for s in range(sampler.bins)]
    return [b.indices[b.mask].tolist() for b in batches]


def test_the_parts_are_even_and_come_again_in_every_epoch():
    sampler, key = CyclicSampler(bins=4, max_records=11), jax.random.key(2)
    first = parts(key, 11, sampler)
    assert sorted(itertools.chain(*first)) == list(range(11))
    assert sorted(map(len, first)) == [2, 3, 3, 3]
    assert sampler.max_batch_size == 3
    for step in (4, 9, 4_000_003):
        batch = sampler.batch(key, step, 11)
        assert batch.indices[batch.mask].tolist() == first[step % 4]
    assert parts(jax.random.key(3), 11, sampler) != first


def test_adding_a_record_leaves_the_others_where_they_are():
    sampler, key = CyclicSampler(bins=3, max_records=9), jax.random.key(0)
    for records in range(0, 9, 4):
        fewer, more = parts(key, records, sampler), parts(key, records + 1, sampler)
        assert [[i for i in part if i < records] for part in more] == fewer


def test_a_record_is_as_far_apart_as_the_sampler_says():
    sampler, key = CyclicSampler(bins=5, max_records=20), jax.random.key(1)
    steps = [s for s in range(23) if 7 in _members(sampler.batch(key, s, 20))]
    assert set(np.diff(steps)) == {sampler.separation} == {5}
    assert len(steps) <= sampler.participations(23) == 5


def _members(batch):
    return batch.indices[batch.mask].tolist()


@pytest.mark.parametrize("relation", ["add_remove", "zero_out", "replace_one"])
def test_an_epoch_costs_one_release(relation):
    sampler = CyclicSampler(bins=10, max_records=100)
    for event in (GaussianDpEvent(2.0), LaplaceDpEvent(2.0)):
        for steps, count in ((1, 1), (10, 1), (11, 2), (30, 3)):
            found = sampler.run_event(event, steps, relation)
            assert found == SelfComposedDpEvent(event, count)
    with pytest.raises(UnsupportedEvent, match="run_event"):
        sampler.amplify(GaussianDpEvent(2.0), relation)
