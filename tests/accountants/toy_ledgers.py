"""Small ledgers and events, shared by the tests of ledgers."""

from typing import Any

import dp_accounting as dp

from dpkit.accountants import Budget, Ledger, epsilon

TERMS: dict[str, Any] = {
    "relation": "add_remove",
    "unit": "example",
    "dataset": "toy 1.0",
}
BUDGET = Budget(3.0, 1e-5)
GAUSSIAN = dp.GaussianDpEvent(10.0)
STEP = dp.PoissonSampledDpEvent(0.01, dp.GaussianDpEvent(1.0))


def place() -> str | None:
    """Where `new_ledger` makes the next one: in memory, unless a fixture says other."""
    return None


def new_ledger(budget=BUDGET, **options) -> Any:
    """A new ledger, in memory; with the fixture `every_database` in each database."""
    return Ledger.open(place(), budget=budget, **TERMS | options)


def static_bound(event, delta=1e-5) -> Any:
    """The static bound of an event."""
    terms = {"relation": "add_remove", "unit": "example"}
    return epsilon(event, delta, lower=False, **terms)
