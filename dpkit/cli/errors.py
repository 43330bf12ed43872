"""Exit codes, and how an exception becomes one line and one of them.

A command raises what the library raises. `Command` names the option that was at fault,
`Root` prints one line on standard error and exits. Two options may stand anywhere on
the line: with `--debug` the traceback comes first, `--quiet` is output.py's.
"""

import contextlib
import os
import re
import sys
import traceback
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from dpkit.cli.output import note, plain, quieted

_INTERRUPTED = "dpkit: interrupted; the same command goes on with an unfinished run"


class ExitCode(IntEnum):
    """What a process of dpkit says when it ends.

    1 to 5 are promises to scripts. A fault of our own is kept out of them: it would
    otherwise be 1, Python's code for an exception, and read as a budget exceeded.
    """

    OK = 0
    BUDGET_EXCEEDED = 1
    BAD_INPUT = 2
    LEDGER_BROKEN = 3
    NOT_CERTIFIED = 4
    INCOMPATIBLE = 5
    FAULT = 70
    INTERRUPTED = 130
    # What a shell reports of a program that SIGPIPE ends, as it would end most others.
    UNREAD = 141


class Failed(Exception):
    """A command that ended with a code; its cause is the library's exception."""

    def __init__(self, line: str, code: ExitCode) -> None:
        """Keep the line for the user and the code for the shell."""
        super().__init__(line)
        self.code = code


class Command(TyperCommand):
    """A command whose errors name the command and the option at fault."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except Exception as error:
            code = code_of(error)
            if code is ExitCode.FAULT:
                raise
            option = _option(error, self.params)
            line = f"{ctx.command_path}: {option}{_text(error)}"
            raise Failed(line, code) from error


class Root(TyperGroup):
    """The outermost group: every error leaves here as one line and a code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run one command line and exit."""
        given = list(sys.argv[1:] if args is None else args)
        words = [word for word in given if word not in ("--debug", "--quiet")]
        try:
            with quieted("--quiet" in given):
                code = self._run(
                    debug="--debug" in given,
                    args=words,
                    prog_name=prog_name or "dpkit",
                    complete_var=complete_var,
                    windows_expand_args=windows_expand_args,
                    **extra,
                )
        except (BrokenPipeError, SystemExit) as error:
            # Typer and Rich turn a broken pipe into exit code 1.
            causes = (error, error.__context__)
            if not any(isinstance(cause, BrokenPipeError) for cause in causes):
                raise
            _drop_output()
            code = ExitCode.UNREAD
        sys.exit(code)

    def _run(self, *, debug: bool, **options: Any) -> int:
        """Run one command line; the code to exit with."""
        code: Any = None
        try:
            code = super().main(standalone_mode=False, **options)
        except (KeyboardInterrupt, typer.Abort):
            code = ExitCode.INTERRUPTED
        except BrokenPipeError:
            raise
        # The one place that catches everything: an exception that went on would end
        # the process with 1, which promises "budget exceeded".
        except Exception as error:
            code = _report(error, debug=debug)
        if code == ExitCode.INTERRUPTED:
            note(_INTERRUPTED)
        return code if isinstance(code, int) else ExitCode.OK


def _drop_output() -> None:
    """Sends nowhere what is still to be written to a reader who has gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # a stream that is no file
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def code_of(error: BaseException) -> ExitCode:
    """The exit code of an exception of the library.

    Returns:
      The code; FAULT for an exception that no input should be able to cause.

    Example:
      >>> code_of(ValueError("delta=2: must be below 1"))
      <ExitCode.BAD_INPUT: 2>
    """
    from dpkit.accountants.answers import errors as accounting
    from dpkit.data.errors import DataCorrupt, DataUnavailable

    # In this order: some of ours are ValueErrors too.
    table = {
        accounting.BudgetExceeded: ExitCode.BUDGET_EXCEEDED,
        accounting.LedgerCorrupt: ExitCode.LEDGER_BROKEN,
        accounting.UnsupportedEvent: ExitCode.NOT_CERTIFIED,
        accounting.NotCertified: ExitCode.NOT_CERTIFIED,
        accounting.UnsupportedRelation: ExitCode.INCOMPATIBLE,
        accounting.Incompatible: ExitCode.INCOMPATIBLE,
        (DataCorrupt, DataUnavailable): ExitCode.BAD_INPUT,
        (ValueError, TypeError, OSError): ExitCode.BAD_INPUT,
    }
    for kind, code in table.items():
        if isinstance(error, kind):
            return code
    return ExitCode.FAULT


def _report(error: Exception, *, debug: bool) -> ExitCode:
    """Print the error; the traceback only when asked for."""
    if debug:
        traceback.print_exception(error.__cause__ or error)
    if isinstance(error, Failed):
        note(str(error))
        return error.code
    usage = getattr(error, "format_message", None)
    if usage is not None:
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "dpkit"
        note(f"{path}: {plain(usage())}")
        return ExitCode.BAD_INPUT
    if debug:
        return ExitCode.FAULT
    kind = type(error).__name__
    note(
        f"dpkit: a fault of dpkit itself: {kind}: {plain(str(error))} (run again with"
        " --debug for the traceback, and please report it)"
    )
    return ExitCode.FAULT


def _option(error: Exception, params: Iterable[Any]) -> str:
    """The option that an error speaks about, from a message `name=value: …`."""
    from dpkit.accountants.answers.errors import UnsupportedRelation

    named = re.match(r"(\w+)=", str(error))
    name = named[1] if named else ""
    if isinstance(error, UnsupportedRelation):
        name = "relation"
    for param in params:
        if param.name == name and param.opts[0].startswith("-"):
            return f"{param.opts[0]}: "
    return ""


def _text(error: Exception) -> str:
    """The message on one line; the system's own errors as file and reason."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return plain(f"{error.filename}: {error.strerror}")
    return plain(str(error)) or type(error).__name__
