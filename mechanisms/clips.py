r"""Clipping functions: what a record is multiplied with, given its norm.

A clipped record is x phi(n), n its L2 norm over all leaves together. What matters for
privacy is the radius C_phi = sup_n n phi(n): the norm that no clipped record passes,
so that adding or removing a record, or replacing it by a zero record, moves a sum by at
most C_phi, and replacing it by another by at most 2 C_phi. What matters for learning
is the shape of phi: whether directions, orders of size, or means survive.

All are total: norms that are not finite give 0, and nothing is divided by zero. For
groups of leaves with norms of their own see `PerGroup`.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dpkit.mechanisms._clip import SMALLEST_NORM, Clip, OneGroup, in_range, shrinking
from dpkit.mechanisms.grouping import PerGroup

__all__ = [
    "PSAC",
    "AutoS",
    "Clip",
    "Custom",
    "Flat",
    "HardDrop",
    "PerGroup",
    "Unit",
    "as_clip",
]

# Norms at which a function of the user's own is tried: 100 in every decade, and 0.
_TRIED = np.append(np.float32(0), np.logspace(-30, 30, 6001).astype(np.float32))


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Flat(OneGroup):
    r"""Scales records above a norm down to it, and leaves the others alone.

    phi(n) = min(1, C / n),  C_phi = C.

    Privacy: radius C, up to float32 rounding.

    Args:
      clip_norm: C, from 1e-10 to 1e15, in the unit of the record; infinity clips
        nothing, for use without noise. An array, perhaps traced, of a released or
        public value: then there is no `radius`, and NaN or C <= 0 gives factors of 0.

    Raises:
      ValueError: a number out of range.
      TypeError: a boolean or a string; the radius of an array.

    Example:
      >>> Flat(1.0).factors(jnp.array([[0.0], [0.5], [2.0], [jnp.nan]])).tolist()
      [[1.0], [1.0], [0.5], [0.0]]

    Reference: Abadi et al., "Deep Learning with Differential Privacy", 2016,
    arXiv:1607.00133.
    """

    clip_norm: Any

    def __post_init__(self) -> None:
        if isinstance(self.clip_norm, jax.Array):
            if self.clip_norm.shape:
                raise ValueError(
                    f"clip_norm.shape={self.clip_norm.shape}: needed one number; for "
                    "several groups use PerGroup"
                )
            return
        infinite = isinstance(self.clip_norm, float) and self.clip_norm == math.inf
        norm = math.inf if infinite else in_range(clip_norm=self.clip_norm)
        object.__setattr__(self, "clip_norm", norm)

    @property
    def radius(self) -> float:
        """C, in the unit of the record."""
        if isinstance(self.clip_norm, jax.Array):
            raise TypeError(
                "clip_norm=array: needed a number, known beforehand, for a radius"
            )
        return self.clip_norm

    def factor(self, norm: jax.Array) -> jax.Array:
        """min(1, C / norm)."""
        return shrinking(norm, self.clip_norm)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Unit(OneGroup):
    r"""Flat clipping in units of C: the radius is 1 whatever the threshold.

    phi(n) = min(1 / C, 1 / n),  C_phi = 1.

    A learning rate that suits one C suits others too.

    Privacy: radius 1, up to float32 rounding.

    Args:
      clip_norm: C, from 1e-10 to 1e15, in the unit of the record.

    Raises:
      ValueError: a number out of range.
      TypeError: a boolean, a string or an array.

    Example:
      >>> Unit(4.0).factors(jnp.array([[0.0], [2.0], [8.0]])).tolist()
      [[0.25], [0.25], [0.125]]

    Reference: De et al., "Unlocking High-Accuracy Differentially Private Image
    Classification through Scale", 2022, arXiv:2204.13650.
    """

    clip_norm: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "clip_norm", in_range(clip_norm=self.clip_norm))

    @property
    def radius(self) -> float:
        """1, without a unit."""
        return 1.0

    def factor(self, norm: jax.Array) -> jax.Array:
        """1 / max(C, norm)."""
        return 1.0 / jnp.maximum(norm, self.clip_norm)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class AutoS(OneGroup):
    r"""Normalises every record, with a constant that keeps small ones small.

    phi(n) = R / (n + gamma),  C_phi = R (never quite reached).

    There is no threshold to choose: R only scales the learning rate. A small record is
    magnified by up to R / gamma.

    Privacy: radius R, up to float32 rounding.

    Args:
      radius: R, from 1e-10 to 1e15, in the unit of the result.
      gamma: from 1e-10 to 1e15, in the unit of the record; the paper's 0.01 unless
        given.

    Raises:
      ValueError: a number out of range.
      TypeError: a boolean, a string or an array.

    Example:
      >>> AutoS(1.0, gamma=0.5).factors(jnp.array([[0.0], [0.5], [1.5]])).tolist()
      [[2.0], [1.0], [0.5]]

    Reference: Bu, Wang, Zha, Karypis, "Automatic Clipping: Differentially Private Deep
    Learning Made Easier and Stronger", 2023, arXiv:2206.07136.
    """

    radius: float
    gamma: float = 0.01

    def __post_init__(self) -> None:
        object.__setattr__(self, "radius", in_range(radius=self.radius))
        object.__setattr__(self, "gamma", in_range(gamma=self.gamma))

    def factor(self, norm: jax.Array) -> jax.Array:
        """R / (norm + gamma)."""
        return self.radius / (norm + self.gamma)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class PSAC(OneGroup):
    r"""Per-sample adaptive clipping: normalises, but trusts the smallest least.

    phi(n) = C / (n + r / (n + r)),  phi(0) = C,  C_phi = C (never quite reached).

    A record of norm near 0 keeps its size, times C; the weight is largest at
    n = sqrt(r) - r.

    Privacy: radius C, up to float32 rounding.

    Args:
      clip_norm: C, from 1e-10 to 1e15, in the unit of the record.
      r: from 1e-10 to 1e15, in the unit of the record.

    Raises:
      ValueError: a number out of range.
      TypeError: a boolean, a string or an array.

    Example:
      >>> PSAC(1.0, r=1.0).factors(jnp.array([[0.0], [1.0]])).round(4).tolist()
      [[1.0], [0.666700005531311]]

    Reference: Xia et al., "Differentially Private Learning with Per-Sample Adaptive
    Clipping", 2023, arXiv:2212.00328.
    """

    clip_norm: float
    r: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "clip_norm", in_range(clip_norm=self.clip_norm))
        object.__setattr__(self, "r", in_range(r=self.r))

    @property
    def radius(self) -> float:
        """C, in the unit of the record."""
        return self.clip_norm

    def factor(self, norm: jax.Array) -> jax.Array:
        """C / (norm + r / (norm + r)): the denominator is at least the norm."""
        return self.clip_norm / (norm + self.r / (norm + self.r))


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class HardDrop(OneGroup):
    r"""Keeps records up to a norm as they are, and drops larger ones.

    phi(n) = 1 if n <= C else 0,  C_phi = C.

    The kept sum has every record's own size and direction; but it is the sum over the
    small records only.

    Privacy: radius C, up to float32 rounding.

    Args:
      clip_norm: C, from 1e-10 to 1e15, in the unit of the record.

    Raises:
      ValueError: a number out of range.
      TypeError: a boolean, a string or an array.

    Example:
      >>> HardDrop(1.0).factors(jnp.array([[0.0], [1.0], [1.5]])).tolist()
      [[1.0], [1.0], [0.0]]

    Reference: Bu, Wang, Long, Su, "On the Convergence and Calibration of Deep Learning
    with Differential Privacy", 2021, arXiv:2106.07830 ("global clipping").
    """

    clip_norm: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "clip_norm", in_range(clip_norm=self.clip_norm))

    @property
    def radius(self) -> float:
        """C, in the unit of the record."""
        return self.clip_norm

    def factor(self, norm: jax.Array) -> jax.Array:
        """1 up to C, 0 above."""
        return (norm <= self.clip_norm).astype(norm.dtype)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Custom(OneGroup):
    r"""A function of the user's own, with its bound checked and then enforced.

    phi(n) = min(f(n), R / max(n, 1e-10)), 0 where f(n) is NaN or negative;  C_phi = R.

    Privacy: radius R whatever the function does, because factors that would pass it
    are cut. Trying the function at 6,002 norms from 0 to 1e30 when the clip is made
    finds mistakes early; cutting closes what lies between these norms.

    Args:
      phi: hashable; from an array of finite float32 norms >= 0 to an array of factors,
        of the same shape, one at a time: a norm's factor must depend on nothing else.
      radius: R, from 1e-10 to 1e15: phi promises n phi(n) <= R.

    Raises:
      ValueError: at some norm phi is negative, not finite, or breaks the promise by
        more than a part in a million; or phi's result is no array of factors.
      TypeError: phi is no function, or not hashable.

    Example:
      >>> root = Custom(lambda n: 1.0 / (1.0 + jnp.sqrt(n) + n), radius=1.0)
      >>> root.factors(jnp.array([[0.0], [1.0]])).round(4).tolist()
      [[1.0], [0.33329999446868896]]
    """

    phi: Callable[[jax.Array], jax.Array]
    radius: float

    def __post_init__(self) -> None:
        if not callable(self.phi) or self.phi.__hash__ is None:
            raise TypeError(
                f"phi={self.phi!r}: needed a hashable function of an array of norms"
            )
        object.__setattr__(self, "radius", in_range(radius=self.radius))
        _try(self.phi, self.radius)

    def factor(self, norm: jax.Array) -> jax.Array:
        """The function's factor, between 0 and R / norm."""
        # Below 1e-10 float32 norms miss entries that a factor could magnify.
        most = self.radius / jnp.maximum(norm, SMALLEST_NORM)
        found = self.phi(norm).astype(norm.dtype)
        return jnp.where(found > 0, jnp.minimum(found, most), 0.0)


