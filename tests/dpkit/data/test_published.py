"""Data sets that TensorFlow Datasets has prepared are rows with a public schema."""

import numpy as np
import pytest

from dpkit.data import builder
from dpkit.data.cache import Cache
from dpkit.data.errors import DataUnavailable
from dpkit.data.published import open_published
from dpkit.data.schema import Categorical, Image, Schema
from dpkit.data.table import read
from dpkit.jobs import load
from dpkit.training import run
from dpkit.training.config import Config

pytestmark = pytest.mark.skipif(
    not builder.can_build(), reason="array_record is made for Linux only"
)

CONFIG = """
model = { name = "linear" }
[training]
steps = 2
expected_batch_size = 10
learning_rate = 1.0
mode = "vmap"
microbatch_size = 10
devices = 1
[test]
insecure_seed = 1
[data]
tfds = "mnist"
data_dir = "prepared/tfds"
test = "test"
evaluation = "public"
[privacy]
noise_multiplier = 1.0
delta = 1e-3
relation = "add_remove"
unit = "example"
sampling = "poisson"
clip_norm = 1.0
"""


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    made = tmp_path_factory.mktemp("published")
    cache = Cache(made / "prepared")
    builder.prepare(cache, tiny.source, tiny.splits, lambda text: None)
    (made / "run.toml").write_text(CONFIG)
    return made


def test_what_is_published_is_the_schema(folder, tiny):
    found, schema = open_published("mnist", data_dir=str(folder / "prepared" / "tfds"))
    assert schema.columns["image"] == Image(shape=(28, 28, 1))
    assert schema.columns["label"] == Categorical(categories=tuple(range(10)))
    assert schema.label == "label"
    assert found.size("train") == 30
    for split, arrays in tiny.splits.items():
        rows = read(found.rows(split), schema).rows
        taken = rows.take(np.arange(len(rows)))
        np.testing.assert_array_equal(taken["image"], arrays["image"])
        np.testing.assert_array_equal(taken["label"], arrays["label"])
    with pytest.raises(ValueError, match="'valid' is not known: use train, test"):
        found.rows("valid")


def test_a_run_on_it(folder):
    done = run(load(Config, folder / "run.toml"), folder / "out")
    assert done.result["dataset"] == "mnist 3.0.1"
    assert done.result["max_records"] == 30
    assert 0 <= done.result["test_accuracy"] <= 1


def test_a_schema_of_ones_own_goes_first(folder):
    own = Schema.read({"label": {"kind": "categorical", "categories": [3]}})
    place = str(folder / "prepared" / "tfds")
    assert open_published("mnist", data_dir=place, schema=own)[1] is own


def test_what_is_not_prepared_is_not_fetched(tmp_path):
    with pytest.raises(DataUnavailable, match="is not prepared"):
        open_published("mnist", data_dir=str(tmp_path))
    with pytest.raises(DataUnavailable, match="is not prepared"):
        open_published("no_such_data_set", data_dir=str(tmp_path))


def test_a_format_that_loses_rows_is_refused(folder, tmp_path):
    place = tmp_path / "tfds" / "mnist" / "3.0.1"
    place.mkdir(parents=True)
    for path in (folder / "prepared" / "tfds" / "mnist" / "3.0.1").iterdir():
        (place / path.name).write_bytes(path.read_bytes())
    info = place / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "parquet"))
    with pytest.raises(ValueError, match="stored as parquet"):
        open_published("mnist", data_dir=str(tmp_path / "tfds"))
