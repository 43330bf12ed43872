"""Errors of private sums beside other people's, over the same points and queries.

An error is the root mean square over queries and seeds; every seed has its own noise,
frequencies and landmarks. Points are the same for all seeds, so one ledger counts all
releases about them. Baselines charge none: their noise is not for release.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from dpkit.accountants import Budget, Ledger
from dpkit.density import curate, release
from dpkit.mechanisms.density import Answers
from experiments import density_data
from experiments.baselines.distance_trees import ShellTree, SumTree
from experiments.baselines.hermite_cells import LSQ_FGT
from experiments.baselines.phase_features import LSQ_RFF
from experiments.baselines.release import (
    Array,
    gaussian_sums,
    l1_sums,
    root_mean_square,
)
from experiments.runner import Ledgers

APPROXIMATE = 1e-6
ORDERS = {1: 10, 2: 8, 3: 7}  # of the Gauss transform: the best at 1e5 points
DIM = 16


@dataclasses.dataclass(frozen=True)
class Row:
    """One structure beside one baseline.

    Attributes:
      data: which points.
      epsilon, delta: of our release; the baseline has the same epsilon, and delta 0.
      ours, baseline: what they are.
      error, baseline_error: RMS of a sum.
      floor: the error of a single answer with our noise.
      coverage: the share of answers within 2 stddev + bias_bound of the truth.
    """

    data: str
    epsilon: float
    delta: float
    ours: str
    baseline: str
    error: float
    baseline_error: float
    floor: float
    coverage: float

    @property
    def share(self) -> float:
        """Our error over the baseline's."""
        return self.error / self.baseline_error

    @property
    def over_floor(self) -> float:
        """Our error over the floor."""
        return self.error / self.floor


@dataclasses.dataclass(frozen=True)
class Problem:
    """Points that stand for private ones, public queries, and the truth.

    Attributes:
      name: of the points.
      points: (n, d).
      queries: (q, d).
      truth: (q,) sums.
      ledger: counts all releases about the points.
      seeds: of noise, frequencies and landmarks.
    """

    name: str
    points: Array
    queries: Array
    truth: Array
    ledger: Ledger
    seeds: Sequence[int]

    def baseline(self, *made: Callable[[int], Any]) -> float:
        """The error of the best of some baselines, each made with a public seed."""
        return min(map(self._error, made))

    def _error(self, make: Callable[[int], Any]) -> float:
        """The error of one baseline."""
        releases = (make(s).fit(self.points, rng(s, 9)) for s in self.seeds)
        found = [made.query(self.queries) - self.truth for made in releases]
        return root_mean_square(np.array(found))

    def released(
        self, epsilon: float, delta: float, settings: Callable[[int], dict[str, Any]]
    ) -> dict[str, float]:
        """Error, floor and coverage of releases with the settings of each seed."""
        found, floor = [], 0.0
        for seed in self.seeds:
            made = release(
                self.points,
                epsilon=epsilon,
                delta=delta,
                ledger=self.ledger,
                key=jax.random.key(seed),
                records=len(self.points),
                label=f"{self.name}, seed {seed}",
                **settings(seed),
            )
            found.append(made.query(self.queries))
            floor = made.structure.floor
        return self._told(found, floor)

    def curated(self, epsilon: float, delta: float) -> dict[str, float]:
        """The same of exact sums with one path of noise for each seed."""
        found, floor = [], 0.0
        for seed in self.seeds:
            curator = curate(
                self.points,
                bandwidth=1.0,
                epsilon=epsilon,
                delta=delta,
                ledger=self.ledger,
                key=jax.random.key(seed),
                max_queries=len(self.queries),
            )
            found.append(curator.query(self.queries))
            floor = curator.mechanism.noise.noise_multiplier
        return self._told(found, floor)

    def _told(self, found: list[Answers], floor: float) -> dict[str, float]:
        """Error, floor and coverage of answers."""
        errors = np.array([answers.values - self.truth for answers in found])
        allowed = np.array([2 * a.stddev + a.bias_bound for a in found])
        return {
            "error": root_mean_square(errors),
            "floor": floor,
            "coverage": float(np.mean(np.abs(errors) <= allowed)),
        }

    def row(
        self, budget: tuple[float, float], ours: str, found: Any, **baseline: float
    ) -> list[Row]:
        """A row for each baseline and its error."""
        names = {name.replace("_", "-"): error for name, error in baseline.items()}
        return [
            Row(self.name, *budget, ours, name, baseline_error=error, **found)
            for name, error in names.items()
        ]


def rng(*seed: int) -> np.random.Generator:
    """A generator for each list of numbers."""
    return np.random.default_rng(seed)


def budget_of(releases: int, epsilon: float, delta: float, **of: str) -> dict[str, Any]:
    """What a ledger is opened with that holds so many releases, each of its own."""
    whole = Budget(1.01 * releases * epsilon, releases * delta)
    return {"budget": whole, "relation": "add_remove"} | of


