"""How many releases a ledger admits, one after another and sealed together.

Each row is a new ledger of the default filter, in memory. Releases are charged until
one is refused, and beside that stands what the tightest accountant holds of them if all
are fixed before the first output: a sealed sweep reaches it.

    python -m experiments.bench.shared --markdown docs/bench/shared.md
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import time
from pathlib import Path
from typing import Any, NamedTuple

from dp_accounting import DpEvent, GaussianDpEvent, LaplaceDpEvent

from dpkit.accountants import Budget, BudgetExceeded, Ledger
from dpkit.training.plan import DPSGDPlan

WHOLE = Budget(3.0, 1e-5)
TERMS: dict[str, Any] = {
    "relation": "add_remove",
    "unit": "example",
    "dataset": "bench 1.0",
}
HEAD = """\
| releases | budget | admitted | if all were fixed before | epsilon spent | seconds | \
ms each |
|---|---|---|---|---|---|---|"""


class Case(NamedTuple):
    """Releases of one kind: in words, budget, event of one, how many a charge takes."""

    words: str
    budget: Budget
    event: DpEvent
    each: int = 1


def cases() -> list[Case]:
    """The rows that are charged one after another."""
    pure = Budget(1.0, 0.0)
    return [
        Case("DP-SGD run of epsilon 0.3, one after another", WHOLE, run()),
        Case("Gaussian(10), one after another", WHOLE, GaussianDpEvent(10.0)),
        Case("Laplace(1000), 50 a charge", Budget(1.0, 1e-6), LaplaceDpEvent(1e3), 50),
        Case("Laplace(1)", pure, LaplaceDpEvent(1.0)),
        Case("Laplace(4), one after another", pure, LaplaceDpEvent(4.0)),
        Case("Laplace(10), one after another", pure, LaplaceDpEvent(10.0)),
    ]


def run() -> DpEvent:
    """500 steps of DP-SGD, calibrated to (0.3, 1e-5) by themselves."""
    plan = DPSGDPlan.for_budget(
        epsilon=0.3,
        delta=1e-5,
        relation="add_remove",
        max_records=50_000,
        expected_batch_size=500,
        steps=500,
        clip_norm=1.0,
    )
    return plan.event("add_remove")


def opened(budget: Budget, **options: Any) -> Ledger:
    """A new ledger in memory."""
    return Ledger.open(None, budget=budget, **TERMS, **options)


def one_by_one(case: Case) -> str:
    """The row of releases that are charged until one is refused."""
    ledger, charges = opened(case.budget), 0
    begun = time.perf_counter()
    with contextlib.suppress(BudgetExceeded):
        while True:
            ledger.charge(case.event, count=case.each, label="bench")
            charges += 1
    seconds = time.perf_counter() - begun
    return row(case, charges * case.each, charges, ledger, seconds)


def sealed(case: Case, count: int) -> str:
    """The row of as many runs, sealed as one sweep; one more must be refused."""
    ledger = opened(case.budget)
    begun = time.perf_counter()
    ledger.reserve([case.event] * count, label="bench")
    seconds = time.perf_counter() - begun
    try:
        opened(case.budget).reserve([case.event] * (count + 1), label="bench")
    except BudgetExceeded:
        pass
    else:
        raise RuntimeError(f"{count + 1} runs fit, more than was said")
    words = case.words.replace("one after another", "sealed together")
    return row(case._replace(words=words), count, 1, ledger, seconds)


def fixed(case: Case) -> int:
    """How many the tightest accountant holds, if all are fixed before."""
    return opened(case.budget, filter="approx").remaining(case.event)


def row(case: Case, admitted: int, charges: int, ledger: Ledger, seconds: float) -> str:
    """One row of Markdown."""
    budget = f"({case.budget.epsilon:g}, {case.budget.delta:g})"
    spent = ledger.spent().upper or 0.0
    return (
        f"| {case.words} | {budget} | {admitted:,} | {fixed(case):,} | {spent:.4f} "
        f"| {seconds:.2f} | {1000 * seconds / charges:.1f} |"
    )


def page(rows: list[str]) -> str:
    """The whole page."""
    table = "\n".join([HEAD, *rows])
    return f"""\
# Ledger: how much of a budget can be shared

New ledgers in memory, of the default filter, {platform.machine()}, {os.cpu_count()} \
cores. Releases are charged until
one is refused, which is part of the time. "If all were fixed before" is what the
tightest certified accountant holds of them when none depends on an earlier output: a
sealed sweep reaches it; releases that may be chosen on earlier outputs need not. "ms
each" is the time of one charge.

{table}

A DP-SGD run is `DPSGDPlan.for_budget(epsilon=0.3, delta=1e-5, relation="add_remove",
max_records=50_000, expected_batch_size=500, steps=500, clip_norm=1.0)`.

Made by

    python -m experiments.bench.shared --markdown docs/bench/shared.md
"""


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--markdown", type=Path, help="write the page here")
    options = parser.parse_args()
    first, *others = cases()
    rows = [one_by_one(first), sealed(first, fixed(first)), *map(one_by_one, others)]
    if options.markdown:
        options.markdown.parent.mkdir(parents=True, exist_ok=True)
        options.markdown.write_text(page(rows))
    print("\n".join([HEAD, *rows]))


if __name__ == "__main__":
    main()
