"""`budget` on files: epsilon, calibrate, compare, curve, check, and their codes."""

import csv
import errno
import json
from pathlib import Path

import pytest
from dp_accounting import GaussianDpEvent
from typer.testing import CliRunner

from dpkit.accountants import (
    Budget,
    Ledger,
    PrivacyBound,
    PureDpEvent,
    epsilon,
    from_json,
)
from dpkit.accountants.readings.best import ACCOUNTANTS
from dpkit.cli import files
from dpkit.cli.app import app

RUN = CliRunner()
# Analytic Gaussian (Balle, Wang 2018, arXiv:1805.06530, Theorem 8), by mpmath.
TRUE = 4.37717809568
GAUSSIAN = {
    "relation": "add_remove",
    "unit": "user",
    "delta": 1e-5,
    "events": [{"kind": "gaussian", "noise_multiplier": 1}],
}
DPSGD = {
    "relation": "add_remove",
    "delta": 1e-5,
    "dpsgd": {
        "dataset_size": 10000,
        "batch_size": 100,
        "steps": 1000,
        "noise_multiplier": 1,
        "sampling": "poisson",
    },
}


@pytest.fixture
def config(tmp_path):
    def write(data, name="run.json"):
        path = tmp_path / name
        path.write_text(json.dumps(data))
        return str(path)

    return write


def budget(command, *words):
    return RUN.invoke(app, ["budget", command, *map(str, words)])


def answer(command, *words, code=0):
    done = budget(command, *words, "--json")
    assert done.exit_code == code, done.stderr
    found = json.loads(done.stdout)
    assert found["schema_version"] == 1
    return found


def test_epsilon_of_a_file(config):
    found = answer("epsilon", config(GAUSSIAN))
    assert TRUE - 1e-9 <= found["upper"] <= TRUE * 1.001
    assert (found["relation"], found["unit"]) == ("add_remove", "user")
    assert found["events"][0]["kind"] == "gaussian"
    text = budget("epsilon", config(GAUSSIAN)).stdout
    assert "≤ 4.37" in text and "gaussian(noise_multiplier 1.0)" in text


def test_the_shorthand_costs_what_the_options_cost(config):
    found = answer("epsilon", config(DPSGD))
    # Inversion of the contour integral of the loss (remove direction): 1.8282367.
    assert 1.828236 <= found["upper"] <= 1.8282367 * 1.01
    assert found["unit"] == "example"
    assert any("coin toss" in text for text in found["assumed"])


def test_several_deltas_and_accountants(config):
    words = ("--delta", "1e-5", "--delta", "1e-6", "--accountants", "rdp,pld")
    found = answer("epsilon", config(DPSGD), *words)
    assert [b["delta"] for b in found["bounds"]] == [1e-5, 1e-6]
    assert [b["method_upper"] for b in found["bounds"]] == ["pld", "pld"]
    asked = [(r["accountant"], r["delta"]) for r in found["accountants"]]
    assert asked == [("rdp", 1e-5), ("pld", 1e-5), ("rdp", 1e-6), ("pld", 1e-6)]


def test_delta_at_epsilon(config):
    found = answer("epsilon", config(GAUSSIAN), "--epsilon", "1")
    assert 0.126936 <= found["upper"] <= 0.12694 * 1.001  # Theorem 8 again
    both = budget("epsilon", config(GAUSSIAN), "--epsilon", "1", "--delta", "1e-5")
    assert both.exit_code == 2


@pytest.mark.parametrize(
    "words, code, named",
    [
        (("--relation", "zero_out"), 5, "relation"),
        (("--unit", "example"), 5, "unit"),
        (("--noise-multiplier", "2"), 2, "--noise-multiplier"),
        (("--accountants", "gut"), 2, "gut"),
        (("--accountants", "pure"), 4, "pure"),
        (("--accountant", "pure"), 4, "pure"),
        (("--delta", "2"), 2, "--delta"),
        (("--epsilon", "-1"), 2, "--epsilon"),
    ],
)
def test_options_beside_a_file(config, words, code, named):
    done = budget("epsilon", config(GAUSSIAN), *words)
    assert (done.exit_code, done.stdout) == (code, "")
    assert named in done.stderr
    assert done.stderr.count("\n") == 1


def test_unknown_keys_and_missing_files_are_bad_input(config, tmp_path):
    for path in (config(GAUSSIAN | {"detla": 1e-5}), str(tmp_path / "none.toml")):
        done = budget("epsilon", path)
        assert (done.exit_code, done.stdout) == (2, "")
        assert path in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "solve, least, most",
    [("noise_multiplier", 3.7306316, 3.731), ("epsilon", TRUE - 1e-9, TRUE * 1.001)],
)
def test_calibrate_a_file(config, solve, least, most):
    words = ("--solve", solve, *(("--epsilon", "1") if solve != "epsilon" else ()))
    found = answer("calibrate", config(GAUSSIAN), *words)
    assert least <= found[solve if solve != "epsilon" else "upper"] <= most
    assert found["certified"] is True


