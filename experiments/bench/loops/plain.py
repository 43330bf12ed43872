"""A training loop of one's own, without privacy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from dpkit.data import load_arrays

train, test = load_arrays("digits", "train"), load_arrays("digits", "test")


class Network(nn.Module):
    """One hidden layer."""

    @nn.compact
    def __call__(self, image):
        """The logits of one image."""
        x = nn.tanh(nn.Dense(64)(image.reshape(-1) / 16.0))
        return nn.Dense(10)(x)


model = Network()
params = model.init(jax.random.key(0), jnp.zeros((8, 8, 1)))


def loss_fn(params, example, key=None):
    logits = model.apply(params, example["image"].astype(jnp.float32))
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

logits = jax.vmap(model.apply, (None, 0))(params, test["image"].astype(jnp.float32))
print(float((logits.argmax(1) == test["label"]).mean()))
