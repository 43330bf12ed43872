"""`ledger show` and `ledger verify` on real files: whole, edited, cut, foreign."""

import json
import shlex
import shutil
import sqlite3

import pytest
from dp_accounting import GaussianDpEvent
from typer.testing import CliRunner

from dpkit.accountants import Budget, Ledger, PureDpEvent
from dpkit.cli.app import app

RUN = CliRunner()
LABEL = "[red]first[/red] look"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A ledger with a charge and a committed reservation, made once."""
    path = tmp_path_factory.mktemp("ledger") / "ledger.db"
    terms = {"relation": "add_remove", "unit": "user", "dataset": "toy 1.0"}
    with Ledger.open(path, budget=Budget(1.0, 1e-5), **terms) as ledger:
        ledger.charge(PureDpEvent(0.25), label=LABEL)
        with ledger.reserve(GaussianDpEvent(20.0), count=2, label="train") as grant:
            grant.commit(2)
        facts = {"head": ledger.head, "upper": ledger.spent().upper}
    return path, facts


@pytest.fixture
def ledger(made, tmp_path):
    return shutil.copy(made[0], tmp_path / "ledger.db")


def call(command, path, *more):
    return RUN.invoke(app, ["ledger", command, str(path), *more])


def test_show_json(made, ledger):
    done = call("show", ledger, "--json")
    assert done.exit_code == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["schema_version"] == 1
    assert answer["budget"] == {"epsilon": 1.0, "delta": 1e-5}
    assert (answer["relation"], answer["unit"]) == ("add_remove", "user")
    assert answer["dataset"] == "toy 1.0"
    assert answer["head"] == made[1]["head"] == answer["entries"][-1]["hash"]
    kinds = [entry["kind"] for entry in answer["entries"]]
    assert kinds == ["genesis", "spend", "reserve", "commit"]
    spent = answer["spent"]
    assert spent["upper"] == made[1]["upper"]
    assert 0.25 < spent["upper"] <= 1.0
    assert spent["certified"] is True
    assert {"delta", "lower", "estimate", "method_upper", "regime"} < set(spent)
    assert (spent["relation"], spent["unit"]) == ("add_remove", "user")


def test_show_text_names_everything(made, ledger):
    done = call("show", ledger)
    for part in (
        "add_remove",
        "user",
        "toy 1.0",
        made[1]["head"],
        "1e-05",
        "certified",
        "adaptive",
        "reserve",
        "train",
        "pure(epsilon 0.25)",
    ):
        assert part in done.stdout, part
    assert LABEL in done.stdout
    assert "estimate" not in done.stdout


def test_verify(made, ledger):
    done = call("verify", ledger)
    assert done.exit_code == 0
    assert "verified" in done.stdout
    assert made[1]["head"] in done.stdout
    machine = json.loads(call("verify", ledger, "--recount", "--json").stdout)
    assert machine["verified"] is True
    assert machine["entries"] == 4
    assert machine["head"] == made[1]["head"]


@pytest.mark.parametrize("command", ["show", "verify"])
def test_looking_changes_nothing(ledger, command):
    before = ledger.read_bytes()
    assert call(command, ledger).exit_code == 0
    assert ledger.read_bytes() == before
    assert [path.name for path in ledger.parent.iterdir()] == ["ledger.db"]


@pytest.mark.parametrize("command", ["show", "verify"])
def test_a_runs_folder_stands_for_its_ledger(ledger, command):
    assert call(command, ledger.parent).exit_code == 0


@pytest.mark.parametrize("command", ["show", "verify"])
def test_a_url_is_taken(ledger, command):
    assert call(command, f"sqlite:///{ledger}").exit_code == 0


def edit(path, statement):
    """Change the file behind the ledger's back."""
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET entry = replace(entry, '0.25', '0.01')",
        "UPDATE entries SET hash = replace(hash, 'a', 'b')",
        "DELETE FROM entries WHERE seq = 1",
        "DELETE FROM entries WHERE seq = 3",
        "UPDATE meta SET value = 'x' WHERE name = 'head'",
    ],
)
def test_an_edit_is_exit_code_three(ledger, statement):
    edit(ledger, statement)
    for words in ([], ["--json"]):
        done = call("verify", ledger, *words)
        assert done.exit_code == 3
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("kept", [0, 10, 3000])
def test_a_cut_file_is_exit_code_three(ledger, kept):
    ledger.write_bytes(ledger.read_bytes()[:kept])
    done = call("verify", ledger)
    assert done.exit_code == 3
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["show", "verify"])
def test_a_missing_ledger_is_not_created(tmp_path, command):
    path = tmp_path / "none.db"
    done = call(command, path)
    assert done.exit_code == 2
    assert "none.db" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_file_is_no_whole_ledger(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("not a ledger at all")
    done = call("verify", path)
    assert done.exit_code == 3
    assert done.stdout == ""


def test_an_unlimited_budget_is_json(tmp_path):
    terms = {"relation": "zero_out", "unit": "example", "dataset": "toy 1.0"}
    budget = Budget(float("inf"), 1e-5)
    Ledger.open(tmp_path / "a.db", budget=budget, **terms).close()
    answer = json.loads(call("show", tmp_path / "a.db", "--json").stdout)
    assert answer["budget"]["epsilon"] == "inf"
    assert answer["spent"]["upper"] == 0


def test_checkpoints_share_a_row(tmp_path):
    path = tmp_path / "a.db"
    terms = {"relation": "zero_out", "unit": "example", "dataset": "toy 1.0"}
    with Ledger.open(path, budget=Budget(1.0, 1e-5), **terms) as ledger:
        with ledger.reserve(GaussianDpEvent(50.0), count=9, label="train") as grant:
            for step in (3, 6, 9):
                grant.checkpoint(step)
            grant.commit(9)
    text = call("show", path).stdout
    assert text.count("checkpoint") == 1
    assert "2-4" in text
    assert "step 9" in text
    entries = json.loads(call("show", path, "--json").stdout)["entries"]
    assert [e["kind"] for e in entries].count("checkpoint") == 3


def test_a_known_seed_is_marked(tmp_path):
    path = tmp_path / "a.db"
    terms = {"relation": "zero_out", "unit": "example", "dataset": "toy 1.0"}
    event = GaussianDpEvent(50.0)
    with Ledger.open(path, budget=Budget(1.0, 1e-5), **terms) as ledger:
        ledger.reserve(event, label="good", delta=1e-6, provenance={"run_id": "a"})
        assert "INSECURE" not in call("show", path).stdout
        facts = {"insecure_seed": True}
        ledger.reserve(event, label="test", delta=1e-6, provenance=facts)
    text = call("show", path).stdout
    assert "the noise of entry 2 came from a known seed: NO PRIVACY" in text
    assert text.count("INSECURE SEED, no privacy") == 1


# Who, where, and since when -------------------------------------------------------

NORTH = {"north": Budget(1.0, 1e-6), "south": Budget(1.0, 0.0)}


@pytest.fixture
def team(tmp_path):
    """A ledger of two authors, with blocks."""
    path = tmp_path / "team.db"
    terms = {"relation": "add_remove", "unit": "user", "dataset": "toy 1.0"}
    with Ledger.open(
        path, budget=Budget(2.0, 1e-5), scopes=NORTH, author="Ann", **terms
    ) as ledger:
        ledger.charge(PureDpEvent(0.25), label="north's", scope="north")
    event = '{"kind": "pure", "epsilon": 0.25}'
    for words in (["--scope", "south", "--author", "Bo of Basel"], []):
        command = ["ledger", "spend", str(path), "--event", event, "--count", "2"]
        assert RUN.invoke(app, [*command, *words]).exit_code == 0
    return path


def test_show_tells_scopes_and_authors(team):
    done = call("show", team)
    assert done.exit_code == 0, done.stderr
    lines = dict(row.split("  ", 1) for row in done.stdout.splitlines() if "  " in row)
    spent = "epsilon ≤ {} spent of epsilon {} at delta {}"
    assert lines["scope north"].strip() == spent.format(0.75, 1.0, "1e-06")
    assert lines["scope south"].strip() == spent.format(1, 1.0, "0.0")
    machine = json.loads(call("show", team, "--json").stdout)
    named = {scope["name"]: scope for scope in machine["scopes"]}
    assert named["north"]["budget"] == {"epsilon": 1.0, "delta": 1e-6}
    assert named["south"]["bound"]["upper"] == 1.0
    assert "Ann" in done.stdout and "Bo of Basel" in done.stdout


def test_an_export_is_to_be_imported_and_the_advice_works(made, ledger, tmp_path):
    lines = tmp_path / "it's.jsonl"
    assert call("export", ledger, str(lines)).exit_code == 0
    for command in ("show", "verify", "report"):
        done = call(command, lines)
        assert done.exit_code == 2
        assert "import it: dpkit ledger import" in done.stderr
    words = shlex.split(done.stderr.partition("import it: dpkit ")[2])
    assert RUN.invoke(app, words).exit_code == 0
    assert made[1]["head"] in call("verify", words[-1]).stdout


def test_a_head_that_was_noted_is_looked_for(made, ledger):
    head = made[1]["head"]
    done = call("verify", ledger, "--head", head.upper())
    assert done.exit_code == 0 and "is the head" in done.stdout
    with Ledger.open(ledger) as book:
        book.note("one")
        book.note("two")
    done = call("verify", ledger, "--head", head)
    assert done.exit_code == 0
    assert "an ancestor: entries added since: 2" in done.stdout
    assert (
        json.loads(call("verify", ledger, "--head", head, "--json").stdout)[
            "added_since_head"
        ]
        == 2
    )
    foreign = call("verify", ledger, "--head", "0" * 64)
    assert foreign.exit_code == 3 and foreign.stdout == ""
    assert "rewritten or cut" in foreign.stderr
    assert call("verify", ledger, "--head", head[:12]).exit_code == 2


def test_a_ledger_that_was_rewritten_holds_no_old_head(made, tmp_path):
    """Whole, verified, of the same terms: only the head tells."""
    terms = {"relation": "add_remove", "unit": "user", "dataset": "toy 1.0"}
    path = tmp_path / "new.db"
    with Ledger.open(path, budget=Budget(1.0, 1e-5), **terms) as ledger:
        ledger.charge(PureDpEvent(0.25), label=LABEL)
    assert call("verify", path).exit_code == 0
    assert call("verify", path, "--head", made[1]["head"]).exit_code == 3


def test_marks_of_a_sweep_are_shown_one_by_one(tmp_path):
    path = tmp_path / "a.db"
    terms = {"relation": "zero_out", "unit": "example", "dataset": "toy 1.0"}
    with Ledger.open(path, budget=Budget(1.0, 1e-5), **terms) as ledger:
        with ledger.reserve([GaussianDpEvent(50.0)] * 3, label="sweep") as grant:
            grant[2].commit()
            grant[0].commit()
    text = call("show", path).stdout
    assert text.count("checkpoint") == 2
    assert "run 2" in text and "run 0" in text
    assert text.count("3 runs sealed together") == 1
    assert "3 runs: 3 of" in " ".join(call("report", path).stdout.split())