def test_calibrate_steps(config):
    words = ("--epsilon", "1.8286", "--solve", "steps")
    found = answer("calibrate", config(DPSGD), *words)
    assert found["steps"] == 1000  # whose epsilon is 1.8282367
    options = ["--noise-multiplier", "1", "--sampling-rate", "0.01", "--delta", "1e-5"]
    options += ["--relation", "add_remove", "--sampling", "poisson"]
    assert answer("calibrate", *options, *words)["steps"] == 1000
    done = budget("calibrate", *options, "--steps", "3", *words)
    assert done.exit_code == 2 and "--steps" in done.stderr


@pytest.mark.parametrize(
    "target, gained",
    [
        (("--advantage", "0.3829249225"), "advantage"),  # 2 Phi(1/2) - 1
        (("--tpr", "0.0923622", "0.01"), "true_positives"),  # Phi(Phi^-1(.01) + 1)
    ],
)
def test_calibrate_to_an_attackers_gain(config, target, gained):
    found = answer("calibrate", config(GAUSSIAN), *target)
    assert 1 - 1e-6 <= found["noise_multiplier"] <= 1.01
    assert found[gained] <= float(target[1])
    assert found["upper"] <= TRUE * 1.001
    assert budget("calibrate", config(GAUSSIAN), *target).exit_code == 0
    both = budget("calibrate", config(GAUSSIAN), *target, "--epsilon", "1")
    assert both.exit_code == 2


def test_compare_asks_everybody(config):
    found = answer("compare", config(GAUSSIAN))
    assert [r["accountant"] for r in found["readings"]] == list(ACCOUNTANTS)
    for reading in found["readings"]:
        assert reading["seconds"] >= 0
        assert ("upper" in reading) == (reading["unsupported"] is None)
    text = budget("compare", config(GAUSSIAN)).stdout
    for name in ACCOUNTANTS:
        assert name in text


def test_compare_flags_an_estimate_below_the_truth(config, monkeypatch):
    class Low:
        @staticmethod
        def epsilon(event, delta, *, relation):
            known = {"estimate": 1.0, "method_estimate": "low", "relation": relation}
            return PrivacyBound(delta=delta, **known)

    class Sure:
        @staticmethod
        def epsilon(event, delta, *, relation):
            known = {"lower": 4.37, "upper": 4.38, "certified": True}
            return PrivacyBound(delta=delta, relation=relation, **known)

    monkeypatch.setitem(ACCOUNTANTS, "low", Low)
    monkeypatch.setitem(ACCOUNTANTS, "sure", Sure)
    done = budget("compare", config(GAUSSIAN), "--json")
    low = next(
        r for r in json.loads(done.stdout)["readings"] if r["accountant"] == "low"
    )
    assert low["flags"] == ["the estimate is below a certified lower bound"]
    assert "low at delta" in done.stderr
    only = budget("compare", config(GAUSSIAN), "--accountants", "low")
    assert only.exit_code == 4


@pytest.mark.slow
@pytest.mark.parametrize("x", ["steps", "delta", "noise_multiplier", "order", "fpr"])
def test_curves(config, tmp_path, x):
    out = tmp_path / "curves"
    found = answer("curve", config(GAUSSIAN), "--x", x, "--out", out)
    curve = found["curve"]
    assert curve["certified"] is True
    names = sorted(path.name for path in out.iterdir())
    assert names == ["curve.csv", "curve.html", "curve.json"]
    assert json.loads((out / "curve.json").read_text()) == found
    rows = list(csv.reader((out / "curve.csv").read_text().splitlines()))
    own = [row for row in rows[1:] if row[0] == ""]
    assert [[float(a), float(b)] for _, a, b in own] == curve["points"]
    assert "add_remove" in (out / "curve.html").read_text()
    assert "certified" in budget("curve", config(GAUSSIAN), "--x", x).stdout


def test_a_curve_needs_its_delta(config):
    data = {name: value for name, value in GAUSSIAN.items() if name != "delta"}
    done = budget("curve", config(data))
    assert (done.exit_code, "--delta" in done.stderr) == (2, True)
    assert budget("curve", config(data), "--x", "time").exit_code == 2


