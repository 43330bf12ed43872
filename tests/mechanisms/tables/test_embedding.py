"""Mean embeddings: what they are of, and that two records are no further apart."""

import itertools
import math

import jax
import numpy as np
import pytest

from dpkit.mechanisms.density import Gaussian, Kernel, KernelSketch, Laplace
from dpkit.mechanisms.tables import MeanEmbedding

QUIET = Gaussian(0.02)
WAVES = KernelSketch.draw(Kernel("gaussian", 2.0), 2, features=12, noise=QUIET)
MIXED = MeanEmbedding(sketch=WAVES, categories=(3, 2), classes=2, noise=QUIET)


def embedded(point, frequencies):
    """Slowly, in float64: waves / sqrt(p), one-hot codes / sqrt(2)."""
    angles = frequencies @ (np.array(point[:2], float) / 2.0)
    parts = [np.cos(angles), np.sin(angles)]
    found = [np.concatenate(parts) / math.sqrt(len(frequencies))]
    for code, size in zip(point[2:], (3, 2), strict=True):
        found.append((np.arange(size) == code) / math.sqrt(2))
    return np.concatenate(found)


def test_it_is_the_sum_of_embeddings_class_by_class():
    """Up to noise of 0.02 times the reach, 8 deviations (false alarm 1e-13)."""
    rng = np.random.default_rng(0)
    points = np.column_stack(
        [rng.normal(size=(50, 2)), rng.integers(-1, 4, 50), rng.integers(0, 2, 50)]
    ).astype(np.float32)
    labels = rng.integers(-1, 3, 50).astype(np.int32)
    noisy = MIXED(jax.random.key(0), {"points": points, "labels": labels})
    sums, counts = MIXED.table(noisy)
    for label in (0, 1):
        rows = points[labels == label]
        exact = sum(embedded(row, WAVES.frequencies.array) for row in rows)
        unit = MIXED.stddev / math.sqrt(6)
        assert np.abs(sums[label] - exact).max() < 8 * unit
        assert abs(counts[label] - len(rows)) < 8 * unit / 0.3


@pytest.mark.parametrize("parts", ["both", "numbers", "categories"])
@pytest.mark.parametrize("noise", [Gaussian(2.0), Laplace(0.1)], ids=str)
def test_no_two_records_are_further_apart_than_the_reach(parts, noise):
    """Points at which one frequency is opposite, all codes, all labels; all pairs."""
    wave = KernelSketch(
        kernel=Kernel("gaussian", 1.0), frequencies=[[math.pi]], noise=noise
    )
    own = MeanEmbedding(
        sketch=None if parts == "categories" else wave,
        categories=() if parts == "numbers" else (2, 3),
        classes=2,
        noise=noise,
    )
    spaces = [(0.25, 1.25, 0.0, math.nan)] if own.sketch else []
    spaces += [(0.0, 1.0, -1.0), (0.0, 2.0, 7.0)] if own.categories else []
    records = itertools.product(itertools.product(*spaces), (0, 1, 5))
    steps = np.array(
        [
            own.total({"points": np.array([p], np.float32), "labels": np.array([c])})
            for p, c in records
        ]
    )
    order = 2 if isinstance(noise, Gaussian) else 1
    moved, reach = steps * own.step, own.reach
    alone, far = (reach.l2, reach.l2_replaced) if order == 2 else reach[1::2]
    longest = max(np.linalg.norm(row, order) for row in moved)
    furthest = max(np.linalg.norm(a - b, order) for a in moved for b in moved)
    assert 0.999 * alone < longest <= alone
    assert 0.999 * far < furthest <= far


def test_without_labels_there_is_one_class():
    own = MeanEmbedding(categories=(2,), noise=Gaussian(1.0))
    assert own.size == 3
    total = own.total(np.zeros((5, 1), np.float32))
    assert (total * own.step).round(3).tolist() == [5.0, 0.0, 1.5]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "needed a column"),
        ({"sketch": 3}, "sketch=3: needed a KernelSketch"),
        ({"categories": 3}, "categories=3: needed a list"),
        ({"categories": (2, 0)}, "categories=0"),
        ({"categories": (2,), "classes": 0}, "classes=0"),
    ],
)
def test_embeddings_of_nothing(fields, words):
    with pytest.raises((ValueError, TypeError), match=words):
        MeanEmbedding(noise=Gaussian(1.0), **fields)
