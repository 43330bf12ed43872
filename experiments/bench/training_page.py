"""The page of `experiments.bench.training`: tables, the machine, how to read them."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

# Time over that of torch's own ordinary step, with hooks / with ghost norms; measured
# elsewhere, quoted beside ours.
QUOTED = {
    "decoder-128": "1.5x / 2.0x",
    "decoder-512": "1.3x / 2.7x",
    "cnn": "2.1x / 2.3x",
    "mlp": "90x / 2.5x",
}
ORDINARY = {"vmap": "ordinary: the same loss", "batched": "ordinary: loss by hand"}
# At most: time, memory, compilation.
GOALS: dict[str, tuple[float, float | None, float | None]] = {
    "decoder-128": (1.2, 1.1, 2.5),
    "decoder-512": (1.1, 1.05, 2.5),
    "wide": (1.25, 1.1, 2.5),
    "decoder-4096": (1.1, 1.05, 2.5),
    "cnn": (1.2, 1.35, None),
    "mlp": (2.0, None, None),
}


def table(results: dict[str, Any]) -> str:
    """Every contestant of every model, as Markdown."""
    lines = [
        "| model | step | time | memory | compilation | time, memory: loss by hand |",
        "|---|---|---|---|---|---|",
    ]
    for found in results["models"].values():
        title = found["title"]
        for form, base in found["ordinary"].items():
            lines.append(
                f"| {title} | {ORDINARY[form]} | {1e3 * base['seconds']:.3g} ms "
                f"| {base['bytes'] / 2**20:.3g} MiB | {base['compilation']:.2g} s | |"
            )
        for name, row in found["private"].items():
            label = name if name.startswith("jax-privacy") else f"dpkit {name}"
            same = row["against"]["vmap"]
            lines.append(
                f"| {title} | {label} | {_times(same['time'])} "
                f"| {_times(same['memory'])} | {_times(same['compilation'])} "
                f"| {_pair(row, 'batched')} |"
            )
    return "\n".join(lines)


def summary(results: dict[str, Any]) -> str:
    """One line a model: ours, the peers, and what we want to reach."""
    lines = [
        "| model | dpkit auto: time, memory, compilation | at most wanted "
        "| against a loss by hand | jax-privacy: time, memory "
        "| Opacus hooks / ghost (quoted) |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in results["models"].items():
        ours, peer = found["private"]["auto"], found["private"].get("jax-privacy")
        theirs = "not installed" if peer is None else _pair(peer, "vmap")
        lines.append(
            f"| {found['title']} | {_held_to(name, ours, 'vmap')} | {_wanted(name)} "
            f"| {_held_to(name, ours, 'batched')} | {theirs} "
            f"| {QUOTED.get(name, 'none')} |"
        )
    return "\n".join(lines)


def _wanted(name: str) -> str:
    """The goals of a model."""
    return ", ".join("any" if goal is None else f"{goal:g}x" for goal in GOALS[name])


def _held_to(name: str, row: dict[str, Any], form: str) -> str:
    """Time, memory and compilation against one ordinary step; misses in bold."""
    against, found = row["against"][form], []
    for what, goal in zip(("time", "memory", "compilation"), GOALS[name], strict=True):
        ratio = against[what]
        missed = None not in (ratio, goal) and round(ratio, 2) > goal
        found.append(f"**{_times(ratio)}**" if missed else _times(ratio))
    return ", ".join(found)


def _pair(row: dict[str, Any], form: str) -> str:
    """Time and memory against one of the ordinary steps."""
    against = row["against"][form]
    return f"{_times(against['time'])}, {_times(against['memory'])}"


def _times(ratio: float | None) -> str:
    """A multiple, with digits that mean something."""
    if ratio is None:
        return "left out"
    return f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.0f}x"


def machine() -> dict[str, Any]:
    """What the figures were measured on and with."""
    versions = {}
    for package in ("jax", "jaxlib", "jax-privacy"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(pages / 2**30),
        "python": platform.python_version(),
        **versions,
    }


def _processor() -> str:
    """Its name, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [x.partition(":")[2].strip() for x in lines if x.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def page(results: dict[str, Any], plot: Path | None, beside: Path) -> str:
    """The documentation page around the tables."""
    facts = results["machine"]
    return f"""# A private training step against the ordinary one

The whole step is compared: clipped sum, noise, division, update, against gradient and
update of the same model on the same batch, twice: with the same loss of one example
under `vmap`, which is what the ratios are of, and, in columns of their own, with a loss
of the whole batch that is written by hand (positions of all examples as rows of one
matrix, one axis fewer in every layer). A private step needs the loss of one example, so
what writing it by hand gains for the ordinary step is lost to it.

Time is CPU time of the process, the median of {results["rounds"]} interleaved rounds in
one process (more where steps are quick, fewer where they take long); memory is the
temporary memory that XLA plans for the compiled program; compilation is CPU time from
Python to machine code, the less of two.

Measured on: {facts["processor"]}, {facts["cores"]} cores, {facts["memory_gib"]} GiB,
one CPU device; Python {facts["python"]}, JAX {facts["jax"]}, jaxlib {facts["jaxlib"]},
jax-privacy {facts["jax-privacy"]}.

{summary(results)}

Bold: above what is wanted. The MLP's step without noise is wanted at 1.2x at most; it
is in the table below. The last column was measured elsewhere, as multiples of torch's
own ordinary step; it is quoted, not repeated here. jax-privacy is run without
microbatches, and its sums get the same noise as ours. "Left out" is what would take
more than half a minute of CPU time or 8 GiB a step.
{_figure(plot, beside)}
## Every way to the step

{table(results)}

`auto` rewrites the loss ([how](../rewrite.md)); `vmap` makes all per-example gradients;
`two_pass` runs the loss twice and keeps the memory that `jax.checkpoint` saves;
`microbatch` goes through the batch in chunks. Small differences are noise: repeat a run
before believing a few hundredths.

Made by `make bench`, which runs

    python -m experiments.bench.training --markdown docs/bench/training.md \\
      --plot docs/images/training.png
"""


def _figure(plot: Path | None, beside: Path) -> str:
    """The plot, seen from the page."""
    if plot is None:
        return ""
    place = os.path.relpath(plot, beside.parent)
    return f"""
![Time of a private step against positions and width]({place})

Decoders of two layers, 1,024 symbols. Left: sequence length, at 2,048 symbols in every
batch. Right: width.
"""
