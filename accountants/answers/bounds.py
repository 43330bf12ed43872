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
class Bound:
    """What is known of one number, epsilon or delta.

    Attributes:
      lower: it is at least this, or None.
      estimate: an approximation without a proof, or None.
      upper: it is at most this (epsilon inf: no finite guarantee), or None.
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
      >>> Bound(upper=0.5, relation="zero_out").to_json()["relation"]
      'zero_out'
    """

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
        object.__setattr__(self, "relation", as_relation(self.relation))
        object.__setattr__(self, "warnings", tuple(self.warnings))
        checks.one_of(("static", "adaptive"), regime=self.regime)
        for name in ("lower", "estimate", "upper"):
            if (value := getattr(self, name)) is not None:
                value = checks.non_negative_or_inf(**{name: value})
                object.__setattr__(self, name, value)
        if self.lower is not None and self.upper is not None:
            if self.lower > self.upper:
                raise ValueError(
                    f"lower={self.lower} must be at most upper={self.upper}"
                )
        if self.certified and self.upper is None:
            raise ValueError("certified=True needs an upper bound: there is none")

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values: inf as "inf", the relation as its string."""
        data = dataclasses.asdict(self)
        for name, value in data.items():
            if isinstance(value, float) and math.isinf(value):
                data[name] = "inf"
        return data | {"relation": str(self.relation), "warnings": list(self.warnings)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrivacyBound(Bound):
    """What is known about epsilon at one delta.

    Attributes:
      delta: the delta asked about.

    Example:
      >>> bound = PrivacyBound(delta=1e-5, upper=1.5, certified=True,
      ...                      method_upper="rdp", relation="add_remove")
      >>> bound.upper, bound.to_json()["relation"]
      (1.5, 'add_remove')
    """

    delta: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "delta", checks.probability(delta=self.delta))
        super().__post_init__()


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeltaBound(Bound):
    """What is known about delta at one epsilon.

    Attributes:
      epsilon: the epsilon asked about.

    Example:
      >>> DeltaBound(epsilon=1.0, upper=1e-6, certified=True, method_upper="rdp",
      ...            relation="zero_out").to_json()["epsilon"]
      1.0
    """

    epsilon: float

    def __post_init__(self) -> None:
        epsilon = checks.non_negative_or_inf(epsilon=self.epsilon)
        object.__setattr__(self, "epsilon", epsilon)
        super().__post_init__()


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
