"""A configured run: its folder, its refusals, and its death at any moment."""

import importlib
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpkit import Budget, BudgetExceeded, DPSGDPlan, Ledger
from dpkit.accountants.answers.errors import Incompatible, LedgerCorrupt
from dpkit.data import DataUnavailable
from dpkit.training import load_config, run

ROOT = Path(__file__).parents[3]
CONFIG = """
[data]
name = "digits"
evaluation = "public"

[model]
name = "linear"

[privacy]
epsilon = 8.0
delta = 1e-4
relation = "add_remove"
unit = "example"
sampling = "poisson"
clip_norm = 1.0

[training]
mode = "microbatch"
steps = 6
expected_batch_size = 200
learning_rate = 2.0
momentum = 0.5
average_decay = 0.8
evaluate_every = 3
microbatch_size = 32

[test]
insecure_seed = 7
"""
SECRET = CONFIG.partition("[test]")[0]
# Whose batches are cut now and then, which costs epsilon.
CUT = SECRET.replace("clip_norm = 1.0", "clip_norm = 1.0\nmax_batch_size = 230")
# The same without the search for the noise, and on one device: less to compile.
QUICK = SECRET.replace("epsilon = 8.0", "noise_multiplier = 2.0") + "devices = 1\n"
REQUIRED = {
    "schema_version",
    "sampling",
    "max_batch_size",
    "epsilon",
    "certified",
    "delta",
    "relation",
    "unit",
    "accountant",
    "noise_multiplier",
    "sampling_rate",
    "steps",
    "clip_norm",
    "expected_batch_size",
    "test_accuracy",
    "seconds",
    "params_sha256",
    "ledger_head",
}
pytestmark = pytest.mark.usefixtures("quick_compilation", "no_curves")


