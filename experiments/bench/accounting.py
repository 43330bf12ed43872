"""Time and precision of the accountants, beside dp-accounting's in the same run.

Each row is one question. Timed in interleaved rounds in one process, medians of CPU
time; the ratio is to dp-accounting's loss distributions where that library answers. The
`over` column is how far the certified epsilon lies above the true one, where that is
known (closed forms, inverted moment generating functions, quadrature).

    python -m experiments.bench.accounting --markdown docs/bench/accounting.md
    python -m experiments.bench.accounting --long     # a peer's row that takes minutes
    python -m experiments.bench.accounting --against FOLDER   # and another checkout

With `--against`, each checkout answers in a worker of its own that imports from its own
folder; rounds are interleaved, so that both see the same load.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import itertools
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# A second thread of the linear algebra spins after its work, into the next row's time.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import dp_accounting as dp
import numpy as np
from dp_accounting.dp_event import MixtureOfGaussiansDpEvent
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

import dpkit
from dpkit.accountants import (
    RandomAllocationDpEvent,
    calibrate,
    delta_of,
    edgeworth,
    gdp,
    pld,
    rdp,
    repeat,
    sequential,
)

try:
    from dpkit.accountants.pairs.laws.allocation import pair_of
except ImportError:  # an older checkout, with an older name
    pair_of = importlib.import_module("dpkit.accountants.pld_profiles").law

RELATION = "add_remove"
_FRESH = itertools.count(1)


@dataclasses.dataclass
class Row:
    """One question and how it is answered.

    Fields: what is asked, by whom, the call (-> epsilon), the true answer or None, and
    the peer's row that it is compared with.
    """

    question: str
    reading: str
    ask: Callable[[], float | None]
    truth: float | None = None
    seconds: list[float] = dataclasses.field(default_factory=list)
    answer: float | None = None


def sampled(noise: float, rate: float) -> dp.DpEvent:
    """One step of DP-SGD."""
    return dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(noise))


def rows(long: bool) -> list[Row]:
    """All questions, peers first."""
    step = sampled(1.0, 0.01)
    run = repeat(step, 10_000)
    allocated = RandomAllocationDpEvent(1.0, 29, epochs=10)
    rng = np.random.default_rng(0)
    noises, rates = rng.uniform(0.8, 3, 1000), rng.uniform(0.002, 0.02, 1000)
    many = sequential(
        [
            repeat(sampled(float(s), float(q)), 10)
            for s, q in zip(noises, rates, strict=True)
        ]
    )
    fixed = repeat(
        dp.SampledWithoutReplacementDpEvent(1000, 500, dp.GaussianDpEvent(4.0)), 100
    )
    small = repeat(sampled(10.0, 1 - 1e-12), 1000)
    found = [
        Row("DP-SGD", "dp-accounting PLD", lambda: peer(PLDAccountant, run), 6.1877124),
        Row("DP-SGD", "dp-accounting RDP", lambda: peer(RdpAccountant, run), 6.1877124),
        Row("DP-SGD", "edgeworth", lambda: upper(edgeworth, run), 6.1877124),
        Row("DP-SGD", "pld", lambda: upper(pld, run, lower=False), 6.1877124),
        Row("DP-SGD", "pld, both bounds", lambda: upper(pld, run), 6.1877124),
        Row("DP-SGD", "rdp, curve known", lambda: upper(rdp, run), 6.1877124),
        Row("1,000 kinds", "edgeworth", lambda: upper(edgeworth, many)),
        Row("1,000 kinds", "pld", lambda: upper(pld, many, lower=False)),
        Row("random allocation", "pld", lambda: fresh(allocated), 3.435618),
        Row("noise for epsilon 1", "best", noise_for_one),
        Row("delta at epsilon 6", "best", lambda: delta_at_six(run)),
        Row("three shifts", "rdp", three_shifts),
        Row("a replaced record", "rdp", replaced),
        Row(
            "half the records in a batch",
            "pld",
            lambda: upper(pld, fixed, relation="replace_one"),
        ),
    ]
    if long:
        found.insert(
            6,
            Row("1,000 kinds", "dp-accounting PLD", lambda: peer(PLDAccountant, many)),
        )
    for delta in (1e-30, 1e-100):
        truth = gaussian_epsilon(math.sqrt(0.1), delta)

        def tiny(delta: float = delta) -> float | None:
            return upper(pld, small, delta, lower=False)

        found.append(Row(f"delta {delta:g}", "pld", tiny, truth))
    large = repeat(sampled(0.05, 1 - 1e-12), 4)
    truth = gaussian_epsilon(1 / 40, 1e-5)
    found.append(Row("epsilon 970", "pld", lambda: upper(pld, large), truth))
    return found


def peer(accountant: Any, event: dp.DpEvent) -> float:
    """dp-accounting's epsilon at delta 1e-5."""
    return float(accountant().compose(event).get_epsilon(1e-5))


