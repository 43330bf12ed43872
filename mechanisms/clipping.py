r"""Bound what one record can add to a sum, and publish the sum with Gaussian noise.

A record is a pytree; its norm is the L2 norm over all its leaves together. Flat
clipping scales a record of norm above C down to norm C and leaves every other one
alone, so that one record moves the sum by at most C (add or remove it, or replace it by
a zero record) or 2C (replace it by another). Other clipping functions are in `clips`;
each has a radius that stands in C's place.

Source: Abadi et al., "Deep Learning with Differential Privacy", 2016, Algorithm 1.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from dp_accounting import DpEvent, GaussianDpEvent, NonPrivateDpEvent

from dpkit.accountants.answers import checks as _numbers
from dpkit.accountants.answers.relations import Relation, as_relation
from dpkit.mechanisms import _check
from dpkit.mechanisms._clip import shrinking
from dpkit.mechanisms.clips import Clip, Flat, as_clip
from dpkit.mechanisms.noise import gaussian_noise, wide
from dpkit.mechanisms.norms import squared_norm
from dpkit.mechanisms.pinning import pinned
from dpkit.mechanisms.protocol import BoundedSum, Key, PyTree
from dpkit.mechanisms.stream import Steady

_SMALLEST_STDDEV, _LARGEST_STDDEV = 1e-30, 1e30
# Float32 rounding moves the sum too. With unit u = 2^-24, a sum of n records that is
# taken in short chains, a tree and with compensation is off by at most 49 u n C between
# two neighbours (dpkit.rewrite.blocks counts the units); a clipped record's own norm by
# 14.5 u C, once. Both are at most 64 u n C, for every n that has something to add to.
_ROUNDING_PER_RECORD = 2**-18
# In two words, 2^20 records are off by 2^-18 C: less than the smallest allowance.
_MOST_RECORDS = 2**20


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=(),
    meta_fields=("clip", "noise_multiplier", "max_summands"),
)
@dataclasses.dataclass(frozen=True, init=False)
class GaussianSum(Steady, BoundedSum):
    r"""Sum of clipped records plus Gaussian noise.

    output = sum_i x_i phi(||x_i||) + stddev z,  z ~ N(0, I),
    stddev = noise_multiplier * C * (1 + n 2^-18),  n = max_summands,
    with phi(n) = min(1, C / n), or another clipping function of radius C.

    Privacy: adding or removing a record, or replacing it by a zero record, moves the
    sum by at most C in L2 norm, replacing it by another by at most 2C; the release is
    a Gaussian mechanism whose noise is `noise_multiplier` times the contribution radius
    C. The excess, 2^-16 unless max_summands is given, pays for float32 rounding of the
    clip factors and of the sum: n records that all point the same way, added in chains
    of 32 at most, in a tree and with compensation, round it by up to 49 n C 2^-24
    between two neighbours, and a clipped record is longer than C by 16 C 2^-24 at most.
    A call sums in two words, which 2^-16 pays for up to 2^20 records. The same event
    stands for every relation: accountants know the 2.

    Args:
      clip_norm: C of flat clipping, from 1e-10 to 1e15, in the unit of the records;
        infinity only where noise_multiplier is 0. `dataclasses.replace` of it changes
        the norm of a flat clip.
      noise_multiplier: standard deviation of the noise / C; >= 0, no unit. Zero
        publishes the sum itself, and the event says so (NonPrivateDpEvent).
      max_summands: n >= 1, public: the most records in a total, summed elsewhere in
        float32, that `privatize` is given.
      clip: any clipping function, instead of clip_norm; C is its radius.

    Raises:
      ValueError: a number out of range, or both or neither of clip_norm and clip; on a
        call, more than 2^20 records.
      TypeError: a boolean, a string, an array or a tracer.

    Example:
      >>> mechanism = GaussianSum(clip_norm=1.0, noise_multiplier=2.0)
      >>> mechanism.event("add_remove")
      GaussianDpEvent(noise_multiplier=2.0)
      >>> mechanism(jax.random.key(0), jnp.array([[3.0, 4.0], [0.0, 1.0]])).shape
      (2,)

    Reference: Abadi et al., "Deep Learning with Differential Privacy", 2016,
    arXiv:1607.00133, Algorithm 1.
    """

    clip: Clip
    noise_multiplier: float
    max_summands: int

    def __init__(
        self,
        clip_norm: float | None = None,
        noise_multiplier: float | None = None,
        max_summands: int = 4,
        *,
        clip: Clip | None = None,
    ) -> None:
        summands = _numbers.integer_at_least(1, max_summands=max_summands)
        noise = _numbers.non_negative(noise_multiplier=noise_multiplier)
        object.__setattr__(self, "clip", _one_clip(clip_norm, clip, noise))
        object.__setattr__(self, "noise_multiplier", noise)
        object.__setattr__(self, "max_summands", summands)
        if noise:
            stddev_in_range(noise, self.stddev, self.clip_norm)

    @property
    def clip_norm(self) -> float:
        """C, the clip's radius: the norm that one contribution never passes."""
        return self.clip.radius

    @property
    def stddev(self) -> float:
        """Standard deviation of the noise, in the unit of a contribution."""
        if self.noise_multiplier == 0:
            return 0.0
        allowance = rounding_allowance(self.max_summands)
        return self.noise_multiplier * self.clip_norm * allowance

    def event(self, relation: Relation | str) -> DpEvent:
        """A Gaussian with this noise multiplier, under every relation."""
        as_relation(relation)
        if self.noise_multiplier == 0:
            return NonPrivateDpEvent()
        return GaussianDpEvent(self.noise_multiplier)

    def contribute(self, key: Key, record: PyTree) -> PyTree:
        """The record, clipped; the key is not used."""
        del key
        return clip_record(record, self.clip)

    def publish(self, key: Key, total: PyTree, rest: PyTree) -> PyTree:
        """The total plus noise; the rest joins the noise, before anything is lost."""
        return jax.tree.map(jnp.add, total, self.privatize(key, rest))

    def __call__(self, key: Key, records: PyTree) -> PyTree:
        """Release: clip every record, sum, add noise."""
        refuse_too_many(records)
        return super().__call__(key, records)

    def privatize(self, key: Key, total: PyTree) -> PyTree:
        """The total plus noise, in float32 or wider."""
        return self.step(key, total, ())[0]

    def step(
        self,
        key: Key,
        total: PyTree,
        state: PyTree,
        statistics: PyTree = (),
        *,
        generator: str | None = None,
    ) -> tuple[PyTree, PyTree]:
        """The total plus noise of its own, in float32 or wider; see `Stream`."""
        del statistics
        noise = gaussian_noise(
            key, total, self.stddev, generator=generator or "threefry"
        )
        return jax.tree.map(lambda x, z: x.astype(z.dtype) + z, total, noise), state

    def with_noise(self, noise_multiplier: float) -> GaussianSum:
        """The same sum with another noise multiplier."""
        return dataclasses.replace(self, noise_multiplier=noise_multiplier)

    def words(self) -> dict[str, Any]:
        """The clip and the noise multiplier."""
        return {"clip": self.clip, "noise_multiplier": self.noise_multiplier}


