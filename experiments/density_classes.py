"""Classes from one private table of sums, beside DP-SGD at the same epsilon.

Both are given the same rows of length 1, epsilon and delta. DP-SGD trains a linear
softmax model by `dpkit.fit` at three learning rates, each run with a ledger of its own
in memory, for its budget; the best on the test rows counts, and is not charged for the
choice. Times are of one run, not of three.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dpkit import DPSGDPlan, fit
from dpkit.accountants import Ledger
from dpkit.data import load_arrays
from dpkit.density import Classifier
from dpkit.training.execution import Execution
from experiments import density_data
from experiments.baselines.release import Array
from experiments.density_sums import budget_of, rng

DELTA = 1e-5
RATES = (0.5, 2.0, 8.0)  # of learning


@dataclasses.dataclass(frozen=True)
class Row:
    """What one way to classify reached.

    Attributes:
      data: which rows.
      way: "linear", "kernel" or "DP-SGD".
      epsilon: at delta 1e-5.
      accuracy: on test rows, the mean over seeds.
      seconds: of the fastest run, noise calibrated, ledger and all. DP-SGD compiles
        its step anew in each run, a table only in the first.
      cpu_seconds: the least, of all threads.
      first_cpu_seconds: of the first run, compilation included.
    """

    data: str
    way: str
    epsilon: float
    accuracy: float
    seconds: float
    cpu_seconds: float
    first_cpu_seconds: float


class Run(NamedTuple):
    """Accuracy and seconds of one release or training."""

    accuracy: float
    seconds: float
    cpu_seconds: float


class Clock:
    """Wall and CPU time since it was made."""

    def __init__(self) -> None:
        self._begun = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        """Seconds by both."""
        wall, cpu = self._begun
        return time.perf_counter() - wall, time.process_time() - cpu


@dataclasses.dataclass(frozen=True)
class Split:
    """Rows to learn from, which stand for private ones, and public ones to test on."""

    x: Array
    y: Array
    test_x: Array
    test_y: Array

    @property
    def classes(self) -> int:
        """How many there are; public."""
        return int(self.test_y.max()) + 1


def digits(seed: int) -> Split:
    """1,797 digits of 64 pixels, a fifth of them for tests."""
    parts = [load_arrays("digits", split) for split in ("train", "test")]
    x = np.concatenate([part["image"] for part in parts]).reshape(-1, 64)
    y = np.concatenate([part["label"] for part in parts]).astype(np.int32)
    x = x / np.linalg.norm(x.astype(np.float32), axis=1, keepdims=True)
    order = rng(seed).permutation(len(x))
    some, rest = order[len(x) // 5 :], order[: len(x) // 5]
    return Split(x[some], y[some], x[rest], y[rest])


def embeddings(n: int, dim: int = 512) -> Split:
    """Synthetic rows like those of an image encoder; n, and n / 5 for tests."""
    x, y = density_data.embeddings(n + n // 5, dim, rng(0))
    y = y.astype(np.int32)
    return Split(x[:n], y[:n], x[n:], y[n:])


def table(
    split: Split, epsilon: float, ledger: Ledger, seed: int, waves: int = 0
) -> Run:
    """One release; with `waves` of a kernel of width .5, or linear."""
    clock = Clock()
    model = Classifier(
        classes=range(split.classes),
        epsilon=epsilon,
        delta=DELTA,
        kernel="gaussian" if waves else "linear",
        features=waves or 2,
        ledger=ledger,
        key=jax.random.key(seed),
        label=f"table, seed {seed}",
    ).fit(split.x, split.y)
    spent = clock.read()
    return Run(float(model.score(split.test_x, split.test_y)), *spent)


def sgd(split: Split, epsilon: float, seed: int, steps: int, rate: float) -> Run:
    """One run of DP-SGD."""
    clock, n = Clock(), len(split.x)
    plan = DPSGDPlan.for_budget(
        epsilon=epsilon,
        delta=DELTA,
        relation="add_remove",
        max_records=n,
        expected_batch_size=max(n // 20, min(n // 10, 200)),
        steps=steps,
        clip_norm=1.0,
    )
    start = {
        "w": jnp.zeros((split.x.shape[1], split.classes)),
        "b": jnp.zeros(split.classes),
    }
    terms = budget_of(1, epsilon, DELTA, unit="example", dataset="rows")
    with Ledger.open(None, **terms) as ledger:
        done = fit(
            _loss,
            start,
            {"x": split.x, "y": split.y},
            plan=plan,
            optimizer=optax.sgd(rate),
            ledger=ledger,
            execution=Execution(microbatch_size=256),
            insecure_seed=seed,
            allow_insecure_ledger=True,
        )
    spent = clock.read()
    scores = split.test_x @ np.asarray(done.params["w"]) + np.asarray(done.params["b"])
    right = float(np.mean(scores.argmax(1) == split.test_y))
    return Run(right, *spent)


def _loss(params: Any, example: Any, key: Any) -> jax.Array:
    """Cross entropy of one example under a linear model."""
    del key
    scores = example["x"] @ params["w"] + params["b"]
    return optax.softmax_cross_entropy_with_integer_labels(scores, example["y"])


def tables(
    name: str,
    splits: Sequence[Split],
    epsilons: Sequence[float],
    ledger: Ledger,
    waves: int = 0,
) -> list[Row]:
    """A row an epsilon, over splits that each have a seed."""
    return [
        _best(
            (name, "kernel" if waves else "linear", epsilon),
            [
                [
                    table(split, epsilon, ledger, s, waves)
                    for s, split in enumerate(splits)
                ]
            ],
        )
        for epsilon in epsilons
    ]


def trained(
    name: str,
    splits: Sequence[Split],
    epsilons: Sequence[float],
    steps: int,
    rates: Sequence[float] = RATES,
) -> list[Row]:
    """DP-SGD at the best of the learning rates; a row an epsilon."""
    return [
        _best(
            (name, "DP-SGD", epsilon),
            [
                [sgd(split, epsilon, s, steps, rate) for s, split in enumerate(splits)]
                for rate in rates
            ],
        )
        for epsilon in epsilons
    ]


def _best(what: tuple[str, str, float], settings: list[list[Run]]) -> Row:
    """The accuracy of the best setting, and the least times of all runs."""
    accuracy = max(float(np.mean([run.accuracy for run in of])) for of in settings)
    runs = [run for of in settings for run in of]
    return Row(
        *what,
        accuracy,
        min(run.seconds for run in runs),
        min(run.cpu_seconds for run in runs),
        runs[0].cpu_seconds,
    )