def everything_in(folder):
    return {
        p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run with secret roots, which were noted while it ran."""
    out = tmp_path_factory.mktemp("job") / "run"
    seen = {}

    def watch(progress):
        private = out / "private"
        seen["mode"] = stat.S_IMODE(private.stat().st_mode)
        seen["state"] = json.loads((private / "run.json").read_text())

    done = run(load_config(CUT), out, on_progress=watch)
    return done, out, seen


def test_the_result_says_what_was_run_and_what_it_cost(finished):
    done, out, _ = finished
    result = json.loads((out / "result.json").read_text())
    assert REQUIRED <= set(result)
    assert result == done.result
    assert result["certified"] is True
    assert 7.9 < result["epsilon"] <= 8.0
    assert result["steps"] == 6
    assert result["relation"] == "add_remove"
    assert repr(result["expected_batch_size"]) == "200"
    assert result["seconds"] > 0
    assert result["insecure_seed"] is False
    # 10 classes; chance is 0.1, and this run reaches about 0.8.
    assert result["test_accuracy"] > 0.5
    with Ledger.open(out / "ledger.db") as ledger:
        ledger.verify()
        assert ledger.head == result["ledger_head"]
        assert ledger.spent().upper == pytest.approx(result["epsilon"], rel=1e-9)


def test_the_results_numbers_give_its_epsilon_again(finished):
    """By the command line: batches may be cut here, which plain Poisson leaves out."""
    from typer.testing import CliRunner

    from dpkit.cli.app import app

    result = json.loads((finished[1] / "result.json").read_text())
    names = ("noise_multiplier", "sampling_rate", "steps", "delta", "relation")
    words = ["budget", "epsilon", "--json"]
    for name in (*names, "sampling", "max_batch_size", "max_records"):
        words += ["--" + name.replace("_", "-"), str(result[name])]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["upper"] == pytest.approx(result["epsilon"], rel=1e-9)
    plain = json.loads(CliRunner().invoke(app, words[:-4]).stdout)
    assert plain["upper"] < 0.99 * result["epsilon"]


def test_the_final_parameters_are_those_of_the_digest(finished):
    import jax

    from dpkit.training.step import digest_of

    done, out, _ = finished
    with np.load(out / "params.npz") as saved:
        tree = {}
        for name in saved.files:
            layer, leaf = name.split("/")
            tree.setdefault(layer, {})[leaf] = saved[name]
    assert digest_of(tree) == done.result["params_sha256"]
    assert sum(x.size for x in jax.tree.leaves(tree)) == done.result["parameters"]


def test_nothing_secret_is_left_in_the_folder(finished):
    _, out, seen = finished
    assert seen["mode"] == 0o700
    assert not (out / "private").exists()
    names = {str(name) for name in everything_in(out)}
    assert names == {
        "README.md",
        "config.toml",
        "ledger.db",
        "params.npz",
        "params.safetensors",
        "report.html",
        "result.json",
    }
    for text in seen["state"]["roots"].values():
        root = bytes.fromhex(text)
        halves = [root, root[:8], root[::-1], text.encode(), text.upper().encode()]
        for content in everything_in(out).values():
            assert not any(half in content for half in halves)


def test_a_finished_run_is_left_alone(finished):
    _, out, _ = finished
    before = everything_in(out)
    again = run(load_config("# same values\n" + CUT), out)
    assert again.already_finished
    assert everything_in(out) == before


def test_another_configuration_is_refused(finished):
    _, out, _ = finished
    before = everything_in(out)
    with pytest.raises(ValueError, match="another configuration"):
        run(load_config(CUT.replace("steps = 6", "steps = 7")), out)
    assert everything_in(out) == before


@pytest.mark.slow
def test_a_schedule_runs_and_is_written_down(tmp_path):
    text = QUICK.replace("multiplier = 2.0", "multiplier = [[2, 3.0], [4, 2.0]]")
    text = text.replace("batch_size = 200", "batch_size = [[3, 100], [3, 200]]")
    done = run(load_config(text), tmp_path / "run")
    result = done.result
    assert result["noise_multiplier"] == [[2, 3.0], [4, 2.0]]
    rates = [rate for _, rate in result["sampling_rate"]]
    assert rates[-1] == 2 * rates[0]
    assert result["expected_batch_size"] == [[3, 100.0], [3, 200.0]]
    records = result["max_records"]
    epochs = [row["epoch"] for row in result["history"]]
    assert epochs == pytest.approx([300 / records, 900 / records])
    plan = DPSGDPlan.create(
        max_records=records,
        max_batch_size=result["max_batch_size"],
        clip_norm=1.0,
        noise_multiplier=((2, 3.0), (4, 2.0)),
        expected_batch_size=((3, 100), (3, 200)),
    )
    bound = plan.epsilon(1e-4, relation="add_remove")
    assert result["epsilon"] == pytest.approx(bound.upper, rel=1e-9)
    report = (tmp_path / "run" / "report.html").read_text()
    assert "3 for 2 steps, then 2 for 4 steps" in report


@pytest.mark.slow
def test_a_fixed_seed_is_marked_everywhere(tmp_path):
    done = run(load_config(CONFIG), tmp_path / "run")
    assert done.result["insecure_seed"] is True
    assert "insecure" in (tmp_path / "run" / "report.html").read_text().lower()
    with Ledger.open(tmp_path / "run" / "ledger.db") as ledger:
        body = next(e.body for e in ledger.entries() if e.kind == "reserve")
    assert body["provenance"]["insecure_seed"] is True


@pytest.mark.slow
@pytest.mark.guard
def test_what_is_private_is_nowhere_in_the_folder(tmp_path):
    """Scores on private rows, and times that depend on the realised batches."""
    config = QUICK.replace('evaluation = "public"', 'evaluation = "private"')
    config += "constant_time = false\n"
    seen = []
    done = run(load_config(config), tmp_path / "run", on_progress=seen.append)
    assert done.result["test_accuracy"] is None
    assert {row["test_accuracy"] for row in done.result["history"]} == {None}
    assert {p.shown for p in seen} == {()}  # no accuracy, no speed
    assert {p.timed for p in seen} == {False}
    assert done.result["shown"] == []
    assert (done.result["seconds"], done.result["finished"]) == (None, None)


class Killed(Exception):
    """Stands for a process that is gone."""


def stop_at(step):
    def on_progress(progress):
        if progress.done == step:
            raise Killed

    return on_progress


@pytest.mark.slow
@pytest.mark.parametrize(
    "noise", ["1.5", *(pytest.param(z, marks=pytest.mark.slow) for z in ("1.0", "3.0"))]
)
def test_a_run_fits_the_budget_that_it_is_given_for_its_own_noise(tmp_path, noise):
    """The ledger rounds costs up: a budget of just the computed epsilon is too small
    for about every second run."""
    config = QUICK.replace("noise_multiplier = 2.0", f"noise_multiplier = {noise}")
    with pytest.raises(Killed):
        run(load_config(config), tmp_path / "run", on_progress=stop_at(1))
    with Ledger.open(tmp_path / "run" / "ledger.db") as ledger:
        assert ledger.spent().upper == pytest.approx(ledger.budget.epsilon, rel=1e-5)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A run that died after three steps; tests work on copies."""
    out = tmp_path_factory.mktemp("killed") / "run"
    with pytest.raises(Killed):
        run(load_config(QUICK), out, on_progress=stop_at(3))
    return out


@pytest.fixture
def unfinished(killed, tmp_path):
    return Path(shutil.copytree(killed, tmp_path / "run"))


@pytest.mark.slow
def test_another_configuration_cannot_take_over_an_unfinished_run(unfinished):
    before = everything_in(unfinished)
    with pytest.raises(ValueError, match="another configuration"):
        run(load_config(QUICK.replace("2.0", "1.0")), unfinished)
    assert everything_in(unfinished) == before
    (unfinished / "config.toml").unlink()
    with pytest.raises(ValueError, match="another configuration"):
        run(load_config(QUICK.replace("2.0", "1.0")), unfinished)
    assert not run(load_config(QUICK), unfinished).already_finished
    # A reader of the finished folder sees what was run, whatever was deleted.
    assert (unfinished / "config.toml").read_text() == QUICK


@pytest.mark.parametrize(
    "there",
    [
        pytest.param(
            "# my precious\n" + QUICK.replace("steps = 6", "steps = 99"),
            id="other-steps",
        ),
        pytest.param("my notes, and no TOML", id="no-configuration"),
    ],
)
def test_a_config_file_of_somebody_else_is_never_overwritten(tmp_path, there):
    (tmp_path / "config.toml").write_text(there)
    with pytest.raises(ValueError, match="another configuration"):
        run(load_config(QUICK), tmp_path)
    assert everything_in(tmp_path) == {Path("config.toml"): there.encode()}


@pytest.mark.slow
def test_a_run_that_died_before_its_first_secret_is_not_taken_over(tmp_path):
    """What kill -9 leaves between the folder and private/run.json."""
    out = tmp_path / "run"
    (out / "private").mkdir(parents=True)
    (out / "config.toml").write_text(QUICK)
    before = everything_in(out)
    with pytest.raises(ValueError, match="another configuration"):
        run(load_config(QUICK.replace("steps = 6", "steps = 7")), out)
    assert everything_in(out) == before
    with pytest.raises(Killed):
        run(load_config("# same values\n" + QUICK), out, on_progress=stop_at(1))
    assert (out / "config.toml").read_text() == QUICK


@pytest.mark.slow
def test_a_damaged_ledger_stops_a_resumed_run(unfinished):
    whole = (unfinished / "ledger.db").read_bytes()
    (unfinished / "ledger.db").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LedgerCorrupt):
        run(load_config(QUICK), unfinished)
    (unfinished / "ledger.db").write_bytes(whole)
    run(load_config(QUICK), unfinished)


