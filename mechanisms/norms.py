r"""Sums of squares in float32 that are never told too small.

A clipping function scales a record by what its norm is said to be. A norm that
rounding made too small lets the record move a sum further than promised, and the worst
record is chosen by an adversary: of thousands of equal entries all roundings can point
the same way. So the order of the sum is ours, and what it may lose is added.

Entries are squared and added in short rows, in whatever order the compiler likes; the
sums of rows, of all leaves together, are added by halves. With the unit u = 2^-24, a
sum of n nonnegative numbers is off by a factor of (1 - u)^(n-1) at the lowest, in any
order, and one by halves by (1 - u)^h, h = ceil(log2 n). Rows of length r make that

    computed >= exact (1 - u)^(1 + d),   d = r - 1 + h,

the 1 being the square's own rounding. Up to d = 16 that is left as it is: d / 2 units
of the norm. Where d is larger, the sum is multiplied with a number above (1 - u)^-(d+2)
and is never below the exact one. So a square root of it is below the norm by 9.5 units
at most (one of them its own), for any number and any shapes of leaves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dpkit.mechanisms.noise import wide
from dpkit.mechanisms.protocol import tree_sum

UNIT = 2.0**-24
_LEFT_ALONE = 16
_SMALL, _SHORT, _ROW, _LONGEST = 1024, 8, 256, 4096


def squared_norm(leaves: Sequence[jax.Array], later: int = 0) -> jax.Array:
    """The sum of the squares of all entries, in float32 or wider.

    Privacy: with the unit u = 2^-24, at least (1 - u)^17 of the exact sum, or more than
    all of it; a square below the smallest float32 number counts as 0.

    Args:
      leaves: floating arrays of any shapes; none at all has norm 0.
      later: how often the result, or a sum that it becomes part of, will be added to
        something by the caller; the promise holds after that.

    Returns:
      A scalar >= 0; not finite if an entry isn't, or if the squares overflow.

    Example:
      >>> float(squared_norm([jnp.array([2.0, 3.0]), jnp.array(6.0)]))
      49.0
    """
    double = [leaf.dtype == np.float64 for leaf in leaves]
    dtype = np.float64 if any(double) else np.float32
    leaves = [leaf.astype(wide(leaf.dtype)) for leaf in leaves if leaf.size]
    if not leaves:
        return jnp.zeros((), dtype)
    tiny = [x.reshape(-1).astype(dtype) for x in leaves if x.size <= _SHORT]
    parts = [_row_sums(jnp.square(leaf)) for leaf in leaves if leaf.size > _SHORT]
    if tiny:  # thousands of scalars are one array to square
        parts.append((jnp.square(jnp.concatenate(tiny)), 1))
    total = tree_sum(jnp.concatenate([sums.astype(dtype) for sums, _ in parts]))
    if all(double):
        return total  # whose unit is 2^-53
    count, longest = sum(len(sums) for sums, _ in parts), max(row for _, row in parts)
    return not_below(total, longest - 1 + halvings(count) + later)


def not_below(total: jax.Array, additions: int) -> jax.Array:
    """A sum of nonnegative numbers, raised by what its additions may have lost.

    Args:
      total: computed with `additions` roundings, one after another, of numbers that
        had been rounded once before.
      additions: d, known when the program is traced.

    Returns:
      The sum itself up to d = 16, where it may lack 1 - (1 - u)^17; else a larger one
      that isn't below the exact sum.

    Example:
      >>> float(not_below(jnp.float32(1.0), 16))
      1.0
      >>> float(not_below(jnp.float32(1.0), 1000)) >= (1 - 2**-24) ** -1001
      True
    """
    if additions <= _LEFT_ALONE:
        return total
    # 1 / (1 - n u) > (1 - u)^-n, and the multiplication itself is one rounding more.
    lost = (additions + 2) * UNIT
    if lost >= 0.5:
        raise ValueError(
            f"a sum of {additions} additions one after another: needed at most 2^23, "
            "what float32 can bound"
        )
    steps = math.ceil(lost / (1 - lost) / (2 * UNIT))
    return total * np.array(1 + steps * 2 * UNIT, total.dtype)


def halvings(count: int) -> int:
    """How many additions one after another `tree_sum` makes of so many numbers.

    Example:
      >>> [halvings(count) for count in (1, 2, 3, 1024, 1025)]
      [0, 1, 2, 10, 11]
    """
    return max(count - 1, 0).bit_length()


def _row_sums(squares: jax.Array) -> tuple[jax.Array, int]:
    """Sums over rows of one leaf's squares, (n,), and how long a row is."""
    size, last = squares.size, squares.shape[-1]
    if size > _SMALL and _SHORT <= last <= _LONGEST:
        return squares.sum(axis=-1).reshape(-1), last  # the fastest, if it is there
    flat = squares.reshape(-1)
    most = _SHORT if size <= _SMALL else _ROW
    row = next(n for n in range(most, 0, -1) if size % n == 0)
    if 2 * row >= most:
        return flat.reshape(-1, row).sum(axis=1), row
    rest = size % most
    whole = flat[: size - rest].reshape(-1, most).sum(axis=1)
    return jnp.concatenate([whole, flat[size - rest :].sum(keepdims=True)]), most
