"""The type of a sum that has no noise yet, so that none is mistaken for a release.

A clipped sum and a private mean gradient are trees of the same shapes. If both were
plain trees, leaving out the noise, or adding noise made for another clip norm, would
run and report an epsilon. A `ClippedSum` is accepted by the noise that matches it and
by nothing else: arithmetic on it, or on its leaves, is an error when it is traced.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
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
    "__rpow__ __floordiv__ __mod__ __matmul__ __rmatmul__ __neg__ __abs__ __lt__ "
    "__le__ __gt__ __ge__ __getitem__ __float__ __array__"
).split()


class _Named(type):
    """Says what to do where JAX prints or compares the types of unlike trees."""

    def __repr__(cls) -> str:
        return f"<ClippedSum, {ADVICE}>"

    def __ne__(cls, other: object) -> bool:
        # JAX compares types by != to explain in six lines why two trees don't match:
        # a sum where parameters should be. One line does better.
        if other is cls:
            return False
        raise TypeError(ADVICE)


@jax.tree_util.register_pytree_with_keys_class
class ClippedSum(metaclass=_Named):
    """A sum of clipped records without noise: private, all of it.

    A pytree, which may cross `jax.jit` and be donated. Its floating leaves are sealed:
    `jax.tree` finds the same bits in arrays whose type has no arithmetic, so that a
    sum, a product or a mean of them fails and prints what to write, and code that looks
    for floating leaves finds none. One more leaf, a scalar, says that it is one sum:
    mapped or stacked it is an array.

    Args:
      private_value: the sum, a tree of arrays. Asking for it is asking for a private
        value.
      clipping: how the records were clipped, as `Stream.clipping` says.
      limit: the clip norm of this step, an array, where it moves; else ().
      statistics: private, what the noise needs beside the sum; see `Stream.statistics`.
      rows: how many rows it is the sum of, padding among them.
      masked: whether a mask said which of them are padding.

    Example:
      >>> import jax.numpy as jnp
      >>> total = ClippedSum({"w": jnp.ones(2)}, clipping="none", rows=4)
      >>> total.private_value["w"].shape
      (2,)
      >>> 0.1 * total
      Traceback (most recent call last):
      TypeError: un-noised sum: put as_optax(plan, root) first in the optimizer's chain
      (optax.MultiSteps behind it, since noise is for one batch); the bare arrays are
      .private_value
    """

    __slots__ = ("_parts", "clipping", "masked", "rows")

    def __init__(
        self,
        private_value: Any,
        clipping: Hashable,
        *,
        rows: int,
        masked: bool = True,
        limit: Any = (),
        statistics: Any = (),
    ) -> None:
        self._parts = (private_value, limit, statistics, np.zeros((), np.float32))
        self.clipping = clipping
        self.rows = rows
        self.masked = masked

    @property
    def private_value(self) -> Any:
        """The sum, bare."""
        return _opened(self._parts[0])

    @property
    def limit(self) -> Any:
        """The clip norm of its step, where it moves."""
        return _opened(self._parts[1])

    @property
    def statistics(self) -> Any:
        """What the noise needs beside the sum."""
        return _opened(self._parts[2])

    @property
    def stack(self) -> tuple[int, ...] | None:
        """The shape of a stack of sums, as maps make it; () for one, None if lost."""
        return getattr(self._parts[3], "shape", None)

    def __repr__(self) -> str:
        return repr(type(self))

    def __add__(self, other: Any) -> NoReturn:
        """Refused, with advice."""
        raise TypeError(_TWO if isinstance(other, ClippedSum) else ADVICE)

    def __contains__(self, name: object) -> bool:
        """False: Flax asks its gradients for a name."""
        return False

    def __iter__(self) -> Iterator[Any]:
        """Refused; optax's types ask that it be there."""
        raise TypeError(ADVICE)

    def tree_flatten_with_keys(self) -> tuple[Any, Any]:
        """The seal first, then the parts, sealed; and what is static."""
        value, limit, statistics, one = self._parts
        children = jax.tree.map(_sealed, (one, value, limit, statistics))
        names = ("seal", "private_value", "limit", "statistics")
        keyed = zip(map(jax.tree_util.GetAttrKey, names), children, strict=True)
        return tuple(keyed), (self.clipping, self.rows, self.masked)

    @classmethod
    def tree_unflatten(cls, static: Any, children: Any) -> ClippedSum:
        """The sum again, its parts as they come: sealed, or what stands for them."""
        total = object.__new__(cls)
        one, *parts = children
        total._parts = (*parts, one)
        total.clipping, total.rows, total.masked = static
        return total


def _refuse(self: ClippedSum, *_: Any, **__: Any) -> NoReturn:
    """Whatever is done with it, it isn't noise."""
    raise TypeError(ADVICE)


def _refuse_name(self: ClippedSum, name: str) -> NoReturn:
    """What parameters have, such as items() or a weight."""
    raise AttributeError(f"ClippedSum has no {name!r}; {ADVICE}")


for _name in _OPERATIONS:
    setattr(ClippedSum, _name, _refuse)
setattr(ClippedSum, "__getattr__", _refuse_name)  # noqa: B010, unseen by type checkers


def _refuse_draws(*_: Any) -> NoReturn:
    """A sealed number is no key."""
    raise TypeError(ADVICE)


def _kind(words: int) -> Any:
    """The type of sealed numbers of so many words: to JAX, keys that draw nothing."""
    # JAX prints the tag of a key's type where it refuses to calculate with a key.
    return jax_random.define_prng_impl(
        key_shape=(words,),
        seed=_refuse_draws,
        split=_refuse_draws,
        random_bits=_refuse_draws,
        fold_in=_refuse_draws,
        name=f"dpkit_unnoised_sum_{words}",
        tag=ADVICE,
    )


_KINDS = {jnp.dtype(jnp.float32): _kind(1), jnp.dtype(jnp.float64): _kind(2)}


def _sealed(leaf: Any) -> Any:
    """The same bits as an array that nothing can be calculated with."""
    dtype = getattr(leaf, "dtype", None)
    kind = None if dtype is None else _KINDS.get(dtype)
    if kind is None:
        return leaf
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.eval_shape(_sealed, leaf)
    if not isinstance(leaf, jax.Array | np.ndarray):
        return leaf
    words = jax.lax.bitcast_convert_type(leaf, jnp.uint32)
    if words.ndim == np.ndim(leaf):
        words = words[..., None]
    return jax.random.wrap_key_data(words, impl=kind)


def _opened(tree: Any) -> Any:
    """A tree whose sealed leaves are numbers again."""
    return jax.tree.map(_opened_leaf, tree)


def _opened_leaf(leaf: Any) -> Any:
    """The numbers of a sealed leaf; any other as it is."""
    dtype = getattr(leaf, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return leaf
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.eval_shape(_opened_leaf, leaf)
    words = jax.random.key_data(leaf)
    wide = words.shape[-1] == 2
    bits, dtype = (words, jnp.float64) if wide else (words[..., 0], jnp.float32)
    return jax.lax.bitcast_convert_type(bits, dtype)
