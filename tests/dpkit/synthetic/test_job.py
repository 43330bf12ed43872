"""A synthetic table in the frame: what it pays, writes, refuses and shows."""

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from dp_accounting import GaussianDpEvent

from dpkit import Budget, BudgetExceeded, Ledger
from dpkit.accountants.answers.relations import Relation
from dpkit.jobs import dry_run, load, run
from dpkit.jobs.session import Session
from dpkit.mechanisms.tables import Marginals
from dpkit.synthetic import Model
from dpkit.synthetic import report as synthetic_report
from dpkit.synthetic.job import SYNTH
from tests.dpkit.synthetic.test_pairs import SCHEMA, people

pytestmark = [
    pytest.mark.guard,
    pytest.mark.slow,
    pytest.mark.usefixtures("quick_compilation", "no_curves"),
]
TEXT = """
[data]
path = "people.csv"
schema = "schema.json"
[synthetic]
rows = 500
[privacy]
epsilon = 1.0
delta = 1e-6
relation = "add_remove"
"""


@pytest.fixture
def here(tmp_path):
    write(tmp_path, people(600))
    (tmp_path / "schema.json").write_text(SCHEMA.text)
    return tmp_path


def write(folder, rows):
    pyarrow.csv.write_csv(pa.table(dict(rows)), folder / "people.csv")


def config(folder, *changes):
    return load(SYNTH.config, TEXT, changes, folder=folder)


def made(folder, *changes, out="out", **options):
    return run(SYNTH, config(folder, *changes), folder / out, **options).result


def charges(path):
    with Ledger.open(path) as ledger:
        return [e.kind for e in ledger.entries() if e.kind in ("reserve", "spend")]


def test_a_run_writes_what_may_be_shared_and_says_what_it_cost(here):
    result = made(here)
    assert sorted(path.name for path in (here / "out").iterdir()) == [
        "config.toml",
        "ledger.db",
        "model.safetensors",
        "report.html",
        "result.json",
        "schema.json",
        "synthetic.csv",
    ]
    with (here / "out" / "synthetic.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == list(SCHEMA.columns)
    assert len(rows) == 501 == result["rows"] + 1
    assert {row[0] for row in rows[1:]} == {"F", "M"}
    assert (result["mechanism"], result["columns"]) == ("pairs", 4)
    assert 0.9999 < result["epsilon"] <= 1
    assert (result["delta"], result["relation"]) == (1e-6, "add_remove")
    assert result["seconds"] > 0 and result["peak_memory_mb"] >= 0
    with Ledger.open(here / "out" / "ledger.db") as ledger:
        assert ledger.budget == Budget(1.0, 1e-6)
        assert ledger.head == result["ledger_head"]
        ledger.verify(recount=True)
    model = Model.load(here / "out")
    assert model.receipt["ledger_head"] == result["ledger_head"]
    assert model.receipt["epsilon"] == result["epsilon"]


def test_nothing_true_is_in_what_is_written(here):
    made(here)
    table = people(600)
    ages = np.bincount(table["age"] - 20, minlength=20)
    for path in (here / "out").iterdir():
        content = path.read_bytes()
        for kind in (np.int64, np.int32, np.float64):
            assert ages.astype(kind).tobytes() not in content
        assert ", ".join(map(str, ages[:6])).encode() not in content
    assert str(here) not in (here / "out" / "result.json").read_text()


def killed(folder, *changes, after=1):
    """A run that dies after its first noise, or some more."""
    real, seen = Marginals.privatize, []

    def fatal(self, key, total):
        seen.append(real(self, key, total))
        if len(seen) == after:
            raise KeyboardInterrupt
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Marginals, "privatize", fatal)
        with pytest.raises(KeyboardInterrupt):
            made(folder, *changes)
    return seen


def test_killed_after_the_charge_it_pays_once_and_has_the_same_noise(here):
    (first,) = killed(here)
    assert charges(here / "out" / "ledger.db") == ["reserve"]
    made(here)
    assert charges(here / "out" / "ledger.db") == ["reserve"]
    model = Model.load(here / "out")
    singles = np.concatenate(
        [one.values for one in model.fitted.measurements if len(one.columns) == 1]
    )
    np.testing.assert_array_equal(first, singles)


