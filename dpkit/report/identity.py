"""What tells a ledger from others, for machines and for people."""

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpkit.accountants import Budget, Ledger
    from dpkit.accountants.storage.entry import Entry


def identity(book: "Ledger") -> dict[str, Any]:
    """The terms of a ledger and its head, as JSON values.

    Example:
      >>> from dpkit.accountants import Budget, Ledger
      >>> terms = {"relation": "zero_out", "unit": "user", "dataset": "toy"}
      >>> identity(Ledger.open(None, budget=Budget(1.0, 0.0), **terms))["unit"]
      'user'
    """
    return {
        "ledger": book.id,
        "budget": budget_json(book.budget),
        "relation": str(book.relation),
        "unit": book.unit,
        "dataset": book.dataset,
        "regime": book.regime,
        "head": book.head,
    }


def identity_in_words(book: "Ledger") -> list[tuple[str, Any]]:
    """The same, for people.

    Example:
      >>> from dpkit.accountants import Budget, Ledger
      >>> terms = {"relation": "zero_out", "unit": "user", "dataset": "toy"}
      >>> identity_in_words(Ledger.open(None, budget=Budget(1.0, 0.0), **terms))[1]
      ('budget', 'epsilon 1.0 at delta 0.0')
    """
    budget = book.budget
    words = f"epsilon {budget.epsilon!r} at delta {budget.delta!r}"
    return list((identity(book) | {"budget": words}).items())


def budget_json(budget: "Budget") -> dict[str, Any]:
    """A budget as JSON numbers; an infinite epsilon as a string.

    Example:
      >>> from dpkit.accountants import Budget
      >>> budget_json(Budget(float("inf"), 0.0))
      {'epsilon': 'inf', 'delta': 0.0}
    """
    finite = math.isfinite(budget.epsilon)
    epsilon = budget.epsilon if finite else "inf"
    return {"epsilon": epsilon, "delta": budget.delta}


def insecure(entry: "Entry") -> bool:
    """Whether anybody who knows a seed can take an entry's noise away.

    Example:
      >>> insecure(ledger.entries()[0])  # doctest: +SKIP
      False
    """
    return bool((entry.body.get("provenance") or {}).get("insecure_seed"))


def author(entry: "Entry") -> str:
    """Who charged, as they said themselves; empty where nobody said.

    Example:
      >>> author(ledger.entries()[0])  # doctest: +SKIP
      ''
    """
    return str((entry.body.get("provenance") or {}).get("author", ""))


def sweep(entry: "Entry") -> int | None:
    """How many runs a charge has sealed together; None where it is no sweep.

    Example:
      >>> sweep(ledger.entries()[0])  # doctest: +SKIP
    """
    runs = entry.body.get("runs")
    return runs and sum(run["times"] for run in runs)


def entry_json(entry: "Entry") -> dict[str, Any]:
    """An entry with its hash, as JSON values.

    Example:
      >>> entry_json(ledger.entries()[0])["kind"]  # doctest: +SKIP
      'genesis'
    """
    return {**entry.to_json(), "hash": entry.hash}
