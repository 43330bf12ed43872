"""`dpkit budget check`: a gate for a release, by its exit code."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpkit.cli.bounds import bound_in_words, refuse_uncertified
from dpkit.cli.errors import ExitCode
from dpkit.cli.flags import RunFlags, declared
from dpkit.cli.opening import opened
from dpkit.cli.options import (
    Epochs,
    ExpectedBatchSize,
    Json,
    MaxBatchSize,
    MaxRecords,
    NoiseMultiplier,
    Relation,
    Sampling,
    SamplingRate,
    Steps,
    Unit,
)
from dpkit.cli.output import emit, facts, note
from dpkit.report.identity import insecure

if TYPE_CHECKING:
    from dpkit.accountants import PrivacyBound
    from dpkit.budget.declaration import Declaration

_DECLARATIONS = (".toml", ".json")


def check(
    max_epsilon: Annotated[
        float, typer.Option(help="The most that may be spent; inf must be written.")
    ],
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[CONFIG|LEDGER]",
            help="A .toml or .json file that declares a run; else a ledger's file or"
            " URL, or the folder of a run. Or declare the run by options.",
            show_default=False,
        ),
    ] = None,
    delta: Annotated[
        float | None,
        typer.Option(
            help="The delta at which epsilon is meant.",
            show_default="the CONFIG's, or the ledger's",
        ),
    ] = None,
    noise_multiplier: NoiseMultiplier = None,
    sampling_rate: SamplingRate = None,
    steps: Steps = None,
    sampling: Sampling = None,
    max_batch_size: MaxBatchSize = None,
    max_records: MaxRecords = None,
    expected_batch_size: ExpectedBatchSize = None,
    epochs: Epochs = None,
    relation: Relation = None,
    unit: Unit = None,
    json: Json = False,
) -> None:
    """Exit 0 if a certified epsilon is within the limit, 1 if it is not.

    Exit code 4 where there is only an estimate, 3 where a ledger was edited, 5 where
    the relation or the unit given is another. A limit of 0 is a limit of zero. Noise
    from a known seed is within no limit but inf.
    """
    from dpkit.accountants.answers import checks

    limit = checks.non_negative_or_inf(max_epsilon=max_epsilon)
    if delta is not None:
        delta = checks.half_open_probability(delta=delta)
    flags = RunFlags(
        noise_multiplier=noise_multiplier,
        sampling=sampling,
        sampling_rate=sampling_rate,
        steps=steps,
        max_batch_size=max_batch_size,
        max_records=max_records,
        expected_batch_size=expected_batch_size,
        epochs=epochs,
    )
    if what is None or what.lower().endswith(_DECLARATIONS):
        path = None if what is None else Path(what)
        run = declared(path, flags, relation=relation, unit=unit, delta=delta)
        bound, told = _declared(run)
    else:
        bound, told = _recorded(what, delta, relation, unit)
    within = bound.certified and bound.upper is not None and bound.upper <= limit
    within = within and (limit == float("inf") or not told["insecure_seed"])
    shown = "inf" if limit == float("inf") else limit
    if json:
        told = {"ok": within, "max_epsilon": shown} | told
        emit({**bound.to_json(), **told})
    else:
        rows = [("verdict", "within the limit" if within else "NOT within the limit")]
        facts([*rows, ("limit", shown), *bound_in_words(bound), *told.items()])
    refuse_uncertified(bound.certified)
    if not within:
        known = f"epsilon={bound.upper!r} at delta={bound.delta!r}"
        if told["insecure_seed"]:
            known = "NO PRIVACY, the noise is of a known seed: an infinite epsilon"
        note(f"dpkit budget check: {known} exceeds --max-epsilon {shown}")
        raise typer.Exit(ExitCode.BUDGET_EXCEEDED)


def _declared(run: "Declaration") -> "tuple[PrivacyBound, dict[str, Any]]":
    """What a declared run costs."""
    from dpkit.accountants import epsilon
    from dpkit.report.guarantee import KNOWN_SEED

    if run.delta is None:
        raise ValueError("missing option --delta; or a CONFIG that names it")
    bound = epsilon(run.event, run.delta, relation=run.relation, unit=run.unit)
    return bound, {"insecure_seed": KNOWN_SEED in run.assumed}


def _recorded(
    name: str, delta: float | None, relation: str | None, unit: str | None
) -> "tuple[PrivacyBound, dict[str, Any]]":
    """What a ledger has spent, after a check of all of it."""
    from dpkit.accountants import Incompatible

    with opened(name) as book:
        book.verify(recount=True)
        for field, given in (("relation", relation), ("unit", unit)):
            if given is not None and given != str(getattr(book, field)):
                raise Incompatible(
                    f"{field}={given!r}, but the ledger counts {getattr(book, field)}"
                )
        told = {"ledger": book.id, "dataset": book.dataset, "head": book.head}
        seeded = any(insecure(entry) for entry in book.entries())
        return book.spent(delta), {**told, "insecure_seed": seeded}
