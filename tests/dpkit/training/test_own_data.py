"""From a file of one's own to a model: the documented configurations, as documented."""

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
from PIL import Image
from sklearn import datasets

from dpkit import jobs
from dpkit.accountants import Budget, Ledger
from dpkit.accountants.answers.errors import BudgetExceeded, Incompatible
from dpkit.training import load_config, run, trainer
from dpkit.training.config import Config
from dpkit.training.job import TRAINING

ROOT = Path(__file__).parents[3]
DOCUMENTED = ROOT / "docs" / "configs"
EXCERPTS = ROOT / "tests" / "excerpts"

TOY = """
model = { name = "linear" }
[training]
steps = 3
expected_batch_size = 20
learning_rate = 1.0
mode = "vmap"
microbatch_size = 20
devices = 1
[test]
insecure_seed = 1
[data]
path = "toy.csv"
test = "public.csv"
evaluation = "public"
label = "ill"
max_records = 100
[data.schema]
"the age" = { kind = "numeric", low = 0, high = 100 }
pet = { kind = "categorical", categories = ["cat", "dog"] }
ill = { kind = "categorical", categories = ["no", "yes"] }
[privacy]
noise_multiplier = 1.0
delta = 1e-3
relation = "add_remove"
unit = "example"
sampling = "poisson"
clip_norm = 1.0
"""


@pytest.fixture
def toy(tmp_path):
    draws = np.random.default_rng(0)
    lines = ["the age,pet,ill,who,weight"]
    for n in range(90):
        age = draws.integers(0, 100)
        pet = draws.choice(["cat", "dog", "newt"])
        lines.append(f"{age},{pet},{'yes' if age > 50 else 'no'},p{n % 30},{age / 2}")
    (tmp_path / "toy.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "public.csv").write_text("\n".join(lines[:60]) + "\n")
    (tmp_path / "toy.toml").write_text(TOY)
    return tmp_path


def trained(folder, *changes, out="out", **options):
    config = jobs.load(Config, folder / "toy.toml", changes)
    return run(config, folder / out, **options)


def test_a_table_trains_and_costs_what_its_plan_costs(toy):
    done = trained(toy)
    assert done.result["dataset"] == "toy.csv"
    assert 0 <= done.result["test_accuracy"] <= 1
    config = jobs.load(Config, toy / "toy.toml")
    dry: Any = jobs.dry_run(TRAINING, config, estimate=False)
    assert done.result["epsilon"] == pytest.approx(dry.bound.upper)
    assert len(done.result["schema_sha256"]) == 64
    report = (done.folder / "report.html").read_text()
    assert done.result["schema_sha256"] in report


def test_a_dry_run_reads_no_rows(toy):
    (toy / "toy.csv").unlink()
    config = jobs.load(Config, toy / "toy.toml")
    told: Any = jobs.dry_run(TRAINING, config)
    assert told.estimate["steps"] == 3
    assert told.bound.certified


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.path=none.csv", "none.csv' doesn't exist"),
        ("data.test=./toy.csv", "is what is trained on"),
        ("data.label=weight", "no column of the schema"),
        ("data.max_records=", "must be"),
        ("data.schema.ill.categories=['No', 'Yes']", "no public row has one"),
        ("data.unit_column=who", r"privacy\.unit='example' a row alone"),
        ("privacy.unit=user", "rows_per_unit"),
        ("data.evaluation=none", "evaluation='none' with test="),
        ("model.name=decoder", "can't read toy.csv: it reads one text"),
        ("model.name=cnn", "needs images"),
        ("training.class_weights={sick=2.0}", "'sick' is no class; known: no, yes"),
        ("data.schema.pet.kind=categorial", "did you mean 'categorical'"),
        ("data.schema.puls={kind='numeric', low=0, high=1}", "no column 'puls'"),
    ],
)
def test_what_is_refused_leaves_nothing(toy, change, message):
    with pytest.raises(ValueError, match=message):
        trained(toy, change)
    assert not (toy / "out").exists()


def test_a_file_is_no_name(toy):
    (toy / "toy.toml").write_text(TOY.replace('path = "toy.csv"', 'name = "toy.csv"'))
    with pytest.raises(ValueError, match=r"looks like a file.*say path instead"):
        trained(toy)


def test_max_records_must_be_said(toy):
    text = TOY.replace("max_records = 100\n", "")
    (toy / "toy.toml").write_text(text)
    with pytest.raises(ValueError, match=r"data\.max_records is missing"):
        trained(toy)


def test_more_rows_than_max_records_spend_nothing(toy):
    with pytest.raises(ValueError, match="max_records=80"):
        trained(toy, "data.max_records=80")
    assert not (toy / "out").exists()


