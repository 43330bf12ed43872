"""Errors, speed and memory of private similarity structures beside what they should be.

Every goal is a ratio within one run: to the error of a single answer with the same
noise, to a published algorithm over the same points, or to its time. The peer that is
built against is the authors' code of LSQ, from a checkout of
github.com/talwagner/lsq; without one that row is left out.

    python -m experiments.bench.density --peer DIR --markdown docs/bench/density.md \
      --plot docs/images/density_queries.png
    python -m experiments.bench.density --parts errors memory --json figures.json
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.bench import density_goals as goals
from experiments.bench.density_goals import Goal
from experiments.bench.training_page import machine
from experiments.density import PRESETS, Config

PARTS = {
    "errors": "Errors of sums",
    "classes": "Classes",
    "times": "Time",
    "memory": "Memory",
}
HEAD = "| what | found | wanted | reached |\n|---|---|---|---|"


def run(
    parts: list[str], peer: Path | None, config: Config, saved: Path | None
) -> dict[str, Any]:
    """The asked-for parts, after those that were saved before."""
    found = json.loads(saved.read_text()) if saved and saved.exists() else {}
    measure: dict[str, Callable[[], list[Goal]]] = {
        "errors": lambda: goals.errors(config),
        "classes": lambda: goals.classified(config),
        "memory": goals.memory,
    }
    for part in parts:
        if part == "times":
            told, found["seconds"] = goals.timed(peer)
        else:
            told = measure[part]()
        found[part] = {"goals": told, "load": os.getloadavg()[0]}
        found |= {"machine": machine()}
        print(table(found, part), flush=True)
        if saved:
            saved.write_text(json.dumps(found, indent=1) + "\n")
    return found


def table(found: dict[str, Any], part: str) -> str:
    """The goals of one part as Markdown."""
    return "\n".join([HEAD, *(Goal(*goal).line() for goal in found[part]["goals"])])


def page(found: dict[str, Any], plot: str | None) -> str:
    """The whole page."""
    facts = found["machine"]
    there = [part for part in PARTS if part in found]
    tables = "\n\n".join(f"## {PARTS[part]}\n\n{table(found, part)}" for part in there)
    loads = ", ".join(f"{part} {found[part]['load']:.1f}" for part in there)
    picture = f"\n![200 queries by number of points]({plot})\n" if plot else ""
    return f"""# Private similarity structures: errors, time, memory

Each figure is a ratio within one run, an accuracy, or a peak of memory. An error is the
root mean square over queries and over releases with noise of their own; the floor is
the error of one single answer by the same noise. Time is the least of several rounds in
which contestants take turns, with d = 16 and 1,024 features; CPU time is that of all
threads, and of threads that only wait for others too.

DP-SGD trains a linear model on the same rows with the same epsilon and delta by
`dpkit.fit`. Its accuracy is that of the best of three learning rates with {goals.FEW}
or {goals.MANY} steps, as the test rows tell; its time is that of one run of {goals.FEW}
steps, its noise's calibration and its compilation included, which every call of `fit`
needs. Our time is that of a call in a process where the same call was made before;
below stand also first calls, and steps without compilation.

{tables}
{picture}
On: {facts["processor"]}, {facts["cores"]} cores; Python {facts["python"]}, JAX
{facts["jax"]}. Other work was done on it meanwhile: processes ready to run at the end
of each part: {loads}.

Made by

    python -m experiments.bench.density --peer DIR --markdown docs/bench/density.md \\
      --plot docs/images/density_queries.png
"""


def draw(seconds: dict[str, dict[str, float]], path: Path) -> None:
    """The time of 200 queries by the number of points."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    panel = figure.subplots()
    labels = {"sketch": "sketch, m = 1,024", "exact": "exact sums in JAX"}
    for name, label in labels.items():
        there = {int(n): 1e3 * c[name] for n, c in seconds.items() if name in c}
        panel.plot(list(there), list(there.values()), "o-", label=label)
    panel.set(xscale="log", yscale="log", xlabel="points (d = 16)")
    panel.set_ylabel("ms for 200 queries")
    panel.grid(alpha=0.3)
    panel.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, metadata={"Software": None})


def main() -> None:
    """Measures, prints the tables, and writes page and plot where asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--peer", type=Path, help="a checkout of talwagner/lsq")
    parser.add_argument("--preset", choices=PRESETS, default="quick")
    parser.add_argument("--json", type=Path, help="keep the figures here, part by part")
    parser.add_argument("--markdown", type=Path, help="write the page here")
    parser.add_argument("--plot", type=Path, help="draw the plot here")
    options = parser.parse_args()
    found = run(options.parts, options.peer, PRESETS[options.preset], options.json)
    if options.plot and "seconds" in found:
        draw(found["seconds"]["queries"], options.plot)
    if options.markdown:
        plot = options.plot and os.path.relpath(options.plot, options.markdown.parent)
        options.markdown.parent.mkdir(parents=True, exist_ok=True)
        options.markdown.write_text(page(found, plot))


if __name__ == "__main__":
    main()
