"""Several runs on one ledger: each shows its own cost, and what all of them spent."""

import dataclasses
import json
import subprocess
import sys
from typing import Any

import pytest

from dpkit import Budget, BudgetExceeded, Ledger, epsilon
from dpkit.accountants import PureDpEvent
from dpkit.accountants.answers.errors import Incompatible
from dpkit.jobs import dry_run, load, run
from dpkit.training.job import TRAINING
from tests.dpkit.jobs import toy
from tests.dpkit.jobs.test_lifecycle import TOY, TRAIN

pytestmark = pytest.mark.usefixtures("quick_compilation", "no_curves")
TERMS: dict[str, Any] = {
    "relation": "add_remove",
    "unit": "example",
    "dataset": "digits 1.0.0",
}
# Small enough for ten, if they share; a plan takes all of the delta.
SMALL = TRAIN.replace("noise_multiplier = 2.0", "epsilon = 0.3").replace("1e-4", "1e-5")


def team(where, **changes) -> Any:
    terms: dict[str, Any] = {"budget": Budget(3.0, 1e-5), **TERMS, **changes}
    return Ledger.open(where, **terms)


def trained(tmp_path, name, where, text=SMALL):
    config = load(TRAINING.config, text)
    return run(TRAINING, config, tmp_path / name, ledger=where).result


def test_runs_share_a_ledger_and_each_shows_its_own_cost(tmp_path):
    where = tmp_path / "team.db"
    team(where).close()
    for number in range(3):
        result = trained(tmp_path, str(number), where)
        assert 0.29 < result["epsilon"] <= 0.3
        assert (result["delta"], result["certified"]) == (1e-5, True)
        assert result["ledger_spent"]["others"] == number
    with team(where) as ledger:
        ledger.verify(recount=True)
        whole = ledger.spent().upper
        assert {e.body["counted"] for e in ledger.entries() if "cost" in e.body} == {
            "renyi"
        }
    assert result["ledger_spent"] == {
        "epsilon": whole,
        "delta": 1e-5,
        "budget": {"epsilon": 3.0, "delta": 1e-5},
        "others": 2,
    }
    assert 0.3 < whole < 1.0
    page = (tmp_path / "2" / "report.html").read_text()
    assert "By itself this run cost epsilon ≤ 0.3 at delta = 1e-5" in page
    assert "with 2 charges beside this run" in page
    assert "shared" not in (tmp_path / "0" / "report.html").read_text()


def test_a_run_takes_its_share_at_most_and_states_it_there(tmp_path):
    where = tmp_path / "team.db"
    team(where).close()
    part = "[ledger]\nshare = {{ epsilon = {}, delta = {} }}\n" + SMALL
    with pytest.raises(BudgetExceeded, match=r"ledger\.share"):
        trained(tmp_path, "much", where, part.format(0.31, 1e-6))
    result = trained(tmp_path, "fits", where, part.format(0.5, 1e-6))
    assert 0.3 < result["epsilon"] <= 0.5
    assert result["delta"] == 1e-6
    event = TRAINING.prepare(
        load(TRAINING.config, SMALL), offline=True, tell=None
    ).cost()
    assert result["epsilon"] == epsilon(event, 1e-6, relation="add_remove").upper


def test_where_plans_are_counted_each_takes_its_own_delta(tmp_path):
    where = tmp_path / "team.db"
    team(where, filter="approx", budget=Budget(1.0, 2e-5)).close()
    for name in "ab":
        assert 0.29 < trained(tmp_path, name, where)["epsilon"] <= 0.3
    with pytest.raises(BudgetExceeded, match="delta=0 is left"):
        trained(tmp_path, "c", where)


