"""A Keras model on JAX goes through the same call as any other.

Keras holds its variables itself; `stateless_call` is the same model as a function of
them, which is all that a loss needs. Importing Keras takes seconds: slow.
"""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dpkit import Budget, DPSGDPlan, Ledger, fit
from dpkit.training import Execution
from tests.bare import clipped_grad

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("keras") is None, reason="pip install keras"
    ),
]
CLIP = 0.5


@pytest.fixture(autouse=True)
def keras_may_broadcast():
    """Its layers add a bias (n,) to rows (1, n)."""
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small convolutional classifier of images of 8 by 8, and its first values."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", "jax")
        patch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))
        import keras
    if keras.backend.backend() != "jax":
        pytest.skip("keras was imported with another backend")
    keras.utils.set_random_seed(0)
    made = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3, activation="tanh"),
            keras.layers.GroupNormalization(2),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )
    return made, [jnp.asarray(v.value) for v in made.trainable_variables]


@pytest.fixture
def loss(model):
    made, _ = model
    fixed = [jnp.asarray(v.value) for v in made.non_trainable_variables]

    def cross_entropy(params, example, key):
        image, label = example["image"][None], example["label"]
        logits, _ = made.stateless_call(params, fixed, image)
        return optax.softmax_cross_entropy_with_integer_labels(logits[0], label)

    return cross_entropy


def _rows(count):
    rng = np.random.default_rng(0)
    image = rng.normal(size=(count, 8, 8, 1)).astype(np.float32)
    return {"image": image, "label": rng.integers(0, 3, count)}


def test_clipped_sums_equal_a_loop_over_jax_grad(model, loss):
    _, params = model
    rows = _rows(5)
    total, aux = jax.jit(clipped_grad(loss, clip_norm=CLIP))(params, rows)
    gradient = jax.jit(jax.grad(loss), static_argnums=2)
    want, norms = [np.zeros(leaf.shape) for leaf in params], []
    for i in range(5):
        row = {name: values[i] for name, values in rows.items()}
        grad = [np.asarray(g, np.float64) for g in gradient(params, row, None)]
        norms.append(np.sqrt(sum((g**2).sum() for g in grad)))
        scale = min(1.0, CLIP / norms[-1])
        want = [w + scale * g for w, g in zip(want, grad, strict=True)]
    assert min(norms) > CLIP  # so that clipping is seen
    np.testing.assert_allclose(aux.norms, norms, rtol=1e-5)
    for got, expected in zip(total, want, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_batch_normalization_is_refused(model):
    import keras

    layers = [keras.Input((4,)), keras.layers.Dense(3)]
    made = keras.Sequential([*layers, keras.layers.BatchNormalization()])
    params = [jnp.asarray(v.value) for v in made.trainable_variables]
    fixed = [jnp.asarray(v.value) for v in made.non_trainable_variables]

    def loss(params, x, key):
        out, _ = made.stateless_call(params, fixed, x[None], training=True)
        return jnp.sum(jnp.tanh(out))

    with pytest.raises(ValueError, match="GroupNorm"):
        clipped_grad(loss, clip_norm=CLIP)(params, jnp.ones((2, 4)))


def test_the_trainer_takes_the_model_unchanged(model, loss):
    made, params = model
    plan = DPSGDPlan.create(
        max_records=200,
        expected_batch_size=50,
        steps=3,
        clip_norm=CLIP,
        noise_multiplier=1.0,
    )
    ledger = Ledger.open(
        None,
        budget=Budget(20.0, 1e-5),
        relation="add_remove",
        unit="example",
        dataset="toy 1",
    )
    done = fit(
        loss,
        params,
        _rows(200),
        plan=plan,
        optimizer=optax.adam(0.1),
        ledger=ledger,
        execution=Execution(microbatch_size=16),
    )
    for before, after in zip(params, done.params, strict=True):
        assert np.abs(np.asarray(before) - after).max() > 0
    for variable, value in zip(made.trainable_variables, done.params, strict=True):
        variable.assign(value)  # and the model is trained
    assert np.isfinite(np.asarray(made(_rows(2)["image"]))).all()
