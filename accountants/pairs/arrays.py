"""The type of arrays of numbers, and the rule of quadrature that several use."""

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@functools.cache
def gauss_legendre(nodes: int) -> tuple[Array, Array]:
    """Nodes and weights on [-1, 1]; slow to make, so made once, and not on import."""
    return np.polynomial.legendre.leggauss(nodes)
