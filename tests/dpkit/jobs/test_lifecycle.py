"""What every job gets from the frame, run over a list of jobs: a toy, and training."""

import dataclasses
import json
import shlex
import shutil
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from dp_accounting import GaussianDpEvent, LaplaceDpEvent
from typer.testing import CliRunner

import dpkit.jobs.lifecycle as lifecycle
from dpkit import Budget, BudgetExceeded, Ledger, epsilon
from dpkit.accountants import PureDpEvent, sequential
from dpkit.accountants.answers.errors import Incompatible, LedgerCorrupt
from dpkit.cli.app import app
from dpkit.jobs import JobConfig, Prepared, Progress, dry_run, load, run
from dpkit.training.job import TRAINING
from tests.dpkit.jobs import toy

pytestmark = pytest.mark.usefixtures("quick_compilation", "no_curves")
RUN = CliRunner()
TOY = "[histogram]\nbins = 7\nscale = 2.0\n"
TRAIN = """
[data]
name = "digits"
evaluation = "public"
[model]
name = "linear"
[privacy]
noise_multiplier = 2.0
delta = 1e-4
relation = "add_remove"
unit = "example"
sampling = "poisson"
clip_norm = 1.0
[training]
mode = "microbatch"
steps = 2
expected_batch_size = 100
learning_rate = 2.0
microbatch_size = 32
devices = 1
"""


@dataclasses.dataclass(frozen=True)
class Case:
    """A job of the list: a configuration, another one, and what tells its release."""

    job: Any
    text: str
    other: str
    released: str
    kind: str
    dataset: str

    def config(self, text=None):
        return load(self.job.config, self.text if text is None else text)

    def ledger(self, where, epsilon=100.0, **changes):
        terms: dict[str, Any] = {"relation": "add_remove", "unit": "example"}
        terms |= {"dataset": self.dataset, "budget": Budget(epsilon, 5e-4)}
        return Ledger.open(where, **{**terms, **changes})


CASES = [
    Case(toy.Job(), TOY, TOY.replace("2.0", "3.0"), "counts", "spend", "toy"),
    Case(
        TRAINING,
        TRAIN,
        TRAIN.replace("steps = 2", "steps = 3"),
        "params_sha256",
        "reserve",
        "digits 1.0.0",
    ),
]
FRAME = (
    "schema_version job epsilon certified delta accountant relation unit dataset "
    "ledger ledger_head ledger_spent run_id started finished insecure_seed "
    "config_sha256 config_file_sha256 versions shown falsified"
).split()


class Killed(Exception):
    """Stands for a process that is gone."""


def die(*args):
    raise Killed


def kill(case, out, **options):
    """A run that dies between its charge and its result."""
    with pytest.raises(Killed):
        run(case.job, case.config(), out, on_progress=die, **options)


def doomed_summary(seen):
    """The frame's summary, dying the first time; what it returns is seen."""
    real = lifecycle.summary

    def watched(*given):
        seen.append(real(*given))
        if len(seen) == 1:
            raise Killed
        return seen[-1]

    return watched


def charges(where):
    with Ledger.open(where) as ledger:
        ledger.verify()
        return [e for e in ledger.entries() if e.kind in ("spend", "reserve")]


def everything_in(folder):
    return {p: p.read_bytes() for p in folder.rglob("*.*") if p.is_file()}


# The frame is the same for all jobs: the fast suite has the cheap one.
OFTEN = [pytest.mark.slow, pytest.mark.guard]
JOBS = [
    pytest.param(case, id=case.job.name, marks=OFTEN if i else [])
    for i, case in enumerate(CASES)
]


@pytest.fixture(scope="module", params=JOBS)
def case(request, quick_compilation):
    return request.param


@pytest.fixture(scope="module")
def finished(case, tmp_path_factory):
    """A run and its folder; no test changes it."""
    out = tmp_path_factory.mktemp("finished") / "run"
    return run(case.job, case.config(), out), out


