"""Every command and example of the README is real, and runs."""

import dataclasses
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from dpkit import data as data_package
from dpkit.data import loading
from dpkit.training import trainer

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
CODE = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [line.strip() for line in README.splitlines() if line.startswith("    ")]
pytestmark = pytest.mark.usefixtures("quick_compilation")


def small_mnist(split):
    """Digits in MNIST's shape: the examples run on them in seconds."""
    arrays = loading.load_arrays("digits", split)
    image = np.pad(
        np.kron(arrays["image"], np.ones((1, 3, 3, 1), np.uint8)) * 15,
        ((0, 0), (2, 2), (2, 2), (0, 0)),
    )
    return {"image": image.astype(np.uint8), "label": np.asarray(arrays["label"])}


def take_eight(make, execution, *given):
    return dataclasses.replace(execution, microbatch_size=8)


class SmallMnist:
    def arrays(self, split):
        return small_mnist(split)


@pytest.mark.slow
@pytest.mark.guard
@pytest.mark.parametrize("number", range(len(CODE)))
def test_examples_run(number, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data_package, "load", lambda name, **kw: SmallMnist())
    monkeypatch.setattr(
        data_package, "load_arrays", lambda name, split, **kw: small_mnist(split)
    )
    monkeypatch.setattr(trainer, "choose_microbatch", take_eight)
    code = CODE[number]
    # The same run, made short: fewer and smaller batches, and a smaller network in
    # the example that does not write its own.
    code = code.replace('build("cnn"', 'build("linear"')
    for old, new in [
        ("epochs=30", "steps=2"),
        ("expected_batch_size=2048", "expected_batch_size=32"),
    ]:
        assert old in code
        code = code.replace(old, new)
    exec(compile(code, f"README example {number}", "exec"), {"__name__": "example"})
    spent = float(capsys.readouterr().out.split()[-1])
    assert 2.9 < spent <= 3.0
    assert len(list(tmp_path.glob("*.db"))) == 1


def test_both_examples_are_there_and_short():
    assert len(CODE) == 2
    lines = [[x for x in code.splitlines() if x.strip()] for code in CODE]
    assert len(lines[0]) <= 16
    assert len(lines[1]) <= 34


def make_targets():
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))


def test_make_commands_exist():
    named = set(re.findall(r"`?make ([a-z-]+)", README))
    assert {"demo", "test", "install"} <= named <= make_targets()


def _bring_adult(folder):
    """The documented configuration and schema, for a few steps on some of the rows."""
    text = (ROOT / "docs" / "configs" / "adult.toml").read_text()
    assert "epochs = 20" in text
    (folder / "adult.toml").write_text(text.replace("epochs = 20", "steps = 3"))
    schema = (ROOT / "docs" / "configs" / "adult.schema.json").read_text()
    (folder / "adult.schema.json").write_text(schema)
    rows = {"train.csv": "train", "test.csv": "test", "new.csv": "test"}
    for name, part in rows.items():
        text = (ROOT / "tests" / "excerpts" / f"adult_{part}.csv").read_text()
        (folder / name).write_text(text)


def _bring_places(folder):
    """Points within the domain of README's release, and a few places to ask at."""
    places = np.random.default_rng(0).uniform(0, 9, (300, 2))
    for name, rows in (("points", places), ("queries", places[:5])):
        np.savetxt(
            folder / f"{name}.csv", rows, delimiter=",", header="x,y", comments=""
        )


def _bring_people(folder):
    """A table of people, and what is publicly known of it."""
    generator = np.random.default_rng(1)
    sexes, ages = (
        generator.choice(["Female", "Male"], 300),
        generator.integers(0, 9, 300),
    )
    rows = [f"{sex},{age}" for sex, age in zip(sexes, ages, strict=True)]
    (folder / "people.csv").write_text("\n".join(["sex,age", *rows]) + "\n")
    schema = {
        "sex": {"kind": "categorical", "categories": ["Female", "Male"]},
        "age": {"kind": "ordinal", "low": 0, "high": 9},
    }
    (folder / "people.json").write_text(json.dumps(schema))


@pytest.mark.slow
@pytest.mark.guard
def test_dpkit_commands_run(tmp_path, monkeypatch):
    from dpkit.cli.app import app

    monkeypatch.setattr(trainer, "choose_microbatch", take_eight)
    monkeypatch.chdir(tmp_path)
    _bring_adult(tmp_path)
    _bring_places(tmp_path)
    _bring_people(tmp_path)
    ran = set()
    for command in COMMANDS:
        if not command.startswith("dpkit "):
            continue
        arguments = shlex.split(command)[1:]
        if arguments[:2] == ["train", "my.toml"]:
            # The configuration that was copied out, on a data set that needs no
            # network and for a few steps.
            text = (tmp_path / "my.toml").read_text()
            for old, new in [
                (r'name = "mnist"', 'name = "digits"'),
                (r'name = "cnn"', 'name = "linear"'),
                (r"epochs = \S+", "steps = 3"),
                (r"expected_batch_size = \S+", "expected_batch_size = 100"),
            ]:
                text, found = re.subn(old, new, text)
                assert found == 1
            (tmp_path / "my.toml").write_text(text)
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, (command, result.output)
        alone = arguments[0] in ("train", "predict")
        ran.add(arguments[0] if alone else " ".join(arguments[:2]))
    assert ran == {
        "demo --write-config",
        "train",
        "predict",
        "data check",
        "density build",
        "density query",
        "synth fit",
        "synth sample",
        "ledger init",
        "ledger show",
        "ledger verify",
        "budget epsilon",
        "budget calibrate",
    }


def test_links_lead_somewhere():
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / link).exists(), link


def test_the_accounting_page_runs(capsys):
    text = (ROOT / "docs" / "accounting.md").read_text()
    scope = {"__name__": "example"}
    for code in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(compile(code, "docs/accounting.md", "exec"), scope)
    upper, advantage, recognised, noise, *sweep = map(
        float, capsys.readouterr().out.split()
    )
    assert 6.187 < upper < 6.189
    assert 0.4 < advantage < 0.5
    assert 0.1 < recognised < 0.2
    assert 3.812 < noise < 3.814
    assert 1.5 < sweep[0] < sum(sweep[:2]) and sweep[1] < sweep[0]


def test_pages_link_to_what_is_there():
    for page in (ROOT / "docs").rglob("*.md"):
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in link:
                assert (page.parent / link).exists(), (page, link)
