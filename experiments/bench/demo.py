"""The demo's run with both ways to make batches, from several starts.

Poisson sampling draws every batch anew; balls in bins gives each record one batch of
each epoch, so every record is read once an epoch. Everything else is the demo's
configuration. Runs take turns, each in a process of its own; time is wall time of the
whole command, so nothing else should run.

    python -m experiments.bench.demo --markdown docs/bench/demo.md
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from experiments.bench.training_page import machine

SAMPLINGS = ("poisson", "balls_in_bins")
DEMO = "from dpkit.cli import main; main()"


def configuration(text: str, sampling: str, seed: int) -> str:
    """The demo's configuration with other batches and another start.

    Raises:
      ValueError: a text without what is to be changed.
    """
    changes = [
        (r'sampling = "\w+"', f'sampling = "{sampling}"'),
        (r'name = "cnn"', f'name = "cnn"\ninit_seed = {seed}'),
    ]
    if sampling != "poisson":
        changes.append((r"max_batch_size = .*", ""))  # its default has the room
    for pattern, new in changes:
        text, found = re.subn(pattern, new, text)
        if found != 1:
            raise ValueError(f"{pattern} is {found} times in the configuration")
    return text


def measured(text: str, folder: Path) -> dict[str, Any]:
    """What one run gave, and how long the command took."""
    config = folder / "config.toml"
    config.write_text(text)
    command = ["train", str(config), "--out", str(folder / "run"), "--json"]
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", DEMO, *command], check=True, stdout=subprocess.PIPE
    )
    seconds = time.perf_counter() - start
    return {**json.loads(done.stdout), "command_seconds": seconds}


def run(seeds: int) -> dict[str, list[dict[str, Any]]]:
    """The results of every way to make batches, a run for each seed."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in SAMPLINGS}
    with tempfile.TemporaryDirectory() as place:
        shipped = Path(place) / "demo.toml"
        write = ["demo", "--write-config", str(shipped)]
        subprocess.run([sys.executable, "-c", DEMO, *write], check=True)
        for seed in range(seeds):
            for sampling in SAMPLINGS:
                folder = Path(place) / f"{sampling}-{seed}"
                folder.mkdir()
                text = configuration(shipped.read_text(), sampling, seed)
                found[sampling].append(measured(text, folder))
    return found


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """A line for each way to make batches."""
    lines = [
        "| batches | steps | slots | noise multiplier | epsilon "
        "| test accuracy: mean (each) | seconds: mean (most) |",
        "|---|---|---|---|---|---|---|",
    ]
    for sampling, results in found.items():
        first = results[0]
        scores = [100 * r["test_accuracy"] for r in results]
        seconds = [r["command_seconds"] for r in results]
        each = ", ".join(f"{score:.2f}" for score in scores)
        lines.append(
            f"| {sampling} | {first['steps']} | {first['max_batch_size']} "
            f"| {first['noise_multiplier']:.4g} "
            f"| {max(r['epsilon'] for r in results):.4f} "
            f"| {statistics.mean(scores):.2f} % ({each}) "
            f"| {statistics.mean(seconds):.0f} ({max(seconds):.0f}) |"
        )
    return "\n".join(lines)


def page(found: dict[str, list[dict[str, Any]]]) -> str:
    """The documentation page around the table."""
    facts = machine()
    first = found["poisson"][0]
    return f"""# The demo, and one pass an epoch

The run of `dpkit demo` (MNIST, {first["parameters"]:,} parameters, clip norm
{first["clip_norm"]:g}, delta {first["delta"]:g}, {first["relation"]}, unit
{first["unit"]}), with Poisson sampling and with balls in bins: each record in one batch
of every epoch, epsilon from the tight analysis of random allocation, cut batches paid
in delta. The noise is what each needs for epsilon 3. {len(found["poisson"])} runs of
each, from different initial parameters and with noise of their own. Accuracy is that
of the 10,000 test rows, whose standard error is about .14 %.

{table(found)}

Time is that of the whole command, data set in the cache. On: {facts["processor"]},
{facts["cores"]} cores; Python {facts["python"]}, JAX {facts["jax"]}.

Made by

    python -m experiments.bench.demo --markdown docs/bench/demo.md
"""


def main() -> None:
    """Runs, prints the table, and writes the page where asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--markdown", type=Path, help="write the page here")
    options = parser.parse_args()
    found = run(options.seeds)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text(page(found))
    print(table(found))


if __name__ == "__main__":
    main()
