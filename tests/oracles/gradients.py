"""Clipped sums by a plain loop in float64, sharing no code with the library."""

import math

import numpy as np


def clipped_sum(gradients, clip_norm):
    """Sum of gradients (n, d), each scaled to norm <= clip_norm; non-finite: none."""
    total = np.zeros(np.asarray(gradients).shape[1])
    for gradient in np.asarray(gradients, dtype=np.float64):
        norm = math.sqrt(math.fsum(float(g) ** 2 for g in gradient))
        if math.isfinite(norm):
            scale = 1.0 if norm <= clip_norm else clip_norm / norm
            total += scale * gradient
    return total


def squared_loss_gradients(weights, inputs, targets):
    """Gradients (n, d) of (w.x - t)^2 / 2, by hand."""
    residuals = np.asarray(inputs, np.float64) @ np.asarray(weights, np.float64)
    return (residuals - targets)[:, None] * np.asarray(inputs, np.float64)
