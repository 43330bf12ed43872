"""A finished run is used: the same predictions by every way in, no code but ours."""

import json
import shutil
import sys
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from dpkit import Ledger, load_params, load_run
from dpkit.data import as_rows, load_arrays
from dpkit.data.schema import Schema
from dpkit.data.table import read
from dpkit.models import build_language
from dpkit.models.language import base_sha256
from dpkit.models.parameters import read_arrays
from dpkit.report.guarantee import KNOWN_SEED
from tests.trained import (
    COUNT,
    DIGITS,
    ROWS,
    as_csv,
    by_hand,
    digits_by_hand,
    table,
    table_by_hand,
    train,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")
OWN = """
import equinox
import jax
from flax import nnx

class Nnx(nnx.Module):
    def __init__(self, rngs, width):
        first, second = nnx.Linear(3, width, rngs=rngs), nnx.Linear(width, 2, rngs=rngs)
        self.layers = nnx.List([first, second])

    def __call__(self, row):
        codes = jax.nn.one_hot(row["codes"][0], 2)
        row = jax.numpy.concatenate([row["numbers"], codes])
        return self.layers[1](jax.nn.tanh(self.layers[0](row)))

class Equinox(equinox.Module):
    layers: list
    columns: int = 1

    def __call__(self, row):
        return self.layers[0](row["numbers"])

def make_nnx(layout, key, width=3):
    return Nnx(nnx.Rngs(key), width)

def make_equinox(layout, key):
    return Equinox([equinox.nn.Linear(1, 2, key=key)])
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where a run, its table and its configuration lie."""
    folder = tmp_path_factory.mktemp("use")
    train(folder)
    return folder


@pytest.fixture(scope="module")
def used(place):
    return load_run(place / "run")


@pytest.fixture
def copy(place, tmp_path):
    """A run that may be spoiled."""
    return shutil.copytree(place / "run", tmp_path / "run")


def encoded():
    """What a network reads of the table, by hand: in [0, 1]; newts are `other`."""
    numbers = ((ROWS["age"] - 18) / 72).astype(np.float32)[:, None]
    codes = np.array([["cat", "dog", "newt"].index(p) for p in ROWS["pet"]], np.int32)
    codes = np.stack([codes, ROWS["calm"].astype(np.int32)], axis=1)
    return {"numbers": numbers, "codes": codes}


def logits_by_hand(params):
    """Of the linear model: a weight a class for a number, and one for a code."""
    rows = encoded()
    params = jax.tree.map(np.asarray, params)
    dense, embedding = params["Dense_0"], params["Embed_0"]["embedding"]
    found = rows["numbers"] @ dense["kernel"] + dense["bias"]
    return found + embedding[rows["codes"] + [0, 3]].sum(axis=1)


@pytest.mark.parametrize("name", ["params.npz", "params.safetensors"])
def test_flax_applies_the_parameters_of_both_files(place, used, name):
    params = load_params(place / "run" / name)
    row = jax.tree.map(lambda values: values[7], encoded())
    found = used.model.apply({"params": params}, row)
    np.testing.assert_allclose(found, logits_by_hand(params)[7], rtol=1e-5)
    np.testing.assert_array_equal(found, used.network.logits(used.params, row))
    start = used.network.init(jax.random.key(0))
    assert not np.allclose(found, used.network.logits(start, row))


def test_predictions_are_those_of_the_arithmetic(used):
    logits = logits_by_hand(used.params)
    odds = np.exp(logits)
    names = np.array(["no", 'yes, "indeed"'], object)[logits.argmax(axis=1)]
    found = used.predict(table())
    assert found.dtype == object
    assert len(set(found)) == 2  # else one class alone would be compared
    assert found.tolist() == names.tolist()
    shares = odds / odds.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(used.probabilities(table()), shares, rtol=1e-5)


def test_every_source_gives_the_same(used, tmp_path):
    want = used.probabilities(table())
    unlabelled = {n: ROWS[n] for n in ("calm", "pet", "age")}
    parquet.write_table(table(), tmp_path / "a.parquet")
    sources = {
        "csv": as_csv(ROWS, tmp_path / "a.csv"),
        "csv, no label": as_csv(unlabelled, tmp_path / "b.csv"),
        "parquet": tmp_path / "a.parquet",
        "stream": pa.RecordBatchReader.from_batches(
            table().schema, table().to_batches(max_chunksize=7)
        ),
        "arrays": unlabelled,
        "strange labels": ROWS | {"answer": ["?"] * COUNT},
        "encoded": as_rows(encoded()),
        "read": read(table(), used.schema, labelled=False).rows,
    }
    for name, source in sources.items():
        np.testing.assert_array_equal(used.probabilities(source), want, err_msg=name)


def test_what_no_category_names_is_predicted_as_other(used):
    same = {"age": [20] * 4, "calm": [1] * 4}
    found = used.probabilities(same | {"pet": ["newt", "axolotl", "", "cat"]})
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    assert not np.allclose(found[0], found[3])


def test_no_rows_have_no_predictions(used):
    assert used.predict(table().slice(0, 0)).tolist() == []
    assert used.probabilities(table().slice(0, 0)).shape == (0, 2)


def test_a_missing_column_or_a_broken_line_is_refused(used, tmp_path):
    with pytest.raises(ValueError, match="no column 'pet'"):
        used.predict({"age": [1], "calm": [1]})
    path = tmp_path / "a.csv"
    path.write_text("age,pet,calm\n20,cat,yes\n30\n")
    with pytest.raises(ValueError, match="another number of values"):
        used.predict(path)


def test_the_cost_is_the_ledgers(place, used):
    with Ledger.open(place / "run" / "ledger.db") as ledger:
        spent, head = ledger.spent(), ledger.head
    assert used.ledger_head == head
    assert used.bound.upper == pytest.approx(spent.upper, rel=1e-9)
    assert (used.bound.certified, used.bound.delta) == (True, 1e-4)
    assert (str(used.bound.relation), used.bound.unit) == ("add_remove", "example")
    assert used.bound.warnings == ()
    assert used.result == json.loads((place / "run" / "result.json").read_text())


def changed(**more):
    """Other facts in result.json."""

    def change(run):
        path = run / "result.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | more))

    return change


def test_a_known_seed_has_no_finite_bound(copy):
    changed(insecure_seed=True)(copy)
    bound = load_run(copy).bound
    assert bound is not None
    assert (bound.upper, bound.warnings) == (np.inf, (KNOWN_SEED,))
    changed(epsilon=None)(copy)
    assert load_run(copy).bound is None


def arrays(change):
    """Other arrays in params.npz."""

    def spoil(run):
        found: dict[str, Any] = read_arrays(run / "params.npz")
        change(found)
        np.savez(run / "params.npz", **found)

    return spoil


class Trap:
    """What a pickle may do."""

    def __reduce__(self):
        return (sys.exit, ("a pickle was obeyed",))


def pickled(run):
    content = np.array([Trap()], object)
    np.savez(run / "params.npz", allow_pickle=True, **{"Dense_0/bias": content})


def replaced(name, content):
    return lambda run: (run / name).write_bytes(content)


def without(*names):
    return lambda run: [(run / name).unlink() for name in names]


def edited_schema(run):
    path = run / "schema.json"
    path.write_text(path.read_text().replace("90", "91"))


BIAS = "Dense_0/bias"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (arrays(lambda a: a.update({BIAS: a[BIAS] + 1e-7})), "other numbers"),
        (arrays(lambda a: a.pop(BIAS)), f"lacks '{BIAS}'"),
        (arrays(lambda a: a.update(more=a.pop(BIAS))), f"lacks '{BIAS}'"),
        (arrays(lambda a: a.update(more=a[BIAS])), "has, beyond .* 'more'"),
        (arrays(lambda a: a.update({BIAS: a[BIAS][None]})), r"shape \(1, 2\)"),
        (pickled, "params.npz .*can't be read: Object arrays"),
        (replaced("params.npz", b"\x80\x04."), "params.npz .*can't be read"),
        (without("params.npz", "params.safetensors"), "params.npz .*can't be read"),
        (edited_schema, "schema.json was changed"),
        (without("schema.json"), "can't be read"),
        (without("config.toml"), "can't read the configuration"),
        (without("result.json"), "no result.json"),
        (replaced("result.json", b"[]"), "no finished training"),
        (replaced("result.json", b"{}"), "no finished training"),
        (replaced("result.json", b"\xff{"), "no finished training"),
        (changed(job="audit"), "its job is 'audit'"),
        (changed(params_sha256=None), "other numbers"),
        (changed(schema_sha256=None), "schema.json was changed"),
    ],
)
def test_a_folder_that_is_not_what_the_run_left_is_refused(copy, spoil, words):
    spoil(copy)
    with pytest.raises(ValueError, match=words) as error:
        load_run(copy)
    assert "\n" not in str(error.value)


