"""Matrix factorisation by definition: dense matrices, and every participation set."""

import itertools
import math

import numpy as np


def lower_toeplitz(coefficients, steps):
    """C with C[t][u] = c[t - u], entry by entry."""
    matrix = np.zeros((steps, steps))
    for t in range(steps):
        for u in range(t + 1):
            if t - u < len(coefficients):
                matrix[t, u] = coefficients[t - u]
    return matrix


def buffered_matrix(decays, weights, steps):
    """C by running the buffers on unit vectors: y_t = x_t + sum_i w_i s_i."""
    columns = []
    for unit in np.eye(steps):
        sums, column = np.zeros(len(decays)), []
        for x in unit:
            column.append(x + float(np.dot(weights, sums)))
            sums = np.asarray(decays) * sums + x
        columns.append(column)
    return np.array(columns).T


def single_pass(steps):
    """Every set of one step."""
    return [(t,) for t in range(steps)]


def cyclic(steps, period):
    """Every set of steps that are whole periods apart, subsets too."""
    sets = []
    for offset in range(min(period, steps)):
        every = range(offset, steps, period)
        for size in range(1, len(every) + 1):
            sets += itertools.combinations(every, size)
    return sets


def separated(steps, separation, most):
    """Every set of at most `most` steps, each `separation` after the one before."""
    return [
        chosen
        for size in range(1, most + 1)
        for chosen in itertools.combinations(range(steps), size)
        if all(b - a >= separation for a, b in itertools.pairwise(chosen))
    ]


def sensitivity(matrix, sets):
    """max over sets and signs of ||sum +- columns||: exact for scalar contributions."""
    worst = 0.0
    for chosen in sets:
        for signs in itertools.product((1.0, -1.0), repeat=len(chosen) - 1):
            moved = matrix[:, list(chosen)] @ np.array((1.0, *signs))
            worst = max(worst, float(moved @ moved))
    return math.sqrt(worst)


def prefix_errors(matrix):
    """Standard deviation of the error of every prefix sum, from A C^-1."""
    steps = len(matrix)
    return np.linalg.norm(
        np.tril(np.ones((steps, steps))) @ np.linalg.inv(matrix), axis=1
    )