@pytest.mark.parametrize(
    "limit, code", [("4.4", 0), ("4.3", 1), ("0", 1), ("inf", 0), ("nan", 2), ("-1", 2)]
)
def test_the_gate(config, limit, code):
    words = (config(GAUSSIAN), "--max-epsilon", limit, "--delta", "1e-5")
    done = budget("check", *words)
    assert done.exit_code == code
    assert done.stderr.count("\n") == (0 if code == 0 else 1)
    if code < 2:
        assert answer("check", *words, code=code)["ok"] is (code == 0)


def test_the_gate_has_no_limit_of_its_own(config):
    done = budget("check", config(GAUSSIAN), "--delta", "1e-5")
    assert done.exit_code == 2
    assert "--max-epsilon" in done.stderr


def test_the_gate_takes_delta_from_the_file(config):
    held, asked = (
        answer("check", config(GAUSSIAN), "--max-epsilon", "9", *delta)
        for delta in ([], ["--delta", "1e-5"])
    )
    assert held == asked
    without = {name: value for name, value in GAUSSIAN.items() if name != "delta"}
    done = budget("check", config(without), "--max-epsilon", "9")
    assert done.exit_code == 2
    assert "missing option --delta; or a CONFIG" in done.stderr


SPOKEN = (
    "--noise-multiplier 1.1 --dataset-size 60000 --batch-size 600 --relation add_remove"
    " --sampling poisson --delta 1e-5"
).split()


def test_epochs_are_so_many_steps():
    spoken = answer("epsilon", *SPOKEN, "--epochs", "10.005")
    counted = answer("epsilon", *SPOKEN, "--steps", "1001")
    assert spoken["steps"] == 1001
    assert spoken["upper"] == counted["upper"]
    check = answer("check", *SPOKEN, "--epochs", "10.005", "--max-epsilon", "1.6")
    assert check["upper"] == counted["upper"]
    curve = answer("curve", *SPOKEN, "--epochs", "10.005")["curve"]
    assert curve["points"][-1] == [1001, pytest.approx(counted["upper"], rel=1e-6)]
    sizes = "--dataset-size 12345 --batch-size 256 --epochs 20 --epsilon 3".split()
    solved = answer("calibrate", *sizes, *SPOKEN[6:])
    assert solved["noise_multiplier"] == pytest.approx(1.16475, abs=1e-5)
    for others in (["--steps", "3", "--epochs", "2"], ["--epochs", "0"]):
        assert budget("epsilon", *SPOKEN, *others).exit_code == 2


def test_the_gate_never_lets_an_estimate_pass(config, monkeypatch):
    import dpkit.accountants

    guess = PrivacyBound(delta=1e-5, estimate=0.1, relation="add_remove")
    monkeypatch.setitem(vars(dpkit.accountants), "epsilon", lambda *a, **k: guess)
    words = (config(GAUSSIAN), "--max-epsilon", "1", "--delta", "1e-5")
    assert answer("check", *words, code=4)["ok"] is False


def test_a_table_that_is_not_proven_is_no_certificate(config):
    event = {"kind": "rdp_curve", "orders": [2, 4], "values": [0.1, 0.2]}
    event |= {"relation": "add_remove", "name": "guess", "certified": False}
    done = budget(
        "check",
        config(GAUSSIAN | {"events": [event | {"provenance": "none"}]}),
        "--max-epsilon",
        "100",
        "--delta",
        "1e-5",
    )
    assert done.exit_code == 4, (done.stdout, done.stderr)


@pytest.fixture
def ledger(tmp_path):
    path = tmp_path / "ledger.db"
    terms = {"relation": "add_remove", "unit": "user", "dataset": "toy 1.0"}
    with Ledger.open(path, budget=Budget(1.0, 1e-5), **terms) as book:
        book.charge(PureDpEvent(0.5), label="look")
    return path


@pytest.mark.parametrize(
    "limit, more, code",
    [
        ("0.5", (), 0),
        ("0.49", (), 1),
        ("1", ("--relation", "zero_out"), 5),
        ("1", ("--unit", "example"), 5),
    ],
)
def test_the_gate_on_a_ledger(ledger, limit, more, code):
    words = ("--max-epsilon", limit, "--delta", "1e-5", *more)
    assert budget("check", ledger, *words).exit_code == code


def test_the_gate_refuses_an_edited_ledger(ledger):
    ledger.write_bytes(ledger.read_bytes().replace(b'"0.5"', b'"0.1"'))
    done = budget("check", ledger, "--max-epsilon", "1", "--delta", "1e-5")
    assert (done.exit_code, done.stdout) == (3, "")


