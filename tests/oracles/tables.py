"""Marginals, choices and thresholds, slowly: loops over rows, and whole laws."""

import itertools
import math

import numpy as np


def counted(rows, families, sizes):
    """The marginals of rows as one list, cell by cell; a row outside lights none."""
    cells = []
    for family in families:
        for cell in itertools.product(*(range(sizes[j]) for j in family)):
            cells.append(sum(tuple(row[j] for j in family) == cell for row in rows))
    return np.array(cells)


def successive_softmax(scores, picks):
    """The probability of every ordered choice: softmax, then softmax of the rest."""
    weights = [math.exp(score) for score in scores]
    laws = {}
    for chosen in itertools.permutations(range(len(weights)), picks):
        left, probability = sum(weights), 1.0
        for one in chosen:
            probability *= weights[one] / left
            left -= weights[one]
        laws[chosen] = probability
    return laws


def hockey_stick(first, second, epsilon):
    """sup over sets of first(S) - e^epsilon second(S), for two tables of masses."""
    names = set(first) | set(second)
    return sum(
        max(first.get(n, 0.0) - math.exp(epsilon) * second.get(n, 0.0), 0.0)
        for n in names
    )


def discrete_laplace_tail(scale, step, least):
    """P(noise >= least), noise k step with P(k) ~ exp(-abs(k) step / scale); a sum."""
    k = np.arange(-(10**6), 10**6 + 1)
    masses = np.exp(-np.abs(k) * step / scale)
    return masses[k * step >= least - step / 2].sum() / masses.sum()
