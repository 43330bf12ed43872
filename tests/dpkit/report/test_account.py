"""The report of an account: its facts, its words, its page; from ledger and file."""

import json
import re

import pytest
from dp_accounting import GaussianDpEvent
from typer.testing import CliRunner

from dpkit.accountants import Budget, Ledger, LedgerCorrupt, PureDpEvent
from dpkit.budget.declaration import declare
from dpkit.cli.app import app
from dpkit.report import of_ledger, of_run, render_account
from dpkit.report.statement import attack_rows
from tests.dpkit.report.pages import HOSTILE, Page

RUN = CliRunner()
TERMS = {"relation": "add_remove", "unit": "user", "dataset": "toy 1.0"}


def filled(path):
    """A ledger with every kind of charge."""
    ledger = Ledger.open(path, budget=Budget(3.0, 1e-5), filter="approx", **TERMS)
    ledger.charge(PureDpEvent(0.25), label="first look")
    with ledger.reserve(GaussianDpEvent(20.0), count=9, delta=5e-6, label="r") as grant:
        grant.commit(4)
    with ledger.reserve(PureDpEvent(1.0), delta=0.0, label="never") as grant:
        grant.abort(nothing_released=True)
    ledger.note("seen by the board")
    return ledger


@pytest.fixture(scope="module")
def facts():
    with filled(None) as ledger:
        return of_ledger(ledger)


@pytest.fixture(scope="module")
def page(facts):
    return render_account(facts)


def test_the_facts_are_json_and_complete(facts):
    assert json.loads(json.dumps(facts, allow_nan=False)) == json.loads(
        json.dumps(facts)
    )
    states = [(c["label"], c["state"], c["ran"]) for c in facts["charges"]]
    assert states == [
        ("first look", "spent", None),
        ("r", "committed", 4),
        ("never", "given back", None),
    ]
    assert (facts["relation"], facts["unit"]) == ("add_remove", "user")
    assert facts["bound"]["regime"] == "adaptive"
    assert facts["notes"] == ["seen by the board"]


def test_the_conditional_reading_counts_reservations_whole(facts):
    """What was given back is left out; what did not run is counted all the same."""
    fixed = facts["if_fixed_in_advance"]
    events = [
        {"kind": "gaussian", "noise_multiplier": 20, "count": 9},
        {"kind": "pure", "epsilon": 0.25},
    ]
    run = declare(declared(events))
    known = of_run(run, 1e-5)["bound"]["upper"]
    assert fixed["bound"]["upper"] == pytest.approx(known, rel=1e-6)
    assert fixed["bound"]["upper"] <= facts["bound"]["upper"]


def declared(events):
    return {"relation": "add_remove", "unit": "user", "events": events}


def test_an_attackers_gain_is_that_of_the_gaussian():
    run = declare(declared([{"kind": "gaussian", "noise_multiplier": 1}]))
    facts = of_run(run, 1e-5)
    attack = facts["if_fixed_in_advance"]["attack"]
    # 2 Phi(1/2) - 1, and Phi(Phi^-1(.01) + 1)
    assert 0.3829249 <= attack["advantage"] <= 0.38293 * 1.001
    assert attack["posterior"] == (1 + attack["advantage"]) / 2
    at = {r["false_positives"]: r["true_positives"] for r in attack["recognised"]}
    assert 0.0923622 - 1e-7 <= at[0.01] <= 0.0923622 * 1.01
    assert set(at) == {0.001, 0.01, 0.05}
    assert facts["attack"]["advantage"] > attack["advantage"]


