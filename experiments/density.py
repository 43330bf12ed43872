"""Sums and classes from one private release, beside what is published.

Backurs et al. answer sums of kernels and of distances, and classify by average
similarity, "orders of magnitude faster than DP-SGD at comparable accuracy". Here, over
the same points: kernel sums by spline grids, landmarks, random waves and the exact
curator beside LSQ (Wagner et al.); sums of l1 distances beside both published trees;
classes from one table of sums beside a linear model by DP-SGD at the same epsilon.

Baselines have pure epsilon, for they know no other noise; so has each of ours that says
delta 0. "Bars" is the share of answers within twice their standard deviation and bias
of the truth, which `query` promises for 95 of 100. Reviews of films are vectors of an
encoder with public pretraining, and are left out where they are not in the cache.

References: Backurs, Lin, Mahabadi, Silwal, Tarnawski, "Efficiently Computing
Similarities to Private Datasets", 2024, arXiv:2403.08917; Wagner, Naamad, Mishra, "Fast
Private Kernel Density Estimation via Locality Sensitive Quantization", 2023,
arXiv:2307.01877; Liu, Hu, Reneau, Song, Liu, "Differentially Private Kernel Density
Estimation", 2024, arXiv:2409.01688.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from experiments import density_classes as classes
from experiments import density_sums as sums
from experiments.density_classes import DELTA, RATES, Split
from experiments.review_vectors import available
from experiments.runner import Ledgers


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured; `paper` is `quick` with more seeds and all reviews.

    Attributes:
      records: points of the kernel sums. distances: of the sums of distances.
      queries: of each.
      dims: of the grids.
      seeds: of the sums. cheap_seeds: of grids, distances, and tables of classes.
      sizes: of the structures for 16 dimensions.
      waves: of the kernel on digits.
      epsilons: of classes.
      rows: of synthetic embeddings to learn from.
      reviews: to learn from, and to test on; none: no text.
      steps: of DP-SGD. rates: of its learning. runs: of it at each; 0: none of it.
    """

    records: int = 100_000
    distances: int = 20_000
    queries: int = 200
    dims: tuple[int, ...] = (1, 2, 3)
    seeds: tuple[int, ...] = (0, 1, 2)
    cheap_seeds: tuple[int, ...] = tuple(range(10))
    sizes: sums.Sizes = dataclasses.field(default_factory=sums.Sizes)
    waves: int = 4000
    epsilons: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0)
    rows: int = 50_000
    reviews: tuple[int, int] = (8000, 2000)
    steps: int = 300
    rates: tuple[float, ...] = RATES
    runs: int = 1


SMOKE = Config(
    records=1000,
    distances=1000,
    queries=20,
    dims=(1,),
    seeds=(0,),
    cheap_seeds=(0,),
    sizes=sums.Sizes((32, 64), 128, ((1.0, (64,)),)),
    waves=64,
    epsilons=(2.0,),
    rows=0,
    reviews=(0, 0),
    runs=0,
)
PRESETS = {
    "smoke": SMOKE,
    "quick": Config(),
    "paper": Config(
        seeds=tuple(range(10)),
        cheap_seeds=tuple(range(20)),
        reviews=(24_000, 8000),
        runs=3,
    ),
}


def run(config: Config, ledgers: Ledgers) -> dict[str, Any]:
    """All rows; each data set has a ledger of its own."""
    n, count, many = config.records, config.queries, config.cheap_seeds
    errors = [
        *sums.bumps(n, count, many, config.dims, ledgers),
        *sums.mixture(n, count, config.seeds, config.sizes, ledgers),
        *sums.lengths(config.distances, count, many, ledgers),
    ]
    found = classified(
        "digits", [classes.digits(s) for s in many], config, ledgers, config.waves
    )
    if config.rows:
        same = [classes.embeddings(config.rows)] * len(many)
        found += classified("synthetic embeddings", same, config, ledgers)
    texts = reviews(config)
    if texts is not None:
        same = [texts] * len(many)
        found += classified("reviews of films", same, config, ledgers)
    return {
        "sums": [dataclasses.asdict(row) for row in errors],
        "classes": [dataclasses.asdict(row) for row in found],
        "reviews": texts is not None,
    }


