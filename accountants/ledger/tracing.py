"""A guard: a ledger must not be charged while JAX traces a function."""

from __future__ import annotations

import sys
from types import ModuleType


def refuse_inside_trace(action: str) -> None:
    """Raise RuntimeError, naming the action, inside jit, scan, vmap, grad and so on.

    A traced function runs once per compilation, not once per call: a charge in it would
    be made once and the release repeated for free. JAX is never imported for this.

    Example:
      >>> refuse_inside_trace("ledger.charge")
    """
    jax = sys.modules.get("jax")
    if jax is not None and _tracing(jax):
        raise RuntimeError(
            f"{action} inside a traced function would count once per compilation, not "
            "once per call; call it outside jit, vmap, grad and scan"
        )


def _tracing(jax: ModuleType) -> bool:
    """Whether a trace is under way; the private test, where present, is the finer."""
    internal = sys.modules.get("jax._src.core")
    is_clean = getattr(internal, "trace_state_clean", None)
    if is_clean is not None and not is_clean():
        return True
    numpy = getattr(jax, "numpy", None)
    tracer = getattr(getattr(jax, "core", None), "Tracer", None)
    if numpy is None or tracer is None:
        return False
    return isinstance(numpy.zeros(()), tracer)
