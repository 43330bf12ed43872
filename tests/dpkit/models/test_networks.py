"""Networks for tables: their sums by hand, their losses, their scores."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpkit import clipped_grad
from dpkit.data.encoding import unscaled
from dpkit.data.layout import Layout
from dpkit.data.schema import Schema
from dpkit.data.table import read
from dpkit.models import MODELS, Model, build_for
from dpkit.models.networks import MLP, Network, class_weights

COLUMNS = {
    "age": {"kind": "numeric", "low": 0, "high": 10},
    "pet": {"kind": "categorical", "categories": ["cat", "dog"]},
    "sex": {"kind": "boolean"},
    "ill": {"kind": "categorical", "categories": ["no", "yes"]},
    "pay": {"kind": "numeric", "low": 100, "high": 300},
}
ROWS = {
    "age": [1.0, 5.0, 9.0, 2.0],
    "pet": ["cat", "newt", "dog", "cat"],
    "sex": [True, False, True, True],
    "ill": ["no", "yes", "yes", "perhaps"],
    "pay": [100.0, 150.0, 350.0, None],
}
CLASSES = Schema.read({n: c for n, c in COLUMNS.items() if n != "pay"}, label="ill")
NUMBER = Schema.read({n: c for n, c in COLUMNS.items() if n != "ill"}, label="pay")


def rows_of(schema):
    return read(ROWS, schema).rows.take(np.arange(4))


def random(network, seed=0):
    params = network.init(jax.random.key(seed))
    draws = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: draws.normal(size=leaf.shape), params)


def one(rows, n):
    return {name: values[n] for name, values in rows.items()}


def test_the_mlp_by_hand():
    network = build_for(Layout.of(CLASSES), "mlp", hidden=(5,))
    params, rows = random(network), rows_of(CLASSES)
    table = params["Embed_0"]["embedding"]
    assert table.shape == (3 + 2, 8)
    for n in range(4):
        pet, sex = rows["codes"][n]
        x = np.concatenate([rows["numbers"][n], table[pet], table[3 + sex]])
        # Inputs go in the order of their names, the embedding last.
        hidden = np.tanh(x @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"])
        logits = hidden @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"]
        found = network.logits(params, one(rows, n))
        np.testing.assert_allclose(found, logits, rtol=1e-4, atol=1e-4)


def test_linear_has_a_weight_for_each_code():
    network = build_for(Layout.of(CLASSES), "linear")
    params, rows = random(network), rows_of(CLASSES)
    hot = np.eye(5)
    for n in range(4):
        pet, sex = rows["codes"][n]
        logits = (hot[pet] + hot[3 + sex]) @ params["Embed_0"]["embedding"]
        logits += rows["numbers"][n] @ params["Dense_0"]["kernel"]
        logits += params["Dense_0"]["bias"]
        found = network.logits(params, one(rows, n))
        np.testing.assert_allclose(found, logits, rtol=1e-4, atol=1e-4)


def test_tables_of_codes_or_numbers_alone():
    for name in ("pet", "age"):
        schema = Schema.read({name: COLUMNS[name], "ill": COLUMNS["ill"]}, label="ill")
        for model in ("linear", "mlp"):
            network = build_for(Layout.of(schema), model)
            rows = rows_of(schema)
            params = network.init(jax.random.key(0))
            assert network.logits(params, one(rows, 0)).shape == (2,)


def test_the_loss_and_its_weights():
    layout, rows = Layout.of(CLASSES), rows_of(CLASSES)
    plain = build_for(layout, "linear")
    heavy = build_for(layout, "linear", weights={"yes": 3.0})
    params = random(plain)
    for n, label in enumerate([0, 1, 1]):
        logits = np.asarray(plain.logits(params, one(rows, n)), float)
        wanted = np.log(np.exp(logits).sum()) - logits[label]
        found = plain.loss(params, one(rows, n), None)
        np.testing.assert_allclose(found, wanted, rtol=1e-4)
        found = heavy.loss(params, one(rows, n), None)
        np.testing.assert_allclose(found, wanted * (3 if label else 1), rtol=1e-4)
    with pytest.raises(ValueError, match="'maybe' is no class; known: no, yes"):
        build_for(layout, "linear", weights={"maybe": 1.0})
    with pytest.raises(ValueError, match="a number is predicted"):
        class_weights(Layout.of(NUMBER), {"no": 1.0})


@pytest.mark.parametrize("schema", [CLASSES, NUMBER])
def test_a_row_with_an_unknown_label_adds_nothing(schema):
    network = build_for(Layout.of(schema), "mlp", hidden=(4,))
    params, rows = random(network), rows_of(schema)
    value, grads = jax.value_and_grad(network.loss)(params, one(rows, 3), None)
    assert value == 0
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(grads))
    value, grads = jax.value_and_grad(network.loss)(params, one(rows, 1), None)
    assert value > 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize("schema", [CLASSES, NUMBER])
@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_norms_without_gradients_are_those_of_gradients(schema, name):
    hidden = (4,) if name == "mlp" else None
    network = build_for(Layout.of(schema), name, hidden)
    params = jax.tree.map(jnp.float32, random(network))
    batch = {n: np.repeat(v, 3, axis=0) for n, v in rows_of(schema).items()}
    sums = {}
    for mode in ("auto", "vmap"):
        gradient = clipped_grad(network.loss, clip_norm=0.1, mode=mode)
        total, aux = jax.jit(gradient)(params, batch, None)
        sums[mode] = (aux.norms, *jax.tree.leaves(total.private_value))
    for found, wanted in zip(sums["auto"], sums["vmap"], strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=1e-5)


def test_the_score_counts_rows_whose_label_is_known():
    network = build_for(Layout.of(CLASSES), "linear")
    params, rows = random(network), rows_of(CLASSES)
    right = 0
    for n, label in enumerate([0, 1, 1]):
        right += int(np.argmax(network.logits(params, one(rows, n))) == label)
    for chunk in (1, 3, 1000):
        assert network.accuracy_fn(rows, chunk)(params) == pytest.approx(right / 3)
    nobody = {name: values[3:] for name, values in rows.items()}
    assert np.isnan(network.accuracy_fn(nobody)(params))


def test_a_number_is_predicted_in_its_own_units():
    network = build_for(Layout.of(NUMBER), "linear")
    params, rows = random(network), rows_of(NUMBER)
    outputs = [float(network.logits(params, one(rows, n))[0]) for n in range(4)]
    values = np.clip(100 + 200 * np.array(outputs), 100, 300)
    ((found, shares),) = network.predictions(params, rows)
    assert shares is None
    np.testing.assert_allclose(found, values, rtol=1e-5)
    errors = values[:3] - np.array([100, 150, 300])  # 350 counts as the bound
    wanted = np.sqrt(np.mean(errors**2))
    assert network.scores_fn(rows)(params)["rmse"] == pytest.approx(wanted, rel=1e-5)
    assert network.score == "rmse"
    column: Any = NUMBER.columns["pay"]
    assert unscaled(column, [0.5]).tolist() == [200]


def test_classes_are_predicted_by_name():
    network = build_for(Layout.of(CLASSES), "linear")
    params, rows = random(network), rows_of(CLASSES)
    ((names, shares),) = network.predictions(params, rows)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-6)
    for n in range(4):
        logits = np.asarray(network.logits(params, one(rows, n)))
        assert names[n] == ("no", "yes")[int(logits.argmax())]


def test_what_a_network_cannot_read_is_refused():
    text = Schema.read({"note": {"kind": "text", "length": 8}, "ill": COLUMNS["ill"]},
                       label="ill")  # fmt: skip
    with pytest.raises(ValueError, match="can't read the text 'note'"):
        build_for(Layout.of(text), "mlp")
    with pytest.raises(ValueError, match="'cnn' needs images"):
        build_for(Layout.of(CLASSES), "cnn")
    with pytest.raises(ValueError, match="not known: use"):
        build_for(Layout.of(CLASSES), "mpl")
    with pytest.raises(ValueError, match="setting of 'mlp'"):
        build_for(Layout.of(CLASSES), "linear", hidden=(3,))
    with pytest.raises(ValueError, match=r"returns \(3,\), for 2 outputs"):
        Network(MLP(3, (), (3, 2)), Layout.of(CLASSES))
    assert set(MODELS) == {"cnn", "mlp", "linear"}


def test_several_inputs_of_every_kind():
    schema = Schema.read(
        {
            "age": COLUMNS["age"],
            "pet": COLUMNS["pet"],
            "trace": {"kind": "array", "shape": [3], "low": -1, "high": 1},
            "scan": {"kind": "image", "shape": [2, 2, 1]},
            "ill": COLUMNS["ill"],
        },
        label="ill",
    )
    source: dict[str, Any] = {name: ROWS[name] for name in ("age", "pet", "ill")}
    source["trace"] = np.linspace(-2, 2, 12).reshape(4, 3)
    source["scan"] = np.arange(16, dtype=np.uint8).reshape(4, 2, 2, 1)
    rows = read(source, schema).rows.take(np.arange(4))
    network = build_for(Layout.of(schema), "linear")
    params = random(network)
    x = np.concatenate(
        [rows["numbers"][2], rows["scan"][2].reshape(-1) / 255, rows["trace"][2]]
    )
    logits = x @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"]
    logits += params["Embed_0"]["embedding"][rows["codes"][2, 0]]
    found = network.logits(params, one(rows, 2))
    np.testing.assert_allclose(found, logits, rtol=1e-4, atol=1e-5)


def test_scoring_compiles_once():
    network = build_for(Layout.of(CLASSES), "linear")
    rows, traced = rows_of(CLASSES), []
    plain = network.model.apply
    counting = Model(network.model.init, lambda *args: traced.append(1) or plain(*args))
    object.__setattr__(network, "model", counting)
    score = network.scores_fn(rows)
    for seed in range(3):
        score(random(network, seed))
    assert len(traced) == 1
