"""CPU time of the search for synthetic tables, on a random table as wide as Adult.

Times are CPU seconds of all threads; a generation's and a sweep's are without
compilation, that of a whole search is with it.

    python -m experiments.bench.synthetic_engine
"""

from __future__ import annotations

import argparse
import itertools
import resource
import time
from collections.abc import Callable, Sequence

import numpy as np

from dpkit.synthetic.engine import HalfSpace, Marginal, Target, evolve, search
from dpkit.synthetic.engine.families import Family

ADULT = (85, 9, 100, 16, 7, 15, 6, 5, 2, 100, 100, 99, 42, 2)
HEAD = "| what | CPU | candidates per CPU-s |\n|---|---|---|"


def table(sizes: Sequence[int], rows: int) -> np.ndarray:
    """Rows of a mixture of a dozen classes, in which columns hang together."""
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 12, rows)
    columns = [
        rng.beta(1 + kind % 4, 1 + kind * (j + 3) % 5) * size
        for j, size in enumerate(sizes)
    ]
    return np.minimum(np.stack(columns, 1).astype(int), np.array(sizes) - 1)


def shares(family: Family, rows: np.ndarray) -> np.ndarray:
    """The exact shares of a table made up here: nobody's."""
    cells, size = family.cells(rows), int(np.prod(family.shape))
    found = np.bincount(cells[cells >= 0], minlength=size)
    return found.reshape(family.shape) / len(rows)


def paced(run: Callable[[Callable[[int, int], None]], object]) -> tuple[float, float]:
    """CPU seconds of a step after the first report, and of all."""
    begin, told = time.process_time(), []
    run(lambda done, total: told.append((done, time.process_time())))
    (first, early), (last, late) = told[0], told[-1]
    return (late - early) / (last - first), time.process_time() - begin


def lines(sizes: Sequence[int], rows: int, few: int, generations: int) -> list[str]:
    """The rows of the table."""
    made = table(sizes, rows)
    rng = np.random.default_rng(1)
    start = np.stack([rng.permutation(column) for column in made.T], axis=1)
    pairs = list(itertools.combinations(range(len(sizes)), 2))
    sets = [*((j,) for j in range(len(sizes))), *pairs]
    families = [Marginal(columns, tuple(sizes)) for columns in sets]
    asked = [shares(family, made) for family in families]
    targets = [Target(c, values) for c, values in zip(sets, asked, strict=True)]
    found = []

    def swept(tell: Callable[[int, int], None]) -> None:
        noise = 0.0003
        search(start, sizes, targets, seed=0, temperature=8 * noise, on_progress=tell)

    one, whole = paced(swept)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found.append(
        f"| sweep, {rows} rows | {one:.2f} s | {rows * sum(sizes) / one:.2g} |"
    )
    found.append(f"| 8 sweeps, compiled; peak {peak:.0f} MiB | {whole:.1f} s | |")
    numeric = [j for j, size in enumerate(sizes) if size > 16]
    middles = tuple((np.arange(sizes[j]) + 0.5) / sizes[j] for j in numeric)
    kinds = [family for family in families if family.columns[0] not in numeric]
    planes = [
        HalfSpace(
            tuple(numeric),
            middles,
            kinds[q % 5],
            rng.normal(size=len(numeric)) / len(numeric) ** 0.5,
            rng.normal(),
        )
        for q in range(600)
    ]
    answers = [shares(plane, made) for plane in planes]
    for name, count, these, values in (
        ("pairs and singles", 50, families, asked),
        ("pairs and singles", 1000, families, asked),
        ("600 half-spaces", 50, planes, answers),
    ):

        def evolved(tell: Callable[[int, int], None]) -> None:
            evolve(
                start[:few], sizes, these, values, seed=0, candidates=count,
                generations=generations, on_progress=tell,
            )  # fmt: skip

        one, _ = paced(evolved)
        found.append(
            f"| generation, {count} candidates, {name}, {few} rows | {1e6 * one:.0f} µs "
            f"| {count / one:.2g} |"
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generations", type=int, default=8192)
    args = parser.parse_args()
    print("\n".join([HEAD, *lines(ADULT, 39_000, 2000, args.generations)]))


if __name__ == "__main__":
    main()
