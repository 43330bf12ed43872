"""The type of a sum that has no noise yet, so that none is mistaken for a release.

A clipped sum and a private mean gradient are trees of the same shapes. If both were
plain trees, leaving out the noise, or adding noise made for another clip norm, would
run and report an epsilon. A `ClippedSum` is accepted by the noise that matches it and
by nothing else: arithmetic on it, or on its leaves, is an error when it is traced.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NoReturn

import jax
import numpy as np
from jax.extend import random as jax_random

ADVICE = (
    "un-noised sum: put as_optax(plan, root) first in the optimizer's chain "
    "(optax.MultiSteps behind it, since noise is for one batch); "
    "the bare arrays are .private_value"
)
_TWO = (
    "two un-noised sums: noise is for the sum of one batch; for a batch in parts use "
    "microbatch=, to average steps put optax.MultiSteps behind as_optax(plan, root)"
)
_OPERATIONS = (
    "__radd__ __sub__ __rsub__ __mul__ __rmul__ __truediv__ __rtruediv__ __pow__ "
    "__rpow__ __matmul__ __rmatmul__ __neg__ __abs__ __lt__ __le__ __gt__ __ge__ "
    "__getitem__ __iter__ __float__ __array__ __jax_array__"
).split()


class _Named(type):
    """JAX's errors about trees that don't match print the class: it says what to do."""

    def __repr__(cls) -> str:
        return f"<ClippedSum, {ADVICE}>"


@jax.tree_util.register_pytree_with_keys_class
class ClippedSum(metaclass=_Named):
    """A sum of clipped records without noise: private, all of it.

    A pytree, which may cross `jax.jit` and be donated. Its first leaf is a seal, an
    array whose type has no arithmetic: `jax.tree.map` of a sum, a product or a mean
    fails on it and prints what to write.

    Args:
      private_value: the sum, a tree of arrays. Asking for it is asking for a private
        value.
      clipping: how the records were clipped, as `Stream.clipping` says.
      limit: the clip norm of this step, an array, where it moves; else ().
      statistics: private, what the noise needs beside the sum; see `Stream.statistics`.
      unmasked_rows: how many rows it is the sum of, where none was said to be padding.

    Example:
      >>> import jax.numpy as jnp
      >>> total = ClippedSum({"w": jnp.ones(2)}, clipping="none")
      >>> total.private_value["w"].shape
      (2,)
      >>> 0.1 * total
      Traceback (most recent call last):
      TypeError: un-noised sum: put as_optax(plan, root) first in the optimizer's chain
      (optax.MultiSteps behind it, since noise is for one batch); the bare arrays are
      .private_value
    """

    __slots__ = ("clipping", "limit", "private_value", "statistics", "unmasked_rows")

    def __init__(
        self,
        private_value: Any,
        clipping: Hashable,
        *,
        limit: Any = (),
        statistics: Any = (),
        unmasked_rows: int | None = None,
    ) -> None:
        self.private_value = private_value
        self.clipping = clipping
        self.limit = limit
        self.statistics = statistics
        self.unmasked_rows = unmasked_rows

    def __repr__(self) -> str:
        return repr(type(self))

    def __add__(self, other: Any) -> NoReturn:
        """Refused, with advice."""
        raise TypeError(_TWO if isinstance(other, ClippedSum) else ADVICE)

    def tree_flatten_with_keys(self) -> tuple[Any, Any]:
        """The seal, the values, and what is static."""
        children = (
            ("seal", _seal()),
            ("private_value", self.private_value),
            ("limit", self.limit),
            ("statistics", self.statistics),
        )
        keyed = [(jax.tree_util.GetAttrKey(name), child) for name, child in children]
        return keyed, (self.clipping, self.unmasked_rows)

    @classmethod
    def tree_unflatten(cls, static: Any, children: Any) -> ClippedSum:
        """The sum again; a seal is made anew whenever it is taken apart."""
        _, value, limit, statistics = children
        clipping, rows = static
        return cls(
            value, clipping, limit=limit, statistics=statistics, unmasked_rows=rows
        )


def _refuse(self: ClippedSum, *_: Any, **__: Any) -> NoReturn:
    """Whatever is done with it, it isn't noise."""
    raise TypeError(ADVICE)


for _name in _OPERATIONS:
    setattr(ClippedSum, _name, _refuse)


def _refuse_draws(*_: Any) -> NoReturn:
    """A seal is no key."""
    raise TypeError(ADVICE)


# JAX prints the tag of a key's type where it refuses to calculate with a key.
_SEALED = jax_random.define_prng_impl(
    key_shape=(1,),
    seed=_refuse_draws,
    split=_refuse_draws,
    random_bits=_refuse_draws,
    fold_in=_refuse_draws,
    name="dpkit_unnoised_sum",
    tag=ADVICE,
)


def _seal() -> jax.Array:
    """A scalar of a type that nothing can be calculated with."""
    words: Any = np.zeros(1, np.uint32)
    return jax.random.wrap_key_data(words, impl=_SEALED)