def upper(
    module: Any,
    event: dp.DpEvent,
    delta: float = 1e-5,
    relation: str = RELATION,
    **options: Any,
) -> float | None:
    """The certified epsilon of one accountant."""
    bound = module.epsilon(event, delta, relation=relation, **options)
    return bound.upper if bound.certified else None


def gaussian_epsilon(noise_multiplier: float, delta: float) -> float | None:
    """Epsilon of one Gaussian, by its closed form."""
    event = dp.GaussianDpEvent(noise_multiplier)
    return gdp.epsilon(event, delta, relation=RELATION).lower


def delta_at_six(event: dp.DpEvent) -> float | None:
    """The certified delta at epsilon 6, and a lower bound."""
    return delta_of(event, 6.0, relation=RELATION).upper


def three_shifts() -> float | None:
    """A hundred mixtures of Gaussians, of noise that no earlier round had."""
    noise = 1 + 1e-13 * next(_FRESH)
    step = MixtureOfGaussiansDpEvent(noise, [0, 1, 2, 3], [0.94, 0.03, 0.02, 0.01])
    return upper(rdp, repeat(step, 100))


def replaced() -> float | None:
    """A run with a replaced record, of noise that no earlier round had."""
    step = sampled(1 + 1e-13 * next(_FRESH), 0.01)
    return upper(rdp, repeat(step, 10_000), relation="replace_one")


def fresh(event: dp.DpEvent) -> float | None:
    """The same, without the law that an earlier round left."""
    pair_of.cache_clear()
    return upper(pld, event, lower=False)


def noise_for_one() -> float:
    """The noise multiplier whose certified epsilon is 1 (q = 0.01, 10,000 steps)."""
    return calibrate(
        lambda noise: repeat(sampled(noise, 0.01), 10_000),
        epsilon=1.0,
        delta=1e-5,
        relation=RELATION,
    ).value


def run(rounds: int, long: bool) -> list[Row]:
    """All rows, timed in interleaved rounds; the first round only warms up."""
    asked = rows(long)
    for number in range(rounds + 1):
        for row in asked:
            start = time.process_time()
            row.answer = row.ask()
            if number:
                row.seconds.append(time.process_time() - start)
    return asked


@dataclasses.dataclass
class Worker:
    """A checkout that answers in a process of its own."""

    folder: Path
    process: Any = None

    def __enter__(self) -> Worker:
        command = [sys.executable, "-P", __file__, "--worker"]
        path = {"PYTHONPATH": str(self.folder)}
        process: Any = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | path,
            cwd=self.folder,
        )
        self.process = process
        source = Path(json.loads(process.stdout.readline()))
        if not source.is_relative_to(self.folder):
            raise RuntimeError(f"the worker of {self.folder} imports {source}")
        return self

    def __exit__(self, *error: object) -> None:
        self.process.communicate()

    def ask(self, row: int) -> tuple[float, float | None]:
        """CPU seconds and the answer of one row."""
        self.process.stdin.write(f"{row}\n")
        self.process.stdin.flush()
        seconds, answer = json.loads(self.process.stdout.readline())
        return seconds, answer


def serve() -> None:
    """Answers rows by number, until there is nothing to read."""
    asked = rows(long=False)
    print(json.dumps(str(Path(dpkit.__file__).resolve())), flush=True)
    for line in sys.stdin:
        start = time.process_time()
        answer = asked[int(line)].ask()
        print(json.dumps([time.process_time() - start, answer]), flush=True)