@pytest.mark.slow
def test_killed_between_releases_chosen_along_the_way_it_repeats_them(here):
    first = killed(here, "synthetic.mechanism=aim", after=3)
    paid = len(charges(here / "out" / "ledger.db"))
    assert paid == 5  # columns, then twice a choice and a table
    result = made(here, "synthetic.mechanism=aim")
    assert 0.9 < result["epsilon"] <= 1
    found = [one.values for one in Model.load(here / "out").fitted.measurements]
    assert len(charges(here / "out" / "ledger.db")) == 2 * len(found) - 2 * 4 + 1
    together = np.concatenate([values.ravel() for values in found])
    np.testing.assert_array_equal(
        together[: sum(one.size for one in first)], np.concatenate(first)
    )


@pytest.mark.parametrize("mechanism", ["pairs", "aim"])
def test_a_row_that_changed_is_refused_on_resumption(here, mechanism):
    killed(here, f"synthetic.mechanism={mechanism}")
    table = people(600)
    # Two rows exchange two values each: all tables of columns and pairs are the same.
    rows = np.array([table["sex"], table["age"], table["job"]]).T.tolist()
    whole = (here / "people.csv").read_text().splitlines()
    assert len(whole) == len(rows) + 1
    write(here, {name: np.roll(values, 1) for name, values in table.items()})
    with pytest.raises(ValueError, match="differs from the unfinished run"):
        made(here, f"synthetic.mechanism={mechanism}")


@pytest.mark.parametrize("mechanism", ["pairs", "aim"])
def test_a_budget_that_is_used_up_refuses_before_anything_is_told(here, mechanism):
    url = str(here / "team.db")
    terms = {"relation": "add_remove", "unit": "record", "dataset": "people.csv"}
    with Ledger.open(url, budget=Budget(1.0, 1e-6), **terms) as ledger:
        ledger.charge(GaussianDpEvent(4.7), label="before")
    with pytest.raises(BudgetExceeded):
        made(here, f"synthetic.mechanism={mechanism}", ledger=url)
    assert charges(url) == ["spend"]
    assert not (here / "out").exists()


def test_a_part_of_a_shared_ledger(here):
    url = str(here / "team.db")
    terms = {"relation": "add_remove", "unit": "record", "dataset": "people.csv"}
    with Ledger.open(url, budget=Budget(3.0, 1e-5), **terms):
        pass
    share = "ledger.share={ epsilon = 1.0, delta = 1e-6 }"
    result = made(here, share, ledger=url)
    assert 0.9999 < result["epsilon"] <= 1
    with pytest.raises(BudgetExceeded, match="share"):
        made(here, "ledger.share={ epsilon = 0.5, delta = 1e-6 }", ledger=url, out="b")
    assert charges(url) == ["reserve"]


def test_a_table_of_parquet_comes_back_as_one_too(here):
    table = pa.table(dict(people(600)))
    pyarrow.parquet.write_table(table, here / "people.parquet")
    made(here, "data.path=people.parquet")
    found = pyarrow.parquet.read_table(here / "out" / "synthetic.parquet")
    lines = (here / "out" / "synthetic.csv").read_text().splitlines()
    assert found.column_names == lines[0].split(",") == list(SCHEMA.columns)
    assert ",".join(map(str, found.slice(0, 1).to_pylist()[0].values())) == lines[1]


def test_counts_that_are_public_are_kept(here):
    known = (
        "synthetic.settings={ known = [{ columns = ['sex'], values = [300, 100] }] }"
    )
    made(here, known)
    rows = Model.load(here / "out").fitted.rows
    assert (rows[:, 0] == 0).sum() == 375  # of 500


def test_the_table_is_counted_before_anything_is_on_disk(here, monkeypatch):
    def begin(*given, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "begin", begin)
    (here / "people.csv").write_text("sex,age,job,same\nF,21,a,x\nM,2")
    with pytest.raises(ValueError, match="read to its end"):
        made(here)
    assert not (here / "out").exists()