def as_clip(clip: Any) -> Clip:
    """The clipping function that this is, or flat clipping to this norm.

    Args:
      clip: a `Clip`, or a clip norm: a number, or an array that may be traced.

    Returns:
      A `Clip`.

    Raises:
      TypeError: neither.
      ValueError: a number that is no clip norm.

    Example:
      >>> as_clip(2.0), as_clip(HardDrop(1.0))
      (Flat(clip_norm=2.0), HardDrop(clip_norm=1.0))
    """
    if all(hasattr(type(clip), name) for name in ("groups", "factors", "sensitivity")):
        return clip
    number = isinstance(clip, int | float | np.number) and not isinstance(clip, bool)
    if number or isinstance(clip, jax.Array):
        return Flat(clip)
    raise TypeError(f"clip={clip!r}: needed a clipping function, such as Flat(1.0)")


@functools.lru_cache(maxsize=64)
def _try(phi: Callable[[jax.Array], jax.Array], radius: float) -> None:
    """Refuse a function that breaks its promise at one of many norms."""
    with jax.ensure_compile_time_eval():
        found = jax.jit(phi)(jnp.asarray(_TRIED))
    if found.shape != _TRIED.shape or not jnp.issubdtype(found.dtype, jnp.floating):
        raise ValueError(
            f"phi: gave {found.dtype}{found.shape} for {_TRIED.shape} norms: needed a "
            "floating factor for each"
        )
    norms, factors = _TRIED.astype(np.float64), np.asarray(found, np.float64)
    with np.errstate(invalid="ignore"):  # NaN and 0 times infinity are bad, too
        good = (factors >= 0) & (factors * norms <= radius * (1 + 1e-6))
    bad = ~(good & np.isfinite(factors))
    if bad.any():
        at = int(np.argmax(bad))
        raise ValueError(
            f"phi: phi({norms[at]:g})={factors[at]:g}: needed 0 <= phi(n) < infinity "
            f"and n phi(n) <= radius={radius!r}; give phi's true radius"
        )