def test_a_run_made_for_all_of_its_own_ledger_still_fits(tmp_path):
    config = load(TRAINING.config, SMALL.replace("0.3", "3.0"))
    result = run(TRAINING, config, tmp_path / "own").result
    assert 2.95 < result["epsilon"] <= 3.0
    assert result["ledger_spent"]["others"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [pytest.param("sqlite", marks=pytest.mark.guard), "postgresql"]
)
def test_three_terminals_at_once(tmp_path, kind, request):
    where = str(tmp_path / "team.db")
    if kind == "postgresql":
        where = request.getfixturevalue("postgres").url()
    team(where).close()
    (tmp_path / "my.toml").write_text(SMALL)
    command = [sys.executable, "-m", "dpkit", "train", str(tmp_path / "my.toml")]
    command += ["--ledger", where, "--json", "--out"]
    runs = [
        subprocess.Popen([*command, str(tmp_path / name)], stdout=subprocess.PIPE)
        for name in "abc"
    ]
    results = [json.loads(each.communicate()[0]) for each in runs]
    assert [each.returncode for each in runs] == [0, 0, 0]
    assert all(0.29 < result["epsilon"] <= 0.3 for result in results)
    with team(where) as ledger:
        ledger.verify(recount=True)
        kinds = [entry.kind for entry in ledger.entries()]
        assert kinds.count("reserve") == kinds.count("commit") == 3
        assert 0.3 < ledger.spent().upper < 1.0


# Names -------------------------------------------------------------------------


@dataclasses.dataclass
class Unnamed(toy.Job):
    """A job whose configuration doesn't name its data."""

    names: bool = False

    def prepare(self, config, **how):
        prepared = super().prepare(config, **how)
        prepared.names_data = self.names
        return prepared


def toy_ledger(where, **changes):
    terms: dict[str, Any] = {
        **TERMS,
        "dataset": "what the team calls it",
        "budget": Budget(9.0, 0.0),
    }
    return Ledger.open(where, **{**terms, **changes})


@pytest.mark.parametrize("form", ["file", "url"])
def test_data_without_a_name_take_the_ledgers(tmp_path, form):
    where = tmp_path / "team.db"
    toy_ledger(where).close()
    named = where if form == "file" else f"sqlite:///{where}"
    config = load(toy.Config, TOY)
    told = dry_run(Unnamed(), config, ledger=named)
    done = run(Unnamed(), config, tmp_path / "run", ledger=named)
    assert (
        told.to_json()["dataset"] == done.result["dataset"] == "what the team calls it"
    )
    for ask in (dry_run, lambda a, b, **how: run(a, b, tmp_path / "other", **how)):
        with pytest.raises(Incompatible, match="dataset='toy'"):
            ask(Unnamed(names=True), config, ledger=named)
    assert not (tmp_path / "other").exists()


def test_a_ledger_of_its_own_takes_the_jobs_name(tmp_path):
    config = load(toy.Config, TOY)
    done = run(Unnamed(), config, tmp_path / "run")
    assert (
        done.result["dataset"] == dry_run(Unnamed(), config).terms["dataset"] == "toy"
    )
    missing = dry_run(Unnamed(), config, ledger=tmp_path / "nowhere.db")
    assert missing.terms["dataset"] == "toy"


def test_who_charges_stands_in_the_ledger_and_changes_no_run(tmp_path):
    where = tmp_path / "team.db"
    toy_ledger(where, dataset="toy").close()
    by = TOY + '[ledger]\nauthor = "{}"\n'
    done = run(
        toy.Job(), load(toy.Config, by.format("Ann")), tmp_path / "a", ledger=where
    )
    with toy_ledger(where, dataset=None, author="Bo") as ledger:
        ledger.charge(PureDpEvent(0.5), label="by hand", provenance={"why": "a look"})
        told = [e.body["provenance"] for e in ledger.entries()[1:]]
    assert told[0]["author"] == "Ann"
    assert told[0]["run_id"] == done.result["run_id"]
    assert told[1] == {"author": "Bo", "why": "a look"}
    again = run(
        toy.Job(), load(toy.Config, by.format("Cy")), tmp_path / "a", ledger=where
    )
    assert again.already_finished


@pytest.mark.parametrize("author", ["", "two\nlines", "x" * 2000])
def test_an_author_is_one_line(author, tmp_path):
    with pytest.raises(ValueError, match="author"):
        toy_ledger(tmp_path / "new.db", author=author)
    assert not (tmp_path / "new.db").exists()