def test_several_rows_of_a_person(here):
    table = people(600)
    table["who"] = np.arange(600) // 3
    write(here, table)
    (here / "schema.json").write_text(
        json.dumps({**SCHEMA.to_json(), "unit_column": "who"})
    )
    changes = ["privacy.unit=person", "privacy.rows_per_unit=2"]
    made(here, *changes)
    with Ledger.open(here / "out" / "ledger.db") as ledger:
        assert ledger.unit == "person"
    two = Model.load(here / "out").fitted.measurements[0].stddev
    write(here, people(600))
    (here / "schema.json").write_text(SCHEMA.text)
    made(here, out="one")
    one = Model.load(here / "one").fitted.measurements[0].stddev
    assert two == pytest.approx(2 * one, rel=1e-6)


def test_a_dry_run_reads_nothing_and_foretells(here):
    (here / "people.csv").unlink()
    cost = dry_run(SYNTH, config(here))
    assert cost.bound is not None and cost.bound.upper is not None
    assert 0.9999 < cost.bound.upper <= 1
    assert cost.estimate["measured"] == "7 tables"
    assert 0 < cost.estimate["expected_pair_variation"] < 1


def test_a_shared_ledger_refuses_before_anything_is_made(here):
    url = str(here / "team.db")
    with Ledger.open(
        url,
        budget=Budget(0.5, 1e-6),
        relation="add_remove",
        unit="record",
        dataset="people.csv",
    ):
        pass
    with pytest.raises(BudgetExceeded):
        made(here, ledger=url)
    assert not (here / "out").exists()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        (["synthetic.mechanism=best"], "mechanism"),
        (["synthetic.settings={sweep=3}"], "sweeps"),
        (["synthetic.sweeps=3"], "settings"),
        (
            [
                "synthetic.mechanism=aim",
                "ledger.url=a.db",
                "ledger.share={ epsilon = 1.0, delta = 1e-6 }",
            ],
            "leave it out",
        ),
        (["synthetic.settings={known=[{columns=['sex']}]}"], "known"),
        (["synthetic.settings={known=[{columns=['sex'], values=[1]}]}"], "shape"),
        (["synthetic.settings={pairs=[['sex','pay']]}"], "pairs"),
        (["synthetic.settings={sweeps='many'}"], "sweeps"),
        (["synthetic.mechanism=independent", "synthetic.impossible=few"], "impossible"),
        (["privacy.epsilon=0"], "epsilon"),
        (["privacy.delta=0"], "delta"),
        (["privacy.unit=person"], "rows_per_unit"),
        (["data.schema=none.json"], r"none\.json"),
        (["data.name=adult"], "name"),
        (["data.path=none.csv"], r"none\.csv"),
        (["synthetic.rows=0"], "rows"),
        (["synthetic.rows=100000000"], "rows"),
        (["synthetic.rows=100000000", "synthetic.mechanism=mst"], "rows"),
    ],
)
def test_what_is_refused(here, changes, word):
    with pytest.raises((ValueError, TypeError), match=word):
        made(here, *changes)
    assert not (here / "out").exists()


def test_a_column_too_wide_to_be_searched_is_refused_before_it_is_paid(here):
    wide = {"kind": "categorical", "categories": [str(n) for n in range(300_000)]}
    (here / "schema.json").write_text(json.dumps({"job": wide}))
    with pytest.raises(ValueError, match="widest column is 'job', of 300,001 values"):
        made(here)
    assert not (here / "out").exists()


def test_the_report_is_made_of_what_was_released(here, monkeypatch):
    seen = []
    real = synthetic_report.told
    monkeypatch.setattr(
        "dpkit.synthetic.job.told", lambda *given: seen.append(real(*given)) or seen[-1]
    )
    made(here, out="out")
    sections = {one.title: one for one in seen[0]["sections"]}
    assert list(sections) == [
        "How it was made",
        "Columns",
        "Pairs of columns",
        "The schema",
        "What was measured",
    ]
    figure, table = sections["Columns"].parts
    assert [place for place, _ in figure.lines[0].points] == list(range(20, 40))
    shares = dict(figure.lines[1].points)
    ages = np.array(
        [row["age"] for row in Model.load(here / "out").sample().to_pylist()]
    )
    assert shares[25] == pytest.approx((ages == 25).mean())
    assert {row[0] for row in table.rows} == set(SCHEMA.columns)
    text = (here / "out" / "report.html").read_text()
    for word in ("GaussianDpEvent", "3 times the noise of a count", "noise of a count"):
        assert word in text


