"""Every experiment runs in its smallest form, and leaves what it must."""

import dataclasses
import json

import pytest
from typer.testing import CliRunner

from experiments import runner
from experiments.__main__ import app


def called(*words, code=0):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.output


FETCHES = ("tabular",)  # a table, as a package
NAMES = [
    pytest.param(name, marks=[pytest.mark.slow] * (name in FETCHES))
    for name in runner.names()
]


@pytest.mark.parametrize("name", NAMES)
def test_smoke(name, tmp_path):
    printed = called("run", name, "--preset", "smoke", "--out", tmp_path)
    document = json.loads((tmp_path / f"{name}.json").read_text())
    assert document["preset"] == "smoke"
    made = {kind: tmp_path / f"{name}.{kind}" for kind in ("md", "png")}
    before = {kind: path.read_bytes() for kind, path in made.items()}
    assert before["md"].decode().strip() == printed.strip()
    on_disk = {path.name for path in tmp_path.iterdir()}
    ledgers = {ledger["file"] for ledger in document["ledgers"]}
    assert on_disk == {f"{name}.json", *(p.name for p in made.values()), *ledgers}
    for path in made.values():
        path.unlink()
    called("show", name, "--out", tmp_path)
    assert {kind: path.read_bytes() for kind, path in made.items()} == before


@pytest.mark.parametrize("name", runner.names())
def test_presets(name):
    presets = runner.load(name).PRESETS
    assert list(presets) == list(runner.Preset)
    for config in presets.values():
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(config, dataclasses.fields(config)[0].name, None)
