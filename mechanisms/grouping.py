"""Clip groups of leaves, each to a norm of its own.

The groups are public and explicit: every leaf of a record belongs to exactly one. Group
norms are known as soon as the leaves of the group are, so that a sum of gradients can
be formed layer by layer, and small layers aren't drowned by large ones.

Source: He et al., "Exploring the Limits of Differentially Private Deep Learning with
Group-wise Clipping", 2023, arXiv:2212.01539.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from dpkit.mechanisms._clip import (
    BoundedClip,
    finite_norms,
    in_range,
    shrinking,
)

Prefixes = tuple[tuple[str, ...], ...]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class PerGroup(BoundedClip):
    r"""Every group of leaves, scaled down to its own norm at most.

    c_k = min(1, C_k / n_k),  n_k the norm over the leaves of group k.

    Privacy: the groups are disjoint, so a clipped record has norm at most
    sqrt(sum_k C_k^2). A record with a NaN, an infinity or a square that overflows in
    any group has factor 0 in all of them.

    Args:
      clip_norms: (C_1, ..., C_K), 1e-10 to 1e15 each, in the unit of the record. An
        array, perhaps traced, of released or public values has no `radius`.
      prefixes: for every group the paths of its leaves, as "encoder/dense/kernel", or
        of the branches that hold them, as "encoder"; "" is the whole record.

    Raises:
      ValueError: a norm out of range, or numbers of norms and groups that differ; in
        use, a leaf that belongs to no group or to two, or a group without leaves.
      TypeError: norms that are no numbers, or paths that are no strings.

    Example:
      >>> clip = PerGroup((3.0, 4.0), (("body",), ("head/w", "head/b")))
      >>> clip.groups({"body": jnp.zeros(2), "head": {"b": 0.0, "w": jnp.zeros(3)}})
      (0, 1, 1)
      >>> clip.radius, clip.factors(jnp.array([6.0, 2.0])).tolist()
      (5.0, [0.5, 1.0])

    Reference: He et al., 2023, arXiv:2212.01539.
    """

    clip_norms: Any
    prefixes: Prefixes

    def __post_init__(self) -> None:
        object.__setattr__(self, "prefixes", checked_prefixes(self.prefixes))
        num_groups = len(self.prefixes)
        if isinstance(self.clip_norms, jax.Array):
            if self.clip_norms.shape != (num_groups,):
                raise ValueError(
                    f"clip_norms.shape={self.clip_norms.shape}: needed one norm for "
                    f"each of the {num_groups} groups"
                )
            return
        if not isinstance(self.clip_norms, tuple | list):
            raise TypeError(
                f"clip_norms={self.clip_norms!r}: needed a tuple with a norm for every "
                "group; PerGroup.uniform divides one norm among them"
            )
        norms = tuple(in_range(clip_norms=norm) for norm in self.clip_norms)
        if len(norms) != num_groups:
            raise ValueError(
                f"clip_norms={norms}: needed one norm for each of the {num_groups} "
                "groups in prefixes"
            )
        object.__setattr__(self, "clip_norms", norms)

    @classmethod
    def uniform(cls, clip_norm: float, prefixes: Prefixes) -> PerGroup:
        """Groups that share a radius evenly: C / sqrt(K) each.

        Args:
          clip_norm: C, the radius of all groups together.
          prefixes: the groups, as for the class.

        Returns:
          A clip of radius C.

        Example:
          >>> PerGroup.uniform(1.0, (("a",), ("b",), ("c",), ("d",))).clip_norms
          (0.5, 0.5, 0.5, 0.5)
        """
        prefixes = checked_prefixes(prefixes)
        share = in_range(clip_norm=clip_norm) / math.sqrt(len(prefixes))
        return cls((share,) * len(prefixes), prefixes)

    @classmethod
    def per_leaf(cls, tree: Any, clip_norm: float) -> PerGroup:
        """A group for every leaf, which share a radius evenly.

        Args:
          tree: any tree of the structure that is clipped; public, values unused.
          clip_norm: C, the radius of all leaves together.

        Returns:
          A clip of radius C.

        Example:
          >>> PerGroup.per_leaf({"w": 0.0, "b": 0.0, "c": [0.0, 0.0]}, 4.0)
          PerGroup(clip_norms=(2.0, 2.0, 2.0, 2.0),
                   prefixes=(('b',), ('c/0',), ('c/1',), ('w',)))
        """
        return cls.uniform(clip_norm, tuple((path,) for path in leaf_paths(tree)))

    @property
    def radius(self) -> float:
        """sqrt(sum_k C_k^2), in the unit of the record."""
        if isinstance(self.clip_norms, jax.Array):
            raise TypeError(
                "clip_norms=array: needed numbers, known beforehand, for a radius"
            )
        return math.hypot(*self.clip_norms)

    def groups(self, tree: Any) -> tuple[int, ...]:
        """The number of every leaf's group, in the order of the leaves."""
        return groups_of(tree, self.prefixes)

    def factors(self, norms: jax.Array) -> jax.Array:
        """Factors (..., K) from norms (..., K); all 0 where a norm isn't finite."""
        norms, usable = finite_norms(norms, len(self.prefixes))
        return jnp.where(usable, shrinking(norms, self.clip_norms), 0.0)


def leaf_paths(tree: Any) -> list[str]:
    """The path of every leaf, its keys joined by slashes, in the order of the leaves.

    Example:
      >>> leaf_paths({"dense": {"kernel": 0.0, "bias": 0.0}, "scale": [0.0]})
      ['dense/bias', 'dense/kernel', 'scale/0']
    """
    pairs = jax.tree_util.tree_leaves_with_path(tree)
    return [jax.tree_util.keystr(p, simple=True, separator="/") for p, _ in pairs]


def groups_of(tree: Any, prefixes: Prefixes) -> tuple[int, ...]:
    """The number of the one group that each leaf belongs to.

    Raises:
      ValueError: a leaf of no group or of two, or a group without leaves.

    Example:
      >>> groups_of({"a": 0.0, "ab": 0.0}, (("ab",), ("a",)))
      (1, 0)
    """
    found = tuple(_group_of(path, prefixes) for path in leaf_paths(tree))
    for k, group in enumerate(prefixes):
        if k not in found:
            raise ValueError(
                f"prefixes[{k}]={group}: no leaf starts with these; needed one of "
                f"{leaf_paths(tree)}"
            )
    return found


def checked_prefixes(prefixes: Any) -> Prefixes:
    """Groups as tuples of strings.

    Raises:
      TypeError: not a sequence of sequences of strings.
      ValueError: no group at all, or one without a path.
    """
    groups = prefixes if isinstance(prefixes, tuple | list) else ()
    for group in groups or (prefixes,):
        good = isinstance(group, tuple | list) and groups
        if not good or not all(isinstance(path, str) for path in group):
            raise TypeError(
                f"prefixes={prefixes!r}: needed a tuple of groups, each a tuple of "
                "paths, such as (('encoder',), ('head/kernel', 'head/bias'))"
            )
        if not group:
            raise ValueError(f"prefixes={prefixes!r}: needed a path in every group")
    return tuple(tuple(group) for group in groups)


def _group_of(path: str, prefixes: Prefixes) -> int:
    """The one group with a prefix of this path."""
    found = [
        k
        for k, group in enumerate(prefixes)
        if any(p in ("", path) or path.startswith(f"{p}/") for p in group)
    ]
    if len(found) != 1:
        where = f"belongs to the groups {found}" if found else "belongs to no group"
        raise ValueError(
            f"leaf {path!r} {where} of prefixes={prefixes}: needed exactly one"
        )
    return found[0]
