"""Progress of a run, on standard error: a bar on a terminal, else a line a score.

Nothing here is private: steps, the epsilon of the steps so far, the accuracy on public
rows, and a speed that is computed from the expected batch size.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dpkit.cli.output import note, plain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from dpkit.training import Progress

OnProgress = Callable[["Progress"], None]
OnMessage = Callable[[str], None]


@contextmanager
def shown_progress(title: str) -> Generator[tuple[OnProgress, OnMessage]]:
    """Show a run's progress while the block runs.

    Args:
      title: what epsilon is meant at: delta, relation and unit.

    Yields:
      Two callbacks for `dpkit.training.run`: one for steps, one for messages.

    Example:
      >>> with shown_progress("at delta 1e-05") as (on_progress, on_message):
      ...     on_message("preparing")
    """
    from rich.console import Console

    console = Console(stderr=True, highlight=False, markup=False)
    if not console.is_terminal:
        yield _lines(title), _silent
        return
    console.print(f"epsilon is the certified one of the steps so far, {title}")
    with _bar(console) as bar:
        task = bar.add_task("preparing", total=None, figures="")
        yield _updates(bar, task), lambda text: console.print(plain(text))


def figures(progress: "Progress") -> str:
    """Epsilon, accuracy when known, and speed, as one short text.

    Args:
      progress: where the run stands.

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
    parts.append(f"{progress.examples_per_second:,.0f}/s")
    return " · ".join(parts)


def _bar(console: "Console") -> "Bar":
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
        TimeRemainingColumn(compact=True),
        console=console,
    )


def _updates(bar: "Bar", task: "TaskID") -> OnProgress:
    """Moves the bar."""

    def update(progress: "Progress") -> None:
        bar.update(
            task,
            description="training",
            completed=progress.step,
            total=progress.steps,
            figures=figures(progress),
        )

    return update


def _lines(title: str) -> OnProgress:
    """Prints a line whenever there is a new score."""
    last: list[float | None] = [None]

    def update(progress: "Progress") -> None:
        score = progress.test_accuracy
        if score is None or score == last[0]:
            return
        last[0] = score
        note(f"step {progress.step}/{progress.steps} · {figures(progress)} ({title})")

    return update


def _silent(text: str) -> None:
    """Says nothing."""
