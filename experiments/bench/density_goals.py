"""The goals of `experiments.bench.density`: figures beside what they should be."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from dpkit.accountants import Ledger
from dpkit.density.choice import choose
from dpkit.mechanisms.density import Structure
from experiments import density_classes as classes
from experiments import density_data
from experiments import density_sums as sums
from experiments.baselines.hermite_cells import LSQ_FGT
from experiments.baselines.release import Array, gaussian_sums, root_mean_square
from experiments.bench import density_times as times
from experiments.density import Config, reviews
from experiments.density_sums import APPROXIMATE, DIM, rng
from experiments.runner import Ledgers

LOW = (0.1, 0.25, 0.5)  # epsilons at which classes are raced
RUNS = 3  # of DP-SGD at each rate
FEW, MANY = 100, 300  # steps of DP-SGD: the few for its time, the best for accuracy


class Goal(NamedTuple):
    """A figure beside what it should be.

    Attributes:
      part: of the bench.
      words: what it is.
      found: its value.
      wanted: at most, or at least; None: it is told without a goal.
      least: whether it is the least wanted.
    """

    part: str
    words: str
    found: float
    wanted: float | None
    least: bool = False

    @property
    def reached(self) -> bool | None:
        """Whether it is what it should be; None where nothing is wanted."""
        if self.wanted is None:
            return None
        return (self.found >= self.wanted) if self.least else self.found <= self.wanted

    def line(self) -> str:
        """A row of Markdown."""
        wanted = ""
        if self.wanted is not None:
            wanted = f"{'≥' if self.least else '≤'} {self.wanted:.3g}"
        told = {True: "yes", False: "**no**", None: ""}[self.reached]
        return f"| {self.words} | {self.found:.3g} | {wanted} | {told} |"


def error_of(
    structure: Structure, points: Array, queries: Array, truth: Array, draws: int
) -> float:
    """RMS over queries and draws of the noise; the points are summed once."""
    total = structure.total(points)
    found = [
        structure.answers(structure.privatize(jax.random.key(s), total), queries).values
        for s in range(draws)
    ]
    return root_mean_square(np.array(found) - truth)


def grids(n: int, draws: int) -> list[Goal]:
    """Splines beside the floor, and beside the fast Gauss transform."""
    goals, side = [], density_data.SIDE
    for d in sums.ORDERS:
        points = density_data.bumps(n, d, rng(0, d))
        queries = rng(1, d).uniform(0, side, (200, d))
        truth = gaussian_sums(points, queries)
        for delta in (APPROXIMATE, 0.0):
            grid = choose(
                d,
                kernel="gaussian",
                bandwidth=1.0,
                domain=[(0, side)] * d,
                epsilon=1.0,
                delta=delta,
                relation="add_remove",
                records=n,
            ).structure
            error = error_of(grid, points, queries, truth, draws)
            words = f"grid, d={d}, (1, {delta:g}): error ÷ "
            if delta:
                goals.append(
                    Goal("errors", words + "the floor", error / grid.floor, 1.15)
                )
            elif d == 1:
                goals.append(
                    Goal("errors", words + "the floor", error / grid.floor, 1.8)
                )
            elif d == 2:
                cells = LSQ_FGT(d, side, sums.ORDERS[d], 1.0)
                theirs = [
                    cells.fit(points, rng(s, 9)).query(queries) - truth
                    for s in range(10)
                ]
                share = error / root_mean_square(np.array(theirs))
                goals.append(Goal("errors", words + "LSQ-FGT's", share, 0.2))
    return goals


def at_landmarks(n: int, draws: int) -> Goal:
    """Landmarks that are the queries, beside the floor."""
    drawn = density_data.Mixture.drawn(DIM, rng(0, DIM))
    points, public = drawn.points(n, rng(1, DIM)), drawn.points(1024, rng(3, DIM))
    queries = public[:200]
    sketch = choose(
        DIM,
        kernel="gaussian",
        bandwidth=1.0,
        landmarks=public,
        landmarks_public=True,
        epsilon=1.0,
        delta=APPROXIMATE,
        relation="add_remove",
    ).structure
    truth = gaussian_sums(points, queries)
    error = error_of(sketch, points, queries, truth, draws)
    words = "landmarks that are asked for, d=16, (1, 1e-06): error ÷ the floor"
    return Goal("errors", words, error / sketch.floor, 1.05)


def errors(config: Config, draws: int = 400) -> list[Goal]:
    """All goals of accuracy of sums."""
    n, count = config.records, config.queries
    goals = [*grids(n, draws), at_landmarks(n, draws)]
    with tempfile.TemporaryDirectory() as folder:
        ledgers = Ledgers("bench", Path(folder))
        rows = sums.mixture(n, count, config.seeds, config.sizes, ledgers)
        many = range(10 * len(config.cheap_seeds))  # a seed shifts all answers alike
        far = sums.lengths(config.distances, count, many, ledgers)
        ledgers.close()
    for row in (row for row in rows if row.epsilon == 1.0 and "landmarks" in row.ours):
        if "queries" not in row.ours:
            wanted = 1 / 50 if row.delta else 1 / 10
            goals.append(_beside(row, wanted))
    return goals + [_beside(row, 1 / 20) for row in far]


def _beside(row: sums.Row, wanted: float) -> Goal:
    """Our error as a share of a baseline's."""
    words = f"{row.data}, {row.ours}, ({row.epsilon:g}, {row.delta:g}): "
    return Goal("errors", words + f"error ÷ {row.baseline}'s", row.share, wanted)


