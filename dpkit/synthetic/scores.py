"""How near a synthetic table is to the real one: for its owner, outside any guarantee.

Every number here is computed from the real rows without noise. They are for whoever may
see those rows; published, they would be a release that nobody paid for. Tables come as
codes, (n, d), by one codebook.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

_MOST_SETS = 2000  # of columns, of which all are looked at
_TEN = 10
_BLOCK = 2**22


@dataclasses.dataclass(frozen=True)
class Scores:
    """Distances of a synthetic table; total variation is 0 to 1.

    Args:
      columns, pairs, triples: mean total variation of all families of one, two and
        three columns (of 2,000 drawn ones, where there are more).
      worst_pair: the largest of pairs.
      strongest: of the pair that depends most in the real table.
      ten_strongest: mean of the ten that do.
      worst_cell: the largest difference of a share in a pair's table.
      impossible: share of rows that hold a pair of values that no real row holds.

    Example:
      >>> rows = np.array([[0, 0], [1, 1]] * 50)
      >>> scores(rows, rows, (2, 2)).pairs
      0.0
    """

    columns: float
    pairs: float
    triples: float
    worst_pair: float
    strongest: float
    ten_strongest: float
    worst_cell: float
    impossible: float

    def to_json(self) -> dict[str, float]:
        """Plain values."""
        return dataclasses.asdict(self)


def scores(
    real: np.ndarray, synthetic: np.ndarray, sizes: Sequence[int], *, seed: int = 0
) -> Scores:
    """All scores of a synthetic table against the real one.

    Args:
      real, synthetic: codes, (n, d) and (N, d).
      sizes: codes of each column.
      seed: of the draw of triples.

    Raises:
      ValueError: tables without rows, or of other columns.

    Example:
      >>> real, made = np.array([[0, 0], [1, 1]]), np.array([[0, 1], [1, 0]])
      >>> found = scores(real, made, (2, 2))
      >>> found.columns, found.pairs, found.impossible
      (0.0, 1.0, 1.0)
    """
    for name, rows in (("real", real), ("synthetic", synthetic)):
        if rows.ndim != 2 or rows.shape[1] != len(sizes) or not len(rows):
            raise ValueError(
                f"{name} of shape {rows.shape}: needed rows of {len(sizes)} columns"
            )
    pairs = list(itertools.combinations(range(len(sizes)), 2))
    apart, depends, cell = {}, {}, 0.0
    bad = np.zeros(len(synthetic), bool)
    for pair in pairs:
        true, made = (shares(rows, pair, sizes) for rows in (real, synthetic))
        apart[pair] = float(np.abs(true - made).sum() / 2)
        alone = np.outer(true.sum(1), true.sum(0))
        depends[pair] = float(np.abs(true - alone).sum() / 2)
        cell = max(cell, float(np.abs(true - made).max()))
        bad |= (true == 0)[synthetic[:, pair[0]], synthetic[:, pair[1]]]
    ranked = sorted(pairs, key=lambda pair: depends[pair], reverse=True)
    return Scores(
        _mean(variation(real, synthetic, (n,), sizes) for n in range(len(sizes))),
        _mean(apart.values()),
        _mean(
            variation(real, synthetic, three, sizes) for three in _sets(sizes, 3, seed)
        ),
        max(apart.values(), default=0.0),
        apart[ranked[0]] if pairs else 0.0,
        _mean(apart[pair] for pair in ranked[:_TEN]),
        cell,
        float(bad.mean()),
    )


def variation(
    real: np.ndarray, synthetic: np.ndarray, family: Sequence[int], sizes: Sequence[int]
) -> float:
    """Total variation of one family of columns: half the summed differences of shares.

    Example:
      >>> variation(np.array([[0], [0]]), np.array([[0], [1]]), (0,), (2,))
      0.5
    """
    cells = [_cells(rows, family, sizes) for rows in (real, synthetic)]
    if math.prod(sizes[n] for n in family) > _BLOCK:  # only cells that somebody holds
        _, joined = np.unique(np.concatenate(cells), return_inverse=True)
        cells = [joined[: len(real)], joined[len(real) :]]
    length = 1 + max(int(one.max()) for one in cells)
    true, made = (np.bincount(one, minlength=length) / len(one) for one in cells)
    return float(np.abs(true - made).sum() / 2)


def shares(rows: np.ndarray, family: Sequence[int], sizes: Sequence[int]) -> np.ndarray:
    """Shares of all combinations of some columns' codes."""
    shape = tuple(sizes[n] for n in family)
    counts = np.bincount(_cells(rows, family, sizes), minlength=math.prod(shape))
    return counts.reshape(shape) / len(rows)


def impossible(real: np.ndarray, rows: np.ndarray, sizes: Sequence[int]) -> float:
    """Share of rows that hold a pair of values that no real row holds.

    Of real rows that were held out it is the floor: nothing can be asked to stay below.
    """
    bad = np.zeros(len(rows), bool)
    for a, b in itertools.combinations(range(len(sizes)), 2):
        bad |= (shares(real, (a, b), sizes) == 0)[rows[:, a], rows[:, b]]
    return float(bad.mean())


