"""The one free parameter of a declared run that a budget decides.

A noise multiplier is made as small, a number of steps or a sampling rate as large as
the certified epsilon allows. What is returned was checked itself, at that very value.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dpkit.accountants import PrivacyBound
    from dpkit.declaration import Declaration

FREE = ("noise_multiplier", "steps", "sampling_rate", "epsilon", "delta")
_MOST_STEPS = 10**9


@dataclasses.dataclass(frozen=True)
class Solution:
    """A parameter that meets a budget.

    Attributes:
      name: which parameter.
      value: its value.
      bound: certified; epsilon is at most the target at this value.
      run: the declaration with the value in it.

    Example:
      >>> Solution("steps", 3, None, None).value  # doctest: +SKIP
      3
    """

    name: str
    value: float
    bound: PrivacyBound
    run: Declaration


def solve(
    run: Declaration,
    name: str,
    *,
    epsilon: float | None,
    delta: float | None,
    accountant: str = "best",
    bracket: tuple[float, float] | None = None,
) -> Solution:
    """The best value of one parameter with which the run keeps a budget.

    Args:
      run: what will be released; its own value of the parameter is not read.
      name: "noise_multiplier" (the least), "steps" or "sampling_rate" (the largest),
        "epsilon" or "delta" (the least, given the other).
      epsilon: the target, above 0; None only where it is the question.
      delta: in [0, 1); None for the run's own, or where it is the question.
      accountant: "best", or one by name.
      bracket: (lowest, highest) value to consider.

    Returns:
      The solution, rounded to the safe side and verified.

    Raises:
      ValueError: out of reach, or a bad value.
      NotCertified: no accountant proves an answer.
      UnsupportedEvent: a part without a proof.
      UnsupportedRelation: a part without a proof under the relation.

    Example:
      >>> from dpkit.declaration import declare
      >>> run = declare({"relation": "add_remove", "events":
      ...                [{"kind": "pure", "epsilon": 0.25}]})
      >>> solve(run, "steps", epsilon=1.1, delta=0.0).value
      4
    """
    from dpkit.accountants import _check

    _check.one_of(FREE, solve=name)
    if delta is None and name != "delta":
        delta = run.delta
        if delta is None:
            raise ValueError("delta is missing: give it, or a file that names it")
    if name == "epsilon":
        return _epsilon(run, delta or 0.0, accountant)
    if epsilon is None:
        raise ValueError("epsilon is missing: there is no default")
    epsilon = _check.positive(epsilon=epsilon)
    if name == "delta":
        return _delta(run, epsilon, accountant)
    if name == "steps":
        return _steps(run, epsilon, delta or 0.0, accountant, bracket)
    return _continuous(run, name, epsilon, delta or 0.0, accountant, bracket)


def _epsilon(run: Declaration, delta: float, accountant: str) -> Solution:
    """The least epsilon at a delta."""
    bound = _asked(run, delta, accountant)
    return Solution("epsilon", _upper(bound), bound, run)


def _delta(run: Declaration, epsilon: float, accountant: str) -> Solution:
    """The least delta at an epsilon, and the pair as a bound on epsilon."""
    from dpkit.accountants import NotCertified, PrivacyBound, delta_of

    found = delta_of(
        run.event, epsilon, relation=run.relation, accountant=accountant, unit=run.unit
    )
    if found.upper is None or not found.certified or found.upper >= 1:
        raise NotCertified(f"no certified delta below 1 at epsilon={epsilon!r}")
    bound = PrivacyBound(
        delta=found.upper,
        upper=epsilon,
        certified=True,
        method_upper=found.method_upper,
        relation=found.relation,
        unit=found.unit,
        warnings=found.warnings,
    )
    return Solution("delta", found.upper, bound, run)


def _steps(
    run: Declaration,
    epsilon: float,
    delta: float,
    accountant: str,
    bracket: tuple[float, float] | None,
) -> Solution:
    """The largest number of steps; the cheap Rényi accountant finds the region."""
    from dpkit.accountants import UnsupportedEvent, UnsupportedRelation
    from dpkit.accountants.counting import largest_count

    least, most = bracket or (1, _MOST_STEPS)
    if least < 1 or most < least or int(most) != most:
        raise ValueError(f"bracket={bracket!r} must be (lowest, highest) step counts")

    def fits(count: int, who: str = accountant) -> bool:
        bound = _asked(run.varied("steps", count), delta, who)
        return _upper(bound) <= epsilon

    start = 1
    if delta > 0:
        try:
            start = max(1, largest_count(lambda n: fits(n, "rdp"), int(most)))
        except (UnsupportedEvent, UnsupportedRelation):
            start = 1
    count = largest_count(fits, int(most), start)
    if count < least:
        raise ValueError(
            f"epsilon={epsilon!r} is out of reach at delta={delta!r}: not even"
            f" {least:.0f} steps fit; take more noise"
        )
    found = run.varied("steps", count)
    return Solution("steps", count, _asked(found, delta, accountant), found)


def _continuous(
    run: Declaration,
    name: str,
    epsilon: float,
    delta: float,
    accountant: str,
    bracket: tuple[float, float] | None,
) -> Solution:
    """A noise multiplier, or a sampling rate by its inverse: both help as they grow."""
    from dpkit.accountants import calibrate

    low, high = bracket or ((1e-9, 1.0) if name == "sampling_rate" else (1e-2, 1e4))
    inverse = name == "sampling_rate"
    if inverse and not 0 < low < high <= 1:
        raise ValueError(f"bracket={bracket!r} must be (lowest, highest) in (0, 1]")
    span = (1 / high, 1 / low) if inverse else (low, high)
    found = calibrate(
        lambda x: run.varied(name, 1 / x if inverse else x).event,
        epsilon=epsilon,
        delta=delta,
        relation=run.relation,
        accountant=accountant,
        bracket=span,
    )
    value = 1 / found.value if inverse else found.value
    bound = dataclasses.replace(found.bound, unit=run.unit)
    return Solution(name, value, bound, run.varied(name, value))


def _asked(run: Declaration, delta: float, accountant: str) -> PrivacyBound:
    """What the accountants say of a run."""
    from dpkit.accountants import epsilon

    return epsilon(
        run.event, delta, relation=run.relation, accountant=accountant, unit=run.unit
    )


def _upper(bound: PrivacyBound) -> float:
    """The upper bound, if it is proven."""
    from dpkit.accountants import NotCertified

    if bound.upper is None or not bound.certified:
        raise NotCertified(
            f"no accountant certifies an epsilon at delta={bound.delta!r}"
        )
    return bound.upper