def clip_record(record: PyTree, clip: Any) -> PyTree:
    r"""One record, scaled down to the radius of a clipping function at most.

    x * phi(||x||), for a number C x * min(1, C / ||x||); the norm over all leaves
    together.

    Privacy: whatever the record holds, the result is finite and its norm is at most
    C (1 + 2^-20), C being the radius and the excess float32 rounding. That holds for
    any number of leaves and any shapes: with u = 2^-24, the norm is told at least
    (1 - 9.5 u) of what it is (`norms` has the proof); the constant C, the quotient, and
    the product with an entry are off by u each at most, and 2 u are left for a division
    or a root that is right in all but the last bit: 14.5 u, below 16 u = 2^-20.

    | record | result |
    |---|---|
    | all zeros, or no elements | itself |
    | norm at most C | itself, if clipping is flat and the norm is told right |
    | norm above C | same direction, norm C, if clipping is flat |
    | norm near C, more than 16 additions | told too large by what they may lose |
    | a NaN or an infinity in any leaf | exactly zero in every leaf |
    | finite, but its squares overflow float32 (norm above 1.8e19) | exactly zero |
    | entries below 1e-19 | kept; they don't count in the norm, and can't matter there |
    | float16, bfloat16 | converted to float32 first, so that squares don't overflow |

    Args:
      record: floating leaves of any shapes, without a record axis.
      clip: a clipping function, or a number: C of flat clipping in the unit of the
        record, from 1e-10, so that the float32 norm can be trusted, to 1e15; infinity
        keeps every finite record as it is. May be a traced array.

    Returns:
      The same structure and shapes, in float32 (float64 for float64 leaves).

    Raises:
      TypeError: a leaf is not floating, or clip is neither number nor function.
      ValueError: a number out of range; leaves that the clip's groups don't cover.

    Example:
      >>> clip_record(jnp.array([3.0, 4.0]), 1.0)
      Array([0.6, 0.8], dtype=float32)
      >>> clip_record({"a": jnp.array([jnp.nan, 1.0]), "b": jnp.array(2.0)}, 1.0)
      {'a': Array([0., 0.], dtype=float32), 'b': Array(0., dtype=float32)}

    Reference: Abadi et al., "Deep Learning with Differential Privacy", 2016,
    arXiv:1607.00133, Algorithm 1.
    """
    _check.floating(tree=record)
    clip = as_clip(clip)
    clip.groups(record)  # refuses leaves without a group before anything is computed
    return clip_pinned(pinned(record), clip)[0]


