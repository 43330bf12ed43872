"""docs/cli.md: its files are declarations, and its commands run as they stand."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dpkit.budget.declaration import read
from dpkit.cli.app import app

RUN = CliRunner()
TEXT = (Path(__file__).parents[3] / "docs" / "cli.md").read_text()
FILES = re.findall(r"```toml\n(.*?)```", TEXT, flags=re.DOTALL)
COMMANDS = [
    re.split(r"\s{2,}", line)[0].removeprefix("dpkit ")
    for line in re.findall(r"^    (dpkit .*)$", TEXT, flags=re.MULTILINE)
]
STEP = '{"kind": "gaussian", "noise_multiplier": 40}'


@pytest.mark.parametrize("text", FILES, ids=range(len(FILES)))
def test_the_files(tmp_path, text):
    path = tmp_path / "run.toml"
    path.write_text(text)
    assert read(path).delta == 1e-5


def budget_commands():
    """The commands on budgets; those that solve by an attack take a while."""
    for line in COMMANDS:
        if line.startswith("budget"):
            long = "--advantage" in line or "--tpr" in line or "--peers" in line
            marks = [pytest.mark.slow] if long or "curve" in line else []
            marks += [pytest.mark.guard] if "curve" in line else []
            yield pytest.param(line, marks=marks)


@pytest.mark.parametrize("line", list(budget_commands()))
def test_the_budget_commands(tmp_path, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    Path("run.toml").write_text(FILES[1])
    done = RUN.invoke(app, shlex.split(line))
    assert done.exit_code == 0, done.stderr


def test_the_ledger_commands_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("step.json").write_text(STEP)
    for line in [c for c in COMMANDS if c.startswith("ledger")]:
        for part in line.replace("show | verify | report | close", "show").split(";"):
            words = shlex.split(part.replace("dpkit ", ""))
            if words[1] == "abort":  # it was committed
                continue
            if words[1] == "merge":
                other = "init b.db --epsilon 1 --delta 0 --relation add_remove"
                RUN.invoke(app, ["ledger", *other.split(), "--unit", "user"])
            done = RUN.invoke(app, words)
            assert done.exit_code == 0, (part, done.stderr)
    assert Path("all.db").exists()