def test_either_file_of_parameters_is_enough(copy, used):
    (copy / "params.npz").unlink()
    again = load_run(copy)
    np.testing.assert_array_equal(
        again.probabilities(table()), used.probabilities(table())
    )
    content = bytearray((copy / "params.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "params.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"params\.safetensors holds other numbers"):
        load_run(copy)


@pytest.fixture(scope="module", params=["make_nnx", "make_equinox"])
def owned(request, tmp_path_factory):
    """A run of a model of one's own, and its factory."""
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "own.py").write_text(OWN)
    settings = "\nsettings = { width = 4 }" if request.param == "make_nnx" else ""
    train(folder, model=f'factory = "own:{request.param}"{settings}')
    return folder, f"own:{request.param}"


def test_a_model_of_ones_own_comes_back(owned, monkeypatch):
    folder, factory = owned
    monkeypatch.chdir(folder)
    found = load_run("run", factory=factory)
    share = (found.predict(table()) == ROWS["answer"]).mean()
    assert share == pytest.approx(found.result["test_accuracy"], abs=1e-9)
    # The module holds what was trained, and not what it came with.
    row = jax.tree.map(lambda values: values[7], encoded())
    logits = found.network.logits(found.params, row)
    np.testing.assert_allclose(found.model(row), logits, rtol=1e-6)
    start = found.network.init(jax.random.key(0))
    assert not np.allclose(logits, found.network.logits(start, row))
    # The function itself does as well as its name.
    module = sys.modules["_dpkit_own_own"]
    again = load_run("run", factory=getattr(module, factory.partition(":")[2]))
    np.testing.assert_array_equal(
        again.probabilities(table()), found.probabilities(table())
    )


