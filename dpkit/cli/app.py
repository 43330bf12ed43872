"""The command `dpkit`: its groups, its version, its help."""

from typing import Annotated

import typer

from dpkit.cli import budget, data, density, jobs, ledger, predict, synth, train
from dpkit.cli.errors import Command, Root

app = typer.Typer(
    cls=Root,
    name="dpkit",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo", cls=Command)(train.demo)
app.command("train", cls=Command)(train.train)
app.command("predict", cls=Command)(predict.predict)
app.command("schema", cls=Command)(jobs.schema)
app.add_typer(budget.app, name="budget")
app.add_typer(ledger.app, name="ledger")
app.add_typer(density.app, name="density")
app.add_typer(synth.app, name="synth")
app.add_typer(data.app, name="data")


def version() -> str:
    """The version of the installed distribution.

    Returns:
      The version, or "unknown" where the checkout is used without an installation.

    Example:
      >>> version() != ""
      True
    """
    from importlib import metadata

    try:
        return metadata.version("dpkit-jax")
    except metadata.PackageNotFoundError:
        return "unknown"


def _print_version(asked: bool) -> None:
    """Print the version and stop."""
    if asked:
        typer.echo(f"dpkit {version()}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    asked: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version and stop.",
            callback=_print_version,
            is_eager=True,
        ),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option(
            "--debug", help="Show the traceback of an error; may stand anywhere."
        ),
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet",
            help="Print documents, warnings and errors alone; may stand anywhere.",
        ),
    ] = False,
) -> None:
    """Differential privacy for learning, on one honest ledger.

    Exit codes: 0 done, 1 budget exceeded, 2 bad input, 3 a ledger's integrity is broken, 4 no certified answer, 5 incompatible relation, unit or data set.
    """  # noqa: E501
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())
