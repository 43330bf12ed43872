"""The plot of `experiments.bench.training`: time ratios of two families of models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

AXES = {
    "length": "positions T (2,048 symbols a batch, width 256)",
    "width": "width (T = 128, B = 16)",
}
LOOKS = {"auto": "o-", "vmap": "s--", "jax-privacy": "^:"}


def draw(sweeps: dict[str, Any], path: Path) -> None:
    """Two panels with one line a contestant; the ordinary step is the line at 1."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(sweeps), figsize=(9, 3.6), sharey=True)
    for panel, (family, points) in zip(panels, sweeps.items(), strict=True):
        for name, look in LOOKS.items():
            ratios = {int(x): row.get(name) for x, row in points.items()}
            there = {x: y for x, y in ratios.items() if y is not None}
            label = name if name == "jax-privacy" else f"dpkit {name}"
            panel.plot(list(there), list(there.values()), look, label=label)
        panel.axhline(1.0, color="grey", linewidth=1)
        panel.set_xscale("log", base=2)
        panel.set_yscale("log", base=2)
        panel.set_xticks([int(x) for x in points], [str(x) for x in points])
        panel.set_xlabel(AXES[family])
        panel.grid(alpha=0.3)
        panel.yaxis.set_major_formatter("{x:g}")
    panels[0].set_ylabel("CPU time of a private step\n(ordinary step = 1)")
    panels[0].legend()
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, metadata={"Software": None})
    pyplot.close(figure)
