"""Each exception of the library leaves as its exit code and one line."""

import errno
import os

import pytest
import typer
from typer.testing import CliRunner

from dpkit.accountants.answers import errors as accounting
from dpkit.accountants.answers.bounds import Budget
from dpkit.cli.errors import Command, ExitCode, Root, code_of
from dpkit.data.errors import DataCorrupt, DataUnavailable

CASES = [
    (accounting.BudgetExceeded(1.0, 2.5, Budget(3.0, 1e-5)), 1),
    (ValueError("delta=2.0 must be in (0, 1)"), 2),
    (TypeError("delta=True (bool) must be a number"), 2),
    (DataUnavailable("name='mnist': not in the cache"), 2),
    (DataCorrupt("the hash differs"), 2),
    (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "ledger.db"), 2),
    (FileNotFoundError(errno.ENOENT, "No such file or directory", "a.toml"), 2),
    (TimeoutError("locked by another process"), 2),
    (accounting.LedgerCorrupt("entry seq=3: its text and its hash differ"), 3),
    (accounting.UnsupportedEvent("pld", "ZCDpEvent(rho=1.0)", "use rdp"), 4),
    (accounting.NotCertified("delta=1e-12 is too small"), 4),
    (accounting.Incompatible("unit='user' but the ledger counts 'example'"), 5),
    (accounting.UnsupportedRelation("rdp", "replace_one", "Poisson"), 5),
    (RuntimeError("a surprise"), 70),
    (KeyError("a surprise"), 70),
]


def command(error):
    """A command line whose only command raises."""
    app = typer.Typer(cls=Root, name="dpkit")

    @app.callback()
    def root() -> None:
        """Nothing."""

    @app.command(cls=Command)
    def go(delta: float = 0.1, relation: str = "") -> None:
        """Raise."""
        raise error

    return app


@pytest.mark.parametrize(
    "error, code", CASES, ids=[f"{type(e).__name__}-{c}" for e, c in CASES]
)
def test_code_and_one_line(error, code):
    assert code_of(error) == code
    done = CliRunner().invoke(command(error), ["go"])
    assert done.exit_code == code
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_the_codes_are_the_promised_ones():
    promised = {
        "OK": 0,
        "BUDGET_EXCEEDED": 1,
        "BAD_INPUT": 2,
        "LEDGER_BROKEN": 3,
        "NOT_CERTIFIED": 4,
        "INCOMPATIBLE": 5,
    }
    assert {name: ExitCode[name].value for name in promised} == promised


def test_a_broken_pipe_is_quiet():
    done = CliRunner().invoke(command(BrokenPipeError(errno.EPIPE, "x")), ["go"])
    assert done.exit_code == ExitCode.UNREAD == 141
    assert done.stderr == ""


def test_subclasses_keep_their_code():
    class Special(accounting.Incompatible):
        pass

    assert code_of(Special("x")) == 5


@pytest.mark.parametrize(
    "error, option",
    [
        (ValueError("delta=2.0 must be in (0, 1)"), "--delta: delta=2.0"),
        (accounting.UnsupportedRelation("rdp", "zero_out", "X"), "--relation: rdp:"),
        (ValueError("nothing=1 is wrong"), "dpkit go: nothing=1 is wrong"),
    ],
)
def test_the_option_is_named(error, option):
    done = CliRunner().invoke(command(error), ["go"])
    assert option in done.stderr


def test_many_lines_and_control_characters_become_one_plain_line():
    done = CliRunner().invoke(command(ValueError("a\n\n b\x1b[31m")), ["go"])
    assert done.stderr == "dpkit go: a b\\x1b[31m\n"


def test_a_system_error_names_the_file_and_the_reason():
    error = OSError(errno.ENOSPC, "No space left on device", "runs/ledger.db")
    done = CliRunner().invoke(command(error), ["go"])
    assert done.stderr == "dpkit go: runs/ledger.db: No space left on device\n"


@pytest.mark.parametrize("words", [["--debug", "go"], ["go", "--debug"]])
@pytest.mark.parametrize("error, code", [CASES[1], CASES[-1]])
def test_debug_shows_the_traceback_and_keeps_the_code(words, error, code):
    done = CliRunner().invoke(command(error), words)
    assert done.exit_code == code
    assert "Traceback" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("error", [KeyboardInterrupt(), typer.Abort()])
def test_interruption_is_not_a_budget_exceeded(error):
    done = CliRunner().invoke(command(error), ["go"])
    assert done.exit_code == 130
    assert done.stderr.startswith("dpkit: interrupted")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("code", [0, 3])
def test_an_explicit_exit_keeps_its_code(code):
    assert CliRunner().invoke(command(typer.Exit(code)), ["go"]).exit_code == code
