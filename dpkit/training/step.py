"""One compiled training step: clipped sum, noise, optimiser, average of parameters."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dpkit.data.random_access import Rows, as_rows, empty_rows
from dpkit.jobs.roots import Roots
from dpkit.mechanisms.sampler import Batch
from dpkit.training.execution import Execution
from dpkit.training.gradients import DATA_AXIS, LossFn
from dpkit.training.matching import MaskedRows
from dpkit.training.optimizer import release_state, released_mean
from dpkit.training.plan import DPSGDPlan


class TrainState(NamedTuple):
    """What a step turns into the next one.

    All of it is released or public, but for the memory of correlated noise, which is
    secret: checkpoints are kept in the private folder.
    """

    params: Any
    average: Any
    optimizer: Any
    step: jax.Array
    memory: Any = ()


class Stepper:
    """The compiled step of one run on one or several devices.

    Args:
      loss_fn: (params, example, key) -> scalar.
      plan: what is sampled, clipped and noised.
      optimizer: any optax transformation; it sees released updates only.
      roots: where noise and batches come from.
      execution: how a step is computed; without a microbatch size all rows at once,
        without devices on one.
      average_decay: of the running average of parameters; None keeps none.
    """

    def __init__(
        self,
        loss_fn: LossFn,
        plan: DPSGDPlan,
        optimizer: optax.GradientTransformation,
        roots: Roots,
        execution: Execution,
        *,
        average_decay: float | None,
    ) -> None:
        devices = execution.devices or 1
        microbatch_size = execution.microbatch_size
        mesh = Mesh(np.array(jax.devices()[:devices]), (DATA_AXIS,))
        share = -(-plan.sampler.max_batch_size // devices)
        if microbatch_size is not None and microbatch_size >= share:
            microbatch_size = None  # all at once
        self._plan = plan
        self._optimizer = optimizer
        self._decay = average_decay
        self._devices = devices
        self._generator = execution.generator
        self._rows = NamedSharding(mesh, PartitionSpec(DATA_AXIS))
        self._everywhere = NamedSharding(mesh, PartitionSpec())
        self._keys = jax.device_put(
            (roots.key_for(execution.generator), roots.model_key), self._everywhere
        )
        self._grad = plan.gradient(
            loss_fn,
            mode=execution.mode,
            microbatch=microbatch_size,
            mesh=mesh if devices > 1 else None,
            constant_time=execution.constant_time,
        )
        self._program: tuple[Any, Any] | None = None

    def start(self, params: Any) -> TrainState:
        """The state before the first step."""
        params = jax.tree.map(jnp.array, params)
        average = None if self._decay is None else jax.tree.map(jnp.array, params)
        state = TrainState(
            params,
            average,
            self._optimizer.init(params),
            jnp.zeros((), jnp.int32),
            release_state(self._plan, params),
        )
        return self.place(state)

    def place(self, state: TrainState) -> TrainState:
        """The state on every device."""
        return jax.device_put(state, self._everywhere)

    def __call__(self, state: TrainState, records: Rows, batch: Batch) -> TrainState:
        """One step on one drawn batch; waits until it is done."""
        rows = self._gather(records, batch)
        step, constants = self._compiled(state, rows)
        return jax.block_until_ready(step(state, rows, self._keys, constants))

    def zeros(self, example: Any, filled: int) -> Any:
        """Rows of zeros in the shape of a batch, `filled` of them counted as valid."""
        slots = self._plan.sampler.max_batch_size
        batch = Batch(np.zeros(slots, np.int32), np.arange(slots) < filled)
        return self._gather(as_rows(empty_rows(example, 1)), batch)

    def gradient(self, params: Any, rows: Any) -> Any:
        """The un-noised clipped sum of made-up rows, to be measured; skips padding."""
        batch, mask, indices = rows
        hurried = dataclasses.replace(self._grad.grad, constant_time=False)
        grad = dataclasses.replace(self._grad, grad=hurried)
        memory = release_state(self._plan, params)
        keys = _row_keys(self._keys[1], indices)
        return grad.at(memory, params, MaskedRows(batch, mask), keys)[0]

    def digest(self, state: TrainState, example: Any) -> str:
        """A hash of the program that a step runs and of the state that it starts from.

        Replaying a step with its noise is only safe for the very same sums; this
        tells whether loss, model, optimiser or starting point changed. The state of the
        optimiser counts as well: it may hold a learning rate.
        """
        rows = self.zeros(example, filled=0)
        digest = hashlib.sha256(self.lowered(state, rows).as_text().encode())
        constants = self._compiled(state, rows)[1]
        digest.update(digest_of((state, constants)).encode())
        return digest.hexdigest()

    def lowered(self, state: TrainState, rows: Any) -> jax.stages.Lowered:
        """A step before it is compiled, on rows as `zeros` makes them."""
        step, constants = self._compiled(state, rows)
        return step.lower(state, rows, self._keys, constants)

    def _compiled(self, state: TrainState, rows: Any) -> tuple[Any, Any]:
        """The step, and the arrays that the loss closes over, such as a frozen base.

        They are arguments: in the program itself they would be compiled with it, and
        be there once for every device and program.
        """
        if self._program is None:
            closed, shape = jax.make_jaxpr(self._step, return_shape=True)(
                state, rows, self._keys
            )
            structure = jax.tree.structure(shape)

            def step(state: Any, rows: Any, keys: Any, constants: Any) -> Any:
                leaves = jax.tree.leaves((state, rows, keys))
                results = jax.core.eval_jaxpr(closed.jaxpr, constants, *leaves)
                return jax.tree.unflatten(structure, results)

            constants = jax.device_put(closed.consts, self._everywhere)
            self._program = jax.jit(step, donate_argnums=0), constants
        return self._program

    def _step(self, state: TrainState, rows: Any, keys: Any) -> TrainState:
        """The traced step."""
        batch, mask, indices = rows
        noise_key, model_key = keys
        row_keys = _row_keys(jax.random.fold_in(model_key, state.step), indices)
        rows = MaskedRows(batch, mask)
        total, _ = self._grad.at(state.memory, state.params, rows, row_keys)
        update, memory = released_mean(
            self._plan,
            noise_key,
            state.step,
            total,
            state.params,
            state.memory,
            self._generator,
        )
        update, optimizer = self._optimizer.update(
            update, state.optimizer, state.params
        )
        params = optax.apply_updates(state.params, update)
        average = state.average
        if self._decay is not None:
            average = _averaged(average, params, self._decay, state.step)
        return TrainState(params, average, optimizer, state.step + 1, memory)

    def _gather(self, records: Rows, batch: Batch) -> Any:
        """The rows of a batch, dealt out to the devices in turn.

        Valid rows come first in a batch; dealing keeps the devices equally busy.
        """
        pad = -len(batch.indices) % self._devices
        indices = np.pad(batch.indices, (0, pad))
        mask = np.pad(batch.mask, (0, pad))
        order = np.arange(len(indices)).reshape(-1, self._devices).T.reshape(-1)
        indices, mask = indices[order], mask[order]
        leaves = records.take(indices)
        return jax.device_put((leaves, mask, indices), self._rows)


def digest_of(tree: Any) -> str:
    """SHA-256 over paths, dtypes, shapes and bytes of all leaves, in tree order."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.asarray(leaf)
        name = jax.tree_util.keystr(path)
        digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _row_keys(key: jax.Array, indices: jax.Array) -> jax.Array:
    """A key for each row, by the record's number and not by its place in the batch."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, indices)


def _averaged(average: Any, params: Any, decay: float, step: jax.Array) -> Any:
    """An exponential average that forgets the start quickly."""
    rate = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(
        lambda a, p: (a + (1.0 - rate) * (p - a)).astype(a.dtype), average, params
    )
