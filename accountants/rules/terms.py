"""What a ledger is about, fixed by its first entry: budget, relation, unit, data
set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.bounds import Budget
from dpkit.accountants.answers.errors import Incompatible
from dpkit.accountants.answers.relations import Relation, as_relation
from dpkit.accountants.rules.filters import RenyiFilter, adaptive_filter, zcdp_filter
from dpkit.accountants.rules.totals import Account, Totals

ALL = "all"
UNNAMED = "unnamed"  # data of which nobody said what it is called
REGIMES = ("adaptive", "static")
FILTERS = ("approx", "auto", "pure", "zcdp")


@dataclass(frozen=True)
class Terms:
    """The terms of a ledger; they never change.

    Fields: budget, relation, unit (of privacy: "example", "user", …), dataset (a name
    and version given by the user; never derived from rows), regime, filter, adaptive
    (the part of the budget declared for charges chosen along the way, or None), scopes
    (named blocks of the data with budgets of their own), merged (ids of ledgers merged
    into it).

    Example:
      >>> terms = Terms(Budget(3.0, 1e-5), "add_remove", "example", "toy")
      >>> Terms.from_body(terms.to_body()) == terms
      True
    """

    budget: Budget
    relation: Relation | str
    unit: str
    dataset: str
    regime: str = "adaptive"
    filter: str = "auto"
    adaptive: Budget | None = None
    scopes: Mapping[str, Budget] = field(default_factory=dict)
    merged: tuple[str, ...] = ()

    def __post_init__(self):
        if not isinstance(self.budget, Budget):
            raise TypeError(f"budget={self.budget!r} must be a Budget")
        object.__setattr__(self, "relation", as_relation(self.relation))
        checks.text(unit=self.unit)
        checks.text(dataset=self.dataset)
        checks.one_of(REGIMES, regime=self.regime)
        checks.one_of(FILTERS, filter=self.filter)
        for scope, budget in self.scopes.items():
            checks.text(scope=scope)
            if scope == ALL or not isinstance(budget, Budget):
                raise ValueError(f"scope={scope!r} needs a Budget and another name")
        by_plan = self.filter in ("auto", "approx")
        if self.regime == "static" and (self.adaptive or not by_plan):
            raise ValueError("regime='static' counts sealed plans only: no filter")
        if self.adaptive is not None:
            self._check_adaptive(self.adaptive)
        for budget in (self.budget, *self.scopes.values()):
            holds = 0.0 < budget.epsilon < math.inf and budget.delta > 0.0
            if self.filter == "zcdp" and not holds:
                raise ValueError(
                    "filter='zcdp' needs a finite epsilon > 0 and a delta > 0"
                )

    def to_body(self) -> dict[str, Any]:
        """The body of the genesis entry."""
        body: dict[str, Any] = {
            "budget": self.budget.to_json(),
            "dataset": self.dataset,
            "filter": self.filter,
            "regime": self.regime,
            "relation": str(self.relation),
            "unit": self.unit,
        }
        opens = {scope: self.opening(scope) for scope in self.accounts()}
        more = {
            "adaptive": self.adaptive and self.adaptive.to_json(),
            "scopes": {name: b.to_json() for name, b in self.scopes.items()},
            "merged": list(self.merged),
            "opens": {scope: filter for scope, filter in opens.items() if filter},
        }
        return body | {name: value for name, value in more.items() if value}

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Terms:
        """The terms written by `to_body`."""
        adaptive = body.get("adaptive")
        return cls(
            Budget.from_json(body["budget"]),
            body["relation"],
            body["unit"],
            body["dataset"],
            body.get("regime", "adaptive"),
            body["filter"],
            Budget.from_json(adaptive) if adaptive else None,
            {s: Budget.from_json(b) for s, b in body.get("scopes", {}).items()},
            tuple(body.get("merged", ())),
        )

    def accounts(self) -> tuple[str, ...]:
        """Every scope that has an account, "all" first."""
        return (ALL, *self.scopes)

    def account(
        self, scope: str, totals: Totals, opened: Mapping[str, Any] | None
    ) -> Account:
        """The account of a scope with these totals and the filter that was opened."""
        filter = RenyiFilter.from_json(opened) if opened else None
        rule = "approx" if self.regime == "static" else self.filter
        return Account(scope, self.budget_of(scope), rule, totals, filter)

    def budget_of(self, scope: str) -> Budget:
        """The budget of a scope."""
        return self.budget if scope == ALL else self.scopes[scope]

    def opening(self, scope: str) -> dict[str, Any] | None:
        """The filter that the scope starts with, as JSON, or None."""
        if self.filter == "zcdp":
            budget = self.budget_of(scope)
            return zcdp_filter(budget.epsilon, budget.delta).to_json()
        if self.adaptive is None or scope != ALL:
            return None
        return adaptive_filter(self.adaptive.epsilon, self.adaptive.delta).to_json()

    def touched(self, scope: str | Sequence[str]) -> tuple[str, ...]:
        """The accounts that a charge on these scopes is checked against."""
        if scope == ALL:
            return self.accounts()
        unknown = [name for name in scope if name not in self.scopes]
        if unknown:
            raise ValueError(
                f"scope={unknown[0]!r} was not declared; declared: {list(self.scopes)}"
            )
        return (ALL, *scope)

    def refuse_other(self, **given: Any) -> None:
        """Raise Incompatible where a given term (no default) is not this ledger's.

        A ledger whose data is "unnamed" takes any name of it.
        """
        for name, value in given.items():
            own = getattr(self, name)
            if name == "dataset" and own == UNNAMED:
                continue
            if value not in (None, own, getattr(Terms, name, None)):
                raise Incompatible(
                    f"{name}={_plain(value)} but the ledger's is {name}={_plain(own)}: "
                    "use its own, or open another ledger"
                )

    def _check_adaptive(self, part: Budget) -> None:
        """Refuse a declared part that is no part, or that the filter has no use for."""
        if self.filter not in ("auto", "approx"):
            raise ValueError(
                f"adaptive= is for filter='approx', not filter={self.filter!r}"
            )
        if part.epsilon > self.budget.epsilon or part.delta > self.budget.delta:
            raise ValueError(f"adaptive={part} must be within budget={self.budget}")
        if part.epsilon <= 0.0 or part.delta <= 0.0:
            raise ValueError(f"adaptive={part} needs an epsilon > 0 and a delta > 0")


def _plain(value: Any) -> str:
    """A term as a person would write it."""
    return repr(value) if isinstance(value, Budget | dict) else f"{str(value)!r}"
