"""Resumable states of a run, kept by Orbax in the run's private folder.

A checkpoint holds parameters, optimiser state, averages, the step and the public
history so far, and never a root. Loading one and running on repeats the very batches
and the very noise of an uninterrupted run, because those are functions of the roots
and the step number alone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np


class Checkpoints:
    """The last few checkpoints of a run.

    Args:
      folder: a private folder of the run.
      keep: how many to keep.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        import orbax.checkpoint as ocp

        self._ocp = ocp
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, enable_async_checkpointing=False
        )
        self._folder = folder
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def save(self, step: int, state: Any, facts: dict[str, Any]) -> None:
        """Writes one checkpoint: a tree of arrays and JSON facts.

        Raises:
          OSError: it could not be written, for instance because the disk is full; the
            earlier checkpoints stay.
        """
        ocp = self._ocp
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(jax.tree.map(np.asarray, state)),
            facts=ocp.args.JsonSave(facts),
        )
        try:
            with _quiet():
                self._manager.save(step, args=args)
        except (ValueError, OSError) as error:
            reason = _reason(str(error))
            raise OSError(
                f"the checkpoint of step {step} can't be written to {self._folder} "
                f"({reason}): make room and run the same again, it goes on from the "
                "checkpoint before"
            ) from None

    def latest(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """The newest readable checkpoint, or None.

        A damaged one is passed over with a warning: an older one, or the very start,
        replays to the same state.

        Args:
          like: a tree of the expected structure, shapes and dtypes.
        """
        ocp = self._ocp
        wanted = ocp.args.Composite(
            state=ocp.args.StandardRestore(jax.tree.map(np.asarray, like)),
            facts=ocp.args.JsonRestore(),
        )
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                saved: Any = self._manager.restore(step, args=wanted)
            except (ValueError, KeyError, OSError) as error:
                reason = str(error).splitlines()[0]
                warnings.warn(
                    f"checkpoint of step {step} can't be read ({reason}): replaying "
                    "from an earlier one",
                    stacklevel=2,
                )
                continue
            return saved.state, dict(saved.facts)
        return None

    def close(self) -> None:
        """Lets go of the files."""
        self._manager.close()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Orbax's threads tell of a failure on their own; the exception is enough."""
    log, hook = logging.getLogger("absl"), threading.excepthook
    log.addFilter(_nothing)
    threading.excepthook = _nothing
    try:
        yield
    finally:
        log.removeFilter(_nothing)
        threading.excepthook = hook


def _nothing(_: Any) -> bool:
    """Lets no record pass."""
    return False


def _reason(text: str) -> str:
    """The system's words within a long message of the storage library."""
    code = re.search(r"os_error_code='(\d+)'", text)
    return os.strerror(int(code[1])) if code else text.splitlines()[0][:200]
