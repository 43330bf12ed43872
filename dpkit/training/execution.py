"""How a step is computed, which is no part of what it means.

None of it changes what a run costs. It changes the last bits of sums, though, so it is
chosen before the first noise and kept with the run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from dpkit.accountants.answers import checks
from dpkit.mechanisms.noise import GENERATORS

MODES = ("auto", "vmap", "two_pass", "microbatch")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Execution:
    """How gradients are clipped and noise is drawn: the same plan, other speeds.

    Args:
      mode: of `clipped_grad`.
      microbatch_size: examples a chunk on each device; None lets `fit` measure on zeros
        before the run (or take a constant where a seed asks for the same bits again).
      devices: how many of `jax.devices()` share a batch; None takes all, but at most
        two on a CPU.
      generator: of the noise: "threefry" (a key of 64 bits) or "chacha20" (256 bits).
      constant_time: padding is worked through like records. Without it the time of a
        step tells how many records were drawn: private, under "add_remove".

    Raises:
      ValueError, TypeError: a number out of range, an unknown word.

    Example:
      >>> Execution(microbatch_size=32).generator
      'threefry'
    """

    mode: str = "auto"
    microbatch_size: int | None = None
    devices: int | None = None
    generator: str = "threefry"
    constant_time: bool = True

    def __post_init__(self) -> None:
        """Refuses what would only fail after the charge."""
        checks.one_of(MODES, mode=self.mode)
        checks.one_of(GENERATORS, generator=self.generator)
        if self.microbatch_size is not None:
            checks.integer_at_least(1, microbatch_size=self.microbatch_size)
        if self.devices is not None:
            checks.integer_at_least(1, devices=self.devices)
        if not isinstance(self.constant_time, bool):
            raise TypeError(f"constant_time={self.constant_time!r}: give True or False")

    def chosen(self, facts: Mapping[str, Any]) -> Execution:
        """The same with what a resumed run has settled, where nothing is asked for."""
        settled = {
            name: facts[name]
            for name in ("devices", "microbatch_size")
            if getattr(self, name) is None and facts.get(name) is not None
        }
        return dataclasses.replace(self, **settled)
