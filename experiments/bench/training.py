"""Time, memory and compilation of a private training step against the ordinary one's.

A step is: gradients of a batch, clipped and noised where private, divided by the batch
size, an SGD update. All contestants compute the same step of the same model in one
process on one CPU device, in interleaved rounds. Time is the process's CPU time; quoted
is the median over rounds of the ratio within a round. Memory is the temporary memory of
the compiled program, compilation the CPU time from Python to machine code. There are
two ordinary steps: the same loss of one example under vmap, and a loss of the whole
batch, written by hand.

    python -m experiments.bench.training --markdown docs/bench/training.md \
      --plot docs/images/training.png
    python -m experiments.bench.training --models mlp cnn --rounds 15
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dpkit.mechanisms import gaussian_noise
from dpkit.mechanisms.pinning import held_back
from dpkit.training import clipped_grad
from experiments.bench.training_models import MODELS, Model, decoder
from experiments.bench.training_page import machine, page, table
from experiments.bench.training_plot import draw

CLIP_NORM, NOISE_MULTIPLIER, LEARNING_RATE = 1.0, 1.0, 0.1
LENGTHS = (64, 128, 256, 512, 1024, 2048)
WIDTHS = (64, 128, 256, 512, 1024)
SWEPT = ("auto", "vmap", "jax-privacy")
# No contestant may need more than this for a step, nor more for all of its rounds.
MOST_BYTES, MOST_SECONDS, BUDGET_SECONDS = 8 * 2**30, 30.0, 10.0
COMPILING_SECONDS = 30.0
LEAST_ROUNDS = 3
# Quick steps go on for up to ten times as many rounds, until the ordinary one took:
LEAST_SECONDS = 2.0

Step = Callable[[Any, Any, jax.Array], Any]


def ordinary(model: Model, batched: bool) -> Step:
    """The non-private step: one gradient of the mean loss."""

    def loss(params: Any, batch: Any) -> jax.Array:
        if batched:
            return model.loss(params, batch)
        return jax.vmap(model.loss, (None, 0))(params, batch).mean()

    def step(params: Any, batch: Any, key: jax.Array) -> Any:
        return _updated(params, jax.grad(loss)(params, batch))

    return step


def private(model: Model, noise: bool = True, **mode: Any) -> Step:
    """Our step in one of its modes."""
    clipped = clipped_grad(model.of_one, clip_norm=CLIP_NORM, **mode)

    def step(params: Any, batch: Any, key: jax.Array) -> Any:
        total, _ = clipped(params, batch, None)
        return _noised(model, params, total.private_value, key, noise)

    return step


def jax_privacy(model: Model, microbatch_size: int | None) -> Step | None:
    """The peer's step, with our noise; None where the package isn't installed."""
    try:
        from jax_privacy import clipping
    except ImportError:
        return None

    clipped = clipping.clipped_grad(
        model.loss,
        l2_clip_norm=CLIP_NORM,
        keep_batch_dim=False,
        microbatch_size=microbatch_size,
    )

    def step(params: Any, batch: Any, key: jax.Array) -> Any:
        return _noised(model, params, clipped(params, batch), key, True)

    return step


def _noised(model: Model, params: Any, total: Any, key: jax.Array, noise: bool) -> Any:
    """Noise on the sum, the division by the expected batch, the update."""
    if noise:
        total, key = held_back(total, key)
        drawn = gaussian_noise(key, total, NOISE_MULTIPLIER * CLIP_NORM)
        total = jax.tree.map(jnp.add, total, drawn)
    return _updated(params, jax.tree.map(lambda s: s / model.batch, total))


def _updated(params: Any, gradient: Any) -> Any:
    """Plain gradient descent."""
    return jax.tree.map(lambda p, g: p - LEARNING_RATE * g, params, gradient)


def contestants(model: Model, only: Iterable[str] = ()) -> dict[str, Step]:
    """Every way to the step that is available here."""
    steps: dict[str, Step | None] = {
        "auto": private(model),
        "auto, without noise": private(model, noise=False),
        "vmap": private(model, mode="vmap"),
        "two_pass": private(model, mode="two_pass"),
    }
    if model.small:
        for size in (1, 8, 32):
            name = f"microbatch of {size}"
            steps[name] = private(model, mode="microbatch", microbatch=size)
    steps["jax-privacy"] = jax_privacy(model, None)
    if model.small and model.batch % 32 == 0:  # it takes whole microbatches only
        steps["jax-privacy, microbatches of 32"] = jax_privacy(model, 32)
    chosen = tuple(only) or tuple(steps)
    return {k: step for k, step in steps.items() if step is not None and k in chosen}


def measure(
    model: Model, steps: dict[str, Step], rounds: int, hopeless: Collection[str] = ()
) -> dict[str, Any]:
    """All steps in absolute numbers; the private ones as multiples of ordinary ones.

    Ways that are `hopeless` are compiled, for their memory, but not run.
    """
    params = jax.jit(model.init)(jax.random.key(0))
    batch = model.draw(np.random.default_rng(0), model.batch)
    plain = {form: ordinary(model, form == "batched") for form in ("vmap", "batched")}
    made = {("ordinary", form): step for form, step in plain.items()}
    made |= {("private", name): step for name, step in steps.items()}
    _compiled(plain["vmap"], params, batch)  # what only the first compilation pays
    programs = {name: _compiled(step, params, batch) for name, step in made.items()}
    for name, step in made.items():  # again: other work on the machine costs time too
        program, compilation = programs[name]
        again = _compiled(step, params, batch)[1]
        programs[name] = program, min(compilation, again)
    bytes_of = {
        k: p.memory_analysis().temp_size_in_bytes for k, (p, _) in programs.items()
    }
    running = {
        k: p
        for k, (p, _) in programs.items()
        if bytes_of[k] <= MOST_BYTES and k[1] not in hopeless
    }
    seconds = _seconds(running, params, batch, rounds)
    found: dict[str, Any] = {"title": model.title, "ordinary": {}, "private": {}}
    for key, (_, compilation) in programs.items():
        times = seconds.get(key, [])
        found[key[0]][key[1]] = {
            "seconds": statistics.median(times) if times else None,
            "bytes": bytes_of[key],
            "compilation": compilation,
            "rounds": len(times),
        }
    for name, row in found["private"].items():
        row["against"] = {
            form: {
                "time": _ratio(
                    seconds.get(("private", name)), seconds["ordinary", form]
                ),
                "memory": row["bytes"] / base["bytes"],
                "compilation": row["compilation"] / base["compilation"],
            }
            for form, base in found["ordinary"].items()
        }
    return found


def _ratio(times: list[float] | None, others: list[float]) -> float | None:
    """The median of the ratios of rounds, if there were any."""
    ratios = [a / b for a, b in zip(times or [], others, strict=False)]
    return statistics.median(ratios) if ratios else None


def _compiled(step: Step, params: Any, batch: Any) -> tuple[Any, float]:
    """The program, and the CPU seconds of tracing and compiling it."""
    jax.clear_caches()
    start = time.process_time()
    lowered = jax.jit(step, donate_argnums=0).lower(params, batch, jax.random.key(0))
    program = lowered.compile()
    return program, time.process_time() - start


def _seconds(
    programs: dict[Any, Any], params: Any, batch: Any, rounds: int
) -> dict[Any, list[float]]:
    """CPU seconds of every program in every round that it took part in."""
    seconds: dict[Any, list[float]] = {name: [] for name in programs}
    slow: set[Any] = set()
    first = next(iter(programs))
    for number in range(10 * rounds + 1):
        if number > rounds and sum(seconds[first]) > LEAST_SECONDS:
            break
        for name, program in programs.items():
            if name in slow:
                continue
            spent = _once(program, params, batch, number)
            if number > 0:  # the first round warms up
                seconds[name].append(spent)
            tired = sum(seconds[name]) > BUDGET_SECONDS and number >= LEAST_ROUNDS
            if spent > MOST_SECONDS or (tired and name[0] != "ordinary"):
                slow.add(name)
    return seconds


def _once(program: Any, params: Any, batch: Any, number: int) -> float:
    """CPU seconds of one run on parameters of its own."""
    given = jax.block_until_ready(jax.tree.map(jnp.copy, params))
    start = time.process_time()
    jax.block_until_ready(program(given, batch, jax.random.key(number)))
    return time.process_time() - start


def sweep(models: dict[int, Model], rounds: int) -> dict[int, dict[str, float | None]]:
    """Time ratios of a family of models."""
    found = {}
    for x, model in models.items():
        result = measure(model, contestants(model, SWEPT), rounds)
        found[x] = {
            name: row["against"]["vmap"]["time"]
            for name, row in result["private"].items()
        }
        print(f"  {model.title}: {found[x]}", flush=True)
    return found


def sweeps(rounds: int) -> dict[str, Any]:
    """Against sequence length at a constant number of symbols, and against width."""
    lengths = {t: decoder(2, 256, t, 1024, batch=2048 // t) for t in LENGTHS}
    widths = {w: decoder(2, w, 128, 1024, batch=16) for w in WIDTHS}
    return {"length": sweep(lengths, rounds), "width": sweep(widths, rounds)}


def hopeless(name: str) -> list[str]:
    """The doubtful ways of a model that take more CPU time than a step may.

    A step can't be interrupted, so each is tried in a process of its own, which the
    system ends when it has used that time and what compiling takes.
    """
    found = []
    for way in MODELS[name].doubtful:
        if way in contestants(MODELS[name]):
            command = [sys.executable, "-m", __spec__.name, "--try", name, way]
            code = subprocess.run(command, capture_output=True).returncode
            if code in (-signal.SIGKILL, -signal.SIGXCPU):
                found.append(way)
            elif code != 0:
                raise RuntimeError(f"{' '.join(command)} ended with code {code}")
    return found


def attempt(name: str, way: str) -> None:
    """One step of one way, within the CPU time that a step may take."""
    limit = int(MOST_SECONDS + COMPILING_SECONDS)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
    model = MODELS[name]
    params = jax.jit(model.init)(jax.random.key(0))
    batch = model.draw(np.random.default_rng(0), model.batch)
    program, _ = _compiled(contestants(model)[way], params, batch)
    _once(program, params, batch, 0)


def run(names: Iterable[str], rounds: int, saved: Path | None = None) -> dict[str, Any]:
    """All asked-for models; what is known so far is saved after each."""
    models: dict[str, Any] = {}
    results = {"machine": machine(), "rounds": rounds, "models": models}
    for name in names:
        model = MODELS[name]
        models[name] = measure(model, contestants(model), rounds, hopeless(name))
        print(f"  {model.title}: done", flush=True)
        _save(results, saved)
    return results


def _save(results: dict[str, Any], path: Path | None) -> None:
    """Writes the figures, where asked."""
    if path is not None:
        path.write_text(json.dumps(results, indent=1) + "\n")


def main() -> None:
    """Measures, prints the table, and writes page and plot where asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--markdown", type=Path, help="write the page here")
    parser.add_argument("--plot", type=Path, help="sweep, and draw the plot here")
    parser.add_argument("--try", nargs=2, dest="attempt", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.attempt:
        return attempt(*options.attempt)
    results = run(options.models, options.rounds, options.json)
    if options.plot:
        results["sweeps"] = sweeps(min(options.rounds, 5))
        draw(results["sweeps"], options.plot)
    _save(results, options.json)
    if options.markdown:
        options.markdown.parent.mkdir(parents=True, exist_ok=True)
        options.markdown.write_text(page(results, options.plot, options.markdown))
    print(table(results))


if __name__ == "__main__":
    main()
