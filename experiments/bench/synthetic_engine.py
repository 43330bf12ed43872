"""CPU time of the search for synthetic tables, on a random table as wide as Adult.

Times are CPU seconds of all threads; a generation's and a sweep's are without
compilation, that of a whole search is with it.

    python -m experiments.bench.synthetic_engine
"""

from __future__ import annotations

import argparse
import functools
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
    singles = [(j,) for j in range(len(sizes))]
    sets = [*singles, *itertools.combinations(range(len(sizes)), 2)]
    families = [Marginal(columns, tuple(sizes)) for columns in sets]
    targets = [Target(f.columns, shares(f, made)) for f in families]

    def swept(tell: Callable[[int, int], None]) -> None:
        search(start, sizes, targets, seed=0, temperature=0.0024, on_progress=tell)

    one, whole = paced(swept)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rate = rows * sum(sizes) / one
    found = [
        f"| sweep, {rows} rows | {one:.2f} s | {rate:.2g} |",
        f"| 8 sweeps, compiled; peak {peak:.0f} MiB | {whole:.1f} s | |",
    ]
    planes = half_spaces(sizes, 600)
    for name, count, these in (
        ("pairs and singles", 50, families),
        ("pairs and singles", 1000, families),
        ("600 half-spaces", 50, planes),
    ):
        run = functools.partial(
            evolve, start[:few], sizes, these, [shares(f, made) for f in these],
            seed=0, candidates=count, generations=generations,
        )  # fmt: skip
        one, _ = paced(lambda tell, run=run: run(on_progress=tell))
        found.append(
            f"| generation, {count} candidates, {name}, {few} rows "
            f"| {1e6 * one:.0f} µs | {count / one:.2g} |"
        )
    return found


def half_spaces(sizes: Sequence[int], count: int) -> list[Family]:
    """Random ones through all wide columns, by the codes of a narrow one."""
    rng = np.random.default_rng(2)
    wide = tuple(j for j, size in enumerate(sizes) if size > 16)
    middles = tuple((np.arange(sizes[j]) + 0.5) / sizes[j] for j in wide)
    kinds = [Marginal((j,), tuple(sizes)) for j, size in enumerate(sizes) if size <= 16]
    return [
        HalfSpace(
            wide,
            middles,
            kinds[q % len(kinds)],
            rng.normal(size=len(wide)) / len(wide) ** 0.5,
            rng.normal(),
        )
        for q in range(count)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generations", type=int, default=8192)
    args = parser.parse_args()
    print("\n".join([HEAD, *lines(ADULT, 39_000, 2000, args.generations)]))


if __name__ == "__main__":
    main()