def calibrated(*words):
    done = RUN.invoke(app, ["budget", "calibrate", *words, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.mark.parametrize(("digits", "noise"), [("7", 3.730632), ("3", 3.74), ("1", 4)])
def test_an_answer_of_fewer_digits_is_checked_itself(config, digits, noise):
    found = calibrated(config(GAUSSIAN), "--epsilon", "1", "--rounding", digits)
    assert found["noise_multiplier"] == noise
    assert found["upper"] <= 1
    checked = epsilon(GaussianDpEvent(noise), 1e-5, relation="add_remove")
    assert found["upper"] == pytest.approx(checked.upper, rel=1e-9)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("--solve epsilon --epsilon 1", "--epsilon: epsilon=1.0"),
        ("--solve delta --epsilon 1 --delta 1e-5", "--delta: delta=1e-05"),
        ("--epsilon 1 --rounding 8", "--rounding: rounding=8"),
        ("--advantage 1.5", "--advantage: advantage=1.5"),
        ("--tpr 0.01 0.05", "--tpr: tpr=(0.01, 0.05)"),
        ("--tpr 1.5 0.05", "--tpr: tpr=(1.5, 0.05)"),
    ],
)
def test_a_calibration_that_contradicts_itself_is_refused(config, words, named):
    done = RUN.invoke(app, ["budget", "calibrate", config(GAUSSIAN), *words.split()])
    assert done.exit_code == 2
    assert done.stderr.startswith(f"dpkit budget calibrate: {named}")


def test_a_full_disk_names_the_file(config, tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    monkeypatch.chdir(tmp_path)
    config(GAUSSIAN)
    for words in (
        "ledger report run.json --format json --out r.json",
        "budget curve run.json --x delta --out curves",
    ):
        done = RUN.invoke(app, words.split())
        assert done.exit_code == 2
        assert "No space left" in done.stderr
        assert "r.json: " in done.stderr or "curve.csv: " in done.stderr
    assert not Path("r.json").exists()


# The defects of dp-accounting 0.6.0 that change an epsilon (test_peer_defects.py).
DEFECTS = {
    "a count that is ignored": (
        "replace_one 1e-6 randomized_response probability=0.5 categories=2 count=20",
        "pld: below a certified lower bound",
    ),
    "a replaced record moves twice": (
        "replace_one 1e-5 gaussian noise_multiplier=1 count=10",
        "rdp: below a certified lower bound",
    ),
    "no answer at a tiny delta": (
        "add_remove 1e-15 poisson_gaussian noise_multiplier=1 sampling_rate=0.5"
        " count=20",
        "pld: above the smallest certified upper bound",
    ),
    "one grid for all": (
        "add_remove 1e-6 poisson_gaussian noise_multiplier=4 sampling_rate=1e-4"
        " count=10000",
        "pld: above the smallest certified upper bound",
    ),
    "fractional orders": (
        "add_remove 1e-5 poisson_gaussian noise_multiplier=0.5 sampling_rate=0.1"
        " count=100",
        "rdp: above the smallest certified upper bound",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("defect", DEFECTS)
def test_a_comparison_shows_what_a_peer_gets_wrong(config, defect):
    words, wanted = DEFECTS[defect]
    relation, delta, kind, *fields = words.split()
    event = {"kind": kind} | {
        name: float(value) if "." in value or "e" in value else int(value)
        for name, value in (field.split("=") for field in fields)
    }
    run = {"relation": relation, "delta": float(delta), "events": [event]}
    options = ["--accountants", "pld", "--peers", "--json"]
    done = RUN.invoke(app, ["budget", "compare", config(run), *options])
    assert done.exit_code == 0, done.output
    ours, *peers = json.loads(done.stdout)["readings"]
    assert ours["certified"]
    assert ours["flags"] == []
    name, _, flag = wanted.partition(": ")
    (peer,) = (p for p in peers if p["accountant"] == f"dp-accounting {name}")
    assert peer["flags"] == [f"the estimate is {flag}"]


@pytest.mark.parametrize(("limit", "code"), [("1", 0), ("0.9999999999999999", 1)])
def test_what_is_exactly_the_limit_is_within_it(config, tmp_path, limit, code):
    """A release of epsilon 1 without a delta, declared and charged."""
    laplace = {"kind": "laplace", "scale": 1.0}
    declared = {"relation": "add_remove", "events": [laplace]}
    ledger = tmp_path / "a.db"
    terms = {"relation": "add_remove", "unit": "example", "dataset": "toy"}
    with Ledger.open(ledger, budget=Budget(1.0, 0.0), **terms) as book:
        book.charge(from_json(laplace), label="all")
    for what in (config(declared), ledger):
        words = (what, "--max-epsilon", limit, "--delta", "0")
        assert answer("check", *words, code=code)["upper"] == 1.0
        assert "epsilon        ≤ 1, certified" in budget("check", *words).stdout