@pytest.mark.slow
@pytest.mark.guard
def test_a_missing_ledger_stops_a_resumed_run_and_is_not_made_anew(unfinished):
    (unfinished / "ledger.db").unlink()
    before = everything_in(unfinished)
    with pytest.raises(LedgerCorrupt, match=r"ledger\.db"):
        run(load_config(QUICK), unfinished)
    assert everything_in(unfinished) == before


@pytest.mark.slow
@pytest.mark.guard
def test_a_replaced_ledger_stops_a_resumed_run(unfinished):
    terms = {"relation": "add_remove", "unit": "example", "dataset": "digits 1.0"}
    with Ledger.open(unfinished / "ledger.db") as ledger:
        terms["dataset"] = ledger.dataset
    (unfinished / "ledger.db").unlink()
    Ledger.open(unfinished / "ledger.db", budget=Budget(8.0, 1e-4), **terms).close()
    before = everything_in(unfinished)
    with pytest.raises(LedgerCorrupt, match=r"ledger\.db"):
        run(load_config(QUICK), unfinished)
    assert everything_in(unfinished) == before


@pytest.mark.slow
@pytest.mark.guard
def test_a_run_without_its_secrets_is_told_so(unfinished):
    shutil.rmtree(unfinished / "private")
    before = everything_in(unfinished)
    with pytest.raises(BudgetExceeded, match=r"already holds a run.*new folder"):
        run(load_config(QUICK), unfinished)
    assert everything_in(unfinished) == before


