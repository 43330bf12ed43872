"""Plain NumPy arrays out of a pickle, without giving it any power.

A pickle is a program: it may import and call anything, or fill the memory. This reader
lets only those instructions pass that arrays need. It answers their imports with
stand-ins for three harmless names, which only note down what they are told; arrays are
made afterwards, from bytes of the right length and one of twelve numeric types, so
nothing of NumPy ever runs on what a pickle says. It is used only on bytes whose hash is
on record; the restriction is the second lock.
"""

import dataclasses
import io
import math
import pickle
import pickletools
from typing import Any

import numpy as np

from dpkit.data.errors import DataCorrupt

_NUMERIC = ("b1", *(kind + size for kind in "iu" for size in "1248"), "f2", "f4", "f8")
_MOST_VALUES, _DEEPEST, _MOST_KEPT = 1000, 8, 1000
# Numbers, strings, tuples; a name, a call, a state; keeping a value and fetching it.
_INSTRUCTIONS = frozenset(
    """PROTO STOP MARK NONE NEWTRUE NEWFALSE INT LONG LONG1 BININT BININT1 BININT2 FLOAT
    BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE BINBYTES SHORT_BINBYTES
    EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 GLOBAL REDUCE BUILD
    PUT BINPUT LONG_BINPUT GET BINGET LONG_BINGET""".split()
)


def read_arrays(stream: io.BufferedIOBase) -> Any:
    """What a pickle of nested tuples of numeric NumPy arrays holds.

    Args:
      stream: the pickle, which is read twice; protocols 0 to 2 of Python 2 are
        understood.

    Returns:
      The same nesting, of arrays, numbers and strings.

    Raises:
      DataCorrupt: it asks for any other name than those of a NumPy array, tells
        anything of an array but its shape, order, numeric type and bytes, holds
        anything else, or is no complete pickle.

    Example:
      >>> read_arrays(io.BytesIO(pickle.dumps((np.array([1, 2]), 3), protocol=3)))
      (array([1, 2]), 3)
    """
    # latin1 is how Python 3 takes the byte strings of Python 2 without loss.
    try:
        start = stream.tell()
        _check_instructions(stream)
        stream.seek(start)
        reader = _Reader(stream, encoding="latin1")
        return _finished(reader.load(), [_MOST_VALUES], _DEEPEST)
    except OSError:
        raise  # of the stream
    except Exception as error:  # what a broken program may end with has no list
        raise DataCorrupt(f"pickle of arrays: {error}") from error


def _check_instructions(stream: io.BufferedIOBase) -> None:
    """Reads the instructions without obeying them, and refuses what isn't needed."""
    for instruction, argument, _ in pickletools.genops(stream):
        name = instruction.name
        if name not in _INSTRUCTIONS:
            raise pickle.UnpicklingError(
                f"the instruction {name} is not allowed: only numbers, strings, tuples "
                "and arrays of numbers"
            )
        if name.endswith("PUT") and not 0 <= int(argument or 0) <= _MOST_KEPT:
            raise pickle.UnpicklingError(f"{name} {argument}: at most {_MOST_KEPT}")
        if name == "GLOBAL":
            _known(*str(argument).split(" ", 1))


class _Reader(pickle.Unpickler):
    """Knows the names in a pickled array, and no others."""

    def find_class(self, module: str, name: str) -> Any:
        return _Name(_known(module, name))


def _known(module: str, name: str) -> str:
    """The full name, if it is one of those that are answered."""
    # NumPy 2 moved the module; old pickles carry the old name.
    known = f"{module.replace('numpy.core.', 'numpy._core.')}.{name}"
    if known not in _Name.known:
        raise pickle.UnpicklingError(f"the global {module}.{name} is not allowed")
    return known


class _Name:
    """A name that was asked for: a new object each time, which can't be changed."""

    __slots__ = ("name",)
    known = ("numpy._core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype")

    def __init__(self, name: str) -> None:
        self.name = name

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError(f"{self.name} can't be given a state")

    def __call__(self, *args: Any) -> Any:
        if self.name == "numpy.dtype":
            return _Dtype(*args)
        if self.name == "numpy.ndarray" or not args or not _is_ndarray(args[0]):
            raise pickle.UnpicklingError(f"{self.name} of that is not allowed")
        return _Array()


class _Dtype:
    """A numeric type: its code and, once it has a state, its byte order."""

    __slots__ = ("code", "dtype")

    def __init__(self, code: object, *_: object) -> None:
        if code not in _NUMERIC:
            code = repr(code[:20]) if isinstance(code, str) else type(code).__name__
            raise pickle.UnpicklingError(f"dtype={code}: only numbers are allowed")
        self.code, self.dtype = code, None

    def __setstate__(self, state: Any) -> None:
        # Version; byte order; no subarray, names or fields; sizes by the code; no flag.
        version, order, *rest = state
        plain = version == 3 and rest == [None, None, None, -1, -1, 0]
        if not plain or order not in ("<", ">", "|"):
            raise pickle.UnpicklingError("a dtype with more to it is not allowed")
        self.dtype = np.dtype(f"{order}{self.code}")


@dataclasses.dataclass(slots=True)
class _Array:
    """An array, once it has a state."""

    array: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        version, shape, dtype, by_columns, data = state
        if version != 1 or not isinstance(dtype, _Dtype) or dtype.dtype is None:
            raise pickle.UnpicklingError("an array of another version, or of no type")
        data = data.encode("latin1") if isinstance(data, str) else data
        lengths = [n for n in shape if type(n) is int and n >= 0]
        wanted = dtype.dtype.itemsize * math.prod(lengths)
        if len(lengths) != len(shape) or type(data) is not bytes or len(data) != wanted:
            raise pickle.UnpicklingError("an array's shape doesn't match its bytes")
        flat = np.frombuffer(data, dtype.dtype)
        order = "F" if by_columns else "C"
        self.array = flat.reshape(lengths, order=order).copy(order)


def _is_ndarray(value: object) -> bool:
    """Whether it stands for NumPy's class of arrays."""
    return isinstance(value, _Name) and value.name == "numpy.ndarray"


def _finished(value: Any, left: list[int], deeper: int) -> Any:
    """The value with its arrays, if it is of the kinds that are allowed."""
    left[0] -= 1
    if not left[0] or not deeper:
        raise pickle.UnpicklingError(
            f"more than {_MOST_VALUES} values, or {_DEEPEST} levels of nesting"
        )
    if isinstance(value, _Array) and value.array is not None:
        return value.array
    if type(value) is tuple:
        return tuple(_finished(one, left, deeper - 1) for one in value)
    if value is None or type(value) in (bool, int, float, str, bytes):
        return value
    raise pickle.UnpicklingError(f"a {type(value).__name__} is not allowed")