@pytest.fixture(scope="module")
def dead(case, tmp_path_factory):
    """Killed after the release, before the result: what it found, and its folder."""
    out, seen = tmp_path_factory.mktemp("dead") / "run", []
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(lifecycle, "summary", doomed_summary(seen))
        run(case.job, case.config(), out)
    return seen[0], out


@pytest.fixture(scope="module")
def killed(case, tmp_path_factory):
    """A killed run, the shared ledger that it was charged to, and that one before."""
    there = tmp_path_factory.mktemp("killed")
    case.ledger(there / "team.db").close()
    shutil.copy(there / "team.db", there / "older.db")
    kill(case, there / "run", ledger=there / "team.db")
    return there


def test_a_run_ends_with_a_result_a_report_and_no_secrets(case, finished):
    done, out = finished
    result = json.loads((out / "result.json").read_text())
    assert result == done.result
    assert result["job"] == case.job.name
    assert not (out / "private").exists()
    with Ledger.open(out / "ledger.db") as ledger:
        assert ledger.spent(result["delta"]).upper == pytest.approx(
            result["epsilon"], rel=1e-6
        )
        assert (ledger.head, ledger.id) == (result["ledger_head"], result["ledger"])
    page = (out / "report.html").read_text()
    for part in ("The guarantee", "What is not covered", result["ledger_head"]):
        assert part in page
    again = run(case.job, case.config("# same\n" + case.text), out)
    assert again.already_finished and again.result == result


