"""The command of a job, made from the job: its options, its progress, its outcome.

Progress goes to standard error: a bar on a terminal, else twenty lines or so. Nothing
there is private: steps, what the job counts as epsilon so far, what it says may be
told; no time left where the time of the work depends on private data.
"""

import importlib
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpkit.cli.errors import ExitCode
from dpkit.cli.options import Json
from dpkit.cli.output import confirm, emit, facts, is_quiet, note, plain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from dpkit.budget.declaration import Declaration
    from dpkit.jobs import Cost, Job, JobConfig, Progress, Run
    from dpkit.jobs.progress import OnProgress, Tell

# By command: where the struct of the configuration is, and where the job is. The first
# loads no arrays.
JOBS = {
    "train": ("dpkit.training.config:Config", "dpkit.training.job:TRAINING"),
    "density": ("dpkit.density.config:Config", "dpkit.density.job:DENSITY"),
    "classes": ("dpkit.density.config:ClassesConfig", "dpkit.density.demo:CLASSES"),
    "synth": ("dpkit.synthetic.config:Config", "dpkit.synthetic.job:SYNTH"),
}

Out = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="The run's folder; resumed if unfinished."),
]
Ledger = Annotated[
    str | None,
    typer.Option(
        metavar="LEDGER",
        help="A ledger to share, by its file or URL, in the place of the"
        " CONFIG's. [default: one in the run's folder]",
        show_default=False,
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="In the place of the CONFIG's; may be given several times.",
    ),
]
Offline = Annotated[
    bool,
    typer.Option(
        "--offline", help="Never fetch data, even where the CONFIG allows it."
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Only tell what it would cost and take; nothing is spent."
    ),
]

_LINES = 20  # of a run that nobody watches on a terminal


def config_type(name: str) -> "type[JobConfig]":
    """The struct of a job's configuration.

    Example:
      >>> config_type("train").__name__
      'Config'
    """
    return _found(JOBS[name][0])


def job_of(name: str) -> "Job[Any]":
    """The job of a command.

    Example:
      >>> job_of("train").name
      'train'
    """
    return _found(JOBS[name][1])


def job_command(name: str, text: str) -> Callable[..., None]:
    """The command of a job.

    Example:
      >>> job_command("train", "Train privately.").__doc__
      'Train privately.'
    """

    def command(
        config: Annotated[
            Path,
            typer.Argument(metavar="CONFIG.toml", help="What to do, and how private."),
        ],
        out: Out = None,
        ledger: Ledger = None,
        changes: Changes = None,
        offline: Offline = False,
        dry_run: DryRun = False,
        json: Json = False,
    ) -> None:
        from dpkit import jobs

        need_folder(out, dry_run)
        read = jobs.load(config_type(name), config, changes or ())
        run_or_tell(name, read, out, ledger, offline, dry_run, json)

    command.__doc__ = text
    return command


def need_folder(out: Path | None, dry_run: bool) -> None:
    """Refuses a run without a folder.

    Example:
      >>> need_folder(None, dry_run=True)
    """
    if out is None and not dry_run:
        raise ValueError("missing option --out: name the run's folder")


