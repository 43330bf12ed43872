"""Progress of a run, on standard error: a bar on a terminal, else twenty lines or so.

Nothing here is private: steps, the epsilon of the steps so far, the accuracy on public
rows, and a speed that is computed from the expected batch size; no speed where the time
of a step depends on the realised batch.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dpkit.cli.output import is_quiet, note, plain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from dpkit.training import Progress

OnProgress = Callable[["Progress"], None]
OnMessage = Callable[[str], None]

_LINES = 20  # of a run that nobody watches on a terminal


@contextmanager
def shown_progress(
    title: str, *, timed: bool = True
) -> Generator[tuple[OnProgress, OnMessage]]:
    """Show a run's progress while the block runs.

    Args:
      title: what epsilon is meant at: delta, relation and unit.
      timed: whether speed and time left may be shown.

    Yields:
      Two callbacks for `dpkit.training.run`: one for steps, one for messages.

    Example:
      >>> with shown_progress("at delta 1e-05") as (on_progress, on_message):
      ...     on_message("preparing")
    """
    if is_quiet():
        yield _silent, _silent
        return
    from rich.console import Console

    console = Console(stderr=True, highlight=False, markup=False)
    if not console.is_terminal:
        yield _lines(title, timed), _silent
        return
    console.print(f"epsilon is the certified one of the steps so far, {title}")
    with _bar(console, timed) as bar:
        task = bar.add_task("preparing", total=None, figures="")
        yield _updates(bar, task, timed), lambda text: console.print(plain(text))


def figures(progress: "Progress", *, timed: bool = True) -> str:
    """Epsilon, accuracy when known, and speed, as one short text.

    Args:
      progress: where the run stands.
      timed: whether the speed may be shown.

    Returns:
      The text.

    Example:
      >>> from types import SimpleNamespace
      >>> figures(SimpleNamespace(
      ...     epsilon=1.25, test_accuracy=0.5, examples_per_second=1234.5))
      'epsilon 1.25 · accuracy 50.00 % · 1,234/s'
    """
    from dpkit.report.words import number

    parts = [f"epsilon {number(progress.epsilon, side='up')}"]
    if progress.test_accuracy is not None:
        parts.append(f"accuracy {100 * progress.test_accuracy:.2f} %")
    if timed:
        parts.append(f"{progress.examples_per_second:,.0f}/s")
    return " · ".join(parts)


def _bar(console: "Console", timed: bool) -> "Bar":
    """Rich's bar: done, steps, figures, time left."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        *([TimeRemainingColumn(compact=True)] if timed else []),
        console=console,
    )


def _updates(bar: "Bar", task: "TaskID", timed: bool) -> OnProgress:
    """Moves the bar."""

    def update(progress: "Progress") -> None:
        bar.update(
            task,
            description="training",
            completed=progress.step,
            total=progress.steps,
            figures=figures(progress, timed=timed),
        )

    return update


def _lines(title: str, timed: bool) -> OnProgress:
    """Prints a line every so many steps, and for the last one."""

    def update(progress: "Progress") -> None:
        every = max(1, progress.steps // _LINES)
        if progress.step % every and progress.step < progress.steps:
            return
        shown = figures(progress, timed=timed)
        note(f"step {progress.step}/{progress.steps} · {shown} ({title})")

    return update


def _silent(_: Any) -> None:
    """Says nothing."""
