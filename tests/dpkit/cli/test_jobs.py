"""What commands do with a job's own configuration, in earnest and on dry land."""

import json
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dpkit import DPSGDPlan
from dpkit.cli.app import app
from dpkit.cli.jobs import JOBS, config_type
from dpkit.data import loading
from dpkit.jobs import reference
from dpkit.training import load_config
from tests.dpkit.jobs.test_lifecycle import TRAIN

RUN = CliRunner()
ROOT = Path(__file__).parents[3]
MNIST = TRAIN.replace("digits", "mnist").replace("1e-4", "1e-5")
PLAN = DPSGDPlan.create(
    max_records=60_000,
    expected_batch_size=100,
    steps=2,
    clip_norm=1.0,
    noise_multiplier=2.0,
)
pytestmark = pytest.mark.usefixtures("quick_compilation", "no_curves")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a configuration on a data set that isn't on this machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DPKIT_CACHE", str(tmp_path / "nowhere"))
    (tmp_path / "my.toml").write_text(MNIST)
    return tmp_path


@pytest.fixture
def unmeasured(monkeypatch):
    """No step is taken to time it."""
    found = (10**6, 0.5)
    monkeypatch.setattr("dpkit.training.estimate._measured", lambda *given: found)


def invoke(line, code=0):
    done = RUN.invoke(app, shlex.split(line))
    assert done.exit_code == code, done.output
    return done


@pytest.mark.slow
@pytest.mark.guard
def test_a_dry_run_needs_no_data_and_leaves_nothing(here, request):
    bound = PLAN.epsilon(1e-5, relation="add_remove")
    told = json.loads(invoke("train my.toml --dry-run --json").stdout)
    assert told["bound"]["upper"] == bound.upper
    assert told["estimate"]["steps"] == 2
    assert told["estimate"]["seconds"] >= 0
    # A batch is 150-odd rows of 784 bytes, the parameters are 7,850 floats.
    assert 1e5 < told["estimate"]["memory_bytes"] < 1e9
    request.getfixturevalue("unmeasured")
    text = invoke("train my.toml --dry-run").stdout
    for part in ("add_remove", "mnist 3.0.1", "noise multiplier", "about", "nothing"):
        assert part in text
    assert [p.name for p in here.iterdir()] == ["my.toml"]


@pytest.mark.parametrize(
    "line", ["epsilon my.toml", "check my.toml --max-epsilon 9 --delta 1e-5"]
)
def test_budgets_read_the_jobs_own_configuration(here, line):
    told = json.loads(invoke(f"budget {line} --json").stdout)
    assert told["upper"] == PLAN.epsilon(1e-5, relation="add_remove").upper
    assert [p.name for p in here.iterdir()] == ["my.toml"]


def test_a_configuration_is_a_gate_and_a_curve(here):
    invoke("budget check my.toml --max-epsilon 0.001 --delta 1e-5", code=1)
    invoke("budget check my.toml --max-epsilon 9 --delta 1e-5 --unit user", code=5)
    invoke("budget epsilon my.toml --relation zero_out", code=5)
    told = json.loads(invoke("budget curve my.toml --json").stdout)
    assert [x for x, _ in told["curve"]["points"]] == [1.0, 2.0]
    done = json.loads(
        invoke("budget calibrate my.toml --epsilon 0.4 --solve steps --json").stdout
    )
    assert done["steps"] > 2


def test_a_size_that_nobody_published_is_asked_for(here):
    (here / "my.toml").write_text(MNIST.replace('"mnist"', '"mine"'))
    done = invoke("budget epsilon my.toml", code=2)
    assert "data.name='mine'" in done.stderr


def test_settings_on_the_line_take_the_place_of_the_files(here, unmeasured):
    line = "train my.toml --dry-run --json --set training.steps=5"
    told = json.loads(invoke(f"{line} --set privacy.noise_multiplier=3").stdout)
    assert told["estimate"]["steps"] == 5
    assert told["estimate"]["noise_multiplier"] == 3.0
    for change, words in [
        ("training.step=5", "training.step is not known: did you mean 'steps'?"),
        ("training.batch_size=5", "did you mean 'expected_batch_size'?"),
        ("steps=5", "must be section.key=value"),
        ("privacy.delta=nan", "privacy.delta=nan must be finite"),
    ]:
        done = invoke(f"train my.toml --dry-run --set {change}", code=2)
        assert words in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.guard
def test_what_was_set_is_what_the_folder_says(here):
    (here / "my.toml").write_text(TRAIN)
    invoke("train my.toml --out run --set training.steps=1 --set data.name=digits")
    config = load_config(here / "run" / "config.toml")
    assert config.training.steps == 1
    assert json.loads((here / "run" / "result.json").read_text())["steps"] == 1
    done = invoke("train run/config.toml --out run")
    assert "already finished" in done.stderr