def test_the_toys_report_has_its_section(tmp_path):
    done = run(toy.Job(), CASES[0].config(), tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<h2" in page and "Counts" in page
    assert f"{done.result['counts'][0]:.4f}"[:6] in page


def test_a_killed_run_pays_once_and_repeats_its_noise(case, dead, finished, tmp_path):
    """Killed after the release, before the result: the same charge, the same noise."""
    seen, out = dead[0], shutil.copytree(dead[1], tmp_path / "run")
    assert not (out / "result.json").exists()
    first = charges(out / "ledger.db")
    done = run(case.job, case.config(), out)
    assert done.result[case.released] == seen[case.released]
    assert charges(out / "ledger.db") == first
    assert len(first) == 1 and first[0].kind == case.kind
    # Another run has other noise.
    assert finished[0].result[case.released] != done.result[case.released]


def test_a_changed_configuration_is_refused(case, dead, finished):
    for _, out in (dead, finished):
        before = everything_in(out)
        with pytest.raises(ValueError, match="another configuration"):
            run(case.job, case.config(case.other), out)
        assert everything_in(out) == before


def test_other_data_are_refused_on_resumption(tmp_path, monkeypatch):
    kill(CASES[0], tmp_path / "run")
    monkeypatch.setattr(toy, "COLUMN", toy.COLUMN[1:])
    with pytest.raises(ValueError, match="data differs from the unfinished run"):
        run(toy.Job(), CASES[0].config(), tmp_path / "run")
    assert len(charges(tmp_path / "run" / "ledger.db")) == 1


@pytest.mark.parametrize(
    "form", ["sqlite:///{}", pytest.param("{}", marks=pytest.mark.slow)]
)
def test_a_shared_ledger_by_file_and_url(case, tmp_path, form):
    where = tmp_path / "team.db"
    case.ledger(where).close()
    text = f'{case.text}[ledger]\nurl = "{form.format(where)}"\nlabel = "monday"\n'
    text += "share = { epsilon = 50, delta = 4e-5 }\n"
    done = run(case.job, case.config(text), tmp_path / "first")
    run(case.job, case.config(), tmp_path / "second", ledger=form.format(where))
    first, second = charges(where)
    assert first.label.startswith("monday") and "monday" not in second.label
    assert first.body["provenance"]["run_id"] == done.result["run_id"]
    assert not (tmp_path / "first" / "ledger.db").exists()
    with Ledger.open(where) as ledger:
        assert done.result["ledger"] == ledger.id


def test_a_killed_run_on_a_shared_ledger_pays_once(case, killed, tmp_path):
    out = shutil.copytree(killed, tmp_path / "there") / "run"
    with pytest.raises(LedgerCorrupt, match="not the ledger"):
        run(case.job, case.config(), out)  # where is it?
    run(case.job, case.config(), out, ledger=str(out.parent / "team.db"))
    assert len(charges(out.parent / "team.db")) == 1


def test_a_ledger_that_forgot_the_run_is_found_out(case, killed, tmp_path):
    out = shutil.copytree(killed, tmp_path / "there") / "run"
    where = (out.parent / "older.db").replace(out.parent / "team.db")
    older = where.read_bytes()
    with pytest.raises(LedgerCorrupt, match="replaced or cut"):
        run(case.job, case.config(), out, ledger=where)
    assert where.read_bytes() == older


@pytest.mark.parametrize("shared", [True, False])
def test_what_passes_the_budget_leaves_nothing(case, tmp_path, shared, monkeypatch):
    where = tmp_path / "team.db"
    case.ledger(where, epsilon=0.01).close()
    before = where.read_bytes()
    text, ledger = case.text, where
    if not shared:  # but for a part of a budget that is large enough
        where.unlink()
        case.ledger(where).close()
        before = where.read_bytes()
        text += f'[ledger]\nurl = "{where}"\nshare = {{ epsilon = 0.01, delta = 1e-5 }}'
        ledger = None
    with pytest.raises(BudgetExceeded, match=None if shared else "ledger.share"):
        run(case.job, case.config(text), tmp_path / "runs" / "one", ledger=ledger)
    assert where.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["team.db"]


@pytest.mark.parametrize(
    "term", [{"relation": "zero_out"}, {"unit": "user"}, {"dataset": "another"}]
)
def test_a_shared_ledger_must_agree(case, tmp_path, term):
    case.ledger(tmp_path / "team.db", **term).close()
    with pytest.raises(Incompatible):
        run(case.job, case.config(), tmp_path / "run", ledger=tmp_path / "team.db")
    assert not (tmp_path / "run").exists()


def test_the_advice_about_a_missing_ledger_works_when_typed(case, tmp_path):
    where = str(tmp_path / "our team's.db")
    with pytest.raises(ValueError, match="doesn't exist") as caught:
        run(case.job, case.config(), tmp_path / "run", ledger=where)
    assert not (tmp_path / "run").exists()
    assert "\n" not in str(caught.value)
    command = str(caught.value).partition("dpkit ")[2]
    made = RUN.invoke(app, shlex.split(command))
    assert made.exit_code == 0, made.output
    run(case.job, case.config(), tmp_path / "run", ledger=where)
    assert len(charges(where)) == 1


def test_a_dry_run_spends_and_writes_nothing(case, finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cost = dry_run(case.job, case.config())
    assert list(tmp_path.iterdir()) == []
    done = finished[0]
    assert cost.bound is not None
    assert cost.bound.upper == pytest.approx(done.result["epsilon"], rel=1e-6)
    assert cost.to_json()["relation"] == "add_remove"


def test_a_known_seed_is_marked_and_shares_no_ledger(case, tmp_path):
    text = case.text + "[test]\ninsecure_seed = 3\n"
    results = [run(case.job, case.config(text), tmp_path / n).result for n in "ab"]
    assert results[0][case.released] == results[1][case.released]
    assert results[0]["insecure_seed"] is True
    assert "Insecure seed" in (tmp_path / "a" / "report.html").read_text()
    (entry,) = charges(tmp_path / "a" / "ledger.db")
    assert entry.body["provenance"]["insecure_seed"] is True
    case.ledger(tmp_path / "team.db").close()
    with pytest.raises(ValueError, match=r"test\.insecure_seed=3 with a shared"):
        run(case.job, case.config(text), tmp_path / "c", ledger=tmp_path / "team.db")


def test_a_share_needs_a_shared_ledger(tmp_path):
    text = TOY + "[ledger]\nshare = { epsilon = 1, delta = 0 }\n"
    with pytest.raises(ValueError, match=r"ledger\.share is a part of a shared"):
        run(toy.Job(), CASES[0].config(text), tmp_path / "run")


def test_no_password_is_written_or_repeated(tmp_path):
    url = "postgresql://me:hunter2@127.0.0.1:1/db"
    with pytest.raises(ValueError, match=r"ledger\.url holds a password") as caught:
        load(toy.Config, f'{TOY}[ledger]\nurl = "{url}"\n')
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ValueError) as caught:
        load(toy.Config, f'{TOY}[ledger]\nlabel = 3\nurl = ["{url}"]\n')
    assert "hunter2" not in str(caught.value)
    with pytest.raises((OSError, ValueError)) as caught:
        run(toy.Job(), CASES[0].config(), tmp_path / "run", ledger=url)
    assert "hunter2" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_configuration_made_by_hand_is_checked_and_written(tmp_path):
    made = toy.Config(histogram=toy.HistogramSection(bins=7, scale=-1.0))
    with pytest.raises(ValueError, match=r"histogram\.scale=-1\.0 must be"):
        run(toy.Job(), made, tmp_path / "run")
    made = msgspec.structs.replace(
        made, histogram=toy.HistogramSection(bins=7, scale=2.0)
    )
    run(toy.Job(), made, tmp_path / "run")
    assert run(toy.Job(), CASES[0].config(), tmp_path / "run").already_finished
    read = load(toy.Config, tmp_path / "run" / "config.toml")
    assert read == made


def session(tmp_path, ledger):
    from dpkit.jobs.session import Session

    folder = lifecycle.RunFolder(tmp_path / "run")
    folder.prepare()
    begun = Session.begin(folder)
    begun.agree(ledger=ledger.id)
    return begun


def test_a_name_is_charged_once_a_run(tmp_path):
    ledger = CASES[0].ledger(None)
    begun = session(tmp_path, ledger)
    with pytest.raises(ValueError, match=r"agree\(data="):
        begun.charge(ledger, LaplaceDpEvent(1.0), "a")
    assert len(ledger.entries()) == 1
    begun.agree(data="x")
    keys = [begun.charge(ledger, LaplaceDpEvent(1.0), name) for name in "ab"]
    assert keys[0] != keys[1]
    with pytest.raises(ValueError, match="'a' was charged in this run before"):
        begun.charge(ledger, LaplaceDpEvent(1.0), "a")
    assert len(ledger.entries()) == 3
    again = session(tmp_path, ledger)
    again.agree(data="x")
    assert again.charge(ledger, LaplaceDpEvent(1.0), "b") == keys[1]
    assert len(ledger.entries()) == 3


def test_the_charges_of_a_run_stay_within_its_part(tmp_path):
    ledger = CASES[0].ledger(None)
    begun = session(tmp_path, ledger)
    begun.agree(data="x")
    begun.part = Budget(2.5, 0.0)
    for name in "ab":
        begun.charge(ledger, LaplaceDpEvent(1.0), name)
    before = ledger.head
    with pytest.raises(BudgetExceeded, match="share"):
        begun.charge(ledger, LaplaceDpEvent(1.0), "c")
    again = session(tmp_path, ledger)  # what was charged before counts
    again.agree(data="x")
    again.part = Budget(2.5, 0.0)
    again.charge(ledger, LaplaceDpEvent(1.0), "b")
    with pytest.raises(BudgetExceeded, match="share"):
        again.charge(ledger, LaplaceDpEvent(1.0), "c")
    assert ledger.head == before


def test_a_job_that_forgets_to_charge_publishes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(
        lifecycle.Session, "charge", lambda self, *given: self.secrets.key("counts")
    )
    with pytest.raises(RuntimeError, match="charged nothing"):
        run(toy.Job(), CASES[0].config(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


class Charging(Prepared):
    """Charges events by their names, and shows what it is told to."""

    def __init__(self, events, delta=1e-5, **shown):
        self.terms = {"relation": "add_remove", "unit": "example", "dataset": "toy"}
        self.facts = {}
        self.events, self.shown = events, shown
        self.budget = Budget(9.0, delta)

    def run(self, session, ledger, on_progress):
        session.agree(data="x")
        for name, event in self.events.items():
            session.charge(ledger, event, name)
            on_progress(Progress(1, 1, name, None))
        return lifecycle.Outcome(title="", **self.shown)

    @property
    def job(self):
        return SimpleNamespace(
            name="charging", config=JobConfig, prepare=lambda *_, **__: self
        )


def published(charging, out, text="# nothing\n", **options):
    done = run(charging.job, load(JobConfig, text), out, **options)
    return done.result, (out / "report.html").read_text()


TWO = {"a": PureDpEvent(1.0), "b": PureDpEvent(1.0)}


@pytest.mark.parametrize("name", FRAME)
def test_a_fact_cannot_take_the_place_of_the_frames(name, tmp_path):
    """A page once said 0.01 where the ledger said 2, because the job did."""
    with pytest.raises(ValueError, match=f"facts\\['{name}'\\] is what every run says"):
        published(Charging(TWO, facts={name: 0.01}), tmp_path / "run")
    assert not (tmp_path / "run" / "report.html").exists()


def test_every_name_of_the_frame_is_refused_to_jobs(tmp_path):
    assert sorted(FRAME) == sorted(published(Charging(TWO), tmp_path / "run")[0])


def test_no_job_states_its_own_bound():
    with pytest.raises(TypeError, match="bound"):
        Outcome: Any = lifecycle.Outcome
        Outcome(title="", bound=None)


def test_what_is_shown_is_what_the_ledger_counts(tmp_path):
    result, page = published(Charging(TWO, delta=0.0), tmp_path / "run")
    assert (result["epsilon"], result["delta"], result["certified"]) == (2.0, 0.0, True)
    assert "≤ 2" in page and "No claim" not in page
    with Ledger.open(tmp_path / "run" / "ledger.db") as ledger:
        assert ledger.spent().upper == 2.0


def test_charges_that_need_a_delta_are_shown_by_the_ledgers_count(tmp_path):
    events = {"a": GaussianDpEvent(8.0), "b": PureDpEvent(0.5), "c": PureDpEvent(0.5)}
    result, _ = published(Charging(events), tmp_path / "run")
    with Ledger.open(tmp_path / "run" / "ledger.db") as ledger:
        assert result["epsilon"] == ledger.spent().upper
    event = sequential(list(events.values()))
    truth = epsilon(event, result["delta"], relation="add_remove").lower
    assert truth is not None and result["epsilon"] >= truth
    assert 0 < result["delta"] <= 1e-5


def test_of_a_shared_ledger_a_run_shows_its_own_part(tmp_path):
    where = tmp_path / "team.db"
    CASES[0].ledger(where).close()
    for name in "ab":
        result, _ = published(Charging(TWO), tmp_path / name, ledger=where)
        assert result["epsilon"] == 2.0
    with Ledger.open(where) as ledger:
        assert ledger.spent().upper == 4.0
        assert ledger.charged("nobody") is None


def test_one_reservation_is_shown_by_its_grant(tmp_path):
    seen = []

    class Reserving(Charging):
        def run(self, session, ledger, on_progress):
            session.agree(data="x")
            event = GaussianDpEvent(8.0)
            seen.append(session.reserve(ledger, event, 3, label="it", delta=1e-6))
            return lifecycle.Outcome(title="")

    result, _ = published(Reserving({}), tmp_path / "run")
    bound = seen[0].bound
    shown = (result["epsilon"], result["delta"], result["accountant"])
    assert shown == (bound.upper, 1e-6, bound.method_upper)


def test_a_run_that_charged_nothing_claims_nothing(tmp_path):
    result, page = published(Charging({}), tmp_path / "run")
    assert [result[name] for name in ("epsilon", "certified", "delta")] == [None] * 3
    assert "makes no claim about privacy" in page
    assert "was charged before" not in page and "≤" not in page


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("after", [True, False])
def test_a_charge_past_the_session_is_refused(tmp_path, shared, after):
    """On a shared ledger it once stood as nobody's, and the run didn't show it."""
    where = tmp_path / "team.db"
    CASES[0].ledger(where).close()

    class Past(Charging):
        def run(self, session, ledger, on_progress):
            if after:
                super().run(session, ledger, on_progress)
            ledger.charge(PureDpEvent(1.0), label="mine", key="another run's")
            return lifecycle.Outcome(title="")

    options = {"ledger": where} if shared else {}
    with pytest.raises(RuntimeError, match="'mine' is charged past its session"):
        published(Past(TWO), tmp_path / "run", **options)
    assert not (tmp_path / "run" / "result.json").exists()
    assert (tmp_path / "run").exists() == after
    own = where if shared else tmp_path / "run" / "ledger.db"
    assert shared or after or not own.exists()
    if shared or after:
        assert [entry.label for entry in charges(own)] == (["a", "b"] if after else [])


def test_a_resumed_run_pays_what_it_paid(tmp_path):
    """The part that a later charge took once made an earlier one dearer."""
    where = tmp_path / "team.db"
    CASES[0].ledger(where).close()
    events = {"a": GaussianDpEvent(4.0), "b": GaussianDpEvent(4.0)}
    part = "share = {{ epsilon = {}, delta = 1e-5 }}"
    spent = sum(
        epsilon(GaussianDpEvent(4.0), at, relation="add_remove").upper or 0.0
        for at in (5e-6, 2.5e-6)
    )
    text = f'[ledger]\nurl = "{where}"\n{part.format(spent * 1.0001)}\n'
    seen = []

    def second(progress):
        seen.append(progress.doing)
        if seen == ["a", "b"]:
            raise Killed

    with pytest.raises(Killed):
        published(Charging(events), tmp_path / "run", text, on_progress=second)
    before = charges(where)
    published(Charging(events), tmp_path / "run", text)
    assert charges(where) == before and len(before) == 2


def test_a_dry_run_of_a_known_seed_says_so():
    cost = dry_run(toy.Job(), CASES[0].config(TOY + "[test]\ninsecure_seed = 3\n"))
    assert "NO PRIVACY" in cost.to_json()["warnings"][0]
    assert dry_run(toy.Job(), CASES[0].config()).warnings == ()


@pytest.mark.slow
def test_a_killed_run_on_a_postgresql_ledger_pays_once(
    case, tmp_path, postgres, monkeypatch
):
    """Killed between charge and result: the same charge, the same noise."""
    where, seen, real = postgres.url(), [], lifecycle.publish
    case.ledger(where).close()

    def watched(*given):
        seen.append(given[-1])
        if len(seen) == 1:
            raise Killed
        real(*given)

    monkeypatch.setattr(lifecycle, "publish", watched)
    with pytest.raises(Killed):
        run(case.job, case.config(), tmp_path / "run", ledger=where)
    first = charges(where)
    done = run(case.job, case.config(), tmp_path / "run", ledger=where)
    assert done.result[case.released] == seen[0][case.released]
    assert charges(where) == first and len(first) == 1
    assert not (tmp_path / "run" / "ledger.db").exists()


@pytest.mark.parametrize("name", ["result.json", "ledger.db", "a/b", ".x", "private"])
def test_a_job_cannot_write_over_the_frames_files(name):
    with pytest.raises(ValueError, match="no name for a file"):
        lifecycle.Outcome(title="", files={name: b""})