def reviews(config: Config) -> Split | None:
    """Reviews of films as vectors; None if they aren't wanted or not here."""
    train, test = config.reviews
    parts = available(("train", train), ("test", test)) if train else None
    if parts is None:
        return None
    (x, y), (test_x, test_y) = parts
    return Split(x, y.astype("int32"), test_x, test_y)


def classified(
    name: str, splits: list[Split], config: Config, ledgers: Ledgers, waves: int = 0
) -> list[classes.Row]:
    """One data set in every way."""
    epsilons, releases = config.epsilons, len(splits) * (1 + bool(waves))
    terms = sums.budget_of(
        releases * len(epsilons), max(epsilons), DELTA, unit="example", dataset=name
    )
    ledger = ledgers.open(name.replace(" ", "-"), **terms)
    rows = classes.tables(name, splits, epsilons, ledger)
    if waves:
        rows += classes.tables(name, splits, epsilons, ledger, waves)
    if config.runs:
        some = splits[: config.runs]
        rows += classes.trained(name, some, epsilons, config.steps, config.rates)
    return rows


def rows_of(document: dict[str, Any]) -> tuple[list[sums.Row], list[classes.Row]]:
    """The rows that NAME.json holds."""
    found = document["metrics"]
    errors = [sums.Row(**row) for row in found["sums"]]
    return errors, [classes.Row(**row) for row in found["classes"]]


def table(document: dict[str, Any]) -> str:
    """Both tables as Markdown."""
    errors, found = rows_of(document)
    lines = [
        "| points | ε, δ | ours | RMS error | error ÷ floor | bars | beside "
        "| its error | ours ÷ its |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in errors:
        lines.append(
            f"| {row.data} | {row.epsilon:g}, {row.delta:g} | {row.ours} "
            f"| {row.error:.4g} | {row.over_floor:.2f} | {row.coverage:.1%} "
            f"| {row.baseline} | {row.baseline_error:.4g} | {row.share:.3f} |"
        )
    epsilons = sorted({row.epsilon for row in found})
    lines += [
        "",
        f"Accuracy at δ = {DELTA:g}. Seconds are CPU time of one run with its "
        "preparation, the least of all; DP-SGD compiles its step in every run.",
        "",
        "| data | way | " + " | ".join(f"ε = {e:g}" for e in epsilons) + " | CPU s |",
        "|---|---|" + "---|" * (len(epsilons) + 1),
    ]
    for (data, way), own in by_way(found).items():
        seconds = f"{min(row.cpu_seconds for row in own):.2g}"
        cells = " | ".join(f"{row.accuracy:.3f}" for row in own)
        lines.append(f"| {data} | {way} | {cells} | {seconds} |")
    return "\n".join(lines)


def by_way(found: list[classes.Row]) -> dict[tuple[str, str], list[classes.Row]]:
    """Rows of one way with one data set, epsilon by epsilon."""
    ways: dict[tuple[str, str], list[classes.Row]] = {}
    for row in sorted(found, key=lambda row: row.epsilon):
        ways.setdefault((row.data, row.way), []).append(row)
    return ways


def plot(document: dict[str, Any], figure: Any) -> None:
    """Errors as a share of the baseline's; accuracy by epsilon."""
    errors, found = rows_of(document)
    left, right = figure.subplots(1, 2)
    names = [
        f"{row.data}, {row.ours}, {row.epsilon:g}" + (", δ" if row.delta else "")
        for row in errors
    ]
    left.barh(names, [row.share for row in errors])
    left.set_xscale("log")
    left.axvline(1.0, color="grey", linewidth=1)
    left.invert_yaxis()
    left.tick_params(labelsize=6)
    left.set_xlabel("error (baseline = 1)")
    styles = {"DP-SGD": "--", "kernel": ":"}
    colours = {data: f"C{i}" for i, data in enumerate(sorted({r.data for r in found}))}
    for (data, way), own in by_way(found).items():
        x, y = zip(*((row.epsilon, row.accuracy) for row in own), strict=True)
        style = {"color": colours[data], "linestyle": styles.get(way, "-")}
        right.plot(x, y, marker=".", label=f"{data}, {way}", **style)
    right.set_xscale("log")
    right.set_xlabel("ε")
    right.set_ylabel("accuracy")
    right.legend(fontsize=6)