def test_code_is_never_taken_from_a_folder(owned, tmp_path, monkeypatch):
    folder, factory = owned
    words = rf"factory=None: .*'{factory}'.*give factory='{factory}'"
    monkeypatch.chdir(folder)
    with pytest.raises(ValueError, match=words):
        load_run("run")
    # Not even by its name, where it lies in the folder of a run.
    copied = shutil.copytree(folder / "run", tmp_path / "run")
    (copied / "own.py").write_text("raise SystemExit('code of a folder was run')")
    monkeypatch.chdir(copied)
    with pytest.raises(ValueError, match=words):
        load_run(".")
    with pytest.raises(ValueError, match="lies in the folder of a run"):
        load_run(".", factory=factory)


def test_a_factory_that_has_changed_is_told_of(owned, tmp_path, monkeypatch):
    folder, factory = owned
    (tmp_path / "own.py").write_text(f"{OWN}\n# A remark.\n")
    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning, match="not the one of the training"):
        load_run(folder / "run", factory=factory)
    (tmp_path / "own.py").write_text(OWN.replace("(key), width)", "(key), width + 1)"))
    if factory == "own:make_nnx":
        with (
            pytest.warns(UserWarning, match="not the one"),
            pytest.raises(ValueError, match=r"layers/.*shape"),
        ):
            load_run(folder / "run", factory=factory)


def test_a_factory_for_a_model_of_ours_is_refused(place):
    with pytest.raises(ValueError, match=r"factory='a:b'.*'linear', one of ours"):
        load_run(place / "run", factory="a:b")


def test_a_number_is_predicted_in_the_labels_units(tmp_path):
    found = load_run(table_by_hand(tmp_path / "run", label="pay"))
    assert found.predicted == "pay"
    # 36 is a quarter of the way up, of which the model makes a half; a dog adds 10.
    rows = {"age": [18, 36, 54, 90, 36], "pet": [*4 * ["cat"], "dog"], "calm": [0] * 5}
    assert found.predict(rows).tolist() == [0, 100, 200, 200, 110]
    with pytest.raises(ValueError, match="'pay' is a number"):
        found.probabilities(rows)


