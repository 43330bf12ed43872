"""The same loop with dpkit: sampled, clipped, noised and charged to a ledger."""

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from dpkit import Budget, DPSGDPlan, Ledger, as_optax, secret_key
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


# fmt: off
plan = DPSGDPlan.for_budget(epsilon=3.0, delta=1e-4, relation="add_remove", steps=60,
                            max_records=1500, expected_batch_size=256, clip_norm=1.0)
# fmt: on
root = secret_key()
optimizer = optax.chain(as_optax(plan, root), optax.sgd(0.5, momentum=0.9))


@jax.jit
def step(params, state, batch):
    gradient, _ = plan.gradient(loss_fn)(params, batch)
    updates, state = optimizer.update(gradient, state, params)
    return optax.apply_updates(params, updates), state


state = optimizer.init(params)
# fmt: off
ledger = Ledger.open("loop.db", budget=Budget(3.0, 1e-4), relation="add_remove",
                     unit="example", dataset="digits 1")
# fmt: on
for batch in plan.batches(root, train, ledger=ledger):
    params, state = step(params, state, batch)

logits = jax.vmap(model.apply, (None, 0))(params, test["image"].astype(jnp.float32))
print(float((logits.argmax(1) == test["label"]).mean()), ledger.spent().upper)
