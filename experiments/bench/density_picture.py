"""The picture of docs/density.md: a released density and its band, on two axes.

    python -m experiments.bench.density_picture docs/images/density.png
"""

from __future__ import annotations

import sys

import jax
import numpy as np
from matplotlib.figure import Figure

from dpkit.density import release, views
from experiments.density_data import bumps


def draw(path: str) -> None:
    """Two bumps, released at (0.1, 1e-6), where noise can be seen."""
    points = bumps(20_000, 2, np.random.default_rng(0))
    made = release(
        points,
        bandwidth=0.7,
        domain=[(0, 9), (0, 9)],
        epsilon=0.1,
        delta=1e-6,
        key=jax.random.key(0),
    )
    found = views.heat_map(made, size=96)
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axes = figure.subplots(1, 2)
    for place, values, title in (
        (axes[0], found.answers.values, "sum of the kernel, as released"),
        (axes[1], found.answers.stddev, "its standard deviation"),
    ):
        image = place.imshow(values.T, origin="lower", extent=(0, 9, 0, 9))
        figure.colorbar(image, ax=place)
        place.set_title(title)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    draw(sys.argv[1])
