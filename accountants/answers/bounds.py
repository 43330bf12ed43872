"""Answers and limits: bounds on epsilon, bounds on delta, and a budget.

Every accountant answers with an interval and its warrant. `upper` is what gates,
filters, calibration and headlines use, and only when `certified`: a proof stands behind
it. `estimate` may be an approximation. A field that a method can't give is None.
"""

import dataclasses
import math
from typing import Any

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.relations import Relation, as_relation


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrivacyBound:
    """What is known about epsilon at one delta.

    Attributes:
      delta: the delta asked about.
      lower: epsilon is at least this, or None.
      estimate: an approximation without a proof, or None.
      upper: epsilon is at most this (inf: no finite guarantee), or None.
      certified: whether `upper` is proven.
      method_lower: the accountant behind `lower`.
      method_upper: the accountant behind `upper`.
      method_estimate: the accountant behind `estimate`.
      relation: the neighbouring relation.
      unit: the privacy unit, as the user names it ("example", "user"), or None.
      regime: "static" (everything fixed before any output was seen) or "adaptive".
      warnings: what a reader must know, one sentence each.

    Raises:
      ValueError: NaN, lower above upper, or certified without an upper bound.

    Example:
      >>> bound = PrivacyBound(delta=1e-5, upper=1.5, certified=True,
      ...                      method_upper="rdp", relation="add_remove")
      >>> bound.upper, bound.to_json()["relation"]
      (1.5, 'add_remove')
    """

    delta: float
    lower: float | None = None
    estimate: float | None = None
    upper: float | None = None
    certified: bool = False
    method_lower: str | None = None
    method_upper: str | None = None
    method_estimate: str | None = None
    relation: Relation | str
    unit: str | None = None
    regime: str = "static"
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "delta", checks.probability(delta=self.delta))
        _settle(self)

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values: inf as "inf", the relation as its string."""
        return _as_json(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeltaBound:
    """What is known about delta at one epsilon; the fields of `PrivacyBound` otherwise.

    Attributes:
      epsilon: the epsilon asked about.
      lower: delta is at least this, or None.
      estimate: an approximation without a proof, or None.
      upper: delta is at most this, or None.
      certified: whether `upper` is proven.
      method_lower: the accountant behind `lower`.
      method_upper: the accountant behind `upper`.
      method_estimate: the accountant behind `estimate`.
      relation: the neighbouring relation.
      unit: the privacy unit, or None.
      regime: "static" or "adaptive".
      warnings: what a reader must know, one sentence each.

    Raises:
      ValueError: NaN, lower above upper, or certified without an upper bound.

    Example:
      >>> DeltaBound(epsilon=1.0, upper=1e-6, certified=True, method_upper="rdp",
      ...            relation="zero_out").to_json()["epsilon"]
      1.0
    """

    epsilon: float
    lower: float | None = None
    estimate: float | None = None
    upper: float | None = None
    certified: bool = False
    method_lower: str | None = None
    method_upper: str | None = None
    method_estimate: str | None = None
    relation: Relation | str
    unit: str | None = None
    regime: str = "static"
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        epsilon = checks.non_negative_or_inf(epsilon=self.epsilon)
        object.__setattr__(self, "epsilon", epsilon)
        _settle(self)

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values: inf as "inf", the relation as its string."""
        return _as_json(self)


@dataclasses.dataclass(frozen=True)
class Budget:
    """The most that may be spent: (epsilon, delta)-differential privacy in total.

    A budget of 0 is a budget of zero, and an infinite epsilon must be asked for
    explicitly; neither ever means "no budget".

    Attributes:
      epsilon: at least 0; `math.inf` for a ledger that only counts.
      delta: in [0, 1).

    Raises:
      ValueError: out of range.
      TypeError: no number.

    Example:
      >>> Budget(epsilon=3.0, delta=1e-5).to_json()
      {'epsilon': '3.0', 'delta': '1e-05'}
    """

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        epsilon = checks.non_negative_or_inf(epsilon=self.epsilon)
        object.__setattr__(self, "epsilon", epsilon)
        delta = checks.half_open_probability(delta=self.delta)
        object.__setattr__(self, "delta", delta)

    def to_json(self) -> dict[str, str]:
        """Both numbers as the shortest decimal strings that read back exactly."""
        return {"epsilon": repr(self.epsilon), "delta": repr(self.delta)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Budget":
        """The budget that `to_json` wrote; plain numbers are accepted too."""
        if set(data) != {"epsilon", "delta"}:
            raise ValueError(f"a budget has epsilon and delta, not {sorted(data)}")
        numbers = {
            name: float(value) if isinstance(value, str) else value
            for name, value in data.items()
        }
        return cls(**numbers)


def _settle(bound: PrivacyBound | DeltaBound) -> None:
    """Check and coerce the fields that both kinds of bound share."""
    object.__setattr__(bound, "relation", as_relation(bound.relation))
    object.__setattr__(bound, "warnings", tuple(bound.warnings))
    checks.one_of(("static", "adaptive"), regime=bound.regime)
    known = {
        name: checks.non_negative_or_inf(**{name: value})
        for name in ("lower", "estimate", "upper")
        if (value := getattr(bound, name)) is not None
    }
    for name, value in known.items():
        object.__setattr__(bound, name, value)
    if known.get("lower", 0.0) > known.get("upper", math.inf):
        raise ValueError(f"lower={bound.lower} must be at most upper={bound.upper}")
    if bound.certified and bound.upper is None:
        raise ValueError("certified=True needs an upper bound: there is none")


def _as_json(bound: PrivacyBound | DeltaBound) -> dict[str, Any]:
    """The fields of a bound as JSON values."""
    data = dataclasses.asdict(bound)
    for name, value in data.items():
        if isinstance(value, float) and math.isinf(value):
            data[name] = "inf"
    return data | {"relation": str(bound.relation), "warnings": list(bound.warnings)}
