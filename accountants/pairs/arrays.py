"""The type of arrays of numbers, and what several do with them."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@functools.cache
def gauss_legendre(nodes: int) -> tuple[Array, Array]:
    """Nodes and weights on [-1, 1]; slow to make, so made once, and not on import."""
    return np.polynomial.legendre.leggauss(nodes)


def power(base: Array, exponent: int, times: Callable[[Array, Array], Array]) -> Array:
    """The product of `exponent` factors by squaring: exact for one, and quick."""
    result = None
    while True:
        if exponent & 1:
            result = base if result is None else times(result, base)
        exponent >>= 1
        if exponent == 0:
            return base if result is None else result
        base = times(base, base)
