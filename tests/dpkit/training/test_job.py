"""A configured run: its folder, its refusals, and its death at any moment."""

import json
import os
import random
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpkit import Budget, BudgetExceeded, Ledger
from dpkit.accountants.errors import Incompatible, LedgerCorrupt
from dpkit.data import DataUnavailable
from dpkit.training import load_config, run

ROOT = Path(__file__).parents[3]
CONFIG = """
[data]
name = "digits"
evaluation = "public"

[model]
name = "mlp"
hidden = [16]

[privacy]
epsilon = 8.0
delta = 1e-4
relation = "add_remove"
unit = "example"
sampling = "poisson"
clip_norm = 1.0

[training]
steps = 24
expected_batch_size = 200
learning_rate = 2.0
momentum = 0.5
average_decay = 0.8
evaluate_every = 6
microbatch_size = 32

[test]
insecure_seed = 7
"""
SECRET = CONFIG.partition("[test]")[0]
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

    done = run(load_config(SECRET), out, on_progress=watch)
    return done, out, seen


def test_the_result_says_what_was_run_and_what_it_cost(finished):
    done, out, _ = finished
    result = json.loads((out / "result.json").read_text())
    assert REQUIRED <= set(result)
    assert result == done.result
    assert result["certified"] is True
    assert 7.9 < result["epsilon"] <= 8.0
    assert result["steps"] == 24
    assert result["relation"] == "add_remove"
    assert result["insecure_seed"] is False
    # 10 classes; chance is 0.1, and this run reaches about 0.8.
    assert result["test_accuracy"] > 0.5
    with Ledger.open(out / "ledger.db") as ledger:
        ledger.verify()
        assert ledger.head == result["ledger_head"]
        assert ledger.spent().upper == pytest.approx(result["epsilon"], rel=1e-9)


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
        "config.toml",
        "ledger.db",
        "params.npz",
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
    again = run(load_config("# same values\n" + SECRET), out)
    assert again.already_finished
    assert everything_in(out) == before


def test_another_configuration_is_refused(finished):
    _, out, _ = finished
    before = everything_in(out)
    with pytest.raises(ValueError, match="another configuration"):
        run(load_config(SECRET.replace("steps = 24", "steps = 25")), out)
    assert everything_in(out) == before


def test_a_fixed_seed_is_marked_everywhere(tmp_path):
    done = run(load_config(CONFIG), tmp_path / "run")
    assert done.result["insecure_seed"] is True
    assert "insecure" in (tmp_path / "run" / "report.html").read_text().lower()
    with Ledger.open(tmp_path / "run" / "ledger.db") as ledger:
        body = next(e.body for e in ledger.entries() if e.kind == "reserve")
    assert body["provenance"]["insecure_seed"] is True


def test_scores_on_private_rows_are_nowhere_in_the_folder(tmp_path):
    config = SECRET.replace('evaluation = "public"', 'evaluation = "private"')
    seen = []
    done = run(load_config(config), tmp_path / "run", on_progress=seen.append)
    assert done.result["test_accuracy"] is None
    assert {row["test_accuracy"] for row in done.result["history"]} == {None}
    assert {p.test_accuracy for p in seen} == {None}


class Killed(Exception):
    """Stands for a process that is gone."""


def stop_at(step):
    def on_progress(progress):
        if progress.step == step:
            raise Killed

    return on_progress


def test_another_configuration_cannot_take_over_an_unfinished_run(tmp_path):
    out = tmp_path / "run"
    with pytest.raises(Killed):
        run(load_config(SECRET), out, on_progress=stop_at(3))
    with pytest.raises(ValueError, match="another configuration"):
        run(load_config(SECRET.replace("2.0", "1.0")), out)
    assert not run(load_config(SECRET), out).already_finished


def test_a_damaged_ledger_stops_a_resumed_run(tmp_path):
    out = tmp_path / "run"
    with pytest.raises(Killed):
        run(load_config(SECRET), out, on_progress=stop_at(3))
    whole = (out / "ledger.db").read_bytes()
    (out / "ledger.db").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LedgerCorrupt):
        run(load_config(SECRET), out)
    (out / "ledger.db").write_bytes(whole)
    run(load_config(SECRET), out)


