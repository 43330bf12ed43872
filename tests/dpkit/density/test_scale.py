"""Parts summed by the workers of another engine, and one noise at the end."""

from typing import Any

import jax
import numpy as np
import pytest

from dpkit.accountants import Budget, Ledger
from dpkit.density import Shard, release_shards
from dpkit.mechanisms.density import Gaussian, Kernel, KernelSketch, SplineGrid

KERNEL = Kernel("gaussian", 1.0)
STRUCTURES = [
    SplineGrid(kernel=KERNEL, domain=((0, 9), (0, 9)), noise=Gaussian(4.0)),
    KernelSketch.draw(KERNEL, 2, features=64, noise=Gaussian(4.0)),
]


def total(seed, structure):
    """What a worker does with its part."""
    shard = Shard(structure)
    shard.add(part(seed))
    return shard.private_total


def part(seed):
    return np.random.default_rng(seed).normal(4, 1, (500, 2))


@pytest.mark.slow
def test_workers_of_a_cluster_sum_as_one_process_does():
    from dask.distributed import Client, LocalCluster

    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        found: Any = [
            client.gather(client.map(total, range(3), structure=structure))
            for structure in STRUCTURES
        ]
    whole = np.concatenate([part(seed) for seed in range(3)])
    for structure, totals in zip(STRUCTURES, found, strict=True):
        alone = Shard(structure)
        alone.add(whole)
        np.testing.assert_array_equal(sum(totals), alone.private_total)
        terms = dict(relation="add_remove", unit="record", dataset="toy 1.0")
        with Ledger.open(None, budget=Budget(9.0, 1e-6), **terms) as ledger:
            shards = [Shard.from_private(structure, each) for each in totals]
            key = jax.random.key(0)
            released = release_shards(*shards, ledger=ledger, key=key)
            assert [e.kind for e in ledger.entries()].count("reserve") == 1
        noise = released.values - alone.private_total * structure.step
        assert 0.8 < noise.std() / structure.stddev < 1.2  # 65 entries or more
