"""Time of a private training step as a multiple of the ordinary one's, on a CPU.

A step is: gradients of a batch of 256, clipping and noise where private, an SGD update.
Every contestant computes the same step of the same model in one process, one device,
in interleaved rounds; quoted are medians of process CPU time and of wall time, divided
by those of the ordinary step. The peer is jax-privacy 2.0.0 (`make bench` installs it).

    python -m experiments.bench.step_time --rounds 15 --markdown docs/bench/step_time.md
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dpkit.mechanisms import gaussian_noise
from dpkit.models import Network, build
from dpkit.training import clipped_grad

BATCH = 256
CLIP_NORM, NOISE_MULTIPLIER, LEARNING_RATE = 1.0, 1.0, 0.1
MODELS: dict[str, dict[str, Any]] = {
    "MLP 784-256-10": {"name": "mlp", "hidden": (256,)},
    "CNN, 26,010 parameters": {"name": "cnn"},
}

Step = Callable[[Any, Any, jax.Array], Any]


def ordinary(network: Network) -> Step:
    """The non-private step: one gradient of the mean loss."""

    def loss(params: Any, batch: Any) -> jax.Array:
        return jax.vmap(network.loss, (None, 0, None))(params, batch, None).mean()

    def step(params: Any, batch: Any, key: jax.Array) -> Any:
        return _updated(params, jax.grad(loss)(params, batch))

    return jax.jit(step)


def private(network: Network, **mode: Any) -> Step:
    """Our step in one of its modes."""
    clipped = clipped_grad(network.loss, clip_norm=CLIP_NORM, **mode)

    def step(params: Any, batch: Any, key: jax.Array) -> Any:
        total, _ = clipped(params, batch)
        return _noised(params, total, key)

    return jax.jit(step)


def jax_privacy(network: Network, microbatch_size: int | None) -> Step | None:
    """The peer's step, with our noise; None where the package isn't installed."""
    try:
        from jax_privacy import clipping
    except ImportError:
        return None

    def loss(params: Any, batch: Any) -> jax.Array:
        return network.loss(params, batch, None)

    clipped = clipping.clipped_grad(
        loss,
        l2_clip_norm=CLIP_NORM,
        keep_batch_dim=False,
        microbatch_size=microbatch_size,
    )

    def step(params: Any, batch: Any, key: jax.Array) -> Any:
        return _noised(params, clipped(params, batch), key)

    return jax.jit(step)


def _noised(params: Any, total: Any, key: jax.Array) -> Any:
    """Noise on the sum, the division by the expected batch, the update."""
    noise = gaussian_noise(key, total, NOISE_MULTIPLIER * CLIP_NORM)
    return _updated(params, jax.tree.map(lambda s, z: (s + z) / BATCH, total, noise))


def _updated(params: Any, gradient: Any) -> Any:
    """Plain gradient descent."""
    return jax.tree.map(lambda p, g: p - LEARNING_RATE * g, params, gradient)


def contestants(network: Network) -> dict[str, Step]:
    """Every way to the step that is available here."""
    steps: dict[str, Step | None] = {
        "ordinary": ordinary(network),
        "dpkit vmap": private(network),
        "jax-privacy": jax_privacy(network, None),
        "jax-privacy, microbatches of 32": jax_privacy(network, 32),
    }
    for size in (1, 8, 32):
        name = f"dpkit microbatches of {size}"
        steps[name] = private(network, mode="microbatch", microbatch_size=size)
    return {name: step for name, step in steps.items() if step is not None}


def measure(network: Network, rounds: int) -> dict[str, dict[str, float]]:
    """Median CPU and wall seconds of every contestant, in interleaved rounds."""
    rng = np.random.default_rng(0)
    batch = {
        "image": jnp.asarray(rng.integers(0, 256, (BATCH, *network.shape)), jnp.uint8),
        "label": jnp.asarray(rng.integers(0, 10, BATCH), jnp.int32),
    }
    params = network.init(jax.random.key(0))
    steps = contestants(network)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for round_number in range(rounds + 1):
        for name, step in steps.items():
            key = jax.random.key(round_number)
            cpu, wall = time.process_time(), time.perf_counter()
            jax.block_until_ready(step(params, batch, key))
            spent = (time.process_time() - cpu, time.perf_counter() - wall)
            if round_number > 0:  # the first round compiles
                seconds[name].append(spent)
    return {
        name: {
            "cpu": statistics.median(cpu for cpu, _ in pairs),
            "wall": statistics.median(wall for _, wall in pairs),
        }
        for name, pairs in seconds.items()
    }


def run(rounds: int) -> dict[str, Any]:
    """All models; seconds, and ratios to the ordinary step of the same run."""
    models = {}
    for title, settings in MODELS.items():
        network = build(
            num_classes=10, shape=(28, 28, 1), pixel_scale=255.0, **settings
        )
        seconds = measure(network, rounds)
        base = seconds["ordinary"]
        models[title] = {
            name: {"milliseconds": 1000 * s["wall"]}
            | {kind: s[kind] / base[kind] for kind in ("cpu", "wall")}
            for name, s in seconds.items()
        }
    return {
        "batch": BATCH,
        "rounds": rounds,
        "jax": jax.__version__,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "models": models,
    }


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        "| model | step | CPU time | wall time | ms |",
        "|---|---|---|---|---|",
    ]
    for title, steps in results["models"].items():
        for name, row in steps.items():
            lines.append(
                f"| {title} | {name} | {row['cpu']:.1f} | {row['wall']:.1f} "
                f"| {row['milliseconds']:.1f} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Measures, prints the table, and writes it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--markdown", type=Path, help="write the page here")
    options = parser.parse_args()
    results = run(options.rounds)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    if options.markdown:
        options.markdown.parent.mkdir(parents=True, exist_ok=True)
        options.markdown.write_text(page(results))
    print(table(results))


def page(results: dict[str, Any]) -> str:
    """The documentation page around the table."""
    return f"""# Step time: private against ordinary

One training step on a batch of {results["batch"]}, CPU, one device, medians of
{results["rounds"]} interleaved rounds in one process (JAX {results["jax"]},
{results["machine"]}, {results["cores"]} cores). CPU and wall time are multiples of the
ordinary step's; milliseconds are wall time, for orientation only. All private steps
compute the same clipped sum and draw the same noise.

{table(results)}

Made by `make bench`, which runs

    python -m experiments.bench.step_time --markdown docs/bench/step_time.md
"""


if __name__ == "__main__":
    main()