def test_a_replaced_ledger_stops_a_resumed_run(tmp_path):
    out = tmp_path / "run"
    with pytest.raises(Killed):
        run(load_config(SECRET), out, on_progress=stop_at(3))
    (out / "ledger.db").unlink()
    with pytest.raises((ValueError, LedgerCorrupt), match="ledger"):
        run(load_config(SECRET), out)


@pytest.mark.parametrize(
    ("facts", "error"),
    [
        ({"relation": "zero_out"}, Incompatible),
        ({"unit": "user"}, Incompatible),
        ({"dataset": "other 1"}, Incompatible),
        ({"budget": Budget(1.0, 1e-4)}, BudgetExceeded),
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
    with pytest.raises(error):
        run(load_config(SECRET), tmp_path)
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        assert [e.kind for e in ledger.entries()] == ["genesis"]


@pytest.mark.parametrize(
    ("old", "new", "error", "words"),
    [
        ("digits", "digit", ValueError, "digits"),
        ('"mlp"', '"resnet"', ValueError, "resnet"),
        ('"mlp"\nhidden = [16]', '"cnn"', ValueError, "20 by 20"),
        ('"mlp"', '"linear"', ValueError, r"model\.hidden=\[16\].*'linear'"),
        ('unit = "example"', 'unit = "user"', ValueError, "unit"),
        ("delta = 1e-4", "delta = 1e-3", ValueError, "1/n"),
        ("expected_batch_size = 200", "expected_batch_size = 9999", ValueError, "9999"),
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


def test_a_data_set_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("DPKIT_CACHE", str(tmp_path / "cache"))
    config = SECRET.replace("digits", "mnist").replace("delta = 1e-4", "delta = 1e-5")
    with pytest.raises(DataUnavailable, match="mnist"):
        run(load_config(config), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_full_disk_releases_nothing_and_can_be_resumed(tmp_path, monkeypatch):
    import os as os_module

    out = tmp_path / "run"
    real = os_module.fsync

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os_module, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        run(load_config(SECRET), out)
    assert not (out / "result.json").exists()
    monkeypatch.setattr(os_module, "fsync", real)
    assert not run(load_config(SECRET), out).already_finished


@pytest.mark.parametrize("moment", ["_npz", "_result"])
def test_a_death_after_the_last_step_is_no_loss(tmp_path, monkeypatch, moment):
    from dpkit.training import job

    def die(*args):
        raise Killed

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(job, moment, die)
        with pytest.raises(Killed):
            run(load_config(SECRET), out)
    assert (out / "private").exists()
    done = run(load_config(SECRET), out)
    assert not (out / "private").exists()
    with Ledger.open(out / "ledger.db") as ledger:
        kinds = [entry.kind for entry in ledger.entries()]
        assert kinds.count("reserve") == kinds.count("commit") == 1
        assert ledger.spent().upper == pytest.approx(done.result["epsilon"], rel=1e-12)


def start(out, config):
    command = [sys.executable, "-m", "dpkit", "train", str(config), "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kill_9_at_random_moments_changes_nothing(tmp_path):
    """20 moments drawn with a fixed seed; each run is started again until it ends."""
    config = tmp_path / "config.toml"
    config.write_text(CONFIG)
    began = time.monotonic()
    whole = start(tmp_path / "whole", config)
    assert whole.wait() == 0
    lasted = time.monotonic() - began
    want = json.loads((tmp_path / "whole" / "result.json").read_text())
    moments = random.Random(0)
    for number in range(20):
        out = tmp_path / str(number)
        process = start(out, config)
        time.sleep(moments.uniform(0.2, 1.0) * lasted)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process = start(out, config)
        assert process.wait() == 0, number
        result = json.loads((out / "result.json").read_text())
        assert result["params_sha256"] == want["params_sha256"], number
        assert not (out / "private").exists()
        with Ledger.open(out / "ledger.db") as ledger:
            ledger.verify()
            kinds = [entry.kind for entry in ledger.entries()]
            assert kinds.count("reserve") == 1
            assert ledger.spent().upper == pytest.approx(want["epsilon"], rel=1e-12)
