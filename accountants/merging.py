"""Several ledgers about one data set, made into one.

Ledgers of the same data, relation and unit were each charged without regard to the
others; what a person lost is all of it together. Each enters the new ledger as one
(epsilon, delta): its own honest report at its budget's delta, which adds up whatever
the order, or the interleaving, of the releases (filters.py, last paragraph but one).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path

import dp_accounting as dp

from dpkit.accountants import chain
from dpkit.accountants.bounds import Budget, PrivacyBound
from dpkit.accountants.errors import Incompatible
from dpkit.accountants.event_types import ApproxDpEvent, PureDpEvent
from dpkit.accountants.exchange import location
from dpkit.accountants.ledger import Ledger
from dpkit.accountants.store import Store
from dpkit.accountants.terms import Terms
from dpkit.accountants.totals import ZERO, above, add, exact


def merge(
    ledgers: Iterable[Ledger], into: str | Path | None, *, budget: Budget | None = None
) -> Ledger:
    """One new ledger that holds what all of these have spent; it retires them.

    Privacy: sequential composition of the ledgers: epsilons and deltas add up.

    Args:
      ledgers: at least one, with equal relation, unit and data set, and none of them,
        nor anything merged into them, twice.
      into: where the new ledger is made; nothing may be there yet.
      budget: of the new ledger; None adds up the budgets.

    Returns:
      The new ledger: one entry for each old one, which names its id, head and length.

    Raises:
      Incompatible: other relation, unit or data set, or two forks of one ledger.
      BudgetExceeded: the budget given is below what was spent.
      FileExistsError: `into` is there.

    Example:
      >>> terms = {"relation": "add_remove", "unit": "example", "dataset": "toy"}
      >>> parts = [Ledger.open(None, budget=Budget(1.0, 1e-6), **terms) for _ in "ab"]
      >>> for part in parts:
      ...     entry = part.charge(PureDpEvent(0.25), label="count")
      >>> merge(parts, None).spent().upper
      0.5

    Reference: Dwork, Rothblum & Vadhan, "Boosting and Differential Privacy", 2010, for
    the sum; Lyu, 2022, arXiv:2207.09397, for interleaved interactive releases.
    """
    found = list(ledgers)
    ids = _checked(found)
    first = found[0]
    total = budget or Budget(
        _total(ledger.budget.epsilon for ledger in found),
        _total(ledger.budget.delta for ledger in found),
    )
    terms = Terms(total, first.relation, first.unit, first.dataset, merged=ids)
    store = Store(location(into))
    if store.exists() or not store.create(chain.genesis(terms.to_body())):
        raise FileExistsError(f"into={into} is there already; choose another path")
    merged = Ledger(store)
    for ledger in found:
        _enter(merged, ledger)
    return merged


def _checked(ledgers: list[Ledger]) -> tuple[str, ...]:
    """The ids of all ledgers and of all that were merged into them, each once."""
    if not ledgers:
        raise ValueError("ledgers=[]: give at least one")
    terms = ledgers[0].terms
    ids: list[str] = []
    for ledger in ledgers:
        ledger.verify()
        ledger.terms.refuse_other(
            relation=terms.relation, unit=terms.unit, dataset=terms.dataset
        )
        ids += [ledger.id, *ledger.terms.merged]
    twice = {name for name in ids if ids.count(name) > 1}
    if twice:
        raise Incompatible(
            f"ledger id={min(twice)} is given twice: forks of one ledger hold the same "
            "entries, so their sum has no meaning; keep the longer one"
        )
    return tuple(ids)


def _enter(merged: Ledger, ledger: Ledger) -> None:
    """Retires a ledger, then charges what it spent to the merged one."""
    if not ledger.retired:
        ledger.retire(f"merged into {merged.id}")
    bound = ledger.spent()
    entries = ledger.entries()
    merged.charge(
        _event(bound),
        label=f"ledger {ledger.id}",
        key=f"merge {ledger.id}",
        provenance={"entries": len(entries), "head": entries[-1].hash},
    )


def _event(bound: PrivacyBound) -> dp.DpEvent:
    """A report as an event."""
    if bound.upper is None or math.isinf(bound.upper):
        return dp.NonPrivateDpEvent()
    if bound.upper == 0.0 or bound.delta == 0.0:
        return PureDpEvent(bound.upper)
    return ApproxDpEvent(bound.upper, bound.delta)


def _total(numbers: Iterable[float]) -> float:
    """A sum that is not below the exact one."""
    total: Decimal = ZERO
    for number in numbers:
        total = add(total, exact(number))
    return above(total)