def test_a_refusal_before_the_charge_leaves_nothing(tmp_path, monkeypatch):
    """Whatever `fit` refuses; the same folder then takes a corrected configuration."""
    from dpkit.training import job

    def refuse(*args):
        raise ValueError("no")

    with monkeypatch.context() as patch:
        patch.setattr(job, "_fit", refuse)
        with pytest.raises(ValueError, match="no"):
            run(load_config(QUICK), tmp_path / "runs" / "one")
    assert list(tmp_path.iterdir()) == []
    larger = QUICK.replace("delta = 1e-4", "delta = 5e-5")  # at which it costs more
    with pytest.raises(Killed):
        run(load_config(larger), tmp_path / "runs" / "one", on_progress=stop_at(1))
    with Ledger.open(tmp_path / "runs" / "one" / "ledger.db") as ledger:
        assert ledger.budget.delta == 5e-5
        assert ledger.spent().upper == pytest.approx(ledger.budget.epsilon, rel=1e-5)


def test_a_charge_of_somebody_else_keeps_a_refused_runs_ledger(tmp_path, monkeypatch):
    from dp_accounting import GaussianDpEvent

    from dpkit.training import job

    def spend_and_refuse(job, session, ledger, on_progress):
        with Ledger.open(ledger.path) as same:
            same.charge(GaussianDpEvent(100.0), label="theirs")
        raise ValueError("no")

    monkeypatch.setattr(job, "_fit", spend_and_refuse)
    with pytest.raises(ValueError, match="no"):
        run(load_config(QUICK), tmp_path / "run")
    with Ledger.open(tmp_path / "run" / "ledger.db") as ledger:
        assert [entry.kind for entry in ledger.entries()] == ["genesis", "spend"]
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["ledger.db"]


@pytest.mark.slow
def test_no_secret_may_stay_unnoticed(unfinished, monkeypatch):
    real = shutil.rmtree

    def refuse(path, *args, **options):
        if Path(path).name != "private":
            return real(path, *args, **options)
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", refuse)
        for _ in range(2):  # the second time the run is finished
            with pytest.raises(OSError, match="could not be deleted") as caught:
                run(load_config(QUICK), unfinished)
            assert caught.value.filename == str(unfinished / "private")
    assert (unfinished / "result.json").exists()
    assert run(load_config(QUICK), unfinished).already_finished
    assert not (unfinished / "private").exists()


@pytest.mark.parametrize(
    ("facts", "error"),
    [
        ({"relation": "zero_out"}, Incompatible),
        ({"unit": "user"}, Incompatible),
        ({"dataset": "other 1"}, Incompatible),
        pytest.param(
            {"budget": Budget(0.1, 1e-4)}, BudgetExceeded, marks=pytest.mark.slow
        ),
        ({"budget": Budget(0.0, 0.0)}, BudgetExceeded),
    ],
)
def test_a_ledger_that_says_no_is_obeyed_before_anything_runs(tmp_path, facts, error):
    from dpkit.data import load

    digits = load("digits")
    usual: dict[str, Any] = {
        "budget": Budget(8.0, 1e-4),
        "relation": "add_remove",
        "unit": "example",
        "dataset": f"digits {digits.version}",
    }
    Ledger.open(tmp_path / "ledger.db", **{**usual, **facts}).close()
    before = everything_in(tmp_path)
    with pytest.raises(error):
        run(load_config(QUICK), tmp_path)
    assert everything_in(tmp_path) == before


def test_garbage_in_place_of_the_ledger_is_left_as_it_is(tmp_path):
    (tmp_path / "ledger.db").write_bytes(b"not a ledger" * 500)
    before = everything_in(tmp_path)
    with pytest.raises((ValueError, LedgerCorrupt), match=r"ledger\.db"):
        run(load_config(QUICK), tmp_path)
    assert everything_in(tmp_path) == before