def test_the_page_is_self_contained(page):
    parsed = Page(page)
    assert parsed.stack == []
    assert parsed.tags.count("svg") == 3
    ids = [value for _, name, value in parsed.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert not {"script", "link", "iframe", "img", "object", "embed"} & set(parsed.tags)
    assert not re.search(r"https?:|@import|url\((?!#)", page)
    assert "default-src 'none'" in page


def test_the_words_are_there(page, facts):
    for part in (
        "add_remove",
        "user",
        "toy 1.0",
        facts["head"],
        "certified",
        "1e-5",
        "first look",
        "given back",
        "if all had been fixed in advance",
        "If all parameters were fixed in advance: epsilon ≤",
        "Conditional",
        "Hyper-parameter search",
        "Canaries",
        "advantage",
        "recognised, at 0.1 % false alarms",
        "Gaussian, mu = 1 (Dong et al., 2022)",
    ):
        assert part in page, part
    assert "estimate" not in page


def test_same_facts_same_page(facts, page):
    assert render_account(json.loads(json.dumps(facts))) == page


def test_nothing_hostile_gets_through():
    label = HOSTILE.replace("\n", " ")
    with Ledger.open(
        None,
        budget=Budget(1.0, 1e-5),
        relation="add_remove",
        dataset=label,
        unit=label,
    ) as ledger:
        ledger.charge(PureDpEvent(0.25), label=label)
        ledger.note(label)
        page = render_account(of_ledger(ledger))
    assert HOSTILE not in page
    assert "<script" not in page and "<img" not in page
    assert Page(page).stack == []


def test_an_empty_ledger_has_a_report():
    with Ledger.open(None, budget=Budget(1.0, 0.0), **TERMS) as ledger:
        facts = of_ledger(ledger)
    assert facts["bound"]["upper"] == 0
    assert facts["if_fixed_in_advance"] == {"reason": "nothing was charged"}
    assert "Nothing was charged" in render_account(facts)


@pytest.mark.slow
def test_a_known_seed_comes_first():
    with Ledger.open(None, budget=Budget(1.0, 1e-5), **TERMS) as ledger:
        seed = {"insecure_seed": True}
        ledger.charge(PureDpEvent(0.25), label="test", provenance=seed)
        page = render_account(of_ledger(ledger))
    assert page.index("Insecure seed: no privacy") < page.index("The guarantee")


def test_no_guarantee_is_said_so():
    run = declare(declared([{"kind": "non_private"}]))
    page = render_account(of_run(run, 1e-5))
    assert "No guarantee" in page
    assert "infinite" in page


def test_an_estimate_is_never_shown_without_the_word(facts):
    guess = facts["bound"] | {"certified": False, "upper": None, "estimate": 1.5}
    told = facts | {"bound": guess, "attack": None, "if_fixed_in_advance": {}}
    page = render_account(told)
    assert "≈\N{NO-BREAK SPACE}1.5\N{NO-BREAK SPACE}" not in page or "estimate" in page
    assert page.count("an estimate") >= 2
    assert attack_rows(told)[0][1:] == ("unknown", "unknown")


def test_a_scope_with_its_own_budget():
    scopes = {"north": Budget(0.5, 0.0)}
    budget = Budget(1.0, 0.0)
    with Ledger.open(None, budget=budget, scopes=scopes, **TERMS) as ledger:
        ledger.charge(PureDpEvent(0.25), label="n", scope="north")
        facts = of_ledger(ledger)
    assert facts["scopes"][0]["bound"]["upper"] == 0.25
    assert "north" in render_account(facts)


@pytest.fixture
def path(tmp_path):
    filled(tmp_path / "ledger.db").close()
    return tmp_path / "ledger.db"


def report(*words):
    return RUN.invoke(app, ["ledger", "report", *map(str, words)])


@pytest.mark.slow
@pytest.mark.guard
def test_the_command_in_three_forms(path, tmp_path):
    text = report(path)
    assert text.exit_code == 0, text.stderr
    for part in ("certified", "add_remove", "user", "first look", "not covered"):
        assert part in text.stdout
    machine = json.loads(report(path, "--json").stdout)
    assert machine["schema_version"] == 1
    out = tmp_path / "a.html"
    done = report(path, "--format", "html", "--out", out)
    assert (done.exit_code, done.stdout) == (0, "")
    machine.pop("schema_version")
    assert out.read_text() == render_account(machine)
    assert report(path, "--format", "html").stdout == out.read_text()


def test_the_command_on_a_declared_run(tmp_path):
    config = tmp_path / "run.json"
    config.write_text(json.dumps(declared([{"kind": "laplace", "scale": 4}])))
    assert report(config, "--delta", "1e-5").exit_code == 0
    done = report(config)
    assert (done.exit_code, "--delta" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    "words", [("--format", "pdf"), ("--delta", "1e-5"), ("--out", "/nonexistent/a")]
)
def test_bad_input(path, words):
    done = report(path, *words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1


def test_a_broken_ledger_has_no_report(path, tmp_path):
    path.write_bytes(path.read_bytes().replace(b'"0.25"', b'"0.01"'))
    out = tmp_path / "a.html"
    done = report(path, "--format", "html", "--out", out)
    assert (done.exit_code, out.exists()) == (3, False)
    with pytest.raises(LedgerCorrupt):
        with Ledger.open(path) as ledger:
            of_ledger(ledger)


# Everybody's releases ----------------------------------------------------------


def shared():
    """A ledger of two authors, and a block."""
    blocks = {"north": Budget(2.0, 1e-6)}
    budget, names = Budget(3.0, 1e-5), ("Ann", "Bo")
    ledger = Ledger.open(None, budget=budget, scopes=blocks, **TERMS)
    for author in names:
        ledger.author = author
        with ledger.reserve(GaussianDpEvent(10.0), count=4, label=author) as grant:
            grant.commit(2 if author == "Bo" else 4)
    ledger.author = None
    ledger.charge(PureDpEvent(0.125), label="nobody", scope="north")
    with ledger.reserve(PureDpEvent(0.5), delta=0.0, label="never") as grant:
        grant.abort(nothing_released=True)
    return ledger


@pytest.mark.parametrize("filter", ["auto", "approx", "zcdp"])
def test_parts_of_the_spend_make_one_and_follow_what_ran(filter):
    delta = {"approx": 5e-6}
    ledger = Ledger.open(None, budget=Budget(3.0, 1e-5), filter=filter, **TERMS)
    assert ledger.parts() == {}
    for ran in (4, 2):
        how = {"count": 4, "delta": delta.get(filter), "label": "x"}
        with ledger.reserve(GaussianDpEvent(10.0), **how) as grant:
            grant.commit(ran)
    parts = ledger.parts()
    assert sum(parts.values()) == pytest.approx(1.0, rel=1e-12)
    whole = filter == "approx"  # a plan is never made cheaper
    assert parts[1] == pytest.approx(0.5 if whole else 2 / 3, rel=1e-9)


def test_the_report_lists_everybodys_releases_with_their_part():
    facts = of_ledger(shared())
    told = {c["author"]: c for c in facts["charges"] if c["state"] != "given back"}
    assert set(told) == {"Ann", "Bo", ""}
    assert told["Ann"]["part"] == pytest.approx(2 * told["Bo"]["part"])
    assert sum(c["part"] for c in told.values()) == pytest.approx(1.0)
    # Reserved or charged, each shows what it would cost alone: never its part.
    alone = of_run(
        declare(declared([{"kind": "gaussian", "noise_multiplier": 10, "count": 4}])),
        1e-5,
    )
    assert told["Ann"]["own"]["upper"] == alone["bound"]["upper"]
    assert 0.124 < told[""]["own"]["upper"] <= 0.125
    page = render_account(facts)
    for part in ("Ann", "Bo", "by itself", "part of the spend", "Blocks of the data"):
        assert part in page, part
    assert (
        json.loads(json.dumps(facts, allow_nan=False))["scopes"][0]["name"] == "north"
    )


def test_the_text_says_it_too(tmp_path):
    lines = tmp_path / "a.jsonl"
    shared().export_jsonl(lines)
    Ledger.import_jsonl(lines, tmp_path / "a.db").close()
    done = RUN.invoke(app, ["ledger", "report", str(tmp_path / "a.db")])
    assert done.exit_code == 0, done.stderr
    heads = next(row for row in done.stdout.splitlines() if "by itself" in row)
    assert "who" in heads and "part of the spend" in heads
    assert "north" in done.stdout and "Bo" in done.stdout


def test_of_many_releases_a_fast_accountant_is_asked(monkeypatch):
    ledger = Ledger.open(None, budget=Budget(30.0, 1e-5), **TERMS)
    for number in range(60):
        ledger.charge(GaussianDpEvent(100.0 + number), label="x")
    own = of_ledger(ledger)["charges"][0]["own"]
    assert own["method_upper"] == "rdp"
    best = of_run(
        declare(declared([{"kind": "gaussian", "noise_multiplier": 100}])), 1e-5
    )
    assert best["bound"]["upper"] <= own["upper"] < 1.3 * best["bound"]["upper"]
