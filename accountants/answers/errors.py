"""The exceptions that callers branch on; everything else is ValueError or TypeError.

They pickle (a worker process may raise one) and their text is one line that says what
was asked, what was wrong and what to do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from dpkit.accountants.answers.bounds import Budget


def _strings(values: Iterable[object]) -> tuple[str, ...]:
    """Each value as a string."""
    return tuple(str(value) for value in values)


@attrs.define(repr=False)
class BudgetExceeded(Exception):
    """A charge would pass the budget: nothing was released and nothing was written.

    Args:
      asked: epsilon of the charge alone.
      spent: epsilon spent before it.
      budget: the limit, a `Budget`.
      scope: whose budget would be passed.
      advice: what would fit, or what to do.

    Example:
      >>> from dpkit.accountants import Budget
      >>> error = BudgetExceeded(1.5, 2.0, Budget(3.0, 1e-5), advice="ask for less")
      >>> error.spent, str(error)
      (2.0, 'asked for epsilon=1.5 with epsilon=2 spent of epsilon=3, delta=1e-05 in
       scope=all: nothing was released; ask for less')
    """

    asked: float
    spent: float
    budget: Budget
    scope: str = "all"
    advice: str = "take more noise, or fewer steps"

    def __str__(self) -> str:
        limit = f"epsilon={self.budget.epsilon:g}, delta={self.budget.delta:g}"
        return (
            f"asked for epsilon={self.asked:.6g} with epsilon={self.spent:.6g} spent "
            f"of {limit} in scope={self.scope}: nothing was released; {self.advice}"
        )


@attrs.define(repr=False)
class UnsupportedEvent(ValueError):
    """An accountant has no proof for an event, or for one of its parts.

    Args:
      accountant: its name, as in `accountant="rdp"`.
      event: the sub-event that it can't read.
      reason: why, and what to use instead.

    Example:
      >>> str(UnsupportedEvent("pld", "ZCDpEvent(rho=1.0)", "use rdp"))
      'the pld accountant has no answer for ZCDpEvent(rho=1.0): use rdp'
    """

    accountant: str
    event: object
    reason: str = ""

    def __str__(self) -> str:
        because = f": {self.reason}" if self.reason else ""
        return (
            f"the {self.accountant} accountant has no answer for {self.event}{because}"
        )


@attrs.define(repr=False)
class UnsupportedRelation(ValueError):
    """There is no proof for an event under the neighbouring relation asked for.

    Args:
      accountant: its name, as in `accountant="rdp"`, or the mechanism's.
      relation: the relation asked for.
      event: the sub-event without a proof.
      allowed: the relations that do have one.

    Example:
      >>> str(UnsupportedRelation("rdp", "replace_one", "Poisson", ["zero_out"]))
      'rdp: no proof for Poisson under relation=replace_one; possible: zero_out'
    """

    accountant: str
    relation: object
    event: object
    allowed: tuple[str, ...] = attrs.field(default=(), converter=_strings)

    def __str__(self) -> str:
        possible = f"; possible: {', '.join(self.allowed)}" if self.allowed else ""
        return (
            f"{self.accountant}: no proof for {self.event} under "
            f"relation={self.relation}{possible}"
        )


class NotCertified(ValueError):
    """No accountant gives a proven upper bound for this question.

    Example:
      >>> raise NotCertified("delta=1e-12 is below what PLD certifies")
      Traceback (most recent call last):
      dpkit.accountants.answers.errors.NotCertified: delta=1e-12 is below what ...
    """


class Incompatible(ValueError):
    """Two things that can't be counted together: another relation, unit or data set.

    Example:
      >>> raise Incompatible("unit='user' but the ledger counts unit='example'")
      Traceback (most recent call last):
      dpkit.accountants.answers.errors.Incompatible: unit='user' but the ledger ...
    """


class LedgerCorrupt(Exception):
    """A ledger's integrity is broken: an edit, a truncation, a chain that ends early.

    Example:
      >>> raise LedgerCorrupt("entry 3: its hash does not match its content")
      Traceback (most recent call last):
      dpkit.accountants.answers.errors.LedgerCorrupt: entry 3: its hash does not ...
    """