def floor(
    real: np.ndarray, sizes: Sequence[int], rows: int | None = None, *, seed: int = 0
) -> Scores:
    """Scores of a bootstrap of the real table: what a perfect sampler would have.

    Args:
      real: codes.
      sizes: codes of each column.
      rows: of the bootstrap; None: as many as there are.
      seed: of the draw.
    """
    generator = np.random.default_rng(seed)
    drawn = generator.integers(0, len(real), rows or len(real))
    return scores(real, real[drawn], sizes, seed=seed)


def vendi(rows: np.ndarray, sizes: Sequence[int], *, order: float = 1.0) -> float:
    """How many different rows there are, in effect: the Vendi score of agreement.

    The similarity of two rows is the share of columns in which they agree; the score is
    exact, by the eigenvalues of all pairs' tables. Higher is not better: compare it
    with the real table's.

    Args:
      rows: codes.
      sizes: codes of each column.
      order: q > 0; 1 is Shannon's.

    Example:
      >>> rows = np.array([[0, 0, 0], [0, 0, 1], [1, 2, 1], [1, 2, 1]])
      >>> round(vendi(rows, (2, 3, 2)), 10)
      2.3915813843

    Reference: Friedman and Dieng, "The Vendi Score", 2022, arXiv:2210.02410.
    """
    columns = len(sizes)
    blocks = [[np.zeros(0)] * columns for _ in range(columns)]
    for a, b in itertools.product(range(columns), repeat=2):
        if a == b:
            blocks[a][b] = np.diag(shares(rows, (a,), sizes))
        else:
            blocks[a][b] = shares(rows, (a, b), sizes)
    return vendi_of(np.block(blocks) / columns, order=order)


def vendi_of(kernel: np.ndarray, *, order: float = 1.0) -> float:
    """The Vendi score of a matrix of similarities over their number, trace 1.

    Raises:
      ValueError: no symmetric matrix of trace 1 without negative eigenvalues.

    Example:
      >>> round(vendi_of(np.array([[1, 0.5], [0.5, 1]]) / 2), 10)
      1.7547653506
    """
    if not np.allclose(kernel, kernel.T) or abs(np.trace(kernel) - 1) > 1e-9:
        raise ValueError("kernel: needed a symmetric matrix of trace 1")
    values = np.linalg.eigvalsh(kernel)
    if values.min() < -1e-9:
        raise ValueError("kernel: needed no negative eigenvalue")
    values = values[values > 1e-15]
    if order == 1.0:
        return float(np.exp(-(values * np.log(values)).sum()))
    return float(np.exp(np.log((values**order).sum()) / (1 - order)))


@dataclasses.dataclass(frozen=True)
class Transfer:
    """How well a classifier learns from a table: on real rows that were held out.

    Args:
      auc, accuracy: trained on the synthetic table.
      real_auc, real_accuracy: trained on the real one.
      majority: accuracy of always saying the most frequent class.
    """

    auc: float
    accuracy: float
    real_auc: float
    real_accuracy: float
    majority: float


def transfer(
    real: np.ndarray, synthetic: np.ndarray, held_out: np.ndarray, label: int
) -> Transfer:
    """Gradient trees for a column with two classes, from both tables.

    Args:
      real, synthetic, held_out: codes.
      label: the column that is predicted.

    Raises:
      ValueError: a label of other than two classes among the held out rows.
    """
    truth = held_out[:, label]
    classes = np.unique(truth)
    if len(classes) != 2:
        raise ValueError(f"label={label}: needed two classes in the rows held out")
    # Of a third class in a table, such as missing values, nothing can be tested.
    tables = (rows[np.isin(rows[:, label], classes)] for rows in (synthetic, real))
    found = [_learned(rows, held_out, label) for rows in tables]
    most = np.bincount(real[:, label]).argmax()
    return Transfer(*found[0], *found[1], float((truth == most).mean()))


def _learned(train: np.ndarray, test: np.ndarray, label: int) -> tuple[float, float]:
    """AUC and accuracy of gradient trees."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score

    features = [n for n in range(train.shape[1]) if n != label]
    truth = test[:, label]
    if len(np.unique(train[:, label])) < 2:
        return 0.5, float((truth == train[0, label]).mean()) if len(train) else 0.0
    model: Any = HistGradientBoostingClassifier(random_state=0)
    model.fit(train[:, features], train[:, label])
    chances = model.predict_proba(test[:, features])[:, 1]
    right = model.predict(test[:, features]) == truth
    return float(roc_auc_score(truth, chances)), float(right.mean())


def _sets(sizes: Sequence[int], k: int, seed: int) -> list[tuple[int, ...]]:
    """All sets of k columns, or some of them."""
    count = math.comb(len(sizes), k)
    every = itertools.combinations(range(len(sizes)), k)
    if count <= _MOST_SETS:
        return list(every)
    chosen = np.random.default_rng(seed).choice(count, _MOST_SETS, replace=False)
    wanted = set(chosen.tolist())
    return [one for n, one in enumerate(every) if n in wanted]


def _cells(rows: np.ndarray, family: Sequence[int], sizes: Sequence[int]) -> np.ndarray:
    """The cell of each row."""
    found = rows[:, family[0]].astype(np.int64)
    for n in family[1:]:
        found = found * sizes[n] + rows[:, n]
    return found


def _mean(values: Iterable[float]) -> float:
    """The mean, 0 of nothing."""
    listed = list(values)
    return float(np.mean(listed)) if listed else 0.0