@pytest.mark.slow
@pytest.mark.guard
def test_a_ledger_on_the_line(here):
    (here / "my.toml").write_text(TRAIN)
    done = invoke("train my.toml --out run --ledger team.db", code=2)
    assert "--ledger: ledger='team.db' doesn't exist" in done.stderr
    assert not (here / "run").exists()
    terms = "--epsilon 9 --delta 1e-3 --relation add_remove"
    invoke(f"ledger init team.db {terms} --unit user --dataset 'digits 1.0.0'")
    invoke("train my.toml --out run --ledger team.db", code=5)
    invoke(f"ledger init it.db {terms} --unit example --dataset 'digits 1.0.0'")
    invoke(f"train my.toml --out run --ledger sqlite:///{here}/it.db")
    entries = json.loads(invoke("ledger show it.db --json").stdout)["entries"]
    assert [e["kind"] for e in entries].count("reserve") == 1


@pytest.mark.parametrize(
    "line",
    [
        "train my.toml --dry-run",
        "budget epsilon my.toml",
        "budget check my.toml --max-epsilon 9 --delta 1e-5",
        "budget curve my.toml",
    ],
)
def test_a_known_seed_is_no_privacy_before_the_run_as_well(here, unmeasured, line):
    assert "NO PRIVACY" not in invoke(line).output
    (here / "my.toml").write_text(MNIST + "[test]\ninsecure_seed = 1\n")
    assert "NO PRIVACY" in invoke(line, code=1 if "check" in line else 0).output
    if "check" not in line and "curve" not in line:
        assert "NO PRIVACY" in invoke(f"{line} --json").stdout


def test_a_known_seed_passes_no_gate(here):
    """Neither before the run nor after it: exit 0 once came with NO PRIVACY."""
    (here / "my.toml").write_text(TRAIN + "[test]\ninsecure_seed = 1\n")
    invoke("train my.toml --out seeded")
    for what in ("my.toml", "seeded"):
        line = f"budget check {what} --delta 1e-3 --max-epsilon"
        done = invoke(f"{line} 9 --json", code=1)
        assert "known seed: an infinite epsilon exceeds --max-epsilon 9" in done.stderr
        told = json.loads(done.stdout)
        assert (told["ok"], told["insecure_seed"]) == (False, True)
        invoke(f"{line} inf")


def test_a_run_needs_a_folder(here):
    assert "missing option --out" in invoke("train my.toml", code=2).stderr


def test_the_batch_size_gives_the_rate():
    common = "--noise-multiplier 1.1 --steps 100 --delta 1e-5 --relation add_remove"
    common += " --sampling poisson --json"
    rate = invoke(f"budget epsilon {common} --sampling-rate 0.01").stdout
    want = json.loads(rate)["upper"]
    for size, records in [
        ("--expected-batch-size", "--max-records"),
        ("--batch-size", "--dataset-size"),
    ]:
        done = invoke(f"budget epsilon {common} {size} 100 {records} 10000")
        assert json.loads(done.stdout)["upper"] == want
    for bad in ("--batch-size 100", "--batch-size 9 --max-records 5"):
        assert (
            "expected_batch_size" in invoke(f"budget epsilon {common} {bad}", 2).stderr
        )
    both = "--batch-size 100 --max-records 10000 --sampling-rate 0.01"
    assert "in the place of" in invoke(f"budget epsilon {common} {both}", 2).stderr


def test_the_schema_tells_an_editor_what_is_taken():
    schema = json.loads(invoke("schema train").stdout)
    whole = schema["$defs"]["Config"]
    assert whole["required"] == ["data", "model", "privacy", "training"]
    section = schema["$defs"]["TrainingSection"]
    assert section["required"] == ["learning_rate"]
    assert section["additionalProperties"] is False
    assert section["properties"]["learning_rate"]["exclusiveMinimum"] == 0
    relation = schema["$defs"]["PrivacySection"]["properties"]["relation"]
    assert relation["enum"] == ["add_remove", "replace_one", "zero_out"]
    for struct in schema["$defs"].values():
        assert struct["description"] and "Example" not in struct["description"]
    assert "job='nothing'" in invoke("schema nothing", 2).stderr


@pytest.mark.parametrize("job", JOBS)
def test_every_setting_says_what_it_means(job):
    page = reference.markdown(config_type(job), job)
    for line in page.splitlines():
        if line.startswith("| `"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            assert all(cells[i] for i in (0, 1, 3)), line


@pytest.mark.parametrize(
    ("job", "name"),
    [("train", "config"), ("density", "config-density"), ("synth", "config-synthetic")],
)
def test_the_page_of_the_reference_is_current(job, name):
    page = (ROOT / "docs" / f"{name}.md").read_text()
    assert page == invoke(f"schema {job} --markdown").stdout, (
        f"run: dpkit schema {job} --markdown > docs/{name}.md"
    )


def test_a_data_set_is_described_without_its_rows():
    found = loading.described("mnist")
    assert found.schema.split_sizes["train"] == 60_000
    with pytest.raises(ValueError, match="did you mean 'mnist'"):
        loading.described("mnits")
