"""The inverse of the normal distribution function, at 64-bit uniforms.

Float32 by Wichura's rational functions of 7 digits: one branch near the middle and two
in the tail, all computed and one selected, so that the code is straight-line. Within
3.2e-7 of the truth for |z| <= 1, 3.9e-7 relative beyond. Float64 by the library's
function, right to a few units in the last place.

Source: Wichura, "Algorithm AS 241: The percentage points of the normal distribution",
1988.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Numerators and denominators, lowest degree first. In r = 0.180625 - q^2, times q:
_MIDDLE = (
    (3.3871327179, 50.434271938, 159.29113202, 59.109374720),
    (1.0, 17.895169469, 78.757757664, 67.187563600),
)
# In t - 1.6 where t = sqrt(-ln p) <= 5:
_TAIL = (
    (1.4234372777, 2.7568153900, 1.3067284816, 0.17023821103),
    (1.0, 0.73700164250, 0.12021132975),
)
# In t - 5 beyond, p < 1.4e-11:
_FAR = (
    (6.6579051150, 3.0812263860, 0.42868294337, 0.017337203997),
    (1.0, 0.24197894225, 0.012258202635),
)


def normal_of_words(high: jax.Array, low: jax.Array, dtype: Any) -> jax.Array:
    """Phi^-1((high 2^32 + low + 1/2) / 2^64), accurate in both tails.

    Args:
      high: uint32 words, any shape.
      low: uint32 words of the same shape.
      dtype: float32 or float64.

    Returns:
      Numbers of this dtype, from -9.1553 to 9.1553.

    Example:
      >>> round(float(normal_of_words(jnp.uint32(2**30), jnp.uint32(0), "float32")), 5)
      -0.67449

    Reference: Wichura, "Algorithm AS 241", 1988, routines PPND7 and PPND16.
    """
    dtype = np.dtype(dtype).type
    negative = high < np.uint32(2**31)
    # 1 - u has the complemented words: exact, where a float's 1 - p is not.
    high = jnp.where(negative, high, ~high)
    low = jnp.where(negative, low, ~low)
    tail = high.astype(dtype) * dtype(2.0**-32)
    tail = tail + (low.astype(dtype) + dtype(0.5)) * dtype(2.0**-64)
    lower = jax.scipy.special.ndtri if dtype is np.float64 else _lower_quantile
    z = lower(tail)
    return jnp.where(negative, z, -z)


def _lower_quantile(p: jax.Array) -> jax.Array:
    """Phi^-1(p) for float32 p in (0, 1/2]."""
    q = np.float32(0.5) - p
    middle = q * _ratio(_MIDDLE, np.float32(0.180625) - q * q)
    t = jnp.sqrt(-jnp.log(p))
    tail = _ratio(_TAIL, t - np.float32(1.6))
    far = _ratio(_FAR, t - np.float32(5.0))
    outside = jnp.where(t <= np.float32(5.0), tail, far)
    return -jnp.where(q <= np.float32(0.425), middle, outside)


def _ratio(coefficients: tuple[tuple[float, ...], ...], x: jax.Array) -> jax.Array:
    """One polynomial over another, by Horner's rule in float32."""
    values = []
    for numbers in coefficients:
        value = jnp.full_like(x, np.float32(numbers[-1]))
        for number in reversed(numbers[:-1]):
            value = value * x + np.float32(number)
        values.append(value)
    return values[0] / values[1]
