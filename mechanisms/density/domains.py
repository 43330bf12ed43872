"""Domains: public boxes, low and high of every axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from dpkit.accountants.answers import checks

Domain = tuple[tuple[float, float], ...]


def checked_domain(domain: Any) -> Domain:
    """A domain as a tuple of (low, high), one for each axis.

    It must be known without looking at the records: from a rule, a sensor, a law.

    Raises:
      TypeError: something else than pairs of numbers.
      ValueError: no axis, or a high that is not above its low.

    Example:
      >>> checked_domain([[0, 9], [-1, 1]])
      ((0.0, 9.0), (-1.0, 1.0))
    """
    try:
        pairs = [(low, high) for low, high in domain]
    except (TypeError, ValueError):
        raise TypeError(
            f"domain={domain!r}: needed (low, high) for every axis, such as "
            "[(0, 9), (0, 9)]"
        ) from None
    if not pairs:
        raise ValueError("domain=(): needed (low, high) for at least one axis")
    made = []
    for number, (low, high) in enumerate(pairs):
        low, high = (float(x) if isinstance(x, np.number) else x for x in (low, high))
        low = checks.finite(**{f"domain[{number}].low": low})
        high = checks.finite(**{f"domain[{number}].high": high})
        if not high > low:
            raise ValueError(
                f"domain[{number}]=({low}, {high}): needed a high above the low"
            )
        if not high - low < np.inf:
            raise ValueError(f"domain[{number}]=({low}, {high}): needed a finite width")
        made.append((low, high))
    return tuple(made)


def checked_centre(centre: Any, dimension: int) -> tuple[float, ...]:
    """A point as a tuple of finite numbers; () is zero.

    Raises:
      TypeError: not numbers. ValueError: of another dimension, or not finite.

    Example:
      >>> checked_centre([1, 2], 2)
      (1.0, 2.0)
    """
    if np.ndim(centre) != 1 or len(centre) not in (0, dimension):
        raise ValueError(f"centre={centre!r}: needed {dimension} numbers, or none")
    return tuple(checks.finite(**{f"centre[{j}]": x}) for j, x in enumerate(centre))


def shifted(points: Any, centre: tuple[float, ...]) -> Any:
    """Points as seen from a centre."""
    return points - np.array([centre], points.dtype) if centre else points
