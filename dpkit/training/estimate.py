"""What a training run will take: measured on one step over rows of zeros."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from dpkit.data import as_rows
from dpkit.data.random_access import empty_rows
from dpkit.jobs.roots import Roots
from dpkit.jobs.session import default_devices
from dpkit.mechanisms.sampler import Batch
from dpkit.training.autotune import DEFAULT
from dpkit.training.examples import per_user
from dpkit.training.execution import Execution
from dpkit.training.step import Stepper

if TYPE_CHECKING:
    from dpkit.training.job import Training


def estimate(job: Training, execution: Execution) -> dict[str, Any]:
    """The plan's numbers, and the memory and time of its steps on this machine.

    Args:
      job: what will be trained.
      execution: how; what it leaves open is set as a seeded run would.

    Returns:
      By name: `noise_multiplier`, `steps`, `expected_batch_size`, `max_batch_size`,
      `memory_bytes` of one step on one device, None where JAX can't tell, and `seconds`
      of all steps, without compilation and evaluation. Steps are timed on zeros with as
      many rows as expected.
    """
    numbers = job.plan.to_json()
    names = ("noise_multiplier", "steps", "expected_batch_size", "max_batch_size")
    memory, seconds = _measured(job, execution)
    return {
        **{name: numbers[name] for name in names},
        "memory_bytes": memory,
        "seconds": round(seconds * job.plan.steps, 1),
    }


def _measured(job: Training, execution: Execution) -> tuple[int | None, float]:
    """Bytes and seconds of one step."""
    execution = dataclasses.replace(
        execution,
        devices=execution.devices or default_devices(),
        microbatch_size=execution.microbatch_size or DEFAULT,
    )
    most, loss, row = job.config.privacy.rows_per_unit, job.network.loss, _row(job)
    if most is not None:
        loss, shape = per_user(loss, most), jax.ShapeDtypeStruct
        rows = jax.tree.map(lambda leaf: shape((most, *leaf.shape), leaf.dtype), row)
        row = (rows, shape((most,), np.bool_))
    stepper = Stepper(
        loss,
        job.plan,
        job.optimizer,
        Roots.insecure(0),  # no record is involved
        execution,
        average_decay=job.config.training.average_decay,
    )
    state = stepper.start(job.start())
    slots, expected = job.plan.sampler.max_batch_size, job.plan.expected_batch_size
    lowered = stepper.lowered(state, stepper.zeros(row, round(expected)))
    batch = Batch(np.zeros(slots, np.int32), np.arange(slots) < round(expected))
    records, seconds = as_rows(empty_rows(row, 1)), 0.0
    for _ in range(2):  # the first one compiles
        start = time.perf_counter()
        state = stepper(state, records, batch)
        seconds = time.perf_counter() - start
    held = lowered.compile().memory_analysis()
    return held and int(held.temp_size_in_bytes + held.argument_size_in_bytes), seconds


def _row(job: Training) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and types of one row, from the public layout."""
    return {name: job.input.layout.fields[name] for name in job.network.fields}