def run_or_tell(
    name: str,
    config: "JobConfig",
    out: Path | None,
    ledger: str | None,
    offline: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Do what a configuration says, or only tell what it would cost."""
    from dpkit import jobs

    if out is None or dry_run:
        _show_cost(jobs.dry_run(job_of(name), config, ledger=ledger), as_json=as_json)
    else:
        run_job(name, config, out, ledger=ledger, offline=offline, as_json=as_json)


def schema(
    job: Annotated[
        str,
        typer.Argument(
            metavar="JOB", help="Whose configuration: train, density, classes, synth."
        ),
    ],
    markdown: Annotated[
        bool,
        typer.Option("--markdown", help="The page of the reference, for people."),
    ] = False,
) -> None:
    """The JSON Schema of a job's configuration, for editors that complete TOML."""
    from dpkit.accountants.answers import checks
    from dpkit.jobs import reference

    kind = config_type(checks.one_of(tuple(JOBS), job=job))
    text = reference.markdown(kind, job) if markdown else reference.schema(kind, job)
    typer.echo(text, nl=False)


def run_job(
    name: str,
    config: "JobConfig",
    out: Path,
    *,
    ledger: str | None = None,
    offline: bool = False,
    as_json: bool,
) -> None:
    """Do what a configuration says, and show the outcome.

    Raises:
      typer.Exit: with 1, where an audit found a claim to be wrong.
    """
    from dpkit import jobs

    with shown_progress() as (on_progress, on_message):
        done = jobs.run(
            job_of(name),
            config,
            out,
            ledger=ledger,
            offline=offline,
            on_progress=on_progress,
            on_message=on_message,
        )
    if done.already_finished:
        confirm(f"{done.folder}: this run is already finished; nothing was changed")
    if as_json:
        emit(done.result)
    else:
        facts(_outcome(done))
    if done.result.get("falsified"):
        raise typer.Exit(ExitCode.BUDGET_EXCEEDED)


def declared(path: str | Path, **given: Any) -> "Declaration":
    """The run that a file declares: a declaration, or the configuration of a job.

    Args:
      path: of the file.
      given: `relation`, `unit` and `delta`, as for `dpkit.budget.declaration.read`.

    Example:
      >>> declared("run.toml", delta=1e-6)  # doctest: +SKIP
    """
    from dpkit.budget.declaration import of_event, read

    name = job_of_file(Path(path))
    if name is None:
        return read(path, **given)
    from dpkit import jobs

    config = jobs.load(config_type(name), path)
    cost = jobs.dry_run(job_of(name), config, estimate=False)
    if cost.event is None:
        raise ValueError(f"{path}: this job chooses its releases along the way")
    for text in cost.warnings:
        note(f"dpkit: {path}: {text}")
    run = of_event(cost.event, cost.terms, cost.budget.delta, cost.warnings)
    return run.asked(path, **given)


def job_of_file(path: Path) -> str | None:
    """The job that a file configures; None for a declaration, or no TOML at all.

    Example:
      >>> job_of_file(Path("points.csv")) is None
      True
    """
    import tomllib

    from dpkit.jobs.config import sections_of

    if path.suffix != ".toml" or not path.exists():
        return None
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    if {"events", "dpsgd", "relation"} & set(table):
        return None
    shared = {
        name: len(set(table) & set(sections_of(config_type(name)))) for name in JOBS
    }
    best = max(shared, key=shared.__getitem__)
    return best if shared[best] else None


def config_of(
    name: str,
    source: Path,
    given: dict[str, Any],
    changes: list[str],
    out: Path | None,
    *,
    needed: Mapping[str, str],
    sections: Sequence[str],
    called: str,
    opens: bool = True,
) -> "JobConfig":
    """The configuration: a file's, or one of a file of data; then what was given.

    Paths in it are meant from its folder, which for data is the run's: so that what is
    written there can be run again.

    Args:
      name: of the job.
      source: the configuration, or the data.
      given: settings by "section.key", None where they weren't given; paths as such.
      changes: more of them, as texts.
      out: the run's folder.
      needed: settings that data need, by "section.key", each with a hint.
      sections: that a configuration of data has besides `[data]`.
      called: what the file of data is called in the command.
      opens: whether the data must be there.
    """
    from dpkit.jobs.config import load, to_toml

    own = source.suffix == ".toml"
    folder = source.parent if own else Path() if out is None else out
    text: str | Path = source
    if not own:
        for key, hint in needed.items():
            said = any(word.startswith(f"{key}=") for word in changes)
            if given[key] is None and not said:
                raise ValueError(f"missing option --{key.partition('.')[2]}: {hint}")
        if opens and not source.exists():
            raise ValueError(f"{called}={str(source)!r} doesn't exist")
        data = {"data": {"path": _seen_from(folder, source)}}
        text = to_toml(data | {section: {} for section in sections})
    words = []
    for key, value in given.items():
        if value is not None:
            told = _seen_from(folder, value) if isinstance(value, Path) else value
            words.append(f"{key}={to_toml({'x': told})[4:].strip()}")
    return load(config_type(name), text, [*words, *changes], folder=folder)


def _seen_from(folder: Path, path: Path) -> str:
    """A path as it is meant from a folder."""
    return os.path.relpath(path.resolve(), folder.resolve())


def _found(place: str) -> Any:
    """What `module:name` names."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def _show_cost(cost: "Cost", *, as_json: bool) -> None:
    """Print what a run would cost."""
    from dpkit.cli.bounds import bound_in_words, refuse_uncertified

    if as_json:
        emit(cost.to_json())
    else:
        rows = [] if cost.bound is None else bound_in_words(cost.bound)
        told = [("data set", cost.terms["dataset"])]
        told += [(k.replace("_", " "), shown(k, v)) for k, v in cost.estimate.items()]
        rows += [("warning", text) for text in cost.warnings]
        facts([*rows, *told, ("spent", "nothing: this was a dry run")])
    refuse_uncertified(cost.bound is None or cost.bound.certified)


def shown(name: str, value: Any) -> Any:
    """A number of an estimate, for people.

    Example:
      >>> shown("search_bytes", 34_000_000), shown("seconds", 12.3)
      ('34 MB', 'about 12 s')
    """
    if value is None:
        return None
    if name.endswith("_bytes"):
        return f"{value / 1e6:,.{0 if value >= 1e7 else 1}f} MB"
    return f"about {value:,.0f} s" if name == "seconds" else value


def _outcome(done: "Run") -> list[tuple[str, Any]]:
    """What a finished run prints."""
    from dpkit.jobs.result import guarantee, ledger_total

    told = guarantee(done.result)
    known = [("epsilon", "no claim: nothing was charged")]
    if told is not None:
        known = [*told.facts(), ("in words", told.headline)]
    return [
        *((name, text) for name, text, _ in done.result.get("shown", [])),
        *known,
        ("the whole ledger", ledger_total(done.result)),
        ("run's folder", done.folder),
        ("report", done.folder / "report.html"),
    ]


@contextmanager
def shown_progress() -> Generator[tuple["OnProgress", "Tell"]]:
    """Show a run's progress while the block runs.

    Yields:
      Two callbacks for `dpkit.jobs.run`: one for steps, one for messages.

    Example:
      >>> with shown_progress() as (on_progress, on_message):
      ...     on_message("preparing")
    """
    if is_quiet():
        yield _silent, _silent
        return
    from rich.console import Console

    console = Console(stderr=True, highlight=False, markup=False)
    if not console.is_terminal:
        yield _line, _silent
        return
    with _bar(console) as bar:
        task = bar.add_task("preparing", total=None, figures="", timed=True)
        yield _updates(bar, task), lambda text: console.print(plain(text))


def figures(progress: "Progress") -> str:
    """What the job counts as epsilon so far, and what else may be told, in short.

    Example:
      >>> from types import SimpleNamespace
      >>> figures(SimpleNamespace(counted=1.25, shown=("accuracy 50.00 %",)))
      'epsilon 1.25 so far · accuracy 50.00 %'
    """
    from dpkit.report.words import number

    known = progress.counted
    parts = [] if known is None else [f"epsilon {number(known, side='up')} so far"]
    return " · ".join([*parts, *progress.shown])


def _bar(console: "Console") -> "Bar":
    """Rich's bar: done, steps, figures, time left."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Left(TimeRemainingColumn):
        """The time left, where it may be told."""

        def render(self, task: Task) -> Text:
            return super().render(task) if task.fields["timed"] else Text("")

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        Left(compact=True),
        console=console,
    )


def _updates(bar: "Bar", task: "TaskID") -> "OnProgress":
    """Moves the bar."""
    told = set()

    def update(progress: "Progress") -> None:
        if progress.at not in told:
            told.add(progress.at)
            text = f"epsilon so far is the job's own count, {progress.at}"
            bar.console.print(text)
        bar.update(
            task,
            description=progress.doing,
            completed=progress.done,
            total=progress.total,
            figures=figures(progress),
            timed=progress.timed,
        )

    return update


def _line(progress: "Progress") -> None:
    """Prints a line every so many steps, and for the last one."""
    every = max(1, progress.total // _LINES)
    if progress.done % every and progress.done < progress.total:
        return
    place = f"step {progress.done}/{progress.total}"
    note(f"{place} · {figures(progress)} ({progress.at})")


def _silent(_: Any) -> None:
    """Says nothing."""
