"""`ledger init` to `close`: charging by hand, from processes that share nothing."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from dpkit.accountants import Budget, Ledger
from dpkit.cli.app import app

RUN = CliRunner()
HALF = '{"kind": "pure", "epsilon": 0.5}'
NOISE = '{"kind": "gaussian", "noise_multiplier": 50}'
TERMS = {
    "--epsilon": "1",
    "--delta": "1e-5",
    "--relation": "add_remove",
    "--unit": "user",
}


def call(command, *words):
    return RUN.invoke(app, ["ledger", command, *map(str, words)])


def answer(command, *words):
    done = call(command, *words, "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["schema_version"] == 1
    return found


def flat(options):
    return [word for pair in options.items() for word in pair]


@pytest.fixture
def ledger(tmp_path):
    path = tmp_path / "a.db"
    assert call("init", path, *flat(TERMS)).exit_code == 0
    return path


def test_init_makes_what_was_asked_for(tmp_path):
    path = tmp_path / "a.db"
    more = ["--dataset", "toy 1.0", "--adaptive", "0.5", "1e-6"]
    found = answer("init", path, *flat(TERMS), *more, "--scope", "north=0.5,1e-6")
    assert found["budget"] == {"epsilon": 1.0, "delta": 1e-5}
    assert (found["unit"], found["dataset"]) == ("user", "toy 1.0")
    with Ledger.open(path) as book:
        assert book.head == found["head"]
        assert book.terms.scopes["north"].epsilon == 0.5
        assert book.terms.adaptive == Budget(0.5, 1e-6)


@pytest.mark.parametrize("option", TERMS)
def test_init_has_no_defaults_for_what_it_promises(tmp_path, option):
    terms = {name: value for name, value in TERMS.items() if name != option}
    done = call("init", tmp_path / "a.db", *flat(terms))
    assert done.exit_code == 2
    assert option in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_budget_of_zero_is_zero_and_infinity_is_written(tmp_path):
    none, all_of_it = tmp_path / "none.db", tmp_path / "all.db"
    call("init", none, *flat(TERMS | {"--epsilon": "0"}))
    assert call("spend", none, "--event", HALF).exit_code == 1
    found = answer("init", all_of_it, *flat(TERMS | {"--epsilon": "inf"}))
    assert found["budget"]["epsilon"] == "inf"
    assert call("spend", all_of_it, "--event", HALF).exit_code == 0


@pytest.mark.parametrize(
    "option, value",
    [
        ("--epsilon", "nan"),
        ("--epsilon", "-1"),
        ("--delta", "1"),
        ("--relation", "adjacent"),
        ("--unit", ""),
        ("--scope", "north"),
        ("--scope", "all=1,0"),
        ("--regime", "lazy"),
        ("--filter", "gut"),
    ],
)
def test_bad_terms_make_no_ledger(tmp_path, option, value):
    done = call("init", tmp_path / "a.db", *flat(TERMS | {option: value}))
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_init_never_touches_what_is_there(ledger):
    before = ledger.read_bytes()
    assert call("init", ledger, *flat(TERMS)).exit_code == 2
    assert ledger.read_bytes() == before


def test_spend_until_the_budget_is_exceeded(ledger):
    assert answer("spend", ledger, "--event", HALF)["spent"]["upper"] == 0.5
    assert answer("remaining", ledger, "--event", HALF)["remaining"] == 1
    assert answer("spend", ledger, "--event", HALF)["spent"]["upper"] == 1.0
    before = ledger.read_bytes()
    done = call("spend", ledger, "--event", HALF)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "nothing was released" in done.stderr
    assert ledger.read_bytes() == before


def test_the_same_key_is_the_same_charge(ledger):
    words = ("--event", HALF, "--key", "look", "--label", "first look")
    first = answer("spend", ledger, *words)
    again = answer("spend", ledger, *words)
    assert first["entry"] == again["entry"]
    other = call("spend", ledger, "--event", NOISE, "--key", "look")
    assert other.exit_code == 2
    assert first["entry"]["body"]["label"] == "first look"


def test_an_event_may_come_from_a_file(ledger, tmp_path):
    path = tmp_path / "event.json"
    path.write_text(HALF)
    assert call("spend", ledger, "--event", path).exit_code == 0


@pytest.mark.parametrize(
    "words",
    [
        ("--event", '{"kind": "bogus"}'),
        ("--event", '{"kind": "pure"}'),
        ("--event", "{"),
        ("--event", '{"kind": "pure", "epsilon": NaN}'),
        ("--event", "/nonexistent/event.json"),
        ("--event", HALF, "--count", "0"),
        ("--event", HALF, "--label", "two\nlines"),
        ("--event", HALF, "--scope", "north"),
    ],
)
@pytest.mark.parametrize("command", ["spend", "reserve", "remaining"])
def test_bad_charges_write_nothing(ledger, command, words):
    before = ledger.read_bytes()
    done = call(command, ledger, *words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert ledger.read_bytes() == before


@pytest.mark.slow
def test_a_reservation_is_settled_by_another_process(ledger):
    words = ["--event", NOISE, "--count", "10", "--delta", "1e-6", "--key", "train"]
    start = [sys.executable, "-m", "dpkit", "ledger"]
    commands = [
        ["reserve", str(ledger), *words],
        ["commit", str(ledger), "--key", "train", "--ran", "7"],
    ]
    for command in commands:
        done = subprocess.run([*start, *command], capture_output=True, timeout=120)
        assert done.returncode == 0, done.stderr
    with Ledger.open(ledger) as book:
        kinds = [entry.kind for entry in book.entries()]
        assert kinds == ["genesis", "reserve", "commit"]
        assert book.entries()[-1].body["ran"] == 7
        book.verify(recount=True)


def test_steps_counted_by_rényi_are_given_back_to_the_one_holder(tmp_path):
    path = tmp_path / "z.db"
    call("init", path, *flat(TERMS), "--filter", "zcdp")
    words = ("--event", NOISE, "--count", "10")
    full = answer("reserve", path, *words, "--key", "a")["spent"]["upper"]
    found = answer("commit", path, "--id", "a", "--ran", "4")
    assert found["spent"]["upper"] < full


def test_a_second_reserve_with_the_key_resumes_and_gives_nothing_back(ledger):
    words = ("--event", NOISE, "--count", "10", "--delta", "1e-6", "--key", "a")
    assert answer("reserve", ledger, *words)["resumed"] is False
    assert answer("reserve", ledger, *words)["resumed"] is True
    done = call("abort", ledger, "--key", "a", "--nothing-released")
    assert done.exit_code == 2
    assert "resumed" in done.stderr


def test_abort_needs_a_word_and_gives_all_back(ledger):
    found = answer("reserve", ledger, "--event", NOISE, "--count", "10")
    key = found["key"]
    assert found["spent"]["upper"] > 0
    assert call("abort", ledger, "--key", key).exit_code == 2
    done = answer("abort", ledger, "--key", key, "--nothing-released")
    assert done["spent"]["upper"] == 0
    assert call("commit", ledger, "--key", key, "--ran", "1").exit_code == 2


@pytest.mark.parametrize(
    "words", [("--ran", "11"), ("--ran", "-1"), ("--ran", "1.5"), ()]
)
def test_bad_commits_leave_all_spent(ledger, words):
    call("reserve", ledger, "--event", NOISE, "--count", "10", "--key", "a")
    before = ledger.read_bytes()
    assert call("commit", ledger, "--key", "a", *words).exit_code == 2
    assert call("commit", ledger, "--key", "b", "--ran", "1").exit_code == 2
    assert ledger.read_bytes() == before


def test_closed_books_take_nothing(ledger):
    assert answer("close", ledger, "--reason", "done")["closed"] is True
    assert call("spend", ledger, "--event", HALF).exit_code == 2
    assert call("close", ledger).exit_code == 2
    assert answer("remaining", ledger, "--event", HALF)["remaining"] == 0
    assert call("verify", ledger).exit_code == 0


def test_export_and_import_are_lossless(ledger, tmp_path):
    call("spend", ledger, "--event", HALF)
    lines, copy = tmp_path / "a.jsonl", tmp_path / "b.db"
    head = answer("export", ledger, lines)["head"]
    assert answer("import", lines, copy)["head"] == head
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"a.db", "a.jsonl", "b.db"}
    for words in (("export", ledger, lines), ("import", lines, copy)):
        assert call(*words).exit_code == 2
    lines.write_text(lines.read_text().replace('"0.5"', '"0.1"'))
    done = call("import", lines, tmp_path / "c.db")
    assert done.exit_code == 3
    assert not (tmp_path / "c.db").exists()


def test_merge_adds_up_and_closes(ledger, tmp_path):
    other = tmp_path / "b.db"
    call("init", other, *flat(TERMS))
    for path in (ledger, other):
        call("spend", path, "--event", HALF)
    merged = tmp_path / "all.db"
    found = answer("merge", ledger, other, "--into", merged)
    assert found["spent"]["upper"] == 1.0
    assert found["budget"]["epsilon"] == 2.0
    assert len(found["merged"]) == 2
    assert call("spend", ledger, "--event", HALF).exit_code == 2
    assert call("verify", merged).exit_code == 0


@pytest.mark.parametrize(
    "option, value",
    [("--relation", "zero_out"), ("--unit", "example"), ("--dataset", "other")],
)
def test_merge_converts_nothing(ledger, tmp_path, option, value):
    other = tmp_path / "b.db"
    call("init", other, *flat(TERMS | {option: value}))
    done = call("merge", ledger, other, "--into", tmp_path / "all.db")
    assert done.exit_code == 5
    assert not (tmp_path / "all.db").exists()


def test_merge_refuses_forks_and_budgets_that_are_passed(ledger, tmp_path):
    call("spend", ledger, "--event", HALF)
    call("export", ledger, tmp_path / "a.jsonl")
    fork = tmp_path / "fork.db"
    call("import", tmp_path / "a.jsonl", fork)
    into = tmp_path / "all.db"
    assert call("merge", ledger, fork, "--into", into).exit_code == 5
    small = ("--epsilon", "0.4", "--delta", "0")
    assert call("merge", ledger, "--into", into, *small).exit_code == 1
    assert call("merge", ledger, "--into", into, "--epsilon", "1").exit_code == 2
    assert not into.exists()
    assert call("spend", ledger, "--event", HALF).exit_code == 0


@pytest.mark.parametrize("command", ["spend", "reserve", "remaining"])
def test_a_missing_ledger_is_not_created(tmp_path, command):
    done = call(command, tmp_path / "none.db", "--event", HALF)
    assert done.exit_code == 2
    assert list(tmp_path.iterdir()) == []