def against(folder: Path, rounds: int) -> str:
    """The rows by both checkouts, as Markdown."""
    here = Path(dpkit.__file__).resolve().parents[1]
    asked = [
        (i, row)
        for i, row in enumerate(rows(long=False))
        if not row.reading.startswith("dp-accounting")
    ]
    taken: dict[tuple[int, int], list[float]] = {}
    answers: dict[tuple[int, int], float | None] = {}
    with Worker(folder.resolve()) as before, Worker(here) as now:
        for number in range(rounds + 1):
            for i, _ in asked:
                sides = [(0, before), (1, now)]
                for side, worker in sides if number % 2 else reversed(sides):
                    seconds, answers[side, i] = worker.ask(i)
                    if number:
                        taken.setdefault((side, i), []).append(seconds)
    lines = [
        "| question | reading | before | now | CPU ms before | now | ratio |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for i, row in asked:
        first, second = (min(taken[side, i]) for side in (0, 1))
        old, new = ("none" if a is None else f"{a:.9g}" for a in both(answers, i))
        lines.append(
            f"| {row.question} | {row.reading} | {old} | {new} | {1e3 * first:.3g} "
            f"| {1e3 * second:.3g} | {second / first:.2f} |"
        )
    return "\n".join(lines)


def both(answers: dict[tuple[int, int], float | None], row: int) -> list[float | None]:
    """The answers of both checkouts to one row."""
    return [answers[side, row] for side in (0, 1)]


def table(asked: list[Row]) -> str:
    """The rows as Markdown."""
    base = statistics.median(asked[0].seconds)
    lines = [
        "| question | reading | answer | over | CPU ms | of dp-accounting's PLD |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for row in asked:
        middle = statistics.median(row.seconds)
        over = ""
        if row.truth is not None and row.answer is not None:
            over = f"{row.answer / row.truth - 1:+.1e}"
        ratio = f"{middle / base:.3g}" if row.question == "DP-SGD" else ""
        answer = "none" if row.answer is None else f"{row.answer:.7g}"
        lines.append(
            f"| {row.question} | {row.reading} | {answer} | {over} "
            f"| {1e3 * middle:.3g} | {ratio} |"
        )
    return "\n".join(lines)


def page(asked: list[Row], rounds: int, comparison: str | None) -> str:
    """The documentation page around the tables."""
    beside = ""
    if comparison:
        beside = f"""
## Against the release before

CPU time, the least of {rounds} interleaved rounds (what else a machine does only adds),
each checkout in a process of its own.

{comparison}

Made by the same command with `--against FOLDER`, a checkout of that release.
"""
    return f"""# Accounting: time and precision

Medians of {rounds} interleaved rounds in one process, CPU time, {platform.machine()},
one thread on {os.cpu_count()} cores. DP-SGD is noise multiplier 1, rate 0.01, 10,000
steps, delta 1e-5, both directions; 1,000 kinds are as many different Poisson-sampled
Gaussians, ten times each; random allocation is one of 29 steps in each of 10 epochs,
noise multiplier 1. All dpkit readings are certified upper bounds; `over` is relative to
the truth.

{table(asked)}

Made by

    python -m experiments.bench.accounting --markdown docs/bench/accounting.md
{beside}"""


def main() -> None:
    """Measures, prints the table, and writes it where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--long", action="store_true", help="minutes more")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--markdown", type=Path, help="write the page here")
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        serve()
        return
    comparison = against(options.against, options.rounds) if options.against else None
    asked = run(options.rounds, options.long)
    if options.json:
        figures = [
            {
                "question": row.question,
                "reading": row.reading,
                "answer": row.answer,
                "truth": row.truth,
                "seconds": row.seconds,
            }
            for row in asked
        ]
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    if options.markdown:
        options.markdown.parent.mkdir(parents=True, exist_ok=True)
        options.markdown.write_text(page(asked, options.rounds, comparison))
    print(table(asked), comparison or "", sep="\n\n")


if __name__ == "__main__":
    main()