def bumps(
    n: int, count: int, seeds: Sequence[int], dims: Sequence[int], ledgers: Ledgers
) -> list[Row]:
    """Grids against the fast Gauss transform, in few dimensions."""
    rows, side = [], density_data.SIDE
    for d in dims:
        points = density_data.bumps(n, d, rng(0, d))
        queries = rng(1, d).uniform(0, side, (count, d))
        terms = budget_of(2 * len(seeds), 1.0, APPROXIMATE, unit="point", dataset="two")
        ledger = ledgers.open(f"bumps-{d}", **terms)
        truth = gaussian_sums(points, queries)
        problem = Problem(f"bumps, d={d}", points, queries, truth, ledger, seeds)
        cells = LSQ_FGT(d, side, ORDERS[d], 1.0)
        theirs = problem.baseline(lambda _, cells=cells: cells)
        box = {"bandwidth": 1.0, "domain": [(0, side)] * d}
        for delta in (0.0, APPROXIMATE):
            found = problem.released(1.0, delta, lambda _, box=box: box)
            rows += problem.row((1.0, delta), "grid", found, LSQ_FGT=theirs)
    return rows


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Of the structures for sixteen dimensions.

    Attributes:
      landmarks: fewer with pure noise than with Gaussian noise.
      features: of our sketch with Gaussian noise; pure noise chooses its own.
      waves: of LSQ-RFF, for each epsilon; the best of them counts.
    """

    landmarks: tuple[int, int] = (1024, 2048)
    features: int = 8192
    waves: tuple[tuple[float, tuple[int, ...]], ...] = (
        (1.0, (4096,)),
        (0.1, (1024, 4096)),
    )


def mixture(
    n: int, count: int, seeds: Sequence[int], sizes: Sizes, ledgers: Ledgers
) -> list[Row]:
    """Landmarks, waves and the curator against LSQ-RFF, d = 16."""
    drawn = density_data.Mixture.drawn(DIM, rng(0, DIM))
    points, queries = drawn.points(n, rng(1, DIM)), drawn.points(count, rng(2, DIM))
    terms = budget_of(9 * len(seeds), 1.0, APPROXIMATE, unit="point", dataset="mixture")
    ledger = ledgers.open("mixture", **terms)
    truth = gaussian_sums(points, queries)
    problem = Problem(f"mixture, d={DIM}", points, queries, truth, ledger, seeds)

    def landmarks(m: int, *more: Array) -> Callable[[int], dict[str, Any]]:
        def settings(seed: int) -> dict[str, Any]:
            public = np.concatenate([*more, drawn.points(m, rng(3, DIM, seed))])
            return waves(seed) | {"landmarks": public, "landmarks_public": True}

        return settings

    def waves(seed: int, **more: Any) -> dict[str, Any]:
        return {"bandwidth": 1.0, "feature_seed": seed} | more

    few, many = sizes.landmarks
    rows = []
    for epsilon, tried in sizes.waves:
        theirs = problem.baseline(
            *(lambda s, m=m, e=epsilon: LSQ_RFF(DIM, m, e, s) for m in tried)
        )
        pure, approximate = (epsilon, 0.0), (epsilon, APPROXIMATE)
        cases = [
            (pure, f"{few} landmarks", landmarks(few)),
            (approximate, f"{many} landmarks", landmarks(many)),
            (pure, "waves", waves),
            (approximate, f"waves, m={sizes.features}",
             lambda s: waves(s, features=sizes.features)),
        ]  # fmt: skip
        if epsilon == 1.0:
            with_queries = landmarks(max(few - count, 1), queries)
            cases.append((approximate, "landmarks with the queries", with_queries))
        for budget, ours, settings in cases:
            found = problem.released(*budget, settings)
            rows += problem.row(budget, ours, found, LSQ_RFF=theirs)
        if epsilon == 1.0:
            found = problem.curated(*approximate)
            rows += problem.row(approximate, "curator", found, LSQ_RFF=theirs)
    return rows


def lengths(n: int, count: int, seeds: Sequence[int], ledgers: Ledgers) -> list[Row]:
    """Hats and distribution functions against trees: l1 distances, d = 1."""
    points = density_data.skewed(n, 1, rng(0, 1))
    queries = rng(1, 1).uniform(0, 1, (count, 1))
    terms = budget_of(2 * len(seeds), 1.0, APPROXIMATE, unit="point", dataset="skewed")
    ledger = ledgers.open("lengths", **terms)
    truth = l1_sums(points, queries)
    problem = Problem("l1, d=1", points, queries, truth, ledger, seeds)
    theirs = {
        "shell_tree": problem.baseline(lambda _: ShellTree(1, 1.0, 14, 0.3, 1.0)),
        "sum_tree": problem.baseline(lambda _: SumTree(1, 1.0, 14, 1.0)),
    }
    rows = []
    for delta, ours in ((0.0, "hats"), (APPROXIMATE, "distribution")):
        found = problem.released(
            1.0, delta, lambda _: {"kernel": "l1", "domain": [(0, 1)]}
        )
        rows += problem.row((1.0, delta), ours, found, **theirs)
    return rows
