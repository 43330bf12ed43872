"""Time to draw noise, and what correlated noise leaves on sums over steps.

Times are CPU time of compiled programs that take turns. Errors of correlated noise are
computed, not sampled: no randomness is in them.

    python -m experiments.bench.noise --markdown docs/bench/noise.md
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from dpkit.mechanisms import (
    Cyclic,
    SquareRoot,
    chacha_key,
    gaussian_noise,
    optimal_bands,
    optimal_buffers,
)
from dpkit.mechanisms.factorisation import prefix_error, sensitivity
from experiments.bench.training_page import machine

ELEMENTS = 2**22
RUNS = ((200, 50), (300, 30), (1000, 100))  # steps, steps of an epoch
BANDS, BUFFERS = 32, 4


def times(rounds: int) -> dict[str, float]:
    """Median CPU seconds for noise on all elements, by generator."""
    leaf = jnp.zeros(ELEMENTS)
    key, secret = jax.random.key(0), chacha_key(bytes(32))
    ways: dict[str, Callable[[], Any]] = {
        "jax.random.normal": lambda: jax.random.normal(key, leaf.shape),
        "threefry": lambda: gaussian_noise(key, leaf, 1.0),
        "chacha20": lambda: gaussian_noise(secret, leaf, 1.0, generator="chacha20"),
    }
    programs = {name: jax.jit(way).lower().compile() for name, way in ways.items()}
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, program in programs.items():
            start = time.process_time()
            jax.block_until_ready(program())
            found[name].append(time.process_time() - start)
    return {name: statistics.median(each) for name, each in found.items()}


def errors(steps: int, period: int) -> dict[str, float]:
    """Root mean square noise of the sums of steps 1..t, over t, in clip norms.

    For noise multiplier 1 of the whole run, whatever the noise of a step then is.
    """
    part = Cyclic(period)
    strategies = {
        "banded": optimal_bands(steps, min(period, BANDS), part),
        "buffered": optimal_buffers(steps, BUFFERS, part),
        "square_root": SquareRoot(),
    }
    columns = {name: way.coefficients(steps) for name, way in strategies.items()}
    return {
        name: sensitivity(column, steps, part) * prefix_error(column, steps)
        for name, column in {"independent": [1.0], **columns}.items()
    }


def page(rounds: int) -> str:
    """Both tables and what they mean."""
    seconds = times(rounds)
    base = seconds["jax.random.normal"]
    drawn = "\n".join(
        f"| {name} | {1e3 * each:.1f} ms | {each / base:.2f}x |"
        for name, each in seconds.items()
    )
    rows = {run: errors(*run) for run in RUNS}
    names = list(next(iter(rows.values())))
    left = "\n".join(
        f"| {steps} | {period} | " + " | ".join(f"{found[n]:.2f}" for n in names) + " |"
        for (steps, period), found in rows.items()
    )
    facts = machine()
    return f"""# Noise

CPU time for {ELEMENTS:,} numbers (`jax.random.normal` has 23 bits a number, and no
tails beyond 5.42 standard deviations; the others have 64 bits):

| generator | time | ratio |
|---|---|---|
{drawn}

On: {facts["processor"]}, {facts["cores"]} cores; Python {facts["python"]}, JAX
{facts["jax"]}.

Correlated noise: root mean square noise of the sum of the first t steps, over all t, in
clip norms, where the whole run is one Gaussian of noise multiplier 1. Batches are in
cyclic order; "banded" has up to {BANDS} bands, "buffered" {BUFFERS} buffers.

| steps | steps of an epoch | {" | ".join(names)} |
|---|---|{"---|" * len(names)}
{left}

Made by

    python -m experiments.bench.noise --markdown docs/bench/noise.md
"""


def main() -> None:
    """Measures, prints the page, and writes it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--markdown", type=Path, help="write the page here")
    options = parser.parse_args()
    text = page(options.rounds)
    if options.markdown:
        options.markdown.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
