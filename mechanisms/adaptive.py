r"""A Gaussian sum whose clip norm follows a quantile of the norms, privately.

Beside the sum of clipped records, each release tells how many records were below the
clip norm, with noise; the clip norm then moves until the wanted share is. Both parts
together are one Gaussian mechanism, so the count is paid for by a little more noise on
the sum: with bits of +1/2 and -1/2, whose size is 1/2 and not 1,

    1 / sigma^2 = 1 / sigma_sum^2 + K / (4 sigma_bits^2),   K groups, usually 1.

Source: Andrew, Thakkar, McMahan, Ramaswamy, "Differentially Private Learning with
Adaptive Clipping", 2021, arXiv:1905.03871.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from dp_accounting import DpEvent, GaussianDpEvent

from dpkit.accountants.answers import checks as _numbers
from dpkit.accountants.answers.relations import Relation, as_relation
from dpkit.mechanisms import _check
from dpkit.mechanisms._clip import Clip, in_range
from dpkit.mechanisms.clipping import (
    clip_pinned,
    group_norms,
    refuse_too_many,
    rounding_allowance,
    stddev_in_range,
)
from dpkit.mechanisms.clips import Flat
from dpkit.mechanisms.grouping import PerGroup, Prefixes, checked_prefixes
from dpkit.mechanisms.noise import gaussian_noise
from dpkit.mechanisms.pinning import pinned
from dpkit.mechanisms.protocol import BoundedSum, Key, PyTree
from dpkit.mechanisms.sampler import Sampler
from dpkit.mechanisms.stream import Steady

# The count of norms below the clip norm gets noise of b / 20: 1 % of more noise on the
# sum at most, where it is twice the noise of the sum or more.
_BIT_SHARE = 20.0
_STATIC = (
    "noise_multiplier",
    "bit_noise",
    "expected_batch_size",
    "quantile",
    "learning_rate",
    "min_clip_norm",
    "max_clip_norm",
    "max_summands",
    "prefixes",
)


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=("clip_norm",), meta_fields=_STATIC
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptiveGaussianSum(Steady, BoundedSum):
    r"""Sum of records clipped to C_t, and how many are below it; then the next C_t.

    output = {"sum": sum_i x_i min(1, C_t / ||x_i||) + sigma_sum C_t z,
              "below": sum_i b_i + sigma_bits z'},  b_i = +1/2 if ||x_i|| <= C_t, else
    -1/2;  C_{t+1} = C_t exp(-eta (f - gamma)),  f = 1/2 + below / b, between 0 and 1.

    The sum stays in the records' unit, its noise scales with C_t, and C_t cancels in
    the event: so it may be an array that changes without a new compilation.

    Privacy: a Gaussian mechanism of multiplier `noise_multiplier` under every relation,
    for sigma_sum = (1 / sigma^2 - K / (4 sigma_bits^2))^(-1/2). One record adds at most
    C_t to the sum and 1/2 to the count, in units of the noise 1 / sigma together.
    Replacing a record can move the sum by 2 C_t and the count by 1, at once, which is
    twice that; so accountants' factor of 2 holds for both parts. A record that is all
    zeros or not finite adds 0 to both, so that a zero record is a null record. C_t must
    be public, or follow from earlier releases alone: `updated` makes it so. The noise
    exceeds this by `max_summands` 2^-18, for float32 rounding, as in `GaussianSum`.

    Args:
      clip_norm: C_t, in the unit of the records: a number, or an array, perhaps
        traced; used within the limits below. With prefixes one for each group, or one
        that all start from.
      noise_multiplier: sigma > 0 of both parts together, without a unit.
      bit_noise: sigma_bits, of the count; above sigma sqrt(K) / 2. A twentieth of the
        expected batch costs little.
      expected_batch_size: b > 0, public: what the count is divided by, whatever the
        batch was.
      quantile: gamma in (0, 1): the share of records to be left whole.
      learning_rate: eta > 0: C_t moves by a factor of at most exp(eta) a release.
      min_clip_norm: the least C_t, from 1e-10.
      max_clip_norm: the largest C_t, to 1e15.
      max_summands: n >= 1, public: the most records in a total, summed elsewhere in
        float32, that `privatize` is given.
      prefixes: groups of leaves with a C_t each, as for `PerGroup`; one group if None.

    Raises:
      ValueError: a number out of range, or bit_noise too small for noise_multiplier;
        on a call, more than 2^20 records.
      TypeError: a boolean or a string; an array for a static number.

    Example:
      >>> mechanism = AdaptiveGaussianSum(clip_norm=1.0, noise_multiplier=1.0,
      ...                                 bit_noise=5.0, expected_batch_size=100.0)
      >>> mechanism.event("add_remove"), round(mechanism.sum_noise_multiplier, 7)
      (GaussianDpEvent(noise_multiplier=1.0), 1.0050378)
      >>> release = jax.jit(lambda key, records: mechanism(key, records))
      >>> released = release(jax.random.key(0), jnp.full((8, 1), 8.0))
      >>> float(jnp.isfinite(mechanism.updated(released).clip_norm))
      1.0

    Reference: Andrew, Thakkar, McMahan, Ramaswamy, 2021, arXiv:1905.03871, Algorithm 1
    and Theorem 1.
    """

    clip_norm: Any
    noise_multiplier: float
    bit_noise: float
    expected_batch_size: float
    quantile: float = 0.5
    learning_rate: float = 0.2
    min_clip_norm: float = 1e-8
    max_clip_norm: float = 1e8
    max_summands: int = 4
    prefixes: Prefixes | None = None

    def __post_init__(self) -> None:
        _numbers.integer_at_least(1, max_summands=self.max_summands)
        if self.prefixes is not None:
            self._set("prefixes", checked_prefixes(self.prefixes))
        for name in ("noise_multiplier", "bit_noise", "expected_batch_size"):
            self._set(name, _numbers.positive(**{name: getattr(self, name)}))
        self._set("quantile", _numbers.open_probability(quantile=self.quantile))
        rate = _numbers.positive(learning_rate=self.learning_rate)
        self._set("learning_rate", rate)
        self._set("min_clip_norm", in_range(min_clip_norm=self.min_clip_norm))
        self._set("max_clip_norm", in_range(max_clip_norm=self.max_clip_norm))
        if self.min_clip_norm > self.max_clip_norm:
            raise ValueError(
                f"min_clip_norm={self.min_clip_norm!r}: needed at most "
                f"max_clip_norm={self.max_clip_norm!r}"
            )
        self._set("clip_norm", self._checked_start())
        least = self.noise_multiplier * math.sqrt(self.num_groups) / 2
        # Near the limit the difference below loses all its digits.
        if self.bit_noise <= least * (1 + 1e-6):
            raise ValueError(
                f"bit_noise={self.bit_noise!r}: needed above {least!r}, half of "
                f"noise_multiplier={self.noise_multiplier!r} times the root of the "
                "number of groups; otherwise the count alone leaks more"
            )
        for limit in (self.min_clip_norm, self.max_clip_norm):
            stddev_in_range(self.noise_multiplier, self._stddev_per_norm * limit, limit)
        stddev_in_range(self.noise_multiplier, self.bit_stddev, 1.0)

    generators = ("threefry",)

    @property
    def clip_moves(self) -> bool:
        """True: it follows what was released."""
        return True

    @property
    def clipping(self) -> str:
        """Words for the clip norm's way."""
        start = np.asarray(self.clip_norm).tolist()
        return (
            f"flat clipping whose norm starts at {start!r} and follows the quantile "
            f"{self.quantile!r}"
        )

    @property
    def num_groups(self) -> int:
        """K, the number of clip norms."""
        return 1 if self.prefixes is None else len(self.prefixes)

    @property
    def sum_noise_multiplier(self) -> float:
        """sigma_sum, the noise of the sum / C_t: a little above noise_multiplier."""
        ratio = self.noise_multiplier / (2 * self.bit_noise)
        share = self.num_groups * ratio**2
        return self.noise_multiplier / math.sqrt(1 - share)

    @property
    def clip(self) -> Clip:
        """The clipping function of this release; its radius is C_t, an array.

        For sums that are clipped elsewhere, in the same compiled program.
        """
        if self.prefixes is None:
            return Flat(self._limits)
        return PerGroup(self._limits, self.prefixes)

    @property
    def stddev(self) -> jax.Array:
        """Standard deviation of the sum's noise: scalar, or (K,), for each group."""
        return self._stddev_per_norm * self._limits

    @property
    def bit_stddev(self) -> float:
        """Standard deviation of the count's noise."""
        return self.bit_noise * rounding_allowance(self.max_summands)

    def event(self, relation: Relation | str) -> DpEvent:
        """A Gaussian with the joint noise multiplier, under every relation."""
        as_relation(relation)
        return GaussianDpEvent(self.noise_multiplier)

    def contribute(self, key: Key, record: PyTree) -> PyTree:
        """The record, clipped, as "sum", and its bit as "below"; no key is used."""
        del key
        _check.floating(tree=record)
        record, clip = pinned(record), self.clip
        clipped, norm = clip_pinned(record, clip)
        norms = norm
        if self.prefixes is not None:
            norms = group_norms(record, clip.groups(record))
            # What is dropped whole has no bits either.
            norms = jnp.where(jnp.isfinite(norm), norms, math.inf)
        return {"sum": clipped, "below": self.bits(norms)}

    def bits(self, norms: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """The bit of every record: +1/2 at or below its clip norm, -1/2 above.

        Private, as the norms are.

        Args:
          norms: (...), any shape, before clipping; (..., K) with prefixes.
          mask: (...) booleans, False for padding; all True if left out.

        Returns:
          float32 in the shape of norms; 0 for padding, and for a record whose norms
          are all zero, or not all finite.

        Example:
          >>> mechanism = AdaptiveGaussianSum(clip_norm=1.0, noise_multiplier=1.0,
          ...                                 bit_noise=5.0, expected_batch_size=4.0)
          >>> mechanism.bits(jnp.array([0.0, 1.0, 2.0, jnp.nan])).tolist()
          [0.0, 0.5, -0.5, 0.0]
        """
        limits = self._limits.astype(norms.dtype)
        usable, some = jnp.isfinite(norms), norms > 0
        if self.prefixes is not None:
            limits = jnp.broadcast_to(limits, norms.shape)
            usable = jnp.all(usable, axis=-1, keepdims=True)
            some = jnp.any(some, axis=-1, keepdims=True)
            mask = None if mask is None else mask[..., None]
        counted = usable & some if mask is None else usable & some & mask
        bits = jnp.where(norms <= limits, jnp.float32(0.5), jnp.float32(-0.5))
        return jnp.where(counted, bits, jnp.zeros_like(bits))

    def count(self, norms: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """The total of the bits of a batch, for sums that are clipped elsewhere.

        With a sum that `clip` bounded, {"sum": total, "below": mechanism.count(norms,
        mask)} is what `privatize` takes. Private until then.

        Args:
          norms: (B,) before clipping, or (B, K) with prefixes.
          mask: (B,) booleans, False for padding.

        Returns:
          A float32 scalar, or (K,).

        Example:
          >>> mechanism = AdaptiveGaussianSum(clip_norm=1.0, noise_multiplier=1.0,
          ...                                 bit_noise=5.0, expected_batch_size=4.0)
          >>> norms = jnp.array([0.5, 0.7, 2.0, 9.0])
          >>> float(mechanism.count(norms, jnp.array([True, True, True, False])))
          0.5
        """
        return jnp.sum(self.bits(norms, mask), axis=0)

    def privatize(self, key: Key, total: PyTree) -> PyTree:
        """Both totals plus noise, in float32 or wider."""
        sum_key, bit_key = jax.random.split(key)
        leaves, structure = jax.tree.flatten(total["sum"])
        stddev = jnp.broadcast_to(self.stddev, (self.num_groups,))
        units = jax.tree.leaves(gaussian_noise(sum_key, total["sum"], 1.0))
        noisy = [
            leaf.astype(unit.dtype) + unit * stddev[group].astype(unit.dtype)
            for leaf, unit, group in zip(
                leaves, units, self.clip.groups(total["sum"]), strict=True
            )
        ]
        noise = gaussian_noise(bit_key, total["below"], self.bit_stddev)
        below = total["below"].astype(noise.dtype) + noise
        return {"sum": jax.tree.unflatten(structure, noisy), "below": below}

    def publish(self, key: Key, total: PyTree, rest: PyTree) -> PyTree:
        """The total plus noise; the rest joins the noise, before anything is lost."""
        return jax.tree.map(jnp.add, total, self.privatize(key, rest))

    def __call__(self, key: Key, records: PyTree) -> PyTree:
        """Release: clip every record, sum, count, add noise."""
        refuse_too_many(records)
        return super().__call__(key, records)

    def fraction(self, released: PyTree) -> jax.Array:
        """The estimated share of records below C_t, between 0 and 1; free.

        Args:
          released: what a call, or `privatize`, has published.

        Returns:
          1/2 + below / b, cut to [0, 1]: a scalar, or (K,).
        """
        share = 0.5 + released["below"] / self.expected_batch_size
        return jnp.clip(share, 0.0, 1.0)

    def updated(self, released: PyTree) -> AdaptiveGaussianSum:
        """The mechanism of the next release, its clip norm moved; free.

        Args:
          released: what a call, or `privatize`, has published. Never a total without
            noise: then the next clip norm, and with it everything, is not private.

        Returns:
          The same mechanism with another clip_norm, an array; its event is the same.
        """
        surplus = (self.fraction(released) - self.quantile).astype(jnp.float32)
        moved = self._limits * jnp.exp(-self.learning_rate * surplus)
        return dataclasses.replace(self, clip_norm=self._bounded(moved))

    def check(self, sampler: Sampler, steps: int) -> None:
        """Refuses groups, whose norms no batch has, and too large batches."""
        super().check(sampler, steps)
        if self.prefixes is not None:
            raise ValueError(
                f"prefixes={self.prefixes}: a run knows the norm of a whole record "
                "only: leave them out"
            )

    def clip_at(self, step: Any) -> Any:
        """Where the clip norm starts; later ones are nobody's to know beforehand."""
        del step
        return self.clip_norm

    def init(self, total_like: PyTree) -> jax.Array:
        """The clip norm of the first step."""
        del total_like
        return jnp.asarray(self.clip_norm, jnp.float32)

    def limit(self, state: jax.Array) -> jax.Array:
        """C_t."""
        return self._at(state)._limits

    def clip_for(self, state: jax.Array) -> Clip:
        """Flat clipping to C_t."""
        return self._at(state).clip

    def statistics(self, norms: jax.Array, state: jax.Array) -> jax.Array:
        """The count of the bits, private."""
        return self._at(state).count(norms)

    def step(
        self,
        key: Key,
        total: PyTree,
        state: jax.Array,
        statistics: PyTree = (),
        *,
        generator: str | None = None,
    ) -> tuple[PyTree, jax.Array]:
        """The total plus noise, and the next clip norm; see `Stream`."""
        del generator  # there is one
        if not jax.tree.leaves(statistics):
            raise ValueError(
                "statistics=(): adaptive clipping needs those of the batch's norms, as "
                "statistics(norms, state) or plan.gradient make them"
            )
        now = self._at(state)
        released = now.privatize(key, {"sum": total, "below": statistics})
        return released["sum"], now.updated(released).clip_norm

    def with_noise(self, noise_multiplier: float) -> AdaptiveGaussianSum:
        """The same with another joint noise, and a count that costs little of it."""
        noise = bit_noise(noise_multiplier, self.expected_batch_size)
        return dataclasses.replace(
            self, noise_multiplier=noise_multiplier, bit_noise=noise
        )

    def words(self) -> dict[str, Any]:
        """Where the clip norm starts, its quantile, the noise multiplier."""
        return {
            "clip_norm": float(self.clip_norm),
            "quantile": self.quantile,
            "noise_multiplier": self.noise_multiplier,
        }

    def _at(self, clip_norm: Any) -> AdaptiveGaussianSum:
        """The release with this clip norm."""
        return dataclasses.replace(self, clip_norm=clip_norm)

    @property
    def _stddev_per_norm(self) -> float:
        """Standard deviation of a group's noise / its clip norm."""
        spread = self.sum_noise_multiplier * math.sqrt(self.num_groups)
        return spread * rounding_allowance(self.max_summands)

    @property
    def _limits(self) -> jax.Array:
        """C_t as an array, scalar or (K,), within its limits."""
        norms = jnp.asarray(self.clip_norm, jnp.float32)
        if self.prefixes is None:
            return self._bounded(norms)
        return self._bounded(jnp.broadcast_to(norms, (self.num_groups,)))

    def _bounded(self, norms: jax.Array) -> jax.Array:
        """Between the limits, whatever a traced number may be."""
        norms = jnp.where(jnp.isnan(norms), self.min_clip_norm, norms)
        return jnp.clip(norms, self.min_clip_norm, self.max_clip_norm)

    def _checked_start(self) -> Any:
        """Numbers as float32, between the limits; arrays as they are."""
        given = self.clip_norm
        if isinstance(given, jax.Array) or not isinstance(
            given, int | float | str | np.number | tuple | list | None
        ):
            # A tracer, or what JAX puts in the place of a leaf.
            return given
        many = isinstance(given, tuple | list)
        norms = [
            _numbers.positive(clip_norm=norm) for norm in (given if many else [given])
        ]
        if many and len(norms) != self.num_groups:
            raise ValueError(
                f"clip_norm={given!r}: needed one norm for each of the "
                f"{self.num_groups} groups"
            )
        if not all(self.min_clip_norm <= n <= self.max_clip_norm for n in norms):
            raise ValueError(
                f"clip_norm={given!r}: needed min_clip_norm={self.min_clip_norm!r} to "
                f"max_clip_norm={self.max_clip_norm!r}"
            )
        return np.asarray(norms, np.float32) if many else np.float32(norms[0])

    def _set(self, name: str, value: Any) -> None:
        """Set a field of a frozen instance, while it is made."""
        object.__setattr__(self, name, value)


def bit_noise(noise_multiplier: float, expected_batch_size: float) -> float:
    """The noise of a count that costs little: a twentieth of the expected batch.

    Example:
      >>> bit_noise(1.0, 2000.0)
      100.0
    """
    return max(expected_batch_size / _BIT_SHARE, 2 * noise_multiplier)
