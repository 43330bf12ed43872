"""`python -m experiments list | run NAME | show NAME`."""

from pathlib import Path
from typing import Annotated

import typer

from experiments import runner

app = typer.Typer(
    help=__doc__,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _known(name: str) -> str:
    """The name, if it is an experiment's."""
    if name not in (known := runner.names()):
        raise typer.BadParameter(f"{name!r} is none of {', '.join(known)}")
    return name


Name = Annotated[str, typer.Argument(help="One of `list`.", callback=_known)]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Where its files are.")]


@app.command("list")
def names() -> None:
    """Every experiment, and what it is about."""
    for name, line in runner.names().items():
        typer.echo(f"{name}: {line}")


@app.command()
def run(
    name: Name,
    preset: Annotated[runner.Preset, typer.Option()] = runner.Preset.quick,
    out: Out = Path("results"),
) -> None:
    """Run an experiment: NAME.json, table NAME.md, plot NAME.png, and its ledgers."""
    typer.echo(runner.run(name, runner.load(name), preset, out))


@app.command()
def show(name: Name, out: Out = Path("results")) -> None:
    """Make the table and the plot again from NAME.json."""
    typer.echo(runner.show(name, runner.load(name), out))


if __name__ == "__main__":
    app(prog_name="python -m experiments")
