"""The picture of docs/density.md: a released density and its band, on two axes.

python -m experiments.bench.density_picture docs/images/density.png
"""

from __future__ import annotations

import sys
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from dpkit.density import release, views
from experiments.density_data import bumps


def draw(path: str) -> None:
    """Two bumps, released at (0.1, 1e-6), where noise can be seen."""
    points = bumps(20_000, 2, np.random.default_rng(0))
    made: Any = release(
        points,
        bandwidth=0.7,
        domain=[(0, 9), (0, 9)],
        epsilon=0.1,
        delta=1e-6,
        key=jax.random.key(0),
    )
    found = views.heat_map(made, size=96)
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.5))
    image = left.imshow(found.answers.values.T, origin="lower", extent=(0, 9, 0, 9))
    figure.colorbar(image, ax=left)
    left.axhline(3.0, color="white", linewidth=0.8, linestyle=":")
    line = np.stack([np.linspace(0, 9, 200), np.full(200, 3.0)], axis=1)
    along, exact = made.query(line), made.structure.kernel.between(line, points).sum(1)
    right.fill_between(line[:, 0], along.low, along.high, alpha=0.3, label="error bar")
    right.plot(line[:, 0], along.values, label="released")
    right.plot(line[:, 0], exact, "k--", linewidth=0.8, label="exact, private")
    right.set_xlabel("along the dotted line")
    right.set_ylabel("points within a bandwidth, about")
    right.legend(frameon=False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    draw(sys.argv[1])
