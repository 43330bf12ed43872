"""The same loop with dpkit: sampled, clipped, noised and charged to a ledger."""

import jax
import jax.numpy as jnp
import optax

from dpkit import Budget, DPSGDPlan, Ledger, as_optax, secret_key
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


plan = DPSGDPlan.for_budget(
    epsilon=3.0,
    delta=1e-4,
    relation="add_remove",
    steps=60,
    max_records=1500,
    expected_batch_size=256,
    clip_norm=1.0,
)
root = secret_key()
optimizer = optax.chain(as_optax(plan, root), optax.sgd(0.5, momentum=0.9))


@jax.jit
def step(params, state, batch):
    gradient, _ = plan.gradient(loss_fn)(params, batch)
    updates, state = optimizer.update(gradient, state, params)
    return optax.apply_updates(params, updates), state


state = optimizer.init(params)
ledger = Ledger.open(
    "loop.db",
    budget=Budget(3.0, 1e-4),
    relation="add_remove",
    unit="example",
    dataset="digits 1",
)
for batch in plan.batches(root, train, ledger=ledger):
    params, state = step(params, state, batch)

logits = jax.vmap(network, (None, 0))(params, test["image"])
print(float((logits.argmax(1) == test["label"]).mean()), ledger.spent().upper)