def test_a_data_set_of_ours_is_predicted_as_it_is_stored(tmp_path):
    test = load_arrays("digits", "test")
    found = load_run(digits_by_hand(tmp_path / "run"))
    pixels = test["image"].reshape(len(test["image"]), -1) / np.float32(16)
    want = (pixels @ DIGITS["Dense_0"]["kernel"]).argmax(axis=1)
    assert found.predict(dict(test)).tolist() == [str(n) for n in want]
    column = pa.FixedSizeListArray.from_arrays(test["image"].reshape(-1), 64)
    assert found.predict(pa.table({"image": column})).tolist() == [str(n) for n in want]


TEXT = """
[data]
path = "a.txt"
evaluation = "none"
max_records = 10
[data.schema]
text = { kind = "text", length = 7, characters = "abc" }
[model]
name = "decoder"
layers = 1
width = 8
heads = 2
LORA
[privacy]
noise_multiplier = 1.0
delta = 1e-4
relation = "add_remove"
unit = "example"
sampling = "poisson"
clip_norm = 1.0
[training]
steps = 4
expected_batch_size = 5
learning_rate = 1.0
"""
SCHEMA = Schema.read({"text": {"kind": "text", "length": 7, "characters": "abc"}})
SIZES: dict[str, Any] = {
    "vocabulary": 5,
    "length": 6,
    "layers": 1,
    "width": 8,
    "heads": 2,
}


def scattered(shapes, seed):
    """Values in the place of shapes."""
    draws = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: draws.normal(size=leaf.shape, scale=0.3).astype(np.float32), shapes
    )


def test_a_text_is_told_in_bits_per_character(tmp_path):
    model = build_language(**SIZES, field="text", padding=4)
    params = scattered(jax.eval_shape(model.init, jax.random.key(0)), 1)
    text = TEXT.replace("LORA", "")
    found = load_run(by_hand(tmp_path / "run", text, params, schema=SCHEMA))
    assert found.predicted == "bits_per_character"
    bits = found.predict({"text": ["abcabca", "ab", "x"]})
    # Of "ab" one character is predicted, b after a; of "x" none.
    symbols = np.array([1, 2, 4, 4, 4, 4])
    logits = np.asarray(found.network.logits(found.params, symbols)[0], float)
    assert bits[1] == pytest.approx(
        -(logits[2] - np.log(np.exp(logits).sum())) / np.log(2), rel=1e-5
    )
    assert np.isnan(bits[2])
    whole = {"text": np.array([[1, 2, 3, 1, 2, 3, 1]])}
    score = found.network.scores_fn(whole)(found.params)["bits_per_character"]
    assert bits[0] == pytest.approx(score, rel=1e-6)


def test_adapters_need_the_base_that_they_were_trained_around(tmp_path):
    plain = build_language(**SIZES)
    base = scattered(jax.eval_shape(plain.init, jax.random.key(0)), 2)
    flat = by_hand(tmp_path / "base", "", base) / "params.npz"
    sizes = SIZES | {"lora_rank": 2, "field": "text", "padding": 4, "base": flat}
    model = build_language(**sizes)
    params = scattered(jax.eval_shape(model.init, jax.random.key(0)), 3)
    text = TEXT.replace("LORA", f"lora_rank = 2\nbase = {str(flat)!r}")
    digest = {"base_sha256": base_sha256(base)}
    run = by_hand(tmp_path / "run", text, params, schema=SCHEMA, **digest)
    rows = {"text": np.array([[1, 2, 3, 1, 2, 3, 1]])}
    want = model.scores_fn(rows)(params)["bits_per_character"]
    found = load_run(run).predict({"text": ["abcabca"]})
    assert found[0] == pytest.approx(want, rel=1e-6)
    arrays(lambda a: a.update(positions=a["positions"] + 1))(tmp_path / "base")
    with pytest.raises(ValueError, match="not the file that the run was trained"):
        load_run(run)
    # Without adapters a base was where training began: it may be gone.
    text = TEXT.replace("LORA", "base = 'gone.npz'")
    assert load_run(by_hand(tmp_path / "b", text, base, schema=SCHEMA)).params