@pytest.mark.slow
@pytest.mark.parametrize("mechanism", ["mst", "gsd", "mwem", "merf", "independent"])
def test_every_mechanism_as_a_job(here, mechanism):
    settings = {"gsd": "{ generations = 200 }", "merf": "{ steps = 20 }"}
    delta = 0 if mechanism == "mwem" else 1e-6
    result = made(
        here,
        f"synthetic.mechanism={mechanism}",
        f"synthetic.settings={settings.get(mechanism, '{}')}",
        f"privacy.delta={delta}",
    )
    assert (result["mechanism"], result["rows"]) == (mechanism, 500)
    assert 0.9 < result["epsilon"] <= 1
    assert charges(here / "out" / "ledger.db") == ["reserve"]
    assert len((here / "out" / "synthetic.csv").read_text().splitlines()) == 501
    assert "<svg" in (here / "out" / "report.html").read_text()


def test_a_known_seed_is_repeated_and_said_everywhere(here):
    seeded = ["test.insecure_seed=1"]
    one, _ = (made(here, *seeded, out=out) for out in ("one", "other"))
    assert one["insecure_seed"] is True
    tables = [(here / out / "synthetic.csv").read_bytes() for out in ("one", "other")]
    assert tables[0] == tables[1]
    assert Model.load(here / "one").receipt["insecure_seed"] is True
    assert "no privacy" in (here / "one" / "report.html").read_text()
    made(here, "synthetic.seed=1", *seeded, out="third")
    third = Model.load(here / "third").fitted
    for first, second in zip(
        Model.load(here / "one").fitted.measurements, third.measurements, strict=True
    ):
        np.testing.assert_array_equal(first.values, second.values)  # not of the seed
    assert (here / "third" / "synthetic.csv").read_bytes() != tables[0]


def test_a_schema_in_the_configuration(here):
    text = TEXT.replace('schema = "schema.json"\n', "")
    text += """
[data.schema.columns]
sex = { kind = "categorical", categories = ["F", "M"], other = false }
age = { kind = "ordinal", low = 20, high = 39 }
[[data.schema.rules]]
forbid = { sex = "F", age = 25 }
"""
    read = load(SYNTH.config, text, folder=here)
    run(SYNTH, read, here / "out")
    rows = Model.load(here / "out").sample().to_pylist()
    assert not any((row["sex"], row["age"]) == ("F", 25) for row in rows)
    changed = load(SYNTH.config, text, ["privacy.epsilon=0.5"], folder=here)
    assert run(SYNTH, changed, here / "less").result["epsilon"] <= 0.5


@pytest.mark.parametrize("mechanism", ["pairs", "aim", "mst", "gsd", "mwem"])
def test_all_is_counted_before_a_time_is_noted(here, monkeypatch, mechanism):
    prepared = SYNTH.prepare(
        config(here, f"synthetic.mechanism={mechanism}"), offline=True, tell=None
    )

    def read(*given):
        raise AssertionError("the table was read again")

    monkeypatch.setattr("dpkit.synthetic.counting._Table.count", read)
    monkeypatch.setattr("dpkit.synthetic.counting._Table.rows", read)
    paid = []

    class Stopped(Exception):
        pass

    class Purse:
        relation = Relation.ADD_REMOVE

        def affordable(self, rho):
            return rho

        def pay(self, event, name):
            paid.append(name)
            raise Stopped

    assert prepared.source is not None and "array(" not in repr(prepared)
    with pytest.raises(Stopped):
        prepared.recipe.fit(prepared.source, Purse(), seed=0)
    assert len(paid) == 1
