"""The same loop with jax-privacy 2.0.0; it keeps no ledger."""

import secrets

import jax
import jax.numpy as jnp
import optax
from jax_privacy import accounting, batch_selection, clipping, noise_addition

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


def loss_fn(params, example):
    logits = network(params, example["image"])
    return optax.softmax_cross_entropy_with_integer_labels(logits, example["label"])


num_records, batch_size, steps, delta = len(train["label"]), 256, 60, 1e-4
accountant = accounting.DpsgdTrainingAccountant(accounting.PldAccountantConfig())
noise_multiplier = accounting.calibrate_noise_multiplier(
    target_epsilon=3.0,
    accountant=accountant,
    batch_sizes=batch_size,
    num_updates=steps,
    num_samples=num_records,
    target_delta=delta,
)
gradient_fn = clipping.clipped_grad(
    loss_fn, l2_clip_norm=1.0, keep_batch_dim=False, normalize_by=batch_size
)
stddev = noise_multiplier * gradient_fn.sensitivity()
noise = noise_addition.gaussian_privatizer(
    stddev=stddev, prng_key=jax.random.key(secrets.randbits(32))
)
optimizer = optax.chain(noise, optax.sgd(0.5, momentum=0.9))


@jax.jit
def step(params, state, batch, padding):
    gradient = gradient_fn(params, batch, is_padding_example=padding)
    updates, state = optimizer.update(gradient, state, params)
    return optax.apply_updates(params, updates), state


state = optimizer.init(params)
sampling = batch_selection.CyclicPoissonSampling(batch_size / num_records, steps)
for rows in sampling.batch_iterator(num_records, rng=secrets.randbits(128)):
    rows = batch_selection.pad_to_multiple_of(rows, 64)
    batch = jax.tree.map(lambda x, rows=rows: x[rows], train)
    params, state = step(params, state, batch, rows < 0)

logits = jax.vmap(network, (None, 0))(params, test["image"])
print(float((logits.argmax(1) == test["label"]).mean()))