def test_a_schema_of_a_file_is_that_of_the_configuration(toy):
    inline = trained(toy)
    config = jobs.load(Config, toy / "toy.toml")
    (toy / "s.json").write_text(json.dumps(config.data.schema))
    start, end = TOY.index("[data.schema]"), TOY.index("[privacy]")
    text = TOY[:start] + 'schema = "s.json"\n' + TOY[end:]
    (toy / "toy.toml").write_text(text)
    of_file = trained(toy, out="again")
    assert of_file.result["params_sha256"] == inline.result["params_sha256"]
    assert of_file.result["schema_sha256"] == inline.result["schema_sha256"]


@pytest.mark.parametrize(("evaluation", "shown"), [("private", None), ("none", None)])
def test_scores_that_are_not_public(toy, evaluation, shown):
    changes = [f"data.evaluation={evaluation}"]
    if evaluation == "none":
        (toy / "toy.toml").write_text(TOY.replace('test = "public.csv"\n', ""))
    done = trained(toy, *changes)
    assert done.result["test_accuracy"] is shown
    assert "%" not in str(done.result["shown"])


@pytest.mark.slow
@pytest.mark.guard
def test_users_are_units(toy):
    done = trained(
        toy,
        "data.unit_column=who",
        "privacy.unit=user",
        "privacy.rows_per_unit=2",
        "data.max_records=40",
        "training.expected_batch_size=10",
    )
    assert done.result["unit"] == "user"
    assert done.result["sampling_rate"] == 0.25


@pytest.mark.slow
def test_a_number_is_predicted(toy):
    done = trained(
        toy,
        "data.label=weight",
        "data.schema.weight={kind='numeric', low=0, high=50}",
        "training.steps=30",
    )
    assert 0 < done.result["test_rmse"] < 25
    assert "test_accuracy" not in done.result
    assert "root mean square error" in (done.folder / "report.html").read_text()


@pytest.mark.slow
def test_weights_move_the_rare_class(toy):
    plain = trained(toy)
    heavy = trained(toy, "training.class_weights={yes=9.0}", out="heavy")
    assert plain.result["params_sha256"] != heavy.result["params_sha256"]


FACTORY = """
import equinox, jax, jax.numpy as jnp
from flax import linen, nnx

class Linen(linen.Module):
    outputs: int
    @linen.compact
    def __call__(self, x):
        pets = linen.Embed(3, 2)(x["codes"][0])
        return linen.Dense(self.outputs)(jnp.concatenate([x["numbers"], pets]))

class Nnx(nnx.Module):
    def __init__(self, outputs, rngs):
        self.dense = nnx.Linear(1, outputs, rngs=rngs)
    def __call__(self, x):
        return self.dense(x["numbers"])

class Equinox(equinox.Module):
    dense: equinox.nn.Linear
    def __call__(self, x):
        return self.dense(x["numbers"])

def linen_model(layout, key):
    return Linen(layout.outputs)
def nnx_model(layout, key):
    return Nnx(layout.outputs, nnx.Rngs(key))
def equinox_model(layout, key, size=1):
    return Equinox(equinox.nn.Linear(size, layout.outputs, key=key))
"""


@pytest.mark.slow
@pytest.mark.guard
@pytest.mark.parametrize("name", ["linen_model", "nnx_model", "equinox_model"])
def test_a_model_of_ones_own(toy, name):
    (toy / "mine.py").write_text(FACTORY)
    text = TOY.replace('{ name = "linear" }', f'{{ factory = "mine:{name}" }}')
    (toy / "toy.toml").write_text(text)
    done = trained(toy)
    assert done.result["model"] == f"mine:{name}"
    page = (done.folder / "report.html").read_text()
    assert f"mine:{name}" in page
    assert done.result["factory_sha256"] in page


def test_objects_in_the_place_of_files(toy):
    of_files = trained(toy)
    table, other = (
        pyarrow.csv.read_csv(toy / name) for name in ("toy.csv", "public.csv")
    )
    for name in ("toy.csv", "public.csv"):
        (toy / name).unlink()
    done = trained(toy, out="objects", rows=table, test_rows=other.to_pydict())
    for fact in ("params_sha256", "test_accuracy", "dataset"):
        assert done.result[fact] == of_files.result[fact]
    with pytest.raises(ValueError, match=r"go with data\.path"):
        text = TOY[: TOY.index("[data]")] + TOY[TOY.index("[privacy]") :]
        (toy / "toy.toml").write_text(
            text + '[data]\nname = "digits"\nevaluation = "public"\n'
        )
        trained(toy, out="c", rows=table)


@pytest.mark.slow
@pytest.mark.guard
def test_a_run_that_does_not_fit_is_told_the_target_that_would(toy):
    terms = dict(relation="add_remove", unit="example", dataset="unnamed")
    Ledger.open(toy / "team.db", budget=Budget(2.0, 1e-3), **terms).close()
    text = TOY.replace("[test]\ninsecure_seed = 1\n", "")
    text = text.replace("noise_multiplier = 1.0", "epsilon = 1.0")
    (toy / "toy.toml").write_text(text)
    trained(toy, ledger=str(toy / "team.db"))
    with pytest.raises(BudgetExceeded) as caught:
        trained(toy, "privacy.epsilon=1.9", ledger=str(toy / "team.db"), out="b")
    told = re.search(r"privacy\.epsilon=([0-9.]+) the run would fit", str(caught.value))
    assert told is not None
    change = f"privacy.epsilon={told[1]}"
    done = trained(toy, change, ledger=str(toy / "team.db"), out="c")
    assert done.result["epsilon"] <= float(told[1])


