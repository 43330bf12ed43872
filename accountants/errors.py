"""The exceptions that callers branch on; everything else is ValueError or TypeError.

They pickle (a worker process may raise one) and their text is one line that says what
was asked, what was wrong and what to do.
"""

from collections.abc import Iterable


class BudgetExceeded(Exception):
    """A charge would pass the budget: nothing was released and nothing was written.

    Args:
      asked: what the charge alone would cost.
      spent: what is spent already.
      budget: the limit.

    Example:
      >>> error = BudgetExceeded(asked="1.0", spent="2.5", budget="3.0")
      >>> error.spent, str(error)
      ('2.5', 'asked for 1.0 with 2.5 spent of a budget of 3.0: nothing was released')
    """

    def __init__(self, asked: object, spent: object, budget: object):
        super().__init__(asked, spent, budget)
        self.asked = asked
        self.spent = spent
        self.budget = budget

    def __str__(self) -> str:
        return (
            f"asked for {self.asked} with {self.spent} spent of a budget of "
            f"{self.budget}: nothing was released"
        )


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

    def __init__(self, accountant: str, event: object, reason: str = ""):
        super().__init__(accountant, event, reason)
        self.accountant = accountant
        self.event = event
        self.reason = reason

    def __str__(self) -> str:
        because = f": {self.reason}" if self.reason else ""
        return (
            f"the {self.accountant} accountant has no answer for {self.event}{because}"
        )


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

    def __init__(
        self,
        accountant: str,
        relation: object,
        event: object,
        allowed: Iterable[object] = (),
    ):
        super().__init__(accountant, relation, event, allowed)
        self.accountant = accountant
        self.relation = relation
        self.event = event
        self.allowed = tuple(str(name) for name in allowed)

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
      dpkit.accountants.errors.NotCertified: delta=1e-12 is below what PLD certifies
    """


class Incompatible(ValueError):
    """Two things that can't be counted together: another relation, unit or data set.

    Example:
      >>> raise Incompatible("unit='user' but the ledger counts unit='example'")
      Traceback (most recent call last):
      dpkit.accountants.errors.Incompatible: unit='user' but the ledger counts ...
    """


class LedgerCorrupt(Exception):
    """A ledger's integrity is broken: an edit, a truncation, a chain that ends early.

    Example:
      >>> raise LedgerCorrupt("entry 3: its hash does not match its content")
      Traceback (most recent call last):
      dpkit.accountants.errors.LedgerCorrupt: entry 3: its hash does not match ...
    """