def clip_pinned(record: PyTree, clip: Any) -> tuple[PyTree, jax.Array]:
    """`clip_record` for a record that is in memory, and the norm that it had.

    Privacy: as `clip_record`, if the record is an input of the compiled program or
    comes from `pinned`; a record that is computed beside this call has no bound.

    Args:
      record: floating leaves of any shapes, without a record axis.
      clip: a clipping function, or C of flat clipping; may be traced.

    Returns:
      The clipped record, and its norm before, over all leaves: private, not finite if
      an entry isn't.

    Raises:
      TypeError: a leaf is not floating, or clip is neither number nor function.
      ValueError: a number out of range; leaves that the clip's groups don't cover.

    Example:
      >>> clip_pinned(jnp.array([3.0, 4.0]), 1.0)
      (Array([0.6, 0.8], dtype=float32), Array(5., dtype=float32))
    """
    clip = as_clip(clip)
    groups = clip.groups(record)
    norm = global_norm(record)
    factors = clip.factors(group_norms(record, groups) if any(groups) else norm[None])
    usable = jnp.isfinite(norm)

    def scale(leaf: jax.Array, group: int) -> jax.Array:
        # `where`, not a factor of 0: 0 * NaN is NaN.
        scaled = leaf.astype(wide(leaf.dtype)) * factors[group].astype(wide(leaf.dtype))
        return jnp.where(usable, scaled, jnp.zeros_like(scaled))

    leaves, structure = jax.tree.flatten(record)
    clipped = [scale(*pair) for pair in zip(leaves, groups, strict=True)]
    return jax.tree.unflatten(structure, clipped), norm


def clip_factor(norm: jax.Array, clip_norm: Any) -> jax.Array:
    """What a record of this norm is multiplied with: min(1, C / norm).

    Privacy: norm * factor <= C up to rounding; a norm that is not finite gives 0. The
    record itself must then be replaced by zeros, since 0 * NaN is NaN.

    Args:
      norm: norms >= 0, any shape.
      clip_norm: C > 0, or infinity. A traced one that is NaN or not positive gives 0.

    Returns:
      Factors from 0 to 1, of the shape and dtype of `norm`.

    Raises:
      ValueError: clip_norm is a number and not positive.

    Example:
      >>> clip_factor(jnp.array([0.0, 0.5, 1.0, 2.0, 10.0, jnp.nan]), 1.0)
      Array([1. , 1. , 1. , 0.5, 0.1, 0. ], dtype=float32)

    Reference: Abadi et al., "Deep Learning with Differential Privacy", 2016,
    arXiv:1607.00133, Algorithm 1.
    """
    clip_norm = _checked_limit(clip_norm)
    usable = jnp.isfinite(norm)
    finite = jnp.where(usable, norm, jnp.zeros_like(norm))
    return jnp.where(usable, shrinking(finite, clip_norm), jnp.zeros_like(norm))


