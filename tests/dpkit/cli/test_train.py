"""`train` and `demo` around a stand-in for the run: what they pass on and print."""

import dataclasses
import json
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

import dpkit.jobs
import dpkit.training
from dpkit.accountants.answers.bounds import Budget
from dpkit.accountants.answers.errors import BudgetExceeded, Incompatible, LedgerCorrupt
from dpkit.cli import jobs
from dpkit.cli.app import app
from dpkit.data.errors import DataUnavailable
from dpkit.jobs import Progress

RUN = CliRunner()
TITLE = "at delta 1e-5, add_remove, unit example"
SCORE = ("accuracy 50.00 %",)
RESULT = {
    "schema_version": 1,
    "sampling": "poisson",
    "max_batch_size": 352,
    "epsilon": 2.99911,
    "certified": True,
    "delta": 1e-5,
    "relation": "add_remove",
    "unit": "example",
    "accountant": "pld",
    "shown": [["test accuracy", "97.63 %", "on public rows"]],
    "ledger_head": "7f" * 32,
    "insecure_seed": False,
    "evaluation": "public",
}
CONFIG = """
[data]
name = "mnist"
evaluation = "public"
[model]
name = "cnn"
[privacy]
epsilon = 3.0
delta = 1e-5
relation = "add_remove"
unit = "example"
sampling = "poisson"
clip_norm = 0.1
[training]
steps = 3
expected_batch_size = 256
learning_rate = 0.5
"""


@dataclasses.dataclass
class FakeRun:
    """Stands for `dpkit.jobs.run`: keeps what it was asked, tells three steps."""

    result: dict = dataclasses.field(default_factory=lambda: dict(RESULT))
    already_finished: bool = False
    error: Exception | None = None
    timed: bool = True
    calls: list = dataclasses.field(default_factory=list)

    def __call__(self, job, config, out, *, ledger, offline, on_progress, on_message):
        asked = {"job": job.name, "config": config, "out": out}
        asked |= {"offline": offline, "ledger": ledger}
        self.calls.append(SimpleNamespace(**asked))
        if self.error is not None:
            raise self.error
        on_message("fetching")
        for step, score in ((1, ()), (2, SCORE), (3, SCORE)):
            shown = (*score, *(("1,234/s",) if self.timed else ()))
            told = Progress(step, 3, "training", step / 3, shown, self.timed, TITLE)
            on_progress(told)
        return SimpleNamespace(
            result=self.result, folder=out, already_finished=self.already_finished
        )


@pytest.fixture
def fake(monkeypatch):
    stand_in = FakeRun()
    # Not setattr: it would first look the real one up, and so load JAX.
    monkeypatch.setitem(vars(dpkit.jobs), "run", stand_in)
    return stand_in


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "my.toml"
    path.write_text(CONFIG)
    return path


def test_demo_trains_the_packaged_configuration(fake):
    done = RUN.invoke(app, ["demo"])
    assert done.exit_code == 0, done.stderr
    (call,) = fake.calls
    assert str(call.out) == "runs/demo"
    assert not call.offline
    assert call.config.data.allow_download
    assert call.config.data.name == "mnist"
    assert call.config.privacy.epsilon <= 3
    assert call.config.privacy.delta == 1e-5
    assert call.config.test is None


def test_demo_ends_with_the_facts(fake, tmp_path):
    done = RUN.invoke(app, ["demo", "--out", str(tmp_path / "x")])
    for part in (
        "97.63 %",
        "3, certified upper bound (pld)",
        "1e-5",
        "add_remove",
        "example",
        str(tmp_path / "x"),
    ):
        assert part in done.stdout
    assert "estimate" not in done.stdout


def test_no_terminal_no_bar_but_lines(fake):
    done = RUN.invoke(app, ["demo"])
    title = "(at delta 1e-5, add_remove, unit example)"
    assert done.stderr.splitlines() == [
        f"step 1/3 · epsilon 0.3334 so far · 1,234/s {title}",
        f"step 2/3 · epsilon 0.6667 so far · accuracy 50.00 % · 1,234/s {title}",
        f"step 3/3 · epsilon 1 so far · accuracy 50.00 % · 1,234/s {title}",
    ]


@pytest.mark.parametrize("score", [(), SCORE])
def test_lines_come_by_step_and_whatever_the_score(score, capsys):
    with jobs.shown_progress() as (on_progress, _):
        for step in range(1, 412):
            on_progress(Progress(step, 411, "training", 1.0, score, at="title"))
    lines = capsys.readouterr().err.splitlines()
    steps = [int(line.split()[1].partition("/")[0]) for line in lines]
    assert steps == [*range(20, 411, 20), 411]


def test_no_time_left_where_time_is_private(fake, config, tmp_path):
    fake.timed = False
    words = ["train", str(config), "--out", str(tmp_path / "run")]
    assert "/s" not in RUN.invoke(app, words).stderr
    env = {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "120"}
    on_terminal = RUN.invoke(app, words, env=env).stderr
    assert "3/3" in on_terminal and "/s" not in on_terminal
    assert "0:0" not in on_terminal and "--:--" not in on_terminal
    fake.timed = True
    assert "0:0" in RUN.invoke(app, words, env=env).stderr


def test_on_a_terminal_a_bar_on_standard_error(fake):
    env = {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "120"}
    done = RUN.invoke(app, ["demo"], env=env)
    assert done.exit_code == 0
    for part in (
        "3/3",
        "epsilon 1",
        "accuracy 50.00 %",
        "1,234/s",
        "delta 1e-5",
        "add_remove",
        "fetching",
    ):
        assert part in done.stderr
    assert "1,234/s" not in done.stdout