def classified(config: Config) -> list[Goal]:
    """Digits; and DP-SGD's time and accuracy beside ours."""
    many = config.cheap_seeds
    with opened("digits", 2 * len(many), 2.0) as ledger:
        splits = [classes.digits(seed) for seed in many]
        waves = config.waves
        rows = classes.tables("digits", splits, (1.0, 2.0), ledger, waves)
    goals = [
        Goal("classes", f"digits, kernel, ε={row.epsilon:g}: accuracy", row.accuracy,
             wanted, True)
        for row, wanted in zip(rows, (0.88, 0.92), strict=True)
    ]  # fmt: skip
    raced = {}
    if config.rows:
        raced["synthetic embeddings"] = classes.embeddings(config.rows)
    texts = reviews(config)
    if texts is not None:
        raced["reviews of films"] = texts
    for name, split in raced.items():
        goals += race(name, split, config)
    return goals


def race(name: str, split: classes.Split, config: Config) -> list[Goal]:
    """One table beside DP-SGD at its best rate: its time in few steps."""
    seeds = len(config.cheap_seeds)
    with opened(name, seeds * len(LOW), max(LOW)) as ledger:
        ours = classes.tables(name, [split] * seeds, LOW, ledger)
    same = [split] * RUNS
    few, many = (
        classes.trained(name, same, LOW, steps, config.rates) for steps in (FEW, MANY)
    )
    goals = []
    for a, b, c in zip(ours, few, many, strict=True):
        words, best = f"{name}, ε={a.epsilon:g}: ", max(b.accuracy, c.accuracy)
        told = f"accuracy less DP-SGD's ({a.accuracy:.3f} less {best:.3f})"
        goals.append(Goal("classes", words + told, a.accuracy - best, 0.0, True))
        for clock, slow, fast in (
            ("CPU time", b.cpu_seconds, a.cpu_seconds),
            ("wall time", b.seconds, a.seconds),
        ):
            told = f"{clock}, DP-SGD's ({slow:.2g} s) ÷ ours ({fast:.2g} s)"
            goals.append(Goal("classes", words + told, slow / fast, 30.0, True))
    first = few[0].first_cpu_seconds / ours[0].first_cpu_seconds
    told = f"{name}: CPU time, DP-SGD's ÷ ours, both with compilation"
    goals.append(Goal("classes", told, first, None))
    step = (many[0].cpu_seconds - few[0].cpu_seconds) / (MANY - FEW)
    for steps in (FEW, MANY):
        told = f"{name}: CPU time, {steps} compiled steps of DP-SGD ÷ ours"
        ratio = steps * step / ours[0].cpu_seconds
        goals.append(Goal("classes", told, ratio, None))
    return goals


def opened(name: str, count: int, epsilon: float) -> Ledger:
    """A ledger in memory that holds so many releases."""
    terms = sums.budget_of(count, epsilon, classes.DELTA, unit="example", dataset=name)
    return Ledger.open(None, **terms)


def timed(peer: Path | None, sizes: Any = times.SIZES) -> tuple[list[Goal], Any]:
    """Queries and building; and all times of queries."""
    asked = times.queried(sizes)
    goals = []
    contest = asked.get(str(times.RECORDS), {})
    exactly = {"exact": "a product of matrices", "differences": "differences"}
    for name, way in exactly.items():
        if name in contest:
            for kind, ratio in _ratios(contest[name], contest["sketch"]).items():
                words = f"200 queries, n=1e5: exact JAX, by {way} ÷ sketch, {kind}"
                goals.append(Goal("times", words, ratio, 50.0, True))
    spent = [contest["sketch"].wall for contest in asked.values()]
    words = f"200 queries, n={min(sizes):.0e} to {max(sizes):.0e}: longest ÷ shortest"
    goals.append(Goal("times", words, max(spent) / min(spent), 1.3))
    found = times.built(peer)
    if "peer" in found:
        for kind, ratio in _ratios(found["peer"], found["ours"]).items():
            words = f"building, n=1e5: talwagner/lsq ÷ ours, {kind}"
            goals.append(Goal("times", words, ratio, 8.0, True))
    every = {n: {k: t.wall for k, t in c.items()} for n, c in asked.items()}
    return goals, {"queries": every, "built": {k: t.wall for k, t in found.items()}}


def _ratios(slow: times.Least, fast: times.Least) -> dict[str, float]:
    """By both clocks."""
    return {"CPU time": slow.cpu / fast.cpu, "wall time": slow.wall / fast.wall}


def memory(rows: int = 10**7) -> list[Goal]:
    """The peak of a process that reads a Parquet file once."""
    found = times.from_parquet(rows)
    words = f"{rows:.0e} points x 16 from Parquet, {found['seconds']:.0f} s: peak, MB"
    return [Goal("memory", words, found["peak_mib"] * 2**20 / 1e6, 1000.0)]
