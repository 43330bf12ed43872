"""What a ledger is about, fixed by its first entry: budget, relation, unit, data
set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dpkit.accountants.answers import checks
from dpkit.accountants.answers.bounds import Budget
from dpkit.accountants.answers.errors import Incompatible
from dpkit.accountants.answers.relations import Relation, as_relation
from dpkit.accountants.rules.accounts import (
    FILTERS,
    Account,
    filter_from_json,
    opening_filter,
)
from dpkit.accountants.rules.totals import Totals

ALL = "all"
REGIMES = ("adaptive", "static")


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
    filter: str = "approx"
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
        if self.regime == "static" and (self.adaptive or self.filter != "approx"):
            raise ValueError("regime='static' counts sealed plans only: no filter")
        self.opening(ALL)

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
        if self.adaptive:
            body["adaptive"] = self.adaptive.to_json()
        if self.scopes:
            body["scopes"] = {name: b.to_json() for name, b in self.scopes.items()}
        if self.merged:
            body["merged"] = list(self.merged)
        opening = {s: self.opening(s) for s in self.accounts()}
        opening = {s: value for s, value in opening.items() if value}
        return body | ({"opens": opening} if opening else {})

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
        budget = self.budget if scope == ALL else self.scopes[scope]
        filter = filter_from_json(opened) if opened else None
        return Account(scope, budget, self.filter, totals, filter)

    def opening(self, scope: str) -> dict[str, Any] | None:
        """The filter that the scope starts with, as JSON, or None."""
        if scope == ALL:
            return opening_filter(self.filter, self.budget, self.adaptive)
        return opening_filter(self.filter, self.scopes[scope], None)

    def touched(self, scope: str | tuple[str, ...]) -> tuple[str, ...]:
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
        """Raise Incompatible where a given (not None) term is not this ledger's."""
        for name, value in given.items():
            own = getattr(self, name)
            if value is not None and value != own:
                raise Incompatible(
                    f"{name}={_plain(value)} but the ledger's is {name}={_plain(own)}: "
                    "use its own, or open another ledger"
                )


def _plain(value: Any) -> str:
    """A term as a person would write it."""
    return repr(value) if isinstance(value, Budget | dict) else f"{str(value)!r}"