@pytest.mark.parametrize(
    ("old", "new", "error", "words"),
    [
        ("digits", "digit", ValueError, "digits"),
        ('"digits"', '"mnits"', ValueError, r"^data\.name='mnits'"),
        ('"linear"', '"resnet"', ValueError, "resnet"),
        ('"linear"', '"cnn"', ValueError, "20 by 20"),
        ('"linear"', '"linear"\nhidden = [16]', ValueError, r"hidden=\[16\].*'linear'"),
        ('unit = "example"', 'unit = "user"', ValueError, "unit"),
        ("delta = 1e-4", "delta = 1e-3", ValueError, r"^privacy\.delta=0\.001.*1/n"),
        ("= 200", "= 9999", ValueError, r"^training\.expected_batch_size=9999"),
        (
            "[model]",
            "max_records = 500\n[model]",
            ValueError,
            r"^data\.max_records=500",
        ),
        ("steps = 6", "steps = 6\ndevices = 3", ValueError, "devices=3 .* 1 to 2,"),
        (
            "epsilon = 8.0",
            "noise_multiplier = 1e-3",
            ValueError,
            r"^privacy\.noise_multiplier=0\.001 .* no finite epsilon.*raise it",
        ),
        ('"add_remove"', '"replace_one"', Exception, "replace_one"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_a_folder_exists(
    tmp_path, old, new, error, words
):
    assert old in SECRET
    with pytest.raises(error, match=words) as caught:
        run(load_config(SECRET.replace(old, new)), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.guard
def test_a_sampling_that_tells_the_batch_size_needs_no_other_word(tmp_path):
    silent = QUICK.replace("expected_batch_size = 200\n", "").replace(
        "steps = 6", "steps = 2"
    )
    with pytest.raises(ValueError, match=r"training\.expected_batch_size=None: give"):
        run(load_config(silent), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    full = silent.replace('"poisson"', '"full_batch"')
    assert run(load_config(full), tmp_path / "run").result["steps"] == 2


def test_a_data_set_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("DPKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DPKIT_ALLOW_DOWNLOAD", raising=False)
    config = SECRET.replace("delta = 1e-4", "delta = 1e-5")
    config = config.replace('"digits"', '"mnist"\nallow_download = false')
    with pytest.raises(DataUnavailable, match=r"mnist.*allow_download = true"):
        run(load_config(config), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_full_disk_releases_nothing_and_can_be_resumed(tmp_path, monkeypatch):
    import os as os_module

    out = tmp_path / "run"
    real = os_module.fsync

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os_module, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        run(load_config(QUICK), out)
    assert not (out / "result.json").exists()
    monkeypatch.setattr(os_module, "fsync", real)
    assert not run(load_config(QUICK), out).already_finished


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "moment"),
    [("dpkit.jobs.lifecycle", "summary"), ("dpkit.training.result", "as_files")],
)
def test_a_death_after_the_last_step_is_no_loss(tmp_path, monkeypatch, place, moment):
    module = importlib.import_module(place)

    def die(*args, **facts):
        raise Killed

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(module, moment, die)
        with pytest.raises(Killed):
            run(load_config(QUICK), out)
    assert (out / "private").exists()
    done = run(load_config(QUICK), out)
    assert not (out / "private").exists()
    with Ledger.open(out / "ledger.db") as ledger:
        kinds = [entry.kind for entry in ledger.entries()]
        assert kinds.count("reserve") == kinds.count("commit") == 1
        assert ledger.spent().upper == pytest.approx(done.result["epsilon"], rel=1e-12)


def start(out, config, compiled):
    """A run in a process of its own, which keeps compiled programs in a folder."""
    command = [sys.executable, "-m", "dpkit", "train", str(config), "--out", str(out)]
    kept = {
        "JAX_COMPILATION_CACHE_DIR": str(compiled),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    environment = {**os.environ, **kept, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("times", [1, 20], ids=["once", "often"])
def test_kill_9_at_random_moments_changes_nothing(tmp_path, times):
    """Moments drawn with a fixed seed; each run is started again until it ends."""
    config = tmp_path / "config.toml"
    lines = CONFIG.replace("epsilon = 8.0", "noise_multiplier = 2.0")
    config.write_text(lines.replace("steps = 6", "steps = 24"))
    for name in ("first", "whole"):  # the second finds its programs compiled
        began = time.monotonic()
        assert start(tmp_path / name, config, tmp_path / "compiled").wait() == 0
        lasted = time.monotonic() - began
    want = json.loads((tmp_path / "whole" / "result.json").read_text())
    moments = random.Random(0)
    for number in range(times):
        out = tmp_path / str(number)
        # Its own copy: a kill may leave a half-written program.
        compiled = shutil.copytree(tmp_path / "compiled", tmp_path / f"c{number}")
        process = start(out, config, compiled)
        time.sleep(moments.uniform(0.2, 1.0) * lasted)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process = start(out, config, tmp_path / "compiled")
        assert process.wait() == 0, number
        result = json.loads((out / "result.json").read_text())
        assert result["params_sha256"] == want["params_sha256"], number
        assert not (out / "private").exists()
        with Ledger.open(out / "ledger.db") as ledger:
            ledger.verify()
            kinds = [entry.kind for entry in ledger.entries()]
            assert kinds.count("reserve") == 1
            assert ledger.spent().upper == pytest.approx(want["epsilon"], rel=1e-12)