def group_norms(tree: PyTree, groups: tuple[int, ...]) -> jax.Array:
    """The L2 norm of every group of leaves, (K,) in float32 or wider.

    Args:
      tree: floating leaves.
      groups: each leaf's group, numbers 0..K-1, as a clip's `groups` says.

    Returns:
      The K norms; one of 0 if there is no leaf.

    Example:
      >>> tree = {"a": jnp.array(3.0), "b": jnp.array(5.0), "c": jnp.array(4.0)}
      >>> group_norms(tree, (0, 1, 0))
      Array([5., 5.], dtype=float32)
    """
    leaves = jax.tree.leaves(tree)
    norms = [
        global_norm([leaf for leaf, g in zip(leaves, groups, strict=True) if g == k])
        for k in range(max(groups, default=0) + 1)
    ]
    double = any(norm.dtype == np.float64 for norm in norms)
    dtype = np.float64 if double else np.float32
    return jnp.stack([norm.astype(dtype) for norm in norms])


def global_norm(tree: PyTree) -> jax.Array:
    """L2 norm over all leaves together, in float32 or wider.

    At least 1 - 9.5 2^-24 of the exact norm for any number and shapes of leaves, or
    larger: `norms.squared_norm` adds by halves and raises what rounding may have lost.

    Args:
      tree: floating leaves; none at all has norm 0.

    Returns:
      A scalar >= 0; not finite if an entry isn't, or if the squares overflow.

    Raises:
      TypeError: a leaf is not floating.

    Example:
      >>> global_norm({"a": jnp.array([2.0, 3.0]), "b": jnp.array(6.0)})
      Array(7., dtype=float32)
    """
    _check.floating(tree=tree)
    return jnp.sqrt(squared_norm(jax.tree.leaves(tree)))


def rounding_allowance(max_summands: int) -> float:
    """What noise is multiplied with, for a float32 sum of this many records.

    Example:
      >>> rounding_allowance(4) == 1 + 2**-16
      True
    """
    return 1 + max_summands * _ROUNDING_PER_RECORD


def refuse_too_many(records: PyTree) -> None:
    """Refuse more records than a sum in two words, and its noise, are made for.

    Raises:
      ValueError: more than 2^20 records, none at all to stack, or unequal lengths.
    """
    num_records = _check.same_length(records=records)
    if num_records > _MOST_RECORDS:
        raise ValueError(
            f"records has {num_records} rows: needed at most {_MOST_RECORDS}, "
            "whose rounding the noise covers"
        )


def stddev_in_range(noise_multiplier: float, stddev: float, clip_norm: float) -> None:
    """Refuse noise that float32 can't carry.

    Raises:
      ValueError: a standard deviation below 1e-30 or above 1e30.
    """
    if not _SMALLEST_STDDEV <= stddev <= _LARGEST_STDDEV:
        raise ValueError(
            f"noise_multiplier={noise_multiplier!r}: needed noise of "
            f"{_SMALLEST_STDDEV} to {_LARGEST_STDDEV}, which float32 can carry; with "
            f"clip_norm={clip_norm!r} it is {stddev!r}"
        )


def _one_clip(clip_norm: Any, clip: Any, noise_multiplier: float) -> Clip:
    """The clip that is given by its norm or as such: its radius finite, if noised."""
    if clip_norm is None and clip is None:
        raise ValueError(
            "clip_norm=None, clip=None: needed one of them, such as clip_norm=1.0"
        )
    if clip_norm is not None:
        # `dataclasses.replace(mechanism, clip_norm=C)` hands over the old clip too.
        if clip is not None and not isinstance(clip, Flat):
            raise ValueError(
                f"clip_norm={clip_norm!r}: needed no norm beside clip={clip!r}, which "
                "has its own; replace clip instead"
            )
        clip = Flat(clip_norm)
    if not isinstance(clip, Clip):
        raise TypeError(f"clip={clip!r}: needed a clipping function, such as Flat(1.0)")
    if noise_multiplier or clip.radius != math.inf:
        _numbers.positive(clip_norm=clip.radius)
    return clip


def _checked_limit(clip_norm: Any) -> Any:
    """A positive number, perhaps infinite; an array as it is, as it may be traced."""
    if isinstance(clip_norm, jax.Array) or (
        isinstance(clip_norm, float) and clip_norm == math.inf
    ):
        return clip_norm
    return _numbers.positive(clip_norm=clip_norm)
