"""The microbatch size of a run, chosen by a short measurement on rows of zeros.

Small networks on a CPU run fastest in chunks that fit its caches, large ones on a GPU
all at once. The choice changes the order of sums, hence the last bits of the result: it
is made once, before the first noise, from made-up rows, and kept with the run.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable
from typing import Any

import jax

from dpkit.training.execution import Execution
from dpkit.training.step import Stepper

CANDIDATES = (8, 32, 128)
DEFAULT = 64
_ROWS = 256


def choose_microbatch(
    make: Callable[[Execution], Stepper],
    execution: Execution,
    params: Any,
    example: Any,
    slots: int,
    candidates: Iterable[int] = CANDIDATES,
) -> Execution:
    """The execution with the fastest microbatch size, on a few hundred rows of zeros.

    Args:
      make: a stepper that executes so.
      execution: all but the microbatch size.
      params: where gradients are taken.
      example: shapes and dtypes of one record.
      slots: rows of a padded batch.
      candidates: sizes to try; those above `slots` are left out.

    Returns:
      The execution with a size; no private value has been read.
    """
    sizes = [size for size in candidates if size <= slots] or [1]
    ways = [dataclasses.replace(execution, microbatch_size=size) for size in sizes]
    if len(ways) == 1:
        return ways[0]
    filled = min(_ROWS, slots)
    seconds = {way: _seconds(make(way), params, example, filled) for way in ways}
    return min(seconds, key=seconds.__getitem__)


def _seconds(stepper: Stepper, params: Any, example: Any, filled: int) -> float:
    """The faster of two runs after the one that compiles."""
    rows = stepper.zeros(example, filled)
    gradient = jax.jit(stepper.gradient)
    jax.block_until_ready(gradient(params, rows))
    times = []
    for _ in range(2):
        start = time.perf_counter()
        jax.block_until_ready(gradient(params, rows))
        times.append(time.perf_counter() - start)
    return min(times)
