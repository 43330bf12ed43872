"""Plain NumPy arrays out of a pickle, without giving it any power.

A pickle is a program: it may import and call anything. This reader answers its imports
from a closed list of three harmless names, two of which are stand-ins of ours, and
refuses every other. It is used only on bytes whose hash is on record; the restriction
is the second lock.
"""

import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

from dpkit.data.errors import DataCorrupt


def read_arrays(stream: io.BufferedIOBase) -> Any:
    """What a pickle of nested tuples of numeric NumPy arrays holds.

    Args:
      stream: the pickle; protocols 0 to 2 of Python 2 are understood.

    Returns:
      The same nesting.

    Raises:
      DataCorrupt: it asks for any other name than those of a NumPy array, or is no
        complete pickle.

    Example:
      >>> read_arrays(io.BytesIO(pickle.dumps((np.array([1, 2]), 3), protocol=3)))
      (array([1, 2]), 3)
    """
    # latin1 is how Python 3 takes the byte strings of Python 2 without loss.
    reader = _Reader(stream, encoding="latin1")
    try:
        return reader.load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError) as error:
        raise DataCorrupt(f"pickle of arrays: {error}") from error


class _Reader(pickle.Unpickler):
    """Knows the names in a pickled array, and no others."""

    def find_class(self, module: str, name: str) -> Any:
        # NumPy 2 moved the module; old pickles carry the old name.
        module = module.replace("numpy.core.", "numpy._core.")
        allowed = _ALLOWED.get((module, name))
        if allowed is None:
            raise pickle.UnpicklingError(f"the global {module}.{name} is not allowed")
        return allowed


def _empty_array(*_: object) -> np.ndarray:
    """An array for the pickle to fill in; its own arguments are placeholders."""
    return np.empty(0, np.int8)


def _numeric_dtype(code: str, *_: object) -> np.dtype:
    """A dtype of our own to fill in; never one that holds Python objects."""
    dtype = np.dtype(code)
    if dtype.kind not in "biuf":
        raise pickle.UnpicklingError(f"dtype={code!r}: only numbers are allowed")
    return np.dtype(dtype, copy=True)


_ALLOWED: dict[tuple[str, str], Callable[..., Any] | type] = {
    ("numpy._core.multiarray", "_reconstruct"): _empty_array,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _numeric_dtype,
}
