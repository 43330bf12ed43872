"""The one free parameter of a declared run that a budget decides.

A noise multiplier is made as small, a number of steps or a sampling rate as large as
the certified epsilon allows. What is returned was checked itself, at that very value.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from dpkit.accountants.readings import axis

if TYPE_CHECKING:
    from dpkit.accountants import PrivacyBound
    from dpkit.budget.declaration import Declaration

FREE = (*axis.FREE, "epsilon", "delta")


@dataclasses.dataclass(frozen=True)
class Solution:
    """A parameter that meets a budget.

    Attributes:
      name: which parameter.
      value: its value.
      bound: certified; epsilon is at most the target at this value.
      run: the declaration with the value in it.

    Example:
      >>> from dpkit.budget.declaration import declare
      >>> run = declare({"relation": "add_remove", "events":
      ...                [{"kind": "pure", "epsilon": 0.25}]})
      >>> solve(run, "epsilon", epsilon=None, delta=0.0).bound.certified
      True
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
    digits: int = axis.DIGITS,
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
      digits: significant digits of the answer, 1 to 7; steps are whole anyway.

    Returns:
      The solution, rounded to the safe side and verified.

    Raises:
      ValueError: out of reach, or a bad value.
      NotCertified: no accountant proves an answer.
      UnsupportedEvent, UnsupportedRelation: a part without a proof.

    Example:
      >>> from dpkit.budget.declaration import declare
      >>> run = declare({"relation": "add_remove", "events":
      ...                [{"kind": "pure", "epsilon": 0.25}]})
      >>> solve(run, "steps", epsilon=1.1, delta=0.0).value
      4
    """
    from dpkit.accountants import calibrate
    from dpkit.accountants.answers import checks

    checks.one_of(FREE, solve=name)
    if delta is None and name != "delta":
        delta = run.delta
        if delta is None:
            raise ValueError("delta is missing: give it, or a file that names it")
    if name == "epsilon":
        bound = _asked(run, delta or 0.0, accountant)
        return Solution(name, _upper(bound), bound, run)
    if epsilon is None:
        raise ValueError("epsilon is missing: there is no default")
    epsilon = checks.positive(epsilon=epsilon)
    if name == "delta":
        return _delta(run, epsilon, accountant)
    found = calibrate(
        lambda value: run.varied(name, value).event,
        epsilon=epsilon,
        delta=delta or 0.0,
        relation=run.relation,
        accountant=accountant,
        free=name,
        bracket=bracket,
        digits=digits,
    )
    bound = dataclasses.replace(found.bound, unit=run.unit)
    return Solution(name, found.value, bound, run.varied(name, found.value))


@dataclasses.dataclass(frozen=True)
class AttackLimit:
    """A limit on what an attacker gains, instead of one on epsilon.

    Attributes:
      gain: the largest advantage, or the largest true positive rate, in (0, 1).
      false_positives: the rate at which it is meant; None for the advantage.

    Raises:
      ValueError: out of range.

    Example:
      >>> AttackLimit(0.1, 0.01).false_positives
      0.01
    """

    gain: float
    false_positives: float | None = None

    def __post_init__(self) -> None:
        from dpkit.accountants.answers import checks

        checks.open_probability(gain=self.gain)
        if self.false_positives is not None:
            checks.open_probability(false_positives=self.false_positives)
            if self.gain <= self.false_positives:
                raise ValueError(
                    f"gain={self.gain} must be above false_positives="
                    f"{self.false_positives}: a blind guess reaches that"
                )

    def of(self, run: Declaration) -> _Gain:
        """What an attacker gains from a run, at most."""
        from dpkit.accountants import attack_risk

        risk = attack_risk(run.event, relation=run.relation)
        rate = self.false_positives
        gain = risk.advantage if rate is None else risk.tpr_at(rate)
        return _Gain(gain, risk.certified)


@dataclasses.dataclass(frozen=True)
class _Gain:
    """An upper bound on an attacker's gain, in the form that a search reads."""

    upper: float
    certified: bool
    warnings: tuple[str, ...] = ()


def solve_attack(
    run: Declaration,
    name: str,
    limit: AttackLimit,
    *,
    delta: float | None = None,
    bracket: tuple[float, float] | None = None,
    digits: int = axis.DIGITS,
) -> tuple[Solution, float]:
    """The best value of one parameter with which no attacker gains more than a limit.

    Args:
      run: what will be released; its own value of the parameter is not read.
      name: "noise_multiplier", "steps" or "sampling_rate".
      limit: what an attacker may gain.
      delta: where epsilon is reported too; None for the run's own.
      bracket: (lowest, highest) value to consider.
      digits: significant digits of the answer, 1 to 7; steps are whole anyway.

    Returns:
      The solution, whose bound is epsilon at delta, and the certified gain.

    Raises:
      ValueError: out of reach, or a bad value.
      NotCertified: no accountant proves an answer.
      UnsupportedEvent, UnsupportedRelation: a part without a proof.

    Example:
      >>> from dpkit.budget.declaration import declare
      >>> run = declare({"relation": "add_remove", "delta": 1e-5, "events":
      ...                [{"kind": "gaussian", "noise_multiplier": 9.0}]})
      >>> found, gain = solve_attack(run, "noise_multiplier", AttackLimit(0.38292493))
      >>> round(found.value, 3), gain <= 0.38292493
      (1.0, True)
    """
    from dpkit.accountants.answers import checks
    from dpkit.accountants.readings import calibration as search

    checks.one_of(axis.FREE, solve=name)
    delta = run.delta if delta is None else delta
    if delta is None:
        raise ValueError("delta is missing: give it, or a file that names it")
    found = search.solve(
        lambda value: limit.of(run.varied(name, value)),
        target=limit.gain,
        free=name,
        bracket=bracket,
        digits=digits,
    )
    solved = run.varied(name, found.value)
    bound = _asked(solved, delta, "best")
    return Solution(name, found.value, bound, solved), found.bound.upper


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
