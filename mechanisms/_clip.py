"""What all clipping functions share: their protocol, and total functions of norms.

A clipping function looks at norms only. It divides the leaves of a record into K public
groups, and multiplies every group with a factor that depends on the K norms. How far
the result can reach, its radius, is a number known beforehand.
"""

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from dpkit.accountants.answers import checks as _numbers
from dpkit.accountants.answers.relations import Relation, as_relation, shift
from dpkit.mechanisms.noise import wide

# Float32 squares lose entries below 1e-19 and overflow at norms above 1.8e19; between
# these limits the norm of a record, compared with C, is right to a few parts in 1e7.
SMALLEST_NORM, LARGEST_NORM = 1e-10, 1e15


@runtime_checkable
class Clip(Protocol):
    """A clipping function: factors from norms, and the radius that they enforce.

    Privacy: whatever a record holds, its leaves multiplied by the factors of their
    groups have L2 norm at most radius (1 + 2^-20), all leaves together.

    Example:
      >>> from dpkit.mechanisms.clips import Flat
      >>> isinstance(Flat(1.0), Clip)
      True
    """

    @property
    def radius(self) -> float:
        """The norm that one clipped record never passes: sup over n of n phi(n)."""
        ...

    def sensitivity(self, relation: Relation | str) -> float:
        """The most that one record moves a sum: radius, or 2 radius if replaced."""
        ...

    def groups(self, tree: Any) -> tuple[int, ...]:
        """The number, 0..K-1, of every leaf's group, in the order of the leaves."""
        ...

    def factors(self, norms: jax.Array) -> jax.Array:
        """Factors >= 0 from norms, (..., K) both.

        Where a norm is not finite, all K factors of that record are 0. The record must
        then be replaced by zeros, since 0 * NaN is NaN.
        """
        ...


class BoundedClip:
    """Mixin: the sensitivity, from the radius.

    Example:
      >>> from dpkit.mechanisms.clips import Flat
      >>> Flat(3.0).sensitivity("add_remove"), Flat(3.0).sensitivity("replace_one")
      (3.0, 6.0)
    """

    def sensitivity(self: Clip, relation: Relation | str) -> float:
        """The most that one record moves a sum: radius, or 2 radius if replaced."""
        return shift(as_relation(relation)) * self.radius


class OneGroup(BoundedClip):
    """Mixin: clips by the norm of the whole record; say `factor` of a finite norm.

    Example:
      >>> from dpkit.mechanisms.clips import Flat
      >>> Flat(1.0).groups({"w": jnp.zeros(3), "b": jnp.zeros(())})
      (0, 0)
    """

    def factor(self, norm: jax.Array) -> jax.Array:
        """The factor of each finite norm >= 0, in float32 or wider."""
        raise NotImplementedError

    def groups(self, tree: Any) -> tuple[int, ...]:
        """All leaves in group 0."""
        return (0,) * len(jax.tree.leaves(tree))

    def factors(self, norms: jax.Array) -> jax.Array:
        """Factors (..., 1) from norms (..., 1), 0 where the norm is not finite."""
        norms, usable = finite_norms(norms, 1)
        return jnp.where(usable, self.factor(norms), 0.0)


def finite_norms(norms: jax.Array, num_groups: int) -> tuple[jax.Array, jax.Array]:
    """Norms (..., K), zeros for a record with a bad one; and (..., 1): none is bad.

    Raises:
      ValueError: the last axis is not the K groups.

    Example:
      >>> norms, usable = finite_norms(jnp.array([[1.0, 2.0], [3.0, jnp.inf]]), 2)
      >>> norms.tolist(), usable.tolist()
      ([[1.0, 2.0], [0.0, 0.0]], [[True], [False]])
    """
    if jnp.ndim(norms) == 0 or norms.shape[-1] != num_groups:
        raise ValueError(
            f"norms.shape={jnp.shape(norms)}: needed a last axis of {num_groups}, a "
            "norm for every group"
        )
    norms = norms.astype(wide(norms.dtype))
    usable = jnp.all(jnp.isfinite(norms), axis=-1, keepdims=True)
    return jnp.where(usable, norms, 0.0), usable


def shrinking(norms: jax.Array, limits: Any) -> jax.Array:
    """min(1, limit / norm), for finite norms; 0 where a limit is NaN or not positive.

    Args:
      norms: finite, >= 0.
      limits: numbers or arrays, perhaps traced or infinite: one for all norms, or one
        for each along the last axis.

    Example:
      >>> shrinking(jnp.array([0.0, 0.5, 4.0]), 1.0)
      Array([1.  , 1.  , 0.25], dtype=float32)
    """
    limits = jnp.asarray(limits, norms.dtype)
    if limits.ndim and limits.ndim < norms.ndim:
        limits = limits.reshape((1,) * (norms.ndim - limits.ndim) + limits.shape)
    above = norms > limits
    # No division by zero and no fudge term: the quotient is read where norm > limit.
    shrunk = jnp.where(above, limits / jnp.where(above, norms, 1.0), 1.0)
    return jnp.where(limits > 0, shrunk, 0.0)


def in_range(**value: object) -> float:
    """A number that float32 norms can be compared with, as float.

    Example:
      >>> in_range(clip_norm=2)
      2.0
    """
    number = _numbers.positive(**value)
    if not SMALLEST_NORM <= number <= LARGEST_NORM:
        raise ValueError(
            f"{next(iter(value))}={number!r}: needed {SMALLEST_NORM} to "
            f"{LARGEST_NORM}, where float32 norms can be trusted; rescale the records"
        )
    return number
