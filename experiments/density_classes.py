"""Classes from one private table of sums, beside DP-SGD at the same epsilon.

Both are given the same rows of length 1, epsilon and delta, and both charge the ledger
of the data. DP-SGD trains a linear softmax model by `dpkit.fit` at three learning
rates, of which the best on the test rows counts, and is not charged for the choice.
Times are of one run, not of three.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from typing import Any

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
from experiments.density_sums import rng

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
      seconds: of the fastest run, noise calibrated and compiled anew by DP-SGD.
      steps_seconds: of that, the steps alone; for a table the same.
    """

    data: str
    way: str
    epsilon: float
    accuracy: float
    seconds: float
    steps_seconds: float


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
) -> tuple[float, float]:
    """Accuracy and seconds of one release; with `waves` of a kernel of width .5."""
    begun = time.perf_counter()
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
    seconds = time.perf_counter() - begun
    return float(model.score(split.test_x, split.test_y)), seconds


def sgd(
    split: Split, epsilon: float, ledger: Ledger, seed: int, steps: int, rate: float
) -> tuple[float, float, float]:
    """Accuracy, seconds and seconds of the steps of one run of DP-SGD."""
    begun = time.perf_counter()
    n = len(split.x)
    batch = max(n // 20, min(n // 10, 200))
    plan = DPSGDPlan.for_budget(
        epsilon=epsilon,
        delta=DELTA,
        relation=ledger.relation,
        max_records=n,
        expected_batch_size=batch,
        max_batch_size=min(n, batch + 10 * math.isqrt(batch)),  # never one too large
        steps=steps,
        clip_norm=1.0,
    )
    start = {
        "w": jnp.zeros((split.x.shape[1], split.classes)),
        "b": jnp.zeros(split.classes),
    }
    done = fit(
        _loss,
        start,
        {"x": split.x, "y": split.y},
        plan=plan,
        optimizer=optax.sgd(rate),
        ledger=ledger,
        delta=DELTA,
        label=f"DP-SGD at {rate:g}, seed {seed}",
        execution=Execution(microbatch_size=256),
        insecure_seed=seed,
        allow_insecure_ledger=True,
    )
    seconds = time.perf_counter() - begun
    scores = split.test_x @ np.asarray(done.params["w"]) + np.asarray(done.params["b"])
    right = float(np.mean(scores.argmax(1) == split.test_y))
    return right, seconds, done.seconds


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
    rows = []
    for epsilon in epsilons:
        found = [
            table(split, epsilon, ledger, seed, waves)
            for seed, split in enumerate(splits)
        ]
        accuracy = float(np.mean([right for right, _ in found]))
        least = min(seconds for _, seconds in found)
        way = "kernel" if waves else "linear"
        rows.append(Row(name, way, epsilon, accuracy, least, least))
    return rows


def trained(
    name: str,
    splits: Sequence[Split],
    epsilons: Sequence[float],
    ledger: Ledger,
    steps: int,
    rates: Sequence[float] = RATES,
) -> list[Row]:
    """DP-SGD at the best of the learning rates; a row an epsilon."""
    rows = []
    for epsilon in epsilons:
        runs = [
            [
                sgd(split, epsilon, ledger, seed, steps, rate)
                for seed, split in enumerate(splits)
            ]
            for rate in rates
        ]
        best = max(float(np.mean([run[0] for run in of])) for of in runs)
        times = [run[1:] for of in runs for run in of]
        rows.append(Row(name, "DP-SGD", epsilon, best, *np.min(times, axis=0).tolist()))
    return rows
