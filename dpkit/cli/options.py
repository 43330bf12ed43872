"""Options that several commands share: one spelling, one help text."""

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document instead of text.")
]
Config = Annotated[
    Path | None,
    typer.Argument(
        metavar="[CONFIG]",
        help="A .toml or .json file: relation, unit, delta and events, or dpsgd."
        " Or declare the run by options.",
        show_default=False,
    ),
]
ConfigFile = Annotated[
    Path,
    typer.Argument(
        metavar="CONFIG",
        help="A .toml or .json file: relation, unit, delta and events, or dpsgd.",
    ),
]
NoiseMultiplier = Annotated[
    float | None,
    typer.Option(help="Noise standard deviation over the clip norm."),
]
Delta = Annotated[
    float | None,
    typer.Option(help="The delta at which epsilon is meant. No default."),
]
Deltas = Annotated[
    list[float] | None,
    typer.Option(
        "--delta",
        help="The delta at which epsilon is meant; may be given several times.",
    ),
]
Relation = Annotated[
    str | None,
    typer.Option(
        metavar="RELATION",
        help="Which data sets are neighbours: add_remove, replace_one or zero_out."
        " No default.",
    ),
]
Sampling = Annotated[
    str | None,
    typer.Option(
        metavar="SAMPLING",
        help="How batches are drawn: poisson or full_batch. No default; a CONFIG knows"
        " more schemes.",
    ),
]
SamplingRate = Annotated[
    float | None,
    typer.Option(help="The chance of one example to be in one batch, in (0, 1]."),
]
Steps = Annotated[
    int | None, typer.Option(help="Optimiser updates, not micro-batches.")
]
Epochs = Annotated[
    float | None,
    typer.Option(
        help="Passes over the data, in the place of --steps; with --batch-size and"
        " --dataset-size."
    ),
]
MaxBatchSize = Annotated[
    int | None,
    typer.Option(
        help="Slots of a batch: of a larger draw a random part is used. With poisson"
        " and --max-records alone; without them no draw is ever cut.",
    ),
]
MaxRecords = Annotated[
    int | None,
    typer.Option(
        "--max-records",
        "--dataset-size",
        help="The most records that there can be; for --max-batch-size, or"
        " --expected-batch-size.",
    ),
]
ExpectedBatchSize = Annotated[
    int | None,
    typer.Option(
        "--expected-batch-size",
        "--batch-size",
        help="With --max-records, in the place of --sampling-rate.",
    ),
]
Unit = Annotated[
    str | None,
    typer.Option(
        help="What one record stands for: example, user, … [default: the CONFIG's, or"
        " example]",
        show_default=False,
    ),
]
Accountant = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="Who counts: rdp, pld, …, or best, the tightest."
    ),
]
Accountants = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="Ask these by name, separated by commas, and show each: rdp,pld,…",
    ),
]
LedgerFile = Annotated[
    str,
    typer.Argument(
        metavar="LEDGER", help="A ledger's file or URL, or the folder of a run."
    ),
]
Event = Annotated[
    str,
    typer.Option(
        metavar="EVENT",
        help='What one release costs, as JSON: \'{"kind": "gaussian",'
        ' "noise_multiplier": 2}\'; or a file that holds it.',
    ),
]
Count = Annotated[int, typer.Option(help="How often it happens.")]
Scope = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="The declared block of the data that alone is touched; may be given"
        " several times. [default: all]",
        show_default=False,
    ),
]
