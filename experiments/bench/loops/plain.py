"""A training loop of one's own, without privacy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dpkit.data import load_arrays

train, test = load_arrays("digits", "train"), load_arrays("digits", "test")


def network(params, image):
    hidden = jnp.tanh(image.reshape(-1) / 16.0 @ params["hidden"])
    return hidden @ params["last"]


keys = jax.random.split(jax.random.key(0))
params = {
    "hidden": 0.1 * jax.random.normal(keys[0], (64, 64)),
    "last": 0.1 * jax.random.normal(keys[1], (64, 10)),
}


def loss_fn(params, example, key=None):
    logits = network(params, example["image"])
    return optax.softmax_cross_entropy_with_integer_labels(logits, example["label"])


def mean_loss(params, batch):
    return jnp.mean(jax.vmap(loss_fn, (None, 0))(params, batch))


optimizer = optax.sgd(0.5, momentum=0.9)


@jax.jit
def step(params, state, batch):
    gradient = jax.grad(mean_loss)(params, batch)
    updates, state = optimizer.update(gradient, state, params)
    return optax.apply_updates(params, updates), state


state = optimizer.init(params)
draws = np.random.default_rng(0)
for _ in range(60):
    rows = draws.integers(len(train["label"]), size=256)
    batch = jax.tree.map(lambda x, rows=rows: x[rows], train)
    params, state = step(params, state, batch)

logits = jax.vmap(network, (None, 0))(params, test["image"])
print(float((logits.argmax(1) == test["label"]).mean()))
