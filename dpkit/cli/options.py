"""Options that several commands share: one spelling, one help text."""

from typing import Annotated

import typer

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document instead of text.")
]
Delta = Annotated[float, typer.Option(help="The delta at which epsilon is meant.")]
Relation = Annotated[
    str,
    typer.Option(
        metavar="RELATION",
        help="Which data sets are neighbours: add_remove, replace_one or zero_out."
        " No default.",
    ),
]
Sampling = Annotated[
    str,
    typer.Option(
        metavar="SAMPLING",
        help="How batches are drawn: poisson or full_batch. No default.",
    ),
]
SamplingRate = Annotated[
    float,
    typer.Option(help="The chance of one example to be in one batch, in (0, 1]."),
]
Steps = Annotated[int, typer.Option(help="Optimiser updates, not micro-batches.")]
MaxBatchSize = Annotated[
    int | None,
    typer.Option(
        help="Slots of a batch: of a larger draw a random part is used. With poisson"
        " and --max-records alone; without them no draw is ever cut.",
    ),
]
MaxRecords = Annotated[
    int | None,
    typer.Option(help="The most records that there can be, for --max-batch-size."),
]
Unit = Annotated[str, typer.Option(help="What one record stands for: example, user, …")]
Accountant = Annotated[
    str,
    typer.Option(metavar="NAME", help="Who counts: rdp, pld, or best, the tightest."),
]
