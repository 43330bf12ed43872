"""Time and precision of the accountants, beside dp-accounting's in the same run.

Each row is one question. Timed in interleaved rounds in one process, medians of CPU
time; the ratio is to dp-accounting's loss distributions where that library answers. The
`over` column is how far the certified epsilon lies above the true one, where that is
known (closed forms, inverted moment generating functions, quadrature).

    python -m experiments.bench.accounting --markdown docs/bench/accounting.md
    python -m experiments.bench.accounting --long     # a peer's row that takes minutes
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dp_accounting as dp
import numpy as np
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from dpkit.accountants import RandomAllocationDpEvent, calibrate, repeat, sequential
from dpkit.accountants.pairs import gaussian
from dpkit.accountants.pairs.laws import allocation
from dpkit.accountants.readings import edgeworth, pld, rdp

RELATION = "add_remove"


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
    moved = math.sqrt(10.0)
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
    ]
    if long:
        found.insert(
            6,
            Row("1,000 kinds", "dp-accounting PLD", lambda: peer(PLDAccountant, many)),
        )
    for delta in (1e-30, 1e-100):
        truth = gaussian.epsilon(moved, delta)[0]

        def tiny(delta: float = delta) -> float | None:
            return upper(pld, small, delta, lower=False)

        found.append(Row(f"delta {delta:g}", "pld", tiny, truth))
    large = repeat(sampled(0.05, 1 - 1e-12), 4)
    truth = gaussian.epsilon(40.0, 1e-5)[0]
    found.append(Row("epsilon 970", "pld", lambda: upper(pld, large), truth))
    return found


def peer(accountant: Any, event: dp.DpEvent) -> float:
    """dp-accounting's epsilon at delta 1e-5."""
    return float(accountant().compose(event).get_epsilon(1e-5))


def upper(
    module: Any, event: dp.DpEvent, delta: float = 1e-5, **options: Any
) -> float | None:
    """The certified epsilon of one accountant."""
    bound = module.epsilon(event, delta, relation=RELATION, **options)
    return bound.upper if bound.certified else None


def fresh(event: dp.DpEvent) -> float | None:
    """The same, without the law that an earlier round left."""
    allocation.pair_of.cache_clear()
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


def page(asked: list[Row], rounds: int) -> str:
    """The documentation page around the table."""
    return f"""# Accounting: time and precision

Medians of {rounds} interleaved rounds in one process, CPU time, {platform.machine()},
{os.cpu_count()} cores. DP-SGD is noise multiplier 1, rate 0.01, 10,000 steps, delta
1e-5, both directions; 1,000 kinds are as many different Poisson-sampled Gaussians, ten
times each; random allocation is one of 29 steps in each of 10 epochs, noise multiplier
1. All dpkit readings are certified upper bounds; `over` is relative to the truth.

{table(asked)}

Made by

    python -m experiments.bench.accounting --markdown docs/bench/accounting.md
"""


def main() -> None:
    """Measures, prints the table, and writes it where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--long", action="store_true", help="minutes more")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--markdown", type=Path, help="write the page here")
    options = parser.parse_args()
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
        options.markdown.write_text(page(asked, options.rounds))
    print(table(asked))


if __name__ == "__main__":
    main()