def test_a_shared_ledger_names_the_data(toy):
    terms = dict(relation="add_remove", unit="example", dataset="clinic 3")
    path = toy / "team.db"
    Ledger.open(path, budget=Budget(100.0, 1e-2), **terms).close()
    (toy / "toy.toml").write_text(TOY.replace("[test]\ninsecure_seed = 1\n", ""))
    done = trained(toy, ledger=str(path))
    assert done.result["dataset"] == "clinic 3"
    named = trained(toy, "data.dataset=clinic 3", ledger=str(path), out="b")
    assert named.result["dataset"] == "clinic 3"
    with pytest.raises(Incompatible, match="clinic 4"):
        trained(toy, "data.dataset=clinic 4", ledger=str(path), out="c")
    assert not (toy / "c").exists()


def test_the_data_set_of_a_run_of_its_own_is_its_file_or_what_it_is_called(toy):
    assert trained(toy, "data.dataset=clinic 3").result["dataset"] == "clinic 3"


# What follows are the configurations of docs/data.md on the rows that it names.


def test_the_documented_configurations_are_short():
    for path in sorted(DOCUMENTED.glob("*.toml")):
        lines = path.read_text().splitlines()
        assert len(lines) < 20, path
        assert max(map(len, lines)) <= 96, path
        load_config(path)


@pytest.fixture
def no_timing(quick_compilation, monkeypatch):
    """Chunks of 64 rows, instead of the fastest of several that are timed."""
    monkeypatch.setattr(
        trainer,
        "choose_microbatch",
        lambda make, execution, *given: dataclasses.replace(
            execution, microbatch_size=64
        ),
    )


def documented(folder, name):
    for path in DOCUMENTED.iterdir():
        shutil.copy(path, folder)
    return folder / f"{name}.toml"


@pytest.fixture
def adult(tmp_path):
    path = documented(tmp_path, "adult")
    for part in ("train", "test"):
        shutil.copy(EXCERPTS / f"adult_{part}.csv", tmp_path / f"{part}.csv")
        table = pyarrow.csv.read_csv(tmp_path / f"{part}.csv")
        pyarrow.parquet.write_table(table, tmp_path / f"{part}.parquet")
    return path


@pytest.mark.slow
def test_adult_as_csv_and_as_parquet(adult, no_timing):
    fewer = jobs.load(Config, adult, ["training.epochs=3"])
    done = run(fewer, adult.parent / "csv")
    assert done.result["epsilon"] <= 1.0
    assert done.result["test_accuracy"] > 0.7
    digests = set()
    for kind in ("csv", "parquet"):
        changes = [f"data.path=train.{kind}", f"data.test=test.{kind}"]
        seeded = [*changes, "test.insecure_seed=3", "training.epochs=1"]
        config = jobs.load(Config, adult, seeded)
        result = run(config, adult.parent / f"seeded-{kind}").result
        digests.add((result["params_sha256"], result["test_accuracy"]))
    assert len(digests) == 1


def pictures(folder):
    images, labels = datasets.load_digits(return_X_y=True)
    for n, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        place = folder / ("train" if n < 1437 else "test") / str(label)
        place.mkdir(parents=True, exist_ok=True)
        image = (pixels.reshape(8, 8) * 15.9375).astype(np.uint8)
        Image.fromarray(image).save(place / f"{n:04}.png")


@pytest.mark.slow
def test_digits_as_a_folder_of_pictures(tmp_path, no_timing):
    pictures(tmp_path / "digits")
    done = run(load_config(documented(tmp_path, "digits")), tmp_path / "out")
    assert done.result["epsilon"] <= 4.0
    assert done.result["test_accuracy"] > 0.6


@pytest.mark.slow
def test_a_text(tmp_path, no_timing):
    texts = sorted(Path(datasets.__file__).parent.joinpath("descr").glob("*.rst"))
    whole = "\n".join(path.read_text(encoding="utf-8") for path in texts)
    (tmp_path / "notes.txt").write_text(whole)
    path = documented(tmp_path, "text")
    fewer = ["training.steps=40", "training.evaluate_every=40"]
    done = run(jobs.load(Config, path, fewer), tmp_path / "out")
    assert done.result["epsilon"] <= 4.0
    # 99 symbols at random take 6.6 bits.
    assert done.result["test_bits_per_character"] < 5.6


def test_the_page_shows_the_configuration_that_is_tested():
    page = (ROOT / "docs" / "data.md").read_text()
    assert (DOCUMENTED / "adult.toml").read_text() in page
