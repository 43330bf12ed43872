"""What a run of any experiment keeps, shown on one that spends a budget."""

import dataclasses
import json
from types import SimpleNamespace
from typing import Any

import pytest

from dpkit.accountants import Budget, Ledger, PureDpEvent
from experiments import runner
from tests.experiments.test_smoke import called


@dataclasses.dataclass(frozen=True)
class Config:
    charge: float = 0.25
    seeds: tuple[int, ...] = (3, 4)


def spend(config, ledgers):
    terms = dict(relation="add_remove", unit="example", dataset="toy 1.0")
    for part in ("", "half"):
        ledger = ledgers.open(part, budget=Budget(1.0, 0.0), **terms)
        ledger.charge(PureDpEvent(config.charge), label="look")
    if config.charge == 0.5:
        raise RuntimeError("broken on the way")
    return {"seen": list(config.seeds)}


def plot(document, figure):
    figure.subplots().plot(document["metrics"]["seen"])


TOY: Any = SimpleNamespace(
    __doc__="A toy.\n\nIt claims nothing.\n",
    PRESETS={"quick": Config(), "paper": Config(charge=0.5)},
    run=spend,
    table=lambda document: f"| seen | {document['metrics']['seen']} |",
    plot=plot,
)


def test_a_run_keeps_its_figures_and_its_ledgers(tmp_path):
    page = runner.run("toy", TOY, "quick", tmp_path)
    document = json.loads((tmp_path / "toy.json").read_text())
    assert document["config"] == {"charge": 0.25, "seeds": [3, 4]}
    assert document["seeds"] == document["metrics"]["seen"] == [3, 4]
    assert {"jax", "numpy", "scipy", "dpkit-jax"} <= set(document["versions"])
    assert document["wall_seconds"] >= 0
    assert page.startswith("# A toy\n\nIt claims nothing.\n\n| seen | [3, 4] |")
    assert "run toy --preset quick\n" in page
    files = ["toy.ledger.db", "toy.half.ledger.db"]
    assert [told["file"] for told in document["ledgers"]] == files
    for told in document["ledgers"]:
        with Ledger.open(tmp_path / told["file"]) as ledger:
            ledger.verify(recount=True)
            assert ledger.head == told["head"]
            assert ledger.spent().upper == told["spent"]["upper"] == 0.25
            assert any("protects nobody" in str(e) for e in ledger.entries())


def test_a_failed_run_leaves_an_earlier_one_whole(tmp_path):
    runner.run("toy", TOY, "quick", tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(RuntimeError, match="broken on the way"):
        runner.run("toy", TOY, "paper", tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_new_run_takes_the_ledgers_of_an_earlier_one_away(tmp_path):
    (tmp_path / "toy.old.ledger.db").write_text("")
    (tmp_path / "toys.ledger.db").write_text("another experiment's")
    runner.run("toy", TOY, "quick", tmp_path)
    assert not (tmp_path / "toy.old.ledger.db").exists()
    assert (tmp_path / "toys.ledger.db").exists()


def test_helpers_are_no_experiments():
    assert not {"runner", "__main__", "__init__"} & set(runner.names())
    assert "edgeworth: How much noise" in called("list")


@pytest.mark.parametrize(
    "words",
    [("run", "nothing"), ("show", "nothing"), ("run", "edgeworth", "--preset", "no")],
)
def test_bad_words_end_with_two(words, tmp_path):
    called(*words, "--out", tmp_path, code=2)
    assert not any(tmp_path.iterdir())
