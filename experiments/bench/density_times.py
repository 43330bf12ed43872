"""Contests of `experiments.bench.density`: the same work in turns, in one process.

Quoted is the CPU time of the whole process, threads included, which other work on the
machine changes little; wall time stands beside it. Each is the least of all calls in
several rounds in which contestants take turns, but for the first, which compiles.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dpkit.density import Shard
from dpkit.mechanisms.density import Gaussian, Kernel, KernelSketch
from experiments import density_data
from experiments.baselines.release import Array
from experiments.density_sums import DIM, rng

RECORDS, FEATURES, QUERIES = 100_000, 1024, 200
SIZES = tuple(10**k for k in range(3, 8))
_MOST_EXACT = 10**6
_CHUNK = 100_000


class Least(NamedTuple):
    """The least seconds of all rounds."""

    cpu: float
    wall: float


def in_turns(
    contestants: dict[str, Callable[[], Any]], rounds: int, repeats: int = 1
) -> dict[str, Least]:
    """The least time of each call; a round calls each `repeats` times.

    Example:
      >>> sorted(in_turns({"a": lambda: 1, "b": lambda: 2}, rounds=2))
      ['a', 'b']
    """
    found: dict[str, list[Least]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, work in contestants.items():
            for _ in range(repeats):
                wall, cpu = time.perf_counter(), time.process_time()
                jax.block_until_ready(work())
                spent = time.process_time() - cpu, time.perf_counter() - wall
                if number:
                    found[name].append(Least(*spent))
    return {
        name: Least(min(t.cpu for t in times), min(t.wall for t in times))
        for name, times in found.items()
    }


def sketch() -> KernelSketch:
    """The sketch of all contests: d = 16, 1,024 features."""
    kernel, noise = Kernel("gaussian", 1.0), Gaussian(4.224679)
    return KernelSketch.draw(kernel, DIM, features=FEATURES, noise=noise)


def chunks(n: int, drawn: density_data.Mixture) -> Iterator[Array]:
    """Points (some, 16) float32, n in all."""
    for start in range(0, n, _CHUNK):
        some = min(_CHUNK, n - start)
        yield drawn.points(some, rng(1, start)).astype(np.float32)


@jax.jit
def exact(points: jax.Array, queries: jax.Array) -> jax.Array:
    """The sums over all points, by a product of matrices."""
    squares = (points**2).sum(1)[:, None] + (queries**2).sum(1)[None, :]
    return jnp.exp(jnp.minimum(2 * points @ queries.T - squares, 0.0)).sum(0)


@jax.jit
def differences(points: jax.Array, queries: jax.Array) -> jax.Array:
    """The same sums as they are usually written, and right to more digits."""
    steps = points[:, None, :] - queries[None, :, :]
    return jnp.exp(-(steps**2).sum(-1)).sum(0)


def queried(
    sizes: Sequence[int] = SIZES, rounds: int = 15
) -> dict[str, dict[str, Least]]:
    """The time of 200 queries by number of points: of the sketch, and of exact sums."""
    drawn, ours = density_data.Mixture.drawn(DIM, rng(0)), sketch()
    queries = drawn.points(QUERIES, rng(2))
    shard, done, found = Shard(ours), 0, {}
    contests: dict[int, dict[str, Callable[[], Any]]] = {}
    for n in sizes:
        shard.add(chunks(n - done, drawn))
        done = n
        values = ours.privatize(jax.random.key(n), shard.private_total)
        contests[n] = {"sketch": lambda v=values: ours.answers(v, queries).values}
        if n <= _MOST_EXACT:
            points = jnp.asarray(np.concatenate(list(chunks(n, drawn))))
            near = jnp.asarray(queries, jnp.float32)
            contests[n]["exact"] = lambda p=points, q=near: exact(p, q)
            if n == RECORDS:
                contests[n]["differences"] = lambda p=points, q=near: differences(p, q)
    every = {
        f"{name} {n}": work for n, c in contests.items() for name, work in c.items()
    }
    least = in_turns(every, rounds, repeats=8)
    for n, contest in contests.items():
        found[str(n)] = {name: least[f"{name} {n}"] for name in contest}
    return found


def built(peer: Path | None, rounds: int = 5) -> dict[str, Least]:
    """The time of a release of 100,000 points; beside the peer's, where it is given."""
    drawn, ours = density_data.Mixture.drawn(DIM, rng(0)), sketch()
    points = drawn.points(RECORDS, rng(1))
    contestants: dict[str, Callable[[], Any]] = {
        "ours": lambda: ours(jax.random.key(0), points)
    }
    if peer is not None:
        theirs = peer_module(peer)

        def release() -> Any:
            made = theirs.LSQ_RFF(points, DIM, FEATURES)
            made.sanitize(1.0)
            return made.sanitized_rff_kde

        contestants["peer"] = release
    return in_turns(contestants, rounds)


def peer_module(folder: Path) -> Any:
    """The authors' lsq.py from a checkout of talwagner/lsq.

    Raises:
      ValueError: there is none.
    """
    path = folder / "lsq.py"
    if not path.exists():
        raise ValueError(f"--peer {folder}: needed a checkout with lsq.py")
    spec: Any = importlib.util.spec_from_file_location("lsq", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def from_parquet(rows: int = 10**7) -> dict[str, float]:
    """Seconds and memory of one pass over a Parquet file, in a process of its own."""
    command = [sys.executable, "-m", "experiments.bench.density_parquet", str(rows)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)
