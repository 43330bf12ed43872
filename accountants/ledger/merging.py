"""Several ledgers about one data set, made into one.

Ledgers of the same data, relation and unit were each charged without regard to the
others; what a person lost is all of it together. Each enters the new ledger as one
(epsilon, delta): its own honest report at its budget's delta, which adds up whatever
the order, or the interleaving, of the releases (rules/filters.py, near the end). Only
one that was never charged costs no delta: epsilon 0 at a delta is not nothing.

Nothing can come between: the sum is counted in memory, where it may be refused; then
all old ledgers are locked, the new one appears as a whole, and the old ones are closed.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import dp_accounting as dp

from dpkit.accountants.answers.bounds import Budget, PrivacyBound
from dpkit.accountants.answers.errors import Incompatible, LedgerCorrupt
from dpkit.accountants.answers.exact import ZERO, above, exact
from dpkit.accountants.events.own import ApproxDpEvent, PureDpEvent
from dpkit.accountants.ledger.book import remark
from dpkit.accountants.ledger.ledger import Ledger
from dpkit.accountants.ledger.state import CHARGES, state_of
from dpkit.accountants.rules.terms import ALL, Terms
from dpkit.accountants.storage.entry import Entry, genesis
from dpkit.accountants.storage.lines import location
from dpkit.accountants.storage.store import Store

_MERGED = "merged into "


class _Part(NamedTuple):
    """A ledger at one moment: its entries then, and what they had spent."""

    ledger: Ledger
    entries: Sequence[Entry]
    spent: PrivacyBound

    @property
    def charged(self) -> bool:
        """Whether anything was charged, and not taken back before it began."""
        return state_of(self.entries[-1]).of(ALL).charges > 0


def merge(
    ledgers: Iterable[Ledger], into: str | Path | None, *, budget: Budget | None = None
) -> Ledger:
    """One new ledger that holds what all of these have spent; it retires them.

    All or nothing: where it fails, there is no new ledger and no old one is retired. If
    it is killed just before the end, the new ledger may be there, whole, while old ones
    are still open; the same call again then retires them.

    Privacy: sequential composition of the ledgers: epsilons and deltas add up.

    Args:
      ledgers: at least one, with equal relation, unit and data set, and none of them,
        nor anything merged into them, twice.
      into: where the new ledger is made; nothing may be there yet but a merge of these
        very ledgers that was killed.
      budget: of the new ledger; None adds up the budgets.

    Returns:
      The new ledger: one entry for each old one, which names its id, and its head and
      length before it was retired.

    Raises:
      Incompatible: other relation, unit or data set, two forks of one ledger, or one
        that was merged before.
      BudgetExceeded: the budget given is below what was spent.
      FileExistsError: `into` is there.
      RuntimeError: a ledger was written to meanwhile; merge again.

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
    about = first.relation, first.unit, first.dataset
    terms = Terms(total, *about, filter="approx", merged=ids)
    parts = [_Part(ledger, ledger.entries(), ledger.spent()) for ledger in found]
    store = Store(location(into))
    if store.exists():
        merged = _interrupted(store, terms, parts)
        if merged is None:
            raise FileExistsError(
                f"into={store.path} is there already; choose another path"
            )
        _retire(parts, merged)
        return merged
    _refuse_merged(found)
    draft = _draft(terms, parts)
    _retire(parts, draft, store)
    return Ledger(store)


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


def _refuse_merged(ledgers: list[Ledger]) -> None:
    """Refuse a ledger whose budget an earlier merge has handed on already."""
    for ledger in ledgers:
        last = ledger.entries()[-1]
        text = str(last.body.get("text", "")) if last.kind == "close" else ""
        if text.startswith(_MERGED):
            raise Incompatible(
                f"ledger id={ledger.id} was {text}: that one holds what it spent and "
                "what it had left; merge that one"
            )


def _draft(terms: Terms, parts: list[_Part]) -> Ledger:
    """The new ledger, in memory: what each part spent, charged within the budget."""
    store = Store(None)
    store.create(genesis(terms.to_body()))
    draft = Ledger(store)
    for part in parts:
        facts = {"entries": len(part.entries), "head": part.entries[-1].hash}
        label, key = f"ledger {part.ledger.id}", f"merge {part.ledger.id}"
        draft.charge(_event(part), label=label, key=key, provenance=facts)
    return draft


def _retire(parts: list[_Part], merged: Ledger, store: Store | None = None) -> None:
    """Closes all old ledgers under lock; with a store, writes the new one before."""
    with contextlib.ExitStack() as stack:
        for part in sorted(parts, key=lambda part: part.ledger.id):
            session = stack.enter_context(part.ledger._store.writing())
            head = session.head()
            if head.hash != part.entries[-1].hash:
                raise RuntimeError(
                    f"ledger id={part.ledger.id} was written to while it was merged: "
                    "nothing was changed; merge again"
                )
            if not state_of(head).closed:
                remark(session, "close", f"{_MERGED}{merged.id}")
        if store is not None and not store.create(*merged.entries()):
            raise FileExistsError(f"into={store.path} is there already")


def _interrupted(store: Store, terms: Terms, parts: list[_Part]) -> Ledger | None:
    """The ledger that a killed merge of the parts left, if it counts all of them."""
    try:
        store.check()
        merged = Ledger(store)
        merged.verify()
    except LedgerCorrupt:
        return None
    counted = merged.entries()[1 : len(parts) + 1]
    if merged.terms != terms or len(counted) < len(parts):
        return None
    for part, entry in zip(parts, counted, strict=True):
        facts = entry.body["provenance"]
        since = part.entries[facts["entries"] - 1 :]
        same = bool(since) and since[0].hash == facts["head"]
        if not same or any(later.kind in CHARGES for later in since[1:]):
            return None
    return merged


def _event(part: _Part) -> dp.DpEvent:
    """A ledger's report as an event."""
    bound = part.spent
    if bound.upper is None or math.isinf(bound.upper):
        return dp.NonPrivateDpEvent()
    if bound.delta == 0.0 or not part.charged:
        return PureDpEvent(bound.upper)
    return ApproxDpEvent(bound.upper, bound.delta)


def _total(numbers: Iterable[float]) -> float:
    """A sum that is not below the exact one."""
    return above(sum(map(exact, numbers), ZERO))