def test_json_is_the_result_and_nothing_else(fake, config, tmp_path):
    done = RUN.invoke(app, ["train", str(config), "--out", str(tmp_path), "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout) == RESULT


def test_train_passes_its_configuration_on(fake, config, tmp_path):
    out = tmp_path / "run"
    done = RUN.invoke(app, ["train", str(config), "--out", str(out)])
    assert done.exit_code == 0, done.stderr
    (call,) = fake.calls
    assert call.out == out
    assert not call.offline
    assert call.config.data.allow_download
    assert call.config.text == CONFIG
    RUN.invoke(app, ["train", str(config), "--out", str(out), "--offline"])
    assert fake.calls[1].offline


@pytest.mark.parametrize("command", ["demo", "train"])
def test_a_finished_run_says_so(fake, config, tmp_path, command):
    fake.already_finished = True
    words = ["demo"] if command == "demo" else ["train", str(config)]
    done = RUN.invoke(app, [*words, "--out", str(tmp_path), "--json"])
    assert done.exit_code == 0
    assert "already finished; nothing was changed" in done.stderr
    assert json.loads(done.stdout) == RESULT


def test_a_fixed_seed_is_loud(fake):
    fake.result["insecure_seed"] = True
    done = RUN.invoke(app, ["demo"])
    assert "NO PRIVACY" in done.stdout
    assert "3, certified" not in done.stdout


def test_an_uncertified_epsilon_is_called_an_estimate(fake):
    fake.result["certified"] = False
    done = RUN.invoke(app, ["demo"])
    assert "2.999, an estimate, not certified" in done.stdout


def test_private_evaluation_prints_no_accuracy(fake):
    fake.result |= {"shown": [], "evaluation": "private"}
    done = RUN.invoke(app, ["demo"])
    assert "accuracy" not in done.stdout


@pytest.mark.parametrize(
    "error, code",
    [
        (BudgetExceeded(1.0, 2.5, Budget(3.0, 1e-5)), 1),
        (ValueError("out='x' holds the run of another configuration"), 2),
        (DataUnavailable("name='mnist': not in the cache"), 2),
        (LedgerCorrupt("entry seq=3: its text and its hash differ"), 3),
        (Incompatible("unit='user' but the ledger counts unit='example'"), 5),
    ],
)
def test_a_refusal_is_one_line_and_a_code(fake, config, tmp_path, error, code):
    fake.error = error
    done = RUN.invoke(app, ["train", str(config), "--out", str(tmp_path), "--json"])
    assert done.exit_code == code
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert str(error) in done.stderr


def test_a_refused_folder_names_the_option(fake, config, tmp_path):
    fake.error = ValueError("out='x' holds the run of another configuration")
    done = RUN.invoke(app, ["train", str(config), "--out", str(tmp_path)])
    assert "--out: out='x'" in done.stderr


@pytest.mark.parametrize(
    "change, named",
    [
        (("delta = 1e-5", "delta = 2.0"), "privacy.delta=2.0"),
        (('sampling = "poisson"', 'sampling = "shuffle"'), "privacy.sampling"),
        (
            ("clip_norm = 0.1", "clip_norm = 0"),
            "privacy.clip_norm=0 must be",
        ),
        (("steps = 3", "step = 3"), "training.step"),
        (("[model]", "[modell]"), "modell"),
        (("= 3\n", "= \n"), "not TOML"),
    ],
)
def test_bad_configuration(fake, tmp_path, change, named):
    path = tmp_path / "bad.toml"
    path.write_text(CONFIG.replace(*change))
    done = RUN.invoke(app, ["train", str(path), "--out", str(tmp_path / "run")])
    assert done.exit_code == 2
    assert named in done.stderr
    assert done.stderr.count("\n") == 1
    assert fake.calls == []
    assert not (tmp_path / "run").exists()


def test_missing_configuration(fake, tmp_path):
    path = tmp_path / "none.toml"
    done = RUN.invoke(app, ["train", str(path), "--out", str(tmp_path)])
    assert done.exit_code == 2
    assert str(path) in done.stderr
    assert fake.calls == []


def test_write_config_copies_and_never_overwrites(fake, tmp_path):
    path = tmp_path / "my.toml"
    done = RUN.invoke(app, ["demo", "--write-config", str(path)])
    assert done.exit_code == 0
    assert fake.calls == []
    text = path.read_text()
    assert dpkit.training.load_config(path).data.name == "mnist"
    path.write_text("mine")
    again = RUN.invoke(app, ["demo", "--write-config", str(path)])
    assert again.exit_code == 2
    assert "--write-config" in again.stderr
    assert path.read_text() == "mine"
    RUN.invoke(app, ["demo"])
    assert fake.calls[0].config.text == text


def test_demo_has_an_example_on_text(fake, tmp_path):
    fake.result["shown"] = [["bits per character", "3.142", "on public rows"]]
    done = RUN.invoke(app, ["demo", "--example", "language"])
    assert done.exit_code == 0, done.stderr
    (call,) = fake.calls
    assert str(call.out) == "runs/language"
    assert call.config.data.name == "shakespeare"
    assert "bits per character" in done.stdout and "3.142" in done.stdout
    path = tmp_path / "text.toml"
    RUN.invoke(app, ["demo", "--example", "language", "--write-config", str(path)])
    assert path.read_text() == call.config.text


def test_figures_leave_out_what_is_not_known():
    told = Progress(1, 2, "training", 1.23451, ("10/s",))
    assert jobs.figures(told) == "epsilon 1.235 so far · 10/s"
    assert jobs.figures(Progress(1, 2, "training", None)) == ""
