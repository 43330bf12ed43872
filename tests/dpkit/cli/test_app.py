"""The command as a whole: help, version, what it loads, how it is started."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dpkit.cli.app import app

RUN = CliRunner()
LEDGER = (
    "init",
    "spend",
    "show",
    "verify",
    "report",
    "merge",
    "export",
    "import",
    "reserve",
    "commit",
    "abort",
    "remaining",
    "close",
)
COMMANDS = [
    ["demo"],
    ["train"],
    ["budget"],
    ["budget", "epsilon"],
    ["budget", "calibrate"],
    ["budget", "compare"],
    ["budget", "curve"],
    ["budget", "check"],
    ["ledger"],
    *(["ledger", name] for name in LEDGER),
]
HEAVY = (
    "jax",
    "jaxlib",
    "dp_accounting",
    "tensorflow_datasets",
    "matplotlib",
    "numpy",
    "scipy",
    "sqlalchemy",
)


def start(*words, **options):
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "dpkit", *words],
        capture_output=True,
        text=True,
        timeout=120,
        **options,
    )


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help(words):
    done = RUN.invoke(app, [*words, "--help"])
    assert done.exit_code == 0
    assert "Usage: dpkit " + " ".join(words) in done.stdout
    assert done.stderr == ""


def test_help_without_a_command():
    done = RUN.invoke(app, [])
    assert done.exit_code == 0
    for word in ("demo", "train", "budget", "ledger", "Exit codes"):
        assert word in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["train", "--help"],
        ["budget", "check", "--help"],
        ["ledger", "report", "--help"],
    ],
)
def test_help_and_version_load_nothing_heavy(words):
    code = (
        "import sys, dpkit\n"
        "from dpkit.cli import main\n"
        f"sys.argv = ['dpkit', *{words!r}]\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as done:\n"
        "    assert done.code == 0, done.code\n"
        f"loaded = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "print(loaded, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert done.stderr.strip() == "[]"


def test_version_in_a_process():
    done = start("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("dpkit ")
    assert done.stderr == ""


def test_installed_script():
    """As installed; from a bare checkout, what the script would run."""
    script = Path(sys.executable).with_name("dpkit")
    bare = [sys.executable, "-c", "from dpkit.cli import main; main()"]
    command = [str(script)] if script.exists() else bare
    done = subprocess.run([*command, "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout[:6]) == (0, "dpkit ")


@pytest.mark.parametrize(
    "words, named",
    [
        (["nonsense"], "nonsense"),
        (["budget", "nonsense"], "nonsense"),
        (["budget"], "command"),
        (["--nonsense"], "--nonsense"),
        (["demo", "--nonsense"], "--nonsense"),
        (["train"], "CONFIG.toml"),
        (["train", "x.toml"], "--out"),
        (["ledger", "verify"], "LEDGER"),
    ],
)
def test_usage_errors_are_one_line_that_names_the_fault(words, named):
    done = RUN.invoke(app, words)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("dpkit")
    assert named.lower() in done.stderr.lower()


def test_an_error_in_a_process_is_one_line():
    done = start("ledger", "verify", "/nonexistent/ledger.db")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "/nonexistent/ledger.db" in done.stderr


def test_an_interruption_inside_the_garbage_collector_is_not_lost():
    """There JAX has a callback, and Python drops what a callback raises."""
    code = (
        "import gc, signal, sys, time\n"
        "from dpkit.cli import app, main\n"
        # A test run in the background inherits a Ctrl-C that is ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "struck = []\n"
        "def callback(phase, info):\n"
        "    if not struck:\n"
        "        struck.append(phase)\n"
        "        raise KeyboardInterrupt\n"
        "def command():\n"
        "    gc.callbacks.append(callback)\n"
        "    gc.collect()\n"
        "    for _ in range(1000):\n"
        "        time.sleep(0.01)\n"
        "app.app.command('wait')(command)\n"
        "sys.argv = ['dpkit', 'wait']\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 130
    assert done.stderr.startswith("dpkit: interrupted")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["budget", "--help"], id="budget"),
        pytest.param(["--version"], id="version"),
        pytest.param(["ledger", "verify", "{}"], id="ledger", marks=pytest.mark.slow),
    ],
)
def test_a_reader_who_has_seen_enough_is_no_error(tmp_path, words):
    """Exit code 1 would say "budget exceeded"; 141 is what a shell gives SIGPIPE."""
    from dpkit import Budget, Ledger

    path = tmp_path / "ledger.db"
    terms = {"relation": "zero_out", "unit": "example", "dataset": "toy 1.0"}
    Ledger.open(path, budget=Budget(1.0, 1e-5), **terms).close()
    words = [word.format(path) for word in words]
    reader, writer = os.pipe()
    os.close(reader)  # before anything is written
    done = subprocess.run(
        [sys.executable, "-m", "dpkit", *words],
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=60,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")
